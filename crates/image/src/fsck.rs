//! Whether layers still are what their entry lists say: the part of the store's check that must look inside them.
//!
//! Of every layer: its list decodes and is the one that was published; its tree has exactly the entries of the list, file by file with their
//! contents; its tar and every compressed form have its DiffID. Files are read once, layers in parallel. Nothing is written.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use layer::entries::{Entries, Entry, FileDigest, Kind, Xattr};
use layer::{Limits, compress, whiteout};
use oci::{DiffId, Digest, Hasher, VerifyingReader};
use store::{BlobOrigin, FsckMode, Layer, LayerBlob, Report, Store};
use sys::RootfsPath;
use sys::directory::{self, Status, open_dir_below};
use sys::root::Dir;

use crate::stream::Hashing;
use crate::{Error, layers};

/// What is wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerDamage {
    /// Its entry list cannot be read.
    #[error(transparent)]
    Entries(Box<Error>),
    /// Its entry list is another than was published.
    #[error("its entry list is another than was published")]
    WrongEntries,
    /// Its tree or tar cannot be read.
    #[error("`{path}` cannot be read")]
    Read {
        /// In the layer; the root stands for the whole.
        path: RootfsPath,
        /// Why.
        source: io::Error,
    },
    /// The tree lacks something.
    #[error("`{0}` is missing from its tree")]
    Missing(RootfsPath),
    /// The tree has something more.
    #[error("`{0}` is in its tree and should not be")]
    Unexpected(RootfsPath),
    /// Something in the tree is not as it was.
    #[error("`{path}` in its tree has changed: {what}")]
    Changed {
        /// In the layer.
        path: RootfsPath,
        /// What is different.
        what: Difference,
    },
    /// It should have files, and has no form with their contents.
    #[error("its contents are gone")]
    NoContents,
    /// Its tar, or what a compressed form holds, has changed.
    #[error("its tar should be {expected}, and is {got}")]
    WrongDiffId {
        /// As recorded.
        expected: DiffId,
        /// As found.
        got: DiffId,
    },
}

/// How a file differs from its entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Difference {
    /// It is something else, a device for a file.
    Kind,
    /// Permissions.
    Mode,
    /// User or group.
    Owner,
    /// Time of modification.
    Time,
    /// Extended attributes.
    Xattrs,
    /// Bytes of a file, or where a link leads.
    Content,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kind => "its kind",
            Self::Mode => "its mode",
            Self::Owner => "its owner",
            Self::Time => "its time",
            Self::Xattrs => "its extended attributes",
            Self::Content => "its content",
        })
    }
}

/// Checks a store: every byte of every blob and layer, and every relation.
///
/// # Errors
/// Only what keeps the check itself from going on; damage is in the report.
pub fn fsck(store: &Store, mode: FsckMode) -> Result<Report<LayerDamage>, store::Error> {
    store.fsck(mode, |layer| check(store, layer))
}

fn check(store: &Store, layer: &Layer) -> Result<(), LayerDamage> {
    let entries = layers::decode(layer).map_err(|error| LayerDamage::Entries(Box::new(error)))?;
    let facts = layer.facts();
    if facts.content != entries.content_digest() || facts.entries != entries.as_slice().len() as u64 {
        return Err(LayerDamage::WrongEntries);
    }
    if let Some(tree) = layer.fs_path() {
        check_tree(&tree, &entries)?;
    }
    check_tars(store, layer)
}

