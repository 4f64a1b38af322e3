//! What images there are, and what made one: for `images` and `history`.

use std::collections::BTreeMap;

use oci::{Digest, ImageId, LayerId, Platform, Reference};

use crate::{Error, Layers, LocalImage};

/// One image of a listing.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The digest of its config.
    pub id: ImageId,
    /// What it is called, in order; empty if it lost its names to others.
    pub names: Vec<Reference>,
    /// RFC 3339, if its config says so.
    pub created: Option<String>,
    /// What it is made for.
    pub platform: Platform,
    /// The sum of its files' sizes in bytes, layer by layer.
    pub size_bytes: u64,
    /// The manifests and indexes that are known to stand for it.
    pub manifests: Vec<Digest>,
}

/// A line of an image's history.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HistoryLine {
    /// RFC 3339, if known.
    pub created: Option<String>,
    /// The instruction.
    pub created_by: String,
    /// Who or what built it.
    pub comment: String,
    /// The layer that it made; `None` for what only changed the config.
    pub layer: Option<LayerId>,
    /// The sum of that layer's files' sizes in bytes.
    pub size_bytes: u64,
}

/// All images, the youngest first.
///
/// # Errors
/// [`Error`].
pub fn list(layers: &Layers<'_>) -> Result<Vec<Listed>, Error> {
    let store = layers.lease().store();
    let mut names: BTreeMap<ImageId, Vec<Reference>> = BTreeMap::new();
    for tag in store.tags()? {
        for image in tag.images() {
            names.entry(image.clone()).or_default().push(tag.reference.clone());
        }
    }
    let mut listed = Vec::new();
    for id in store.image_ids()? {
        // Removed by another process since.
        let Some(image) = LocalImage::by_id(layers, &id)? else { continue };
        let names = names.remove(&id).unwrap_or_default();
        listed.push(Listed {
            names,
            created: image.config.created.clone(),
            platform: image.config.platform(),
            size_bytes: size_bytes(layers, &image)?,
            manifests: image.manifests.into_iter().map(|known| known.digest).collect(),
            id,
        });
    }
    // RFC 3339 in UTC sorts as text.
    listed.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.names.cmp(&b.names)));
    Ok(listed)
}

/// The sum of an image's files' sizes in bytes, layer by layer.
pub(crate) fn size_bytes(layers: &Layers<'_>, image: &LocalImage) -> Result<u64, Error> {
    let sizes: Result<Vec<u64>, Error> = image.layers.iter().map(|id| layer_bytes(layers, id)).collect();
    Ok(sizes?.into_iter().sum())
}

fn layer_bytes(layers: &Layers<'_>, id: &LayerId) -> Result<u64, Error> {
    Ok(layers.layer(id)?.facts().size_bytes)
}

/// What made an image, the last step first. Layers that no line tells of, as tools without a history leave them, have lines of their own.
///
/// # Errors
/// [`Error`].
pub fn history(layers: &Layers<'_>, image: &LocalImage) -> Result<Vec<HistoryLine>, Error> {
    let mut ids = image.layers.iter();
    let mut lines = Vec::new();
    for entry in &image.config.history {
        let layer = if entry.empty_layer { None } else { ids.next() };
        let size_bytes = layer.map_or(Ok(0), |id| layer_bytes(layers, id))?;
        lines.push(HistoryLine {
            created: entry.created.clone(),
            created_by: entry.created_by.clone(),
            comment: entry.comment.clone(),
            layer: layer.cloned(),
            size_bytes,
        });
    }
    for id in ids {
        let (layer, size_bytes) = (Some(id.clone()), layer_bytes(layers, id)?);
        let (created_by, comment) = (String::new(), String::new());
        lines.push(HistoryLine { created: None, created_by, comment, layer, size_bytes });
    }
    lines.reverse();
    Ok(lines)
}
