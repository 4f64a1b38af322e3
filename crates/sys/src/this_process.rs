//! What a process does to itself before it becomes another program: namespaces, session, signals, user, limits, descriptors.

use std::ffi::{CStr, CString, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::process::Rlimit;
use rustix::thread::{Gid, Uid};

pub use rustix::process::Resource;

use crate::process::Ending;

/// A namespace that a running process can leave for a new one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Namespace {
    /// The view of the cgroup hierarchies.
    Cgroup,
    /// Network interfaces, routes, sockets' ports.
    Network,
    /// Mounts; the thread also gets its own root and working directory.
    Mount,
}

/// Moves the calling thread into a new namespace.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub fn unshare(namespace: Namespace) -> io::Result<()> {
    let flags = match namespace {
        Namespace::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        Namespace::Network => CloneFlags::CLONE_NEWNET,
        Namespace::Mount => CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS,
    };
    Ok(nix::sched::unshare(flags)?)
}

/// Sets the host name of the uts namespace.
///
/// # Errors
/// `EINVAL` if it is longer than 64 bytes.
pub fn set_hostname(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// Brings the loopback interface of the network namespace up.
///
/// # Errors
/// Those of netdevice(7).
pub fn bring_up_loopback() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: `ifreq` is plain data for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request reads one live `ifreq`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Leaves the session keyring that was inherited for a new, anonymous one.
///
/// # Errors
/// `ENOSYS` where the kernel has no keyrings.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing is written.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Becomes the leader of a new session and process group, without a controlling terminal.
///
/// # Errors
/// `EPERM` if it leads a group already.
pub fn new_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Gives every signal its default action and unblocks all: what a new program expects.
///
/// # Errors
/// Those of sigprocmask(2).
pub fn reset_signals() -> io::Result<()> {
    // The kernel's `struct sigaction` (handler, flags, restorer, mask), of which zero means the default action. glibc's own call refuses
    // the two signals that it uses itself, though a parent may have left them ignored.
    let default = [0_u64; 4];
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: the kernel reads one live struct of four words and an eight-byte mask size, and writes nothing to the null pointer; it
        // fails with EINVAL for the signals whose action is fixed, which is right.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), std::ptr::null::<u64>(), 8_usize)
        };
    }
    Ok(nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// Waits for the next signal; all are blocked.
///
/// # Errors
/// Those of sigwait(3).
pub fn next_signal() -> io::Result<i32> {
    Ok(SigSet::all().wait()? as i32)
}

/// Sends a signal to a process by number, which is only safe for an unreaped child.
///
/// # Errors
/// Those of kill(2).
pub fn signal_child(pid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: the call takes two integers.
    let result = unsafe { libc::kill(pid as libc::pid_t, signal) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reaps one child that has ended, if there is one: its number and ending.
///
/// # Errors
/// `ECHILD` if there is no child at all.
pub fn reap_any() -> io::Result<Option<(u32, Ending)>> {
    let mut status: c_int = 0;
    // SAFETY: the kernel writes one integer to a live local.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid if libc::WIFEXITED(status) => {
            Ok(Some((pid as u32, Ending::Exited(libc::WEXITSTATUS(status) as u8))))
        }
        pid => Ok(Some((pid as u32, Ending::Killed(libc::WTERMSIG(status))))),
    }
}

/// Sets the mode bits that new files do not get.
pub fn set_umask(mask: u32) {
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(mask));
}

/// Sets a soft and a hard limit (`None`: none); where raising the hard one is not permitted, both as near as it is.
///
/// # Errors
/// Those of setrlimit(2).
pub fn set_resource_limit(resource: Resource, soft: Option<u64>, hard: Option<u64>) -> io::Result<()> {
    match rustix::process::setrlimit(resource, Rlimit { current: soft, maximum: hard }) {
        Err(rustix::io::Errno::PERM) => {
            let allowed = rustix::process::getrlimit(resource).maximum;
            let lower = |limit: Option<u64>| limit.into_iter().chain(allowed).min();
            Ok(rustix::process::setrlimit(resource, Rlimit { current: lower(soft), maximum: lower(hard) })?)
        }
        other => Ok(other?),
    }
}

/// Forbids gaining privileges by executing programs.
///
/// # Errors
/// Those of prctl(2).
pub fn forbid_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Sets the group, and the supplementary groups, of the calling thread.
///
/// # Errors
/// `EPERM` without CAP_SETGID.
pub fn set_groups(gid: u32, supplementary: &[u32]) -> io::Result<()> {
    let groups: Vec<Gid> = supplementary.iter().map(|&gid| Gid::from_raw(gid)).collect();
    rustix::thread::set_thread_groups(&groups)?;
    let gid = Gid::from_raw(gid);
    Ok(rustix::thread::set_thread_res_gid(gid, gid, gid)?)
}

