//! Images out of an archive that somebody saved: an OCI layout, a Docker archive, or both in one, as Docker writes since version 25; a tar,
//! compressed or not, or a directory.
//!
//! An archive is read in two steps. First its members are found, which for a stream means writing it to the store's area once; then its
//! documents say what to read, in their order and not in the archive's. Everything is verified before anything is named: an archive that is
//! cut short or damaged leaves nothing.

mod bundle;
mod docker;
mod layout;

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use layer::tar_read::TarError;
use oci::{Config, ConfigError, ImageId, Platform, Reference, ReferenceError, VerifyingReader};
use store::Expected;
use sys::RootfsPath;

use crate::receive::{self, DescriptorError, Documents, Offered, Origin, ReceiveError};
use crate::{Error, Layers, LocalImage};
use bundle::Bundle;

/// Where an archive is.
pub enum Source<'s> {
    /// A file or a directory.
    Path(PathBuf),
    /// A stream, read once from where it stands.
    Stream(&'s mut dyn Read),
}

/// An image that was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The image.
    pub image: LocalImage,
    /// What the archive calls it, and now the store, too; each with what it meant before.
    pub names: Vec<(Reference, Option<ImageId>)>,
}

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store.
    #[error(transparent)]
    Image(Box<Error>),
    /// The archive cannot be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// A file of the archive cannot be read, or is not what it is called.
    #[error("cannot read `{name}` of the archive")]
    Member {
        /// In the archive.
        name: RootfsPath,
        /// Why; a [`oci::VerifyError`] may be inside.
        source: io::Error,
    },
    /// The archive is no tar, or ends too early.
    #[error("the archive is damaged")]
    Tar(#[from] TarError),
    /// A tar, but not of images.
    #[error("the archive holds no images: it has neither `index.json` nor `manifest.json`")]
    NoImages,
    /// A root filesystem instead of an archive of images.
    #[error("the archive is a root filesystem, not an archive of images")]
    RootFilesystem,
    /// A file that is needed is not there.
    #[error("the archive has no `{0}`")]
    Missing(RootfsPath),
    /// A name that no file can have.
    #[error("the archive has an impossible path")]
    Path(#[from] sys::PathError),
    /// A file with holes, which no tool writes into such an archive.
    #[error("`{0}` is a sparse file, which cannot be read here")]
    Sparse(RootfsPath),
    /// A document of over 4 MiB.
    #[error("`{name}` has {bytes} bytes, more than a document may have")]
    TooLarge {
        /// In the archive.
        name: RootfsPath,
        /// Its size.
        bytes: u64,
    },
    /// A document that is not what it should be.
    #[error("`{name}` of the archive is malformed")]
    Document {
        /// In the archive.
        name: RootfsPath,
        /// Why.
        source: serde_json::Error,
    },
    /// A config that is none.
    #[error("`{name}` of the archive is no image config")]
    Config {
        /// In the archive.
        name: RootfsPath,
        /// Why.
        source: ConfigError,
    },
    /// A config under a name that is another's digest.
    #[error("`{name}` of the archive has the digest {got}")]
    WrongName {
        /// In the archive.
        name: RootfsPath,
        /// Of its bytes.
        got: oci::Digest,
    },
    /// Nothing that is called so.
    #[error("the layout has no image `{wanted}`, only {}", list(available))]
    NotInLayout {
        /// What was asked for.
        wanted: Pick,
        /// What there is.
        available: Vec<String>,
    },
    /// A reference to something that cannot be read as an image.
    #[error("the archive holds something that cannot be loaded")]
    Descriptor(#[from] DescriptorError),
    /// Indexes within indexes.
    #[error("the archive has more than {0} indexes within each other")]
    TooDeep(u32),
    /// None of the images is for this platform.
    #[error("the archive has no image for {wanted}, only for {}", list(available))]
    NoPlatform {
        /// The platform asked for.
        wanted: Platform,
        /// Those there are.
        available: Vec<Platform>,
    },
    /// A name that no image can have.
    #[error("the archive names an image `{name}`")]
    Reference {
        /// As written.
        name: String,
        /// Why it cannot be.
        source: ReferenceError,
    },
    /// A manifest and a config that do not belong together.
    #[error("the manifest of image {image} has {layers} layers, its config {diff_ids}")]
    LayerCount {
        /// The config's digest.
        image: ImageId,
        /// In the manifest.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },
    /// More layers than can be mounted.
    #[error("image {image} has {layers} layers, more than the {limit} that can be mounted")]
    TooManyLayers {
        /// The config's digest.
        image: ImageId,
        /// How many it has.
        layers: usize,
        /// The most there may be.
        limit: usize,
    },
    /// A layer.
    #[error(transparent)]
    Layer(#[from] ReceiveError),
}

impl From<Error> for LoadError {
    fn from(error: Error) -> Self {
        Self::Image(Box::new(error))
    }
}

fn list(items: &[impl ToString]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// An image as the archive describes it.
struct Described {
    documents: Documents,
    layers: Vec<Offered<RootfsPath>>,
    names: Vec<Reference>,
}

/// Loads every image of an archive; of one that is there for several platforms, the one that fits `platform` best. Names it as the archive does.
///
/// `threads` layers are read at once.
///
/// # Errors
/// [`LoadError`]; then nothing has been named.
pub fn load(
    layers: &Layers<'_>,
    source: Source<'_>,
    platform: &Platform,
    threads: usize,
) -> Result<Vec<Loaded>, LoadError> {
    load_all(layers, source, platform, threads).map_err(|error| or_cancelled(layers, error))
}

/// A cancellation shows as one of many errors.
fn or_cancelled(layers: &Layers<'_>, error: LoadError) -> LoadError {
    if layers.is_cancelled() { Error::Cancelled.into() } else { error }
}

fn load_all(
    layers: &Layers<'_>,
    source: Source<'_>,
    platform: &Platform,
    threads: usize,
) -> Result<Vec<Loaded>, LoadError> {
    let bundle = Bundle::open(layers, source)?;
    let images = describe(&bundle, platform)?;
    let mut earlier = HashSet::new();
    let mut staged = Vec::with_capacity(images.len());
    for image in images {
        let taken = receive::stage(layers, &image.layers, &bundle, threads, &mut earlier)?;
        staged.push((image, taken));
    }
    let mut loaded = Vec::with_capacity(staged.len());
    for (described, taken) in staged {
        let ids = receive::publish(layers, taken, &described.layers, &bundle)?;
        let (image, replaced) = receive::commit(layers, described.documents, ids, &described.names)?;
        loaded.push(Loaded { image, names: described.names.into_iter().zip(replaced).collect() });
    }
    Ok(loaded)
}

/// Which image of a layout is meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Pick {
    /// The one of this name, or whose name ends in this tag.
    Tag(String),
    /// The one whose manifest or index has this digest.
    Digest(oci::Digest),
}

/// Takes one image out of an OCI layout directory, and gives it no name; of several platforms, the one that fits `platform` best.
///
/// # Errors
/// [`LoadError::NotInLayout`], and all the others.
pub fn pick(
    layers: &Layers<'_>,
    layout: &Path,
    wanted: &Pick,
    platform: &Platform,
    threads: usize,
) -> Result<LocalImage, LoadError> {
    pick_one(layers, layout, wanted, platform, threads).map_err(|error| or_cancelled(layers, error))
}

fn pick_one(
    layers: &Layers<'_>,
    layout: &Path,
    wanted: &Pick,
    platform: &Platform,
    threads: usize,
) -> Result<LocalImage, LoadError> {
    let bundle = Bundle::open(layers, Source::Path(layout.to_owned()))?;
    let described = layout::describe_one(&bundle, wanted, platform)?;
    let taken = receive::stage(layers, &described.layers, &bundle, threads, &mut HashSet::new())?;
    let ids = receive::publish(layers, taken, &described.layers, &bundle)?;
    Ok(receive::commit(layers, described.documents, ids, &[])?.0)
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// An OCI layout says more than a Docker archive, so where both are there, Docker's document adds only names, and images that the
/// layout does not have.
fn describe(bundle: &Bundle, platform: &Platform) -> Result<Vec<Described>, LoadError> {
    let mut images = match bundle.contains(&layout::INDEX.path()?) {
        true => layout::describe(bundle, platform)?,
        false => Vec::new(),
    };
    if bundle.contains(&docker::MANIFEST.path()?) {
        for image in docker::describe(bundle)? {
            match images.iter_mut().find(|known| known.documents.id == image.documents.id) {
                Some(known) => known.add_names(image.names),
                None => images.push(image),
            }
        }
    }
    if images.is_empty() { Err(bundle.no_images()) } else { Ok(images) }
}

/// The name of a document at the top of an archive.
struct DocumentName(&'static str);

impl DocumentName {
    fn path(&self) -> Result<RootfsPath, sys::PathError> {
        RootfsPath::parse(self.0)
    }
}

impl Described {
    /// Puts documents and layers together.
    fn new(
        id: ImageId,
        config: (Config, Vec<u8>),
        layers: Vec<(RootfsPath, Option<Expected>)>,
        names: Vec<Reference>,
    ) -> Result<Self, LoadError> {
        let (config, config_bytes) = config;
        let (got, diff_ids) = (layers.len(), &config.rootfs.diff_ids);
        if got != diff_ids.len() {
            return Err(LoadError::LayerCount { image: id, layers: got, diff_ids: diff_ids.len() });
        }
        if got > crate::MAX_LAYERS {
            return Err(LoadError::TooManyLayers { image: id, layers: got, limit: crate::MAX_LAYERS });
        }
        let offered = diff_ids.iter().cloned().zip(layers);
        let layers =
            offered.map(|(diff_id, (place, expected))| Offered { diff_id, expected, place }).collect();
        let documents = Documents { id, config, config_bytes, manifests: Vec::new() };
        Ok(Self { documents, layers, names })
    }

    fn add_names(&mut self, names: Vec<Reference>) {
        for name in names {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
    }
}

impl Origin for Bundle {
    type Place = RootfsPath;

    // An archive that is refused leaves nothing.
    const KEEPS_BLOBS: bool = false;

    fn open<'o>(&'o self, layer: &'o Offered<RootfsPath>) -> io::Result<Box<dyn Read + 'o>> {
        let bytes = self.open_file(&layer.place)?;
        Ok(match &layer.expected {
            Some(Expected { digest, size_bytes }) => {
                Box::new(VerifyingReader::new(bytes, digest.clone(), *size_bytes))
            }
            None => bytes,
        })
    }
}

fn reference(name: &str) -> Result<Reference, LoadError> {
    Reference::parse(name).map_err(|source| LoadError::Reference { name: name.to_owned(), source })
}
