//! Leases: who is alive, what it holds on to, and where it writes before anybody may see it.
//!
//! A lease is a file in `leases/`, locked (flock) as long as its process lives, plus a private area `tmp/<same name>/`. It never expires by
//! time or by process id: the lock goes with the process, and whoever finds the file unlocked may clean up after it. The lease file is
//! made before the area and removed after it, so an area without a lease belongs to nobody.
//!
//! The file's lines are its pins ([`Object`]). Looking something up and pinning it happen together under a shared `locks/gc`; the sweep
//! reads all pins under the exclusive one. Pins are not synced: they matter only while the process lives, and then the page cache does.

use std::collections::HashSet;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use sys::lock::{FileLock, LockMode};

use crate::files;
use crate::layout::Layout;
use crate::object::random_name;
use crate::store::GcShared;
use crate::{Error, Object, Store, Tally};

/// How many entries of dead processes' areas opening a store removes at most: a few milliseconds' worth.
const BOUNDED_ENTRIES: usize = 1000;

/// One process' use of the store: its pins and its private area. Everything is written through a lease. Threads share one.
///
/// Dropping it gives up the pins and removes the area; [`Lease::close`] does so and tells what went wrong.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    file: FileLock,
    path: PathBuf,
    area: PathBuf,
    area_exists: OnceLock<()>,
    next_temporary: AtomicU64,
    pins: Mutex<Pins>,
    is_closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Pins {
    held: HashSet<Object>,
    /// Where the next line goes. A write that failed half-way is overwritten from here.
    end: u64,
}

impl Lease {
    pub(crate) fn take(store: Store) -> Result<Self, Error> {
        loop {
            let name = random_name()?;
            let (path, area) = (store.layout().lease(&name), store.layout().area(&name));
            let Some(file) = lock_new(&path)? else { continue };
            return Ok(Self {
                store,
                file,
                path,
                area,
                area_exists: OnceLock::new(),
                next_temporary: AtomicU64::new(0),
                pins: Mutex::default(),
                is_closed: AtomicBool::new(false),
            });
        }
    }

    /// The store this lease is of.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Keeps objects from being collected as long as the lease lives.
    ///
    /// # Errors
    /// [`Error::MissingLayer`] and its kin if one of them is not there (any more); nothing is pinned then.
    pub fn pin(&self, objects: &[Object]) -> Result<(), Error> {
        // What is held was there when it was pinned, and nobody has been able to take it since.
        let new: Vec<Object> = {
            let pins = self.pins();
            objects.iter().filter(|object| !pins.held.contains(object)).cloned().collect()
        };
        if new.is_empty() {
            return Ok(());
        }
        let gc = self.store.gc_shared()?;
        for object in &new {
            self.store.require(object)?;
        }
        self.pin_under(&gc, &new)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes an empty private directory in the lease's area, for work files of the caller (an overlay's work directory, an unpacked
    /// archive). It is gone with the lease at the latest.
    ///
    /// # Errors
    /// What the file system says.
    pub fn scratch_dir(&self) -> Result<PathBuf, Error> {
        let path = self.temporary("scratch")?;
        files::create_dir(&path)?;
        Ok(path)
    }

    /// Gives up the pins and removes the private area.
    ///
    /// # Errors
    /// What the file system says. What is left then, the next process that opens the store drops.
    pub fn close(self) -> Result<(), Error> {
        self.release()
    }

    /// Adds pins; that the objects exist is the caller's knowledge.
    pub(crate) fn pin_under(&self, _gc: &GcShared, objects: &[Object]) -> Result<(), Error> {
        let mut pins = self.pins();
        let new: Vec<&Object> = objects.iter().filter(|object| !pins.held.contains(object)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let lines: String = new.iter().map(|object| format!("{object}\n")).collect();
        self.file.file().write_all_at(lines.as_bytes(), pins.end).map_err(Error::at("write", &self.path))?;
        pins.end += lines.len() as u64;
        pins.held.extend(new.into_iter().cloned());
        Ok(())
    }

    /// A fresh path in the private area.
    pub(crate) fn temporary(&self, what: &str) -> Result<PathBuf, Error> {
        if self.area_exists.get().is_none() {
            files::create_dir(&self.area)?;
            self.area_exists.get_or_init(|| ());
        }
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        Ok(self.area.join(format!("{what}-{number}")))
    }

    /// The lease's file. Its modification time is this machine's idea of "now" when the lease was taken or last pinned something.
    pub(crate) fn file(&self) -> &std::fs::File {
        self.file.file()
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self) -> Result<(), Error> {
        if self.is_closed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        if self.area_exists.get().is_some() {
            files::remove_tree(&self.area)?;
        }
        files::remove_file(&self.path).map(|_| ())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            tracing::warn!(%error, lease = %self.path.display(), "leftovers of this process stay until the store is opened again");
        }
    }
}

/// Creates and locks a lease file. `None` if somebody who cleans up saw it before it was locked and took it for a dead one's.
fn lock_new(path: &Path) -> Result<Option<FileLock>, Error> {
    let file = files::create_file(path)?;
    let Some(lock) = FileLock::try_acquire(file, LockMode::Exclusive).map_err(Error::at("lock", path))?
    else {
        return Ok(None);
    };
    let is_linked = lock.is_linked_at(path).map_err(Error::at("look at", path))?;
    Ok(is_linked.then_some(lock))
}

/// How much of what dead processes left is to be removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Amount {
    /// Small areas only, up to [`BOUNDED_ENTRIES`] entries in all.
    Bounded,
    /// Everything.
    All,
}

