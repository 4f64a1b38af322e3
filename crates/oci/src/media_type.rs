//! Media types: which manifest, which compression.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::MediaType;

/// How the bytes of a layer blob are compressed.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Compression {
    /// A plain tar.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// What kind of document a manifest media type announces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ManifestKind {
    /// One image: OCI image manifest, or Docker schema 2.
    Manifest,
    /// Images by platform: OCI index, or Docker manifest list.
    Index,
}

/// A media type this program does not know how to read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MediaTypeError {
    /// Neither a manifest nor an index.
    #[error("`{0}` is not the media type of an image manifest or index")]
    NotAManifest(String),
    /// Not a tar layer.
    #[error("`{0}` is not the media type of a layer")]
    NotALayer(String),
}

/// Docker's names for what the OCI specification later named anew.
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl ManifestKind {
    /// All media types that announce a manifest or an index, best first, for an `Accept` header.
    pub const ACCEPTED: [&'static str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST_LIST, DOCKER_MANIFEST];

    /// Reads a `Content-Type` or `mediaType`; parameters after `;` do not matter.
    ///
    /// # Errors
    /// [`MediaTypeError::NotAManifest`].
    pub fn of(media_type: &str) -> Result<Self, MediaTypeError> {
        match media_type.split(';').next().unwrap_or_default().trim() {
            OCI_MANIFEST | DOCKER_MANIFEST => Ok(Self::Manifest),
            OCI_INDEX | DOCKER_MANIFEST_LIST => Ok(Self::Index),
            other => Err(MediaTypeError::NotAManifest(other.to_owned())),
        }
    }
}

impl Compression {
    /// The compression a layer's media type announces, OCI's and Docker's names, distributable or not.
    ///
    /// # Errors
    /// [`MediaTypeError::NotALayer`].
    pub fn of_layer(media_type: &MediaType) -> Result<Self, MediaTypeError> {
        let text = media_type.to_string();
        let is_tar = text.starts_with("application/vnd.oci.image.layer.")
            || text.starts_with("application/vnd.docker.image.rootfs.");
        match text.rsplit(['.', '+']).next() {
            Some("gzip") if is_tar => Ok(Self::Gzip),
            Some("zstd") if is_tar => Ok(Self::Zstd),
            Some("tar") if is_tar => Ok(Self::None),
            _ => Err(MediaTypeError::NotALayer(text)),
        }
    }

    /// The OCI media type of a layer compressed so.
    #[must_use]
    pub fn layer_media_type(self) -> MediaType {
        match self {
            Self::None => MediaType::ImageLayer,
            Self::Gzip => MediaType::ImageLayerGzip,
            Self::Zstd => MediaType::ImageLayerZstd,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "uncompressed" => Ok(Self::None),
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            other => Err(format!("`{other}` is not a compression: use uncompressed, gzip or zstd")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(media_type: &str, expected: Option<Compression>) {
        assert_eq!(Compression::of_layer(&MediaType::from(media_type)).ok(), expected, "{media_type}");
    }

    #[test]
    fn layer_media_types_of_both_vocabularies_are_read() {
        check("application/vnd.oci.image.layer.v1.tar", Some(Compression::None));
        check("application/vnd.oci.image.layer.v1.tar+gzip", Some(Compression::Gzip));
        check("application/vnd.oci.image.layer.v1.tar+zstd", Some(Compression::Zstd));
        check("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(Compression::Gzip));
        check("application/vnd.docker.image.rootfs.diff.tar", Some(Compression::None));
        check("application/vnd.oci.image.config.v1+json", None);
        check("text/html", None);
    }

    #[test]
    fn manifest_kinds_ignore_parameters() {
        assert_eq!(
            ManifestKind::of("application/vnd.oci.image.index.v1+json; charset=utf-8"),
            Ok(ManifestKind::Index)
        );
        assert!(ManifestKind::of("application/json").is_err());
    }
}
