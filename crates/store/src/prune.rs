//! Garbage collection: mark what must stay, move the rest out of sight, then delete at leisure.
//!
//! Marking and moving happen under the exclusive `locks/gc`, where nobody pins; they cost some milliseconds. What is swept is
//! renamed into the pruner's own area, and deleted after the lock is gone, so no build waits for the removal of a large tree. If the
//! pruner dies, its area is a dead lease's, and the next process drops it.
//!
//! Referrers go before what they refer to (images, records, then layers, then blobs), with a sync between images and layers: a
//! power cut may leave garbage, never an image without its layers.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use oci::ImageId;
use sys::lock::{FileLock, LockMode};

use crate::layout::{self, STEP_LOCK};
use crate::lease::{self, Amount};
use crate::mark::Marks;
use crate::names::Names;
use crate::{Error, Lease, Store, files};

/// How much of one kind of thing stays although nothing else needs it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Retain {
    /// All of it.
    All,
    /// What was used at that time or later.
    UsedSince(SystemTime),
    /// Nothing.
    Nothing,
}

/// What to keep. Tagged images, and what running processes use, always stay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PrunePolicy {
    /// Images without a tag.
    pub images: Retain,
    /// Cache records, with the layers they name.
    pub records: Retain,
    /// The directories of cache mounts.
    pub cache_mounts: Retain,
    /// What was fetched from elsewhere.
    pub sources: Retain,
    /// Build reports, with the logs they name.
    pub reports: Retain,
    /// Logs that no record and no report names.
    pub logs: Retain,
    /// Stat caches of contexts.
    pub contexts: Retain,
    /// What a repair moved aside.
    pub damaged: Retain,
}

impl PrunePolicy {
    /// Takes only what nobody can ask for again: untagged images, unnamed logs.
    #[must_use]
    pub fn unneeded() -> Self {
        Self {
            images: Retain::Nothing,
            records: Retain::All,
            cache_mounts: Retain::All,
            sources: Retain::All,
            reports: Retain::All,
            logs: Retain::Nothing,
            contexts: Retain::All,
            damaged: Retain::All,
        }
    }

    /// Leaves tagged images only.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            images: Retain::Nothing,
            records: Retain::Nothing,
            cache_mounts: Retain::Nothing,
            sources: Retain::Nothing,
            reports: Retain::Nothing,
            logs: Retain::Nothing,
            contexts: Retain::Nothing,
            damaged: Retain::Nothing,
        }
    }
}

/// The kinds of things that take space in a store.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Images, without their layers.
    Images,
    /// Layers in their uncompressed forms.
    Layers,
    /// Configs, manifests, compressed layers.
    Blobs,
    /// Cache records.
    Records,
    /// Directories of cache mounts.
    CacheMounts,
    /// What was fetched from URLs and git repositories.
    Sources,
    /// Logs of steps.
    Logs,
    /// Build reports.
    Reports,
    /// Stat caches of contexts.
    Contexts,
    /// What a repair moved aside.
    Damaged,
    /// Lock files nobody holds.
    Locks,
    /// What dead processes left.
    Leftovers,
}

/// A number of things, and the bytes they really took on the disk.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Bytes in blocks, counted before they were removed.
    pub bytes: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What a prune has taken.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pruned {
    /// By kind; kinds of which nothing was taken are absent.
    pub kinds: BTreeMap<Kind, Tally>,
    /// The images.
    pub images: Vec<ImageId>,
}

impl Pruned {
    /// All bytes freed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.kinds.values().map(|tally| tally.bytes).sum()
    }

    fn add(&mut self, kind: Kind, bytes: u64) {
        self.kinds.entry(kind).or_default().add(bytes);
    }
}

impl Store {
    /// Removes what `policy` does not keep and nobody needs, and says what that freed.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a tag or an image cannot be read (nothing is taken then), or what the file system says.
    pub fn prune(&self, policy: &PrunePolicy) -> Result<Pruned, Error> {
        // On a full disk there may be no room for a lease; then things are removed where they are.
        let lease = match self.lease() {
            Ok(lease) => Some(lease),
            Err(Error::NoSpace { .. }) => None,
            Err(error) => return Err(error),
        };
        let mut sweep = Sweep { store: self, trash: Trash::new(lease.as_ref()), pruned: Pruned::default() };
        let gc = self.gc_exclusive()?;
        let marks = Marks::of(self, policy, lease::live_pins(self.layout())?)?;
        sweep.sweep(&marks, policy)?;
        drop(gc);
        let Sweep { trash, mut pruned, .. } = sweep;
        trash.empty(&mut pruned)?;
        let leftovers = lease::drop_dead(self.layout(), Amount::All)?;
        if leftovers.count > 0 {
            pruned.kinds.insert(Kind::Leftovers, leftovers);
        }
        lease.map_or(Ok(()), Lease::close)?;
        Ok(pruned)
    }
}

