//! Layers of the store as entry lists, trees and tars.
//!
//! A layer has its entry list always; of tree, tar and compressed blob it has at least one, unless it has no content at all. A tree is made
//! from tar or blob when something must be mounted or read ([`Layers::tree`]); a tar is never made for keeping but given as a
//! stream ([`Layers::read_tar`]).

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use layer::pack::{FileDigests, Form, PackError, Packed};
use layer::{Entries, Entry, Found, Merged};
use oci::{DiffId, LayerId};
use rayon::prelude::*;
use store::{Layer, LayerDraft, LayerFacts, Lease};
use sys::RootfsPath;
use sys::directory::open_file_below;
use sys::root::{Dir, Time};

use crate::{Error, tar};

/// The layers of a store as one command uses them: pinned by its lease, each entry list decoded once. Threads share it.
pub struct Layers<'l> {
    lease: &'l Lease,
    cancelled: &'l (dyn Fn() -> bool + Sync),
    entries: PerLayer<Entries>,
    trees: PerLayer<PathBuf>,
    /// Directories of mount points, by what they hold: most processes of a build want the same.
    skeletons: Mutex<Vec<(Entries, PathBuf)>>,
}

/// What came of reading a layer's tar.
#[derive(Clone, Debug)]
pub struct TarRead<T> {
    /// What the consumer made of it.
    pub value: T,
    /// The digest of the bytes, which is the layer's.
    pub diff_id: DiffId,
    /// How many bytes there were.
    pub tar_bytes: u64,
}

impl<'l> Layers<'l> {
    /// Looks at the layers of the lease's store. `cancelled` is asked between files and blocks of everything that takes long.
    #[must_use]
    pub fn new(lease: &'l Lease, cancelled: &'l (dyn Fn() -> bool + Sync)) -> Self {
        let (entries, trees) = (PerLayer::default(), PerLayer::default());
        Self { lease, cancelled, entries, trees, skeletons: Mutex::default() }
    }

