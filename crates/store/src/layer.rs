//! Layers: a directory per layer, its forms inside it, each form with its own proof of durability.
//!
//! ```text
//! layers/<id>/meta            content digest, number of entries, size: written once, with the entry list
//!             entries         the sorted entry list; what is in it is the business of crate `layer`
//!             fs/             the change set as an overlay's lower directory
//!             tar             the change set as an uncompressed tar
//!             blob.<…>        empty; its name says which blob is a compressed form
//!             diff-id         the digest of the tar, once somebody has computed it
//!             unsynced.<part>.<boot id>, synced.<part>      empty
//! ```
//!
//! A *part* is `base` (meta and entries), `fs` or `tar`. It counts only with a marker beside it: `unsynced` with the running kernel's
//! boot id, since then the page cache holds what was written, or `synced`, which is made after a sync has covered the part.
//! Markers are names without contents, so they cannot be torn. A part with neither is what a power cut left of it, and is
//! replaced by whoever publishes it again. The marker is there before the part becomes visible.
//!
//! The `unsynced` marker goes only when the `synced` one and the layer's own name are durable, so where both are, the next commit syncs
//! once more.
//!
//! A layer is made in the private area of a lease ([`LayerDraft`]) and appears by one rename, or, if somebody else was first, its
//! missing forms are moved into the layer that is there.

use std::fs;
use std::path::{Path, PathBuf};

use oci::{Compression, ContentDigest, DiffId, Digest, LayerId};
use serde::{Deserialize, Serialize};
use sys::durable::BootId;
use sys::lock::{FileLock, LockMode};

use crate::{Error, Lease, Object, Store, files, layout};

/// What is known of a layer from its entry list.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LayerFacts {
    /// The digest of the entries without their mtimes.
    pub content: ContentDigest,
    /// How many entries there are.
    pub entries: u64,
    /// The sum of the sizes of its files, as its tar would hold them.
    pub size_bytes: u64,
}

/// A layer's compressed form.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct LayerBlob {
    /// The compressed bytes.
    pub digest: Digest,
    /// How they are compressed.
    pub compression: Compression,
    /// What compressed them.
    pub origin: BlobOrigin,
}

/// Who made a compressed form.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum BlobOrigin {
    /// It came so, from a registry or an archive.
    Received,
    /// We did; the same settings give the same bytes.
    Encoded {
        /// The codec's level.
        level: i32,
        /// The version of our encoder.
        version: u32,
    },
}

/// One part of a layer that is made durable on its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    Base,
    Fs,
    Tar,
}

impl Part {
    pub(crate) const ALL: [Self; 3] = [Self::Base, Self::Fs, Self::Tar];
    const FORMS: [Self; 2] = [Self::Fs, Self::Tar];

    fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Fs => "fs",
            Self::Tar => "tar",
        }
    }

    /// The file or directory that the part consists of, or, for the base, that is written last.
    fn file(self) -> &'static str {
        match self {
            Self::Base => META,
            Self::Fs => "fs",
            Self::Tar => "tar",
        }
    }

    fn synced_marker(self) -> String {
        format!("synced.{}", self.name())
    }

    fn unsynced_marker(self, boot: &BootId) -> String {
        format!("unsynced.{}.{boot}", self.name())
    }
}

pub(crate) const META: &str = "meta";
const ENTRIES: &str = "entries";
const DIFF_ID: &str = "diff-id";

/// A layer in the store, as it was when it was looked up. The paths stay good while a lease pins it.
#[derive(Clone, Debug)]
pub struct Layer {
    id: LayerId,
    dir: PathBuf,
    facts: LayerFacts,
    diff_id: Option<DiffId>,
    has_fs: bool,
    has_tar: bool,
    blobs: Vec<LayerBlob>,
    unsynced: Vec<Part>,
}

impl Layer {
    /// The layer's name.
    #[must_use]
    pub fn id(&self) -> &LayerId {
        &self.id
    }

    /// What its entry list says in sum.
    #[must_use]
    pub fn facts(&self) -> &LayerFacts {
        &self.facts
    }

    /// The digest of its tar, if somebody has computed it.
    #[must_use]
    pub fn diff_id(&self) -> Option<&DiffId> {
        self.diff_id.as_ref()
    }

    /// The file with its entry list.
    #[must_use]
    pub fn entries_path(&self) -> PathBuf {
        self.dir.join(ENTRIES)
    }

    /// The directory to mount, if the layer has that form.
    #[must_use]
    pub fn fs_path(&self) -> Option<PathBuf> {
        self.has_fs.then(|| self.dir.join(Part::Fs.file()))
    }

