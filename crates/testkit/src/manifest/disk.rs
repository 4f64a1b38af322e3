//! Making a manifest's entries on disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, makedev, mknodat, utimensat,
};

use super::{Device, Entry, Kind, archive, repository};

pub(super) fn make(root: &Path, entry: &Entry) -> Result<()> {
    let path = root.join(&entry.path);
    make_parents(root, &entry.path)?;
    match &entry.kind {
        Kind::Directory => make_directory(&path)?,
        Kind::File(content) => fs::write(&path, content.read()?)?,
        Kind::Symlink(target) => symlink(target, &path)?,
        Kind::HardLink(target) => return Ok(fs::hard_link(root.join(target), &path)?),
        Kind::Fifo => make_node(&path, FileType::Fifo, None)?,
        // The name stays behind when the listener is dropped, which is all a test wants of it.
        Kind::Socket => drop(UnixListener::bind(&path)?),
        Kind::CharDevice(device) => make_node(&path, FileType::CharacterDevice, Some(*device))?,
        Kind::BlockDevice(device) => make_node(&path, FileType::BlockDevice, Some(*device))?,
        Kind::Archive { codec, members } => archive::write(&path, *codec, members)?,
        Kind::Repository { events } => return repository::make(&path, events),
        Kind::Event(_) => bail!("this happens in a repository: it needs a `git` line above it"),
    }
    set_attributes(&path, entry)
}

fn make_parents(root: &Path, below: &Path) -> Result<()> {
    let mut path = root.to_path_buf();
    for component in below.parent().into_iter().flat_map(Path::components) {
        path.push(component);
        if !path.exists() {
            fs::create_dir(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<()> {
    // A line may give attributes to a directory that an earlier path or the checked-in tree has made.
    if path.is_dir() { Ok(()) } else { Ok(fs::create_dir(path)?) }
}

fn make_node(path: &Path, kind: FileType, device: Option<Device>) -> Result<()> {
    let number = device.map_or(0, |device| makedev(device.major, device.minor));
    Ok(mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), number)?)
}

fn set_attributes(path: &Path, entry: &Entry) -> Result<()> {
    let is_symlink = matches!(entry.kind, Kind::Symlink(_));
    if (entry.uid, entry.gid) != (0, 0) {
        lchown(path, Some(entry.uid), Some(entry.gid))?;
    }
    // chown before chmod: the kernel clears setuid and setgid bits when the owner changes.
    if !is_symlink {
        fs::set_permissions(path, fs::Permissions::from_mode(entry.mode))?;
    }
    for (name, value) in &entry.xattrs {
        lsetxattr(path, name.as_str(), value, XattrFlags::empty())
            .with_context(|| format!("cannot set the extended attribute `{name}`"))?;
    }
    if let Some(seconds) = entry.mtime {
        let time = Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}
