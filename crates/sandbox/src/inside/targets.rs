//! Where mounts go: targets resolved below the root, checked, and made only where nothing of them stays.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use sys::directory::{self, Kind};
use sys::root::Dir;
use sys::{Root, RootfsPath, mount};

use super::message::{Failure, errno};

/// The root of the sandbox, and the file systems of ours in it that go away with it.
pub(super) struct Targets {
    root: Root,
    /// Their `st_dev`; missing mount points are made in these only.
    ours: Vec<u64>,
}

impl Targets {
    pub(super) fn new(root: Root) -> Self {
        Self { root, ours: Vec::new() }
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    /// Lets mount points be made in the file system of `mount`.
    pub(super) fn allow_making_in(&mut self, mount: BorrowedFd<'_>) -> io::Result<()> {
        self.ours.push(directory::status(mount)?.device);
        Ok(())
    }

    /// The same for the root, of which nothing is kept.
    pub(super) fn allow_making_in_root(&mut self) -> io::Result<()> {
        self.ours.push(directory::status(self.root.dir())?.device);
        Ok(())
    }

    /// Opens a directory directly below the root that is no link: where `/proc`, `/sys` and `/dev` go, which must not be redirected.
    pub(super) fn own_directory(&self, name: &str) -> Result<Dir, Failure> {
        let target = || name.as_bytes().to_vec();
        let failed = |error: io::Error| Failure::Mount { target: target(), errno: errno(&error) };
        let opened = match self.root.dir().open_dir(OsStr::new(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = RootfsPath::parse(name).map_err(|error| failed(io::Error::other(error)))?;
                self.make(&path, true).map_err(failed)?;
                self.root.dir().open_dir(OsStr::new(name))
            }
            opened => opened,
        };
        opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::MissingTarget { target: target() },
            _ => Failure::TargetKind { target: target() },
        })
    }

    /// Attaches a detached mount at `target`.
    pub(super) fn attach(&self, tree: BorrowedFd<'_>, target: &[u8]) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::Mount { target: target.to_vec(), errno: errno(&error) };
        let path = RootfsPath::parse(target).map_err(|error| failed(io::Error::other(error)))?;
        let is_directory = is_directory(tree).map_err(failed)?;
        let place = match self.root.resolve(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self
                .make(&path, is_directory)
                .map_err(failed)?
                .ok_or_else(|| Failure::MissingTarget { target: target.to_vec() })?,
            other => other.map_err(failed)?,
        };
        if self::is_directory(place.as_fd()).map_err(failed)? != is_directory {
            return Err(Failure::TargetKind { target: target.to_vec() });
        }
        mount::attach(tree, place.as_fd()).map_err(failed)
    }

    /// Makes a mount point and its parents, if that is in a file system of ours.
    fn make(&self, path: &RootfsPath, is_directory: bool) -> io::Result<Option<OwnedFd>> {
        let Some(parent_path) = path.parent() else { return Ok(None) };
        let Some(name) = path.file_name().map(OsStr::from_bytes) else { return Ok(None) };
        let parent = match self.root.open_dir(&parent_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.make(&parent_path, true)? {
                None => return Ok(None),
                Some(_) => self.root.open_dir(&parent_path)?,
            },
            other => other?,
        };
        if !self.ours.contains(&directory::status(&parent)?.device) {
            return Ok(None);
        }
        if is_directory {
            parent.create_dir(name)?;
            parent.set_mode(name, 0o755)?;
        } else {
            parent.create_file(name)?;
        }
        self.root.resolve(path).map(Some)
    }
}

pub(super) fn is_directory(file: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(directory::status(file)?.kind == Kind::Directory)
}
