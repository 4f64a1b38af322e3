//! Resolving below a directory: [`Root`] for paths, [`Dir`] for the names directly in one directory.
//!
//! A path that was checked as text and opened later is the classic hole of this field. Here the kernel resolves every path below a
//! descriptor, with `RESOLVE_IN_ROOT` (openat2(2)): symbolic links, `..` and absolute link targets stay inside, as if the
//! process had called chroot(2). The last component of whatever is created or changed is never followed.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, Uid,
    makedev,
};

use crate::RootfsPath;

/// How often a resolution is repeated that lost a race against a rename (openat2(2), EAGAIN).
const RESOLVE_ATTEMPTS: u32 = 128;

/// A directory below which everything is resolved, and above which nothing can be reached.
#[derive(Debug)]
pub struct Root {
    dir: Dir,
}

/// An open directory: operations on the names directly in it, none of which follows a symbolic link.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
}

/// What `mknod` makes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Node {
    /// A character device; 0, 0 is overlayfs' whiteout.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// The name of a socket nobody listens on.
    Socket,
}

/// Seconds and nanoseconds since the epoch, as inodes keep them. In 12 bytes: whoever keeps a tree of files keeps two for each.
#[repr(Rust, packed(4))]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

impl Time {
    /// That many seconds since 1970.
    #[must_use]
    pub fn whole(seconds: i64) -> Self {
        Self { seconds, nanos: 0 }
    }
}

