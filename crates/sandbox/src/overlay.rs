//! A layer list as one detached mount.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use sys::mount::{self, Attributes, Depth, Filesystem};

use crate::launcher::{Launcher, OverlayOptions};
use crate::spec::{Durability, Layers, Upper};
use crate::{Machine, SandboxError};

/// What keeps a directory of an upper layer meaning only what was written into it: with other values a new directory becomes opaque, or
/// files are copied up without their content.
const OPTIONS: [(&str, &str); 4] =
    [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"), ("xino", "off")];

/// Mounts a layer list, detached.
pub(crate) fn mount(
    layers: &Layers,
    attributes: Attributes,
    machine: &Machine,
    launcher: &Launcher,
) -> Result<OwnedFd, SandboxError> {
    match (&layers.upper, layers.lower.as_slice()) {
        // overlayfs wants at least two directories.
        (None, [only]) => bind(only, attributes),
        _ if machine.lowerdir_append => overlay(layers, attributes),
        _ => launcher.overlay(in_one_string(layers, attributes)),
    }
}

fn bind(directory: &Path, attributes: Attributes) -> Result<OwnedFd, SandboxError> {
    let mounted = mount::open_path(directory).and_then(|fd| {
        let mounted = mount::clone_tree(fd.as_fd(), Depth::One)?;
        mount::restrict(mounted.as_fd(), attributes | Attributes::MOUNT_ATTR_RDONLY, Depth::One)?;
        Ok(mounted)
    });
    mounted.map_err(|source| SandboxError::Layer { path: directory.to_owned(), source })
}

fn overlay(layers: &Layers, attributes: Attributes) -> Result<OwnedFd, SandboxError> {
    let lower = layers.lower.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let upper = match &layers.upper {
        Some(Upper { directory, work, durability }) => Some((open(directory)?, open(work)?, *durability)),
        None => None,
    };
    let failed = |filesystem: Option<&Filesystem>, source| SandboxError::Overlay {
        layers: lower.len(),
        kernel_says: filesystem.map(Filesystem::messages).unwrap_or_default(),
        source,
    };
    let filesystem = Filesystem::new(c"overlay").map_err(|source| failed(None, source))?;
    let configured = || {
        OPTIONS.iter().try_for_each(|(key, value)| filesystem.set(key, value))?;
        lower.iter().try_for_each(|fd| filesystem.set("lowerdir+", name_of(fd.as_fd())))?;
        if let Some((upper, work, durability)) = &upper {
            filesystem.set("upperdir", name_of(upper.as_fd()))?;
            filesystem.set("workdir", name_of(work.as_fd()))?;
            if *durability != Durability::Synced {
                filesystem.set_flag("volatile")?;
            }
        }
        filesystem.mount(attributes)
    };
    configured().map_err(|source| failed(Some(&filesystem), source))
}

fn open(path: &Path) -> Result<OwnedFd, SandboxError> {
    mount::open_path(path).map_err(|source| SandboxError::Layer { path: path.to_owned(), source })
}

/// A name for a directory that is short, needs no escaping, and shows nothing of the machine in `/proc/mounts` of a sandbox.
/// (`fsconfig` takes at most 255 bytes, an option string at most a page: 120 layers fit.)
pub(crate) fn name_of(directory: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", directory.as_raw_fd())
}

fn in_one_string(layers: &Layers, attributes: Attributes) -> OverlayOptions {
    let mut flags: Vec<String> = OPTIONS.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let volatile = layers.upper.as_ref().is_some_and(|upper| upper.durability != Durability::Synced);
    flags.extend(volatile.then(|| "volatile".to_owned()));
    OverlayOptions {
        lower: layers.lower.clone(),
        upper: layers.upper.as_ref().map(|upper| (upper.directory.clone(), upper.work.clone())),
        flags: flags.join(","),
        attributes,
    }
}
