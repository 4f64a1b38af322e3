//! Docker archives: `manifest.json` lists images with their config and layers as paths (Docker, `image/tarexport`).
//!
//! Layers are tars, compressed or not; the config's DiffIDs are all that says what they must be.

use oci::{Config, Digest, ImageId};
use serde::Deserialize;
use sys::RootfsPath;

use super::bundle::Bundle;
use super::{Described, DocumentName, LoadError, reference};

/// Where a Docker archive begins.
pub(super) const MANIFEST: DocumentName = DocumentName("manifest.json");

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Reads the documents of every image of a Docker archive.
pub(super) fn describe(bundle: &Bundle) -> Result<Vec<Described>, LoadError> {
    let (images, _): (Vec<Image>, _) = bundle.read_json(&MANIFEST.path()?, None)?;
    images.into_iter().map(|image| describe_image(bundle, image)).collect()
}

fn describe_image(bundle: &Bundle, image: Image) -> Result<Described, LoadError> {
    let name = RootfsPath::parse(&image.config)?;
    let bytes = bundle.read_document(&name, None)?;
    let id = Digest::of(&bytes);
    // Both `<digest>.json` and `blobs/sha256/<digest>` say what is in it.
    let stem = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if Digest::from_sha256_hex(stem).is_ok_and(|named| named != id) {
        return Err(LoadError::WrongName { name, got: id });
    }
    let config = Config::from_json(&bytes).map_err(|source| LoadError::Config { name, source })?;
    let mut layers = Vec::new();
    for layer in image.layers.unwrap_or_default() {
        let place = RootfsPath::parse(layer)?;
        if !bundle.contains(&place) {
            return Err(LoadError::Missing(place));
        }
        layers.push((place, None));
    }
    let names: Result<_, LoadError> =
        image.repo_tags.unwrap_or_default().iter().map(|name| reference(name)).collect();
    Described::new(ImageId::new(id), (config, bytes), layers, names?)
}
