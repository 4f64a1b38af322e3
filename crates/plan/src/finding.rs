//! What lowering has to say about a Dockerfile: errors, which stop the build, and warnings.

use std::fmt;

use dockerfile::{MountKey, Rule, Span};
use oci::{Platform, PlatformError, Reference, ReferenceError};

use crate::path::MAX_BYTES;
use crate::{
    Entitlement, ExpandError, ImageError, ImagePath, ModeError, PortError, RemoteError, RemoteErrorCause,
};

/// Something about a place in the Dockerfile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding<K> {
    /// What it is; prints as the message.
    pub kind: K,
    /// The place. For a trigger of a base image, the FROM that brought it.
    pub span: Span,
    /// Other places that belong to it, each with a few words.
    pub labels: Vec<(Span, String)>,
    /// More about the cause.
    pub notes: Vec<String>,
    /// The way out.
    pub help: Option<String>,
}

/// The longest name that a kernel takes: `HOST_NAME_MAX` of limits.h(0p).
pub(crate) const MAX_HOSTNAME_BYTES: usize = 64;

/// Why a Dockerfile has no plan.
pub type PlanError = Finding<ErrorKind>;

/// What deserves a word but does not stop the build.
pub type Warning = Finding<WarningKind>;

impl<K> Finding<K> {
    pub(crate) fn new(kind: K, span: Span) -> Self {
        Self { kind, span, labels: Vec::new(), notes: Vec::new(), help: None }
    }

    pub(crate) fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push((span, text.into()));
        self
    }

    pub(crate) fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Offers the nearest name as the way out, if there is one.
    pub(crate) fn meant(self, nearest: Option<&str>, shown: impl FnOnce(&str) -> String) -> Self {
        match nearest {
            Some(name) => self.help(format!("did you mean {}?", shown(name))),
            None => self,
        }
    }
}

/// The result of one instruction. Boxed, since errors are large and rare.
pub(crate) type Fallible<T> = Result<T, Box<PlanError>>;

impl<K: fmt::Display> fmt::Display for Finding<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for PlanError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.kind)
    }
}

