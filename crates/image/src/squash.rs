//! Several layers as one.

use std::fs::File;

use layer::pack::Form;
use oci::LayerId;

use crate::flat::Flat;
use crate::layers::pack_error;
use crate::{Error, Layers};

/// The first `base` layers as they are, and all above them as one: upon the same layers it shows the same files. What one of them made and another
/// took away is in none.
///
/// # Errors
/// Those of the store.
pub fn squash(layers: &Layers<'_>, ids: &[LayerId], base: usize) -> Result<Vec<LayerId>, Error> {
    let [.., top] = ids else { return Ok(Vec::new()) };
    if base + 1 >= ids.len() {
        return Ok(ids.to_vec());
    }
    let flat = Flat::above(layers, ids, base)?;
    let draft = layers.lease().layer_draft()?;
    let path = draft.tar_path();
    let file = File::create_new(&path).map_err(Error::at("create", &path))?;
    let packed = flat.pack(Form::Tar(file), layers.cancelled()).map_err(|source| pack_error(top, source))?;
    let squashed = layers.publish(draft, &packed)?.id().clone();
    Ok([&ids[..base], &[squashed]].concat())
}
