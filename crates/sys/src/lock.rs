//! Advisory locks on open files (flock(2)): held by an open file description, gone with it, whatever ends the process.
//!
//! Every descriptor here is close-on-exec, so a command started while a lock is held does not keep it. The lock belongs to
//! the open file description, not to the process: two [`FileLock`]s of one file exclude each other inside one process, too.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Who else may hold the lock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LockMode {
    /// Any number of holders, as long as all of them are shared.
    Shared,
    /// One holder.
    Exclusive,
}

/// An open file with a lock on it; dropping it releases the lock.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Takes the lock, waiting as long as it takes. A directory can be locked as well as a file.
    ///
    /// # Errors
    /// Those of flock(2), but never an interruption by a signal.
    pub fn acquire(file: File, mode: LockMode) -> io::Result<Self> {
        let operation = match mode {
            LockMode::Shared => FlockOperation::LockShared,
            LockMode::Exclusive => FlockOperation::LockExclusive,
        };
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(Self { file }),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes the lock if it is free; `None` (and a closed file) if somebody holds it.
    ///
    /// # Errors
    /// Those of flock(2).
    pub fn try_acquire(file: File, mode: LockMode) -> io::Result<Option<Self>> {
        let operation = match mode {
            LockMode::Shared => FlockOperation::NonBlockingLockShared,
            LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        match flock(&file, operation) {
            Ok(()) => Ok(Some(Self { file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The locked file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether `path` still names the locked file. A lock file that is removed by its holder must be checked so after locking:
    /// the waiter has a lock on a name that is gone, which excludes nobody.
    ///
    /// # Errors
    /// Those of stat(2), except that a missing path is the answer `false`.
    pub fn is_linked_at(&self, path: &Path) -> io::Result<bool> {
        let own = self.file.metadata()?;
        match std::fs::symlink_metadata(path) {
            Ok(there) => Ok(own.ino() == there.ino() && own.dev() == there.dev()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LockMode::{Exclusive, Shared};

    fn open(path: &Path) -> File {
        File::options().create(true).truncate(false).write(true).open(path).unwrap()
    }

    #[test]
    fn exclusive_holders_exclude_everybody_and_shared_ones_only_exclusive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let attempt = |mode| FileLock::try_acquire(open(&path), mode).unwrap();
        let first = attempt(Shared).unwrap();
        assert!(attempt(Shared).is_some());
        assert!(attempt(Exclusive).is_none());
        drop(first);
        let _held = attempt(Exclusive).unwrap();
        assert!(attempt(Shared).is_none());
    }

    #[test]
    fn a_lock_notices_that_its_name_is_gone_or_reused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::acquire(open(&path), Exclusive).unwrap();
        assert!(lock.is_linked_at(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(!lock.is_linked_at(&path).unwrap());
        let _other = open(&path);
        assert!(!lock.is_linked_at(&path).unwrap());
    }

    #[test]
    fn a_started_command_does_not_keep_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::acquire(open(&path), Exclusive).unwrap();
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        drop(lock);
        // Waits for other tests' children, which have all our descriptors until they execute their programs.
        let _again = FileLock::acquire(open(&path), Exclusive).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "it came free only with the command's end");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
