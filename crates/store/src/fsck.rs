//! Checking the store: every byte of every blob, every layer (by the caller, who knows what is inside), every relation.
//!
//! Bytes are checked first and without a lock, in parallel; what vanishes meanwhile was collected and is no finding. Relations are checked
//! under the exclusive `locks/gc`, with what was found bad counting as absent, so that a damaged layer also names the images that lose by it.
//!
//! A repair removes what can be made again and moves aside, into `damaged/`, what cannot; it never guesses. An image that lost a layer
//! is moved aside with its tags, so that pulling or building it again finds nothing in its way. After a repair a second check
//! finds nothing.

use std::collections::HashSet;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use oci::{Digest, Hasher, ImageId, LayerId, Reference};
use rayon::prelude::*;

use crate::files::{self};
use crate::object::random_name;
use crate::prune::stale_step_locks;
use crate::{Error, Layer, Object, RecordKey, Store, layout, lease, tag};

/// Whether a check changes anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FsckMode {
    /// Only tell.
    Check,
    /// Remove what can be made again, move the rest aside.
    Repair,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Garbage that a crash may leave. Takes space and nothing else.
    Reclaimable,
    /// Something that was reported as done is not there, or not as it was.
    Damage,
}

/// One thing that is not as it should be. `E` is what the caller's check of layers finds.
#[derive(Debug, thiserror::Error)]
pub enum Finding<E> {
    /// A blob's bytes have changed.
    #[error("blob {expected} has changed: its digest is {got}")]
    BlobChanged {
        /// Its name.
        expected: Digest,
        /// What its bytes say.
        got: Digest,
    },
    /// A blob cannot be read.
    #[error("blob {digest} cannot be read")]
    BlobUnreadable {
        /// Its name.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// A layer's contents are not what its entry list says.
    #[error("layer {id} is damaged")]
    LayerDamaged {
        /// Which one.
        id: LayerId,
        /// What the caller's check says.
        source: E,
    },
    /// An image's file cannot be read.
    #[error("the file of image {0} is damaged")]
    ImageMalformed(ImageId),
    /// An image lacks what it needs.
    #[error("image {image} lacks {object}")]
    ImageLacks {
        /// Which one.
        image: ImageId,
        /// What is not there, or damaged.
        object: Object,
    },
    /// A tag's file cannot be read, or belongs to another reference.
    #[error("the tag file `{0}` is damaged")]
    TagMalformed(PathBuf),
    /// A tag names an image that is not there, or damaged.
    #[error("`{reference}` names image {image}, which is not there or not whole")]
    TagDangling {
        /// The tag.
        reference: Reference,
        /// What it names.
        image: ImageId,
    },
    /// A layer that a power cut left unfinished.
    #[error("layer {0} was left unfinished")]
    LayerUnfinished(LayerId),
    /// A layer's compressed form is gone; the layer has others.
    #[error("layer {layer} has lost its compressed form {blob}")]
    LayerLacksBlob {
        /// Which one.
        layer: LayerId,
        /// What is not there, or damaged.
        blob: Digest,
    },
    /// A layer's only form was a compressed one, and is gone.
    #[error("layer {layer} has lost its only form, {blob}")]
    LayerLost {
        /// Which one.
        layer: LayerId,
        /// What is not there, or damaged.
        blob: Digest,
    },
    /// A record that is damaged, or whose result is gone.
    #[error("cache record {0} is of no use")]
    RecordUseless(RecordKey),
    /// A build report that is damaged.
    #[error("the build report `{0}` is damaged")]
    ReportMalformed(PathBuf),
    /// What a dead process left.
    #[error("`{0}` was left by a process that is dead")]
    Leftover(PathBuf),
    /// A file that the store did not make.
    #[error("`{0}` is not the store's")]
    Stray(PathBuf),
}

impl<E> Finding<E> {
    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::BlobChanged { .. }
            | Self::BlobUnreadable { .. }
            | Self::LayerDamaged { .. }
            | Self::LayerLost { .. }
            | Self::ImageMalformed(_)
            | Self::ImageLacks { .. }
            | Self::TagMalformed(_)
            | Self::TagDangling { .. } => Severity::Damage,
            Self::LayerUnfinished(_)
            | Self::LayerLacksBlob { .. }
            | Self::RecordUseless(_)
            | Self::ReportMalformed(_)
            | Self::Leftover(_)
            | Self::Stray(_) => Severity::Reclaimable,
        }
    }
}

