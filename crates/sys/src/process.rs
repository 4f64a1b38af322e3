//! Starting a program in new namespaces, following it by descriptor, and what a process does to itself before it becomes
//! another one.

use std::ffi::{CStr, CString, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{Gid, Uid};

/// Where [`start`] puts the descriptor it hands to the new program.
pub const HANDED_DESCRIPTOR: RawFd = 3;

/// Stack of the child between clone3 and execveat, which needs a few hundred bytes.
const CHILD_STACK_BYTES: usize = 32 * 1024;

/// `CLONE_INTO_CGROUP`, which does not fit the integer that libc gives it.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// A program to be started by [`start`].
#[derive(Debug)]
pub struct Program<'a> {
    /// The executable file.
    pub image: BorrowedFd<'a>,
    /// Its argument list, the name first. Its environment is empty.
    pub arguments: &'a [&'a CStr],
    /// A descriptor that it finds at [`HANDED_DESCRIPTOR`]; it inherits 0, 1 and 2, and no others.
    pub handed: BorrowedFd<'a>,
    /// The cgroup 2 directory it starts in; ours if `None`.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// A started process: the first of new mount, pid, uts and ipc namespaces.
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

/// What the child needs between clone3 and execveat; it lives on the caller's stack, which the child shares.
struct Launch {
    image: RawFd,
    handed: RawFd,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    error: c_int,
}

/// Starts `program` as the first process of new mount, pid, uts and ipc namespaces, with the working and root directory of the
/// calling thread, and returns once it executes. All signals are blocked in it.
///
/// The child shares our memory until then (`CLONE_VM | CLONE_VFORK`), so no page table is copied however large we are. It only
/// makes async-signal-safe system calls.
///
/// # Errors
/// Those of clone3(2) and execveat(2).
pub fn start(program: &Program<'_>) -> io::Result<Child> {
    let mut argv: Vec<*const libc::c_char> = program.arguments.iter().map(|a| a.as_ptr()).collect();
    argv.push(std::ptr::null());
    let envp = [std::ptr::null()];
    let mut launch = Launch {
        image: program.image.as_raw_fd(),
        handed: program.handed.as_raw_fd(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        error: 0,
    };
    let mut stack = Box::<[u128]>::new_uninit_slice(CHILD_STACK_BYTES / size_of::<u128>());
    let mut pidfd: c_int = -1;
    // SAFETY: all fields of `clone_args` are integers, for which zero is valid and means "not used".
    let mut arguments: libc::clone_args = unsafe { MaybeUninit::zeroed().assume_init() };
    arguments.flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64
        | (libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC) as u64;
    arguments.pidfd = (&raw mut pidfd) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.stack = stack.as_mut_ptr() as u64;
    arguments.stack_size = CHILD_STACK_BYTES as u64;
    if let Some(cgroup) = program.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // A handler of ours that ran in the child would work on our memory.
    let before = block_signals()?;
    // SAFETY: `arguments`, the stack and `launch` with all it points to outlive the child's use of them, since CLONE_VFORK
    // suspends this thread until the child executes or exits; `launch_child` never returns.
    let pid = unsafe { clone3(&arguments, launch_child, &raw mut launch) };
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    if pid < 0 {
        return Err(io::Error::from_raw_os_error(-pid as i32));
    }
    // SAFETY: clone3 succeeded with CLONE_PIDFD, so `pidfd` is a new descriptor that nobody else owns.
    let child = Child { pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) }, pid: pid as u32 };
    if launch.error != 0 {
        wait(child.pidfd.as_fd())?;
        return Err(io::Error::from_raw_os_error(launch.error));
    }
    Ok(child)
}

fn block_signals() -> io::Result<SigSet> {
    let mut before = SigSet::empty();
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    Ok(before)
}

/// The child's side of [`start`].
///
/// # Safety
/// Runs on its own stack in shared memory with the parent thread suspended: system calls only, no allocation, no locks.
unsafe extern "C" fn launch_child(launch: *mut Launch) -> ! {
    // SAFETY: `launch` points to the suspended parent's live value; the pointers in it are NUL-terminated arrays; each call takes
    // plain integers beside them. errno is the suspended parent's, which expects it to change.
    unsafe {
        let launch = &mut *launch;
        if launch.handed == HANDED_DESCRIPTOR {
            libc::fcntl(HANDED_DESCRIPTOR, libc::F_SETFD, 0);
        } else {
            if launch.image == HANDED_DESCRIPTOR {
                launch.image = libc::fcntl(launch.image, libc::F_DUPFD_CLOEXEC, HANDED_DESCRIPTOR + 1);
            }
            libc::dup3(launch.handed, HANDED_DESCRIPTOR, 0);
        }
        let (first, last) = (HANDED_DESCRIPTOR + 1, libc::c_uint::MAX);
        libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC);
        libc::syscall(
            libc::SYS_execveat,
            launch.image,
            c"".as_ptr(),
            launch.argv,
            launch.envp,
            libc::AT_EMPTY_PATH,
        );
        launch.error = *libc::__errno_location();
        libc::_exit(127)
    }
}

