//! Stops a child at each of its calls that change a file system or sync one. Only where the registers of a call are known to us.

use std::path::Path;

use nix::errno::Errno;
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
const OLD_CALLS: [c_long; 6] =
    [libc::SYS_mkdir, libc::SYS_rename, libc::SYS_unlink, libc::SYS_rmdir, libc::SYS_chmod, libc::SYS_chown];

/// What is to be done at a stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    GoOn,
    Kill,
    /// The call is not made and gives this error.
    Fail(Errno),
}

/// A call at which the child stopped, before it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    /// Counted from 0.
    pub(crate) number: usize,
    pub(crate) call: c_long,
}

/// Runs a scenario and asks `at_stop` at each call of the thread that runs it. What the child said if it came to its end, `None` if it was
/// killed.
pub(crate) fn trace(
    root: &Path,
    scenario: &str,
    mut at_stop: impl FnMut(Stop) -> Next,
) -> Option<Vec<String>> {
    let mut child = Child::start_traced(root, scenario);
    let thread = child.wait_for_thread();
    let first = wait(thread);
    assert!(matches!(first, WaitStatus::Stopped(_, Signal::SIGSTOP)), "{first:?}");
    ptrace::setoptions(thread, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL).unwrap();
    let mut number = 0;
    let mut is_entry = true;
    let mut deliver = None;
    let mut fault = None;
    loop {
        ptrace::syscall(thread, deliver.take()).unwrap();
        match wait(thread) {
            WaitStatus::PtraceSyscall(_) if is_entry => {
                is_entry = false;
                let Some(call) = call_of(thread) else { continue };
                match at_stop(Stop { number, call }) {
                    Next::GoOn => {}
                    Next::Kill => {
                        child.kill();
                        return None;
                    }
                    Next::Fail(errno) => {
                        skip_call(thread);
                        fault = Some(errno);
                    }
                }
                number += 1;
            }
            WaitStatus::PtraceSyscall(_) => {
                is_entry = true;
                if let Some(errno) = fault.take() {
                    set_result(thread, errno);
                }
            }
            WaitStatus::Stopped(_, signal) => deliver = Some(signal),
            WaitStatus::Exited(..) => {
                let said = child.remaining_lines();
                child.finish();
                return Some(said);
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

fn wait(thread: Pid) -> WaitStatus {
    waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap()
}

/// How often some calls are made by a scenario.
pub(crate) fn count_calls(root: &Path, scenario: &str, calls: &[c_long]) -> usize {
    let mut count = 0;
    let said = trace(root, scenario, |stop| {
        count += usize::from(calls.contains(&stop.call));
        Next::GoOn
    });
    assert!(said.is_some());
    count
}

/// The call a thread is about to make, if it is one that matters and not what the child tells the test.
fn call_of(thread: Pid) -> Option<c_long> {
    let (call, first_argument) = call_and_argument(thread);
    let is_speech = call == libc::SYS_write && first_argument <= 2;
    ((CALLS.contains(&call) || OLD_CALLS.contains(&call)) && !is_speech).then_some(call)
}

fn call_and_argument(thread: Pid) -> (c_long, u64) {
    let registers = ptrace::getregs(thread).unwrap();
    (c_long::try_from(registers.orig_rax).unwrap(), registers.rdi)
}

/// Lets the kernel find a call that does not exist.
fn skip_call(thread: Pid) {
    let mut registers = ptrace::getregs(thread).unwrap();
    registers.orig_rax = u64::MAX;
    ptrace::setregs(thread, registers).unwrap();
}

fn set_result(thread: Pid, errno: Errno) {
    let mut registers = ptrace::getregs(thread).unwrap();
    registers.rax = (-i64::from(errno as i32)).cast_unsigned();
    ptrace::setregs(thread, registers).unwrap();
}