/// What can be wrong with a Dockerfile whose syntax is right.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ErrorKind {
    /// There is no FROM.
    #[error("the Dockerfile has no stage to build")]
    NoStage,
    /// `--target` names nothing.
    #[error("there is no stage `{0}` to build")]
    UnknownTarget(String),
    /// A step beyond the last one of a stage.
    #[error("there is no step {number} in stage `{stage}`, which has {}", count_of_steps(.count))]
    NoSuchStep {
        /// The stage.
        stage: String,
        /// What was asked for.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// What was before a stage's FROM.
    #[error("nothing is before step 1 of stage `{0}`, its FROM")]
    NothingBefore(String),
    /// `--from=N` beyond the last stage.
    #[error("there is no stage {index}: the file has {count}, counted from 0")]
    StageIndex {
        /// What was asked for.
        index: u64,
        /// How many there are.
        count: usize,
    },
    /// A stage is used by one before it.
    #[error("stage `{stage}` needs stage `{needed}`, which is defined after it")]
    ForwardReference {
        /// The stage with the instruction.
        stage: String,
        /// The later one.
        needed: String,
    },
    /// Stages that need each other: a chain that ends where it begins.
    #[error("{}", cycle(.0))]
    Cycle(Vec<String>),
    /// FROM with a word that is empty after expansion.
    #[error("the image name `{0}` is empty after expansion")]
    EmptyImage(String),
    /// `--platform` that is empty after expansion.
    #[error("the platform `{0}` is empty after expansion")]
    EmptyPlatform(String),
    /// `--platform` that is none.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// Neither a stage nor an image name.
    #[error("`{name}` is neither a stage nor an image name")]
    Reference {
        /// What stands there.
        name: String,
        /// Why it is no image name.
        #[source]
        source: ReferenceError,
    },
    /// An image that cannot be had.
    #[error("image `{}` cannot be had", .reference.familiar())]
    Image {
        /// Its name, completed.
        reference: Reference,
        /// Why.
        #[source]
        source: ImageError,
    },
    /// A word that cannot be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// A name that is empty after expansion.
    #[error("the {0} `{1}` is empty after expansion")]
    EmptyName(NameKind, String),
    /// Something that the person who builds has to allow.
    #[error("`{}` is not allowed", .0.as_str())]
    NotAllowed(Entitlement),
    /// Something that this version cannot do.
    #[error("{0} is not supported yet")]
    Unsupported(Feature),
    /// A mount that cannot be.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// `--chmod` with a wrong value.
    #[error(transparent)]
    Mode(#[from] ModeError),
    /// `--link` with an owner by name.
    #[error("`--chown={0}` names an owner, but a linked copy has no /etc/passwd to find it in")]
    LinkedOwnerName(String),
    /// Several sources and a file name.
    #[error("{sources} sources cannot be copied to one file `{destination}`")]
    ManySourcesOneFile {
        /// How many sources there are.
        sources: usize,
        /// The destination as written.
        destination: String,
    },
    /// A COPY of a URL.
    #[error("COPY cannot fetch `{0}`")]
    CopyOfUrl(String),
    /// A source that cannot be fetched.
    #[error("{error}")]
    Remote {
        /// Why.
        error: RemoteError,
    },
    /// `--checksum` with a wrong value.
    #[error("`{0}` is no checksum of a file")]
    Checksum(String),
    /// `SOURCE_DATE_EPOCH` that is no time and names nothing.
    #[error("`SOURCE_DATE_EPOCH` is `{0}`, which is neither a time nor a context or stage")]
    Epoch(String),
    /// A stage that is to say the time and does more than to fetch one thing.
    #[error("`SOURCE_DATE_EPOCH` names stage `{0}`, which is not just one fetched source")]
    EpochStage(String),
    /// `--checksum` where nothing is fetched.
    #[error("`--checksum` is for one source that is fetched from a URL or a git repository")]
    ChecksumOfLocalFile,
    /// EXPOSE with a wrong value.
    #[error(transparent)]
    Port(#[from] PortError),
    /// STOPSIGNAL with a wrong value.
    #[error("`{0}` is not a signal")]
    Signal(String),
    /// A working directory that no kernel has.
    #[error("the working directory would be a path of {0} bytes, and the longest is of {MAX_BYTES}")]
    LongWorkdir(usize),
    /// `BUILDKIT_SANDBOX_HOSTNAME` that no machine can have.
    #[error(
        "`BUILDKIT_SANDBOX_HOSTNAME` is `{0}`, and a host name has at most {MAX_HOSTNAME_BYTES} bytes, none of them NUL"
    )]
    Hostname(String),
    /// A trigger of a base image that is no instruction.
    #[error("the trigger `{trigger}` cannot be run: {message}")]
    Trigger {
        /// The ONBUILD's text.
        trigger: String,
        /// What the parser says.
        message: String,
    },
}

/// Why a `RUN --mount` cannot be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MountError {
    /// `type=` with a wrong value.
    #[error("`{0}` is not a mount type")]
    Type(String),
    /// `target=/`.
    #[error("a mount cannot have the target `/`")]
    RootTarget,
    /// A key that the type does not have.
    #[error("a {kind} mount has no `{key}`")]
    Key {
        /// The type.
        kind: &'static str,
        /// The key.
        key: &'static str,
    },
    /// A key with a wrong value.
    #[error("`{value}` is not a value of `{key}`")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value, expanded.
        value: String,
    },
    /// A secret with neither id nor target.
    #[error("a secret mount needs an `id`")]
    NoSecret,
    /// A secret with both.
    #[error("a secret mount has either `id` or `source`, which mean the same")]
    TwoSecrets,
}

/// Which name is empty.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NameKind {
    /// Of an ENV.
    Variable,
    /// Of a LABEL.
    Label,
    /// Of a VOLUME.
    Volume,
}

/// What this version cannot do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Feature {
    /// `--device`
    Device,
    /// `# syntax=` with a frontend of others.
    Frontend(String),
    /// A platform other than Linux.
    System(String),
}

