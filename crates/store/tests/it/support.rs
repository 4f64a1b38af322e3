//! A store in a temporary directory, and small things to put into it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use oci::{ContentDigest, Digest, ImageId, LayerId, Reference};
use store::{FsckMode, Image, Layer, LayerFacts, Lease, RecordKey, Report, Store};
use sys::durable::BootId;

pub(crate) struct Fixture {
    pub(crate) store: Store,
    #[expect(dead_code, reason = "held for its drop")]
    dir: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Self { store, dir }
    }

    /// In memory, where that is possible: for tests of processes that die, not of disks.
    pub(crate) fn in_memory() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Self { store, dir }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.store.root().to_path_buf()
    }

    /// The same store as it is seen after a power cut: by another run of the kernel.
    pub(crate) fn rebooted(&self) -> Store {
        Store::open_in_boot(&self.root(), BootId::parse("0-0-0").unwrap()).unwrap()
    }
}

pub(crate) fn layer_id(name: &str) -> LayerId {
    LayerId::new(Digest::of(name))
}

pub(crate) fn key(name: &str) -> RecordKey {
    RecordKey::new(Digest::of(name))
}

pub(crate) fn reference(name: &str) -> Reference {
    Reference::parse(name).unwrap()
}

pub(crate) fn facts(content: &str) -> LayerFacts {
    LayerFacts { content: ContentDigest::new(Digest::of(content)), entries: 1, size_bytes: 7 }
}

/// Which forms a test layer gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    Fs,
    Tar,
}

/// What goes wrong in a test's own files or in the store.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Publishes a layer whose id and content are made of its name.
pub(crate) fn publish(lease: &Lease, name: &str, forms: &[Form]) -> Layer {
    try_publish(lease, name, forms).unwrap()
}

pub(crate) fn try_publish(lease: &Lease, name: &str, forms: &[Form]) -> Outcome<Layer> {
    let draft = lease.layer_draft()?;
    fs::write(draft.entries_path(), name)?;
    for form in forms {
        match form {
            Form::Fs => fs::write(draft.make_fs()?.join("file"), name)?,
            Form::Tar => fs::write(draft.tar_path(), name)?,
        }
    }
    Ok(lease.publish_layer(draft, &layer_id(name), &facts(name))?)
}

/// Publishes layers and a config, without committing the image they make.
pub(crate) fn uncommitted_image(lease: &Lease, name: &str, layers: &[&str]) -> Image {
    try_uncommitted_image(lease, name, layers).unwrap()
}

fn try_uncommitted_image(lease: &Lease, name: &str, layers: &[&str]) -> Outcome<Image> {
    let config = lease.put_blob(name.as_bytes())?;
    for layer in layers {
        try_publish(lease, layer, &[Form::Fs])?;
    }
    let layers = layers.iter().map(|layer| layer_id(layer)).collect();
    Ok(Image { id: ImageId::new(config.digest), layers, manifests: Vec::new() })
}

/// Commits an image of the given layers under a tag of its name.
pub(crate) fn commit(lease: &Lease, name: &str, layers: &[&str]) -> Image {
    try_commit(lease, name, layers).unwrap()
}

pub(crate) fn try_commit(lease: &Lease, name: &str, layers: &[&str]) -> Outcome<Image> {
    let image = try_uncommitted_image(lease, name, layers)?;
    lease.commit_image(&image, &[reference(name)])?;
    Ok(image)
}

/// A layer is good if its one file says its name, in whichever form.
pub(crate) fn check_layer(layer: &Layer) -> Result<(), String> {
    let name = fs::read_to_string(layer.entries_path()).map_err(|error| error.to_string())?;
    let forms = [layer.tar_path(), layer.fs_path().map(|path| path.join("file"))];
    for path in forms.into_iter().flatten() {
        let found = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if found != name {
            return Err(format!("`{}` says `{found}`, not `{name}`", path.display()));
        }
    }
    if *layer.id() == layer_id(&name) { Ok(()) } else { Err(format!("the entries are of `{name}`")) }
}

pub(crate) fn fsck(store: &Store, mode: FsckMode) -> Report<String> {
    store.fsck(mode, check_layer).unwrap()
}

/// The findings as text, the store's own path and random names left out.
pub(crate) fn findings(store: &Store, report: &Report<String>) -> String {
    let root = store.root().display().to_string();
    report.found.iter().map(|found| format!("{}\n", found.finding).replace(&root, "")).collect()
}

#[track_caller]
pub(crate) fn assert_clean(store: &Store) {
    let report = fsck(store, FsckMode::Check);
    assert!(report.found.is_empty(), "{:#?}", report.found);
}

/// Every file below a directory, with what shows that it was written again.
pub(crate) fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (u64, u64, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let status = fs::symlink_metadata(&path).unwrap();
            if status.is_dir() {
                pending.push(path.clone());
            } else {
                found.insert(path, (status.ino(), status.len(), status.modified().unwrap()));
            }
        }
    }
    found
}

/// Whether the tests may mount and the like; says so if not.
pub(crate) fn is_root(test: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        println!("skipped: `{test}` needs root");
    }
    is_root
}

/// The only image that a name means.
pub(crate) fn meaning(store: &Store, name: &str) -> Option<ImageId> {
    let tag = store.tag(&reference(name)).unwrap()?;
    assert!(tag.others.is_empty(), "{tag:?}");
    Some(tag.image)
}
