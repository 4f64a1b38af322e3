//! Layers from outside: their bytes into the store, their entries out of them, in one pass.
//!
//! Bytes are read once. While they go into the store's area they are unpacked, hashed and listed, several layers at a time. Most layers are
//! self-contained, so that listing them needs no look at the layers below; one that is not is read again in its place, when
//! those are known.
//!
//! [`stage`] names nothing in the store; what it took is gone if any of it turns out wrong. [`publish`] names the layers, [`commit`] the image.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use layer::compress::{self, Packing};
use layer::entries::{Entries, foreign_layer_id};
use layer::foreign::{self, Foreign, ForeignError, Whiteouts};
use layer::{Limits, Merged};
use oci::{
    Compression, Config, Descriptor, DiffId, Digest, DigestError, ImageId, ImageManifest, LayerId,
    MediaTypeError, Reference,
};
use store::{BlobOrigin, BlobWriter, Expected, Image, KnownManifest, Layer, LayerBlob, LayerDraft};

use crate::stream::{Cancellable, Copying};
use crate::{Error, Layers, LocalImage, parallel};

/// The longest magic number of [`Packing`].
const MAGIC_BYTES: u64 = 6;

/// A layer that somebody offers.
#[derive(Clone, Debug)]
pub(crate) struct Offered<S> {
    /// What its tar must be.
    pub(crate) diff_id: DiffId,
    /// What its bytes must be as they come, if anything was said of them.
    pub(crate) expected: Option<Expected>,
    /// Where its bytes are.
    pub(crate) place: S,
}

/// Where offered layers are read from. Errors of the bytes themselves come inside `io::Error`s; every byte is verified by the reader against
/// what was declared of it.
pub(crate) trait Origin: Sync {
    /// Says which layer.
    type Place: Clone + Sync;

    /// Whether a blob that came whole is named in the store at once, so that it does not have to come again if another one fails.
    const KEEPS_BLOBS: bool;

    /// Opens a layer's bytes from their start.
    fn open<'o>(&'o self, layer: &'o Offered<Self::Place>) -> io::Result<Box<dyn Read + 'o>>;

    /// Whether the bytes of a layer, which were of no use, may be better when they are asked for again.
    fn may_be_better(&self, _: &Offered<Self::Place>) -> bool {
        false
    }

    /// Told of a layer of which all has come, and is put away.
    fn has_come(&self, _: &Offered<Self::Place>) {}
}

/// Why a layer was refused.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The store.
    #[error(transparent)]
    Image(Box<Error>),
    /// The bytes did not come, or were not those that were announced.
    #[error("layer {diff_id} cannot be read")]
    Read {
        /// Of the layer, as the config has it.
        diff_id: DiffId,
        /// Why; a [`oci::VerifyError`] or the transport's own error may be inside.
        source: io::Error,
    },
    /// The bytes are no layer that can be used.
    #[error("layer {diff_id} cannot be used")]
    Foreign {
        /// Of the layer, as the config has it.
        diff_id: DiffId,
        /// Why.
        source: Box<ForeignError>,
    },
    /// The tar is another than the config says.
    #[error("the config says that a layer is the tar {expected}, but it is {got}")]
    WrongDiffId {
        /// In the config.
        expected: DiffId,
        /// Of the bytes.
        got: DiffId,
    },
}

impl From<Error> for ReceiveError {
    fn from(error: Error) -> Self {
        Self::Image(Box::new(error))
    }
}

impl From<store::Error> for ReceiveError {
    fn from(error: store::Error) -> Self {
        Error::from(error).into()
    }
}

/// Layers on their way, lowest first. Dropped, they leave nothing.
pub(crate) struct Staged<'l>(Vec<Slot<'l>>);

enum Slot<'l> {
    /// It is in the store.
    Known(LayerId),
    /// Its bytes are in the lease's area.
    Taken(Box<Taken<'l>>),
    /// Another image of the same archive has it, too, and comes first.
    Earlier,
}

struct Taken<'l> {
    kept: Kept<'l>,
    /// If it is self-contained.
    listed: Option<Foreign>,
}

/// Where a layer's bytes go.
enum Sink<'l> {
    /// As they are: the store keeps this compression.
    Blob(BlobWriter<'l>, Compression),
    /// As an uncompressed tar.
    Tar(LayerDraft, BufWriter<File>),
}

/// Where a layer's bytes are.
enum Kept<'l> {
    /// In the lease's area.
    Unnamed(BlobWriter<'l>, Compression),
    /// In the store.
    Blob(Digest, Compression),
    /// In the layer's tar form.
    Draft(LayerDraft),
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Blob(writer, _) => writer.write(bytes),
            Self::Tar(_, writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Blob(writer, _) => writer.flush(),
            Self::Tar(_, writer) => writer.flush(),
        }
    }
}

