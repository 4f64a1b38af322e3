//! WORKDIR: the layer of a directory and the parents it lacks.

use layer::Entry;
use layer::merged::Follow;
use layer::pack::{Contents, FileDigests, Form, pack};
use plan::Workdir;
use store::Layer;
use sys::RootfsPath;
use sys::root::{Dir, Time};

use crate::filesystem::Filesystem;
use crate::{Services, StepError, owner};

/// Makes the layer. It is empty if the directory is there.
pub(crate) fn execute(
    workdir: &Workdir,
    below: &Filesystem,
    services: &Services<'_>,
    time: Time,
) -> Result<Layer, StepError> {
    let layers = below.ids();
    let merged = services.layers.merged(&layers)?;
    let path = RootfsPath::parse(workdir.path.as_str())?;
    let resolved = merged.resolve(&path, Follow::Last)?;
    let mut list = Vec::new();
    match &resolved.found {
        Some(found) if found.entry.is_directory() => {}
        Some(_) => return Err(layer::merged::ResolveError::NotADirectory(resolved.path).into()),
        None => {
            let ids = owner::of_user(workdir.user.as_ref(), &layers, &merged, services)?;
            let own = resolved.path.clone();
            for path in resolved.path.ancestors().filter(|path| !path.is_root()).chain([own]) {
                list.push(match merged.lookup(&path) {
                    Some(found) => Entry { implied: true, ..found.entry.clone() },
                    None => Entry { uid: ids.uid, gid: ids.gid, ..Entry::directory(path, time) },
                });
            }
        }
    }
    let draft = services.lease.layer_draft()?;
    let tree = draft.make_fs()?;
    let dir = Dir::open(&tree).map_err(|source| StepError::Prepare { path: tree, source })?;
    let packed = pack(list, &NoContents, FileDigests::Known, Form::Tree(&dir), 1, &|| false)?;
    Ok(services.layers.publish(draft, &packed)?)
}

/// Directories have none.
struct NoContents;

impl Contents for NoContents {
    fn open(&self, _: usize, _: &Entry) -> std::io::Result<Box<dyn std::io::Read + '_>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}
