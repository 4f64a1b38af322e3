//! Artifacts that are no images: a document and blobs beside it, in a registry or in an OCI layout. It is what build caches travel as.
//!
//! An artifact is an image manifest (OCI image spec, "Guidelines for Artifact Usage") with a type of its own: its config is the document, compressed
//! with zstd, its layers are the blobs. Registries keep what a manifest names, and send and take it as they do with images.
//!
//! What is there already is not sent. Nothing has a name before all of it is there: a store that breaks off leaves what was there before.

pub mod directory;
pub mod inline;
mod layers;
mod layout;
mod remote;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use layer::compress;
use oci::{
    Compression, Descriptor, Digest, DigestError, ImageManifest, LayerId, MediaType, Platform, Reference,
};
use registry::{BlobError, Client, ManifestError, ResolveError};
use serde_json::{Value, json};

use store::Expected;

use crate::export::{Encoding, ExportError, package};
use crate::{Error, Layers, parallel};

pub use layers::{Options, receive};

/// The longest document that is read, compressed and not.
const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

/// The longest manifest that is read, as of a registry.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// Where an artifact is.
#[derive(Clone, Copy, Debug)]
pub enum Place<'p> {
    /// Under a name of a registry.
    Registry {
        /// Who speaks to it.
        client: &'p Client,
        /// The name.
        reference: &'p Reference,
    },
    /// In a directory that is an OCI layout, or becomes one.
    Layout {
        /// The directory.
        directory: &'p Path,
        /// The artifact's name in it.
        tag: &'p str,
    },
}

/// By what an artifact is told from others.
#[derive(Clone, Copy, Debug)]
pub struct Kind<'k> {
    /// `artifactType`.
    pub artifact: &'k str,
    /// The media type of the document.
    pub document: &'k str,
    /// Where in an image's manifest the document stands ([`inline`]), of an image that is such an artifact besides.
    pub annotation: &'k str,
}

/// An artifact, without its blobs.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// As it was stored.
    pub document: Vec<u8>,
    /// What stands beside it.
    pub blobs: Vec<Descriptor>,
}

/// A blob that is to stand in an artifact.
#[derive(Clone, Debug)]
pub enum Part<'p> {
    /// A layer of the store, compressed.
    Layer {
        /// Which one.
        id: LayerId,
        /// How.
        encoding: Encoding,
    },
    /// Bytes at hand.
    Bytes {
        /// What they are.
        media_type: MediaType,
        /// All of them.
        bytes: Vec<u8>,
    },
    /// A file outside the store, which stays as it is until all is sent.
    File {
        /// What it is.
        media_type: MediaType,
        /// Of its bytes.
        digest: Digest,
        /// How long it is, in bytes.
        size: u64,
        /// Where it is.
        path: PathBuf,
    },
    /// A blob of another artifact, which is at the place already, or comes from there. One that does not come is left out.
    Of {
        /// Where that artifact is.
        place: Place<'p>,
        /// Which one.
        blob: Box<Descriptor>,
    },
}

/// What storing an artifact did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// Blobs that were not there before.
    pub sent: usize,
    /// How long they are, in bytes.
    pub sent_bytes: u64,
    /// What had the name before, of a layout.
    replaced: Vec<Value>,
}