    /// The uncompressed tar, if the layer has that form.
    #[must_use]
    pub fn tar_path(&self) -> Option<PathBuf> {
        self.has_tar.then(|| self.dir.join(Part::Tar.file()))
    }

    /// Its compressed forms. They are kept as long as the layer is.
    #[must_use]
    pub fn blobs(&self) -> &[LayerBlob] {
        &self.blobs
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn unsynced(&self) -> &[Part] {
        &self.unsynced
    }

    /// The files and directories of a part.
    pub(crate) fn part_paths(&self, part: Part) -> Vec<PathBuf> {
        match part {
            Part::Base => vec![self.dir.join(ENTRIES), self.dir.join(META)],
            form => vec![self.dir.join(form.file())],
        }
    }

    /// Whether it has a form besides its compressed ones.
    pub(crate) fn is_unpacked(&self) -> bool {
        self.has_fs || self.has_tar
    }

    /// The file whose name says that it has a compressed form.
    pub(crate) fn blob_marker(&self, blob: &LayerBlob) -> PathBuf {
        self.dir.join(blob.file_name())
    }

    /// Says that a sync has covered a part.
    pub(crate) fn mark_synced(&self, part: Part) -> Result<(), Error> {
        files::touch(&self.dir.join(part.synced_marker()))
    }

    /// Removes the marker that a synced part no longer needs.
    pub(crate) fn unmark_unsynced(&self, part: Part, boot: &BootId) -> Result<(), Error> {
        files::remove_file(&self.dir.join(part.unsynced_marker(boot))).map(|_| ())
    }
}

/// A layer in the making, in the private area of a lease. Dropping it unpublished removes it.
#[derive(Debug)]
pub struct LayerDraft {
    /// Empty once it is abandoned.
    dir: PathBuf,
}

impl LayerDraft {
    /// Where its entry list is to be written.
    #[must_use]
    pub fn entries_path(&self) -> PathBuf {
        self.dir.join(ENTRIES)
    }

    /// Makes the `fs` form's directory, empty and with mode 0755, and says where: an overlay's upper directory, for example.
    ///
    /// # Errors
    /// What the file system says.
    pub fn make_fs(&self) -> Result<PathBuf, Error> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.join(Part::Fs.file());
        files::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(Error::at("set mode of", &path))?;
        Ok(path)
    }

    /// Where its uncompressed tar is to be written, if it gets one.
    #[must_use]
    pub fn tar_path(&self) -> PathBuf {
        self.dir.join(Part::Tar.file())
    }

    /// Gives it a compressed form: a blob that the same lease has written or pinned.
    ///
    /// # Errors
    /// What the file system says.
    pub fn add_blob(&self, blob: &LayerBlob) -> Result<(), Error> {
        files::touch(&self.dir.join(blob.file_name()))
    }

    /// Gives up on publishing it, but leaves its files where they are until the lease ends, for somebody to look at.
    pub fn abandon(mut self) {
        self.dir = PathBuf::new();
    }

    /// Marks every part that is there as written in this boot.
    fn mark(&self, boot: &BootId) -> Result<(), Error> {
        for part in Part::ALL {
            if files::exists(&self.dir.join(part.file()))? {
                files::touch(&self.dir.join(part.unsynced_marker(boot)))?;
            }
        }
        Ok(())
    }
}

impl Drop for LayerDraft {
    fn drop(&mut self) {
        if self.dir.as_os_str().is_empty() {
            return;
        }
        // Published, it is no longer there.
        if let Err(error) = files::remove_tree(&self.dir) {
            tracing::debug!(%error, "an unpublished layer stays until its lease ends");
        }
    }
}

impl Store {
    /// Looks a layer up; `None` if it is not there, or if a power cut came before it was synced. To rely on it, pin it
    /// ([`Lease::layers`]).
    ///
    /// # Errors
    /// What the file system says.
    pub fn layer(&self, id: &LayerId) -> Result<Option<Layer>, Error> {
        let dir = self.layout().layer(id);
        let names = files::names(&dir)?;
        let names: Vec<&str> = names.iter().filter_map(|name| name.to_str()).collect();
        let state = |part: Part| part_state(part, &names, self.layout().boot());
        if state(Part::Base) == PartState::Absent || !names.contains(&ENTRIES) {
            return Ok(None);
        }
        let Some(facts) = files::read_if_exists(&dir.join(META))? else { return Ok(None) };
        let Ok(facts) = serde_json::from_slice(&facts) else { return Ok(None) };
        let unsynced = Part::ALL.into_iter().filter(|&part| state(part) == PartState::Unsynced).collect();
        Ok(Some(Layer {
            id: id.clone(),
            facts,
            diff_id: read_diff_id(&dir)?,
            has_fs: state(Part::Fs) != PartState::Absent,
            has_tar: state(Part::Tar) != PartState::Absent,
            blobs: names.iter().filter_map(|name| LayerBlob::parse_file_name(name)).collect(),
            unsynced,
            dir,
        }))
    }

