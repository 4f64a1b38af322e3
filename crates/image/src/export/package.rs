//! An image as the files of a layout: manifest, config, and each layer in the form in which it leaves.
//!
//! Which form that is:
//!
//! 1. A manifest that came with the image, if every layer can be given as it says: then nothing changes, not even its digest.
//! 2. Else each layer as it came, if it came compressed.
//! 3. Else in the compression asked for, made now and kept with the layer, by codec, level and version of the encoder.
//!
//! Uncompressed layers are not kept as blobs: they are what they are made from.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use layer::compress;
use oci::{Compression, DiffId, Digest, ImageManifest, LayerId, Reference, VerifyingReader};
use store::{BlobOrigin, Image, KnownManifest, Layer, LayerBlob};

use super::{Annotation, Encoding, ExportError, Exported, Named, annotations, documents};
use crate::growing::{GrowingBlob, GrowingWriter};
use crate::stream::{self, Cancellable, CopyError};
use crate::{Error, Layers, LocalImage, tar};

/// How much content a layer has that takes so long to compress that somebody may read along.
const WORTH_FOLLOWING_BYTES: u64 = 4 << 20;

/// A file of a layout.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) size: u64,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Bytes(Vec<u8>),
    /// A blob of the store.
    Blob(Digest),
    /// One that was written and digested a moment ago, and need not be digested again.
    NewBlob(Digest),
    /// A file outside the store.
    Path(Digest, PathBuf),
    /// A layer's uncompressed tar.
    Tar(LayerId),
}

/// A layer as it leaves.
#[derive(Clone, Debug)]
pub(crate) struct PackedLayer {
    pub(crate) digest: Digest,
    pub(crate) compression: Compression,
    pub(crate) file: File,
}

/// An image as it leaves.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) image: LocalImage,
    pub(crate) manifest: Manifest,
    pub(crate) config_bytes: Vec<u8>,
    pub(crate) layers: Vec<PackedLayer>,
}

/// An image, or those of several platforms, as they leave.
#[derive(Debug)]
pub(crate) struct Group {
    /// One for each platform.
    pub(crate) packages: Vec<Package>,
    /// Of several.
    pub(crate) index: Option<Manifest>,
    pub(super) names: Vec<Reference>,
    pub(super) annotations: Vec<Annotation>,
}

#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

/// How images are packed.
#[derive(Clone, Copy)]
pub(crate) struct Packing<'p> {
    pub(crate) encoding: Encoding,
    /// Told of each layer as soon as its bytes are there; says whether to go on.
    pub(crate) ready: &'p dyn Fn(&PackedLayer) -> bool,
    /// Told of each layer that is worth it when its bytes begin to come.
    pub(crate) begun: &'p dyn Fn(&Arc<GrowingBlob>),
}

impl Packing<'_> {
    /// With nobody to tell.
    pub(crate) fn of(encoding: Encoding) -> Self {
        Self { encoding, ready: &|_| true, begun: &|_| {} }
    }

    /// Tells of a layer that is there.
    pub(crate) fn tell(&self, layer: &PackedLayer) -> Result<(), ExportError> {
        if (self.ready)(layer) { Ok(()) } else { Err(Error::Cancelled.into()) }
    }
}

/// Prepares images; what they are compressed to is in the store when this returns.
pub(super) fn all(
    layers: &Layers<'_>,
    images: &[Named],
    encoding: Encoding,
) -> Result<Vec<Group>, ExportError> {
    let packing = Packing::of(encoding);
    images.iter().map(|named| group(layers, named, packing)).collect()
}

/// Prepares the images of one name.
pub(crate) fn group(layers: &Layers<'_>, named: &Named, packing: Packing<'_>) -> Result<Group, ExportError> {
    let packages = named.images.iter().map(|image| package(layers, image, packing, &named.annotations));
    let packages = packages.collect::<Result<Vec<_>, ExportError>>()?;
    let index = if packages.len() > 1 { Some(documents::index(&packages, &named.annotations)) } else { None };
    let can_be_given = |name: &&Reference| name.tag().is_some() && name.digest().is_none();
    let names = named.names.iter().filter(can_be_given).cloned().collect();
    Ok(Group { packages, index, names, annotations: named.annotations.clone() })
}