impl Root {
    /// Opens a directory of the host. The path itself is trusted and followed.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        Dir::open(path).map(|dir| Self { dir })
    }

    /// Makes a root of an open directory.
    #[must_use]
    pub fn from_dir(dir: Dir) -> Self {
        Self { dir }
    }

    /// The root directory itself.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Resolves a path, following links inside the root, to an `O_PATH` descriptor.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ELOOP` and the rest of openat2(2).
    pub fn resolve(&self, path: &RootfsPath) -> io::Result<OwnedFd> {
        self.open_at(path, OFlags::PATH)
    }

    /// Opens a file for reading, following links inside the root. Does not wait for the writer of a fifo.
    ///
    /// # Errors
    /// As [`Root::resolve`].
    pub fn open_file(&self, path: &RootfsPath) -> io::Result<File> {
        self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK).map(File::from)
    }

    /// Opens a directory, following links inside the root.
    ///
    /// # Errors
    /// As [`Root::resolve`].
    pub fn open_dir(&self, path: &RootfsPath) -> io::Result<Dir> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY).map(|fd| Dir { fd })
    }

    /// Opens the directory that holds `path`, following links inside the root, and names the last component. `None` for the root itself.
    ///
    /// # Errors
    /// As [`Root::resolve`].
    pub fn parent_of<'p>(&self, path: &'p RootfsPath) -> io::Result<Option<(Dir, &'p OsStr)>> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        Ok(Some((self.open_dir(&parent)?, OsStr::from_bytes(name))))
    }

    /// Removes whatever is at `path`, a whole tree if need be; the root itself is emptied and removed by the caller. Missing is fine.
    ///
    /// # Errors
    /// The first that is met; what could be removed is gone.
    pub fn remove_all(&self, path: &RootfsPath) -> io::Result<()> {
        match self.parent_of(path) {
            Ok(Some((parent, name))) => parent.remove_all(name),
            Ok(None) => self.dir.clear(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn open_at(&self, path: &RootfsPath, flags: OFlags) -> io::Result<OwnedFd> {
        let mut attempts = 0;
        loop {
            let opened = rustix::fs::openat2(
                &self.dir.fd,
                path.as_relative(),
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            );
            attempts += 1;
            match opened {
                Err(rustix::io::Errno::AGAIN) if attempts < RESOLVE_ATTEMPTS => {}
                other => return Ok(other?),
            }
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.fd.as_fd()
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for Dir {
    /// The descriptor must be of a directory, or every call on it fails with `ENOTDIR`.
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl Dir {
    /// Opens a directory of the host. The path itself is trusted and followed.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::openat(CWD, path, flags, Mode::empty())? })
    }

    /// Opens a directory in this one.
    ///
    /// # Errors
    /// `ELOOP` or `ENOTDIR` for a symbolic link, and the rest of openat(2).
    pub fn open_dir(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::openat(&self.fd, name, flags, Mode::empty())? })
    }

    /// Opens a file for reading. Does not wait for the writer of a fifo.
    ///
    /// # Errors
    /// `ELOOP` for a symbolic link, and the rest of openat(2).
    pub fn open_file(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?))
    }

    /// Creates a file for writing that was not there; mode 0600 until it is set.
    ///
    /// # Errors
    /// `EEXIST`, and the rest of openat(2).
    pub fn create_file(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))?))
    }

    /// Creates a directory, mode 0700 until it is set.
    ///
    /// # Errors
    /// Those of mkdirat(2).
    pub fn create_dir(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o700))?)
    }

    /// Creates a symbolic link.
    ///
    /// # Errors
    /// Those of symlinkat(2).
    pub fn create_symlink(&self, name: &OsStr, target: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(OsStr::from_bytes(target), &self.fd, name)?)
    }

    /// Creates a device, fifo or socket, mode 0600 until it is set.
    ///
    /// # Errors
    /// Those of mknodat(2).
    pub fn create_node(&self, name: &OsStr, node: Node) -> io::Result<()> {
        let (kind, device): (FileType, Dev) = match node {
            Node::CharDevice { major, minor } => (FileType::CharacterDevice, makedev(major, minor)),
            Node::BlockDevice { major, minor } => (FileType::BlockDevice, makedev(major, minor)),
            Node::Fifo => (FileType::Fifo, 0),
            Node::Socket => (FileType::Socket, 0),
        };
        Ok(rustix::fs::mknodat(&self.fd, name, kind, Mode::from_raw_mode(0o600), device)?)
    }

    /// Gives the file `target` of another directory the name `name` here.
    ///
    /// # Errors
    /// Those of linkat(2).
    pub fn create_link(&self, name: &OsStr, target_dir: &Self, target: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::linkat(&target_dir.fd, target, &self.fd, name, AtFlags::empty())?)
    }

    /// Sets the owner of a name. Clears set-uid and set-gid bits, so it comes before [`Dir::set_mode`].
    ///
    /// # Errors
    /// Those of fchownat(2).
    pub fn set_owner(&self, name: &OsStr, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        Ok(rustix::fs::chownat(&self.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets the permission bits (07777) of a name that is not a symbolic link, which has none.
    ///
    /// # Errors
    /// Those of fchmodat(2).
    pub fn set_mode(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::chmodat(&self.fd, name, Mode::from_raw_mode(mode), AtFlags::empty())?)
    }

    /// Sets the modification time of a name, and the access time to the same.
    ///
    /// # Errors
    /// Those of utimensat(2).
    pub fn set_time(&self, name: &OsStr, time: Time) -> io::Result<()> {
        let spec = Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
        let times = Timestamps { last_access: spec, last_modification: spec };
        Ok(rustix::fs::utimensat(&self.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// Those of readlinkat(2).
    pub fn read_link(&self, name: &OsStr) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.fd, name, Vec::new())?.into_bytes())
    }

    /// Whether the name is there, whatever it is.
    ///
    /// # Errors
    /// Those of fstatat(2) other than `ENOENT`.
    pub fn contains(&self, name: &OsStr) -> io::Result<bool> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Renames within the file system, replacing what is there.
    ///
    /// # Errors
    /// Those of renameat2(2).
    pub fn rename(&self, name: &OsStr, to_dir: &Self, to: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(&self.fd, name, &to_dir.fd, to, RenameFlags::empty())?)
    }

    /// Removes a name that is not a directory.
    ///
    /// # Errors
    /// Those of unlinkat(2).
    pub fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    /// Removes a name and everything below it. Missing is fine. Trees deeper than `PATH_MAX` and directories without permissions go too.
    ///
    /// # Errors
    /// The first that is met; what could be removed is gone.
    pub fn remove_all(&self, name: &OsStr) -> io::Result<()> {
        match self.remove_file(name) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {}
            // POSIX allows EPERM for unlinking a directory.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
        self.open_dir(name)?.clear()?;
        Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes everything in this directory. Iterative: the depth of the tree costs descriptors, bounded by [`MAX_OPEN`], not stack.
    ///
    /// # Errors
    /// As [`Dir::remove_all`].
    pub fn clear(&self) -> io::Result<()> {
        let top = Self { fd: rustix::io::fcntl_dupfd_cloexec(&self.fd, 3)? };
        let mut moves = 0_u64;
        let mut levels = vec![Level { names: top.entry_names()?, dir: top, name: OsString::new() }];
        while let Some(level) = levels.last_mut() {
            let Some((name, is_dir)) = level.names.pop() else {
                let done = levels.pop().expect("the loop condition saw it");
                if let Some(above) = levels.last() {
                    rustix::fs::unlinkat(&above.dir.fd, &done.name, AtFlags::REMOVEDIR)?;
                }
                continue;
            };
            if !is_dir {
                level.dir.remove_file(&name)?;
                continue;
            }
            let below = level.dir.open_dir(&name)?;
            if levels.len() < MAX_OPEN {
                levels.push(Level { names: below.entry_names()?, dir: below, name });
            } else {
                moves += 1;
                let moved = flat_name(moves);
                let deep = levels.last().expect("at least the top is there");
                deep.dir.rename(&name, &levels[0].dir, &moved)?;
                levels[0].names.push((moved, true));
            }
        }
        Ok(())
    }

    /// The names in this directory, and whether each is a directory.
    ///
    /// # Errors
    /// Those of getdents64(2).
    fn entry_names(&self) -> io::Result<Vec<(OsString, bool)>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name: CString = entry.file_name().to_owned();
            if matches!(name.as_bytes(), b"." | b"..") {
                continue;
            }
            let name = OsString::from_vec(name.into_bytes());
            let is_dir = match entry.file_type() {
                FileType::Unknown => {
                    let status = rustix::fs::statat(&self.fd, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(status.st_mode) == FileType::Directory
                }
                kind => kind == FileType::Directory,
            };
            names.push((name, is_dir));
        }
        Ok(names)
    }
}

