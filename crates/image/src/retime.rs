//! Layers whose files are no younger than a time: what makes the layers of two builds equal.

use std::fs::File;

use layer::Entry;
use layer::pack::{FileDigests, Form, pack};
use layer::seal::TreeContents;
use oci::LayerId;
use sys::root::{Dir, Time};

use crate::layers::pack_error;
use crate::{Error, Layers};

/// Threads that read files ahead of the packer.
const READERS: usize = 4;

/// A layer with the same files, of which those modified after `latest` say that they were modified then. One without such files is given
/// back as it is.
///
/// # Errors
/// Those of the store.
pub fn no_younger_than(layers: &Layers<'_>, id: &LayerId, latest: Time) -> Result<LayerId, Error> {
    let entries = layers.entries(id)?;
    let is_younger = |entry: &Entry| !entry.implied && entry.mtime > latest;
    if !entries.as_slice().iter().any(is_younger) {
        return Ok(id.clone());
    }
    let clamped = |entry: &Entry| Entry { mtime: entry.mtime.min(latest), ..entry.clone() };
    let list: Vec<Entry> = entries.as_slice().iter().map(clamped).collect();
    let path = layers.tree(id)?;
    let tree = Dir::open(&path).map_err(Error::at("open", &path))?;
    let draft = layers.lease().layer_draft()?;
    let path = draft.tar_path();
    let file = File::create_new(&path).map_err(Error::at("create", &path))?;
    let contents = TreeContents { tree: &tree };
    let packed = pack(list, &contents, FileDigests::Known, Form::Tar(file), READERS, layers.cancelled());
    Ok(layers.publish(draft, &packed.map_err(|source| pack_error(id, source))?)?.id().clone())
}