    /// The ids of all layers, usable or not.
    ///
    /// # Errors
    /// What the file system says.
    pub fn layer_ids(&self) -> Result<Vec<LayerId>, Error> {
        let names = files::names(&self.layout().dir("layers"))?;
        Ok(names.iter().filter_map(|name| layout::digest_of_hex(name)).map(LayerId::new).collect())
    }
}

impl Lease {
    /// Begins a layer.
    ///
    /// # Errors
    /// What the file system says.
    pub fn layer_draft(&self) -> Result<LayerDraft, Error> {
        let dir = self.temporary("layer")?;
        files::create_dir(&dir)?;
        Ok(LayerDraft { dir })
    }

    /// Looks layers up and pins them, all or none: `None` if one of them is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn layers(&self, ids: &[LayerId]) -> Result<Option<Vec<Layer>>, Error> {
        let gc = self.store().gc_shared()?;
        let mut layers = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(layer) = self.store().layer(id)? else { return Ok(None) };
            layers.push(layer);
        }
        let pins: Vec<Object> = ids.iter().cloned().map(Object::Layer).collect();
        self.pin_under(&gc, &pins)?;
        Ok(Some(layers))
    }

    /// Pins and gives the layer `id` if it is there and has every form of the draft, which then need not be published.
    ///
    /// # Errors
    /// What the file system says.
    pub fn layer_like(&self, draft: &LayerDraft, id: &LayerId) -> Result<Option<Layer>, Error> {
        let found = self.layers(std::slice::from_ref(id))?;
        let Some(layer) = found.and_then(|layers| layers.into_iter().next()) else { return Ok(None) };
        for (has, part) in [(layer.has_fs, Part::Fs), (layer.has_tar, Part::Tar)] {
            if !has && files::exists(&draft.dir.join(part.file()))? {
                return Ok(None);
            }
        }
        Ok(Some(layer))
    }

    /// Makes a draft the layer `id`: visible to every process at once, pinned by this lease, durable with the next commit that names it.
    ///
    /// If the layer is there already, it stays and gains the forms it lacks. Syncs nothing.
    ///
    /// # Errors
    /// [`Error::LayerConflict`] if the layer that is there has another content; [`Error::NoEntries`].
    pub fn publish_layer(&self, draft: LayerDraft, id: &LayerId, facts: &LayerFacts) -> Result<Layer, Error> {
        if !files::exists(&draft.entries_path())? {
            return Err(Error::NoEntries(id.clone()));
        }
        let meta = serde_json::to_vec(facts).expect("numbers and digests always serialise");
        files::write_new(&draft.dir.join(META), &meta)?;
        draft.mark(self.store().layout().boot())?;

        let gc = self.store().gc_shared()?;
        self.pin_under(&gc, &[Object::Layer(id.clone())])?;
        let target = self.store().layout().layer(id);
        loop {
            if files::rename_if_absent(&draft.dir, &target)? {
                break;
            }
            match self.store().layer(id)? {
                Some(existing) if existing.facts.content != facts.content => {
                    let (recorded, given) = (existing.facts.content, facts.content.clone());
                    return Err(Error::LayerConflict { id: id.clone(), recorded, given });
                }
                Some(existing) => {
                    self.move_forms(&draft, &existing)?;
                    break;
                }
                None => self.discard_layer(id)?,
            }
        }
        self.store().layer(id)?.ok_or_else(|| Error::MissingLayer(id.clone()))
    }

    /// Gives an existing layer the forms of a draft that it lacks. The draft's entry list, if any, is not looked at.
    ///
    /// # Errors
    /// [`Error::MissingLayer`].
    pub fn extend_layer(&self, draft: LayerDraft, id: &LayerId) -> Result<Layer, Error> {
        let gc = self.store().gc_shared()?;
        let missing = || Error::MissingLayer(id.clone());
        let existing = self.store().layer(id)?.ok_or_else(missing)?;
        self.pin_under(&gc, &[Object::Layer(id.clone())])?;
        self.move_forms(&draft, &existing)?;
        self.store().layer(id)?.ok_or_else(missing)
    }

    /// Notes the digest of a layer's tar.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_diff_id(&self, layer: &Layer, diff_id: &DiffId) -> Result<(), Error> {
        // Unsynced on purpose: a torn one does not parse, and is computed again.
        let path = layer.dir.join(DIFF_ID);
        let text = format!("{diff_id}\n");
        files::replace(&path, &self.temporary("diff-id")?, text.as_bytes())
    }

    /// Moves the draft's forms into a layer that lacks them, one process at a time.
    fn move_forms(&self, draft: &LayerDraft, layer: &Layer) -> Result<(), Error> {
        let boot = self.store().layout().boot();
        let Some(_lock) = lock_dir(&layer.dir)? else { return Err(Error::MissingLayer(layer.id.clone())) };
        for part in Part::FORMS {
            let (from, to) = (draft.dir.join(part.file()), layer.dir.join(part.file()));
            if !files::exists(&from)? || self.has_part(&layer.dir, part)? {
                continue;
            }
            if files::exists(&to)? {
                // What a power cut left of the form. Out of the way before the marker says that it is good.
                files::rename(&to, &self.temporary("torn")?)?;
            }
            files::touch(&layer.dir.join(part.unsynced_marker(boot)))?;
            files::rename_if_absent(&from, &to)?;
        }
        for name in files::names(&draft.dir)? {
            if name.to_str().and_then(LayerBlob::parse_file_name).is_some() {
                files::touch(&layer.dir.join(name))?;
            }
        }
        Ok(())
    }

    fn has_part(&self, dir: &Path, part: Part) -> Result<bool, Error> {
        let names = files::names(dir)?;
        let names: Vec<&str> = names.iter().filter_map(|name| name.to_str()).collect();
        Ok(part_state(part, &names, self.store().layout().boot()) != PartState::Absent)
    }

    /// Moves what a power cut left of a layer out of the way, unless somebody has done so and published it anew.
    fn discard_layer(&self, id: &LayerId) -> Result<(), Error> {
        let dir = self.store().layout().layer(id);
        let Some(_lock) = lock_dir(&dir)? else { return Ok(()) };
        if self.store().layer(id)?.is_none() {
            files::rename(&dir, &self.temporary("torn")?)?;
        }
        Ok(())
    }
}

