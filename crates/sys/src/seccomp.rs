//! Installing a system call filter (seccomp(2)).

use std::io;

/// One instruction of a classic BPF program, laid out as `struct sock_filter`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if a jump's condition holds.
    pub jump_true: u8,
    /// Instructions to skip if it does not.
    pub jump_false: u8,
    /// Operand.
    pub operand: u32,
}

/// Installs `program` for the calling thread and everything it starts. There is no way back.
///
/// # Errors
/// `EINVAL` for an ill-formed program, `EACCES` without `no_new_privs` and CAP_SYS_ADMIN.
pub fn install(program: &[Instruction]) -> io::Result<()> {
    let mut filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|i| libc::sock_filter { code: i.code, jt: i.jump_true, jf: i.jump_false, k: i.operand })
        .collect();
    let length = u16::try_from(filter.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: `program` points to `length` live instructions, which the kernel copies before the call returns.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the kernel can filter system calls.
#[must_use]
pub fn is_available() -> bool {
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the call reads one 32-bit word through a pointer to a live local.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    result == 0
}
