//! Images out of the store: archives for other tools, and plain files.
//!
//! | function | gives | read by |
//! | --- | --- | --- |
//! | [`archive`] with [`Format::Oci`] | an OCI layout in a tar | skopeo, podman, buildah, BuildKit, ours |
//! | [`archive`] with [`Format::Docker`] | the same plus `manifest.json` | `docker load`, and all of those |
//! | [`layout`] | an OCI layout as a directory | umoci, skopeo, buildah |
//! | [`rootfs_tar`] | the files, as one canonical tar | tar, `docker import`, `rbuild import` |
//! | [`rootfs_tree`] | the files | everybody |
//!
//! The same image gives the same bytes every time. Layers that came from outside leave as they came; ours are compressed here, once, and the
//! result stays with the layer: [`compress()`] does no more than that. A file appears under its name when it is complete.

mod annotations;
mod documents;
pub(crate) mod output;
pub(crate) mod package;
mod tree;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use layer::compress;
use layer::merged::ResolveError;
use layer::pack::PackError;
use layer::unpack::TreeError;
use layer::{Entry, FileDigest, entries::Kind, tar_header};
use oci::{Compression, Digest, ImageId, LayerId, Reference, VerifyingReader};
use sys::RootfsPath;
use sys::root::Time;

use crate::flat::Flat;
use crate::oci_layout::{INDEX_FILE, blob_path};
use crate::stream::{self, CopyError};
use crate::{Error, Layers, LocalImage};
use package::{File, Group, Packing};

pub use annotations::{Annotation, AnnotationOf};
pub use output::Destination;
pub use tree::{rootfs_mirror, rootfs_part, rootfs_tree};

/// How layers leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Encoding {
    /// Of layers of our own making.
    pub compression: Compression,
    /// One of [`levels`](layer::compress::levels).
    pub level: i32,
    /// Whether what came in another compression leaves in this one, too.
    pub is_forced: bool,
}

impl From<Compression> for Encoding {
    /// At the usual level, and without changing what came from elsewhere.
    fn from(compression: Compression) -> Self {
        Self { compression, level: compress::default_level(compression), is_forced: false }
    }
}

/// Which documents an archive has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// An OCI layout.
    Oci,
    /// An OCI layout that is a Docker archive, too.
    Docker,
}

/// An image and what an archive is to call it.
#[derive(Clone, Debug)]
pub struct Named {
    /// The image, or one for each of several platforms: then what has the names is an index of them. Not empty.
    pub images: Vec<LocalImage>,
    /// Those without a tag are passed over.
    pub names: Vec<Reference>,
    /// What stands in the manifests and the index. An image with any gets a manifest of its own, even if it came with one.
    pub annotations: Vec<Annotation>,
}

/// What was exported of an image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exported {
    /// Of its manifest or its index.
    pub manifest: Digest,
}

