//! From a tree that a step has written to an entry list and DiffID.
//!
//! Only the tree is read, never the filesystem it lies on; what a copied-up directory changed is told by comparing it with the merged
//! view of the layers below. Sealing also cleans the tree, so that it can be mounted below others: overlayfs' bookkeeping, sockets and
//! whiteouts of nothing go.

use std::collections::HashMap;
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use sys::RootfsPath;
use sys::directory::{self, Status};
use sys::root::Dir;

use crate::entries::{Entry, FileDigest, Kind, Xattr};
use crate::merged::Merged;
use crate::pack::{Contents, FileDigests, Form, PackError, Packed, pack};
use crate::whiteout;

/// Why a tree could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Something of it could not be read or cleaned.
    #[error("cannot read `{path}` of the layer that a step wrote")]
    Read {
        /// In the rootfs.
        path: RootfsPath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file named like a whiteout: in a layer's tar it would hide another file instead of being one (OCI image spec, "Whiteouts").
    #[error("`{0}` cannot be part of a layer: names that begin with `.wh.` mean a removed file there")]
    ReservedName(RootfsPath),
    /// A path that is longer than a layer may hold.
    #[error(transparent)]
    Path(#[from] sys::PathError),
    /// Its contents could not be read.
    #[error(transparent)]
    Pack(#[from] PackError),
}

/// Seals the tree `tree` that was written over the layers `lower`.
///
/// # Errors
/// [`SealError`].
pub fn seal(
    tree: &Dir,
    lower: &Merged,
    threads: usize,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Packed, SealError> {
    let list = list(tree, lower)?;
    Ok(pack(list, &TreeContents { tree }, FileDigests::Compute, Form::DiffIdOnly, threads, cancelled)?)
}

/// Reads file contents from a tree.
#[derive(Clone, Copy, Debug)]
pub struct TreeContents<'d> {
    /// Where the tree is.
    pub tree: &'d Dir,
}

impl Contents for TreeContents<'_> {
    fn open(&self, _: usize, entry: &Entry) -> io::Result<Box<dyn Read + '_>> {
        directory::open_file_below(self.tree, &entry.path).map(|file| Box::new(file) as Box<dyn Read>)
    }
}

/// Lists and cleans a tree; file digests are still missing. Sorted by path.
///
/// # Errors
/// [`SealError`].
pub fn list(tree: &Dir, lower: &Merged) -> Result<Vec<Entry>, SealError> {
    let mut walk = Walk { tree, lower, list: Vec::new(), links: HashMap::new() };
    let root = RootfsPath::root();
    let failed = |source| SealError::Read { path: root.clone(), source };
    let status = directory::status(tree).map_err(failed)?;
    walk.add_directory(tree, OsStr::new("."), &root, &status)?;
    let mut pending = vec![root];
    while let Some(path) = pending.pop() {
        walk.directory(&path, &mut pending)?;
    }
    let mut list = walk.list;
    list.sort_by(|a, b| a.path.cmp(&b.path));
    name_hard_links(&mut list, &walk.links);
    Ok(list)
}

