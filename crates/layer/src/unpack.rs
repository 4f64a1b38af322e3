//! From an entry list to a tree in overlayfs form.
//!
//! A tree is written below one directory descriptor, by entries whose paths hold no link: where a tar's path went through one, [`crate::foreign`] has
//! resolved it already. Nothing that exists is opened for writing; attributes of directories come last, when nothing is written in them any more.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use sys::RootfsPath;
use sys::directory::open_dir_below;
use sys::root::{Dir, Node};

use crate::entries::{Entries, Entry, Kind};
use crate::tar_read::{Members, TarError};
use crate::{Limits, whiteout};

/// A tree could not be written; what there is of it is to be thrown away.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{path}` of a layer")]
pub struct TreeError {
    /// In the layer.
    pub path: RootfsPath,
    /// What was to be done.
    pub action: &'static str,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl TreeError {
    pub(crate) fn new(path: &RootfsPath, action: &'static str, source: io::Error) -> Self {
        Self { path: path.clone(), action, source }
    }
}

/// Why a tar could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The stream broke.
    #[error("cannot read the layer's tar")]
    Read(#[from] io::Error),
    /// The stream is no tar.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The tar is not the one its entry list was made from.
    #[error("the layer's tar does not hold the content of `{0}`")]
    Missing(RootfsPath),
    /// Writing failed.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Unpacks an uncompressed tar, whose entry list has been read, into an empty directory.
///
/// # Errors
/// [`UnpackError`]; the directory's content is then to be thrown away.
pub fn unpack(tar: impl Read, entries: &Entries, into: &Dir) -> Result<(), UnpackError> {
    let mut tree = TreeWriter::new(into);
    let mut files: BTreeMap<u32, &Entry> = BTreeMap::new();
    for entry in entries.as_slice() {
        match entry.kind {
            Kind::File { member, .. } => drop(files.insert(member, entry)),
            Kind::HardLink { .. } => {}
            _ => {
                tree.create(entry)?;
                tree.finish_entry(entry, None)?;
            }
        }
    }
    unpack_files(tar, files, &mut tree)?;
    for entry in entries.as_slice().iter().filter(|entry| matches!(entry.kind, Kind::HardLink { .. })) {
        tree.create(entry)?;
    }
    tree.finish(entries.as_slice())?;
    Ok(())
}

fn unpack_files(
    tar: impl Read,
    mut files: BTreeMap<u32, &Entry>,
    tree: &mut TreeWriter<'_>,
) -> Result<(), UnpackError> {
    let mut members = Members::new(tar, &Limits::STANDARD);
    for number in 0.. {
        let Some(_) = members.next_member()? else { break };
        let Some(entry) = files.remove(&number) else { continue };
        let mut file = tree.create(entry)?.ok_or_else(|| UnpackError::Missing(entry.path.clone()))?;
        let copied = io::copy(&mut members.content(), &mut file)?;
        if copied != entry.size() {
            return Err(UnpackError::Missing(entry.path.clone()));
        }
        tree.finish_entry(entry, Some(file))?;
    }
    files.into_values().next().map_or(Ok(()), |entry| Err(UnpackError::Missing(entry.path.clone())))
}

/// Writes entries below a directory; parents come before what is in them.
#[derive(Debug)]
pub struct TreeWriter<'d> {
    root: &'d Dir,
    /// The directory that was written in last, as most entries share it with their neighbour.
    last: Option<(RootfsPath, Dir)>,
}

impl<'d> TreeWriter<'d> {
    /// Writes below `root`.
    #[must_use]
    pub fn new(root: &'d Dir) -> Self {
        Self { root, last: None }
    }