fn package(
    layers: &Layers<'_>,
    image: &LocalImage,
    packing: Packing<'_>,
    annotations: &[Annotation],
) -> Result<Package, ExportError> {
    let image = image.clone();
    let diff_ids = &image.config.rootfs.diff_ids;
    if diff_ids.len() != image.layers.len() {
        let (layers, diff_ids) = (image.layers.len(), diff_ids.len());
        return Err(ExportError::LayerCount { image: image.id, layers, diff_ids });
    }
    let found: Result<Vec<Layer>, Error> = image.layers.iter().map(|id| layers.layer(id)).collect();
    let found = found?;
    let missing = || store::Error::MissingBlob(image.id.digest().clone());
    let config_bytes = layers.lease().store().read_blob(image.id.digest())?.ok_or_else(missing)?;
    let own = annotations::of_manifest(annotations, &image.config.platform());
    let came = if own.is_empty() { as_it_came(layers, &image, &found, packing.encoding)? } else { None };
    let (manifest, packed) = match came {
        Some((manifest, packed)) => {
            packed.iter().try_for_each(|layer| packing.tell(layer))?;
            (manifest, packed)
        }
        None => {
            let packed = pack_layers(layers, &image, &found, packing)?;
            let bytes = documents::manifest(&image.id, config_bytes.len(), &packed, &own);
            if own.is_empty() {
                remember(layers, &image, &packed, &bytes)?;
            }
            (
                Manifest { digest: Digest::of(&bytes), media_type: documents::MANIFEST.to_owned(), bytes },
                packed,
            )
        }
    };
    Ok(Package { image, manifest, config_bytes, layers: packed })
}

/// The first known manifest of which every layer is there as it says; those of the compression asked for go first.
fn as_it_came(
    layers: &Layers<'_>,
    image: &LocalImage,
    found: &[Layer],
    encoding: Encoding,
) -> Result<Option<(Manifest, Vec<PackedLayer>)>, ExportError> {
    let mut manifests: Vec<&KnownManifest> = image.manifests.iter().collect();
    manifests.sort_by_key(|known| known.compression != encoding.compression);
    for known in manifests {
        let Some(manifest) = read_manifest(layers, known)? else { continue };
        let mut packed = Vec::with_capacity(found.len());
        for ((layer, diff_id), digest) in found.iter().zip(&image.config.rootfs.diff_ids).zip(&known.layers) {
            packed.extend(with_digest(layers, layer, diff_id, digest, encoding)?);
        }
        if packed.len() == found.len() && known.layers.len() == found.len() {
            return Ok(Some((manifest, packed)));
        }
    }
    Ok(None)
}

/// A known manifest, if it is one (and not an index) and is there.
fn read_manifest(layers: &Layers<'_>, known: &KnownManifest) -> Result<Option<Manifest>, ExportError> {
    let Some(bytes) = layers.lease().store().read_blob(&known.digest)? else { return Ok(None) };
    let Ok(manifest) = serde_json::from_slice::<ImageManifest>(&bytes) else { return Ok(None) };
    let media_type =
        manifest.media_type().as_ref().map_or(documents::MANIFEST.to_owned(), ToString::to_string);
    Ok(Some(Manifest { digest: known.digest.clone(), media_type, bytes }))
}