/// What deserves a word.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WarningKind {
    /// A `--build-arg` that no ARG declares.
    #[error("build argument `{0}` is not used: no ARG declares it")]
    UnusedBuildArg(String),
    /// A variable that nobody sets.
    #[error("variable `${0}` is not set, so it is empty here")]
    UndefinedVariable(String),
    /// A variable in FROM that no ARG before the first FROM declares.
    #[error("variable `${0}` is not declared before the first FROM, so it is empty here")]
    UndefinedArgInFrom(String),
    /// A base image for another platform than the one asked for.
    #[error("image `{reference}` is for {found}, not for {wanted}")]
    BaseImagePlatform {
        /// The image, as people type it.
        reference: String,
        /// What its config says.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// An ARG that hides an ENV of the same name from the RUNs below.
    #[error("ARG `{0}` hides the ENV of the same name from what follows; the image keeps the ENV's value")]
    ArgHidesEnv(String),
    /// `--link` together with `--chmod`.
    #[error("`--link` has no effect together with `--chmod`")]
    LinkIgnored,
    /// A relative WORKDIR that depends on what the base image says.
    #[error("WORKDIR `{written}` is relative to {}", working_directory(.base.as_ref()))]
    RelativeWorkdir {
        /// As written.
        written: String,
        /// What it is relative to; `None` if the base image is not known.
        base: Option<ImagePath>,
    },
    /// A shell form where no SHELL was given.
    #[error("{0} is run by a shell, which does not pass signals on")]
    ShellForm(&'static str),
    /// `--platform=$TARGETPLATFORM`.
    #[error("`--platform={0}` says what is the default anyway")]
    RedundantPlatform(String),
    /// `--platform` without a variable.
    #[error("`--platform` is always {0}, whatever is built for")]
    ConstantPlatform(Platform),
    /// A FROM that needs a build argument.
    #[error("`{0}` names no image unless a build argument is given")]
    NoDefaultImage(String),
    /// A protocol in upper case.
    #[error("the protocol in `{0}` is not in lower case")]
    PortProtocolCase(String),
    /// An address or a port of the host.
    #[error("`{0}` maps a port, which EXPOSE cannot do: only the container's part counts")]
    PortMapping(String),
    /// A base image whose name means another image every other day.
    #[error("`{0}` means whatever image was pushed last")]
    UnpinnedBase(String),
    /// An ARG that nothing uses.
    #[error("ARG `{0}` is not used")]
    UnusedArg(String),
    /// An ARG far above its first use.
    #[error("a new value of ARG `{name}` makes {}", run_again(.runs))]
    ArgBustsCache {
        /// Its name.
        name: String,
        /// How many RUNs stand between the two.
        runs: usize,
    },
    /// A stage that no other needs.
    #[error("stage `{0}` is needed by none after it")]
    UnusedStage(String),
}

fn working_directory(base: Option<&ImagePath>) -> String {
    base.map_or_else(
        || "whatever the base image says".to_owned(),
        |base| format!("the base image's `{base}`"),
    )
}

fn run_again(count: &usize) -> String {
    match count {
        1 => "a step run again that does not use it".to_owned(),
        count => format!("{count} steps run again that do not use it"),
    }
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Variable => "variable name",
            Self::Label => "label name",
            Self::Volume => "volume path",
        })
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device => f.write_str("`--device`"),
            Self::Frontend(image) => write!(f, "the Dockerfile frontend `{image}`"),
            Self::System(platform) => write!(f, "building for {platform}"),
        }
    }
}

fn count_of_steps(count: &usize) -> String {
    match count {
        0 => "none".to_owned(),
        1 => "one".to_owned(),
        count => count.to_string(),
    }
}

fn cycle(chain: &[String]) -> String {
    match chain {
        [stage, _] => format!("stage `{stage}` needs itself"),
        _ => format!("stages need each other: {}", chain.join(" needs ")),
    }
}

