//! One process runs a step, the others that want the same one wait for it: a lock file per step key.
//!
//! The file exists while somebody holds it and is removed by its holder before the lock is let go. Whoever gets a lock therefore
//! checks that the name still leads to the file it locked; if not, the lock is worth nothing, and it tries again with the name.
//! The file holds the id of the log that the step writes, so that those who wait can follow it.
//!
//! flock(2) can neither be polled nor given a time limit, and a wait must end when the build is cancelled; so waiting is trying again.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use sys::lock::{FileLock, LockMode};

use crate::{Error, LogId, RecordKey, Store, files};

/// Between two tries: below what a person notices, far above what a try costs (some microseconds).
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(25);

/// The right to run a step; dropping it gives it up.
#[derive(Debug)]
pub struct StepLock {
    lock: FileLock,
    path: PathBuf,
}

impl Store {
    /// Takes a step's lock if it is free; `None` if somebody holds it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn try_step_lock(&self, key: &RecordKey) -> Result<Option<StepLock>, Error> {
        let path = self.layout().step_lock(key);
        loop {
            let file = files::open_lock_file(&path)?;
            let lock = FileLock::try_acquire(file, LockMode::Exclusive).map_err(Error::at("lock", &path))?;
            let Some(lock) = lock else { return Ok(None) };
            if lock.is_linked_at(&path).map_err(Error::at("look at", &path))? {
                return Ok(Some(StepLock { lock, path }));
            }
        }
    }

    /// Waits for a step's lock; `None` if `is_cancelled` says so first. It is asked about forty times a second, which is also an
    /// occasion to pass on what [`Store::step_log`] tells.
    ///
    /// # Errors
    /// What the file system says.
    pub fn wait_step_lock(
        &self,
        key: &RecordKey,
        mut is_cancelled: impl FnMut() -> bool,
    ) -> Result<Option<StepLock>, Error> {
        loop {
            if let Some(lock) = self.try_step_lock(key)? {
                return Ok(Some(lock));
            }
            if is_cancelled() {
                return Ok(None);
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
    }

    /// The log of whoever runs the step now, once it has told.
    ///
    /// # Errors
    /// What the file system says.
    pub fn step_log(&self, key: &RecordKey) -> Result<Option<LogId>, Error> {
        let bytes = files::read_if_exists(&self.layout().step_lock(key))?;
        Ok(bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok()))
    }
}

impl StepLock {
    /// Tells those who wait which log to follow.
    ///
    /// # Errors
    /// What the file system says.
    pub fn announce_log(&self, log: &LogId) -> Result<(), Error> {
        let text = log.to_string();
        self.lock.file().write_all_at(text.as_bytes(), 0).map_err(Error::at("write", &self.path))
    }
}

impl Drop for StepLock {
    fn drop(&mut self) {
        // Before the lock goes: afterwards the name may be somebody else's.
        if let Err(error) = files::remove_file(&self.path) {
            tracing::debug!(%error, "an unused lock file stays until the next prune");
        }
    }
}