    /// Creates what an entry says, without its attributes; a regular file is given back open and empty.
    ///
    /// # Errors
    /// [`TreeError`], also if the path is taken.
    pub fn create(&mut self, entry: &Entry) -> Result<Option<File>, TreeError> {
        let Some(name) = entry.path.file_name().map(OsStr::from_bytes) else { return Ok(None) };
        let failed = |source| TreeError::new(&entry.path, "create", source);
        if let Kind::HardLink { target } = &entry.kind {
            return self.link(&entry.path, name, target).map(|()| None);
        }
        let dir = self.parent(&entry.path).map_err(failed)?;
        match &entry.kind {
            Kind::File { .. } => return dir.create_file(name).map(Some).map_err(failed),
            Kind::Directory { .. } => dir.create_dir(name),
            Kind::Symlink { target } => dir.create_symlink(name, target),
            Kind::CharDevice { major, minor } => {
                dir.create_node(name, Node::CharDevice { major: *major, minor: *minor })
            }
            Kind::BlockDevice { major, minor } => {
                dir.create_node(name, Node::BlockDevice { major: *major, minor: *minor })
            }
            Kind::Fifo => dir.create_node(name, Node::Fifo),
            Kind::Whiteout => dir.create_node(name, whiteout::NODE),
            Kind::HardLink { .. } => Ok(()),
        }
        .map_err(failed)?;
        Ok(None)
    }

    /// Sets the attributes of anything but a directory, and closes the file.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn finish_entry(&mut self, entry: &Entry, file: Option<File>) -> Result<(), TreeError> {
        drop(file);
        let has_none = matches!(entry.kind, Kind::Directory { .. } | Kind::HardLink { .. } | Kind::Whiteout);
        match entry.path.file_name() {
            Some(name) if !has_none => {
                let dir = self.parent(&entry.path).map_err(|e| TreeError::new(&entry.path, "open", e))?;
                set_attributes(dir, OsStr::from_bytes(name), entry)
            }
            _ => Ok(()),
        }
    }

    /// Sets the attributes of directories, the deepest first, so that no later write changes their times.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn finish(mut self, list: &[Entry]) -> Result<(), TreeError> {
        for entry in list.iter().rev().filter(|entry| entry.is_directory()) {
            match entry.path.file_name() {
                None => set_attributes(self.root, OsStr::new("."), entry)?,
                Some(name) => {
                    let dir = self.parent(&entry.path).map_err(|e| TreeError::new(&entry.path, "open", e))?;
                    set_attributes(dir, OsStr::from_bytes(name), entry)?;
                }
            }
        }
        Ok(())
    }

    fn parent(&mut self, path: &RootfsPath) -> io::Result<&Dir> {
        let parent = path.parent().unwrap_or_default();
        if parent.is_root() {
            return Ok(self.root);
        }
        if self.last.as_ref().is_none_or(|(at, _)| *at != parent) {
            let dir = open_dir_below(self.root, &parent)?;
            self.last = Some((parent, dir));
        }
        Ok(self.last.as_ref().map_or(self.root, |(_, dir)| dir))
    }

    fn link(&self, path: &RootfsPath, name: &OsStr, target: &RootfsPath) -> Result<(), TreeError> {
        let failed = |source| TreeError::new(path, "link", source);
        let open = |of: &RootfsPath| open_dir_below(self.root, &of.parent().unwrap_or_default());
        let target_name = OsStr::from_bytes(target.file_name().unwrap_or_default());
        let target_dir = open(target).map_err(failed)?;
        open(path).and_then(|dir| dir.create_link(name, &target_dir, target_name)).map_err(failed)
    }
}

/// Gives a name its entry's attributes, in the order the kernel needs.
fn set_attributes(dir: &Dir, name: &OsStr, entry: &Entry) -> Result<(), TreeError> {
    let failed = |action| move |source| TreeError::new(&entry.path, action, source);
    // chown before chmod: the kernel clears setuid and setgid bits when the owner changes. It also drops file capabilities, which are
    // an xattr.
    dir.set_owner(name, entry.uid, entry.gid).map_err(failed("set the owner of"))?;
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        dir.set_mode(name, entry.mode).map_err(failed("set the mode of"))?;
    }
    for xattr in &entry.xattrs {
        let attribute = OsStr::from_bytes(&xattr.name);
        sys::xattr::set_at(dir, name, attribute, &xattr.value).map_err(failed("set an xattr of"))?;
    }
    if entry.kind == (Kind::Directory { opaque: true }) {
        let attribute = OsStr::new(whiteout::OPAQUE_XATTR);
        sys::xattr::set_at(dir, name, attribute, whiteout::OPAQUE_VALUE).map_err(failed("make opaque"))?;
    }
    dir.set_time(name, entry.mtime).map_err(failed("set the time of"))
}
