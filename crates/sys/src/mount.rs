//! Mounts as descriptors: made detached, configured, and only then attached (fsopen(2), open_tree(2), mount_setattr(2),
//! move_mount(2)).
//!
//! A detached mount goes away when its last descriptor is closed, so an error on the way leaves nothing behind.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

/// What a mount forbids (`MOUNT_ATTR_…`).
pub use rustix::mount::MountAttrFlags as Attributes;

/// Whether a call is about one mount or also about everything mounted below it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Depth {
    /// This mount.
    One,
    /// This mount and those below.
    Whole,
}

/// A file system being configured.
#[derive(Debug)]
pub struct Filesystem {
    context: OwnedFd,
}

impl Filesystem {
    /// Begins a new instance of the file system type `kind` (`"tmpfs"`).
    ///
    /// # Errors
    /// `ENODEV` if the kernel does not know it.
    pub fn new(kind: &CStr) -> io::Result<Self> {
        Ok(Self { context: rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)? })
    }

    /// Sets an option with a value of at most 255 bytes.
    ///
    /// # Errors
    /// `EINVAL` if the file system does not know it; see [`Filesystem::messages`].
    pub fn set(&self, key: &str, value: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(rustix::mount::fsconfig_set_string(&self.context, key, value.as_ref())?)
    }

    /// Sets an option without a value.
    ///
    /// # Errors
    /// `EINVAL` if the file system does not know it; see [`Filesystem::messages`].
    pub fn set_flag(&self, key: &str) -> io::Result<()> {
        Ok(rustix::mount::fsconfig_set_flag(&self.context, key)?)
    }

    /// Makes the file system and a detached mount of it.
    ///
    /// # Errors
    /// Those of the file system; see [`Filesystem::messages`].
    pub fn mount(&self, attributes: Attributes) -> io::Result<OwnedFd> {
        rustix::mount::fsconfig_create(&self.context)?;
        Ok(rustix::mount::fsmount(&self.context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
    }

    /// What the kernel has to say about the calls so far: one line per message, `; ` between them.
    #[must_use]
    pub fn messages(&self) -> String {
        let mut lines = Vec::new();
        let mut buffer = [0; 1024];
        // Each read gives one message; the end is an error (ENODATA).
        while let Ok(length) = rustix::io::read(&self.context, &mut buffer) {
            let line = String::from_utf8_lossy(&buffer[..length]);
            lines.push(line.trim_start_matches(['e', 'w', 'i']).trim().to_owned());
        }
        lines.join("; ")
    }
}

/// Whether overlayfs takes its lower directories one by one (`lowerdir+`, Linux 6.7 or so).
///
/// # Errors
/// Those of fsopen(2): overlayfs is missing altogether, or the right to mount is.
pub fn overlay_appends_lower() -> io::Result<bool> {
    let overlay = Filesystem::new(c"overlay")?;
    Ok(overlay.set("lowerdir+", "/").is_ok())
}

/// Makes a detached copy of the mount that holds `source`, with `source` as its root (a bind mount not yet attached). Unlike the
/// original it is private: mounts made below one of them do not appear below the other.
///
/// # Errors
/// `EINVAL` if `source` lies in another mount namespace.
pub fn clone_tree(source: BorrowedFd<'_>, depth: Depth) -> io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if depth == Depth::Whole {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let copy = rustix::mount::open_tree(source, c"", flags)?;
    set_attributes(copy.as_fd(), 0, u64::from(MountPropagationFlags::PRIVATE.bits()), depth)?;
    Ok(copy)
}

/// Attaches a detached mount to what `target` refers to; `mount` refers to its root from then on too.
///
/// # Errors
/// `ENOTDIR` if one is a directory and the other is not.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", target, c"", flags)?)
}

/// Moves the mount that is attached at the name `from` of the working directory to what `target` refers to.
///
/// # Errors
/// `EINVAL` if nothing is mounted there.
pub fn take(from: &CStr, target: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::mount::move_mount(CWD, from, target, c"", MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)?)
}

/// Adds to what a mount forbids.
///
/// # Errors
/// Those of mount_setattr(2).
pub fn restrict(mount: BorrowedFd<'_>, attributes: Attributes, depth: Depth) -> io::Result<()> {
    set_attributes(mount, u64::from(attributes.bits()), 0, depth)
}

/// Makes everything mounted in this namespace receive mounts from where it was copied, and send none back.
///
/// # Errors
/// Those of mount_setattr(2).
pub fn isolate_namespace() -> io::Result<()> {
    let root = open_path(Path::new("/"))?;
    set_attributes(root.as_fd(), 0, u64::from(MountPropagationFlags::DOWNSTREAM.bits()), Depth::Whole)
}

fn set_attributes(mount: BorrowedFd<'_>, set: u64, propagation: u64, depth: Depth) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    let recursive = if depth == Depth::Whole { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a valid empty C string, and `attributes` is a live struct whose size is passed along; the kernel
    // only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens a path of the machine only to refer to it (`O_PATH`); links are followed.
///
/// # Errors
/// Those of open(2).
pub fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
}

/// Mounts an overlay at a name of the working directory with one option string: the old way, for kernels without `lowerdir+`.
/// `options` may be as long as a page.
///
/// # Errors
/// Those of mount(2); `EINVAL` if `options` has a NUL byte.
pub fn mount_overlay_here(at: &CStr, options: &[u8], attributes: Attributes) -> io::Result<()> {
    let options = CString::new(options)?;
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, attributes.contains(Attributes::MOUNT_ATTR_RDONLY));
    flags.set(MountFlags::NODEV, attributes.contains(Attributes::MOUNT_ATTR_NODEV));
    Ok(rustix::mount::mount(c"overlay", at, c"overlay", flags, Some(&*options))?)
}

/// Detaches what is mounted at a name of the working directory.
///
/// # Errors
/// `EINVAL` if nothing is mounted there.
pub fn detach(at: &CStr) -> io::Result<()> {
    Ok(rustix::mount::unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

/// Makes `root` (the root directory of an attached mount) the root and working directory of this mount namespace and detaches
/// everything that was visible before.
///
/// # Errors
/// Those of pivot_root(2).
pub fn pivot_to(root: BorrowedFd<'_>) -> io::Result<()> {
    let old_root = open_path(Path::new("/"))?;
    rustix::process::fchdir(root)?;
    // With both arguments the same, the old root ends on top of the new one and needs no directory of its own there.
    rustix::process::pivot_root(c".", c".")?;
    rustix::process::fchdir(&old_root)?;
    // Unmounting takes the topmost of what is stacked here: whatever lay over the old root, then the old root itself, until this
    // directory belongs to no mount of the namespace.
    loop {
        match detach(c".") {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
            Err(error) => return Err(error),
        }
    }
    rustix::process::chdir(c"/")?;
    // From the root, `..` leads to whatever is mounted over it, which must be nothing.
    let (root, above) = (rustix::fs::stat(c"/")?, rustix::fs::stat(c"/..")?);
    if (root.st_dev, root.st_ino) == (above.st_dev, above.st_ino) {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::ResourceBusy))
    }
}

/// Whether we may write the directory `at` and its mount is writable.
#[must_use]
pub fn is_writable(at: &Path) -> bool {
    rustix::fs::access(at, rustix::fs::Access::WRITE_OK).is_ok()
}
