//! What takes how much space: real blocks of everything, and how much of it is shared.

use std::collections::{BTreeMap, HashMap, HashSet};

use oci::{Digest, ImageId, LayerId, Reference};
use rayon::prelude::*;

use crate::layout;
use crate::mark::Marks;
use crate::prune::{small_files, stale_step_locks};
use crate::{CacheMountInfo, Error, Kind, Object, PrunePolicy, Store, Tally, files, lease};

/// The space of a whole store.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// By kind.
    pub kinds: BTreeMap<Kind, KindUsage>,
    /// Each image, in order of their ids.
    pub images: Vec<ImageUsage>,
    /// Each layer, in order of their ids.
    pub layers: Vec<LayerUsage>,
    /// Each directory of a cache mount.
    pub cache_mounts: Vec<CacheMountInfo>,
}

/// The space of one kind of things.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KindUsage {
    /// All of it.
    pub total: Tally,
    /// What the policy that was asked about would take.
    pub reclaimable: Tally,
}

/// The space of one image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageUsage {
    /// Which one.
    pub id: ImageId,
    /// What it is called.
    pub tags: Vec<Reference>,
    /// Bytes of its layers and blobs.
    pub disk_bytes: u64,
    /// Of these, the bytes of what no other image and no cache record has.
    pub unique_bytes: u64,
}

/// The space of one layer in its uncompressed forms.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LayerUsage {
    /// Which one.
    pub id: LayerId,
    /// Bytes in blocks.
    pub disk_bytes: u64,
    /// How many images have it.
    pub images: u64,
    /// How many cache records name it.
    pub records: u64,
}

impl Store {
    /// Measures everything, and says what a prune with `policy` would take. Walks the trees of all layers and cache mounts, in parallel,
    /// and locks nobody out.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a tag or an image cannot be read, or what the file system says.
    pub fn usage(&self, policy: &PrunePolicy) -> Result<Usage, Error> {
        let pins = lease::live_pins(self.layout())?;
        let marks = Marks::of(self, policy, pins)?;
        let mut measure = Measure { store: self, sizes: HashMap::new(), usage: Usage::default() };
        measure.layers(&marks)?;
        measure.blobs(&marks)?;
        measure.files(&marks, policy)?;
        measure.cache_mounts(policy)?;
        measure.sources(policy)?;
        measure.leftovers()?;
        measure.images(&marks)?;
        Ok(measure.usage)
    }
}

struct Measure<'s> {
    store: &'s Store,
    /// Bytes of layers and blobs.
    sizes: HashMap<Object, u64>,
    usage: Usage,
}

