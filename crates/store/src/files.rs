//! The few ways in which the store touches its files: every one names its path when it fails.
//!
//! All paths here are made by this crate from the store's root and from names it made itself; nothing from outside becomes a
//! file name unescaped. Directories are 0700, files 0600.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use sys::root::Dir;
use walkdir::WalkDir;

use crate::Error;

/// Creates a private directory; `false` if there was one.
pub(crate) fn create_dir(path: &Path) -> Result<bool, Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::at("create", path)(error)),
    }
}

/// Creates a private file that did not exist.
pub(crate) fn create_file(path: &Path) -> Result<File, Error> {
    let open = File::options().read(true).write(true).create_new(true).mode(0o600).open(path);
    open.map_err(Error::at("create", path))
}

/// Opens a lock file, creating it if it is not there.
pub(crate) fn open_lock_file(path: &Path) -> Result<File, Error> {
    let open = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    open.map_err(Error::at("open", path))
}

/// Makes an empty file, or leaves the one that is there.
pub(crate) fn touch(path: &Path) -> Result<(), Error> {
    open_lock_file(path).map(|_: File| ())
}

/// Opens a file for reading; `None` if it is not there.
pub(crate) fn open_if_exists(path: &Path) -> Result<Option<File>, Error> {
    present(File::open(path)).map_err(Error::at("open", path))
}

/// Reads a whole file; `None` if it is not there.
pub(crate) fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    present(fs::read(path)).map_err(Error::at("read", path))
}

/// Whether something is there.
pub(crate) fn exists(path: &Path) -> Result<bool, Error> {
    present(fs::symlink_metadata(path)).map(|found| found.is_some()).map_err(Error::at("look at", path))
}

/// The names in a directory, sorted; none if it is not there.
pub(crate) fn names(dir: &Path) -> Result<Vec<OsString>, Error> {
    let at = || Error::at("list", dir);
    let Some(entries) = present(fs::read_dir(dir)).map_err(at())? else { return Ok(Vec::new()) };
    let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name())).collect();
    let mut names = names.map_err(at())?;
    names.sort_unstable();
    Ok(names)
}

/// Writes a private file that did not exist.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    create_file(path)?.write_all(bytes).map_err(Error::at("write", path))
}

/// Puts `bytes` at `target` in one step, by way of `temporary`, which lies on the same file system in the caller's own area. Not synced:
/// readers must be able to tell a torn file from a whole one.
pub(crate) fn replace(target: &Path, temporary: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_new(temporary, bytes)?;
    // A rename onto a file has ext4 start to write the new one to the disk (ext4(5), "auto_da_alloc"), an exchange of both has not.
    match sys::durable::rename_exchange(temporary, target) {
        Ok(()) => remove_file(temporary).map(|_| ()),
        // There is nothing to exchange with, or the file system cannot.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::InvalidInput | ErrorKind::Unsupported
            ) =>
        {
            rename(temporary, target)
        }
        Err(error) => Err(Error::at("rename to", target)(error)),
    }
}

/// As [`replace`], with the bytes written back before the rename. The name is the caller's to make durable.
pub(crate) fn replace_synced(target: &Path, temporary: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = create_file(temporary)?;
    file.write_all(bytes).map_err(Error::at("write", temporary))?;
    file.sync_all().map_err(Error::at("sync", temporary))?;
    rename(temporary, target)
}

/// Renames, replacing what a plain rename replaces.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(Error::at("rename to", to))
}

/// Renames unless the target exists; `false` then.
pub(crate) fn rename_if_absent(from: &Path, to: &Path) -> Result<bool, Error> {
    match sys::durable::rename_noreplace(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::at("rename to", to)(error)),
    }
}

/// Writes a directory's names back.
pub(crate) fn sync_dir(path: &Path) -> Result<(), Error> {
    sys::durable::sync_directory(path).map_err(Error::at("sync", path))
}

/// Removes a file; `false` if it was not there.
pub(crate) fn remove_file(path: &Path) -> Result<bool, Error> {
    let removed = present(fs::remove_file(path)).map_err(Error::at("remove", path))?;
    Ok(removed.is_some())
}

/// Removes whatever is at `path` with everything below it, however deep and whatever its modes.
pub(crate) fn remove_tree(path: &Path) -> Result<(), Error> {
    let at = || Error::at("remove", path);
    let Some(found) = present(fs::symlink_metadata(path)).map_err(at())? else { return Ok(()) };
    if !found.is_dir() {
        return remove_file(path).map(|_| ());
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    Dir::open(parent).and_then(|parent| parent.remove_all(name)).map_err(at())
}

/// Bytes that a file or a whole tree really takes on the disk; 0 if it is not there.
pub(crate) fn disk_bytes(path: &Path) -> Result<u64, Error> {
    let at = || Error::at("measure", path);
    match present(fs::symlink_metadata(path)).map_err(at())? {
        None => Ok(0),
        Some(found) if !found.is_dir() => Ok(found.blocks() * 512),
        Some(_) => Ok(present(sys::disk_usage::disk_usage(path)).map_err(at())?.unwrap_or(0)),
    }
}

/// "Not there" as an answer instead of an error.
pub(crate) fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The number of entries below a directory, or `None` if it is more than `limit`: counting stops there. A tree that cannot be
/// walked by path counts as larger.
pub(crate) fn count_at_most(limit: usize, directory: &Path) -> Option<usize> {
    let mut count = 0;
    for entry in WalkDir::new(directory).min_depth(1) {
        match entry {
            Ok(_) if count == limit => return None,
            Ok(_) => count += 1,
            Err(error) if error.io_error().is_some_and(|error| error.kind() == ErrorKind::NotFound) => {}
            Err(_) => return None,
        }
    }
    Some(count)
}
