//! What must stay: everything that is reached from tags, from the pins of live leases, and from the records that a policy keeps.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use oci::{Digest, ImageId, LayerId};

use crate::envelope::Envelope;
use crate::{Error, Kind, LogId, Object, PrunePolicy, RecordKey, Retain, Store, Tag, files, log};

/// The result of marking.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    pub(crate) images: HashSet<ImageId>,
    pub(crate) layers: HashSet<LayerId>,
    pub(crate) blobs: HashSet<Digest>,
    pub(crate) records: HashSet<RecordKey>,
    pub(crate) logs: HashSet<LogId>,
    /// File names in `builds/`.
    pub(crate) reports: HashSet<std::ffi::OsString>,
}

impl Marks {
    /// Marks what `policy` and `pins` keep.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a tag or an image cannot be read: what it needs is then unknown, and nothing may be taken.
    pub(crate) fn of(store: &Store, policy: &PrunePolicy, pins: HashSet<Object>) -> Result<Self, Error> {
        let mut marks = Self::default();
        pins.into_iter().for_each(|pin| marks.add(pin));
        marks.images.extend(store.tags()?.iter().flat_map(Tag::images).cloned());
        marks.add_images(store, policy.images)?;
        marks.add_records(store, policy.records)?;
        marks.add_reports(store, policy.reports)?;
        marks.add_layer_blobs(store)?;
        Ok(marks)
    }

    fn add(&mut self, object: Object) {
        match object {
            Object::Layer(id) => drop(self.layers.insert(id)),
            Object::Blob(digest) => drop(self.blobs.insert(digest)),
            Object::Image(id) => drop(self.images.insert(id)),
            Object::Log(id) => drop(self.logs.insert(id)),
        }
    }

    /// Whether a log, a build report or a stat cache stays.
    pub(crate) fn keeps_small_file(
        &self,
        policy: &PrunePolicy,
        kind: Kind,
        path: &Path,
    ) -> Result<bool, Error> {
        let name = path.file_name().unwrap_or_default();
        match kind {
            Kind::Reports => Ok(self.reports.contains(name)),
            Kind::Logs => {
                let id = name.to_str().and_then(|name| name.parse().ok());
                Ok(id.is_some_and(|id| self.logs.contains(&id)) || policy.logs.keeps_file(path)?)
            }
            _ => policy.contexts.keeps_file(path),
        }
    }

    /// Adds the images that stay without a tag, and what all images that stay need.
    fn add_images(&mut self, store: &Store, retain: Retain) -> Result<(), Error> {
        for id in store.image_ids()? {
            if !self.images.contains(&id) && !retain.keeps_file(&store.layout().image(&id))? {
                continue;
            }
            self.images.insert(id.clone());
            let Some(image) = store.image(&id)? else { continue };
            image.needs().into_iter().for_each(|object| self.add(object));
            self.blobs.extend(image.manifests.into_iter().flat_map(|known| known.layers));
        }
        Ok(())
    }

    /// Adds the records that are kept and that are still worth something.
    fn add_records(&mut self, store: &Store, retain: Retain) -> Result<(), Error> {
        let mut usable = UsableLayers { store, known: HashSet::new() };
        for key in store.record_keys()? {
            if !retain.keeps_file(&store.layout().record(&key))? {
                continue;
            }
            let Some(record) = store.record(&key)? else { continue };
            if usable.satisfy(&record.needs)? {
                record.needs.into_iter().for_each(|object| self.add(object));
                self.records.insert(key);
            }
        }
        Ok(())
    }

    /// Adds the build reports that are kept, with their logs.
    fn add_reports(&mut self, store: &Store, retain: Retain) -> Result<(), Error> {
        let dir = store.layout().dir("builds");
        for name in files::names(&dir)? {
            let path = dir.join(&name);
            if !retain.keeps_file(&path)? {
                continue;
            }
            let Some(bytes) = files::read_if_exists(&path)? else { continue };
            if let Some(Envelope { needs, .. }) = log::open_report(&name, &bytes) {
                needs.into_iter().for_each(|object| self.add(object));
                self.reports.insert(name);
            }
        }
        Ok(())
    }

    /// Adds the compressed forms of the layers that stay.
    fn add_layer_blobs(&mut self, store: &Store) -> Result<(), Error> {
        for id in &self.layers {
            let Some(layer) = store.layer(id)? else { continue };
            self.blobs.extend(layer.blobs().iter().map(|blob| blob.digest.clone()));
        }
        Ok(())
    }
}

/// Whether what records need is there, each layer looked at once.
struct UsableLayers<'s> {
    store: &'s Store,
    known: HashSet<LayerId>,
}

impl UsableLayers<'_> {
    fn satisfy(&mut self, needs: &[Object]) -> Result<bool, Error> {
        for object in needs {
            let is_there = match object {
                Object::Log(_) => true,
                Object::Layer(id) if self.known.contains(id) => true,
                other => self.store.contains(other)?,
            };
            if !is_there {
                return Ok(false);
            }
            if let Object::Layer(id) = object {
                self.known.insert(id.clone());
            }
        }
        Ok(true)
    }
}

impl Retain {
    /// Whether something last used at `time` stays.
    pub(crate) fn keeps(self, time: SystemTime) -> bool {
        match self {
            Self::All => true,
            Self::UsedSince(since) => time >= since,
            Self::Nothing => false,
        }
    }

    /// Whether a file stays, whose modification time is its time of last use.
    pub(crate) fn keeps_file(self, path: &Path) -> Result<bool, Error> {
        match self {
            Self::All => Ok(true),
            Self::Nothing => Ok(false),
            Self::UsedSince(_) => {
                let time = fs::symlink_metadata(path).and_then(|found| found.modified());
                let time = files::present(time).map_err(Error::at("look at", path))?;
                Ok(time.is_some_and(|time| self.keeps(time)))
            }
        }
    }
}
