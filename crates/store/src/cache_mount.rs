//! The directories behind `RUN --mount=type=cache`.
//!
//! ```text
//! cache-mounts/<escaped id>/id                 the id, as it was given
//!                           0, 1, …            directories; `0` is the one that is shared or locked
//!                           0.lock, 1.lock, …  held by whoever uses the directory of that number
//! ```
//!
//! The lock is on a file beside the directory, not on the directory itself: a process in the container can open the latter, and lock it.
//! Locks are taken under a shared `locks/gc` and the sweep removes a directory only if it gets its lock, so a directory that is in
//! use is never taken away.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sys::lock::{FileLock, LockMode};

use crate::step_lock::RETRY_INTERVAL;
use crate::{Error, Lease, Store, files};

/// Who may use a cache mount at once (Dockerfile reference, `RUN --mount=type=cache`, `sharing`).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum CacheSharing {
    /// Everybody at once, each with a directory of its own.
    Private,
    /// Everybody together.
    Shared,
    /// One after the other.
    Locked,
}

/// Fills a new directory.
pub type CacheSeed<'a> = dyn Fn(&Path) -> io::Result<()> + 'a;

/// What a cache mount is asked for with. Everything but the id matters only when the directory is new.
#[derive(Clone, Copy)]
pub struct CacheMountRequest<'a> {
    /// Any text.
    pub id: &'a str,
    /// Who else may use it meanwhile.
    pub sharing: CacheSharing,
    /// Permission bits of a new directory.
    pub mode: u32,
    /// Owner of a new directory.
    pub uid: u32,
    /// Group of a new directory.
    pub gid: u32,
    /// Fills a new directory before anybody else sees it.
    pub seed: Option<&'a CacheSeed<'a>>,
}

/// A cache directory in use; dropping it lets the next one in.
#[derive(Debug)]
pub struct CacheMount {
    path: PathBuf,
    #[expect(dead_code, reason = "held for its drop")]
    lock: FileLock,
}

impl CacheMount {
    /// The directory to mount.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Lease {
    /// Gets a cache directory for use, making it if it is new. Waits, for a locked one, until it is free; `None` if `is_cancelled` says
    /// so first.
    ///
    /// # Errors
    /// What the file system or the seed says.
    pub fn cache_mount(
        &self,
        request: &CacheMountRequest<'_>,
        mut is_cancelled: impl FnMut() -> bool,
    ) -> Result<Option<CacheMount>, Error> {
        let claimed = loop {
            if let Some(claimed) = self.claim(request)? {
                break claimed;
            }
            if is_cancelled() {
                return Ok(None);
            }
            std::thread::sleep(RETRY_INTERVAL);
        };
        // Our lock keeps the sweep away from here on.
        if !files::exists(&claimed.path)? {
            self.make_cache_dir(request, &claimed.path)?;
        }
        Ok(Some(claimed))
    }

    /// Tries once to get the lock of a directory that fits.
    fn claim(&self, request: &CacheMountRequest<'_>) -> Result<Option<CacheMount>, Error> {
        let _gc = self.store().gc_shared()?;
        let dir = self.store().layout().cache_mount(request.id);
        files::create_dir(&dir)?;
        let id = dir.join(ID);
        if !files::exists(&id)? {
            files::replace(&id, &self.temporary("id")?, request.id.as_bytes())?;
        }
        match request.sharing {
            CacheSharing::Shared => claim_number(&dir, 0, LockMode::Shared),
            CacheSharing::Locked => claim_number(&dir, 0, LockMode::Exclusive),
            CacheSharing::Private => {
                for number in 0.. {
                    if let Some(claimed) = claim_number(&dir, number, LockMode::Exclusive)? {
                        return Ok(Some(claimed));
                    }
                }
                Ok(None)
            }
        }
    }

