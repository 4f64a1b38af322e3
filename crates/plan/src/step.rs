//! The nodes of the graph: what each step does, with every value expanded and typed.

use std::net::IpAddr;

use dockerfile::Span;
use oci::{ImageId, Platform, Reference};

use crate::request::{RemoteContent, RemoteRequest};
use crate::{ImagePath, Mode, Mount, Owner};

/// A step's place in [`Plan::steps`](crate::Plan::steps).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StepId(pub(crate) usize);

impl StepId {
    /// The index in [`Plan::steps`](crate::Plan::steps).
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// One node: an operation that makes a filesystem, and where in the Dockerfile it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its place in the plan; inputs have smaller ones.
    pub id: StepId,
    /// What it does.
    pub op: Op,
    /// The platform it is for: what a RUN's processes are made of.
    pub platform: Platform,
    /// Where it stands; `None` for what no stage owns, such as the image of a `COPY --from=IMAGE`.
    pub place: Option<Place>,
    /// Its instruction. For a trigger of a base image, that of the FROM which brought it.
    pub span: Span,
    /// The instruction as the user wrote it, on one line, for progress.
    pub title: String,
}

/// "Step 4 of 6 of stage `app`".
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The stage.
    pub stage: StageLabel,
    /// Counted from 1.
    pub number: usize,
    /// How many steps the stage has.
    pub of: usize,
    /// For which platform it is, in a build for several.
    pub platform: Option<Platform>,
    /// For which platform the image is to be that it is a step of, in a build for several; none if it is a step of more than one.
    pub target: Option<Platform>,
}

/// How a stage is called: its name, or `stage-N`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct StageLabel {
    /// Counted from 0 over all FROMs of the file.
    pub index: usize,
    /// Lower case, if it has one.
    pub name: Option<String>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// The filesystem without any layer.
    Scratch,
    /// The layers of an image.
    Image(Image),
    /// What was found behind a URL, and nothing else.
    Remote(Box<Remote>),
    /// A process, and the layer of what it changed.
    Run(Box<Run>),
    /// The layer of a COPY or an ADD.
    Copy(Box<Copy>),
    /// The layer of a WORKDIR: the directory with its parents where they are missing.
    Workdir(Workdir),
}

/// An image that something is built upon or copied from.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Its name, completed.
    pub reference: Reference,
    /// The platform asked for.
    pub platform: Platform,
    /// What the look-up found.
    pub image: ImageId,
}

/// A file or repository from elsewhere. Its filesystem holds that file, mode 0600, or the repository's files.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Remote {
    /// What was asked for.
    pub request: RemoteRequest,
    /// What the look-up found.
    pub content: RemoteContent,
}

/// A RUN.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The root filesystem.
    pub parent: StepId,
    /// Program and arguments, the shell of a shell form included.
    pub args: Vec<String>,
    /// Environment without the proxy variables, in the order of each name's last assignment.
    pub env: Vec<Variable>,
    /// Proxy variables of the request that the environment does not set itself. In no key and no history.
    pub proxy_env: Vec<(String, String)>,
    /// Working directory; made with mode 0755 if it is missing.
    pub cwd: ImagePath,
    /// `USER`'s text; `None` is root.
    pub user: Option<UserSpec>,
    /// In the order of the instruction.
    pub mounts: Vec<Mount>,
    /// Which network the process sees.
    pub network: NetworkMode,
    /// How much it may do to the machine.
    pub security: SecurityMode,
    /// The machine's name as the process sees it.
    pub hostname: String,
    /// Lines for `/etc/hosts`. Names are in the key, addresses are not.
    pub extra_hosts: Vec<ExtraHost>,
    /// A heredoc with a `#!` line: a read-only file `/dev/pipes/NAME` of mode 0755.
    pub script: Option<InlineFile>,
    /// The command as the user wrote it, on one line, without flags and shell.
    pub command: String,
    /// When files that the process sees were made, in seconds since 1970, if the build says so for any (`SOURCE_DATE_EPOCH`).
    pub time: Option<i64>,
}

