//! Starting processes, in new namespaces too, and following them by descriptor. What a process then does to itself is in
//! [`crate::this_process`].

use std::ffi::{OsStr, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

/// `CLONE_INTO_CGROUP`, which does not fit the integer that libc gives it.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// A started process.
#[derive(Debug)]
pub struct Child {
    /// Refers to it, also after its end.
    pub pidfd: OwnedFd,
    /// Its number as we see it.
    pub pid: u32,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// By itself, with this code.
    Exited(u8),
    /// By this signal.
    Killed(i32),
}

/// A process that ended, with what it and the children it waited for have used.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// How.
    pub ending: Ending,
    /// CPU time, user and system.
    pub cpu_time: Duration,
    /// The largest resident size that any one of the processes had.
    pub peak_resident_bytes: u64,
}

/// Starts the executable file `image` with the standard descriptors, the working directory and the mount namespace of the calling thread. It
/// gets two arguments, its name and the number under which it finds `handed` ([`crate::this_process::take_handed`]), an empty environment, and all
/// signals blocked.
///
/// # Errors
/// Those of fork(2) and execve(2).
pub fn start(image: BorrowedFd<'_>, name: &OsStr, handed: BorrowedFd<'_>) -> io::Result<Child> {
    let (image, handed) = (image.as_raw_fd(), handed.as_raw_fd());
    let mut command = Command::new(format!("/proc/self/fd/{image}"));
    command.arg0(name).arg(handed.to_string()).env_clear();
    // SAFETY: between fork and exec only async-signal-safe calls are made, with integers that outlive them.
    unsafe {
        command.pre_exec(move || {
            // The keys of a terminal that end us are not for it.
            crate::this_process::block_all_signals()?;
            match libc::fcntl(handed, libc::F_SETFD, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    let pid = command.spawn()?.id();
    // Nobody else waits for it, so the number is its own until we do.
    Ok(Child { pidfd: open(pid)?, pid })
}

/// Has a program that is to be started lead a session of its own: it gets no signals of our terminal, and has none to ask anybody on (setsid(2)).
pub fn leads_session(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec only one async-signal-safe call is made.
    unsafe { command.pre_exec(|| rustix::process::setsid().map(drop).map_err(io::Error::from)) }
}

/// Has the kernel kill a program that is to be started when the thread that starts it ends, however that ends (prctl(2),
/// `PR_SET_PDEATHSIG`).
pub fn bind_to_us(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec only one async-signal-safe call is made.
    unsafe { command.pre_exec(crate::this_process::die_with_parent) }
}

/// Which of the two a process is after [`fork_into_namespaces`].
#[derive(Debug)]
pub enum Forked {
    /// The new one.
    Child,
    /// The one that called, which has the new one here.
    Parent(Child),
}

/// Copies this process, which has one thread, into new mount, pid, uts and ipc namespaces and, if one is given, into a cgroup 2. The
/// copy is a child of our parent, which can wait for it.
///
/// # Errors
/// Those of clone3(2); `EBUSY` if there are other threads, whose locks the copy would inherit.
pub fn fork_into_namespaces(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    crate::this_process::require_one_thread()?;
    let mut pidfd: c_int = -1;
    // SAFETY: all fields of `clone_args` are integers, for which zero is valid and means "not used".
    let mut arguments: libc::clone_args = unsafe { MaybeUninit::zeroed().assume_init() };
    arguments.flags = (libc::CLONE_PIDFD | libc::CLONE_PARENT) as u64
        | (libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC) as u64;
    arguments.pidfd = (&raw mut pidfd) as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the copy has its own memory, and a stack that goes on where this one is. No lock is held by a thread that it
    // lacks, since there is none. What the C library remembers of the thread's number, it uses for locks of kinds that we do not use.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        // SAFETY: clone3 succeeded with CLONE_PIDFD, so `pidfd` is a new descriptor that nobody else owns.
        pid => Ok(Forked::Parent(Child { pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) }, pid: pid as u32 })),
    }
}

/// Waits until the process ends and reaps it.
///
/// # Errors
/// `ECHILD` if it is no child of ours or was reaped before.
pub fn wait(pidfd: impl AsFd) -> io::Result<Ended> {
    let pidfd = pidfd.as_fd();
    // SAFETY: both structs are plain data for which all zeroes are valid.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) =
        unsafe { (MaybeUninit::zeroed().assume_init(), MaybeUninit::zeroed().assume_init()) };
    loop {
        // SAFETY: the kernel writes one `siginfo_t` and one `rusage` to live locals of those types.
        let result = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PIDFD,
                pidfd.as_raw_fd(),
                &raw mut info,
                libc::WEXITED,
                &raw mut usage,
            )
        };
        if result == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: waitid filled in the variant for SIGCHLD.
    let status = unsafe { info.si_status() };
    let ending =
        if info.si_code == libc::CLD_EXITED { Ending::Exited(status as u8) } else { Ending::Killed(status) };
    Ok(Ended {
        ending,
        cpu_time: duration(usage.ru_utime) + duration(usage.ru_stime),
        peak_resident_bytes: usage.ru_maxrss as u64 * 1024,
    })
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
}

