//! Starting a program in new namespaces, and following it by descriptor. What that program then does to itself is in
//! [`crate::this_process`].

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

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