/// A COPY or an ADD.
///
/// The result lies on `parent` in any case. With [`Linkage::Independent`] its layer is made without looking at `parent`, so neither
/// its key nor its execution depends on it: it may even run first.
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    /// The filesystem below the result.
    pub parent: StepId,
    /// Whether the layer depends on `parent`.
    pub linkage: Linkage,
    /// Where `paths` are.
    pub from: Source,
    /// Source arguments in order.
    pub paths: Vec<SourcePath>,
    /// Heredocs, copied after `paths`, mode 0644 and owner 0:0 unless set.
    pub inline: Vec<InlineFile>,
    /// Where to.
    pub destination: Destination,
    /// `--chown`.
    pub owner: Option<Owner>,
    /// `--chmod`.
    pub mode: Option<Mode>,
    /// `--exclude` patterns, in `.dockerignore` syntax, relative to each source directory.
    pub exclude: Vec<String>,
    /// Whether `--parents` keeps the directories of each source.
    pub parents: Parents,
    /// Whether a source file in `from` that is an archive is unpacked.
    pub archives: Archives,
    /// When everything copied was last modified, in seconds since 1970, if the build says so (`SOURCE_DATE_EPOCH`). Members of archives keep their own times.
    pub time: Option<i64>,
}

/// Whether a copy's layer depends on what lies below it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Linkage {
    /// Destination symlinks and existing directories count.
    OnParent,
    /// `--link`: as if copied into an empty filesystem.
    Independent,
}

/// `--parents`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Parents {
    /// Sources lose their directories.
    Dropped,
    /// Sources keep the directories below their pivot.
    Kept,
}

/// What becomes of source files that are archives.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Archives {
    /// Copied as they are.
    Copied,
    /// Unpacked into the destination, which is then a directory.
    Unpacked,
}

/// Where files come from.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Source {
    /// A directory of the person who builds.
    Context(ContextName),
    /// The filesystem of another step.
    Step(StepId),
}

/// Which directory of the person who builds.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ContextName {
    /// The context of the build.
    Main,
    /// One given with `--build-context NAME=DIRECTORY`.
    Named(String),
}

/// One source argument of a COPY or an ADD.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SourcePath {
    /// As written, expanded.
    pub written: String,
    /// With [`Parents::Kept`], what stands before `/./`: directories up to here are dropped. Cleaned, no leading `/`; empty for the root.
    pub pivot: String,
    /// The path below the pivot. Cleaned, no leading `/`; empty for the root.
    pub pattern: String,
    /// The fetched source it lies in; `None` for [`Copy::from`].
    pub fetched: Option<Fetched>,
}

/// A source that was fetched from elsewhere.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Fetched {
    /// Its step, an [`Op::Remote`].
    pub step: StepId,
    /// Whether it is unpacked if it is an archive.
    pub archives: Archives,
}

impl SourcePath {
    /// Whether `*`, `?` or `[` make it a pattern (Go's `filepath.Match`; with `--parents` also `**`): a pattern may match
    /// nothing, a plain path must exist.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        has_wildcard(&self.pivot) || has_wildcard(&self.pattern)
    }
}

/// A backslash takes the meaning of the character after it.
fn has_wildcard(pattern: &str) -> bool {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

/// Where a copy goes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Destination {
    /// Joined to the working directory and cleaned.
    pub path: ImagePath,
    /// What the way it is written says about it.
    pub form: DestinationForm,
}

/// Whether a destination is a directory by the way it is written.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum DestinationForm {
    /// It ends in `/` or `/.`, or is `.` or the root, or there is `--parents`: a directory, made if missing.
    Directory,
    /// A directory if one is there, else the name of the file. For a pattern that matches several files it is the same as
    /// `ExistingDirectory`.
    Open,
    /// It does not say so, but there are several sources: the step fails unless a directory is there, for else they would
    /// replace each other. The reference implementation lets them.
    ExistingDirectory,
}

/// A file whose content stands in the Dockerfile.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct InlineFile {
    /// The heredoc's word.
    pub name: String,
    /// Its content, expanded unless the word is quoted.
    pub content: String,
}

/// A WORKDIR other than `/`.
#[derive(Clone, Debug, PartialEq)]
pub struct Workdir {
    /// The filesystem below the result.
    pub parent: StepId,
    /// The directory; made with its parents, mode 0755, where missing.
    pub path: ImagePath,
    /// Who will own what is made; `None` is root.
    pub user: Option<UserSpec>,
    /// When it was made, in seconds since 1970, if the build says so (`SOURCE_DATE_EPOCH`).
    pub time: Option<i64>,
}

/// `user[:group]` as `USER` keeps it. Resolved when a step runs, in the rootfs of that step.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct UserSpec(pub(crate) String);

impl UserSpec {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A variable of a RUN's environment.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Which instruction set it last.
    pub origin: VariableOrigin,
}

/// Which instruction set a variable last.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum VariableOrigin {
    /// The base image or an ENV: also in the image's config.
    Env,
    /// An ARG: in the build's processes only.
    Arg,
}