/// A layer in the form of this digest, if it has that form and may leave in it.
fn with_digest(
    layers: &Layers<'_>,
    layer: &Layer,
    diff_id: &DiffId,
    digest: &Digest,
    encoding: Encoding,
) -> Result<Option<PackedLayer>, ExportError> {
    if digest == diff_id.digest() {
        let is_wanted = encoding.compression == Compression::None;
        return if is_wanted { uncompressed(layers, layer, diff_id).map(Some) } else { Ok(None) };
    }
    let fits = |blob: &&LayerBlob| blob.digest == *digest && encoding.takes(blob);
    match layer.blobs().iter().find(fits) {
        Some(blob) => stored(layers, blob),
        None => Ok(None),
    }
}

fn pack_layers(
    layers: &Layers<'_>,
    image: &LocalImage,
    found: &[Layer],
    packing: Packing<'_>,
) -> Result<Vec<PackedLayer>, ExportError> {
    let mut packed = Vec::with_capacity(found.len());
    for (layer, diff_id) in found.iter().zip(&image.config.rootfs.diff_ids) {
        if layer.diff_id().is_some_and(|own| own != diff_id) {
            return Err(ExportError::WrongLayer { image: image.id.clone(), layer: layer.id().clone() });
        }
        let layer = pack_layer(layers, layer, diff_id, packing)?;
        packing.tell(&layer)?;
        packed.push(layer);
    }
    Ok(packed)
}

/// A layer by itself.
pub(crate) fn layer(
    layers: &Layers<'_>,
    id: &LayerId,
    packing: Packing<'_>,
) -> Result<PackedLayer, ExportError> {
    let diff_id = layers.diff_id(id)?;
    pack_layer(layers, &layers.layer(id)?, &diff_id, packing)
}

fn pack_layer(
    layers: &Layers<'_>,
    layer: &Layer,
    diff_id: &DiffId,
    packing: Packing<'_>,
) -> Result<PackedLayer, ExportError> {
    let encoding = packing.encoding;
    let (compression, own) = (encoding.compression, encoding.origin());
    let received = layer.blobs().iter().filter(|blob| blob.origin == BlobOrigin::Received);
    let encoded = layer.blobs().iter().filter(|blob| blob.origin == own);
    for blob in received.chain(encoded).filter(|blob| encoding.takes(blob)) {
        if let Some(packed) = stored(layers, blob)? {
            return Ok(packed);
        }
    }
    if compression == Compression::None {
        return uncompressed(layers, layer, diff_id);
    }
    compressed(layers, layer, diff_id, packing)
}

impl Encoding {
    /// What we make by it is kept as.
    fn origin(self) -> BlobOrigin {
        BlobOrigin::Encoded { level: self.level, version: compress::VERSION }
    }

    /// Whether a form that a layer has may leave.
    fn takes(self, blob: &LayerBlob) -> bool {
        let is_same = blob.compression == self.compression;
        match blob.origin {
            BlobOrigin::Received => is_same || !self.is_forced,
            BlobOrigin::Encoded { .. } => is_same && blob.origin == self.origin(),
        }
    }
}

/// A blob that is in the store.
fn stored(layers: &Layers<'_>, blob: &LayerBlob) -> Result<Option<PackedLayer>, ExportError> {
    let Some(size) = layers.lease().store().blob_size(&blob.digest)? else { return Ok(None) };
    let file = File { size, content: Content::Blob(blob.digest.clone()) };
    Ok(Some(PackedLayer { digest: blob.digest.clone(), compression: blob.compression, file }))
}

fn uncompressed(layers: &Layers<'_>, layer: &Layer, diff_id: &DiffId) -> Result<PackedLayer, ExportError> {
    let size = tar::bytes(layers, layer)?;
    let file = File { size, content: Content::Tar(layer.id().clone()) };
    Ok(PackedLayer { digest: diff_id.digest().clone(), compression: Compression::None, file })
}