/// Why an image could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store.
    #[error(transparent)]
    Image(Box<Error>),
    /// The output stream.
    #[error("cannot write the output")]
    Write(#[source] io::Error),
    /// Nobody can tell where the output should go.
    #[error("cannot find `{}`", path.display())]
    Place {
        /// The output.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is where the output should go, and not of its kind.
    #[error("`{}` is there already and is not {expected}", path.display())]
    InTheWay {
        /// The output.
        path: PathBuf,
        /// What could have been replaced.
        expected: &'static str,
    },
    /// The layout that is there cannot be added to.
    #[error("`{}` cannot be read as the index of an OCI layout", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The config of an image names another number of layers than it has here.
    #[error("the config of image {image} has {diff_ids} layers, and the store {layers}")]
    LayerCount {
        /// The image.
        image: ImageId,
        /// In the store.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },
    /// A layer's bytes are not those that the config names.
    #[error("the config of image {image} does not name layer {layer}")]
    WrongLayer {
        /// The image.
        image: ImageId,
        /// The layer.
        layer: LayerId,
    },
    /// A compressed layer could not be read, or has changed on the disk.
    #[error("blob {digest} cannot be read")]
    Blob {
        /// Which one.
        digest: Digest,
        /// Why; a [`oci::VerifyError`] may be inside.
        source: io::Error,
    },
    /// A layer's tar has another length than its entries say.
    #[error("the tar of layer {layer} should have {expected} bytes, and has {got}")]
    TarSize {
        /// The layer.
        layer: LayerId,
        /// From its entries.
        expected: u64,
        /// As found.
        got: u64,
    },
    /// The files could not be read.
    #[error("cannot pack the root filesystem")]
    Pack(#[source] PackError),
    /// The files could not be written.
    #[error("cannot write the root filesystem")]
    Tree(#[from] TreeError),
    /// A path that leads through a file, or links without end.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A name that no file can have.
    #[error("a path is impossible")]
    Path(#[from] sys::PathError),
}

impl ExportError {
    /// The one inside an error of a stream that gives such.
    pub(crate) fn inside(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(source) => Error::Resource { what: "stream", source }.into(),
        }
    }
}

impl From<Error> for ExportError {
    fn from(error: Error) -> Self {
        Self::Image(Box::new(error))
    }
}

impl From<store::Error> for ExportError {
    fn from(error: store::Error) -> Self {
        Error::from(error).into()
    }
}

/// Compresses layers as they come out of `ids` and keeps the results with them, for whoever exports or pushes them later.
///
/// # Errors
/// [`ExportError`]; what was compressed before stays.
pub fn compress(
    layers: &Layers<'_>,
    ids: impl IntoIterator<Item = LayerId>,
    encoding: Encoding,
) -> Result<(), ExportError> {
    for id in ids {
        if layers.is_cancelled() {
            return Err(Error::Cancelled.into());
        }
        package::layer(layers, &id, Packing::of(encoding))?;
    }
    Ok(())
}

/// Writes images into one archive. `compression` is for layers of our own making; what came from outside is not packed anew.
///
/// # Errors
/// [`ExportError`]; a file that should have been written is then as it was.
pub fn archive(
    layers: &Layers<'_>,
    images: &[Named],
    format: Format,
    encoding: Encoding,
    destination: Destination<'_>,
) -> Result<Vec<Exported>, ExportError> {
    let groups = package::all(layers, images, encoding)?;
    let mut files = documents::of(&groups, format)?;
    for (digest, file) in groups.iter().flat_map(Group::blobs) {
        files.insert(blob_path(&digest)?, file);
    }
    output::write(destination, |to| write_tar(layers, files, to))?;
    Ok(groups.iter().filter_map(Group::exported).collect())
}

/// Writes images into an OCI layout: a new directory, an empty one, or a layout that is there and gains them.
///
/// # Errors
/// [`ExportError`]; the index is written last, so what a failure leaves is not referred to.
pub fn layout(
    layers: &Layers<'_>,
    images: &[Named],
    encoding: Encoding,
    directory: &Path,
) -> Result<Vec<Exported>, ExportError> {
    let groups = package::all(layers, images, encoding)?;
    let existing = existing_index(directory)?;
    let blobs: BTreeMap<Digest, File> = groups.iter().flat_map(Group::blobs).collect();
    for (digest, file) in blobs {
        let path = directory.join(blob_path(&digest)?.as_relative());
        if !holds(&path, &digest, file.size) {
            output::create_parents(&path)?;
            output::write(Destination::File(path), |to| file.copy(layers, to))?;
        }
    }
    for (name, bytes) in documents::of_layout(&groups, existing)? {
        let path = directory.join(name);
        output::write(Destination::File(path), |to| to.write_all(&bytes).map_err(ExportError::Write))?;
    }
    Ok(groups.iter().filter_map(Group::exported).collect())
}

/// Whether a file is there and has these bytes. One that cannot be read is written anew.
fn holds(path: &Path, digest: &Digest, size: u64) -> bool {
    let Ok(file) = std::fs::File::open(path) else { return false };
    let mut bytes = VerifyingReader::new(file, digest.clone(), Some(size));
    io::copy(&mut bytes, &mut io::sink()).is_ok()
}

/// The index of the layout at `directory`, if there is one.
pub(crate) fn existing_index(directory: &Path) -> Result<Option<serde_json::Value>, ExportError> {
    let path = directory.join(INDEX_FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            output::check_empty(directory)?;
            return Ok(None);
        }
        Err(error) => return Err(Error::at("read", &path)(error).into()),
    };
    let index = serde_json::from_slice::<serde_json::Map<_, _>>(&bytes);
    index.map(|index| Some(index.into())).map_err(|source| ExportError::Index { path, source })
}

/// Files that go into a directory of a tar.
#[derive(Clone, Debug)]
pub struct Part {
    /// The directory; the root for the only part.
    pub below: RootfsPath,
    /// Lowest first.
    pub layers: Vec<LayerId>,
}

/// Writes files as one tar, the same for the same files. With `modified`, all say that they were last modified then.
///
/// # Errors
/// As [`archive`].
pub fn rootfs_tar(
    layers: &Layers<'_>,
    parts: &[Part],
    modified: Option<Time>,
    destination: Destination<'_>,
) -> Result<(), ExportError> {
    let flat = Flat::of_parts(layers, parts, modified)?;
    output::write(destination, |to| {
        let failed = |error| match error {
            PackError::Cancelled => Error::Cancelled.into(),
            error => ExportError::Pack(error),
        };
        let consume = |tar: &mut dyn Read| match stream::copy(tar, to) {
            Ok(_) => Ok(()),
            Err(CopyError::Read(source)) => Err(Error::Resource { what: "pipe", source }.into()),
            Err(CopyError::Write(source)) => Err(ExportError::Write(source)),
        };
        crate::tar::piped(layers, |form, stop| flat.pack(form, stop), failed, consume).map(drop)
    })
}

/// Writes files as a tar, with nothing in their headers that could differ from one time to the next.
fn write_tar(
    layers: &Layers<'_>,
    files: BTreeMap<RootfsPath, File>,
    to: &mut dyn Write,
) -> Result<(), ExportError> {
    let mut parents: Vec<RootfsPath> = files.keys().flat_map(RootfsPath::ancestors).collect();
    parents.sort();
    parents.dedup();
    for parent in parents.into_iter().filter(|parent| !parent.is_root()) {
        write_header(&Entry::directory(parent, Time::default()), to)?;
    }
    for (path, file) in files {
        let size = file.size;
        let kind = Kind::File { size, digest: FileDigest([0; 32]), member: 0 };
        write_header(&Entry { kind, mode: 0o644, ..Entry::directory(path, Time::default()) }, to)?;
        file.copy(layers, to)?;
        to.write_all(tar_header::padding(size)).map_err(ExportError::Write)?;
    }
    to.write_all(&tar_header::END).map_err(ExportError::Write)
}

fn write_header(entry: &Entry, to: &mut dyn Write) -> Result<(), ExportError> {
    let mut header = Vec::new();
    tar_header::append(entry, &mut header);
    to.write_all(&header).map_err(ExportError::Write)
}
