//! Opening a store, and the locks that order everything else.

use std::path::Path;
use std::sync::Arc;

use sys::durable::BootId;
use sys::lock::{FileLock, LockMode};

use crate::layout::Layout;
use crate::{Error, Lease, Tally, files, lease};

/// An open store. Reading needs only this; whoever writes, or must rely on something staying, takes a [`Lease`]. Clones are the same
/// store.
#[derive(Clone, Debug)]
pub struct Store {
    layout: Arc<Layout>,
}

/// Held while something is looked up and pinned: nothing is collected meanwhile. Short, and never across a sync or a process.
#[derive(Debug)]
pub(crate) struct GcShared(#[expect(dead_code, reason = "held for its drop")] FileLock);

/// Held while it is decided what goes: nothing is pinned meanwhile.
#[derive(Debug)]
pub(crate) struct GcExclusive(#[expect(dead_code, reason = "held for its drop")] FileLock);

impl Store {
    /// Opens the store at `root`, or makes one of a missing or empty directory, and drops what dead processes left (a bounded
    /// amount of it, so that opening stays quick; [`Store::drop_leftovers`] drops the rest).
    ///
    /// # Errors
    /// [`Error::NotAStore`], [`Error::UnknownFormat`], or what the file system says.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let boot = BootId::current().map_err(Error::at("read the boot id for", root))?;
        Self::open_in_boot(root, boot)
    }

    /// Opens the store as the kernel run `boot` would: what another run left unsynced does not count.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_in_boot(root: &Path, boot: BootId) -> Result<Self, Error> {
        let store = Self { layout: Arc::new(Layout::open(root, boot)?) };
        if let Err(error) = lease::drop_dead(store.layout(), lease::Amount::Bounded) {
            // No reason to refuse the store: what cannot be removed is in nobody's way.
            tracing::warn!(%error, "leftovers of dead processes stay");
        }
        Ok(store)
    }

    /// The store's directory, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Registers this process as one that uses the store.
    ///
    /// # Errors
    /// What the file system says.
    pub fn lease(&self) -> Result<Lease, Error> {
        Lease::take(self.clone())
    }

    /// Drops everything that dead processes left in their areas, however much it is, and says what that freed. Live ones are left alone.
    ///
    /// # Errors
    /// What the file system says.
    pub fn drop_leftovers(&self) -> Result<Tally, Error> {
        lease::drop_dead(&self.layout, lease::Amount::All)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn gc_shared(&self) -> Result<GcShared, Error> {
        self.lock("gc", LockMode::Shared).map(GcShared)
    }

    pub(crate) fn gc_exclusive(&self) -> Result<GcExclusive, Error> {
        self.lock("gc", LockMode::Exclusive).map(GcExclusive)
    }

    /// Takes one of the store's lasting locks. Opened anew each time: threads must exclude each other as processes do.
    pub(crate) fn lock(&self, name: &str, mode: LockMode) -> Result<FileLock, Error> {
        let path = self.layout.lock(name);
        let file = files::open_lock_file(&path)?;
        FileLock::acquire(file, mode).map_err(Error::at("lock", path))
    }
}
