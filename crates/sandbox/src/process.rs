//! A running process tree, and how it ended.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use sys::process::{Ended, SIGKILL};
use sys::terminal::WindowSize;

use crate::SandboxError;
use crate::cgroup::Group;
use crate::reaper::Remains;
use crate::sandboxes::Shared;
use crate::spec::StopPolicy;

pub use sys::process::Ending;

/// Our ends of a process' standard descriptors.
#[derive(Debug)]
pub enum Output {
    /// The reading ends of two pipes. The process waits when they are full.
    Captured {
        /// What it writes to descriptor 1.
        stdout: File,
        /// What it writes to descriptor 2.
        stderr: File,
    },
    /// The ends of three pipes.
    Piped {
        /// What it reads from descriptor 0; it reads the end of its input once this is dropped.
        stdin: File,
        /// As above.
        stdout: File,
        /// As above.
        stderr: File,
    },
    /// The controlling end of its terminal: reading gives its output (`EIO` when all have closed the other end), writing is its input.
    Terminal(File),
    /// There is nothing to read: the process has our own descriptors.
    Inherited,
}

/// How a process tree ended and what it used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exit {
    /// How its first process ended.
    pub ending: Ending,
    /// Whether the kernel killed one of its processes for want of memory, within its own limit or the machine's.
    pub oom_killed: bool,
    /// The most memory it had at a time: of the whole tree where it has a memory cgroup, else of its largest process.
    pub peak_memory_bytes: u64,
    /// CPU time of all its processes that were waited for.
    pub cpu_time: Duration,
}

impl Exit {
    /// The code that a shell gives for this ending: the process' own, or 128 and the number of the signal.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self.ending {
            Ending::Exited(code) => code,
            Ending::Killed(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }
}

/// A running process tree. Dropping it kills the tree.
#[derive(Debug)]
pub struct Process {
    shared: Arc<Shared>,
    pidfd: Arc<OwnedFd>,
    pid: u32,
    terminal: Option<Arc<File>>,
    remains: Option<Remains>,
}

/// Sends signals to a process tree from anywhere, also while another thread waits for it.
#[derive(Clone, Debug)]
pub struct Signaller {
    pidfd: Arc<OwnedFd>,
    terminal: Option<Arc<File>>,
}

impl Signaller {
    /// Sends a signal to the first process. One that has ended is fine. Being the first of its namespace, it only gets the signals
    /// that it handles, besides SIGKILL and SIGSTOP.
    ///
    /// # Errors
    /// Those of kill(2), for numbers that are no signal.
    pub fn signal(&self, signal: i32) -> Result<(), SandboxError> {
        match sys::process::signal(&self.pidfd, signal) {
            Err(error) if error.raw_os_error() == Some(sys::process::ESRCH) => Ok(()),
            other => other.map_err(|source| SandboxError::Prepare { step: "send a signal", source }),
        }
    }

    /// Kills the whole tree: the end of the first process is the end of all.
    ///
    /// # Errors
    /// As [`Signaller::signal`].
    pub fn kill(&self) -> Result<(), SandboxError> {
        self.signal(SIGKILL)
    }

    /// Tells the process that its terminal has another size. Without a terminal there is nothing to tell.
    ///
    /// # Errors
    /// Those of ioctl_tty(2).
    pub fn resize(&self, size: WindowSize) -> Result<(), SandboxError> {
        let Some(terminal) = &self.terminal else { return Ok(()) };
        sys::terminal::set_window_size(terminal, size)
            .map_err(|source| SandboxError::Prepare { step: "resize the terminal", source })
    }
}

impl AsFd for Process {
    /// Readable (poll(2)) once the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Process {
    pub(crate) fn new(shared: Arc<Shared>, child: sys::process::Child, group: Group) -> Self {
        Self {
            shared,
            pidfd: Arc::new(child.pidfd),
            pid: child.pid,
            terminal: None,
            remains: Some(Remains { namespace: None, group: Some(group) }),
        }
    }

    pub(crate) fn hold_namespace(&mut self, namespace: OwnedFd) {
        if let Some(remains) = &mut self.remains {
            remains.namespace = Some(namespace);
        }
    }

    pub(crate) fn set_terminal(&mut self, terminal: Arc<File>) {
        self.terminal = Some(terminal);
    }

    /// Number of the first process, as seen from outside.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A way to send signals from elsewhere.
    #[must_use]
    pub fn signaller(&self) -> Signaller {
        Signaller { pidfd: Arc::clone(&self.pidfd), terminal: self.terminal.clone() }
    }

    /// Waits until the whole tree has ended. What it leaves is undone in the background.
    ///
    /// # Errors
    /// Those of waitid(2), which mean that somebody else reaped it.
    pub fn wait(mut self) -> Result<Exit, SandboxError> {
        self.finish()
    }

    /// Asks the process to end, and kills the tree when it takes longer than the policy allows.
    ///
    /// # Errors
    /// As [`Process::wait`].
    pub fn stop(mut self, policy: StopPolicy) -> Result<Exit, SandboxError> {
        let signaller = self.signaller();
        signaller.signal(policy.signal)?;
        let ended = sys::process::ends_within(&self.pidfd, policy.grace)
            .map_err(|source| SandboxError::Prepare { step: "wait for the process", source })?;
        if !ended {
            signaller.kill()?;
        }
        self.finish()
    }

    fn finish(&mut self) -> Result<Exit, SandboxError> {
        let ended = sys::process::wait(&self.pidfd)
            .map_err(|source| SandboxError::Prepare { step: "wait for the process", source })?;
        let remains =
            self.remains.take().expect("taken only here, and whoever calls this consumes the process");
        let exit = self.summary(ended, remains.group.as_ref());
        self.shared.reaper.undo(remains);
        Ok(exit)
    }

    fn summary(&self, ended: Ended, group: Option<&Group>) -> Exit {
        let memory = group.map(Group::memory).unwrap_or_default();
        let killed = ended.ending == Ending::Killed(SIGKILL);
        Exit {
            ending: ended.ending,
            oom_killed: memory.oom_kills > 0 || killed && self.shared.machine_ran_out_of_memory(),
            peak_memory_bytes: memory.peak_bytes.unwrap_or(ended.peak_resident_bytes),
            cpu_time: ended.cpu_time,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.remains.is_none() {
            return;
        }
        let ended = self.signaller().kill().and_then(|()| self.finish());
        if let Err(error) = ended {
            tracing::error!(%error, pid = self.pid, "a sandbox could not be ended");
        }
    }
}
