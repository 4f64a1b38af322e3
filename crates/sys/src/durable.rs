//! What survives a power cut: syncing, renames that never overwrite, and the identity of the running kernel.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Where the kernel tells its boot id.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Which run of the kernel this is. What was written without a sync is to be trusted only while it stays the same: then the page
/// cache is the truth, and no power cut can lie between.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BootId(String);

impl BootId {
    /// The running kernel's.
    ///
    /// # Errors
    /// If /proc is not mounted or gives something else than an id.
    pub fn current() -> io::Result<Self> {
        let text = std::fs::read_to_string(BOOT_ID_FILE)?;
        Self::parse(text.trim_end()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("`{BOOT_ID_FILE}` holds no boot id"))
        })
    }

    /// An id in its text form: hex digits and dashes, so that it can be a part of a file name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = !text.is_empty() && text.len() <= 64;
        let is_id = is_id && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        is_id.then(|| Self(text.to_owned()))
    }

    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Writes everything that is dirty on the file system of `path` to its disk, and waits for it (syncfs(2)).
///
/// # Errors
/// Those of open(2) and syncfs(2); since Linux 5.8 also an earlier failure to write back.
pub fn sync_filesystem(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(path)?)?)
}

/// Makes the names in a directory durable: files created in it, renamed into it, removed from it.
///
/// # Errors
/// Those of open(2) and fsync(2).
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Renames, and fails with [`io::ErrorKind::AlreadyExists`] where a plain rename would replace a file or an empty directory.
///
/// # Errors
/// Those of renameat2(2).
pub fn rename_noreplace(from: &Path, to: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

/// Asks ext4 to spread the subdirectories of a directory over the disk instead of keeping them together (chattr(1), "T").
///
/// # Errors
/// Those of ioctl_iflags(2): `ENOTTY` or `EOPNOTSUPP` where the file system has no such wish.
pub fn spread_subdirectories(path: &Path) -> io::Result<()> {
    let directory = File::open(path)?;
    let flags = rustix::fs::ioctl_getflags(&directory)?;
    Ok(rustix::fs::ioctl_setflags(&directory, flags | rustix::fs::IFlags::TOPDIR)?)
}

/// Exchanges two names in one step; both must exist.
///
/// # Errors
/// Those of renameat2(2).
pub fn rename_exchange(one: &Path, other: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn noreplace_keeps_what_is_there_and_exchange_swaps() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "a").unwrap();
        fs::write(&b, "b").unwrap();
        assert_eq!(rename_noreplace(&a, &b).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        rename_exchange(&a, &b).unwrap();
        assert_eq!(fs::read_to_string(&b).unwrap(), "a");
        sync_directory(dir.path()).unwrap();
        sync_filesystem(dir.path()).unwrap();
    }

    #[test]
    fn boot_ids_are_safe_in_file_names() {
        assert_eq!(BootId::current().unwrap(), BootId::current().unwrap());
        assert_eq!(BootId::parse("../x"), None);
        assert_eq!(BootId::parse(""), None);
    }
}