struct Walk<'w> {
    tree: &'w Dir,
    lower: &'w Merged,
    list: Vec<Entry>,
    /// Files with several names: their inode by path.
    links: HashMap<RootfsPath, u64>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &RootfsPath, pending: &mut Vec<RootfsPath>) -> Result<(), SealError> {
        let failed = |source| SealError::Read { path: path.clone(), source };
        let dir = directory::open_dir_below(self.tree, path).map_err(failed)?;
        let mut names: Vec<CString> = Vec::new();
        let collect = |entry: directory::Entry<'_>| {
            names.push(entry.name.to_owned());
            Ok::<(), io::Error>(())
        };
        directory::for_each_entry(&dir, collect).map_err(failed)?;
        for name in names {
            let status = directory::status_at(&dir, &name).map_err(failed)?;
            let name = OsString::from_vec(name.into_bytes());
            let below = path.join_name(name.as_bytes())?;
            if name.as_bytes().starts_with(whiteout::PREFIX) {
                return Err(SealError::ReservedName(below));
            }
            if status.kind == directory::Kind::Directory {
                self.add_directory(&dir, &name, &below, &status)?;
                pending.push(below);
            } else {
                self.add_other(&dir, &name, below, &status)?;
            }
        }
        Ok(())
    }

    fn add_directory(
        &mut self,
        dir: &Dir,
        name: &OsStr,
        path: &RootfsPath,
        status: &Status,
    ) -> Result<(), SealError> {
        let (xattrs, is_opaque) =
            clean_xattrs(dir, name).map_err(|source| SealError::Read { path: path.clone(), source })?;
        let below = if path.is_root() {
            Some(self.lower.root_entry())
        } else {
            self.lower.lookup(path).map(|f| f.entry.clone())
        };
        let below = below.filter(Entry::is_directory);
        // Opaque over nothing is what every new directory is. The mark goes, so that the tree says what the entry list says.
        let opaque = is_opaque && below.is_some();
        if is_opaque && !opaque {
            sys::xattr::remove_at(dir, name, OsStr::new(whiteout::OPAQUE_XATTR))
                .map_err(|source| SealError::Read { path: path.clone(), source })?;
        }
        let mut entry = entry(path.clone(), Kind::Directory { opaque }, status, xattrs);
        entry.implied = !opaque
            && below.is_some_and(|below| below.has_attributes_of(&entry) && below.mtime == entry.mtime);
        self.list.push(entry);
        Ok(())
    }

    fn add_other(
        &mut self,
        dir: &Dir,
        name: &OsStr,
        path: RootfsPath,
        status: &Status,
    ) -> Result<(), SealError> {
        let failed = |source| SealError::Read { path: path.clone(), source };
        let kind = match status.kind {
            directory::Kind::CharDevice { major: 0, minor: 0 } => {
                if self.lower.lookup(&path).is_some() {
                    self.list.push(Entry::whiteout(path));
                    return Ok(());
                }
                return remove_unseen(dir, name).map_err(failed);
            }
            // A socket is nothing without the process that listens; tar has no word for it.
            directory::Kind::Socket => return remove_unseen(dir, name).map_err(failed),
            directory::Kind::File => {
                Kind::File { size: status.size_bytes, digest: FileDigest([0; 32]), member: 0 }
            }
            directory::Kind::Symlink => Kind::Symlink { target: dir.read_link(name).map_err(failed)?.into() },
            directory::Kind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
            directory::Kind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
            directory::Kind::Fifo => Kind::Fifo,
            directory::Kind::Directory => return Ok(()),
        };
        let (xattrs, _) = clean_xattrs(dir, name).map_err(failed)?;
        if status.links > 1 && matches!(kind, Kind::File { .. }) {
            self.links.insert(path.clone(), status.inode);
        }
        self.list.push(entry(path, kind, status, xattrs));
        Ok(())
    }
}

/// Removes a name without changing its directory's time, which is listed already.
fn remove_unseen(dir: &Dir, name: &OsStr) -> io::Result<()> {
    let modified = directory::status(dir)?.modified;
    dir.remove_file(name)?;
    dir.set_time(OsStr::new("."), modified)
}

fn entry(path: RootfsPath, kind: Kind, status: &Status, xattrs: Box<[Xattr]>) -> Entry {
    // The kernel says 0777 of every symbolic link.
    let mode = status.mode.into();
    Entry {
        path,
        kind,
        mode,
        uid: status.uid,
        gid: status.gid,
        mtime: status.modified,
        xattrs,
        implied: false,
    }
}

/// The xattrs that belong to a layer, and whether overlayfs made the directory opaque. Removes overlayfs' other marks.
fn clean_xattrs(dir: &Dir, name: &OsStr) -> io::Result<(Box<[Xattr]>, bool)> {
    let mut kept = Vec::new();
    let mut is_opaque = false;
    for attribute in sys::xattr::list_at(dir, name)? {
        if attribute == OsStr::new(whiteout::OPAQUE_XATTR) {
            is_opaque = sys::xattr::get_at(dir, name, &attribute)?.as_deref() == Some(whiteout::OPAQUE_VALUE);
        } else if whiteout::is_overlay_xattr(&attribute) {
            sys::xattr::remove_at(dir, name, &attribute)?;
        } else if let Some(value) = sys::xattr::get_at(dir, name, &attribute)? {
            kept.push(Xattr { name: attribute.into_vec().into(), value: value.into() });
        }
    }
    kept.sort();
    Ok((kept.into(), is_opaque))
}

/// Of the names of one file the first stays the file, the others become links to it.
fn name_hard_links(list: &mut [Entry], links: &HashMap<RootfsPath, u64>) {
    let mut first: HashMap<u64, RootfsPath> = HashMap::new();
    for entry in list.iter_mut() {
        let Some(inode) = links.get(&entry.path) else { continue };
        match first.get(inode) {
            Some(target) => entry.kind = Kind::HardLink { target: target.clone() },
            None => drop(first.insert(*inode, entry.path.clone())),
        }
    }
}
