//! The owner of everything: starts processes and undoes what they leave.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sys::descriptor_socket::{DescriptorSocket, MAX_DESCRIPTORS};
use sys::process::Child;
use sys::seccomp::Instruction;

use crate::cgroup::{Group, Groups};
use crate::inside::{Order, Report, decode, encode};
use crate::launcher::{Launcher, Launching};
use crate::prepare::{self, Prepared};
use crate::process::{Output, Process};
use crate::reaper::Reaper;
use crate::spec::{Limits, Stdio};
use crate::{HelperProgram, Machine, Network, Owner, Posture, SandboxError, Spec};

/// Starts processes in sandboxes, from any thread. Dropping the last of it and its processes leaves no trace on the machine.
#[derive(Debug)]
pub struct Sandboxes {
    /// A helper that awaits the next instructions.
    standby: Mutex<Option<Helper>>,
    shared: Arc<Shared>,
}

/// A process that awaits its instructions, or is about to.
#[derive(Debug)]
struct Helper {
    shared: Arc<Shared>,
    limits: Limits,
    network: Network,
    posture: Posture,
    group: Group,
    launched: Launched,
    socket: DescriptorSocket,
}

/// What [`Sandboxes`] and its processes have in common.
// Fields are dropped in order: the launcher's thread ends last of those that processes depend on, the groups after all.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) machine: Machine,
    pub(crate) launcher: Launcher,
    pub(crate) reaper: Reaper,
    pub(crate) filter: Vec<Instruction>,
    groups: Groups,
    oom_kills_seen: AtomicU64,
}

impl Shared {
    /// Whether the kernel has killed a process for want of memory since the last time somebody asked. Without a memory cgroup of its own this is
    /// all there is to tell such an end from another SIGKILL.
    pub(crate) fn machine_ran_out_of_memory(&self) -> bool {
        let now = oom_kills();
        self.oom_kills_seen.swap(now, Ordering::Relaxed) < now
    }
}

/// The kernel's count of processes killed for want of memory; 0 where it does not say.
fn oom_kills() -> u64 {
    let counters = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let count = counters.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

impl Sandboxes {
    /// Gets ready on `machine`, in the name of `owner`, who has no other.
    ///
    /// # Errors
    /// [`SandboxError::Cgroup`], [`SandboxError::Prepare`].
    pub fn open(machine: Machine, owner: Owner, program: HelperProgram) -> Result<Self, SandboxError> {
        let launcher = Launcher::new(program)?;
        let groups = Groups::open(&machine, owner)?;
        let filter = if machine.seccomp { crate::seccomp::filter() } else { Vec::new() };
        let oom_kills_seen = AtomicU64::new(oom_kills());
        let shared = Shared { machine, launcher, reaper: Reaper::new()?, filter, groups, oom_kills_seen };
        Ok(Self { standby: Mutex::default(), shared: Arc::new(shared) })
    }

    /// What the machine allows.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.shared.machine
    }

    /// Waits until everything that ended processes left is undone.
    pub fn settle(&self) {
        self.shared.reaper.settle();
    }

    /// Gets ready, in the background, for the start of a process with the limits and the network of `spec`: that start then takes half the
    /// time. Whatever goes wrong is told by the start.
    pub fn expect_another(&self, spec: &Spec) {
        let mut standby = self.standby();
        if standby.is_none() {
            let helper = Helper::launch(&self.shared, spec);
            *standby = helper.inspect_err(|error| tracing::debug!(%error, "no helper ahead")).ok();
        }
    }

    /// Starts a process and returns once its command executes.
    ///
    /// # Errors
    /// Every [`SandboxError`]; nothing is left of the attempt.
    pub fn start(&self, spec: &Spec) -> Result<(Process, Output), SandboxError> {
        let shared = &self.shared;
        let helper = self.helper(spec)?;
        // While the helper starts, its mounts are made here.
        let prepared = prepare::prepare(spec, shared, &helper.group);
        let (mut process, socket) = helper.into_process()?;
        let (prepared, output) = prepared?;
        let namespace = open_namespace(process.pid());
        let instructed = instruct(&socket, &prepared);
        drop(prepared);
        // A helper that was gone before it had them has said why.
        let terminal = follow(&socket)?;
        instructed?;
        process.hold_namespace(namespace?);
        let output = match (output, terminal) {
            (Some(output), _) => output,
            (None, Some(terminal)) => {
                let copy = terminal.try_clone();
                process.set_terminal(Arc::new(terminal));
                Output::Terminal(
                    copy.map_err(|source| SandboxError::Prepare { step: "copy a descriptor", source })?,
                )
            }
            (None, None) if matches!(spec.stdio, Stdio::Terminal(_)) => return Err(SandboxError::Vanished),
            (None, None) => Output::Inherited,
        };
        Ok((process, output))
    }
}

