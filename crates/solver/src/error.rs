//! Why a build stopped.

use std::path::PathBuf;

use layer::merged::ResolveError;
use layer::pack::PackError;
use layer::seal::SealError;
use plan::StepId;
use sandbox::{SandboxError, UserError};
use sys::RootfsPath;

/// A step that failed, with the reason. The step's span points into the Dockerfile.
#[derive(Debug, thiserror::Error)]
pub enum SolveError {
    /// One step failed; the others were ended.
    #[error("step failed")]
    Step {
        /// Which.
        step: StepId,
        /// Why.
        #[source]
        error: Box<StepError>,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The process of a RUN ended badly.
    #[error(transparent)]
    Run(#[from] RunFailure),
    /// A process could not be started.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A source of a COPY or a mount.
    #[error(transparent)]
    Context(#[from] context::ContextError),
    /// A pattern of `--exclude`.
    #[error(transparent)]
    Exclude(#[from] context::IgnoreError),
    /// A source in a stage or image that is not there.
    #[error("`{path}` is not in `{place}`")]
    MissingInStep {
        /// As written.
        path: String,
        /// The stage or image.
        place: String,
        /// Names in the directory where it should be.
        candidates: Vec<RootfsPath>,
    },
    /// A source pattern that is malformed.
    #[error("`{pattern}` is no valid pattern")]
    Pattern {
        /// As written.
        pattern: String,
        /// Why.
        #[source]
        source: context::wildcard::SourceError,
    },
    /// A path that leads through a link loop or a file.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A path that no file system has.
    #[error(transparent)]
    Path(#[from] sys::PathError),
    /// A directory should be copied onto something that is none.
    #[error("cannot copy directory `{from}` onto `{target}`, which is {what}")]
    OntoNonDirectory {
        /// Where the directory comes from.
        from: String,
        /// Where it should go.
        target: RootfsPath,
        /// "a file", "a symbolic link".
        what: &'static str,
    },
    /// Several files should get one name.
    #[error("{count} sources are to be copied to `{target}`, which is not a directory")]
    ManyOntoOne {
        /// Where they should go.
        target: RootfsPath,
        /// How many there are.
        count: usize,
    },
    /// A file should be copied onto a directory.
    #[error("cannot copy file `{from}` onto `{target}`, which is a directory")]
    OntoDirectory {
        /// Where the file comes from.
        from: String,
        /// Where it should go.
        target: RootfsPath,
    },
    /// `--chown` or `USER` names somebody the image does not know.
    #[error(transparent)]
    User(#[from] UserError),
    /// The image's account files.
    #[error("cannot read /etc/passwd or /etc/group of the image")]
    Accounts(#[source] std::io::Error),
    /// A named context that was not given.
    #[error("there is no build context {0:?}")]
    NoContext(plan::ContextName),
    /// A secret that was declared `required` and not given.
    #[error("secret `{0}` is required and was not given")]
    SecretMissing(String),
    /// A part of a cache that a mount shows.
    #[error("there is no `{path}` in cache `{id}`")]
    CachePath {
        /// Which cache.
        id: String,
        /// The part.
        path: RootfsPath,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An ssh agent that was declared `required` and not given.
    #[error("ssh agent `{0}` is required and was not given")]
    AgentMissing(String),
    /// A socket for an ssh agent.
    #[error("cannot make a socket for ssh agent `{id}`")]
    Agent {
        /// Which.
        id: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A remote source that cannot be had.
    #[error(transparent)]
    Remote(#[from] plan::RemoteError),
    /// An archive that ADD should unpack.
    #[error("cannot unpack `{path}`")]
    Archive {
        /// In the context.
        path: String,
        /// Why.
        #[source]
        source: layer::foreign::ForeignError,
    },
    /// Extracting an archive into a temporary place.
    #[error("cannot unpack an archive")]
    Unpack(#[from] layer::unpack::UnpackError),
    /// The layer of a RUN could not be read.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The layer of a COPY could not be written.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Layers of the store.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// The layers below a RUN could not be made ready.
    #[error(transparent)]
    Rootfs(#[from] image::RootfsError),
    /// The store itself.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A directory for mount points could not be made.
    #[error("cannot prepare `{}`", path.display())]
    Prepare {
        /// Of this machine.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A log could not be written.
    #[error("cannot write the step's log")]
    Log(#[source] std::io::Error),
    /// The build was cancelled, or another step failed.
    #[error("cancelled")]
    Cancelled,
}

/// How a RUN's process ended, if not well.
#[derive(Debug, thiserror::Error)]
pub struct RunFailure {
    /// The command as the user wrote it.
    pub command: String,
    /// Its end.
    pub ending: sandbox::Ending,
    /// Whether the kernel killed it for want of memory.
    pub out_of_memory: bool,
    /// The last lines it wrote.
    pub last_lines: Vec<String>,
    /// The file with all it wrote.
    pub log: PathBuf,
    /// The files it left, in overlayfs form over the layers below its step; there until the lease ends.
    pub left: PathBuf,
}

impl std::fmt::Display for RunFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ", self.command)?;
        match self.ending {
            _ if self.out_of_memory => f.write_str("ran out of memory"),
            sandbox::Ending::Exited(status) => write!(f, "exited with status {status}"),
            sandbox::Ending::Killed(signal) => write!(f, "was killed by signal {signal}"),
        }
    }
}