/// Removes the areas and lease files of dead processes. What that frees is measured only where all of it goes.
pub(crate) fn drop_dead(layout: &Layout, amount: Amount) -> Result<Tally, Error> {
    let mut freed = Tally::default();
    let Some(_lock) = lock_leftovers(layout, amount)? else { return Ok(freed) };
    let mut left = BOUNDED_ENTRIES;
    let mut remove = |area: &Path| -> Result<bool, Error> {
        let is_allowed = is_allowed(amount, &mut left, area);
        if is_allowed {
            if amount == Amount::All {
                freed.add(files::disk_bytes(area)?);
            }
            files::remove_tree(area)?;
        }
        Ok(is_allowed)
    };
    // Areas are listed first: one whose lease is gone by the time we look for it belongs to nobody.
    for name in files::names(&layout.dir("tmp"))? {
        if !files::exists(&layout.lease(&name))? {
            remove(&layout.area(&name))?;
        }
    }
    for name in files::names(&layout.dir("leases"))? {
        let Some(_dead) = lock_if_dead(&layout.lease(&name))? else { continue };
        if remove(&layout.area(&name))? {
            files::remove_file(&layout.lease(&name))?;
        }
    }
    Ok(freed)
}

/// Lets one process at a time clean up. Whoever merely opens the store leaves it to the one that is at it.
fn lock_leftovers(layout: &Layout, amount: Amount) -> Result<Option<FileLock>, Error> {
    let path = layout.lock("leftovers");
    let file = files::open_lock_file(&path)?;
    let lock = match amount {
        Amount::Bounded => FileLock::try_acquire(file, LockMode::Exclusive),
        Amount::All => FileLock::acquire(file, LockMode::Exclusive).map(Some),
    };
    lock.map_err(Error::at("lock", path))
}

/// The areas that [`drop_dead`] would remove.
pub(crate) fn dead(layout: &Layout) -> Result<Vec<PathBuf>, Error> {
    let mut dead = Vec::new();
    for name in files::names(&layout.dir("tmp"))? {
        if !files::exists(&layout.lease(&name))? {
            dead.push(layout.area(&name));
        }
    }
    for name in files::names(&layout.dir("leases"))? {
        if lock_if_dead(&layout.lease(&name))?.is_some() {
            dead.push(layout.area(&name));
        }
    }
    Ok(dead)
}

/// Charges an area's removal to what is left of the bounded amount.
fn is_allowed(amount: Amount, left: &mut usize, area: &Path) -> bool {
    if amount == Amount::All {
        return true;
    }
    // One unit for the area itself, so that many empty ones are bounded, too.
    let Some(entries) = files::count_at_most(*left, area) else { return false };
    *left = left.saturating_sub(entries + 1);
    true
}

/// Locks a lease file whose process is dead; `None` if it lives, or if the file is gone.
pub(crate) fn lock_if_dead(path: &Path) -> Result<Option<FileLock>, Error> {
    let Some(file) = files::open_if_exists(path)? else { return Ok(None) };
    let lock = FileLock::try_acquire(file, LockMode::Exclusive).map_err(Error::at("lock", path))?;
    let Some(lock) = lock else { return Ok(None) };
    let is_linked = lock.is_linked_at(path).map_err(Error::at("look at", path))?;
    Ok(is_linked.then_some(lock))
}

/// The pins of every live lease. To be called under the exclusive `locks/gc`, where no pin is added.
///
/// A line that does not parse is a pin whose write failed, so nobody relies on it.
pub(crate) fn live_pins(layout: &Layout) -> Result<HashSet<Object>, Error> {
    let mut pins = HashSet::new();
    for name in files::names(&layout.dir("leases"))? {
        let path = layout.lease(&name);
        if lock_if_dead(&path)?.is_some() {
            continue;
        }
        let Some(bytes) = files::read_if_exists(&path)? else { continue };
        let text = String::from_utf8_lossy(&bytes);
        pins.extend(text.lines().filter_map(|line| line.parse::<Object>().ok()));
    }
    Ok(pins)
}