impl Drop for Sandboxes {
    fn drop(&mut self) {
        let ready = self.standby().take();
        if let Some(helper) = ready {
            helper.end();
        }
    }
}

/// The next process's helper.
impl Sandboxes {
    /// One that is ready, or a new one.
    fn helper(&self, spec: &Spec) -> Result<Helper, SandboxError> {
        let ready = self.standby().take();
        if let Some(mut ready) = ready {
            match ready.fits(spec) {
                Ok(true) => return Ok(ready),
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "no use of the helper ahead"),
            }
            ready.end();
        }
        Helper::launch(&self.shared, spec)
    }

    fn standby(&self) -> MutexGuard<'_, Option<Helper>> {
        self.standby.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Helper {
    fn launch(shared: &Arc<Shared>, spec: &Spec) -> Result<Self, SandboxError> {
        let (limits, network, posture) = (spec.limits.clone(), spec.network, spec.posture);
        let order = Order { network, shm_bytes: limits.shm_bytes, posture };
        let group = shared.groups.make(&limits, posture)?;
        let (socket, theirs) = DescriptorSocket::pair()
            .map_err(|source| SandboxError::Prepare { step: "make a socket", source })?;
        let launching = shared.launcher.launch(theirs, group.birthplace.clone(), order);
        Ok(Self {
            shared: Arc::clone(shared),
            limits,
            network,
            posture,
            group,
            launched: Launched::Launching(launching),
            socket,
        })
    }

    /// Whether it is alive, and made for such a process.
    fn fits(&mut self, spec: &Spec) -> Result<bool, SandboxError> {
        let child = self.launched.wait()?;
        let has_ended = sys::process::ends_within(&child.pidfd, Duration::ZERO)
            .map_err(|source| SandboxError::Prepare { step: "look at a process", source })?;
        let is_for =
            self.limits == spec.limits && self.network == spec.network && self.posture == spec.posture;
        Ok(!has_ended && is_for)
    }

    /// Ends one that is not needed.
    fn end(self) {
        if let Err(error) = self.into_process() {
            tracing::debug!(%error, "the helper ahead had no chance");
        }
    }

    fn into_process(mut self) -> Result<(Process, DescriptorSocket), SandboxError> {
        self.launched.wait()?;
        let Launched::Running(child) = self.launched else { return Err(SandboxError::Vanished) };
        Ok((Process::new(self.shared, child, self.group), self.socket))
    }
}

/// A process that is on its way or there.
#[derive(Debug)]
enum Launched {
    Launching(Launching),
    Running(Child),
    Failed,
}

impl Launched {
    fn wait(&mut self) -> Result<&Child, SandboxError> {
        *self = match std::mem::replace(self, Self::Failed) {
            Self::Launching(launching) => Self::Running(launching.wait()?),
            other => other,
        };
        match self {
            Self::Running(child) => Ok(child),
            _ => Err(SandboxError::Vanished),
        }
    }
}

/// The mount namespace of a process. A process that failed has none any more, and says why by itself.
fn open_namespace(pid: u32) -> Result<OwnedFd, SandboxError> {
    File::open(format!("/proc/{pid}/ns/mnt"))
        .map(OwnedFd::from)
        .map_err(|source| SandboxError::Prepare { step: "open a mount namespace", source })
}

/// Sends the instructions in a memory file, and the descriptors they name after it, in order.
fn instruct(socket: &DescriptorSocket, prepared: &Prepared) -> Result<(), SandboxError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => SandboxError::Vanished,
        _ => SandboxError::Prepare { step: "send instructions to the sandbox", source },
    };
    let text = encode(&prepared.instructions).map_err(failed)?;
    let file = sys::memory_file::sealed("instructions", &text).map_err(failed)?;
    let all: Vec<_> =
        std::iter::once(file.as_fd()).chain(prepared.descriptors.iter().map(AsFd::as_fd)).collect();
    let mut parts = all.chunks(MAX_DESCRIPTORS).peekable();
    while let Some(part) = parts.next() {
        let more = u8::from(parts.peek().is_some());
        socket.send(&[more], part).map_err(failed)?;
    }
    Ok(())
}

/// Hears what the helper reports until its end of the socket is closed, which the start of the command does.
fn follow(socket: &DescriptorSocket) -> Result<Option<File>, SandboxError> {
    let failed = |source| SandboxError::Prepare { step: "hear from the sandbox's set-up", source };
    let (mut terminal, mut executing) = (None, false);
    while let Some(message) = socket.receive().map_err(failed)? {
        match decode::<Report>(&message.bytes).map_err(failed)? {
            Report::Terminal => terminal = message.descriptors.into_iter().next().map(File::from),
            Report::Executing => executing = true,
            Report::Failed(failure) => return Err(failure.into()),
        }
    }
    if executing { Ok(terminal) } else { Err(SandboxError::Vanished) }
}
