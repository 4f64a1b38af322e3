//! Why a process could not be started or followed.

use std::io;
use std::path::PathBuf;

use sys::RootfsPath;

use crate::user::UserError;

/// Why a sandbox could not be set up, started or followed. Each says what failed; its source says why.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Sandboxes need root until user namespaces are used.
    #[error("starting a process in a sandbox needs root (capability CAP_SYS_ADMIN)")]
    NeedsRoot,
    /// The kernel lacks a call or file system that every sandbox needs.
    #[error("the kernel lacks {facility} (rbuild needs Linux 5.15 or newer)")]
    Unsupported {
        /// What is missing.
        facility: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A step of the set-up on our own side failed.
    #[error("cannot {step}")]
    Prepare {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A layer directory, or an upper or work directory, cannot be opened.
    #[error("cannot open layer directory `{}`", path.display())]
    Layer {
        /// The directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// overlayfs refused the layer list.
    #[error("cannot mount {layers} layers as one file system{}", detail(kernel_says))]
    Overlay {
        /// Number of lower layers.
        layers: usize,
        /// What the kernel wrote into the mount context's log; may be empty.
        kernel_says: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The source of a bind mount cannot be opened.
    #[error("cannot open `{}`, to be mounted at `{target}`", path.display())]
    BindSource {
        /// The source.
        path: PathBuf,
        /// Where it should appear.
        target: RootfsPath,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The path inside a layer list that should be mounted does not exist there.
    #[error("`{path}`, to be mounted at `{target}`, does not exist in its source")]
    LayersPath {
        /// The path inside the layers.
        path: RootfsPath,
        /// Where it should appear.
        target: RootfsPath,
    },
    /// A mount point does not exist in the root.
    #[error("mount point `{target}` does not exist in the root")]
    MissingTarget {
        /// The mount point.
        target: RootfsPath,
    },
    /// A directory should be mounted on a file, or a file on a directory.
    #[error("mount point `{target}` and what is mounted there are not both directories or both files")]
    TargetKind {
        /// The mount point.
        target: RootfsPath,
    },
    /// A mount failed for another reason.
    #[error("cannot mount at `{target}`")]
    Mount {
        /// The mount point.
        target: RootfsPath,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// `USER` does not resolve.
    #[error(transparent)]
    User(#[from] UserError),
    /// The working directory cannot be entered or made.
    #[error("cannot use `{path}` as the working directory")]
    Cwd {
        /// The working directory.
        path: RootfsPath,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The command does not exist.
    #[error("`{command}` was not found in the root{}", searched(path))]
    CommandNotFound {
        /// The command as given.
        command: String,
        /// The `PATH` that was searched; `None` if the command has a slash.
        path: Option<String>,
    },
    /// The program exists, but its interpreter does not: a script's first line, or the dynamic loader of another C library.
    #[error("`{program}` exists, but the interpreter it asks for does not")]
    MissingInterpreter {
        /// The program.
        program: String,
    },
    /// The command exists and cannot be executed.
    #[error("`{program}` cannot be executed")]
    NotRunnable {
        /// The program.
        program: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A step of the set-up inside the sandbox failed.
    #[error("setting up the sandbox failed at: {stage}")]
    Setup {
        /// Where it failed.
        stage: Stage,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The set-up process died before it could report.
    #[error("the process that sets up the sandbox ended without a report")]
    Vanished,
    /// A cgroup cannot be made or set.
    #[error("cannot set up cgroup `{}`", path.display())]
    Cgroup {
        /// The directory or file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A limit was asked for that this machine cannot enforce.
    #[error("this machine cannot limit {resource}: no writable cgroup controller for it")]
    CannotLimit {
        /// What should have been limited.
        resource: &'static str,
    },
    /// The owner's name does not fit a cgroup directory.
    #[error("owner name `{0}` is not made of 1 to 64 lower-case letters, digits, `-` and `_`")]
    OwnerName(String),
}

/// Stages of the set-up inside a sandbox, in their order.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Stage {
    /// Reading what to do.
    Instructions,
    /// Joining the cgroups.
    Cgroups,
    /// Own network namespace and its loopback interface.
    Network,
    /// Host name.
    Hostname,
    /// Making the new root.
    Root,
    /// `/proc` and its masks.
    Proc,
    /// `/sys`.
    Sys,
    /// `/dev`.
    Dev,
    /// Terminal.
    Terminal,
    /// Leaving the old root.
    PivotRoot,
    /// Standard descriptors, signals, session.
    Session,
    /// Limits.
    Limits,
    /// `/etc/passwd` and `/etc/group`.
    Accounts,
    /// Capabilities, user and groups.
    Credentials,
    /// The system call filter.
    Seccomp,
    /// Closing descriptors, arranging to die with the parent.
    LastRites,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Instructions => "reading the instructions",
            Self::Cgroups => "joining the cgroups",
            Self::Network => "making a network namespace",
            Self::Hostname => "setting the host name",
            Self::Root => "attaching the root file system",
            Self::Proc => "mounting /proc",
            Self::Sys => "mounting /sys",
            Self::Dev => "mounting /dev",
            Self::Terminal => "opening the terminal",
            Self::PivotRoot => "changing the root directory",
            Self::Session => "preparing descriptors, signals and session",
            Self::Limits => "setting resource limits",
            Self::Accounts => "reading /etc/passwd and /etc/group",
            Self::Credentials => "changing user and capabilities",
            Self::Seccomp => "installing the system call filter",
            Self::LastRites => "the last steps before the command",
        })
    }
}

impl SandboxError {
    /// The exit code that `docker run` gives for this error: 127 not found, 126 not runnable, 125 anything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::CommandNotFound { .. } | Self::MissingInterpreter { .. } => 127,
            Self::NotRunnable { .. } => 126,
            _ => 125,
        }
    }
}

fn detail(kernel_says: &str) -> String {
    if kernel_says.is_empty() { String::new() } else { format!(" (the kernel says: {kernel_says})") }
}

fn searched(path: &Option<String>) -> String {
    path.as_ref().map_or_else(String::new, |path| format!(" (looked in {path})"))
}
