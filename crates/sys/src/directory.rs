//! Reading many directories cheaply: raw getdents64(2) and statx(2) by descriptor.
//!
//! A walk of a large tree is two costs, names and inodes. Names come in blocks of [`BUFFER_BYTES`] without an allocation each,
//! inodes are asked for relative to their open directory, so that the kernel resolves one component per file. Directories
//! further down are opened by their path below the top (`openat2(2)` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`): no
//! descriptor has to stay open on the way, and a component exchanged for a link while we read is an error, not a way out.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxAttributes, StatxFlags, StatxTimestamp,
};

use crate::RootfsPath;
use crate::root::{Dir, Time};

/// Size of the block that names are read into; about 800 names of 16 bytes.
pub const BUFFER_BYTES: usize = 32 * 1024;

/// What an inode is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
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
    /// A socket.
    Socket,
}

/// An inode's attributes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Status {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-uid, set-gid and sticky (07777).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names this inode has.
    pub links: u32,
    /// The file system it is on, as st_dev.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Length in bytes; of a symbolic link, that of its target.
    pub size_bytes: u64,
    /// When its content changed last, or what utimensat(2) set.
    pub modified: Time,
    /// When anything about it changed last. Nobody can set it.
    pub changed: Time,
    /// Whether another file system, or another part of one, is mounted here.
    pub is_mount_root: bool,
}

/// One name in a directory.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The name, never `.` or `..`.
    pub name: &'a CStr,
    /// Whether it is a directory; `None` where the file system does not say.
    pub is_directory: Option<bool>,
}

/// Calls `each` with every name of an open directory, in the file system's order.
///
/// # Errors
/// Those of getdents64(2), and the first that `each` returns.
pub fn for_each_entry<E: From<io::Error>>(
    directory: impl AsFd,
    mut each: impl FnMut(Entry<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(io::Error::from)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let is_directory = match entry.file_type() {
            FileType::Unknown => None,
            kind => Some(kind == FileType::Directory),
        };
        each(Entry { name, is_directory })?;
    }
    Ok(())
}

/// Attributes of an open file, also one opened with `O_PATH`.
///
/// # Errors
/// Those of statx(2).
pub fn status(file: impl AsFd) -> io::Result<Status> {
    ask(file, c"", AtFlags::EMPTY_PATH)
}

