//! What the two sides of a start say to each other: a wire format between one rbuild and its own copy, never stored.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sys::RootfsPath;

use crate::user::{User, UserError};
use crate::{Network, Posture, SandboxError, Stage, Ulimit};

/// Number of a descriptor among those that were sent.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Handle(pub(crate) usize);

/// Everything that the helper has to know.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Instructions {
    /// The root, a detached mount.
    pub(crate) root: Handle,
    /// Outer targets first.
    pub(crate) mounts: Vec<MountInstruction>,
    pub(crate) args: Vec<Vec<u8>>,
    pub(crate) env: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) cwd: Vec<u8>,
    pub(crate) create_cwd: bool,
    pub(crate) user: User,
    /// Whether missing mount points are made in the root.
    pub(crate) make_targets: bool,
    /// Whether the root becomes read-only once all is made in it.
    pub(crate) seal_root: bool,
    pub(crate) hostname: String,
    pub(crate) ulimits: Vec<Ulimit>,
    pub(crate) stdio: StdioInstruction,
    pub(crate) init: bool,
    pub(crate) no_new_privileges: bool,
    pub(crate) posture: Posture,
    /// Whether device nodes made in `/dev` may be opened, as far as the device filter goes.
    pub(crate) device_nodes: bool,
    /// `cgroup.procs` files to write to.
    pub(crate) joins: Vec<Handle>,
    pub(crate) cgroup_view: CgroupView,
    /// The system call filter: code, both jumps, operand.
    pub(crate) filter: Vec<(u16, u8, u8, u32)>,
}

/// One mount.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct MountInstruction {
    pub(crate) target: Vec<u8>,
    pub(crate) shown: Shown,
}

/// What a mount shows.
#[derive(Deserialize, Serialize)]
pub(crate) enum Shown {
    /// A detached mount.
    Tree(Handle),
    /// A detached tmpfs, in which further mount points may be made.
    Tmpfs(Handle),
    /// A file or directory below a detached mount.
    Part { tree: Handle, path: Vec<u8> },
    /// A file in memory, made by the helper.
    File { content: Vec<u8>, mode: u32, uid: u32, gid: u32 },
}

impl std::fmt::Debug for Shown {
    /// Without the content of files, which may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tree(_) => "Tree",
            Self::Tmpfs(_) => "Tmpfs",
            Self::Part { .. } => "Part",
            Self::File { .. } => "File",
        })
    }
}

/// Where the standard descriptors come from.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum StdioInstruction {
    Captured { stdout: Handle, stderr: Handle },
    Piped { stdin: Handle, stdout: Handle, stderr: Handle },
    Terminal { rows: u16, columns: u16 },
    Inherited,
}

/// What is mounted at `/sys/fs/cgroup`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum CgroupView {
    Nothing,
    /// cgroup 2, as seen from the own group.
    Unified,
    /// A directory for each controller that the sandbox has a group of its own in.
    Legacy(Vec<(String, Handle)>),
}

/// What the launcher orders; the new process's socket and, if it has one, its cgroup come with it.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Order {
    /// Wanted at once, as all here: the rest is in the [`Instructions`].
    pub(crate) network: Network,
    /// What `/dev/shm` can hold.
    pub(crate) shm_bytes: Option<u64>,
    /// What is masked.
    pub(crate) posture: Posture,
}

/// What came of an [`Order`].
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Outcome {
    /// The process's pidfd comes with this message.
    Forked {
        pid: u32,
    },
    Failed {
        errno: i32,
    },
}

/// What the helper has to say.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Report {
    /// The controlling end of the terminal comes with this message.
    Terminal,
    /// All is set up; if nothing else comes before the end, the command executes.
    Executing,
    /// No command executes.
    Failed(Failure),
}

/// [`SandboxError`], as far as it happens inside.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Failure {
    Setup { stage: Stage, errno: i32 },
    MissingTarget { target: Vec<u8> },
    TargetKind { target: Vec<u8> },
    Mount { target: Vec<u8>, errno: i32 },
    LayersPath { path: Vec<u8>, target: Vec<u8> },
    User(UserError),
    Cwd { path: Vec<u8>, errno: i32 },
    CommandNotFound { command: String, path: Option<String> },
    MissingInterpreter { program: String },
    NotRunnable { program: String, errno: i32 },
}

/// The number of an error, for the wire; errors without one are those of a broken message.
pub(crate) fn errno(error: &io::Error) -> i32 {
    const EPROTO: i32 = 71;
    error.raw_os_error().unwrap_or(EPROTO)
}

/// Names the stage that an I/O error happened in.
pub(crate) trait At<T> {
    fn at(self, stage: Stage) -> Result<T, Failure>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, stage: Stage) -> Result<T, Failure> {
        self.map_err(|error| Failure::Setup { stage, errno: errno(&error) })
    }
}

impl From<Failure> for SandboxError {
    fn from(failure: Failure) -> Self {
        let os = io::Error::from_raw_os_error;
        // These paths were parsed on our side before they were sent.
        let path = |bytes: Vec<u8>| RootfsPath::parse_clamped(bytes).unwrap_or_default();
        match failure {
            Failure::Setup { stage, errno } => Self::Setup { stage, source: os(errno) },
            Failure::MissingTarget { target } => Self::MissingTarget { target: path(target) },
            Failure::TargetKind { target } => Self::TargetKind { target: path(target) },
            Failure::Mount { target, errno } => Self::Mount { target: path(target), source: os(errno) },
            Failure::LayersPath { path: inner, target } => {
                Self::LayersPath { path: path(inner), target: path(target) }
            }
            Failure::User(error) => Self::User(error),
            Failure::Cwd { path: cwd, errno } => Self::Cwd { path: path(cwd), source: os(errno) },
            Failure::CommandNotFound { command, path } => Self::CommandNotFound { command, path },
            Failure::MissingInterpreter { program } => Self::MissingInterpreter { program },
            Failure::NotRunnable { program, errno } => Self::NotRunnable { program, source: os(errno) },
        }
    }
}

/// The bytes of a message.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(message).map_err(io::Error::other)
}

/// The message in `bytes`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(io::Error::other)
}
