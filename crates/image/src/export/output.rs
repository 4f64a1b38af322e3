//! Where output goes: a stream, or a file that appears when it is complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::ExportError;
use crate::Error;

/// Where an export goes.
pub enum Destination<'d> {
    /// A file, which is replaced when all is written. A pipe or device that is there is written to as it is.
    File(PathBuf),
    /// A stream.
    Stream(&'d mut dyn Write),
}

/// Writes an output by `fill`.
pub(crate) fn write<T>(
    destination: Destination<'_>,
    fill: impl FnOnce(&mut dyn Write) -> Result<T, ExportError>,
) -> Result<T, ExportError> {
    let path = match destination {
        Destination::Stream(stream) => return flushed(stream, fill),
        Destination::File(path) => path,
    };
    match fs::metadata(&path) {
        Ok(found) if found.is_dir() => Err(ExportError::InTheWay { path, expected: "a file" }),
        Ok(found) if !found.is_file() => {
            let file = File::options().write(true).open(&path).map_err(Error::at("open", &path))?;
            flushed(&mut BufWriter::new(file), fill)
        }
        _ => {
            let mut temporary = Temporary::file_beside(&path)?;
            let mut writer = BufWriter::with_capacity(1 << 18, &mut temporary.file);
            let value = flushed(&mut writer, fill)?;
            drop(writer);
            temporary.publish(&path)?;
            Ok(value)
        }
    }
}

fn flushed<T>(
    to: &mut dyn Write,
    fill: impl FnOnce(&mut dyn Write) -> Result<T, ExportError>,
) -> Result<T, ExportError> {
    let value = fill(to)?;
    to.flush().map_err(ExportError::Write)?;
    Ok(value)
}

/// A file that goes away unless it is published.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn file_beside(target: &Path) -> Result<Self, Error> {
        let (path, file) = beside(target, |path| File::create_new(path))?;
        Ok(Self { path, file })
    }

    /// Makes it the target, for good.
    fn publish(self, target: &Path) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::at("sync", &self.path))?;
        fs::rename(&self.path, target).map_err(Error::at("write", target))?;
        let parent = parent_of(target);
        sys::durable::sync_directory(parent).map_err(Error::at("sync", parent))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        remove(fs::remove_file(&self.path), &self.path);
    }
}

/// A directory that goes away with all that is in it.
pub(super) struct TemporaryDir {
    path: PathBuf,
}

impl TemporaryDir {
    /// Makes it in `parent`.
    pub(super) fn within(parent: &Path) -> Result<Self, Error> {
        let (path, ()) = beside(&parent.join("output"), |path| fs::create_dir(path))?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        let parent = sys::root::Dir::open(parent_of(&self.path));
        let name = self.path.file_name().unwrap_or_default();
        remove(parent.and_then(|parent| parent.remove_all(name)), &self.path);
    }
}

fn remove(removed: io::Result<()>, path: &Path) {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a temporary output stays");
        }
        _ => {}
    }
}

/// Makes something under a name beside the target that nobody has.
fn beside<T>(target: &Path, make: impl Fn(&Path) -> io::Result<T>) -> Result<(PathBuf, T), Error> {
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for number in 0_u64.. {
        let path = target.with_file_name(format!(".{name}.rbuild-{}-{number}", std::process::id()));
        match make(&path) {
            Ok(made) => return Ok((path, made)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::at("create", path)(error)),
        }
    }
    unreachable!("one of all numbers is free")
}

/// The directory of a file, also of one that is named without any.
pub(super) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub(crate) fn create_parents(path: &Path) -> Result<(), Error> {
    let parent = parent_of(path);
    fs::create_dir_all(parent).map_err(Error::at("create", parent))
}

/// Refuses a directory in which something is.
pub(super) fn check_empty(directory: &Path) -> Result<(), ExportError> {
    let in_the_way =
        || ExportError::InTheWay { path: directory.to_path_buf(), expected: "an OCI layout or empty" };
    match fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(in_the_way()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(in_the_way()),
        Err(error) => Err(Error::at("read", directory)(error).into()),
    }
}