impl Measure<'_> {
    fn add(&mut self, kind: Kind, bytes: u64, is_needed: bool) {
        let usage = self.usage.kinds.entry(kind).or_default();
        usage.total.add(bytes);
        if !is_needed {
            usage.reclaimable.add(bytes);
        }
    }

    fn layers(&mut self, marks: &Marks) -> Result<(), Error> {
        let measure =
            |id: LayerId| files::disk_bytes(&self.store.layout().layer(&id)).map(|bytes| (id, bytes));
        let sizes: Result<Vec<_>, Error> = self.store.layer_ids()?.into_par_iter().map(measure).collect();
        for (id, bytes) in sizes? {
            self.add(Kind::Layers, bytes, marks.layers.contains(&id));
            self.usage.layers.push(LayerUsage { id: id.clone(), disk_bytes: bytes, images: 0, records: 0 });
            self.sizes.insert(Object::Layer(id), bytes);
        }
        Ok(())
    }

    fn blobs(&mut self, marks: &Marks) -> Result<(), Error> {
        for (digest, path) in self.store.blob_files()? {
            let bytes = files::disk_bytes(&path)?;
            self.add(Kind::Blobs, bytes, marks.blobs.contains(&digest));
            self.sizes.insert(Object::Blob(digest), bytes);
        }
        Ok(())
    }

    fn files(&mut self, marks: &Marks, policy: &PrunePolicy) -> Result<(), Error> {
        for key in self.store.record_keys()? {
            let bytes = files::disk_bytes(&self.store.layout().record(&key))?;
            self.add(Kind::Records, bytes, marks.records.contains(&key));
        }
        for (kind, path) in small_files(self.store)? {
            let is_needed = marks.keeps_small_file(policy, kind, &path)?;
            let bytes = files::disk_bytes(&path)?;
            self.add(kind, bytes, is_needed);
        }
        for name in files::names(&self.store.layout().dir("damaged"))? {
            let path = self.store.layout().dir("damaged").join(name);
            let bytes = files::disk_bytes(&path)?;
            self.add(Kind::Damaged, bytes, policy.damaged.keeps_file(&path)?);
        }
        Ok(())
    }

    fn cache_mounts(&mut self, policy: &PrunePolicy) -> Result<(), Error> {
        self.usage.cache_mounts = self.store.cache_mounts()?;
        for info in self.usage.cache_mounts.clone() {
            self.add(Kind::CacheMounts, info.disk_bytes, policy.cache_mounts.keeps(info.last_used));
        }
        Ok(())
    }

    fn sources(&mut self, policy: &PrunePolicy) -> Result<(), Error> {
        for source in self.store.kept_sources()? {
            self.add(Kind::Sources, source.disk_bytes()?, policy.sources.keeps(source.last_used()?));
        }
        Ok(())
    }

    fn leftovers(&mut self) -> Result<(), Error> {
        for path in lease::dead(self.store.layout())? {
            let bytes = files::disk_bytes(&path)?;
            self.add(Kind::Leftovers, bytes, false);
        }
        for path in stale_step_locks(self.store)?.into_iter().chain(self.store.old_flags()?) {
            let bytes = files::disk_bytes(&path)?;
            self.add(Kind::Locks, bytes, false);
        }
        Ok(())
    }

    /// Images come last: their sizes are those of what they need.
    fn images(&mut self, marks: &Marks) -> Result<(), Error> {
        let needs = self.image_needs()?;
        let mut users: HashMap<&Object, u64> = HashMap::new();
        for object in needs.iter().flat_map(|(_, objects)| objects) {
            *users.entry(object).or_default() += 1;
        }
        let records = self.count_records(marks)?;
        for layer in &mut self.usage.layers {
            let object = Object::Layer(layer.id.clone());
            layer.images = users.get(&object).copied().unwrap_or(0);
            layer.records = records.get(&object).copied().unwrap_or(0);
        }
        let size = |object: &Object| self.sizes.get(object).copied().unwrap_or(0);
        let is_unique = |object: &&Object| users.get(object) == Some(&1) && !records.contains_key(object);
        let tags = self.store.tags()?;
        let mut images = Vec::with_capacity(needs.len());
        for (id, objects) in &needs {
            images.push(ImageUsage {
                id: id.clone(),
                tags: tags.iter().filter(|tag| tag.has(id)).map(|tag| tag.reference.clone()).collect(),
                disk_bytes: objects.iter().map(size).sum(),
                unique_bytes: objects.iter().filter(is_unique).map(size).sum(),
            });
        }
        for id in needs.iter().map(|(id, _)| id) {
            let bytes = files::disk_bytes(&self.store.layout().image(id))?;
            self.add(Kind::Images, bytes, marks.images.contains(id));
        }
        self.usage.images = images;
        Ok(())
    }

    /// What each image needs, with the compressed forms of its layers.
    fn image_needs(&self) -> Result<Vec<(ImageId, HashSet<Object>)>, Error> {
        let mut all = Vec::new();
        for id in self.store.image_ids()? {
            let Some(image) = self.store.image(&id)? else { continue };
            let mut needs: HashSet<Object> = image.needs().into_iter().collect();
            needs.extend(image.manifests.into_iter().flat_map(|known| known.layers).map(Object::Blob));
            for layer in &image.layers {
                let Some(layer) = self.store.layer(layer)? else { continue };
                needs.extend(layer.blobs().iter().map(|blob| Object::Blob(blob.digest.clone())));
            }
            all.push((id, needs));
        }
        Ok(all)
    }

    fn count_records(&self, marks: &Marks) -> Result<HashMap<Object, u64>, Error> {
        let mut counts = HashMap::new();
        for key in &marks.records {
            let Some(record) = self.store.record(key)? else { continue };
            for object in record.needs {
                *counts.entry(object).or_default() += 1;
            }
        }
        Ok(counts)
    }
}

impl Store {
    /// Every blob and where it lies now.
    pub(crate) fn blob_files(&self) -> Result<Vec<(Digest, std::path::PathBuf)>, Error> {
        let blobs = self.layout().dir("blobs");
        let mut found = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let dir = blobs.join(algorithm);
            let digests = files::names(&dir)?;
            found.extend(
                digests.iter().filter_map(|name| Some((layout::digest_of_hex(name)?, dir.join(name)))),
            );
        }
        let dir = self.layout().unsynced_blobs();
        let names = files::names(&dir)?;
        found.extend(
            names.iter().filter_map(|name| Some((layout::digest_of_unsynced(name)?, dir.join(name)))),
        );
        Ok(found)
    }
}