/// Directories held open at once while removing a tree. A deeper directory is moved up to the top and removed from there.
const MAX_OPEN: usize = 256;

/// One directory on the way down.
struct Level {
    dir: Dir,
    /// Its name in the level above.
    name: OsString,
    /// What is still in it.
    names: Vec<(OsString, bool)>,
}

/// A name for a deep directory that was moved to the top: unlike any name that could stand there by itself.
fn flat_name(moves: u64) -> OsString {
    OsString::from(format!(".removing-{}-{moves}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn path(text: &str) -> RootfsPath {
        RootfsPath::parse(text).unwrap()
    }

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        let inside = tempfile::tempdir().unwrap();
        std::fs::create_dir(inside.path().join("usr")).unwrap();
        std::fs::write(inside.path().join("usr/a"), "a").unwrap();
        symlink("/usr", inside.path().join("absolute")).unwrap();
        symlink(outside.path(), inside.path().join("escape")).unwrap();
        symlink("../../../../usr", inside.path().join("climb")).unwrap();
        let root = Root::open(inside.path()).unwrap();
        assert!(root.open_file(&path("absolute/a")).is_ok());
        assert!(root.open_file(&path("climb/a")).is_ok());
        assert_eq!(root.open_file(&path("escape/secret")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(root.dir().open_file(OsStr::new("absolute")).is_err());
    }

    #[test]
    fn a_tree_deeper_than_a_path_and_without_permissions_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::open(base.path()).unwrap();
        let name = OsString::from("d".repeat(100));
        root.dir().create_dir(OsStr::new("deep")).unwrap();
        let mut dir = root.dir().open_dir(OsStr::new("deep")).unwrap();
        for _ in 0..600 {
            dir.create_dir(&name).unwrap();
            dir.create_file(OsStr::new("f")).unwrap();
            dir = dir.open_dir(&name).unwrap();
        }
        std::fs::create_dir(base.path().join("deep/closed")).unwrap();
        std::fs::set_permissions(base.path().join("deep/closed"), std::fs::Permissions::from_mode(0o0))
            .unwrap();
        root.remove_all(&path("deep")).unwrap();
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
        root.remove_all(&path("deep")).unwrap();
    }

    #[test]
    fn removing_a_link_leaves_its_target() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(base.path().join("kept/x")).unwrap();
        symlink("kept", base.path().join("link")).unwrap();
        Root::open(base.path()).unwrap().remove_all(&path("link")).unwrap();
        assert!(base.path().join("kept/x").exists());
    }
}
