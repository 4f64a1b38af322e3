//! What was fetched from elsewhere, kept for the next build: one directory for each place it came from.
//!
//! ```text
//! sources/<escaped name>/lock      held by whoever uses the directory; written to at each use
//!                        data/     what the user of the directory puts there
//! ```
//!
//! A place is used by one process at a time. Locks are taken under a shared `locks/gc` and the sweep removes a directory only if it gets its
//! lock, so one in use is never taken away. What is in it is for whoever put it there to verify: nothing is synced, and losing it costs a
//! transfer.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sys::lock::{FileLock, LockMode};

use crate::step_lock::RETRY_INTERVAL;
use crate::{Error, Lease, Store, files};

const LOCK: &str = "lock";
const DATA: &str = "data";

/// A directory in use; dropping it lets the next one in.
#[derive(Debug)]
pub struct SourceDir {
    path: PathBuf,
    #[expect(dead_code, reason = "held for its drop")]
    lock: FileLock,
}

impl SourceDir {
    /// The directory. It is there, and empty if it is new.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Lease {
    /// Gets the directory of a place, making it if it is new. Waits until it is free; `None` if `is_cancelled` says so first.
    ///
    /// # Errors
    /// What the file system says.
    pub fn source_dir(
        &self,
        name: &str,
        is_cancelled: impl Fn() -> bool,
    ) -> Result<Option<SourceDir>, Error> {
        loop {
            if let Some(dir) = self.claim_source(name)? {
                return Ok(Some(dir));
            }
            if is_cancelled() {
                return Ok(None);
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
    }

    fn claim_source(&self, name: &str) -> Result<Option<SourceDir>, Error> {
        let _gc = self.store().gc_shared()?;
        let layout = self.store().layout();
        // A store of before there were sources has no directory for them.
        files::create_dir(&layout.dir("sources"))?;
        let dir = layout.source(name);
        files::create_dir(&dir)?;
        let path = dir.join(LOCK);
        let lock = FileLock::try_acquire(files::open_lock_file(&path)?, LockMode::Exclusive);
        let Some(lock) = lock.map_err(Error::at("lock", &path))? else { return Ok(None) };
        // Its modification time is the time of last use; writing sets it.
        lock.file().write_all_at(b"\n", 0).map_err(Error::at("write", &path))?;
        let data = dir.join(DATA);
        files::create_dir(&data)?;
        Ok(Some(SourceDir { path: data, lock }))
    }
}

/// Where the files of one place lie.
#[derive(Debug)]
pub(crate) struct KeptSource(pub(crate) PathBuf);

impl KeptSource {
    pub(crate) fn data(&self) -> PathBuf {
        self.0.join(DATA)
    }

    /// Its lock, unless somebody has it.
    pub(crate) fn try_lock(&self) -> Result<Option<FileLock>, Error> {
        let path = self.0.join(LOCK);
        let lock = FileLock::try_acquire(files::open_lock_file(&path)?, LockMode::Exclusive);
        lock.map_err(Error::at("lock", &path))
    }

    /// When it was last asked for.
    pub(crate) fn last_used(&self) -> Result<SystemTime, Error> {
        let path = self.0.join(LOCK);
        let found = std::fs::metadata(&path).and_then(|found| found.modified());
        Ok(files::present(found).map_err(Error::at("look at", &path))?.unwrap_or(SystemTime::UNIX_EPOCH))
    }

    pub(crate) fn disk_bytes(&self) -> Result<u64, Error> {
        files::disk_bytes(&self.data())
    }

    /// Removes what remains of it once its data are gone; the caller holds its lock and the exclusive `locks/gc`.
    pub(crate) fn remove_rest(&self) -> Result<(), Error> {
        files::remove_tree(&self.0)
    }
}

impl Store {
    /// All places that something is kept of.
    pub(crate) fn kept_sources(&self) -> Result<Vec<KeptSource>, Error> {
        let top = self.layout().dir("sources");
        Ok(files::names(&top)?.into_iter().map(|name| KeptSource(top.join(name))).collect())
    }
}