impl LayerBlob {
    fn file_name(&self) -> String {
        let Self { digest, compression, origin } = self;
        let (algorithm, hex) = (digest.algorithm().name(), digest.hex());
        let origin = match origin {
            BlobOrigin::Received => "received".to_owned(),
            BlobOrigin::Encoded { level, version } => format!("{level}.{version}"),
        };
        format!("blob.{algorithm}.{hex}.{compression}.{origin}")
    }

    fn parse_file_name(name: &str) -> Option<Self> {
        let mut fields = name.strip_prefix("blob.")?.splitn(4, '.');
        let digest = format!("{}:{}", fields.next()?, fields.next()?).parse().ok()?;
        let compression = fields.next()?.parse().ok()?;
        let origin = match fields.next()? {
            "received" => BlobOrigin::Received,
            encoder => {
                let (level, version) = encoder.split_once('.')?;
                BlobOrigin::Encoded { level: level.parse().ok()?, version: version.parse().ok()? }
            }
        };
        Some(Self { digest, compression, origin })
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum PartState {
    /// Not there, or what a power cut left.
    Absent,
    Unsynced,
    Synced,
}

/// What the names in a layer's directory say of a part.
fn part_state(part: Part, names: &[&str], boot: &BootId) -> PartState {
    if !names.contains(&part.file()) {
        PartState::Absent
    } else if names.contains(&part.unsynced_marker(boot).as_str()) {
        // Also beside a `synced` marker: that one may not be durable itself yet.
        PartState::Unsynced
    } else if names.contains(&part.synced_marker().as_str()) {
        PartState::Synced
    } else {
        PartState::Absent
    }
}

/// Locks a layer's directory; `None` if it has been moved away.
fn lock_dir(dir: &Path) -> Result<Option<FileLock>, Error> {
    let Some(file) = files::open_if_exists(dir)? else { return Ok(None) };
    let lock = FileLock::acquire(file, LockMode::Exclusive).map_err(Error::at("lock", dir))?;
    let is_linked = lock.is_linked_at(dir).map_err(Error::at("look at", dir))?;
    Ok(is_linked.then_some(lock))
}

fn read_diff_id(dir: &Path) -> Result<Option<DiffId>, Error> {
    let bytes = files::read_if_exists(&dir.join(DIFF_ID))?;
    Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.strip_suffix('\n')?.parse().ok()))
}