/// What became of a finding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It is as it was found.
    Left,
    /// It is gone, and will be made again when it is needed.
    Removed,
    /// It lies there now.
    MovedAside(PathBuf),
}

/// A finding and what became of it.
#[derive(Debug)]
pub struct Found<E> {
    /// What.
    pub finding: Finding<E>,
    /// What then.
    pub outcome: Outcome,
}

/// The result of a check.
#[derive(Debug)]
pub struct Report<E> {
    /// In the order in which they were found.
    pub found: Vec<Found<E>>,
    /// How many blobs were read.
    pub blobs: u64,
    /// How many bytes these had.
    pub blob_bytes: u64,
    /// How many layers were given to the caller's check.
    pub layers: u64,
}

impl<E> Report<E> {
    /// The worst of all findings; `None` if the store is clean.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.found.iter().map(|found| found.finding.severity()).max()
    }
}

impl Store {
    /// Checks the whole store. `check_layer` says whether a layer's contents are those of its entry list; it is called in parallel.
    ///
    /// # Errors
    /// Only what keeps the check itself from going on; damage is a finding.
    pub fn fsck<E: Send>(
        &self,
        mode: FsckMode,
        check_layer: impl Fn(&Layer) -> Result<(), E> + Sync,
    ) -> Result<Report<E>, Error> {
        let report = Report { found: Vec::new(), blobs: 0, blob_bytes: 0, layers: 0 };
        let mut check = Check { store: self, mode, report, bad: HashSet::new() };
        let bad_blobs = check.read_blobs()?;
        let bad_layers = check.read_layers(check_layer)?;
        let _gc = self.gc_exclusive()?;
        check.blobs(bad_blobs)?;
        check.layers(bad_layers)?;
        check.images()?;
        check.tags()?;
        check.records()?;
        check.reports()?;
        check.leftovers()?;
        check.strays()?;
        Ok(check.report)
    }
}

/// A check under way.
struct Check<'s, E> {
    store: &'s Store,
    mode: FsckMode,
    report: Report<E>,
    /// What is there and must not be relied on.
    bad: HashSet<Object>,
}

/// What is to be done with a finding.
enum Repair {
    /// It can be made again.
    Remove(PathBuf),
    /// It cannot.
    MoveAside(PathBuf),
    /// Nothing but to tell: what it is about is repaired elsewhere.
    Tell,
}