    /// The lease that pins what is looked up here.
    #[must_use]
    pub fn lease(&self) -> &'l Lease {
        self.lease
    }

    /// Whether the caller wants everything to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        (self.cancelled)()
    }

    /// What to ask whether the caller wants everything to end.
    pub(crate) fn cancelled(&self) -> &'l (dyn Fn() -> bool + Sync) {
        self.cancelled
    }

    /// The directory that holds `list`, made by `make` if nobody has made it before. It is only ever mounted below others, so that any number
    /// of processes can share it.
    pub(crate) fn skeleton<E>(
        &self,
        list: Entries,
        make: impl FnOnce(&Entries) -> Result<PathBuf, E>,
    ) -> Result<PathBuf, E> {
        let mut known = self.skeletons.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, path)) = known.iter().find(|(known, _)| *known == list) {
            return Ok(path.clone());
        }
        let path = make(&list)?;
        known.push((list, path.clone()));
        Ok(path)
    }

    /// Looks a layer up and pins it.
    ///
    /// # Errors
    /// [`store::Error::MissingLayer`].
    pub fn layer(&self, id: &LayerId) -> Result<Layer, Error> {
        let found = self.lease.layers(std::slice::from_ref(id))?;
        let layer = found.and_then(|layers| layers.into_iter().next());
        layer.ok_or_else(|| store::Error::MissingLayer(id.clone()).into())
    }

    /// A layer's entry list.
    ///
    /// # Errors
    /// [`store::Error::MissingLayer`], [`Error::Entries`].
    pub fn entries(&self, id: &LayerId) -> Result<Entries, Error> {
        self.entries.get_or_make(id, || decode(&self.layer(id)?))
    }

    /// The merged view of a list of layers, lowest first. Entry lists are decoded in parallel.
    ///
    /// # Errors
    /// As [`Layers::entries`].
    pub fn merged(&self, ids: &[LayerId]) -> Result<Merged, Error> {
        self.entries.all_or_make(ids, |id| self.entries(id)).map(Merged::new)
    }

    /// The root directory's attributes in the merged view: those of the topmost layer that has any, else 0755 owned by 0:0. Of each list
    /// only the beginning is read.
    pub(crate) fn root_entry(&self, ids: &[LayerId]) -> Result<Entry, Error> {
        for id in ids.iter().rev() {
            if let Some(known) = self.entries.get(id) {
                match known.find(&RootfsPath::root()) {
                    Some(root) => return Ok(root.clone()),
                    None => continue,
                }
            }
            let path = self.layer(id)?.entries_path();
            let file = File::open(&path).map_err(Error::at("open", &path))?;
            let root = layer::entries::stored_root(file);
            if let Some(root) = root.map_err(|source| Error::Entries { layer: id.clone(), source })? {
                return Ok(root);
            }
        }
        Ok(Entry::directory(RootfsPath::root(), Time::default()))
    }

    /// The directory that holds a layer as overlayfs wants it, made from its tar or compressed form if it is not there yet.
    ///
    /// # Errors
    /// [`Error::Unpack`] and its kin; nothing is left behind then.
    pub fn tree(&self, id: &LayerId) -> Result<PathBuf, Error> {
        self.trees.get_or_make(id, || {
            let layer = self.layer(id)?;
            match layer.fs_path() {
                Some(path) => Ok(path),
                None => self.make_tree(&layer),
            }
        })
    }

    /// The trees of several layers, made in parallel where they are not there yet.
    ///
    /// # Errors
    /// As [`Layers::tree`].
    pub fn trees(&self, ids: &[LayerId]) -> Result<Vec<PathBuf>, Error> {
        self.trees.all_or_make(ids, |id| self.tree(id))
    }

    /// Opens the content of a file (or hard link) of the merged view of `ids`. Makes the tree of the layer that has it.
    ///
    /// # Errors
    /// As [`Layers::tree`], and those of openat2(2).
    pub fn open_file(&self, ids: &[LayerId], merged: &Merged, found: Found<'_>) -> Result<File, Error> {
        let content = merged.content_of(found);
        let tree = self.tree(&ids[content.layer])?;
        let path = tree.join(content.entry.path.as_relative());
        let dir = Dir::open(&tree).map_err(Error::at("open", &tree))?;
        open_file_below(&dir, &content.entry.path).map_err(Error::at("open", path))
    }

    /// Publishes a layer of our own making: a draft in which the caller has put the tree or the canonical tar that `packed` tells of (or
    /// neither, if there is no content). Everybody may use it at once; it becomes durable with an image that has it.
    ///
    /// # Errors
    /// Those of the store.
    pub fn publish(&self, draft: LayerDraft, packed: &Packed) -> Result<Layer, Error> {
        let id = packed.entries.layer_id();
        match self.lease.layer_like(&draft, &id)? {
            // Many steps change nothing, and all of those give the same layer.
            Some(layer) => self.note_diff_id(layer, &packed.diff_id),
            None => self.publish_as(draft, &id, &packed.entries, &packed.diff_id),
        }
    }

    /// Publishes a layer under an id that is not made of its entries alone.
    pub(crate) fn publish_as(
        &self,
        draft: LayerDraft,
        id: &LayerId,
        entries: &Entries,
        diff_id: &DiffId,
    ) -> Result<Layer, Error> {
        let path = draft.entries_path();
        let file = File::create(&path).map_err(Error::at("create", &path))?;
        let mut writer = BufWriter::new(file);
        entries.encode(&mut writer).and_then(|()| writer.flush()).map_err(Error::at("write", &path))?;
        let facts = LayerFacts {
            content: entries.content_digest(),
            entries: entries.as_slice().len() as u64,
            size_bytes: entries.content_bytes(),
        };
        let layer = self.lease.publish_layer(draft, id, &facts)?;
        self.entries.get_or_make(id, || Ok(entries.clone()))?;
        self.note_diff_id(layer, diff_id)
    }

    /// The DiffID of a layer: as recorded, or read from its bytes.
    ///
    /// # Errors
    /// As [`Layers::read_tar`].
    pub fn diff_id(&self, id: &LayerId) -> Result<DiffId, Error> {
        let layer = self.layer(id)?;
        if let Some(diff_id) = layer.diff_id() {
            return Ok(diff_id.clone());
        }
        let read = self.read_tar(id, |_| Ok::<(), Error>(()))?;
        self.note_diff_id(layer, &read.diff_id)?;
        Ok(read.diff_id)
    }

    /// Gives a layer's uncompressed tar to `consume`, from whichever form the layer has. What `consume` leaves unread is read for the
    /// digest, which must be the layer's: only when this returns is what was given to be relied on.
    ///
    /// # Errors
    /// [`Error::WrongDiffId`], [`Error::Read`] and their kin, and what `consume` fails with.
    pub fn read_tar<T, E: From<Error>>(
        &self,
        id: &LayerId,
        consume: impl FnOnce(&mut dyn Read) -> Result<T, E>,
    ) -> Result<TarRead<T>, E> {
        let layer = self.layer(id)?;
        let read = match tar::open(self.lease.store(), &layer)? {
            Some(stored) => tar::read(self, &layer, stored, consume)?,
            None => tar::read_packed(self, &layer, &self.entries(id)?, consume)?,
        };
        check_diff_id(&layer, &read.diff_id)?;
        Ok(read)
    }

    fn note_diff_id(&self, layer: Layer, diff_id: &DiffId) -> Result<Layer, Error> {
        if layer.diff_id() == Some(diff_id) {
            return Ok(layer);
        }
        self.lease.set_diff_id(&layer, diff_id)?;
        self.layer(layer.id())
    }

    /// Makes the tree in a draft and adds it to the layer. That another process does the same at the same time costs only its work.
    fn make_tree(&self, layer: &Layer) -> Result<PathBuf, Error> {
        tracing::debug!(layer = %layer.id(), "making the tree of a layer");
        let entries = self.entries(layer.id())?;
        let draft = self.lease.layer_draft()?;
        let path = draft.make_fs()?;
        let dir = Dir::open(&path).map_err(Error::at("open", &path))?;
        match tar::open(self.lease.store(), layer)? {
            Some(stored) => {
                let unpack = |bytes: &mut dyn Read| {
                    layer::unpack::unpack(bytes, &entries, &dir)
                        .map_err(|source| Error::Unpack { layer: layer.id().clone(), source })
                };
                let read = tar::read(self, layer, stored, unpack)?;
                check_diff_id(layer, &read.diff_id)?;
            }
            None => self.make_tree_without_content(layer, &entries, &dir)?,
        }
        let layer = self.lease.extend_layer(draft, layer.id())?;
        layer.fs_path().ok_or_else(|| store::Error::MissingLayer(layer.id().clone()).into())
    }

    fn make_tree_without_content(&self, layer: &Layer, entries: &Entries, dir: &Dir) -> Result<(), Error> {
        let form = Form::Tree(dir);
        let contents = tar::contents(layer, entries)?;
        let list = entries.as_slice().to_vec();
        layer::pack::pack(list, &*contents, FileDigests::Known, form, 1, self.cancelled)
            .map(|_| ())
            .map_err(|source| pack_error(layer.id(), source))
    }
}

