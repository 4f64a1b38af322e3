//! How much of a disk a tree really takes.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

/// One directory on the way down: how to know it again, and what is still to be visited in it.
struct Level {
    device: u64,
    inode: u64,
    directories: Vec<CString>,
}

/// The bytes of all blocks of a directory and of everything below it, hard links counted once, other file systems left out.
///
/// Holds one directory open at a time and climbs by `..`, so depth costs neither descriptors nor path length. What vanishes
/// meanwhile is not counted.
///
/// # Errors
/// Those of openat(2) and getdents64(2); `ESTALE` if a directory is moved elsewhere while it is being visited.
pub fn disk_usage(directory: &Path) -> io::Result<u64> {
    let mut current = open_directory(CWD, directory)?;
    let top = fstat(&current)?;
    let mut total = Total { bytes: blocks(&top), device: top.st_dev, linked: HashSet::new() };
    let mut levels = vec![total.visit(&current, &top)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.directories.pop() {
            let below = match open_directory(&current, name.as_c_str()) {
                Ok(below) => below,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(error.into()),
            };
            let status = fstat(&below)?;
            levels.push(total.visit(&below, &status)?);
            current = below;
        } else {
            levels.pop();
            if let Some(above) = levels.last() {
                current = climb(&current, above)?;
            }
        }
    }
    Ok(total.bytes)
}

struct Total {
    bytes: u64,
    device: u64,
    linked: HashSet<u64>,
}

impl Total {
    /// Counts what lies directly in a directory and says which directories are left to visit.
    fn visit(&mut self, directory: &OwnedFd, status: &Stat) -> io::Result<Level> {
        let mut directories = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.count(directory, name)? {
                directories.push(name.to_owned());
            }
        }
        Ok(Level { device: status.st_dev, inode: status.st_ino, directories })
    }

    /// Counts one entry; `true` if it is a directory of the same file system.
    fn count(&mut self, directory: &OwnedFd, name: &CStr) -> io::Result<bool> {
        let status = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => status,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if status.st_dev != self.device {
            return Ok(false);
        }
        let is_directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
        if is_directory || status.st_nlink == 1 || self.linked.insert(status.st_ino) {
            self.bytes += blocks(&status);
        }
        Ok(is_directory)
    }
}

fn open_directory<P: rustix::path::Arg>(at: impl std::os::fd::AsFd, name: P) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn climb(current: &OwnedFd, above: &Level) -> io::Result<OwnedFd> {
    let parent = open_directory(current, c"..")?;
    let status = fstat(&parent)?;
    // Whoever may write the tree may have moved the directory out from under us.
    if (status.st_dev, status.st_ino) == (above.device, above.inode) {
        Ok(parent)
    } else {
        Err(Errno::STALE.into())
    }
}

fn blocks(status: &Stat) -> u64 {
    u64::try_from(status.st_blocks).unwrap_or(0) * 512
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_hard_link_is_counted_once_and_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let empty = disk_usage(dir.path()).unwrap();
        fs::write(dir.path().join("a"), vec![1; 1 << 20]).unwrap();
        let one = disk_usage(dir.path()).unwrap();
        assert!(one >= empty + (1 << 20));
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("usr")).unwrap();
        assert!(disk_usage(dir.path()).unwrap() < one + (1 << 16));
    }

    #[test]
    fn depth_is_no_limit() {
        let dir = tempfile::tempdir().unwrap();
        let mut deepest = crate::root::Dir::open(dir.path()).unwrap();
        for _ in 0..3000 {
            deepest.create_dir("directory".as_ref()).unwrap();
            deepest = deepest.open_dir("directory".as_ref()).unwrap();
        }
        assert!(disk_usage(dir.path()).is_ok());
        crate::root::Dir::open(dir.path()).unwrap().clear().unwrap();
    }
}
