//! The one place that syncs: at a build's end, everything an image needs becomes durable, then the image, then its tags.
//!
//! The order, which every reader relies on:
//!
//! 1. data: the files of unsynced layers and blobs, and the directories that hold them;
//! 2. proof: blobs move to their durable place, layers get their `synced` markers, and the directories with these names are synced;
//! 3. the image's file, then each tag: written beside, synced, renamed, directory synced.
//!
//! A power cut before the end of a step leaves nothing of the next one, so a tag never leads to an image, and an image never to
//! bytes, that are not there. It does not matter who wrote a layer: what is unsynced is synced here, also another process' work.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci::{Digest, ImageId, LayerId, Reference};
use sys::lock::LockMode;

use crate::files::{self, Durability};
use crate::image::Image;
use crate::layer::{Layer, Part};
use crate::{Error, Lease, Object, Store};

/// The lock under which image files change, so that two processes that each learned of a manifest both keep theirs.
const LOCK: &str = "images";

/// Up to how many files and directories are synced one by one. Each costs a journal commit; from here on one sync of the whole file
/// system is cheaper, although it also writes what others left dirty.
const MAX_SINGLE_SYNCS: usize = 12;

impl Lease {
    /// Makes an image and everything it needs durable, and gives it tags; returns what each tag meant before. When this returns, a power
    /// cut takes nothing of it back.
    ///
    /// An image that is there already, with these layers and manifests and tags, costs a few look-ups and writes nothing. The manifests known
    /// before are kept beside the given ones.
    ///
    /// # Errors
    /// [`Error::MissingLayer`], [`Error::MissingBlob`] if the image needs what is not there; then nothing of it is visible.
    pub fn commit_image(&self, image: &Image, tags: &[Reference]) -> Result<Vec<Option<ImageId>>, Error> {
        self.pin(&image.needs())?;
        let is_known = |known: Image| known.clone().with_manifests_of(image.clone()) == known;
        if !self.known_image(image)?.is_some_and(is_known) {
            self.make_durable(image)?;
            self.write_image(image)?;
        }
        let gc = self.store().gc_shared()?;
        self.pin_under(&gc, &[Object::Image(image.id.clone())])?;
        drop(gc);
        tags.iter().map(|tag| self.set_tag(tag, &image.id)).collect()
    }

    /// The image as it is in the store, if its layers are the given ones. A damaged file is written anew.
    fn known_image(&self, image: &Image) -> Result<Option<Image>, Error> {
        match self.store().image(&image.id) {
            Ok(known) => Ok(known.filter(|known| known.layers == image.layers)),
            Err(Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write_image(&self, image: &Image) -> Result<(), Error> {
        let gc = self.store().gc_shared()?;
        self.pin_under(&gc, &[Object::Image(image.id.clone())])?;
        drop(gc);
        let _lock = self.store().lock(LOCK, LockMode::Exclusive)?;
        let image = match self.known_image(image)? {
            Some(known) => known.with_manifests_of(image.clone()),
            None => image.clone(),
        };
        let path = self.store().layout().image(&image.id);
        files::replace(&path, &self.temporary("image")?, &image.to_json(), Durability::Synced)
    }

    fn make_durable(&self, image: &Image) -> Result<(), Error> {
        let unsynced = Unsynced::of(self.store(), image)?;
        if unsynced.is_empty() {
            return Ok(());
        }
        unsynced.sync_data(self.store())?;
        unsynced.prove(self.store())
    }
}

/// What of an image no sync has covered.
struct Unsynced {
    layers: Vec<Layer>,
    blobs: Vec<Digest>,
}

impl Unsynced {
    fn of(store: &Store, image: &Image) -> Result<Self, Error> {
        let layers: Result<Vec<Layer>, Error> =
            image.layers.iter().collect::<BTreeSet<_>>().into_iter().map(|id| find(store, id)).collect();
        let layers = layers?;
        let mut blobs = BTreeSet::from([image.config()]);
        blobs.extend(image.manifests.iter().flat_map(|known| known.layers.iter().chain([&known.digest])));
        blobs.extend(layers.iter().flat_map(|layer| layer.blobs().iter().map(|blob| &blob.digest)));
        let mut unsynced = Vec::new();
        for digest in blobs {
            if !files::exists(&store.layout().blob(digest))? && store.contains_blob(digest)? {
                unsynced.push(digest.clone());
            }
        }
        let layers = layers.into_iter().filter(|layer| !layer.unsynced().is_empty()).collect();
        Ok(Self { layers, blobs: unsynced })
    }

    fn is_empty(&self) -> bool {
        self.layers.is_empty() && self.blobs.is_empty()
    }

    /// Step 1.
    fn sync_data(&self, store: &Store) -> Result<(), Error> {
        let has_trees = self.layers.iter().any(|layer| layer.unsynced().contains(&Part::Fs));
        let mut paths: Vec<PathBuf> =
            self.blobs.iter().map(|digest| store.layout().unsynced_blob(digest)).collect();
        for layer in &self.layers {
            paths.extend(layer.unsynced().iter().flat_map(|&part| layer.part_paths(part)));
        }
        if has_trees || paths.len() > MAX_SINGLE_SYNCS {
            return sync_all(store.root());
        }
        paths.iter().try_for_each(|path| files::sync_file(path))
    }

    /// Step 2.
    fn prove(&self, store: &Store) -> Result<(), Error> {
        let mut dirs = BTreeSet::new();
        for digest in &self.blobs {
            let durable = store.layout().blob(digest);
            // Not there any more: another commit has moved it.
            if let Some(file) = files::open_if_exists(&store.layout().unsynced_blob(digest))? {
                drop(file);
                move_blob(store, digest, &durable)?;
            }
            dirs.extend(durable.parent().map(Path::to_path_buf));
        }
        for layer in &self.layers {
            layer.unsynced().iter().try_for_each(|&part| layer.mark_synced(part))?;
            dirs.insert(layer.dir().to_path_buf());
            dirs.insert(store.layout().dir("layers"));
        }
        if dirs.len() > MAX_SINGLE_SYNCS {
            sync_all(store.root())?;
        } else {
            dirs.iter().try_for_each(|dir| files::sync_dir(dir))?;
        }
        for layer in &self.layers {
            let boot = store.layout().boot();
            layer.unsynced().iter().try_for_each(|&part| layer.unmark_unsynced(part, boot))?;
        }
        Ok(())
    }
}

fn find(store: &Store, id: &LayerId) -> Result<Layer, Error> {
    store.layer(id)?.ok_or_else(|| Error::MissingLayer(id.clone()))
}

/// Moves a synced blob to its durable place; that another commit does so at the same time is fine.
fn move_blob(store: &Store, digest: &Digest, durable: &Path) -> Result<(), Error> {
    match files::rename(&store.layout().unsynced_blob(digest), durable) {
        Err(Error::Io { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound && files::exists(durable)? =>
        {
            Ok(())
        }
        moved => moved,
    }
}

fn sync_all(root: &Path) -> Result<(), Error> {
    sys::durable::sync_filesystem(root).map_err(Error::at("sync", root))
}
