//! What goes wrong with layers and images that are in the store already.

use std::io;
use std::path::{Path, PathBuf};

use layer::entries::DecodeError;
use layer::pack::PackError;
use layer::unpack::UnpackError;
use oci::{ConfigError, DiffId, ImageId, LayerId};

/// What operations on layers and images of the store fail with. Operations that meet the outside have errors of their own around it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store itself.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A layer's entry list cannot be read.
    #[error("the entry list of layer {layer} cannot be used")]
    Entries {
        /// Which layer.
        layer: LayerId,
        /// Why.
        source: DecodeError,
    },
    /// A layer's tar could not be made a tree.
    #[error("layer {layer} cannot be unpacked")]
    Unpack {
        /// Which layer.
        layer: LayerId,
        /// Why.
        source: UnpackError,
    },
    /// A layer's tree could not be made a tar.
    #[error("layer {layer} cannot be packed")]
    Pack {
        /// Which layer.
        layer: LayerId,
        /// Why.
        source: PackError,
    },
    /// A layer's tar or compressed form cannot be read, or its bytes are not what they were.
    #[error("layer {layer} cannot be read")]
    Read {
        /// Which layer.
        layer: LayerId,
        /// Why; a [`oci::VerifyError`] may be inside.
        source: io::Error,
    },
    /// A layer's bytes are not those that its DiffID names.
    #[error("layer {layer} should be the tar {expected}, and is {got}")]
    WrongDiffId {
        /// Which layer.
        layer: LayerId,
        /// As recorded.
        expected: DiffId,
        /// As found.
        got: DiffId,
    },
    /// Of a layer with files nothing but the entry list is left.
    #[error("layer {0} has lost its contents")]
    NoContents(LayerId),
    /// An image's config is no config.
    #[error("the config of image {image} cannot be used")]
    Config {
        /// Which image.
        image: ImageId,
        /// Why.
        source: ConfigError,
    },
    /// More layers than overlayfs mounts.
    #[error("an image of {layers} layers cannot be mounted: {limit} is the most")]
    TooManyLayers {
        /// How many it would have.
        layers: usize,
        /// The most there may be.
        limit: usize,
    },
    /// A file outside a layer's contents.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// A verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pipe or a thread could not be made.
    #[error("the system gives no {what}")]
    Resource {
        /// What was asked for.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Says what was being done to `path` when the system call failed.
    pub(crate) fn at(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.as_ref().to_path_buf(), source }
    }
}
