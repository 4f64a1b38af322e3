//! Stops a child at each of its calls that change a file system or sync one.

use std::path::Path;

use nix::libc::{self, c_long};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::scenario::Child;

/// The calls at which a process may be cut off with different results.
const CALLS: [c_long; 19] = [
    libc::SYS_openat,
    libc::SYS_mkdirat,
    libc::SYS_renameat2,
    libc::SYS_renameat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_flock,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_utimensat,
    libc::SYS_copy_file_range,
    libc::SYS_fallocate,
];

/// Those of before the `at` calls, which the C library still uses where they exist.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: [c_long; 6] =
    [libc::SYS_mkdir, libc::SYS_rename, libc::SYS_unlink, libc::SYS_rmdir, libc::SYS_chmod, libc::SYS_chown];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: [c_long; 0] = [];

/// What is to be done at a stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    GoOn,
    Kill,
}

/// A call at which the child stopped, before it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    /// Counted from 0.
    pub(crate) number: usize,
    pub(crate) call: c_long,
}

/// Runs a scenario and asks `at_stop` at each call of the thread that runs it. True if the child came to its end, false if it was killed.
pub(crate) fn trace(root: &Path, scenario: &str, mut at_stop: impl FnMut(&mut Child, Stop) -> Next) -> bool {
    let mut child = Child::start_traced(root, scenario);
    let thread = child.wait_for_thread();
    let first = wait(thread);
    assert!(matches!(first, WaitStatus::Stopped(_, Signal::SIGSTOP)), "{first:?}");
    ptrace::setoptions(thread, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL).unwrap();
    let mut number = 0;
    let mut is_entry = true;
    let mut deliver = None;
    loop {
        ptrace::syscall(thread, deliver.take()).unwrap();
        match wait(thread) {
            WaitStatus::PtraceSyscall(_) if is_entry => {
                is_entry = false;
                let call = call_of(thread);
                if CALLS.contains(&call) || OLD_CALLS.contains(&call) {
                    if at_stop(&mut child, Stop { number, call }) == Next::Kill {
                        child.kill();
                        return false;
                    }
                    number += 1;
                }
            }
            WaitStatus::PtraceSyscall(_) => is_entry = true,
            WaitStatus::Stopped(_, signal) => deliver = Some(signal),
            WaitStatus::Exited(..) => {
                child.finish();
                return true;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

fn wait(thread: Pid) -> WaitStatus {
    waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap()
}

/// How often each kind of call is made by a scenario.
pub(crate) fn count_calls(root: &Path, scenario: &str, calls: &[c_long]) -> usize {
    let mut count = 0;
    assert!(trace(root, scenario, |_, stop| {
        count += usize::from(calls.contains(&stop.call));
        Next::GoOn
    }));
    count
}

#[cfg(target_arch = "x86_64")]
fn call_of(pid: Pid) -> c_long {
    c_long::try_from(ptrace::getregs(pid).unwrap().orig_rax).unwrap()
}

#[cfg(target_arch = "aarch64")]
fn call_of(pid: Pid) -> c_long {
    c_long::try_from(ptrace::getregs(pid).unwrap().regs[8]).unwrap()
}
