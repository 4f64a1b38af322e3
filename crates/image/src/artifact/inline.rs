//! Documents that stand in the manifest of an image, as the value of an annotation: the image's own layers are the blobs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use layer::compress;
use oci::{Compression, ImageManifest, Platform};

use super::{ArtifactError, Kind, Loaded, unpacked};
use crate::export::{Annotation, AnnotationOf};

/// The annotation that makes the image for a platform an artifact, too. Blobs are the image's layers, the lowest first.
///
/// # Errors
/// [`ArtifactError::Document`], if it cannot be compressed.
pub fn annotation(kind: Kind<'_>, platform: Platform, document: &[u8]) -> Result<Annotation, ArtifactError> {
    let mut packed = Vec::new();
    compress::compress(document, Compression::Zstd, &mut packed).map_err(ArtifactError::Document)?;
    let of = AnnotationOf::Manifest(Some(platform));
    Ok(Annotation { of, key: kind.annotation.to_owned(), value: STANDARD.encode(packed) })
}

/// What stands in a manifest, if anything does.
pub(super) fn loaded(manifest: &ImageManifest, kind: Kind<'_>) -> Result<Option<Loaded>, ArtifactError> {
    let value = manifest.annotations().as_ref().and_then(|all| all.get(kind.annotation));
    let Some(value) = value else { return Ok(None) };
    let packed =
        STANDARD.decode(value).map_err(|error| ArtifactError::Document(std::io::Error::other(error)))?;
    Ok(Some(Loaded { document: unpacked(&*packed)?, blobs: manifest.layers().clone() }))
}