/// Sets the user of the calling thread; leaving user 0 clears the permitted and effective capabilities.
///
/// # Errors
/// `EPERM` without CAP_SETUID.
pub fn set_user(uid: u32) -> io::Result<()> {
    let uid = Uid::from_raw(uid);
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

/// Asks to be killed when the thread that started this process ends. Changing user or executing a set-user-ID program undoes it.
///
/// # Errors
/// Those of prctl(2).
pub fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
}

/// Marks every descriptor from 3 on to be closed when a program is executed.
///
/// # Errors
/// Those of close_range(2).
pub fn close_on_exec_from_3() -> io::Result<()> {
    // SAFETY: the call takes integers; with this flag it closes nothing yet.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes `source` the standard descriptor `number` (0, 1 or 2), open across exec.
///
/// # Errors
/// `EBADF` for another number.
pub fn set_standard(number: RawFd, source: BorrowedFd<'_>) -> io::Result<()> {
    match number {
        0 => Ok(nix::unistd::dup2_stdin(source)?),
        1 => Ok(nix::unistd::dup2_stdout(source)?),
        2 => Ok(nix::unistd::dup2_stderr(source)?),
        _ => Err(io::Error::from_raw_os_error(libc::EBADF)),
    }
}

/// Changes the owner of the file that the standard descriptor `number` refers to.
///
/// # Errors
/// Those of fchown(2), `EBADF` for another number.
pub fn give_standard(number: RawFd, uid: u32) -> io::Result<()> {
    let change = |fd: BorrowedFd<'_>| Ok(rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None)?);
    match number {
        0 => change(io::stdin().as_fd()),
        1 => change(io::stdout().as_fd()),
        2 => change(io::stderr().as_fd()),
        _ => Err(io::Error::from_raw_os_error(libc::EBADF)),
    }
}

/// Takes the descriptor that [`crate::process::start`] handed over under this number, and closes all others but the standard ones.
///
/// # Errors
/// `EBADF` if there is none.
pub fn take_handed(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes integers and says whether the descriptor is open.
    if number <= 2 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    for (first, last) in [(3, number - 1), (number + 1, RawFd::MAX)] {
        if first <= last {
            // SAFETY: whatever is open here came from a careless starter: our caller is the first code that runs, and has opened nothing.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
    // SAFETY: the descriptor is open, and this program was started by `process::start` to own it: its caller is the first code that runs.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Enters a directory and gives its path as the kernel sees it, which begins with `/` unless the directory lies outside the root.
///
/// # Errors
/// Those of fchdir(2) and getcwd(2).
pub fn enter_directory(directory: BorrowedFd<'_>) -> io::Result<CString> {
    rustix::process::fchdir(directory)?;
    Ok(rustix::process::getcwd(Vec::new())?)
}

/// Copies this process, which has one thread. The copy runs `child` and exits with the code it gives; the number of the copy is returned.
///
/// # Errors
/// Those of fork(2); `EBUSY` if there are other threads, whose locks the copy would inherit.
pub fn fork(child: impl FnOnce() -> i32) -> io::Result<u32> {
    require_one_thread()?;
    // SAFETY: the process has only this thread, so no lock is held by another and the copy can do everything the original can.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(child.as_raw() as u32),
        nix::unistd::ForkResult::Child => std::process::exit(child()),
    }
}

/// Fails with `EBUSY` if this process has several threads.
pub(crate) fn require_one_thread() -> io::Result<()> {
    // A directory has a link for each directory in it, and two more.
    let links = std::fs::metadata("/proc/self/task")?.nlink();
    if links == 3 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EBUSY)) }
}

/// Makes the calling process the leader of a new process group of its session.
///
/// # Errors
/// Those of setpgid(2).
pub fn new_process_group() -> io::Result<()> {
    Ok(rustix::process::setpgid(None, None)?)
}

/// Blocks every signal of the calling thread, for [`next_signal`] and for calls that a signal would stop.
///
/// # Errors
/// Those of sigprocmask(2).
pub fn block_all_signals() -> io::Result<()> {
    Ok(SigSet::all().thread_set_mask()?)
}

/// Becomes another program. Returns only if that fails.
#[must_use]
pub fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    match nix::unistd::execve(program, arguments, environment) {
        Err(errno) => errno.into(),
    }
}

/// The release of the running kernel (`uname -r`).
#[must_use]
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