/// One prune under way.
struct Sweep<'s> {
    store: &'s Store,
    trash: Trash<'s>,
    pruned: Pruned,
}

impl Sweep<'_> {
    fn sweep(&mut self, marks: &Marks, policy: &PrunePolicy) -> Result<(), Error> {
        self.images(marks)?;
        self.records(marks)?;
        self.layers(marks)?;
        self.blobs(marks)?;
        self.small_files(marks, policy)?;
        self.cache_mounts(policy.cache_mounts)?;
        self.sources(policy.sources)?;
        self.locks()
    }

    fn images(&mut self, marks: &Marks) -> Result<(), Error> {
        let mut dead = self.store.image_ids()?;
        dead.retain(|id| !marks.images.contains(id));
        if dead.is_empty() {
            return Ok(());
        }
        self.store.change_names(Names::Images, || {
            for id in &dead {
                self.remove_small(Kind::Images, &self.store.layout().image(id))?;
            }
            Ok(())
        })?;
        self.pruned.images = dead;
        Ok(())
    }

    fn records(&mut self, marks: &Marks) -> Result<(), Error> {
        for key in self.store.record_keys()? {
            if !marks.records.contains(&key) {
                self.remove_small(Kind::Records, &self.store.layout().record(&key))?;
            }
        }
        Ok(())
    }

    fn layers(&mut self, marks: &Marks) -> Result<(), Error> {
        for id in self.store.layer_ids()? {
            if !marks.layers.contains(&id) || self.store.layer(&id)?.is_none() {
                let path = self.store.layout().layer(&id);
                self.trash.discard(Kind::Layers, path, &mut self.pruned)?;
            }
        }
        Ok(())
    }

    fn blobs(&mut self, marks: &Marks) -> Result<(), Error> {
        let layout = self.store.layout();
        for algorithm in ["sha256", "sha512"] {
            let dir = layout.dir("blobs").join(algorithm);
            self.blobs_in(&dir, marks, layout::digest_of_hex)?;
        }
        self.blobs_in(&layout.unsynced_blobs(), marks, layout::digest_of_unsynced)?;
        // No sync has covered them, and none ever will.
        for path in self.store.unsynced_blobs_of_other_boots()? {
            self.trash.discard(Kind::Blobs, path, &mut self.pruned)?;
        }
        Ok(())
    }

    fn blobs_in(
        &mut self,
        dir: &Path,
        marks: &Marks,
        digest_of: fn(&OsStr) -> Option<oci::Digest>,
    ) -> Result<(), Error> {
        for name in files::names(dir)? {
            if digest_of(&name).is_some_and(|digest| !marks.blobs.contains(&digest)) {
                self.trash.discard(Kind::Blobs, dir.join(name), &mut self.pruned)?;
            }
        }
        Ok(())
    }

    fn small_files(&mut self, marks: &Marks, policy: &PrunePolicy) -> Result<(), Error> {
        for (kind, path) in small_files(self.store)? {
            if !marks.keeps_small_file(policy, kind, &path)? {
                self.remove_small(kind, &path)?;
            }
        }
        for name in files::names(&self.store.layout().dir("damaged"))? {
            let path = self.store.layout().dir("damaged").join(name);
            if !policy.damaged.keeps_file(&path)? {
                self.trash.discard(Kind::Damaged, path, &mut self.pruned)?;
            }
        }
        Ok(())
    }

    fn cache_mounts(&mut self, retain: Retain) -> Result<(), Error> {
        for dir in self.store.cache_dirs()? {
            if retain.keeps(dir.last_used()?) {
                continue;
            }
            let path = dir.lock();
            let file = files::open_lock_file(&path)?;
            let lock = FileLock::try_acquire(file, LockMode::Exclusive).map_err(Error::at("lock", &path))?;
            // In use.
            let Some(_lock) = lock else { continue };
            self.trash.discard(Kind::CacheMounts, dir.data(), &mut self.pruned)?;
            dir.remove_rest()?;
        }
        Ok(())
    }

    fn sources(&mut self, retain: Retain) -> Result<(), Error> {
        for source in self.store.kept_sources()? {
            if retain.keeps(source.last_used()?) {
                continue;
            }
            // In use.
            let Some(_lock) = source.try_lock()? else { continue };
            self.trash.discard(Kind::Sources, source.data(), &mut self.pruned)?;
            source.remove_rest()?;
        }
        Ok(())
    }

    fn locks(&mut self) -> Result<(), Error> {
        for path in self.store.old_flags()? {
            self.remove_small(Kind::Locks, &path)?;
        }
        for path in stale_step_locks(self.store)? {
            let Some(file) = files::open_if_exists(&path)? else { continue };
            let lock = FileLock::try_acquire(file, LockMode::Exclusive).map_err(Error::at("lock", &path))?;
            let Some(lock) = lock else { continue };
            if lock.is_linked_at(&path).map_err(Error::at("look at", &path))? {
                self.remove_small(Kind::Locks, &path)?;
            }
        }
        Ok(())
    }

    /// Removes a file at once: too small to be worth a detour.
    fn remove_small(&mut self, kind: Kind, path: &Path) -> Result<(), Error> {
        let bytes = files::disk_bytes(path)?;
        if files::remove_file(path)? {
            self.pruned.add(kind, bytes);
        }
        Ok(())
    }
}

