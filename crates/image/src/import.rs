//! A root filesystem's tar as an image of one layer.
//!
//! The layer is of our own making: canonical, whatever wrote the tar. The tar is written down once, so that it can be read twice: for its
//! entries, which say what each member really becomes, and for the tree.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read};
use std::path::Path;

use layer::foreign::{self, ForeignError, Whiteouts};
use layer::pack::{FileDigests, Form, Packed, pack};
use layer::seal::TreeContents;
use layer::unpack::UnpackError;
use layer::{Entries, Limits, Merged, compress};
use oci::{Config, History, ImageId, Platform, Reference};
use store::{Layer, LayerDraft};
use sys::root::Dir;

use crate::layers::pack_error;
use crate::stream::{Cancellable, Copying};
use crate::{AssembleOptions, Contents, Error, Layers, assemble};

/// Threads that read files for the DiffID.
const READERS: usize = 4;

/// What an import is told besides the tar.
#[derive(Clone, Debug)]
pub struct ImportOptions<'o> {
    /// What to call the image.
    pub tags: &'o [Reference],
    /// What the binaries in it are made for.
    pub platform: &'o Platform,
    /// RFC 3339.
    pub created: Option<String>,
    /// The comment in the image's history.
    pub message: String,
}

/// An image that was imported.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The digest of its config.
    pub id: ImageId,
    /// Its only layer.
    pub layer: Layer,
    /// What each tag meant before.
    pub replaced: Vec<Option<ImageId>>,
}

/// Why a tar could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The store.
    #[error(transparent)]
    Image(Box<Error>),
    /// The tar did not come to its end, or could not be written down.
    #[error("cannot read the root filesystem")]
    Read(#[source] io::Error),
    /// It is no tar, or one that makes no root filesystem.
    #[error("this is no root filesystem that can be used")]
    Tar(#[source] Box<ForeignError>),
    /// There is nothing in it.
    #[error("the root filesystem is empty")]
    Empty,
    /// An archive of images instead of a root filesystem.
    #[error("this is an archive of images, not a root filesystem")]
    ArchiveOfImages,
    /// Its files could not be made.
    #[error("the root filesystem cannot be unpacked")]
    Unpack(#[from] UnpackError),
}

impl From<Error> for ImportError {
    fn from(error: Error) -> Self {
        Self::Image(Box::new(error))
    }
}

impl From<store::Error> for ImportError {
    fn from(error: store::Error) -> Self {
        Error::from(error).into()
    }
}

/// Makes an image of a root filesystem's tar, compressed in any way or not at all. As with Docker, it has no configuration.
///
/// # Errors
/// [`ImportError`]; nothing is left of it then.
pub fn import(
    layers: &Layers<'_>,
    tar: impl Read,
    options: &ImportOptions<'_>,
) -> Result<Imported, ImportError> {
    let imported = import_tar(layers, tar, options);
    imported.map_err(|error| if layers.is_cancelled() { Error::Cancelled.into() } else { error })
}

fn import_tar(
    layers: &Layers<'_>,
    tar: impl Read,
    options: &ImportOptions<'_>,
) -> Result<Imported, ImportError> {
    let path = layers.lease().scratch_dir()?.join("rootfs.tar");
    let entries = spool(layers, tar, &path)?;
    check(&entries)?;
    let draft = layers.lease().layer_draft()?;
    let packed = unpack(layers, &path, &entries, &draft)?;
    let layer = layers.publish(draft, &packed)?;
    let mut config = Config::empty(options.platform);
    config.history.push(History {
        created: options.created.clone(),
        comment: options.message.clone(),
        ..History::default()
    });
    let contents = Contents { layers: vec![layer.id().clone()], config };
    let created = options.created.clone();
    let image = assemble(layers, &contents, &AssembleOptions { created, tags: options.tags })?;
    Ok(Imported { id: image.id, layer, replaced: image.replaced })
}

/// Writes the tar down, uncompressed, and reads its entries on the way.
fn spool(layers: &Layers<'_>, tar: impl Read, path: &Path) -> Result<Entries, ImportError> {
    let file = File::create_new(path).map_err(Error::at("create", path))?;
    let tar = Cancellable::new(tar, layers.cancelled());
    let unpacked = compress::unpacked(tar, &Limits::STANDARD).map_err(ImportError::Read)?;
    let mut copying = Copying::new(unpacked, BufWriter::with_capacity(1 << 18, file));
    let read = foreign::read(&mut copying, &Merged::default(), Whiteouts::Refused, &Limits::STANDARD);
    let tar_error = match read {
        Ok(foreign) => return copying.finish().map(|_| foreign.entries).map_err(ImportError::Read),
        Err(error) => ImportError::Tar(Box::new(error)),
    };
    // The tar may make no sense because it did not come.
    Err(copying.failure().map_or(tar_error, ImportError::Read))
}

/// Refuses what is surely a mistake.
fn check(entries: &Entries) -> Result<(), ImportError> {
    let has = |name: &str| entries.as_slice().iter().any(|entry| entry.path.as_bytes() == name.as_bytes());
    if entries.as_slice().iter().all(|entry| entry.path.is_root()) {
        return Err(ImportError::Empty);
    }
    let is_archive =
        has("oci-layout") && has("index.json") || has("manifest.json") && !has("bin") && !has("usr");
    if is_archive && !has("etc") { Err(ImportError::ArchiveOfImages) } else { Ok(()) }
}

fn unpack(
    layers: &Layers<'_>,
    tar: &Path,
    entries: &Entries,
    draft: &LayerDraft,
) -> Result<Packed, ImportError> {
    let fs = draft.make_fs()?;
    let dir = Dir::open(&fs).map_err(Error::at("open", &fs))?;
    let file = File::open(tar).map_err(Error::at("open", tar))?;
    let bytes = BufReader::with_capacity(1 << 18, Cancellable::new(file, layers.cancelled()));
    layer::unpack::unpack(bytes, entries, &dir)?;
    std::fs::remove_file(tar).map_err(Error::at("remove", tar))?;
    let (list, contents) = (entries.as_slice().to_vec(), TreeContents { tree: &dir });
    let packed = pack(list, &contents, FileDigests::Known, Form::DiffIdOnly, READERS, layers.cancelled());
    Ok(packed.map_err(|source| pack_error(&entries.layer_id(), source))?)
}