/// Waits until the process ends or the time is over, without reaping it. Says whether it ended.
///
/// # Errors
/// Those of poll(2).
pub fn ends_within(pidfd: impl AsFd, time: Duration) -> io::Result<bool> {
    let timeout = rustix::event::Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    let mut entry = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    Ok(rustix::event::poll(&mut entry, Some(&timeout))? > 0)
}

/// Opens a running process by its number.
///
/// # Errors
/// `ESRCH` if there is none.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// Sends a signal to the process.
///
/// # Errors
/// `ESRCH` if it was reaped, `EINVAL` for no signal.
pub fn signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let pidfd = pidfd.as_fd();
    // SAFETY: the call takes integers; a null pointer means default information.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal to all processes of the group whose first member is `leader`. Safe as long as that one is not reaped.
///
/// # Errors
/// `ESRCH` if there is none (killpg(3)).
pub fn signal_group(leader: u32, signal: i32) -> io::Result<()> {
    let leader = i32::try_from(leader).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    let signal = Signal::try_from(signal)?;
    Ok(nix::sys::signal::killpg(nix::unistd::Pid::from_raw(leader), signal)?)
}

/// The number of SIGCHLD.
pub const SIGCHLD: i32 = Signal::SIGCHLD as i32;
/// The number of SIGTERM.
pub const SIGTERM: i32 = Signal::SIGTERM as i32;
/// The error of signalling a process that is gone.
pub const ESRCH: i32 = libc::ESRCH;
/// The number of SIGKILL.
pub const SIGKILL: i32 = Signal::SIGKILL as i32;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_starts_with_the_handed_descriptor_and_no_environment() {
        let output = tempfile::tempfile().unwrap();
        let program = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(program.path(), "#!/bin/sh\necho \"$# $PWD-$HOME\" > /proc/self/fd/$1; exit 7")
            .unwrap();
        std::fs::set_permissions(program.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let image = File::open(program.path()).unwrap();
        // The interpreter of a script opens it by name.
        rustix::io::fcntl_setfd(&image, rustix::io::FdFlags::empty()).unwrap();
        drop(program.into_temp_path().keep().map(std::fs::remove_file));
        let child = loop {
            match start(image.as_fd(), OsStr::new("x"), output.as_fd()) {
                // For as long as the fork of another test has it open for writing.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
                started => break started.unwrap(),
            }
        };
        assert_eq!(wait(child.pidfd.as_fd()).unwrap().ending, Ending::Exited(7));
        let mut text = String::new();
        io::Seek::rewind(&mut &output).unwrap();
        io::Read::read_to_string(&mut &output, &mut text).unwrap();
        assert!(text.starts_with("1 /") && text.ends_with("-\n"), "{text}");
    }

    #[test]
    fn what_cannot_be_executed_is_an_error_and_leaves_no_child() {
        let text = tempfile::tempfile().unwrap();
        let error = start(text.as_fd(), OsStr::new("x"), text.as_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    }

    #[test]
    fn a_process_with_threads_is_not_copied() {
        let error = std::thread::spawn(|| fork_into_namespaces(None).unwrap_err()).join().unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    }
}
