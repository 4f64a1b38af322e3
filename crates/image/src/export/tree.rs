//! The files of an image as a plain directory: owners, modes, times, xattrs, hard links and devices as they are in it.
//!
//! Everything is written into a directory of its own first. If the target is new, that directory becomes the target; if there is one already, the
//! files move into it one by one, each replacing what had its name, and what else is there stays. No link that is there is followed.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use layer::Entry;
use layer::pack::{Form, PackError};
use layer::unpack::TreeWriter;
use oci::LayerId;
use sys::RootfsPath;
use sys::directory::{self, open_dir_below};
use sys::root::{Dir, Time};

use super::output::{TemporaryDir, create_parents, parent_of};
use super::{ExportError, Layers, Part};
use crate::Error;
use crate::flat::Flat;

/// Writes the files of a list of layers into a directory, which need not exist. Owners and devices need root. With `modified`, all say
/// that they were last modified then.
///
/// # Errors
/// [`ExportError`]. A new directory is then not there; of one that was there, files may have been replaced, but none is half-written.
pub fn rootfs_tree(
    layers: &Layers<'_>,
    ids: &[LayerId],
    modified: Option<Time>,
    target: &Path,
) -> Result<(), ExportError> {
    write_at(layers, &Flat::of(layers, ids, modified)?, target, Others::Kept)
}

/// Writes files into a directory, as [`rootfs_tree`], which holds nothing else then. Others go when all that is to be there is written, and before
/// it moves to its place.
///
/// # Errors
/// As [`rootfs_tree`]; of others, some may be gone.
pub fn rootfs_mirror(
    layers: &Layers<'_>,
    parts: &[Part],
    modified: Option<Time>,
    target: &Path,
) -> Result<(), ExportError> {
    write_at(layers, &Flat::of_parts(layers, parts, modified)?, target, Others::Removed)
}

/// Writes what is at a path of a list of layers into a directory, as [`rootfs_tree`]: a file by its name, of a directory all that is in it. Says
/// whether there is anything.
///
/// # Errors
/// As [`rootfs_tree`].
pub fn rootfs_part(
    layers: &Layers<'_>,
    ids: &[LayerId],
    path: &RootfsPath,
    target: &Path,
) -> Result<bool, ExportError> {
    let Some(flat) = Flat::part(layers, ids, path)? else { return Ok(false) };
    write_at(layers, &flat, target, Others::Kept)?;
    Ok(true)
}

/// What becomes of files that are there and not among those that are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Others {
    Kept,
    Removed,
}

fn write_at(layers: &Layers<'_>, flat: &Flat, target: &Path, others: Others) -> Result<(), ExportError> {
    match fs::metadata(target) {
        Ok(found) if found.is_dir() => {
            let temporary = TemporaryDir::within(target)?;
            write(layers, flat, temporary.path())?;
            if others == Others::Removed {
                remove_others(layers, flat, temporary.path(), target)?;
            }
            merge(flat, temporary.path(), target)
        }
        Ok(_) => Err(ExportError::InTheWay { path: target.to_path_buf(), expected: "a directory" }),
        Err(_) => {
            create_parents(target)?;
            let temporary = TemporaryDir::within(parent_of(target))?;
            write(layers, flat, temporary.path())?;
            fs::rename(temporary.path(), target).map_err(Error::at("write", target))?;
            Ok(())
        }
    }
}

fn write(layers: &Layers<'_>, flat: &Flat, into: &Path) -> Result<(), ExportError> {
    let dir = Dir::open(into).map_err(Error::at("open", into))?;
    match flat.pack(Form::Tree(&dir), layers.cancelled()) {
        Ok(_) => Ok(()),
        Err(PackError::Cancelled) => Err(Error::Cancelled.into()),
        Err(PackError::Tree(error)) => Err(error.into()),
        Err(error) => Err(ExportError::Pack(error)),
    }
}

/// Removes what is not among the files, or is of another kind, but for what is to be moved in. No link is followed.
fn remove_others(layers: &Layers<'_>, flat: &Flat, from: &Path, target: &Path) -> Result<(), ExportError> {
    let kept: HashMap<&RootfsPath, bool> =
        flat.list.iter().map(|entry| (&entry.path, entry.is_directory())).collect();
    let failed = |error| Error::at("clear", target)(error);
    let from = from.file_name().unwrap_or_default();
    let top = Dir::open(target).map_err(failed)?;
    let mut open = vec![(top, RootfsPath::root())];
    while let Some((directory, path)) = open.pop() {
        for name in names(&directory).map_err(failed)? {
            if layers.is_cancelled() {
                return Err(Error::Cancelled.into());
            }
            if path.is_root() && name == from {
                continue;
            }
            let path = path.join_name(name.as_bytes())?;
            let found = directory.status_of(&name).map_err(failed)?;
            match (kept.get(&path), found.kind == directory::Kind::Directory) {
                (Some(true), true) => open.push((directory.open_dir(&name).map_err(failed)?, path)),
                (Some(false), false) => {}
                _ => directory.remove_all(&name).map_err(failed)?,
            }
        }
    }
    Ok(())
}

fn names(directory: &Dir) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    directory::for_each_entry(directory, |entry| {
        names.push(OsStr::from_bytes(entry.name.to_bytes()).to_owned());
        Ok::<(), io::Error>(())
    })?;
    Ok(names)
}

/// Moves everything from one directory into another.
fn merge(flat: &Flat, from: &Path, target: &Path) -> Result<(), ExportError> {
    let open = |path: &Path| Dir::open(path).map_err(Error::at("open", path));
    let (from, to) = (open(from)?, open(target)?);
    // The directory that is there is the user's, and so are its own attributes.
    let below: Vec<Entry> = flat.list.iter().filter(|entry| !entry.path.is_root()).cloned().collect();
    let mut parents: Option<(RootfsPath, Dir, Dir)> = None;
    for entry in &below {
        let at = target.join(entry.path.as_relative());
        let failed = |error| Error::at("write", &at)(error);
        let parent = entry.path.parent().unwrap_or_default();
        if parents.as_ref().is_none_or(|(open, ..)| *open != parent) {
            let pair = (open_dir_below(&from, &parent), open_dir_below(&to, &parent));
            parents = Some((parent, pair.0.map_err(failed)?, pair.1.map_err(failed)?));
        }
        if let Some((_, from, to)) = &parents {
            place(entry, from, to).map_err(failed)?;
        }
    }
    Ok(TreeWriter::new(&to).finish(&below)?)
}

fn place(entry: &Entry, from: &Dir, to: &Dir) -> std::io::Result<()> {
    let name = OsStr::from_bytes(entry.path.file_name().unwrap_or_default());
    if !entry.is_directory() {
        return from.rename(name, to, name);
    }
    match to.status_of(name) {
        Ok(found) if found.kind == directory::Kind::Directory => Ok(()),
        Ok(_) => to.remove_file(name).and_then(|()| to.create_dir(name)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => to.create_dir(name),
        Err(error) => Err(error),
    }
}
