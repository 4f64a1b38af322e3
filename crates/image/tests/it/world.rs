//! A store in a temporary directory, archives from lines of text, and trees as lines of text.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use image::import::{ImportOptions, Imported};
use image::{Layers, LocalImage};
use layer::entries::Kind;
use oci::{LayerId, Platform, Reference};
use store::{Lease, Store};
use sys::RootfsPath;
use testkit::manifest::Manifest;

/// A small root filesystem with one of everything.
pub(crate) const ROOTFS: &str = "dir ./ mode=0555\n\
    dir bin\nfile bin/sh mode=0755 content=\"#!shell\"\nhardlink bin/ash to=bin/sh\nsymlink bin/link to=sh\n\
    dir etc owner=1:2\nfile etc/conf mode=0640 owner=3:4 content=text xattr.user.note=x\n\
    dir dev\nchar dev/null dev=1:3 mode=0666\nblock dev/disk dev=7:1\nfifo dev/pipe\n\
    dir tmp mode=1777\nfile tmp/big size=300000\nfile bin/su mode=4755 content=su\ndir empty mode=0700";

/// Nobody cancels here.
pub(crate) fn never() -> bool {
    false
}

/// Whether the test may make devices and change owners; says so if it skips.
pub(crate) fn is_root(test: &str) -> bool {
    let is_root = fs::metadata("/proc/self").is_ok_and(|status| status.uid() == 0);
    if !is_root {
        println!("skipped {test}: needs root, for devices and owners");
    }
    is_root
}

/// A store that goes away with the test.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    /// A path outside the store.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn lease(&self) -> Lease {
        self.store.lease().unwrap()
    }

    /// Runs `work` as one command would.
    pub(crate) fn run<T>(&self, work: impl FnOnce(&Layers<'_>) -> T) -> T {
        let lease = self.lease();
        let value = work(&Layers::new(&lease, &never));
        lease.close().unwrap();
        value
    }

    /// Names of everything in the store that a command may add; leases and locks are of the moment.
    pub(crate) fn contents(&self) -> Vec<String> {
        let kept = ["blobs", "layers", "images", "tags", "tmp", "leases"];
        let mut names: Vec<String> =
            kept.iter().flat_map(|dir| files_below(&self.store.root().join(dir))).collect();
        names.sort();
        names
    }

    /// The store's own check finds nothing.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        let report = image::fsck(&self.store, store::FsckMode::Check).unwrap();
        assert!(report.found.is_empty(), "{:?}", report.found);
    }
}

fn files_below(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            names.extend(files_below(&path));
        } else {
            names.push(path.display().to_string());
        }
    }
    names
}

pub(crate) fn reference(name: &str) -> Reference {
    Reference::parse(name).unwrap()
}

pub(crate) fn amd64() -> Platform {
    Platform::new("linux", "amd64", None)
}

/// A tar of members, one a line (see `testkit::manifest`), packed by `codec`.
pub(crate) fn packed(members: &str, codec: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("tar t codec={codec}\n  {}\n", members.replace('\n', "\n  "));
    Manifest::parse(&text).unwrap().materialise(dir.path()).unwrap();
    fs::read(dir.path().join("t")).unwrap()
}

pub(crate) fn tar(members: &str) -> Vec<u8> {
    packed(members, "none")
}

/// A tar of files with their contents.
pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Imports a tar under a name.
pub(crate) fn import(layers: &Layers<'_>, tar: &[u8], name: &str) -> Imported {
    let (tags, platform) = ([reference(name)], amd64());
    let created = Some("2024-01-02T03:04:05Z".to_owned());
    let options = ImportOptions { tags: &tags, platform: &platform, created, message: "test".to_owned() };
    image::import(layers, tar, &options).unwrap()
}

pub(crate) fn find(layers: &Layers<'_>, name: &str) -> LocalImage {
    image::find(layers, name).unwrap()
}

/// The files of a list of layers as its entry lists say.
pub(crate) fn show(layers: &Layers<'_>, ids: &[LayerId]) -> String {
    let merged = layers.merged(ids).unwrap();
    let root = merged.root_entry();
    let mut text = format!("/ {:o} {}:{}\n", root.mode, root.uid, root.gid);
    for (path, found) in merged.below(&RootfsPath::root()) {
        let entry = found.entry;
        let what = match &entry.kind {
            Kind::Directory { .. } => "dir".to_owned(),
            Kind::File { size, .. } => format!("file {size}"),
            Kind::HardLink { target } => format!("link to {target}"),
            Kind::Symlink { target } => format!("-> {}", String::from_utf8_lossy(target)),
            other => format!("{other:?}"),
        };
        writeln!(text, "{path} {:o} {}:{} {what}", entry.mode, entry.uid, entry.gid).unwrap();
    }
    text
}

/// A directory as lines: kind, mode, owner, size, links, time, target or content.
pub(crate) fn show_directory(root: &Path) -> String {
    let mut lines = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        let status = fs::symlink_metadata(&path).unwrap();
        let kind = status.file_type();
        let content = if kind.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_file() {
            format!("{} {}", status.nlink(), oci::Digest::of(fs::read(&path).unwrap()).short())
        } else if kind.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            "dir".to_owned()
        } else {
            let is_device = kind.is_block_device() || kind.is_char_device();
            format!("{} {}", if is_device { "device" } else { "fifo" }, status.rdev())
        };
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let (mode, uid, gid) = (status.mode(), status.uid(), status.gid());
        // What lies in the root decides about its time in some tools, and says nothing.
        let time = if path == root { 0 } else { status.mtime() };
        lines.push(format!("/{name} {mode:o} {uid}:{gid} {time} {content}{}\n", xattrs(&path)));
    }
    lines.sort();
    lines.concat()
}

fn xattrs(path: &Path) -> String {
    let parent = sys::root::Dir::open(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap();
    let names = sys::xattr::list_at(&parent, name).unwrap();
    // Each tool leaves its own marks on what it unpacks.
    names.iter().filter(|n| n.as_bytes().starts_with(b"user.")).map(|n| format!(" {}", n.display())).collect()
}