/// The logs, build reports and stat caches of a store.
pub(crate) fn small_files(store: &Store) -> Result<Vec<(Kind, PathBuf)>, Error> {
    let mut found = Vec::new();
    for (kind, dir) in [(Kind::Logs, "logs"), (Kind::Reports, "builds"), (Kind::Contexts, "contexts")] {
        let dir = store.layout().dir(dir);
        found.extend(files::names(&dir)?.into_iter().map(|name| (kind, dir.join(name))));
    }
    Ok(found)
}

/// The files of step locks that nobody holds: their holders died.
pub(crate) fn stale_step_locks(store: &Store) -> Result<Vec<PathBuf>, Error> {
    let mut stale = Vec::new();
    for name in files::names(&store.layout().dir("locks"))? {
        let path = store.layout().dir("locks").join(&name);
        if !name.to_string_lossy().starts_with(STEP_LOCK) {
            continue;
        }
        let Some(file) = files::open_if_exists(&path)? else { continue };
        if FileLock::try_acquire(file, LockMode::Exclusive).map_err(Error::at("lock", &path))?.is_some() {
            stale.push(path);
        }
    }
    Ok(stale)
}

/// What was swept and is not deleted yet, in the pruner's own area.
struct Trash<'l> {
    lease: Option<&'l Lease>,
    moved: Vec<(Kind, PathBuf)>,
}

impl<'l> Trash<'l> {
    fn new(lease: Option<&'l Lease>) -> Self {
        Self { lease, moved: Vec::new() }
    }

    /// Takes something out of sight in one step. Where there is no room even for that, it is deleted where it is.
    fn discard(&mut self, kind: Kind, path: PathBuf, pruned: &mut Pruned) -> Result<(), Error> {
        if let Some(lease) = self.lease {
            let moved = lease.temporary("trash").and_then(|to| files::rename(&path, &to).map(|()| to));
            match moved {
                Ok(to) => {
                    self.moved.push((kind, to));
                    return Ok(());
                }
                Err(Error::NoSpace { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if kind == Kind::Layers {
            // Not a layer any more from here on, should the rest not come to its end.
            files::remove_file(&path.join(crate::layer::META))?;
        }
        delete(kind, &path, pruned)
    }

    fn empty(self, pruned: &mut Pruned) -> Result<(), Error> {
        self.moved.iter().try_for_each(|(kind, path)| delete(*kind, path, pruned))
    }
}

fn delete(kind: Kind, path: &Path, pruned: &mut Pruned) -> Result<(), Error> {
    let bytes = files::disk_bytes(path)?;
    files::remove_tree(path)?;
    pruned.add(kind, bytes);
    Ok(())
}