impl<E: Send> Check<'_, E> {
    fn found(&mut self, finding: Finding<E>, repair: Repair) -> Result<(), Error> {
        let outcome = match (self.mode, repair) {
            (FsckMode::Check, _) | (_, Repair::Tell) => Outcome::Left,
            (FsckMode::Repair, Repair::Remove(path)) => {
                files::remove_tree(&path)?;
                Outcome::Removed
            }
            (FsckMode::Repair, Repair::MoveAside(path)) => Outcome::MovedAside(self.move_aside(&path)?),
        };
        self.report.found.push(Found { finding, outcome });
        Ok(())
    }

    fn move_aside(&self, path: &Path) -> Result<PathBuf, Error> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let target = self.store.layout().dir("damaged").join(format!("{name}.{}", &random_name()?[..8]));
        files::rename(path, &target)?;
        Ok(target)
    }

    /// Hashes every blob; gives those that are not what they should be.
    fn read_blobs(&mut self) -> Result<Vec<(PathBuf, Finding<E>)>, Error> {
        let blobs = self.store.blob_files()?;
        let results: Vec<_> = blobs.into_par_iter().map(|(digest, path)| hash(digest, path)).collect();
        let mut bad = Vec::new();
        for (path, result) in results {
            match result {
                Hashed::Whole(bytes) => {
                    self.report.blobs += 1;
                    self.report.blob_bytes += bytes;
                }
                Hashed::Gone => {}
                Hashed::Changed { expected, got } => bad.push((path, Finding::BlobChanged { expected, got })),
                Hashed::Unreadable { digest, source } => {
                    bad.push((path, Finding::BlobUnreadable { digest, source }));
                }
            }
        }
        Ok(bad)
    }

    /// Lets the caller look at every layer; gives those that it did not like.
    fn read_layers(
        &mut self,
        check_layer: impl Fn(&Layer) -> Result<(), E> + Sync,
    ) -> Result<Vec<(LayerId, E)>, Error> {
        let layers: Result<Vec<_>, Error> =
            self.store.layer_ids()?.iter().map(|id| self.store.layer(id)).collect();
        let layers: Vec<Layer> = layers?.into_iter().flatten().collect();
        self.report.layers = layers.len() as u64;
        let check = |layer: Layer| check_layer(&layer).err().map(|error| (layer.id().clone(), error));
        Ok(layers.into_par_iter().filter_map(check).collect())
    }

    fn blobs(&mut self, bad: Vec<(PathBuf, Finding<E>)>) -> Result<(), Error> {
        for (path, finding) in bad {
            let digest = match &finding {
                Finding::BlobChanged { expected, .. } => expected.clone(),
                Finding::BlobUnreadable { digest, .. } => digest.clone(),
                _ => continue,
            };
            if files::exists(&path)? {
                self.bad.insert(Object::Blob(digest));
                self.found(finding, Repair::MoveAside(path))?;
            }
        }
        Ok(())
    }

    fn layers(&mut self, bad: Vec<(LayerId, E)>) -> Result<(), Error> {
        for (id, source) in bad {
            // Collected while the caller looked at it: no wonder it did not like it.
            if self.store.layer(&id)?.is_some() {
                self.bad.insert(Object::Layer(id.clone()));
                let path = self.store.layout().layer(&id);
                self.found(Finding::LayerDamaged { id, source }, Repair::MoveAside(path))?;
            }
        }
        for id in self.store.layer_ids()? {
            match self.store.layer(&id)? {
                Some(layer) => self.layer_blobs(&layer)?,
                None => {
                    let path = self.store.layout().layer(&id);
                    self.found(Finding::LayerUnfinished(id), Repair::Remove(path))?;
                }
            }
        }
        Ok(())
    }

    fn layer_blobs(&mut self, layer: &Layer) -> Result<(), Error> {
        let mut lost = Vec::new();
        for blob in layer.blobs() {
            if self.is_missing(&Object::Blob(blob.digest.clone()))? {
                lost.push(blob);
            }
        }
        if lost.len() < layer.blobs().len() || layer.is_unpacked() {
            for blob in lost {
                let finding =
                    Finding::LayerLacksBlob { layer: layer.id().clone(), blob: blob.digest.clone() };
                self.found(finding, Repair::Remove(layer.blob_marker(blob)))?;
            }
        } else if let Some(blob) = lost.first() {
            self.bad.insert(Object::Layer(layer.id().clone()));
            let finding = Finding::LayerLost { layer: layer.id().clone(), blob: blob.digest.clone() };
            self.found(finding, Repair::MoveAside(layer.dir().to_path_buf()))?;
        }
        Ok(())
    }

    fn images(&mut self) -> Result<(), Error> {
        for id in self.store.image_ids()? {
            let path = self.store.layout().image(&id);
            let image = match self.store.image(&id) {
                Ok(Some(image)) => image,
                Ok(None) => continue,
                Err(Error::Damaged { .. }) => {
                    self.bad.insert(Object::Image(id.clone()));
                    self.found(Finding::ImageMalformed(id), Repair::MoveAside(path))?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut lacks = Vec::new();
            for object in image.needs() {
                if self.is_missing(&object)? {
                    lacks.push(object);
                }
            }
            // The file goes aside once, however much its image lacks.
            let mut repair = Some(Repair::MoveAside(path));
            for object in lacks {
                self.bad.insert(Object::Image(id.clone()));
                let finding = Finding::ImageLacks { image: id.clone(), object };
                self.found(finding, repair.take().unwrap_or(Repair::Tell))?;
            }
        }
        Ok(())
    }

    fn tags(&mut self) -> Result<(), Error> {
        let dir = self.store.layout().dir("tags");
        for name in files::names(&dir)? {
            let path = dir.join(name);
            match tag::read(&path) {
                Ok(Some(tag)) if self.store.layout().tag(&tag.reference) == path => {
                    for image in tag.images().cloned() {
                        if self.is_missing(&Object::Image(image.clone()))? {
                            let finding = Finding::TagDangling { reference: tag.reference.clone(), image };
                            self.found(finding, Repair::MoveAside(path))?;
                            break;
                        }
                    }
                }
                Ok(None) => {}
                Ok(Some(_)) | Err(Error::Damaged { .. }) => {
                    self.found(Finding::TagMalformed(path.clone()), Repair::MoveAside(path))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn records(&mut self) -> Result<(), Error> {
        for key in self.store.record_keys()? {
            let mut is_useful = false;
            if let Some(record) = self.store.record(&key)? {
                is_useful = true;
                for object in &record.needs {
                    // A log may be pruned under its record.
                    if !matches!(object, Object::Log(_)) && self.is_missing(object)? {
                        is_useful = false;
                    }
                }
            }
            if !is_useful {
                let path = self.store.layout().record(&key);
                self.found(Finding::RecordUseless(key), Repair::Remove(path))?;
            }
        }
        Ok(())
    }

    fn reports(&mut self) -> Result<(), Error> {
        let dir = self.store.layout().dir("builds");
        for name in files::names(&dir)? {
            let path = dir.join(&name);
            let bytes = files::read_if_exists(&path)?.unwrap_or_default();
            if crate::log::open_report(&name, &bytes).is_none() {
                self.found(Finding::ReportMalformed(path.clone()), Repair::Remove(path))?;
            }
        }
        Ok(())
    }

    fn leftovers(&mut self) -> Result<(), Error> {
        let mut dead = stale_step_locks(self.store)?;
        dead.extend(self.store.old_flags()?);
        for dir in self.store.unsynced_blobs_of_other_boots()? {
            // Without blobs it takes no space worth a word; the next prune takes it.
            if !files::names(&dir)?.is_empty() {
                dead.push(dir);
            }
        }
        for path in dead {
            self.found(Finding::Leftover(path.clone()), Repair::Remove(path))?;
        }
        for area in lease::dead(self.store.layout())? {
            self.found(Finding::Leftover(area), Repair::Tell)?;
        }
        if self.mode == FsckMode::Check {
            return Ok(());
        }
        // Areas and leases go together, in their own order.
        self.store.drop_leftovers()?;
        for found in &mut self.report.found {
            if matches!(&found.finding, Finding::Leftover(path) if !files::exists(path)?) {
                found.outcome = Outcome::Removed;
            }
        }
        Ok(())
    }

    /// Files where the store would never have put them.
    fn strays(&mut self) -> Result<(), Error> {
        for path in self.store.layout().strays()? {
            self.found(Finding::Stray(path.clone()), Repair::MoveAside(path))?;
        }
        Ok(())
    }

    fn is_missing(&self, object: &Object) -> Result<bool, Error> {
        Ok(self.bad.contains(object) || !self.store.contains(object)?)
    }
}

enum Hashed {
    Whole(u64),
    Gone,
    Changed { expected: Digest, got: Digest },
    Unreadable { digest: Digest, source: io::Error },
}

fn hash(digest: Digest, path: PathBuf) -> (PathBuf, Hashed) {
    let hashed = match read_and_hash(&digest, &path) {
        Ok(None) => Hashed::Gone,
        Ok(Some((got, bytes))) if got == digest => Hashed::Whole(bytes),
        Ok(Some((got, _))) => Hashed::Changed { expected: digest, got },
        Err(source) => Hashed::Unreadable { digest, source },
    };
    (path, hashed)
}

fn read_and_hash(digest: &Digest, path: &Path) -> io::Result<Option<(Digest, u64)>> {
    let Some(mut file) = files::present(std::fs::File::open(path))? else { return Ok(None) };
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; 128 * 1024];
    let mut total = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(Some((hasher.finish(), total)));
        }
        hasher.update(&buffer[..read]);
        total += read as u64;
    }
}

impl Store {
    /// The directories of blobs that another run of the kernel left unsynced.
    pub(crate) fn unsynced_blobs_of_other_boots(&self) -> Result<Vec<PathBuf>, Error> {
        let blobs = self.layout().dir("blobs");
        let own = self.layout().unsynced_blobs();
        let names = files::names(&blobs)?;
        let is_unsynced =
            |name: &std::ffi::OsString| name.to_string_lossy().starts_with(layout::UNSYNCED_BLOBS);
        Ok(names
            .into_iter()
            .filter(is_unsynced)
            .map(|name| blobs.join(name))
            .filter(|path| *path != own)
            .collect())
    }
}