/// Takes an image's layers, at most `threads` at once. Layers that the store has are not opened; nor are those in `earlier`, to which the
/// others are added.
pub(crate) fn stage<'l, O: Origin>(
    layers: &'l Layers<'_>,
    offered: &[Offered<O::Place>],
    origin: &O,
    threads: usize,
    earlier: &mut HashSet<DiffId>,
) -> Result<Staged<'l>, ReceiveError> {
    let is_earlier: Vec<bool> = offered.iter().map(|layer| !earlier.insert(layer.diff_id.clone())).collect();
    let items: Vec<(&Offered<O::Place>, bool)> = offered.iter().zip(is_earlier).collect();
    let slot = |(layer, is_earlier): &(&Offered<O::Place>, bool)| match known(layers, &layer.diff_id)? {
        Some(id) => Ok(Slot::Known(id)),
        None if *is_earlier => Ok(Slot::Earlier),
        None => match take(layers, layer, origin) {
            Err(_) if origin.may_be_better(layer) => take(layers, layer, origin),
            taken => taken,
        }
        .map(|taken| Slot::Taken(Box::new(taken))),
    };
    parallel::map(threads, &items, slot).map(Staged)
}

/// A self-contained layer that is in the store with all it needs.
fn known(layers: &Layers<'_>, diff_id: &DiffId) -> Result<Option<LayerId>, Error> {
    let id = foreign_layer_id(diff_id, None);
    let found = layers.lease().layers(std::slice::from_ref(&id))?;
    let Some(layer) = found.and_then(|found| found.into_iter().next()) else { return Ok(None) };
    Ok(has_contents(layers, &layer)?.then_some(id))
}

/// Whether the bytes of a layer are there in any form; a repair may have moved a damaged blob out of the way.
fn has_contents(layers: &Layers<'_>, layer: &Layer) -> Result<bool, Error> {
    if layer.fs_path().is_some() || layer.tar_path().is_some() {
        return Ok(true);
    }
    for blob in layer.blobs() {
        if layers.lease().store().contains_blob(&blob.digest)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads one layer to its end.
fn take<'l, O: Origin>(
    layers: &'l Layers<'_>,
    offered: &Offered<O::Place>,
    origin: &O,
) -> Result<Taken<'l>, ReceiveError> {
    let failed = |source| read_error(layers, offered, source);
    let mut bytes = Cancellable::new(origin.open(offered).map_err(failed)?, layers.cancelled());
    let mut magic = Vec::new();
    bytes.by_ref().take(MAGIC_BYTES).read_to_end(&mut magic).map_err(failed)?;
    let packing = Packing::sniff(&magic);
    let mut bytes = magic.chain(bytes);
    let sink = match packing {
        Packing::Gzip => Sink::Blob(blob_writer(layers, offered)?, Compression::Gzip),
        Packing::Zstd => Sink::Blob(blob_writer(layers, offered)?, Compression::Zstd),
        Packing::Plain | Packing::Bzip2 | Packing::Xz => tar_sink(layers)?,
    };
    let taken = match (&sink, packing) {
        (Sink::Tar(..), Packing::Bzip2 | Packing::Xz) => {
            let unpacked = compress::unpacked(&mut bytes, &Limits::STANDARD).map_err(failed)?;
            let taken = take_from::<O>(layers, offered, unpacked, sink)?;
            io::copy(&mut bytes, &mut io::sink()).map_err(failed)?;
            taken
        }
        _ => take_from::<O>(layers, offered, bytes, sink)?,
    };
    origin.has_come(offered);
    Ok(taken)
}

fn take_from<'l, O: Origin>(
    layers: &'l Layers<'_>,
    offered: &Offered<O::Place>,
    bytes: impl Read,
    sink: Sink<'l>,
) -> Result<Taken<'l>, ReceiveError> {
    let mut copying = Copying::new(bytes, sink);
    let listed = list(layers, offered, &mut copying, &Merged::default());
    // If the bytes did not come, that is the error, and not what the reader of the tar made of it.
    let sink = copying.finish().map_err(|source| read_error(layers, offered, source))?;
    let listed = match listed {
        Ok(foreign) if foreign.lookups.is_none() => Some(foreign),
        // Without what lies below, neither a success nor a failure says anything, but for the DiffID.
        Ok(_) | Err(ReceiveError::Foreign { .. }) => None,
        Err(error) => return Err(error),
    };
    let kept = match sink {
        Sink::Tar(draft, _) => Kept::Draft(draft),
        Sink::Blob(writer, compression) if O::KEEPS_BLOBS => Kept::Blob(writer.finish()?.digest, compression),
        Sink::Blob(writer, compression) => Kept::Unnamed(writer, compression),
    };
    Ok(Taken { kept, listed })
}

