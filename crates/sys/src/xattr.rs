//! Extended attributes by descriptor, or by name in an open directory, never through a symbolic link.
//!
//! Until Linux 6.13 there is no call that takes a directory descriptor and a name, so `*_at` go through
//! `/proc/self/fd/N/name`: the kernel's own link to the open directory, then one component that is not followed. They need /proc.
//! File systems without extended attributes have empty lists.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::buffer::spare_capacity;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Most lists are empty and most values short (a capability has 20 or 24 bytes): one call suffices.
const FIRST_GUESS_BYTES: usize = 256;

/// The names of a file's attributes that the caller may see.
///
/// # Errors
/// Those of flistxattr(2) but "not supported".
pub fn list(file: impl AsFd) -> io::Result<Vec<OsString>> {
    let file = file.as_fd();
    list_with(|into| rustix::fs::flistxattr(file, spare_capacity(into)))
}

/// As [`list`], of a name in an open directory; of a symbolic link, its own.
///
/// # Errors
/// Those of llistxattr(2) but "not supported".
pub fn list_at(directory: impl AsFd, name: &OsStr) -> io::Result<Vec<OsString>> {
    let path = through_proc(&directory, name);
    list_with(|into| rustix::fs::llistxattr(&path, spare_capacity(into)))
}

/// An attribute's value; `None` if the file has no such attribute.
///
/// # Errors
/// Those of fgetxattr(2) but "no data" and "not supported".
pub fn get(file: impl AsFd, attribute: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let file = file.as_fd();
    get_with(|into| rustix::fs::fgetxattr(file, attribute, spare_capacity(into)))
}

/// As [`get`], of a name in an open directory; of a symbolic link, its own.
///
/// # Errors
/// Those of lgetxattr(2) but "no data" and "not supported".
pub fn get_at(directory: impl AsFd, name: &OsStr, attribute: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let path = through_proc(&directory, name);
    get_with(|into| rustix::fs::lgetxattr(&path, attribute, spare_capacity(into)))
}

/// Sets an attribute, new or not.
///
/// # Errors
/// Those of fsetxattr(2).
pub fn set(file: impl AsFd, attribute: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(file, attribute, value, XattrFlags::empty())?)
}

/// As [`set`], of a name in an open directory; of a symbolic link, its own.
///
/// # Errors
/// Those of lsetxattr(2).
pub fn set_at(directory: impl AsFd, name: &OsStr, attribute: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(through_proc(&directory, name), attribute, value, XattrFlags::empty())?)
}

/// Removes an attribute; a missing one is fine.
///
/// # Errors
/// Those of fremovexattr(2) but "no data".
pub fn remove(file: impl AsFd, attribute: &OsStr) -> io::Result<()> {
    missing_is_fine(rustix::fs::fremovexattr(file, attribute))
}

/// As [`remove`], of a name in an open directory; of a symbolic link, its own.
///
/// # Errors
/// Those of lremovexattr(2) but "no data".
pub fn remove_at(directory: impl AsFd, name: &OsStr, attribute: &OsStr) -> io::Result<()> {
    missing_is_fine(rustix::fs::lremovexattr(through_proc(&directory, name), attribute))
}

fn through_proc(directory: &impl AsFd, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()));
    path.push(name);
    path
}

fn missing_is_fine(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn list_with(call: impl FnMut(&mut Vec<u8>) -> rustix::io::Result<usize>) -> io::Result<Vec<OsString>> {
    let names = match grow_until_it_fits(call) {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| OsString::from_vec(name.to_vec())).collect())
}

fn get_with(call: impl FnMut(&mut Vec<u8>) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    match grow_until_it_fits(call) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Repeats a call that answers `ERANGE` with a larger buffer. Asking for the length first would be two calls and still a race.
fn grow_until_it_fits(
    mut call: impl FnMut(&mut Vec<u8>) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    // XATTR_LIST_MAX and XATTR_SIZE_MAX of Linux.
    const MOST_BYTES: usize = 64 * 1024;
    let mut into = Vec::with_capacity(FIRST_GUESS_BYTES);
    loop {
        match call(&mut into) {
            Ok(_) => return Ok(into),
            Err(Errno::RANGE) if into.capacity() < MOST_BYTES => {
                into = Vec::with_capacity(into.capacity() * 4)
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::Dir;
    use std::fs::{self, File};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    fn name(text: &str) -> &OsStr {
        OsStr::from_bytes(text.as_bytes())
    }

    #[test]
    fn attributes_are_set_listed_got_and_removed() {
        let base = tempfile::tempdir().unwrap();
        let file = File::create(base.path().join("file")).unwrap();
        if set(&file, name("user.probe"), b"1").is_err_and(|e| e.kind() == io::ErrorKind::Unsupported) {
            return eprintln!("skipped: the file system has no user attributes");
        }
        let long = vec![7; 1000];
        set(&file, name("user.long"), &long).unwrap();
        let mut names = list(&file).unwrap();
        names.retain(|n| n.as_bytes().starts_with(b"user."));
        names.sort();
        assert_eq!(names, ["user.long", "user.probe"]);
        assert_eq!(get(&file, name("user.long")).unwrap(), Some(long));
        assert_eq!(get(&file, name("user.absent")).unwrap(), None);
        remove(&file, name("user.long")).unwrap();
        remove(&file, name("user.long")).unwrap();
        let dir = Dir::open(base.path()).unwrap();
        set_at(&dir, name("file"), name("user.probe"), b"2").unwrap();
        assert_eq!(get_at(&dir, name("file"), name("user.probe")).unwrap().unwrap(), b"2");
        remove_at(&dir, name("file"), name("user.probe")).unwrap();
        assert!(!list_at(&dir, name("file")).unwrap().contains(&OsString::from("user.probe")));
    }

    #[test]
    fn a_link_is_never_followed() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("file"), "x").unwrap();
        symlink("file", base.path().join("link")).unwrap();
        let dir = Dir::open(base.path()).unwrap();
        // User attributes are not allowed on links: were it followed, this would be set on the file.
        assert!(set_at(&dir, name("link"), name("user.probe"), b"1").is_err());
        assert_eq!(get_at(&dir, name("file"), name("user.probe")).unwrap(), None);
        assert!(!list_at(&dir, name("link")).unwrap().contains(&OsString::from("user.probe")));
    }
}
