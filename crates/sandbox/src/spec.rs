//! What to run, and in which surroundings: plain data that the caller fills in whole.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sys::RootfsPath;
use sys::terminal::WindowSize;

use crate::{Ulimit, User};

/// One process tree to be started.
///
/// Nothing has a default: a silent default in a sandbox is a hole.
#[derive(Debug)]
pub struct Spec {
    /// The file system that the process sees as `/`.
    pub root: Layers,
    /// Whether `/` itself can be written; mounts keep their own access.
    pub root_access: Access,
    /// What is mounted over the root, besides `/proc`, `/sys` and `/dev`. The order does not matter: outer targets come first.
    pub mounts: Vec<Mount>,
    /// The command: a program (looked up in the `PATH` of [`Spec::env`] inside the root unless it has a slash) and its arguments.
    pub args: Vec<OsString>,
    /// The whole environment. `HOME` is added from `/etc/passwd` of the root where it is absent or empty.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory.
    pub cwd: RootfsPath,
    /// What happens when [`Spec::cwd`] does not exist.
    pub missing_cwd: MissingCwd,
    /// Who the process is.
    pub user: User,
    /// The host name inside.
    pub hostname: String,
    /// Which network the process sees.
    pub network: Network,
    /// Ceilings on what the process tree may use.
    pub limits: Limits,
    /// Where the three standard descriptors lead.
    pub stdio: Stdio,
    /// Who is process 1.
    pub pid_one: PidOne,
    /// Whether set-user-ID programs work inside.
    pub new_privileges: NewPrivileges,
    /// How much the process may do to the machine.
    pub posture: Posture,
}

/// A file system made of directories on top of one another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layers {
    /// The read-only directories, the topmost first. At least one.
    pub lower: Vec<PathBuf>,
    /// Where writes go; `None` makes the whole read-only.
    pub upper: Option<Upper>,
}

/// The writable top of [`Layers`]. Both directories are on one file system and belong to one sandbox at a time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upper {
    /// Holds what was written, in overlayfs form.
    pub directory: PathBuf,
    /// overlayfs' scratch directory, empty at the start.
    pub work: PathBuf,
    /// Whether a power cut may lose the writes.
    pub durability: Durability,
}

/// Whether writes to an [`Upper`] survive a power cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// fsync inside does nothing and unmounting syncs nothing (overlayfs `volatile`): the caller syncs once, later.
    Volatile,
    /// As [`Durability::Volatile`], and the caller keeps nothing of it: mount points that are missing are made in it.
    Discarded,
    /// fsync inside syncs.
    Synced,
}

/// Whether something can be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Reads only.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// One mount over the root.
#[derive(Debug)]
pub struct Mount {
    /// Where. It must exist below the root (symbolic links are followed inside it), except below `/dev` and other [`MountKind::Tmpfs`] mounts.
    pub target: RootfsPath,
    /// What.
    pub kind: MountKind,
}

/// What a [`Mount`] shows.
#[derive(Debug)]
pub enum MountKind {
    /// A directory or file of the machine, with the mounts below it.
    Bind {
        /// The directory or file.
        source: BindSource,
        /// Whether it can be written from inside.
        access: Access,
    },
    /// A directory or file of another layer list. With a throw-away [`Upper`] it is writable and its writes are discarded
    /// (the caller removes the directories); a plain directory is a list of one layer.
    Layers {
        /// The layer list.
        layers: Layers,
        /// What of it is shown, resolved inside it.
        path: RootfsPath,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// The most it can hold; the kernel's default (half of the memory) if `None`.
        size_bytes: Option<u64>,
        /// Mode of its root directory.
        mode: u32,
    },
    /// One file in memory that never touches a disk: a secret, `/etc/hosts`, a script.
    File {
        /// What it holds.
        content: Content,
        /// Its mode. Without any execute bit the mount is `noexec` too.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// Where a [`MountKind::Bind`] comes from.
#[derive(Debug)]
pub enum BindSource {
    /// A path of the machine. Symbolic links in it are followed.
    Path(PathBuf),
    /// A descriptor, for what was resolved before.
    Descriptor(OwnedFd),
}

/// Bytes of a file mount; their `Debug` form shows the length only.
#[derive(Clone, Eq, PartialEq)]
pub struct Content(pub Vec<u8>);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "*** ({} bytes)", self.0.len())
    }
}

