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

use oci::{Algorithm, Digest, LayerId, Reference};

use crate::image::Image;
use crate::layer::{Layer, Part};
use crate::names::Names;
use crate::{Error, Lease, Object, Store, Tag, files};

/// Up to how many files and directories are synced one by one. Each costs a journal commit; from here on one sync of the whole file
/// system is cheaper, although it also writes what others left dirty.
const MAX_SINGLE_SYNCS: usize = 12;

impl Lease {
    /// Makes an image and everything it needs durable, and gives it tags; returns what each tag meant before. When this returns, a power
    /// cut takes nothing of it back.
    ///
    /// An image that is there already, with these layers and manifests and tags, costs a few look-ups and writes nothing, but for compressed forms
    /// that its layers got since. The manifests known before are kept beside the given ones.
    ///
    /// # Errors
    /// [`Error::MissingLayer`], [`Error::MissingBlob`] if the image needs what is not there; then nothing of it is visible.
    pub fn commit_image(&self, image: &Image, tags: &[Reference]) -> Result<Vec<Option<Tag>>, Error> {
        self.pin_for_commit(image)?;
        let is_known = |known: Image| known.clone().with_manifests_of(image.clone()) == known;
        if self.known_image(image)?.is_some_and(is_known) {
            self.make_blobs_durable(image)?;
            self.store().settle_names(Names::Images)?;
        } else {
            self.make_durable(image)?;
            self.write_image(image)?;
        }
        tags.iter().map(|tag| self.set_tag(&Tag::new(tag.clone(), image.id.clone()))).collect()
    }

    /// Pins what the image needs, and the image itself, which need not be there yet: once written, it must stay until its tags are.
    fn pin_for_commit(&self, image: &Image) -> Result<(), Error> {
        let gc = self.store().gc_shared()?;
        let mut pins = image.needs();
        pins.iter().try_for_each(|object| self.store().require(object))?;
        pins.push(Object::Image(image.id.clone()));
        self.pin_under(&gc, &pins)
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
        // Under the directory's lock, so that two processes that each learned of a manifest both keep theirs.
        self.store().change_names(Names::Images, || {
            let image = match self.known_image(image)? {
                Some(known) => known.with_manifests_of(image.clone()),
                None => image.clone(),
            };
            let path = self.store().layout().image(&image.id);
            files::replace_synced(&path, &self.temporary("image")?, &image.to_json())
        })
    }

    fn make_durable(&self, image: &Image) -> Result<(), Error> {
        let unsynced = Unsynced::of(self.store(), image)?;
        unsynced.sync_data(self.store())?;
        unsynced.prove(self.store())
    }

    /// The blobs of an image of which everything else was made durable before. Most of the time there is none in the whole store.
    fn make_blobs_durable(&self, image: &Image) -> Result<(), Error> {
        if files::names(&self.store().layout().unsynced_blobs())?.is_empty() {
            return settle_blobs(self.store());
        }
        let mut unsynced = Unsynced::of(self.store(), image)?;
        unsynced.layers.clear();
        unsynced.sync_data(self.store())?;
        unsynced.prove(self.store())
    }
}

/// What of an image no sync has covered.
struct Unsynced {
    layers: Vec<Layer>,
    blobs: Vec<Digest>,
    /// The directories of layers that say which of those blobs they have.
    owners: Vec<PathBuf>,
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
        let owns = |layer: &&Layer| layer.blobs().iter().any(|blob| unsynced.contains(&blob.digest));
        let owners = layers.iter().filter(owns).map(|layer| layer.dir().to_owned()).collect();
        let layers = layers.into_iter().filter(|layer| !layer.unsynced().is_empty()).collect();
        Ok(Self { layers, blobs: unsynced, owners })
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
        paths.iter().try_for_each(|path| sync_unless_moved(path))
    }

    /// Step 2.
    fn prove(&self, store: &Store) -> Result<(), Error> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let blobs: Vec<_> = self.blobs.iter().filter(|blob| blob.algorithm() == algorithm).collect();
            if blobs.is_empty() {
                store.settle_names(Names::Blobs(algorithm))?;
            } else {
                let move_all = || blobs.iter().try_for_each(|blob| move_blob(store, blob));
                store.change_names(Names::Blobs(algorithm), move_all)?;
            }
        }
        if self.owners.len() > MAX_SINGLE_SYNCS {
            sync_all(store.root())?;
        } else {
            self.owners.iter().try_for_each(|directory| files::sync_dir(directory))?;
        }
        self.prove_layers(store)
    }

    fn prove_layers(&self, store: &Store) -> Result<(), Error> {
        let Some(first) = self.layers.first() else { return Ok(()) };
        for layer in &self.layers {
            layer.unsynced().iter().try_for_each(|&part| layer.mark_synced(part))?;
        }
        if self.layers.len() > MAX_SINGLE_SYNCS {
            sync_all(store.root())?;
        } else {
            self.layers.iter().try_for_each(|layer| files::sync_dir(layer.dir()))?;
            first.dir().parent().map_or(Ok(()), files::sync_dir)?;
        }
        for layer in &self.layers {
            let boot = store.layout().boot();
            layer.unsynced().iter().try_for_each(|&part| layer.unmark_unsynced(part, boot))?;
        }
        Ok(())
    }
}

/// What another process moved may be in its directory only as far as this run of the kernel knows.
fn settle_blobs(store: &Store) -> Result<(), Error> {
    [Algorithm::Sha256, Algorithm::Sha512]
        .into_iter()
        .try_for_each(|algorithm| store.settle_names(Names::Blobs(algorithm)))
}

fn find(store: &Store, id: &LayerId) -> Result<Layer, Error> {
    store.layer(id)?.ok_or_else(|| Error::MissingLayer(id.clone()))
}

/// Moves a synced blob to its durable place; not there any more, it has been moved by another commit.
fn move_blob(store: &Store, digest: &Digest) -> Result<(), Error> {
    let unsynced = store.layout().unsynced_blob(digest);
    if files::exists(&unsynced)? { files::rename(&unsynced, &store.layout().blob(digest)) } else { Ok(()) }
}

fn sync_all(root: &Path) -> Result<(), Error> {
    sys::durable::sync_filesystem(root).map_err(Error::at("sync", root))
}

/// Syncs a file. A blob that is gone has been synced and moved by another commit.
fn sync_unless_moved(path: &Path) -> Result<(), Error> {
    let Some(file) = files::open_if_exists(path)? else { return Ok(()) };
    file.sync_all().map_err(Error::at("sync", path))
}