/// Attributes of a name in an open directory; a symbolic link's own.
///
/// # Errors
/// Those of statx(2).
pub fn status_at(directory: impl AsFd, name: &CStr) -> io::Result<Status> {
    ask(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Attributes of the path below an open directory. No component is followed: of a symbolic link at the end it is its own.
///
/// # Errors
/// `ELOOP` if a component before the last is a symbolic link, and the rest of openat2(2) and statx(2).
pub fn status_below(directory: impl AsFd, path: &RootfsPath) -> io::Result<Status> {
    status(open_below(directory, path, OFlags::PATH | OFlags::NOFOLLOW)?)
}

/// The target of a symbolic link below an open directory.
///
/// # Errors
/// As [`status_below`], and `EINVAL` if it is no symbolic link.
pub fn read_link_below(directory: impl AsFd, path: &RootfsPath) -> io::Result<Vec<u8>> {
    let link = open_below(directory, path, OFlags::PATH | OFlags::NOFOLLOW)?;
    Ok(rustix::fs::readlinkat(link, c"", Vec::new())?.into_bytes())
}

/// Opens a directory below an open one, following no symbolic link.
///
/// # Errors
/// `ELOOP` or `ENOTDIR` for a symbolic link, and the rest of openat2(2).
pub fn open_dir_below(directory: impl AsFd, path: &RootfsPath) -> io::Result<Dir> {
    open_below(directory, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW).map(Dir::from)
}

/// Opens a file below an open directory for reading, following no symbolic link. Does not wait for the writer of a fifo.
///
/// # Errors
/// `ELOOP` for a symbolic link, and the rest of openat2(2).
pub fn open_file_below(directory: impl AsFd, path: &RootfsPath) -> io::Result<File> {
    open_below(directory, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY)
        .map(File::from)
}

/// Whether an error of the `*_below` functions says that nothing can be reached by this path: it does not exist, or a component before the
/// last is no directory or is a symbolic link.
#[must_use]
pub fn is_absence(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

/// What this directory's file system stamps inodes with now: the times of a new unnamed file. `None` where there are no unnamed files.
///
/// # Errors
/// Those of openat(2) and statx(2).
pub fn file_system_time(directory: &Dir) -> io::Result<Option<Time>> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, c".", flags, Mode::from_raw_mode(0o600)) {
        Ok(file) => Ok(Some(status(file)?.changed)),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether this kernel itself stamps the inodes of the file system that holds this file, from its own real-time clock: so do the
/// usual disk and memory file systems; of network and user-space ones it is not known.
///
/// # Errors
/// Those of fstatfs(2).
pub fn is_stamped_by_this_kernel(file: impl AsFd) -> io::Result<bool> {
    // f_type of statfs(2): ext2 to ext4, XFS, btrfs, tmpfs, ramfs, overlayfs, F2FS, ZFS, bcachefs.
    const STAMPED_HERE: [u32; 9] = [
        0xEF53,
        0x5846_5342,
        0x9123_683E,
        0x0102_1994,
        0x8584_58F6,
        0x794C_7630,
        0xF2F5_2010,
        0x2FC1_2FC1,
        0xCA45_1A4E,
    ];
    let kind = rustix::fs::fstatfs(file)?.f_type;
    // The field is signed and of the machine's word length; the numbers are all of 32 bits.
    Ok(STAMPED_HERE.iter().any(|&known| kind as u64 & 0xFFFF_FFFF == u64::from(known)))
}

fn open_below(directory: impl AsFd, path: &RootfsPath, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // With O_PATH and O_NOFOLLOW a link at the end may be opened itself; RESOLVE_NO_SYMLINKS allows exactly that.
    Ok(rustix::fs::openat2(directory, path.as_relative(), flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

fn ask(directory: impl AsFd, name: &CStr, flags: AtFlags) -> io::Result<Status> {
    let wanted = StatxFlags::BASIC_STATS.difference(StatxFlags::ATIME | StatxFlags::BLOCKS);
    let got = rustix::fs::statx(directory, name, flags, wanted)?;
    Ok(Status {
        kind: kind_of(&got)?,
        mode: got.stx_mode & 0o7777,
        uid: got.stx_uid,
        gid: got.stx_gid,
        links: got.stx_nlink,
        device: rustix::fs::makedev(got.stx_dev_major, got.stx_dev_minor),
        inode: got.stx_ino,
        size_bytes: got.stx_size,
        modified: time_of(got.stx_mtime),
        changed: time_of(got.stx_ctime),
        is_mount_root: got.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
    })
}

fn time_of(stamp: StatxTimestamp) -> Time {
    Time { seconds: stamp.tv_sec, nanos: stamp.tv_nsec }
}

fn kind_of(got: &Statx) -> io::Result<Kind> {
    let (major, minor) = (got.stx_rdev_major, got.stx_rdev_minor);
    Ok(match FileType::from_raw_mode(got.stx_mode.into()) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharDevice { major, minor },
        FileType::BlockDevice => Kind::BlockDevice { major, minor },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => return Err(io::Error::from(io::ErrorKind::InvalidData)),
    })
}

impl Dir {
    /// Attributes of a name in this directory; a symbolic link's own.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn status_of(&self, name: &OsStr) -> io::Result<Status> {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::CString::new(name.as_bytes())?;
        status_at(self, &name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn path(text: &str) -> RootfsPath {
        RootfsPath::parse(text).unwrap()
    }

    #[test]
    fn more_names_than_one_block_holds_are_all_given() {
        let base = tempfile::tempdir().unwrap();
        for at in 0..2000 {
            fs::write(base.path().join(format!("a-name-of-some-length-{at}")), "").unwrap();
        }
        fs::create_dir(base.path().join("directory")).unwrap();
        let mut names = Vec::new();
        for_each_entry(Dir::open(base.path()).unwrap(), |entry| {
            names.push((entry.name.to_str().unwrap().to_owned(), entry.is_directory));
            Ok::<(), io::Error>(())
        })
        .unwrap();
        assert_eq!(names.len(), 2001);
        assert!(names.contains(&("directory".into(), Some(true))));
        assert!(names.contains(&("a-name-of-some-length-1999".into(), Some(false))));
    }

    #[test]
    fn a_status_is_what_stat_says() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("file"), "hello").unwrap();
        let expected = fs::metadata(base.path().join("file")).unwrap();
        let got = status_at(Dir::open(base.path()).unwrap(), c"file").unwrap();
        assert_eq!((got.kind, got.size_bytes, got.links), (Kind::File, 5, 1));
        assert_eq!((got.inode, got.device), (expected.ino(), expected.dev()));
        assert_eq!(
            (got.modified.seconds, i64::from(got.modified.nanos)),
            (expected.mtime(), expected.mtime_nsec())
        );
        assert_eq!(
            (got.changed.seconds, i64::from(got.changed.nanos)),
            (expected.ctime(), expected.ctime_nsec())
        );
        assert_eq!(u32::from(got.mode), expected.mode() & 0o7777);
    }

    #[test]
    fn links_are_seen_and_never_followed() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("real")).unwrap();
        fs::write(base.path().join("real/file"), "x").unwrap();
        symlink("real", base.path().join("link")).unwrap();
        let dir = Dir::open(base.path()).unwrap();
        assert_eq!(status_below(&dir, &path("link")).unwrap().kind, Kind::Symlink);
        assert_eq!(read_link_below(&dir, &path("link")).unwrap(), b"real");
        assert!(is_absence(&status_below(&dir, &path("link/file")).unwrap_err()));
        assert!(is_absence(&status_below(&dir, &path("real/file/below")).unwrap_err()));
        assert!(is_absence(&status_below(&dir, &path("nothing")).unwrap_err()));
        assert!(open_dir_below(&dir, &path("link")).is_err());
        assert!(open_file_below(&dir, &path("link/file")).is_err());
        assert!(open_file_below(&dir, &path("real/file")).is_ok());
        assert_eq!(status_below(&dir, &RootfsPath::root()).unwrap().kind, Kind::Directory);
    }

    #[test]
    fn the_file_systems_time_is_not_before_what_it_stamped_last() {
        let base = tempfile::tempdir().unwrap();
        let dir = Dir::open(base.path()).unwrap();
        fs::write(base.path().join("file"), "x").unwrap();
        let stamped = status_at(&dir, c"file").unwrap().changed;
        assert!(is_stamped_by_this_kernel(&dir).unwrap());
        if let Some(now) = file_system_time(&dir).unwrap() {
            assert!(now >= stamped);
        }
    }
}
