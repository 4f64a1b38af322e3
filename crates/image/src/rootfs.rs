//! A layer list made ready to be mounted: directories for overlayfs, with every mount point in place.
//!
//! Whatever is mounted into a container needs a name to be mounted on, and often the image has none. Making it in the upper directory
//! would leave it in the layer, and would copy up its parents. So a layer of our own goes *below* all others: it holds the missing names
//! and nothing else, and whatever the image has itself shows over it. Where a layer of the image hides a name (a whiteout, an opaque
//! directory, a file in its way) a second one goes on top, whose directories repeat the attributes that show there anyway.

use std::path::{Path, PathBuf};

use layer::merged::{Follow, Merged, ResolveError};
use layer::unpack::{TreeError, TreeWriter};
use layer::{Entries, Entry, FileDigest, Kind};
use oci::LayerId;
use sys::RootfsPath;
use sys::root::{Dir, Time};

use crate::{Error, Layers};

/// What a mount point must be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MountPoint {
    /// For a directory or file system.
    Directory,
    /// For a single file.
    File,
}

/// Mount points that every container has.
const STANDARD: [(&str, MountPoint); 5] = [
    ("proc", MountPoint::Directory),
    ("sys", MountPoint::Directory),
    ("dev", MountPoint::Directory),
    ("etc/resolv.conf", MountPoint::File),
    ("etc/hosts", MountPoint::File),
];

/// A layer list ready to be mounted.
#[derive(Clone, Debug)]
pub struct Rootfs {
    /// The directories to mount below an upper one, topmost first; at least one. Those that are not layers lie in the lease's private area.
    pub lower: Vec<PathBuf>,
    /// What they show.
    pub merged: Merged,
}