fn blob_writer<'l, S>(layers: &'l Layers<'_>, offered: &Offered<S>) -> Result<BlobWriter<'l>, Error> {
    Ok(layers.lease().blob_writer(offered.expected.clone())?)
}

fn tar_sink<'l>(layers: &Layers<'_>) -> Result<Sink<'l>, Error> {
    let draft = layers.lease().layer_draft()?;
    let path = draft.tar_path();
    let file = File::create_new(&path).map_err(Error::at("create", &path))?;
    Ok(Sink::Tar(draft, BufWriter::with_capacity(1 << 18, file)))
}

/// Lists a layer over what lies below, and insists on its DiffID.
fn list<S>(
    layers: &Layers<'_>,
    offered: &Offered<S>,
    bytes: impl Read,
    below: &Merged,
) -> Result<Foreign, ReceiveError> {
    let foreign = foreign::read(bytes, below, Whiteouts::Honoured, &Limits::STANDARD).map_err(|source| {
        if layers.is_cancelled() {
            return Error::Cancelled.into();
        }
        ReceiveError::Foreign { diff_id: offered.diff_id.clone(), source: Box::new(source) }
    })?;
    if foreign.diff_id == offered.diff_id {
        return Ok(foreign);
    }
    Err(ReceiveError::WrongDiffId { expected: offered.diff_id.clone(), got: foreign.diff_id })
}

fn read_error<S>(layers: &Layers<'_>, offered: &Offered<S>, source: io::Error) -> ReceiveError {
    if layers.is_cancelled() {
        return Error::Cancelled.into();
    }
    ReceiveError::Read { diff_id: offered.diff_id.clone(), source }
}

/// Names staged layers in the store; gives their ids, lowest first.
pub(crate) fn publish<O: Origin>(
    layers: &Layers<'_>,
    staged: Staged<'_>,
    offered: &[Offered<O::Place>],
    origin: &O,
) -> Result<Vec<LayerId>, ReceiveError> {
    publish_upon(layers, &[], staged, offered, origin)
}

/// The same for layers that stand upon others, whose ids then stand before theirs.
pub(crate) fn publish_upon<O: Origin>(
    layers: &Layers<'_>,
    lowest: &[LayerId],
    staged: Staged<'_>,
    offered: &[Offered<O::Place>],
    origin: &O,
) -> Result<Vec<LayerId>, ReceiveError> {
    let mut below = Below { layers, lists: vec![None; lowest.len()], ids: lowest.to_vec() };
    let mut ready = Vec::new();
    for (slot, offered) in staged.0.into_iter().zip(offered) {
        let taken = match slot {
            Slot::Known(id) => Err(id),
            Slot::Taken(taken) => Ok(*taken),
            Slot::Earlier => match known(layers, &offered.diff_id)? {
                Some(id) => Err(id),
                None => Ok(take(layers, offered, origin)?),
            },
        };
        match taken {
            Err(id) => below.add(id, None),
            Ok(taken) => {
                let (foreign, kept) = place(layers, taken, offered, &below)?;
                let id = foreign_layer_id(&foreign.diff_id, foreign.lookups.as_ref());
                below.add(id.clone(), Some(foreign.entries.clone()));
                ready.push((id, foreign, kept));
            }
        }
    }
    for (id, foreign, kept) in ready {
        let draft = kept.into_draft(layers)?;
        layers.publish_as(draft, &id, &foreign.entries, &foreign.diff_id)?;
    }
    Ok(below.ids)
}

/// The layers below the one that is being placed.
struct Below<'b, 'l> {
    layers: &'b Layers<'l>,
    ids: Vec<LayerId>,
    /// `None` for a layer whose list the store has.
    lists: Vec<Option<Entries>>,
}

impl Below<'_, '_> {
    fn add(&mut self, id: LayerId, list: Option<Entries>) {
        self.ids.push(id);
        self.lists.push(list);
    }

    fn merged(&self) -> Result<Merged, Error> {
        let lists = self.ids.iter().zip(&self.lists);
        let lists: Result<_, Error> =
            lists.map(|(id, list)| list.clone().map_or_else(|| self.layers.entries(id), Ok)).collect();
        lists.map(Merged::new)
    }
}

/// Gives a layer's list as it is over those below, which a self-contained one has already.
fn place<'l, S>(
    layers: &Layers<'_>,
    taken: Taken<'l>,
    offered: &Offered<S>,
    below: &Below<'_, '_>,
) -> Result<(Foreign, Kept<'l>), ReceiveError> {
    if let Some(foreign) = taken.listed {
        return Ok((foreign, taken.kept));
    }
    tracing::debug!(diff_id = %offered.diff_id, "reading a layer again, over the layers below it");
    let (kept, bytes) = taken.kept.reopen(layers)?;
    let bytes = Cancellable::new(bytes, layers.cancelled());
    let foreign = list(layers, offered, bytes, &below.merged()?)?;
    Ok((foreign, kept))
}

