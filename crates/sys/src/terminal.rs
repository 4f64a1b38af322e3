//! Terminals: sizes, pseudo-terminal pairs, the controlling terminal.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios, Winsize};

/// Size of a terminal in character cells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Reads the size of a terminal.
///
/// # Errors
/// `ENOTTY` if `terminal` is none.
pub fn window_size(terminal: impl AsFd) -> io::Result<WindowSize> {
    let size = rustix::termios::tcgetwinsize(terminal)?;
    Ok(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Sets the size of a terminal; its foreground processes get SIGWINCH if it changed.
///
/// # Errors
/// `ENOTTY` if `terminal` is none.
pub fn set_window_size(terminal: impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// A terminal whose line discipline is off: what is typed arrives as it is, at once, without an echo and without sending signals.
/// Dropping it gives the terminal back as it was.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Switches `terminal` over.
    ///
    /// # Errors
    /// `ENOTTY` if `terminal` is none.
    pub fn enter(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let before = rustix::termios::tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(&terminal, OptionalActions::Drain, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that cannot be set any more is gone, and needs nothing.
        rustix::termios::tcsetattr(&self.terminal, OptionalActions::Drain, &self.before).unwrap_or(());
    }
}

/// A pseudo-terminal.
#[derive(Debug)]
pub struct Pair {
    /// The end that a terminal emulator has.
    pub controller: OwnedFd,
    /// The end that programs have.
    pub terminal: File,
}

/// Makes a pair in the instance of devpts whose root directory is `devpts`. Its other end is opened without looking up a path.
///
/// # Errors
/// Those of open(2) and ioctl_tty(2).
pub fn open_pair(devpts: impl AsFd) -> io::Result<Pair> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let controller = rustix::fs::openat(devpts, c"ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&controller)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = rustix::pty::ioctl_tiocgptpeer(&controller, flags)?;
    Ok(Pair { controller, terminal: File::from(terminal) })
}

/// Number of the terminal below its `/dev/pts`.
///
/// # Errors
/// `ENOTTY` if `controller` is not the controlling end of a pseudo-terminal.
pub fn number(controller: impl AsFd) -> io::Result<u32> {
    let name = rustix::pty::ptsname(controller, Vec::new())?;
    let digits = name.to_bytes().rsplit(|&b| b == b'/').next().unwrap_or_default();
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Makes `terminal` the controlling terminal of the calling process, which leads a session without one.
///
/// # Errors
/// `EPERM` if the process leads no session or the terminal belongs to another.
pub fn make_controlling(terminal: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}

/// Makes the calling process' group the terminal's foreground group. From the background this stops a process that does not block
/// or ignore SIGTTOU.
///
/// # Errors
/// Those of tcsetpgrp(3).
pub fn take_foreground(terminal: impl AsFd) -> io::Result<()> {
    Ok(rustix::termios::tcsetpgrp(terminal, rustix::process::getpgrp())?)
}
