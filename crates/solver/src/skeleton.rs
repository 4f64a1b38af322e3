//! Mount points that leave no trace.
//!
//! Everything mounted into a RUN needs a name to be mounted on, and often the image has none. Making it in the upper directory would
//! leave it in the layer, and would copy up its parents. So a layer of our own goes *below* all others: it holds the missing names
//! and nothing else, and whatever the image has itself shows over it. Where a layer of the image hides a name (a whiteout, an opaque
//! directory, a file in its way) a second one goes on top, whose directories repeat the attributes that show there anyway.

use std::path::{Path, PathBuf};

use layer::Entry;
use layer::merged::{Follow, Merged};
use layer::unpack::TreeWriter;
use layer::{Entries, FileDigest, Kind};
use sys::RootfsPath;
use sys::root::{Dir, Time};

use crate::{Services, StepError};

/// What must be there to mount on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    Directory,
    File,
}

/// The layers to put around an image's: both in scratch space, gone with the lease.
#[derive(Debug)]
pub(crate) struct Skeleton {
    /// Below all others; always there, so that even an empty image has a lower layer.
    pub(crate) bottom: PathBuf,
    /// Above all others but the upper directory.
    pub(crate) top: Option<PathBuf>,
}

/// The targets that every RUN has.
const STANDARD: [(&str, Target); 5] = [
    ("proc", Target::Directory),
    ("sys", Target::Directory),
    ("dev", Target::Directory),
    ("etc/resolv.conf", Target::File),
    ("etc/hosts", Target::File),
];

/// Makes the layers that `targets`, beside the standard ones, need over `merged`.
pub(crate) fn make(
    targets: &[(RootfsPath, Target)],
    merged: &Merged,
    services: &Services<'_>,
) -> Result<Skeleton, StepError> {
    let (mut bottom, mut top) = (Vec::new(), Vec::new());
    let standard = STANDARD.into_iter().map(|(path, target)| Ok((RootfsPath::parse(path)?, target)));
    let standard = standard.collect::<Result<Vec<_>, StepError>>()?;
    for (path, target) in standard.iter().chain(targets) {
        let resolved = merged.resolve(path, Follow::Last)?;
        if resolved.found.is_some() {
            continue;
        }
        let list = if is_hidden(merged, &resolved.path) { &mut top } else { &mut bottom };
        add_with_parents(&resolved.path, *target, merged, list);
    }
    let bottom = write(bottom, services)?;
    let top = if top.is_empty() { None } else { Some(write(top, services)?) };
    Ok(Skeleton { bottom, top })
}

/// Whether a name made below all layers would not show.
fn is_hidden(merged: &Merged, path: &RootfsPath) -> bool {
    let probe = Entries::new(with_directories(path));
    let mut layers = vec![probe];
    layers.extend(merged.layers().iter().cloned());
    Merged::new(layers).lookup(path).is_none()
}

fn with_directories(path: &RootfsPath) -> Vec<Entry> {
    path.ancestors().chain([path.clone()]).map(|path| Entry::directory(path, Time::default())).collect()
}

fn add_with_parents(path: &RootfsPath, target: Target, merged: &Merged, list: &mut Vec<Entry>) {
    for parent in path.ancestors().filter(|parent| !parent.is_root()) {
        let shown = merged.lookup(&parent).map(|found| found.entry.clone());
        list.push(shown.unwrap_or_else(|| Entry::directory(parent, Time::default())));
    }
    let mut entry = Entry::directory(path.clone(), Time::default());
    if target == Target::File {
        entry.kind = Kind::File { size: 0, digest: FileDigest([0; 32]), member: 0 };
        entry.mode = 0o644;
    }
    list.push(entry);
}

fn write(list: Vec<Entry>, services: &Services<'_>) -> Result<PathBuf, StepError> {
    let path = services.lease.scratch_dir()?;
    let entries = Entries::new(list);
    let dir = open(&path)?;
    let mut tree = TreeWriter::new(&dir);
    for entry in entries.as_slice() {
        let file = tree.create(entry).map_err(layer::pack::PackError::Tree)?;
        tree.finish_entry(entry, file).map_err(layer::pack::PackError::Tree)?;
    }
    tree.finish(entries.as_slice()).map_err(layer::pack::PackError::Tree)?;
    Ok(path)
}

fn open(path: &Path) -> Result<Dir, StepError> {
    Dir::open(path).map_err(|source| StepError::Prepare { path: path.to_owned(), source })
}