/// The name of a key as messages write it.
pub(crate) fn key_name(key: MountKey) -> &'static str {
    match key {
        MountKey::Type => "type",
        MountKey::Target => "target",
        MountKey::Source => "source",
        MountKey::From => "from",
        MountKey::ReadOnly => "readonly",
        MountKey::ReadWrite => "readwrite",
        MountKey::Id => "id",
        MountKey::Sharing => "sharing",
        MountKey::Mode => "mode",
        MountKey::Uid => "uid",
        MountKey::Gid => "gid",
        MountKey::Required => "required",
        MountKey::Env => "env",
        MountKey::Size => "size",
    }
}

impl ErrorKind {
    /// Stable name for `rbuild help CODE` and for scripts.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoStage => "no-stage",
            Self::UnknownTarget(_) => "unknown-target",
            Self::NoSuchStep { .. } | Self::NothingBefore(_) => "no-such-step",
            Self::StageIndex { .. } => "unknown-stage",
            Self::ForwardReference { .. } => "forward-reference",
            Self::Cycle(_) => "stage-cycle",
            Self::EmptyImage(_) | Self::EmptyPlatform(_) | Self::EmptyName(..) => "empty-value",
            Self::Platform(_) => "bad-platform",
            Self::Reference { .. } => "bad-image-name",
            Self::Image { .. } => "image-unavailable",
            Self::Expand(_) => "bad-expansion",
            Self::Unsupported(_) => "unsupported",
            Self::Mount(_) => "bad-mount",
            Self::Mode(_) => "bad-mode",
            Self::LinkedOwnerName(_) => "linked-owner-name",
            Self::ManySourcesOneFile { .. } => "destination-not-a-directory",
            Self::CopyOfUrl(_) => "copy-of-url",
            Self::Remote { error } => match error.cause {
                RemoteErrorCause::Checksum => "wrong-checksum",
                _ => "source-unavailable",
            },
            Self::Checksum(_) => "bad-checksum",
            Self::Epoch(_) | Self::EpochStage(_) => "bad-epoch",
            Self::NotAllowed(_) => "not-allowed",
            Self::ChecksumOfLocalFile => "checksum-of-local-file",
            Self::Port(_) => "bad-port",
            Self::Signal(_) => "bad-signal",
            Self::LongWorkdir(_) => "long-path",
            Self::Hostname(_) => "bad-hostname",
            Self::Trigger { .. } => "bad-trigger",
        }
    }
}

impl WarningKind {
    /// The lint rule that is broken.
    #[must_use]
    pub fn rule(&self) -> Rule {
        match self {
            Self::UnusedBuildArg(_) => Rule::UnusedBuildArg,
            Self::UndefinedVariable(_) => Rule::UndefinedVar,
            Self::UndefinedArgInFrom(_) => Rule::UndefinedArgInFrom,
            Self::BaseImagePlatform { .. } => Rule::InvalidBaseImagePlatform,
            Self::ArgHidesEnv(_) => Rule::ArgHidesEnv,
            Self::LinkIgnored => Rule::LinkIgnored,
            Self::RelativeWorkdir { .. } => Rule::WorkdirRelativePath,
            Self::ShellForm(_) => Rule::JsonArgsRecommended,
            Self::RedundantPlatform(_) => Rule::RedundantTargetPlatform,
            Self::ConstantPlatform(_) => Rule::FromPlatformFlagConstDisallowed,
            Self::NoDefaultImage(_) => Rule::InvalidDefaultArgInFrom,
            Self::PortProtocolCase(_) => Rule::ExposeProtoCasing,
            Self::PortMapping(_) => Rule::ExposeInvalidFormat,
            Self::UnpinnedBase(_) => Rule::UnpinnedBase,
            Self::UnusedArg(_) => Rule::UnusedArg,
            Self::ArgBustsCache { .. } => Rule::ArgBustsCache,
            Self::UnusedStage(_) => Rule::UnusedStage,
        }
    }

    /// The rule's name: BuildKit's where it has the rule, since people write it in `# check=skip=`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.rule().as_str()
    }
}