impl Kept<'_> {
    /// The bytes once more. A blob that has no name yet gets one.
    fn reopen(self, layers: &Layers<'_>) -> Result<(Self, File), Error> {
        match self {
            Self::Unnamed(writer, compression) => {
                Self::Blob(writer.finish()?.digest, compression).reopen(layers)
            }
            Self::Blob(digest, compression) => {
                let file = layers.lease().store().open_blob(&digest)?;
                let file = file.ok_or_else(|| store::Error::MissingBlob(digest.clone()))?;
                Ok((Self::Blob(digest, compression), file))
            }
            Self::Draft(draft) => {
                let path = draft.tar_path();
                let file = File::open(&path).map_err(Error::at("open", path))?;
                Ok((Self::Draft(draft), file))
            }
        }
    }

    /// The draft of a layer that has these bytes as its form.
    fn into_draft(self, layers: &Layers<'_>) -> Result<LayerDraft, Error> {
        match self {
            Self::Draft(draft) => Ok(draft),
            Self::Unnamed(writer, compression) => draft_of(layers, &writer.finish()?.digest, compression),
            Self::Blob(digest, compression) => draft_of(layers, &digest, compression),
        }
    }
}

fn draft_of(layers: &Layers<'_>, digest: &Digest, compression: Compression) -> Result<LayerDraft, Error> {
    let draft = layers.lease().layer_draft()?;
    let origin = BlobOrigin::Received;
    draft.add_blob(&LayerBlob { digest: digest.clone(), compression, origin })?;
    Ok(draft)
}

/// Why a descriptor is of no use.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// A digest of an algorithm that cannot be verified.
    #[error("a digest cannot be verified")]
    Digest(#[from] DigestError),
    /// Something else than an image, an index or a layer.
    #[error("this is no image")]
    MediaType(#[from] MediaTypeError),
}

/// What a layer's descriptor says of its bytes.
pub(crate) fn layer_bytes(layer: &Descriptor) -> Result<Expected, DescriptorError> {
    Compression::of_layer(layer.media_type())?;
    Ok(Expected { digest: layer.digest().try_into()?, size_bytes: Some(layer.size()) })
}

/// What the store is to remember of a manifest and of the indexes that led to it.
pub(crate) fn known_manifests(
    manifest: &ImageManifest,
    documents: Vec<(Digest, Vec<u8>)>,
) -> Result<Vec<(KnownManifest, Vec<u8>)>, DescriptorError> {
    let layers: Result<Vec<Digest>, _> =
        manifest.layers().iter().map(|layer| layer.digest().try_into()).collect();
    let layers = layers?;
    let compression = match manifest.layers().first() {
        Some(layer) => Compression::of_layer(layer.media_type())?,
        None => Compression::Gzip,
    };
    let known = |digest| KnownManifest { digest, compression, layers: layers.clone() };
    Ok(documents.into_iter().map(|(digest, bytes)| (known(digest), bytes)).collect())
}

/// An image's documents as they came.
pub(crate) struct Documents {
    pub(crate) id: ImageId,
    pub(crate) config: Config,
    pub(crate) config_bytes: Vec<u8>,
    /// Manifests and indexes.
    pub(crate) manifests: Vec<(KnownManifest, Vec<u8>)>,
}

/// Makes an image whose layers are in the store durable, and names it.
pub(crate) fn commit(
    layers: &Layers<'_>,
    documents: Documents,
    ids: Vec<LayerId>,
    tags: &[Reference],
) -> Result<(LocalImage, Vec<Option<ImageId>>), Error> {
    put(layers, documents.id.digest(), &documents.config_bytes)?;
    for (known, bytes) in &documents.manifests {
        put(layers, &known.digest, bytes)?;
    }
    let manifests = documents.manifests.into_iter().map(|(known, _)| known).collect();
    let image = Image { id: documents.id.clone(), layers: ids, manifests };
    let replaced = layers.lease().commit_image(&image, tags)?;
    let replaced = replaced.into_iter().map(|tag| tag.map(|tag| tag.image)).collect();
    let Image { id, layers, manifests } = image;
    Ok((LocalImage { id, config: documents.config, layers, manifests }, replaced))
}

/// Stores a document under the digest it was asked for by, which need not be a sha256.
fn put(layers: &Layers<'_>, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
    let size_bytes = Some(bytes.len() as u64);
    let expected = Expected { digest: digest.clone(), size_bytes };
    let mut writer = layers.lease().blob_writer(Some(expected))?;
    writer.write_all(bytes).map_err(Error::at("write", digest.to_string()))?;
    writer.finish()?;
    Ok(())
}
