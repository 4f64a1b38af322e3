//! A syntax tree, a target and build arguments to a graph of [`Step`]s.
//!
//! [`lower`](fn@lower) turns a parsed Dockerfile into a [`Plan`]: the filesystem steps that the target needs, with every variable
//! expanded, every default filled in and every path made absolute, and the config of the image at their end. It is a pure
//! function: no files, no clock, no environment; base images are looked up through [`Images`].
//!
//! Two things come out of one walk over a stage's instructions, and this split is the crate's main idea:
//!
//! * **Steps**: RUN, COPY, ADD and WORKDIR make a filesystem from another one. They are nodes of the graph. Nothing that a step
//!   does not use is in it, so that equal steps are equal values.
//! * **The config**: ENV, LABEL, CMD and the like are a fold over the stage's config and make no step. Changing a LABEL
//!   changes no step.
//!
//! [`shell`](fn@shell) adds a step that stands nowhere in the file, so that a person can look around in the midst of a build.
//! [`check`](fn@check) walks the same way to say everything there is to say about a file, without needing any image; [`outline`](fn@outline)
//! and [`targets`] tell what a file offers to whoever builds it.
//!
//! ```
//! use plan::{BaseImage, ImageError, ImageErrorCause, Images, NetworkMode, SecurityMode, Op, Request};
//!
//! struct NoImages;
//!
//! impl Images for NoImages {
//!     fn resolve(&mut self, name: &oci::Reference, _: &oci::Platform, _: dockerfile::Span) -> Result<BaseImage, ImageError> {
//!         let message = format!("there is no `{name}`");
//!         Err(ImageError { cause: ImageErrorCause::NotFound, message, notes: Vec::new(), help: None })
//!     }
//! }
//!
//! let source = dockerfile::Source::new("Dockerfile", b"FROM scratch\nARG DIR=/srv\nCOPY app $DIR/\nCMD [\"/srv/app\"]\n");
//! let request = Request::plain("linux/amd64".parse()?);
//! let plan = plan::lower(&dockerfile::parse(&source).file, &request, &mut NoImages).expect("nothing is wrong");
//! let Op::Copy(copy) = &plan.step(plan.output().step).op else { panic!("CMD is no step") };
//! assert_eq!(copy.destination.path.as_str(), "/srv");
//! assert_eq!(plan.output().config.execution.cmd, Some(vec!["/srv/app".to_owned()]));
//! # Ok::<(), oci::PlatformError>(())
//! ```

#![forbid(unsafe_code)]

// The result.
mod finding;
mod mode;
mod mount;
mod outline;
mod owner;
mod path;
mod plan;
mod print;
mod step;

// The way to it, from the whole to the parts.
mod config;
mod copy;
mod instruction;
mod join;
mod lint;
mod lower;
mod mount_flag;
mod request;
mod run;
mod shell;
mod source;
mod stages;
mod trigger;

// What it is made with.
mod args;
mod contexts;
mod env;
mod epoch;
mod expand;
mod graph;
mod history;
mod meant;
mod pattern;
mod ports;
mod signal;
mod state;

pub use copy::RemoteKind;
pub use expand::ExpandError;
pub use finding::{ErrorKind, Feature, Finding, MountError, NameKind, PlanError, Warning, WarningKind};
pub use lower::{Checked, check, lower, outline, shell};
pub use mode::{EntryKind, Mode, ModeError, SymbolicMode};
pub use mount::{
    Access, BindMount, CacheId, CacheMount, HostMount, Mount, Presence, SecretMount, Sharing, SshMount,
    TmpfsMount,
};
pub use mount_flag::parse_size;
pub use outline::{Outline, OutlineArg, OutlineCache, OutlineMount, Target, targets};
pub use owner::{Owner, Principal};
pub use path::ImagePath;
pub use pattern::PatternError;
pub use plan::{HISTORY_COMMENT, HistoryEntry, Output, Plan};
pub use ports::PortError;
pub use request::{
    BaseImage, BaseLabels, BuildArg, ContextKind, Entitlement, GitDir, ImageError, ImageErrorCause, Images,
    NamedContext, RemoteContent, RemoteError, RemoteErrorCause, RemoteRequest, Request, TimeSource,
};
pub use shell::{Moment, Spot};
pub use step::{
    Archives, ContextName, Copy, Destination, DestinationForm, ExtraHost, Fetched, Image, InlineFile,
    Linkage, NetworkMode, Op, Parents, Place, Remote, Run, SecurityMode, Source, SourcePath, StageLabel,
    Step, StepId, UserSpec, Variable, VariableOrigin, Workdir,
};
