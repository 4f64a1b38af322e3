//! Names in an OCI layout (OCI image spec, "Image Layout"), for those who read and those who write one.

use oci::Digest;
use sys::RootfsPath;

/// What a layout begins with.
pub(crate) const INDEX_FILE: &str = "index.json";

/// What says that a directory is a layout, and of which version.
pub(crate) const LAYOUT_FILE: &str = "oci-layout";

/// containerd's annotation with an image's full name.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";

/// The specification's annotation with a name, in practice the tag only (OCI image spec, "Pre-Defined Annotation Keys").
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Where a layout has a blob.
pub(crate) fn blob_path(digest: &Digest) -> Result<RootfsPath, sys::PathError> {
    RootfsPath::parse(format!("blobs/{}/{}", digest.algorithm().name(), digest.hex()))
}