/// Why there is no artifact, or none could be stored.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// There is none.
    #[error("there is nothing yet")]
    Missing,
    /// The registry gives no manifest.
    #[error(transparent)]
    Manifest(Box<ManifestError>),
    /// The document does not come.
    #[error(transparent)]
    Blob(#[from] Box<BlobError>),
    /// An image of several platforms cannot be resolved.
    #[error(transparent)]
    Resolve(Box<ResolveError>),
    /// The registry does not take it.
    #[error(transparent)]
    Push(#[from] Box<registry::PushError>),
    /// A file of a layout.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// A verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("there is a `{got}`, and not a `{expected}`")]
    OtherKind {
        /// The document's media type.
        got: String,
        /// What it should be.
        expected: String,
    },
    /// A document that nobody would make.
    #[error("a document of {bytes} bytes is more than the {limit} that are read")]
    TooLarge {
        /// Declared, or so far read.
        bytes: u64,
        /// The most.
        limit: u64,
    },
    /// A manifest or index is none.
    #[error("the manifest cannot be read")]
    Malformed(#[from] serde_json::Error),
    /// The document is not compressed as it says, or did not come whole.
    #[error("the document cannot be read")]
    Document(#[source] io::Error),
    /// A digest of an algorithm that cannot be verified.
    #[error("a digest cannot be verified")]
    Digest(#[from] DigestError),
    /// A layer could not be packed, or a file not be written.
    #[error(transparent)]
    Export(Box<ExportError>),
}

impl From<ExportError> for ArtifactError {
    fn from(error: ExportError) -> Self {
        Self::Export(Box::new(error))
    }
}

impl From<Error> for ArtifactError {
    fn from(error: Error) -> Self {
        ExportError::from(error).into()
    }
}

impl ArtifactError {
    /// Says what was being done to `path`.
    fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

impl Place<'_> {
    /// Reads the manifest and the document of an artifact, or, of an image that is one besides, those for these platforms.
    ///
    /// # Errors
    /// [`ArtifactError`]; [`ArtifactError::Missing`] if nothing has the name. What is given has one element at least.
    pub fn load(&self, kind: Kind<'_>, platforms: &[Platform]) -> Result<Vec<Loaded>, ArtifactError> {
        let manifests = match self {
            Self::Registry { client, reference } => remote::manifests(client, reference, platforms)?,
            Self::Layout { directory, tag } => {
                vec![serde_json::from_slice(&layout::manifest(directory, tag, kind)?)?]
            }
        };
        if let [manifest] = &manifests[..]
            && manifest.config().media_type().as_ref() == kind.document
        {
            return Ok(vec![self.loaded(manifest)?]);
        }
        let mut all = Vec::new();
        for manifest in &manifests {
            all.extend(inline::loaded(manifest, kind)?);
        }
        let Some(other) = manifests.first().filter(|_| all.is_empty()) else { return Ok(all) };
        let (got, expected) = (other.config().media_type().to_string(), kind.document.to_owned());
        Err(ArtifactError::OtherKind { got, expected })
    }

    fn loaded(&self, manifest: &ImageManifest) -> Result<Loaded, ArtifactError> {
        let config = manifest.config();
        if config.size() > MAX_DOCUMENT_BYTES {
            return Err(ArtifactError::TooLarge { bytes: config.size(), limit: MAX_DOCUMENT_BYTES });
        }
        let document = unpacked(self.open(config).map_err(ArtifactError::Document)?)?;
        Ok(Loaded { document, blobs: manifest.layers().clone() })
    }

    /// Opens one of an artifact's blobs. The end is reported only if every byte was as the descriptor says.
    ///
    /// # Errors
    /// That it is not there.
    pub fn open(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + '_>> {
        match self {
            Self::Registry { client, reference } => {
                Ok(Box::new(client.blob(reference, blob).map_err(io::Error::other)?))
            }
            Self::Layout { directory, .. } => layout::open(directory, blob),
        }
    }

    /// Whether a blob is there.
    ///
    /// # Errors
    /// [`ArtifactError`], if nobody says.
    pub fn has(&self, blob: &Descriptor) -> Result<bool, ArtifactError> {
        match self {
            Self::Registry { client, reference } => {
                let digest = Digest::try_from(blob.digest())?;
                client
                    .has_blob(reference, &digest)
                    .map_err(|error| Box::new(registry::PushError::from(error)).into())
            }
            Self::Layout { directory, .. } => layout::has(directory, blob),
        }
    }

    /// Stores an artifact in place of the one of its name, at most `transfers` blobs at once. The blobs stand in the order of the parts; `document` is
    /// told which one each part has become, if it has become one.
    ///
    /// # Errors
    /// [`ArtifactError`]; then the name means what it meant before.
    pub fn store(
        &self,
        layers: &Layers<'_>,
        kind: Kind<'_>,
        parts: &[Part<'_>],
        document: &dyn Fn(&[Option<usize>]) -> Vec<u8>,
        transfers: usize,
    ) -> Result<Stored, ArtifactError> {
        let _lock = match self {
            Self::Registry { .. } => None,
            Self::Layout { directory, .. } => Some(layout::lock(directory)?),
        };
        let sending = Sending::new(*self, layers)?;
        let of_parts = parallel::map(transfers, parts, |part| sending.part(part))?;
        let mut next = 0..;
        let positions: Vec<_> = of_parts.iter().map(|blob| blob.as_ref().and_then(|_| next.next())).collect();
        let mut blobs: Vec<Descriptor> = of_parts.into_iter().flatten().collect();
        if blobs.is_empty() {
            blobs.push(sending.bytes(&MediaType::from(EMPTY.0), EMPTY.1.to_vec())?);
        }
        let mut packed = Vec::new();
        compress::compress(&*document(&positions), Compression::Zstd, &mut packed)
            .map_err(ArtifactError::Document)?;
        let document = sending.bytes(&MediaType::from(kind.document), packed)?;
        let manifest = manifest(kind, &document, &blobs);
        let replaced = match self {
            Self::Registry { client, reference } => {
                client.push_manifest(reference, MANIFEST, &manifest).map_err(Box::new)?;
                Vec::new()
            }
            Self::Layout { directory, tag } => layout::name(directory, tag, kind, &manifest)?,
        };
        Ok(Stored { replaced, ..sending.stored() })
    }

    /// Removes from a layout what only the artifact had that was replaced. To be called when nobody copies from that any more.
    pub fn remove_unused(&self, stored: &Stored) {
        let Self::Layout { directory, .. } = self else { return };
        if stored.replaced.is_empty() {
            return;
        }
        if let Err(error) = layout::remove_unused(directory, &stored.replaced) {
            tracing::debug!(%error, "blobs that nobody needs stay");
        }
    }
}

/// The OCI image manifest's media type.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The OCI image index's media type.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Stands where a manifest must have a blob, and there is none (OCI image spec, "Guidance for an Empty Descriptor").
const EMPTY: (&str, &[u8]) = ("application/vnd.oci.empty.v1+json", b"{}");

fn manifest(kind: Kind<'_>, document: &Descriptor, blobs: &[Descriptor]) -> Vec<u8> {
    let shown = |blob: &Descriptor| {
        let (digest, media_type) = (blob.digest().to_string(), blob.media_type().to_string());
        json!({ "mediaType": media_type, "digest": digest, "size": blob.size() })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind.artifact,
        "config": shown(document),
        "layers": blobs.iter().map(shown).collect::<Vec<Value>>(),
    });
    manifest.to_string().into_bytes()
}

/// Brings blobs to a place, and counts those that were not there.
struct Sending<'s> {
    place: Place<'s>,
    layers: &'s Layers<'s>,
    elsewhere: remote::Elsewhere,
    sent: AtomicUsize,
    sent_bytes: AtomicU64,
}

impl<'s> Sending<'s> {
    fn new(place: Place<'s>, layers: &'s Layers<'s>) -> Result<Self, ArtifactError> {
        let elsewhere = match place {
            Place::Registry { reference, .. } => remote::elsewhere(layers, reference)?,
            Place::Layout { .. } => remote::Elsewhere::default(),
        };
        let (sent, sent_bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
        Ok(Self { place, layers, elsewhere, sent, sent_bytes })
    }

    fn part(&self, part: &Part<'_>) -> Result<Option<Descriptor>, ArtifactError> {
        match part {
            Part::Of { blob, .. } if self.place.has(blob)? => Ok(Some((**blob).clone())),
            Part::Of { place, blob } => match self.fetched(place, blob) {
                Ok(()) => self.blob(blob).map(Some),
                Err(error) => {
                    tracing::warn!(digest = %blob.digest(), %error, "a blob is gone from where it was, and is left out");
                    Ok(None)
                }
            },
            Part::File { media_type, digest, size, path } => {
                let file = package::File::of_path(digest.clone(), *size, path.clone());
                self.file(media_type, digest, &file).map(Some)
            }
            Part::Bytes { media_type, bytes } => self.bytes(media_type, bytes.clone()).map(Some),
            Part::Layer { id, encoding } => {
                let layer = package::layer(self.layers, id, package::Packing::of(*encoding))?;
                self.file(&layer.compression.layer_media_type(), &layer.digest, &layer.file).map(Some)
            }
        }
    }

    /// Brings a blob into the store.
    fn fetched(&self, place: &Place<'_>, blob: &Descriptor) -> io::Result<()> {
        let digest = Digest::try_from(blob.digest()).map_err(io::Error::other)?;
        let store = self.layers.lease().store();
        if store.contains_blob(&digest).map_err(io::Error::other)? {
            return Ok(());
        }
        let expected = Expected { digest, size_bytes: Some(blob.size()) };
        let mut writer = self.layers.lease().blob_writer(Some(expected)).map_err(io::Error::other)?;
        io::copy(&mut place.open(blob)?, &mut writer)?;
        writer.finish().map_err(io::Error::other)?;
        Ok(())
    }

    /// A blob of the store.
    fn blob(&self, blob: &Descriptor) -> Result<Descriptor, ArtifactError> {
        let digest = Digest::try_from(blob.digest())?;
        self.file(blob.media_type(), &digest, &package::File::of_blob(digest.clone(), blob.size()))
    }

    fn bytes(&self, media_type: &MediaType, bytes: Vec<u8>) -> Result<Descriptor, ArtifactError> {
        self.file(media_type, &Digest::of(&bytes), &package::File::of(bytes))
    }

    fn file(
        &self,
        media_type: &MediaType,
        digest: &Digest,
        file: &package::File,
    ) -> Result<Descriptor, ArtifactError> {
        let is_new = match self.place {
            Place::Registry { client, reference } => {
                let from = self.elsewhere.get(digest).map(String::as_str);
                remote::send(self.layers, client, reference, digest, file, from)?
            }
            Place::Layout { directory, .. } => layout::write(self.layers, directory, digest, file)?,
        };
        if is_new {
            self.sent.fetch_add(1, Ordering::Relaxed);
            self.sent_bytes.fetch_add(file.size, Ordering::Relaxed);
        }
        Ok(Descriptor::new(media_type.clone(), file.size, digest))
    }

    fn stored(&self) -> Stored {
        let (sent, sent_bytes) = (&self.sent, &self.sent_bytes);
        let (sent, sent_bytes) = (sent.load(Ordering::Relaxed), sent_bytes.load(Ordering::Relaxed));
        Stored { sent, sent_bytes, replaced: Vec::new() }
    }
}

/// Unpacks a document, as far as one may go.
pub(crate) fn unpacked(packed: impl Read) -> Result<Vec<u8>, ArtifactError> {
    let mut packed = packed;
    let mut document = Vec::new();
    let mut unpacked = compress::unpacked(&mut packed, &layer::Limits::STANDARD)
        .map_err(ArtifactError::Document)?
        .take(MAX_DOCUMENT_BYTES + 1);
    unpacked.read_to_end(&mut document).map_err(ArtifactError::Document)?;
    drop(unpacked);
    let bytes = document.len() as u64;
    if bytes > MAX_DOCUMENT_BYTES {
        return Err(ArtifactError::TooLarge { bytes, limit: MAX_DOCUMENT_BYTES });
    }
    // Only its end says that it was the right one.
    io::copy(&mut packed, &mut io::sink()).map_err(ArtifactError::Document)?;
    Ok(document)
}