/// How much a process may do to the machine it runs on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Posture {
    /// Docker's capabilities, system calls, devices and view of `/proc` and `/sys`.
    Confined,
    /// All that we may do ourselves: every capability, call and device, and nothing masked. Only namespaces are left between it and the
    /// machine, and as root it can leave them.
    Insecure,
}

/// What happens when the working directory does not exist.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MissingCwd {
    /// It is made with its parents, mode 0755, owned by root: it becomes part of the layer, as with Docker.
    Create,
    /// [`crate::SandboxError::Cwd`].
    Fail,
}

/// Which network a sandbox sees.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Network {
    /// The machine's own.
    Host,
    /// A network namespace with nothing but the loopback interface.
    None,
}

/// Ceilings on a process tree. `None` leaves the machine's own.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// Memory, page cache included.
    pub memory_bytes: Option<u64>,
    /// Memory and swap together; no less than [`Limits::memory_bytes`].
    pub memory_and_swap_bytes: Option<u64>,
    /// CPU time per wall-clock time, in thousandths of one CPU.
    pub cpu_millis: Option<u64>,
    /// CPU time relative to others where it is scarce, in cgroup 1's measure: 2 to 262144, of which 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// The processors that may be used (cpuset(7), "List format").
    pub cpus: Option<CpuList>,
    /// The memory nodes that may be used.
    pub memory_nodes: Option<CpuList>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// What `/dev/shm` can hold; 64 MiB if `None`, as with Docker.
    pub shm_bytes: Option<u64>,
    /// Of each process, each thing once.
    pub ulimits: Vec<Ulimit>,
}

impl Limits {
    /// Whether one of them needs a cgroup of its own.
    #[must_use]
    pub fn need_cgroup(&self) -> bool {
        self.memory_bytes.is_some()
            || self.memory_and_swap_bytes.is_some()
            || self.cpu_millis.is_some()
            || self.cpu_shares.is_some()
            || self.cpus.is_some()
            || self.memory_nodes.is_some()
            || self.pids.is_some()
    }
}

/// Numbers of processors or memory nodes, such as `0-3,5` (cpuset(7), "List format"). Whether the machine has them is for the kernel to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CpuList(String);

/// A text that is no [`CpuList`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no list such as `0-3` or `0,2`")]
pub struct CpuListError(String);

impl std::str::FromStr for CpuList {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<Self, CpuListError> {
        let number = |text: &str| text.parse::<u32>().ok();
        let is_part = |part: &str| match part.split_once('-') {
            Some((first, last)) => number(first).zip(number(last)).is_some_and(|(first, last)| first <= last),
            None => number(part).is_some(),
        };
        if text.split(',').all(is_part) {
            Ok(Self(text.to_owned()))
        } else {
            Err(CpuListError(text.to_owned()))
        }
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the standard descriptors lead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stdio {
    /// Input is `/dev/null`, output and errors are a pipe each, read by the caller.
    Captured,
    /// All three are pipes: the caller writes the input and reads output and errors.
    Piped,
    /// A new terminal of this size, whose other end the caller has.
    Terminal(WindowSize),
    /// The caller's own three descriptors.
    Inherited,
}

/// Who is process 1 of the sandbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PidOne {
    /// The command, as with Docker: when it ends, all others are killed.
    Command,
    /// A small init that passes signals on to the command and reaps orphans (`docker run --init`).
    Init,
}

/// Whether processes inside can gain privileges by executing a program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NewPrivileges {
    /// Set-user-ID programs such as `sudo` work, as with Docker.
    Allowed,
    /// `no_new_privs` is set.
    Denied,
}

/// How [`crate::Process::stop`] ends a process tree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StopPolicy {
    /// The polite signal.
    pub signal: i32,
    /// How long the process may take before the whole tree is killed.
    pub grace: Duration,
}