/// Compresses a layer and keeps the result with it.
fn compressed(
    layers: &Layers<'_>,
    layer: &Layer,
    diff_id: &DiffId,
    packing: Packing<'_>,
) -> Result<PackedLayer, ExportError> {
    let encoding = packing.encoding;
    let Encoding { compression, level, .. } = encoding;
    tracing::debug!(layer = %layer.id(), %compression, level, "compressing a layer");
    let mut writer = GrowingWriter::new(layers.lease().blob_writer(None)?)?;
    if layer.facts().size_bytes >= WORTH_FOLLOWING_BYTES {
        (packing.begun)(writer.growing());
    }
    let read = layers.read_tar(layer.id(), |tar| {
        compress::compress_at(tar, compression, level, &mut writer).map_err(|source| {
            if writer.has_failed() {
                return Error::at("write a blob in", layers.lease().store().root())(source);
            }
            Error::Read { layer: layer.id().clone(), source }
        })
    })?;
    if read.diff_id != *diff_id {
        let (layer, expected, got) = (layer.id().clone(), diff_id.clone(), read.diff_id);
        return Err(Error::WrongDiffId { layer, expected, got }.into());
    }
    let written = writer.finish()?;
    let blob = LayerBlob { digest: written.digest.clone(), compression, origin: encoding.origin() };
    let draft = layers.lease().layer_draft()?;
    draft.add_blob(&blob)?;
    layers.lease().extend_layer(draft, layer.id())?;
    tracing::debug!(layer = %layer.id(), bytes = written.size_bytes, "a layer is compressed");
    let content = if written.is_new { Content::NewBlob } else { Content::Blob };
    let file = File { size: written.size_bytes, content: content(written.digest) };
    Ok(PackedLayer { digest: blob.digest, compression, file })
}

/// Lets the store remember a manifest.
fn remember(
    layers: &Layers<'_>,
    image: &LocalImage,
    packed: &[PackedLayer],
    bytes: &[u8],
) -> Result<(), ExportError> {
    let digest = layers.lease().put_blob(bytes)?.digest;
    let compression = packed.first().map_or(Compression::Gzip, |layer| layer.compression);
    let digests = packed.iter().map(|layer| layer.digest.clone()).collect();
    let known = KnownManifest { digest, compression, layers: digests };
    let image = Image { id: image.id.clone(), layers: image.layers.clone(), manifests: vec![known] };
    layers.lease().commit_image(&image, &[])?;
    Ok(())
}

impl Group {
    /// The blobs.
    pub(super) fn blobs(&self) -> BTreeMap<Digest, File> {
        let index = self.index.iter().map(|index| (index.digest.clone(), File::of(index.bytes.clone())));
        self.packages.iter().flat_map(Package::blobs).chain(index).collect()
    }

    /// What stands for all of it.
    pub(crate) fn manifest(&self) -> Option<&Manifest> {
        self.index.as_ref().or(self.packages.first().map(|package| &package.manifest))
    }

    pub(super) fn exported(&self) -> Option<Exported> {
        self.manifest().map(|manifest| Exported { manifest: manifest.digest.clone() })
    }
}

impl Package {
    /// The blobs.
    fn blobs(&self) -> BTreeMap<Digest, File> {
        let documents = [
            (self.manifest.digest.clone(), File::of(self.manifest.bytes.clone())),
            (self.image.id.digest().clone(), File::of(self.config_bytes.clone())),
        ];
        let layers = self.layers.iter().map(|layer| (layer.digest.clone(), layer.file.clone()));
        documents.into_iter().chain(layers).collect()
    }
}