/// How much a RUN may do to the machine.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SecurityMode {
    /// What every RUN may.
    Sandbox,
    /// Everything that root may.
    Insecure,
}

/// Which network a RUN sees.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum NetworkMode {
    /// What the builder gives to everybody.
    Default,
    /// Only a loopback of its own.
    None,
    /// The machine's.
    Host,
}

/// A line for `/etc/hosts`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ExtraHost {
    /// The host's name.
    pub name: String,
    /// Where it is.
    pub address: IpAddr,
}

impl Op {
    /// The step whose filesystem lies directly below the result.
    #[must_use]
    pub fn parent(&self) -> Option<StepId> {
        match self {
            Self::Scratch | Self::Image(_) | Self::Remote(_) => None,
            Self::Run(run) => Some(run.parent),
            Self::Copy(copy) => Some(copy.parent),
            Self::Workdir(workdir) => Some(workdir.parent),
        }
    }

    /// When the files below the result were made, if the build says so for any of them.
    #[must_use]
    pub fn time(&self) -> Option<i64> {
        match self {
            Self::Scratch | Self::Image(_) | Self::Remote(_) => None,
            Self::Run(run) => run.time,
            Self::Copy(copy) => copy.time,
            Self::Workdir(workdir) => workdir.time,
        }
    }

    /// The steps whose content this one may look at while it runs: its parent, except for a linked copy, and its sources.
    #[must_use]
    pub fn reads(&self) -> Vec<StepId> {
        match self {
            Self::Scratch | Self::Image(_) | Self::Remote(_) => Vec::new(),
            Self::Run(run) => {
                let mounted = run.mounts.iter().filter_map(|mount| mount.source()?.step());
                std::iter::once(run.parent).chain(mounted).collect()
            }
            Self::Copy(copy) => {
                let parent = (copy.linkage == Linkage::OnParent).then_some(copy.parent);
                parent.into_iter().chain(copy.from.step()).chain(copy.fetched()).collect()
            }
            Self::Workdir(workdir) => vec![workdir.parent],
        }
    }

    /// Every place that names another step.
    pub(crate) fn inputs_mut(&mut self) -> Vec<&mut StepId> {
        match self {
            Self::Scratch | Self::Image(_) | Self::Remote(_) => Vec::new(),
            Self::Run(run) => {
                let mounted = run.mounts.iter_mut().filter_map(|mount| mount.source_mut()?.step_mut());
                std::iter::once(&mut run.parent).chain(mounted).collect()
            }
            Self::Copy(copy) => {
                let fetched = copy.paths.iter_mut().filter_map(|path| path.fetched.as_mut());
                let fetched = fetched.map(|fetched| &mut fetched.step);
                std::iter::once(&mut copy.parent).chain(copy.from.step_mut()).chain(fetched).collect()
            }
            Self::Workdir(workdir) => vec![&mut workdir.parent],
        }
    }

    /// The directories of the person who builds that this step reads.
    #[must_use]
    pub fn contexts(&self) -> Vec<&ContextName> {
        match self {
            Self::Run(run) => run.mounts.iter().filter_map(|mount| mount.source()?.context()).collect(),
            Self::Copy(copy) => copy.from.context().into_iter().collect(),
            Self::Scratch | Self::Image(_) | Self::Remote(_) | Self::Workdir(_) => Vec::new(),
        }
    }
}

impl Copy {
    /// The fetched sources, each once.
    #[must_use]
    pub fn fetched(&self) -> Vec<StepId> {
        let mut steps: Vec<StepId> = Vec::new();
        for fetched in self.paths.iter().filter_map(|path| path.fetched) {
            if !steps.contains(&fetched.step) {
                steps.push(fetched.step);
            }
        }
        steps
    }
}

impl Source {
    /// The step, if it is one.
    #[must_use]
    pub fn step(&self) -> Option<StepId> {
        match self {
            Self::Step(step) => Some(*step),
            Self::Context(_) => None,
        }
    }

    fn step_mut(&mut self) -> Option<&mut StepId> {
        match self {
            Self::Step(step) => Some(step),
            Self::Context(_) => None,
        }
    }

    /// The context, if it is one.
    #[must_use]
    pub fn context(&self) -> Option<&ContextName> {
        match self {
            Self::Context(name) => Some(name),
            Self::Step(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_star_is_no_wildcard() {
        for (pattern, expected) in
            [("a*", true), ("a?", true), ("[ab]", true), (r"a\*", false), (r"\\*", true), ("a", false)]
        {
            assert_eq!(has_wildcard(pattern), expected, "{pattern}");
        }
    }
}
