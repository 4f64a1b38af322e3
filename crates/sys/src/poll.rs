//! Waiting for descriptors.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

/// Waits until at least one of the descriptors can be read, or has nobody who writes to it any more, or the time is over, and says which.
/// A signal may end the waiting early.
///
/// # Errors
/// Those of poll(2).
pub fn readable(descriptors: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<Vec<bool>> {
    let mut entries: Vec<PollFd<'_>> =
        descriptors.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = timeout.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    });
    match rustix::event::poll(&mut entries, timeout.as_ref()) {
        Err(rustix::io::Errno::INTR) => Ok(vec![false; descriptors.len()]),
        result => {
            result?;
            Ok(entries.iter().map(|entry| !entry.revents().is_empty()).collect())
        }
    }
}
