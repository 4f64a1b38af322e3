//! The vocabulary of images: what the OCI image and distribution specifications name, as types that cannot be wrong.
//!
//! Text becomes a [`Digest`], a [`Reference`] or a [`Platform`] once, at the edge; below it nobody parses again. Digests
//! with different meaning are different types: [`DiffId`], [`ContentDigest`], [`LayerId`], [`ImageId`].
//!
//! Descriptors, manifests and indexes are those of `oci-spec`, re-exported here. The image config is our own [`Config`]: it
//! keeps every field it does not know and writes maps in a fixed order, so that the same image has the same digest in
//! every run.
//!
//! The crate does no I/O of its own.
//!
//! ```
//! let reference = oci::Reference::parse("alpine").unwrap();
//! assert_eq!(reference.to_string(), "docker.io/library/alpine:latest");
//! ```

#![forbid(unsafe_code)]

mod config;
mod digest;
mod media_type;
mod platform;
mod reference;
mod verify;

pub use config::{Config, ConfigError, DEFAULT_PATH, EmptyObject, Execution, Healthcheck, History, RootFs};
pub use digest::{Algorithm, ContentDigest, DiffId, Digest, DigestError, Hasher, ImageId, LayerId};
pub use media_type::{Compression, ManifestKind, MediaTypeError};
pub use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};
pub use verify::{VerifyError, VerifyingReader};