/// Digests the tar and what is in the compressed forms; one of these, or a tree, must be there if there is content at all.
fn check_tars(store: &Store, layer: &Layer) -> Result<(), LayerDamage> {
    let failed = |source| LayerDamage::Read { path: RootfsPath::root(), source };
    if let Some(path) = layer.tar_path() {
        let tar = std::fs::File::open(path).map_err(failed)?;
        check_diff_id(layer, Hashing::new(tar).finish().map_err(failed)?.0)?;
    }
    let is_whole = layer.fs_path().is_some() || layer.tar_path().is_some();
    let mut has_contents = is_whole || layer.facts().size_bytes == 0;
    for blob in layer.blobs() {
        let Some(digest) = unpacked_digest(store, blob).map_err(failed).transpose() else { continue };
        match digest {
            Ok(digest) => check_diff_id(layer, digest)?,
            // The blob is a finding of its own, and can be made again.
            Err(_) if is_whole && blob.origin != BlobOrigin::Received => {}
            Err(error) => return Err(error),
        }
        has_contents = true;
    }
    if has_contents { Ok(()) } else { Err(LayerDamage::NoContents) }
}

/// The digest of what is in a compressed form; `None` if that is not there.
fn unpacked_digest(store: &Store, blob: &LayerBlob) -> io::Result<Option<Digest>> {
    let Some(file) = store.open_blob(&blob.digest)? else { return Ok(None) };
    let unpacked = VerifyingReader::new(file, blob.digest.clone(), None);
    Hashing::new(compress::unpacked(unpacked, &Limits::STANDARD)?).finish().map(|(digest, _)| Some(digest))
}

fn check_diff_id(layer: &Layer, got: Digest) -> Result<(), LayerDamage> {
    match layer.diff_id() {
        Some(expected) if *expected.digest() != got => {
            Err(LayerDamage::WrongDiffId { expected: expected.clone(), got: DiffId::new(got) })
        }
        _ => Ok(()),
    }
}

/// Compares a tree with its entry list, both ways.
fn check_tree(path: &Path, entries: &Entries) -> Result<(), LayerDamage> {
    let root = RootfsPath::root();
    let tree = Dir::open(path).map_err(|source| LayerDamage::Read { path: root.clone(), source })?;
    let mut inodes = HashMap::new();
    for entry in entries.as_slice() {
        check_entry(&tree, entry, &mut inodes)?;
    }
    check_names(&tree, &root, entries)?;
    let directories = entries.as_slice().iter().filter(|e| e.is_directory() && !e.path.is_root());
    directories.map(|entry| &entry.path).try_for_each(|path| check_names(&tree, path, entries))
}

/// Every name in a directory must have an entry.
fn check_names(tree: &Dir, path: &RootfsPath, entries: &Entries) -> Result<(), LayerDamage> {
    let failed = |source| LayerDamage::Read { path: path.clone(), source };
    let dir = open_dir_below(tree, path).map_err(failed)?;
    let mut names: Vec<CString> = Vec::new();
    let collect = |entry: directory::Entry<'_>| {
        names.push(entry.name.to_owned());
        Ok::<(), io::Error>(())
    };
    directory::for_each_entry(&dir, collect).map_err(failed)?;
    for name in names {
        let below = path.join_name(name.as_bytes()).map_err(|e| failed(io::Error::other(e)))?;
        if entries.find(&below).is_none() {
            return Err(LayerDamage::Unexpected(below));
        }
    }
    Ok(())
}

/// One path of the tree against its entry. `inodes` are those of the files before it, for the hard links to them.
fn check_entry<'e>(
    tree: &Dir,
    entry: &'e Entry,
    inodes: &mut HashMap<&'e RootfsPath, u64>,
) -> Result<(), LayerDamage> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => LayerDamage::Missing(entry.path.clone()),
        _ => LayerDamage::Read { path: entry.path.clone(), source },
    };
    let name = entry.path.file_name().map_or(OsStr::new("."), OsStr::from_bytes);
    let dir = open_dir_below(tree, &entry.path.parent().unwrap_or_default()).map_err(failed)?;
    let status = dir.status_of(name).map_err(failed)?;
    let mut difference = content_difference(&dir, name, entry, &status).map_err(failed)?;
    match &entry.kind {
        Kind::File { .. } => drop(inodes.insert(&entry.path, status.inode)),
        Kind::HardLink { target } if inodes.get(target) != Some(&status.inode) => {
            difference = Some(Difference::Content);
        }
        _ => {}
    }
    if difference.is_none() && !matches!(entry.kind, Kind::Whiteout | Kind::HardLink { .. }) {
        difference = attribute_difference(&dir, name, entry, &status).map_err(failed)?;
    }
    difference.map_or(Ok(()), |what| Err(LayerDamage::Changed { path: entry.path.clone(), what }))
}