    fn make_cache_dir(&self, request: &CacheMountRequest<'_>, target: &Path) -> Result<(), Error> {
        let draft = self.temporary("cache-mount")?;
        files::create_dir(&draft)?;
        if let Some(seed) = request.seed {
            seed(&draft).map_err(Error::at("fill", target))?;
        }
        let (uid, gid) = (Some(request.uid), Some(request.gid));
        std::os::unix::fs::chown(&draft, uid, gid).map_err(Error::at("set owner of", target))?;
        // chown before chmod: the kernel clears setuid and setgid bits when the owner changes.
        let mode = Permissions::from_mode(request.mode & 0o7777);
        fs::set_permissions(&draft, mode).map_err(Error::at("set mode of", target))?;
        // Not a plain rename, which would replace the still empty directory of another shared user.
        files::rename_if_absent(&draft, target).map(|_| ())
    }
}

const ID: &str = "id";

/// A directory behind a cache mount, as listed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CacheMountInfo {
    /// The id it was asked for with.
    pub id: String,
    /// Which of the id's directories: 0, or the number of a private one.
    pub number: u32,
    /// What it really takes on the disk, in bytes.
    pub disk_bytes: u64,
    /// When it was last asked for.
    pub last_used: std::time::SystemTime,
}

/// Where the files of one cache directory lie.
#[derive(Debug)]
pub(crate) struct CacheDir {
    /// The directory of its id.
    pub(crate) parent: PathBuf,
    pub(crate) number: u32,
}

impl CacheDir {
    pub(crate) fn data(&self) -> PathBuf {
        self.parent.join(self.number.to_string())
    }

    pub(crate) fn lock(&self) -> PathBuf {
        lock_path(&self.parent, self.number)
    }

    pub(crate) fn id(&self) -> Result<String, Error> {
        let bytes = files::read_if_exists(&self.parent.join(ID))?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// When it was last asked for.
    pub(crate) fn last_used(&self) -> Result<std::time::SystemTime, Error> {
        let path = self.lock();
        let found = fs::metadata(&path).and_then(|found| found.modified());
        let found = files::present(found).map_err(Error::at("look at", &path))?;
        Ok(found.unwrap_or(std::time::SystemTime::UNIX_EPOCH))
    }

    /// Removes what remains of it once its data are gone; the caller holds its lock and the exclusive `locks/gc`.
    pub(crate) fn remove_rest(&self) -> Result<(), Error> {
        files::remove_file(&self.lock())?;
        let is_last = files::names(&self.parent)?.iter().all(|name| name == ID);
        if is_last { files::remove_tree(&self.parent) } else { Ok(()) }
    }
}

impl Store {
    /// The directories behind all cache mounts, with their sizes.
    ///
    /// # Errors
    /// What the file system says.
    pub fn cache_mounts(&self) -> Result<Vec<CacheMountInfo>, Error> {
        let info = |dir: CacheDir| {
            Ok(CacheMountInfo {
                id: dir.id()?,
                number: dir.number,
                disk_bytes: files::disk_bytes(&dir.data())?,
                last_used: dir.last_used()?,
            })
        };
        self.cache_dirs()?.into_iter().map(info).collect()
    }

    /// Whether there is a directory that an id's users share, or take one after the other.
    ///
    /// # Errors
    /// What the file system says.
    pub fn has_cache_mount(&self, id: &str) -> Result<bool, Error> {
        files::exists(&self.layout().cache_mount(id).join("0"))
    }

    /// The directories behind all cache mounts.
    pub(crate) fn cache_dirs(&self) -> Result<Vec<CacheDir>, Error> {
        let top = self.layout().dir("cache-mounts");
        let mut dirs = Vec::new();
        for name in files::names(&top)? {
            let parent = top.join(name);
            let names = files::names(&parent)?;
            let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
            numbers.sort_unstable();
            dirs.extend(numbers.into_iter().map(|number| CacheDir { parent: parent.clone(), number }));
        }
        Ok(dirs)
    }
}

fn claim_number(dir: &Path, number: u32, mode: LockMode) -> Result<Option<CacheMount>, Error> {
    let path = lock_path(dir, number);
    let file = files::open_lock_file(&path)?;
    let lock = FileLock::try_acquire(file, mode).map_err(Error::at("lock", &path))?;
    let Some(lock) = lock else { return Ok(None) };
    // Its modification time is the time of last use; writing sets it.
    lock.file().write_all_at(b"\n", 0).map_err(Error::at("write", &path))?;
    Ok(Some(CacheMount { path: dir.join(number.to_string()), lock }))
}

fn lock_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number}.lock"))
}