impl File {
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self { size: bytes.len() as u64, content: Content::Bytes(bytes) }
    }

    /// A blob of the store.
    pub(crate) fn of_blob(digest: Digest, size: u64) -> Self {
        Self { size, content: Content::Blob(digest) }
    }

    /// A file outside the store.
    pub(crate) fn of_path(digest: Digest, size: u64, path: PathBuf) -> Self {
        Self { size, content: Content::Path(digest, path) }
    }

    /// Gives exactly [`File::size`] bytes to `consume`, and reads what that leaves. What cannot be read right is an [`ExportError`] inside its
    /// `io::Error`; only when this returns is what was given to be relied on.
    pub(crate) fn read<E: From<ExportError> + From<Error>>(
        &self,
        layers: &Layers<'_>,
        consume: impl FnOnce(&mut dyn Read) -> Result<(), E>,
    ) -> Result<(), E> {
        let verified = |file, digest: &Digest| VerifyingReader::new(file, digest.clone(), Some(self.size));
        let read = match &self.content {
            Content::Bytes(bytes) => consume(&mut &bytes[..]),
            Content::Blob(digest) => {
                let file = open_blob(layers, digest)?;
                Blob { bytes: verified(file, digest), digest, left: self.size }.give(consume)
            }
            Content::NewBlob(digest) => {
                Blob { bytes: open_blob(layers, digest)?, digest, left: self.size }.give(consume)
            }
            Content::Path(digest, path) => {
                let file = fs::File::open(path).map_err(Error::at("open", path))?;
                Blob { bytes: verified(file, digest), digest, left: self.size }.give(consume)
            }
            Content::Tar(id) => self.read_tar(layers, id, consume),
        };
        read.map_err(|error| if layers.is_cancelled() { Error::Cancelled.into() } else { error })
    }

    fn read_tar<E: From<ExportError> + From<Error>>(
        &self,
        layers: &Layers<'_>,
        layer: &LayerId,
        consume: impl FnOnce(&mut dyn Read) -> Result<(), E>,
    ) -> Result<(), E> {
        // A header with the size is written already.
        let read = layers.read_tar(layer, |tar| consume(&mut Tar { bytes: tar.take(self.size), layer }))?;
        let (expected, got) = (self.size, read.tar_bytes);
        if got == expected {
            return Ok(());
        }
        Err(ExportError::TarSize { layer: layer.clone(), expected, got }.into())
    }

    /// Writes exactly [`File::size`] bytes.
    pub(crate) fn copy(&self, layers: &Layers<'_>, to: &mut dyn Write) -> Result<(), ExportError> {
        self.read(layers, |bytes| match stream::copy(Cancellable::new(bytes, layers.cancelled()), to) {
            Ok(_) => Ok(()),
            Err(CopyError::Read(source)) => Err(ExportError::inside(source)),
            Err(CopyError::Write(source)) => Err(ExportError::Write(source)),
        })
    }
}

fn open_blob(layers: &Layers<'_>, digest: &Digest) -> Result<fs::File, ExportError> {
    let file = layers.lease().store().open_blob(digest)?;
    Ok(file.ok_or_else(|| store::Error::MissingBlob(digest.clone()))?)
}

/// The bytes of a blob: exactly so many, or an error that says which blob it is.
struct Blob<'b, R> {
    bytes: R,
    digest: &'b Digest,
    left: u64,
}

impl<R: Read> Blob<'_, R> {
    /// To its end: only there is it known whether it is the right one.
    fn give<E: From<ExportError>>(
        mut self,
        consume: impl FnOnce(&mut dyn Read) -> Result<(), E>,
    ) -> Result<(), E> {
        consume(&mut self)?;
        io::copy(&mut self, &mut io::sink()).map_err(ExportError::inside)?;
        Ok(())
    }
}

impl<R: Read> Read for Blob<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.bytes.read(buffer) {
            Ok(0) if self.left > 0 && !buffer.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            read => read,
        };
        let read = read.map_err(|source| match source.kind() {
            io::ErrorKind::Interrupted => source,
            _ => io::Error::other(ExportError::Blob { digest: self.digest.clone(), source }),
        })?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

/// The bytes of a layer's tar, with errors that say which layer it is.
struct Tar<'t, R> {
    bytes: R,
    layer: &'t LayerId,
}

impl<R: Read> Read for Tar<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(buffer).map_err(|source| match source.kind() {
            io::ErrorKind::Interrupted => source,
            _ => {
                let error = Error::Read { layer: self.layer.clone(), source };
                io::Error::other(ExportError::from(error))
            }
        })
    }
}