impl std::fmt::Debug for Layers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layers").field("lease", self.lease).finish_non_exhaustive()
    }
}

/// Reads the entry list of a layer that is pinned.
pub(crate) fn decode(layer: &Layer) -> Result<Entries, Error> {
    let path = layer.entries_path();
    let file = File::open(&path).map_err(Error::at("open", &path))?;
    Entries::decode(file).map_err(|source| Error::Entries { layer: layer.id().clone(), source })
}

/// Insists that a layer's bytes are those that were recorded, if any were.
fn check_diff_id(layer: &Layer, got: &DiffId) -> Result<(), Error> {
    match layer.diff_id() {
        Some(expected) if expected != got => {
            let (layer, expected, got) = (layer.id().clone(), expected.clone(), got.clone());
            Err(Error::WrongDiffId { layer, expected, got })
        }
        _ => Ok(()),
    }
}

/// That packing was cancelled is no fault of the layer.
pub(crate) fn pack_error(layer: &LayerId, source: PackError) -> Error {
    match source {
        PackError::Cancelled => Error::Cancelled,
        source => Error::Pack { layer: layer.clone(), source },
    }
}

/// A value for each layer, made by whoever asks first while the others wait.
struct PerLayer<T>(Mutex<HashMap<LayerId, Slot<T>>>);

type Slot<T> = Arc<Mutex<Option<T>>>;

impl<T> Default for PerLayer<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Send> PerLayer<T> {
    /// The values of several layers; those that are not made yet are made in parallel. Where all are, no other thread is woken for it.
    fn all_or_make(
        &self,
        ids: &[LayerId],
        make: impl Fn(&LayerId) -> Result<T, Error> + Send + Sync,
    ) -> Result<Vec<T>, Error> {
        let made: Option<Vec<T>> = ids.iter().map(|id| self.get(id)).collect();
        made.map_or_else(|| ids.par_iter().map(make).collect(), Ok)
    }

    /// The value if it is made.
    fn get(&self, id: &LayerId) -> Option<T> {
        let slot = Arc::clone(lock(&self.0).get(id)?);
        slot.try_lock().ok()?.clone()
    }

    /// `make` must not wait for a thread pool: a pool's thread that waits may be given another look-up of the same layer to do.
    fn get_or_make(&self, id: &LayerId, make: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let slot = Arc::clone(lock(&self.0).entry(id.clone()).or_default());
        let mut slot = lock(&slot);
        if let Some(made) = &*slot {
            return Ok(made.clone());
        }
        let made = make()?;
        *slot = Some(made.clone());
        Ok(made)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
