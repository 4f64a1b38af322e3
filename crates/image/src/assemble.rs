//! From the layers and the config that a build gives to an image in the store.

use oci::{Config, DiffId, ImageId, LayerId, Reference};
use rayon::prelude::*;
use store::Image;

use crate::{Error, Layers};

/// The most layers an image may have: what overlayfs mounts (kernel source, `OVL_MAX_STACK`).
pub const MAX_LAYERS: usize = 500;

/// An image to be: its files and how to run them.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// Lowest first.
    pub layers: Vec<LayerId>,
    /// Everything but `rootfs.diff_ids` and `created`, which [`assemble`] fills in. The history has its times already, since only who made
    /// or found the layers knows them.
    pub config: Config,
}

/// What [`assemble`] is told besides.
#[derive(Clone, Debug)]
pub struct AssembleOptions<'o> {
    /// RFC 3339. The same contents at the same time are the same image, so a build that reused everything gives the time of the build
    /// that made its last layer.
    pub created: Option<String>,
    /// What to call the image.
    pub tags: &'o [Reference],
}

/// An image that is in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Assembled {
    /// The digest of its config.
    pub id: ImageId,
    /// Complete.
    pub config: Config,
    /// What each tag meant before.
    pub replaced: Vec<Option<ImageId>>,
}

/// Makes an image of layers that are in the store, durable when this returns. Writes nothing if the same image with these tags is there.
///
/// # Errors
/// [`Error`]; then no tag has changed.
pub fn assemble(
    layers: &Layers<'_>,
    contents: &Contents,
    options: &AssembleOptions<'_>,
) -> Result<Assembled, Error> {
    if contents.layers.len() > MAX_LAYERS {
        return Err(Error::TooManyLayers { layers: contents.layers.len(), limit: MAX_LAYERS });
    }
    let mut config = contents.config.clone();
    config.rootfs.diff_ids = diff_ids(layers, &contents.layers)?;
    config.created.clone_from(&options.created);
    let blob = layers.lease().put_blob(&config.to_json())?;
    let id = ImageId::new(blob.digest);
    let image = Image { id: id.clone(), layers: contents.layers.clone(), manifests: Vec::new() };
    let replaced = layers.lease().commit_image(&image, options.tags)?;
    let replaced = replaced.into_iter().map(|tag| tag.map(|tag| tag.image)).collect();
    Ok(Assembled { id, config, replaced })
}

/// The DiffIDs of layers; those that nobody has computed yet are read in parallel.
fn diff_ids(layers: &Layers<'_>, ids: &[LayerId]) -> Result<Vec<DiffId>, Error> {
    let found = layers.lease().layers(ids)?;
    let known = found.and_then(|found| found.iter().map(|layer| layer.diff_id().cloned()).collect());
    match known {
        Some(known) => Ok(known),
        None => ids.par_iter().map(|id| layers.diff_id(id)).collect(),
    }
}
