//! Waiting for descriptors.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};

/// Waits until at least one of the descriptors can be read, or has nobody who writes to it any more, and says which.
///
/// # Errors
/// Those of poll(2).
pub fn readable<'f, F: AsFd + 'f>(descriptors: impl Iterator<Item = &'f F>) -> io::Result<Vec<bool>> {
    let mut entries: Vec<PollFd<'_>> = descriptors.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    loop {
        match rustix::event::poll(&mut entries, None) {
            Err(rustix::io::Errno::INTR) => {}
            result => {
                result?;
                return Ok(entries.iter().map(|entry| !entry.revents().is_empty()).collect());
            }
        }
    }
}