/// How kind or content differ.
fn content_difference(
    dir: &Dir,
    name: &OsStr,
    entry: &Entry,
    status: &Status,
) -> io::Result<Option<Difference>> {
    use directory::Kind as Found;
    let is_same = match (&entry.kind, status.kind) {
        (Kind::File { size, digest, .. }, Found::File) => {
            *size == status.size_bytes && *digest == file_digest(dir, name)?
        }
        (Kind::Symlink { target }, Found::Symlink) => **target == *dir.read_link(name)?,
        (Kind::CharDevice { major, minor }, Found::CharDevice { major: a, minor: b })
        | (Kind::BlockDevice { major, minor }, Found::BlockDevice { major: a, minor: b }) => {
            (*major, *minor) == (a, b)
        }
        (Kind::Directory { .. }, Found::Directory)
        | (Kind::HardLink { .. }, Found::File)
        | (Kind::Fifo, Found::Fifo)
        | (Kind::Whiteout, Found::CharDevice { major: 0, minor: 0 }) => true,
        _ => return Ok(Some(Difference::Kind)),
    };
    Ok((!is_same).then_some(Difference::Content))
}

fn file_digest(dir: &Dir, name: &OsStr) -> io::Result<FileDigest> {
    let mut hasher = Hasher::sha256();
    io::copy(&mut dir.open_file(name)?, &mut hasher)?;
    match hasher.finish() {
        Digest::Sha256(bytes) => Ok(FileDigest(bytes)),
        Digest::Sha512(_) => unreachable!("a sha256 hasher makes sha256 digests"),
    }
}

fn attribute_difference(
    dir: &Dir,
    name: &OsStr,
    entry: &Entry,
    status: &Status,
) -> io::Result<Option<Difference>> {
    let is_symlink = matches!(entry.kind, Kind::Symlink { .. });
    if !is_symlink && entry.mode != u32::from(status.mode) {
        return Ok(Some(Difference::Mode));
    }
    if (entry.uid, entry.gid) != (status.uid, status.gid) {
        return Ok(Some(Difference::Owner));
    }
    // Sealing notes a directory's time before it removes sockets from it, so that of a directory proves nothing.
    if !entry.is_directory() && entry.mtime != status.modified {
        return Ok(Some(Difference::Time));
    }
    let (xattrs, is_opaque) = xattrs(dir, name)?;
    let is_same = *entry.xattrs == *xattrs && is_opaque == (entry.kind == Kind::Directory { opaque: true });
    Ok((!is_same).then_some(Difference::Xattrs))
}

/// The xattrs that belong to a layer, and whether overlayfs sees the directory as opaque.
fn xattrs(dir: &Dir, name: &OsStr) -> io::Result<(Vec<Xattr>, bool)> {
    let (mut kept, mut is_opaque) = (Vec::new(), false);
    for attribute in sys::xattr::list_at(dir, name)? {
        let value = sys::xattr::get_at(dir, name, &attribute)?;
        if attribute == OsStr::new(whiteout::OPAQUE_XATTR) {
            is_opaque = value.as_deref() == Some(whiteout::OPAQUE_VALUE);
        } else if let Some(value) = value.filter(|_| !whiteout::is_overlay_xattr(&attribute)) {
            kept.push(Xattr { name: attribute.as_bytes().into(), value: value.into() });
        }
    }
    kept.sort();
    Ok((kept, is_opaque))
}
