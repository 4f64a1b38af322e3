//! Device access of a cgroup 2, decided by a small BPF program (bpf(2), `BPF_PROG_TYPE_CGROUP_DEVICE`).

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_PROG_LOAD: c_int = 5;
const BPF_PROG_ATTACH: c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The attributes of `BPF_PROG_LOAD`, up to the last field we set; the kernel takes what is missing as zero.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
}

/// The attributes of `BPF_PROG_ATTACH`.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Loads a device program of eBPF instructions, each packed as the kernel's `struct bpf_insn`.
///
/// # Errors
/// `EPERM` without CAP_BPF or CAP_SYS_ADMIN, `EINVAL` and `EACCES` for a program that the verifier refuses.
pub fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    let count =
        u32::try_from(instructions.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let attributes = LoadAttributes {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: count,
        instructions: instructions.as_ptr() as u64,
        licence: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
    };
    // SAFETY: `attributes` and what it points to live for the length of the call; the kernel copies them and writes nothing.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<LoadAttributes>())
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// Attaches a loaded program to a cgroup 2 directory: it decides for every process at and below it, until the cgroup goes.
///
/// # Errors
/// `EPERM` if an outer cgroup forbids further programs.
pub fn attach(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = AttachAttributes {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: `attributes` is a live struct of the size passed along, which the kernel only reads.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attributes, size_of::<AttachAttributes>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