/// Why a layer list could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// A layer.
    #[error(transparent)]
    Image(#[from] Error),
    /// A mount point behind a loop of links, or below a file.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A mount point that is no path.
    #[error(transparent)]
    Path(#[from] sys::PathError),
    /// A directory of our own.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl Rootfs {
    /// Makes every layer's tree, and the names that `mount_points`, beside the standard ones, need.
    ///
    /// # Errors
    /// [`RootfsError`].
    pub fn new(
        layers: &Layers<'_>,
        ids: &[LayerId],
        mount_points: &[(RootfsPath, MountPoint)],
    ) -> Result<Self, RootfsError> {
        let merged = layers.merged(ids)?;
        let (mut bottom, mut top) = (Vec::new(), Vec::new());
        let standard = STANDARD.into_iter().map(|(path, shape)| Ok((RootfsPath::parse(path)?, shape)));
        let standard = standard.collect::<Result<Vec<_>, sys::PathError>>()?;
        for (path, shape) in standard.iter().chain(mount_points) {
            let resolved = merged.resolve(path, Follow::Last)?;
            if resolved.found.is_none() {
                let list = if is_hidden(&merged, &resolved.path) { &mut top } else { &mut bottom };
                add_with_parents(&resolved.path, *shape, &merged, list);
            }
        }
        let mut lower = Vec::new();
        if !top.is_empty() {
            lower.push(write(layers, top)?);
        }
        lower.extend(mounted_trees(layers, ids)?);
        lower.push(write(layers, bottom)?);
        Ok(Self { lower, merged })
    }

    /// A layer list without mount points, to be mounted inside another container.
    ///
    /// # Errors
    /// [`RootfsError`].
    pub fn plain(layers: &Layers<'_>, ids: &[LayerId]) -> Result<Self, RootfsError> {
        let mut lower = mounted_trees(layers, ids)?;
        lower.push(write(layers, Vec::new())?);
        Ok(Self { lower, merged: layers.merged(ids)? })
    }

    /// Gives an empty directory, to be mounted on top, the attributes of the root: overlayfs takes them from the topmost directory.
    ///
    /// # Errors
    /// [`RootfsError::Tree`], or what opening it says.
    pub fn prepare_top(&self, directory: &Path) -> Result<Dir, RootfsError> {
        let dir = Dir::open(directory).map_err(Error::at("open", directory))?;
        TreeWriter::new(&dir).finish(&[self.merged.root_entry()])?;
        Ok(dir)
    }
}

/// A layer list to be mounted below a directory of which nothing is kept. Mount points can be made there, so that nothing has to be looked
/// up, and no entry list has to be read, however large the image is.
#[derive(Clone, Debug)]
pub struct Disposable {
    /// The directories to mount below an upper one, topmost first; at least one.
    pub lower: Vec<PathBuf>,
    root: Entry,
}

impl Disposable {
    /// Makes every layer's tree.
    ///
    /// # Errors
    /// [`RootfsError::Image`].
    pub fn new(layers: &Layers<'_>, ids: &[LayerId]) -> Result<Self, RootfsError> {
        let mut lower = mounted_trees(layers, ids)?;
        if lower.is_empty() {
            lower.push(layers.lease().scratch_dir().map_err(Error::from)?);
        }
        Ok(Self { lower, root: layers.root_entry(ids)? })
    }

    /// Gives an empty directory, to be mounted on top, the attributes of the root.
    ///
    /// # Errors
    /// [`RootfsError::Tree`], or what opening it says.
    pub fn prepare_top(&self, directory: &Path) -> Result<(), RootfsError> {
        let dir = Dir::open(directory).map_err(Error::at("open", directory))?;
        TreeWriter::new(&dir).finish(std::slice::from_ref(&self.root))?;
        Ok(())
    }
}

/// The trees of a layer list, topmost first. A layer that stands in it twice is mounted once: overlayfs refuses repetition, and only the
/// upper of the two shows.
fn mounted_trees(layers: &Layers<'_>, ids: &[LayerId]) -> Result<Vec<PathBuf>, Error> {
    let mut trees: Vec<PathBuf> = Vec::with_capacity(ids.len());
    for tree in layers.trees(ids)?.into_iter().rev() {
        if !trees.contains(&tree) {
            trees.push(tree);
        }
    }
    Ok(trees)
}

/// Whether a name made below all layers would not show.
fn is_hidden(merged: &Merged, path: &RootfsPath) -> bool {
    let with_parents = path.ancestors().chain([path.clone()]);
    let probe: Entries = with_parents.map(|path| Entry::directory(path, Time::default())).collect();
    let mut layers = vec![probe];
    layers.extend(merged.layers().iter().cloned());
    Merged::new(layers).lookup(path).is_none()
}

fn add_with_parents(path: &RootfsPath, shape: MountPoint, merged: &Merged, list: &mut Vec<Entry>) {
    for parent in path.ancestors().filter(|parent| !parent.is_root()) {
        let shown = merged.lookup(&parent).map(|found| found.entry.clone());
        list.push(shown.unwrap_or_else(|| Entry::directory(parent, Time::default())));
    }
    let mut entry = Entry::directory(path.clone(), Time::default());
    if shape == MountPoint::File {
        entry.kind = Kind::File { size: 0, digest: FileDigest([0; 32]), member: 0 };
        entry.mode = 0o644;
    }
    list.push(entry);
}

/// A directory of the lease's area with these entries, without content.
fn write(layers: &Layers<'_>, list: Vec<Entry>) -> Result<PathBuf, RootfsError> {
    layers.skeleton(Entries::new(list), |entries| {
        let path = layers.lease().scratch_dir().map_err(Error::from)?;
        let dir = Dir::open(&path).map_err(Error::at("open", &path))?;
        let mut tree = TreeWriter::new(&dir);
        for entry in entries.as_slice() {
            let file = tree.create(entry)?;
            tree.finish_entry(entry, file)?;
        }
        // Never on top, so its own mode shows only if the image has no root entry at all.
        let root = Entry::directory(RootfsPath::root(), Time::default());
        let directories: Vec<Entry> =
            std::iter::once(root).chain(entries.as_slice().iter().cloned()).collect();
        tree.finish(&directories)?;
        Ok(path)
    })
}