/// clone3(2) for a child that runs `child(argument)` on the stack named in `arguments`. Returns the child's number or a negative errno.
///
/// # Safety
/// `arguments` is valid for clone3 and names a stack; `child` never returns; `argument` lives until it has executed or exited.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(
    arguments: &libc::clone_args,
    child: unsafe extern "C" fn(*mut Launch) -> !,
    argument: *mut Launch,
) -> isize {
    let mut result = libc::SYS_clone3 as isize;
    // SAFETY: in the parent, only the registers named here change. The child starts at the instruction after `syscall` on an empty,
    // aligned stack and leaves for a function that never returns, so it touches none of this frame.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") result,
            in("rdi") std::ptr::from_ref(arguments).cast::<c_void>(),
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") argument,
            in("r13") child,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// As above.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(
    arguments: &libc::clone_args,
    child: unsafe extern "C" fn(*mut Launch) -> !,
    argument: *mut Launch,
) -> isize {
    let mut result = std::ptr::from_ref(arguments) as isize;
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            inlateout("x0") result,
            in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3,
            in("x20") argument,
            in("x21") child,
        );
    }
    result
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
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is a valid action; the call fails with EINVAL for the signals whose action is fixed, which is right.
        unsafe { libc::signal(number, libc::SIG_DFL) };
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

/// The number of SIGCHLD.
pub const SIGCHLD: i32 = Signal::SIGCHLD as i32;
/// The number of SIGTERM.
pub const SIGTERM: i32 = Signal::SIGTERM as i32;
/// The error of signalling a process that is gone.
pub const ESRCH: i32 = libc::ESRCH;
/// The number of SIGKILL.
pub const SIGKILL: i32 = Signal::SIGKILL as i32;

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

/// Sets the most open files, soft and hard; where raising the hard limit is not permitted, as near as it is.
///
/// # Errors
/// Those of setrlimit(2).
pub fn set_open_files(limit: u64) -> io::Result<()> {
    let both = |limit| Rlimit { current: Some(limit), maximum: Some(limit) };
    match rustix::process::setrlimit(Resource::Nofile, both(limit)) {
        Err(rustix::io::Errno::PERM) => {
            let hard = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(limit);
            Ok(rustix::process::setrlimit(Resource::Nofile, both(limit.min(hard)))?)
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

/// Takes the descriptor that [`start`] handed over.
///
/// # Errors
/// `EBADF` if there is none.
pub fn take_handed() -> io::Result<OwnedFd> {
    // SAFETY: the call takes integers and says whether the descriptor is open.
    if unsafe { libc::fcntl(HANDED_DESCRIPTOR, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and this program was started by `start` to own it: its caller is the first code that runs.
    Ok(unsafe { OwnedFd::from_raw_fd(HANDED_DESCRIPTOR) })
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
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: the process has only this thread, so no lock is held by another and the copy can do everything the original can.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(child.as_raw() as u32),
        nix::unistd::ForkResult::Child => std::process::exit(child()),
    }
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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_program_starts_with_the_handed_descriptor_and_no_others() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let stray = File::open("/dev/null").unwrap();
        // Without close-on-exec, as descriptors come from careless libraries.
        rustix::io::fcntl_setfd(&stray, rustix::io::FdFlags::empty()).unwrap();
        let output = tempfile::tempfile().unwrap();
        let shell = File::open("/bin/sh").unwrap();
        let script = c"for n in 0 1 2 3 4 5 6 7 8 9; do [ -e /proc/self/fd/$n ] && echo $n; done >&3; exit 7";
        let program = Program {
            image: shell.as_fd(),
            arguments: &[c"sh", c"-c", script],
            handed: output.as_fd(),
            cgroup: None,
        };
        let child = start(&program).unwrap();
        assert_eq!(wait(child.pidfd.as_fd()).unwrap().ending, Ending::Exited(7));
        let mut text = String::new();
        io::Seek::rewind(&mut &output).unwrap();
        io::Read::read_to_string(&mut &output, &mut text).unwrap();
        assert_eq!(text, "0\n1\n2\n3\n");
    }

    #[test]
    fn what_cannot_be_executed_is_an_error_and_leaves_no_child() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let text = crate::memory_file::sealed("test", b"no program").unwrap();
        let program = Program { image: text.as_fd(), arguments: &[c"x"], handed: text.as_fd(), cgroup: None };
        assert_eq!(start(&program).unwrap_err().raw_os_error(), Some(libc::ENOEXEC));
    }
}
