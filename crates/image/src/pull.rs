//! Images from registries.
//!
//! Manifest and config say what is to come; layers that the store has are not asked for, the others come several at a time, each unpacked,
//! hashed and listed while it streams. A compressed layer that came whole is kept even if the pull fails, and not asked for again by the
//! next one (until a prune).

use std::collections::HashSet;
use std::io::{self, Read};

use oci::{Config, ConfigError, Descriptor, Digest, ImageId, Platform, Reference, VerifyingReader};
use registry::{BlobError, Client, ResolveError, Resolved};
use store::Tag;

use crate::receive::{self, DescriptorError, Documents, Offered, Origin, ReceiveError};
use crate::{Error, Layers, LocalImage};

/// The media types of image configs, OCI's and Docker's.
const CONFIG_MEDIA_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// The largest config that is read.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// How far a pull is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Progress {
    /// The registry has the image.
    Found {
        /// Of what the reference stands for: the index, or the manifest.
        digest: Digest,
        /// How many layers the image has.
        layers: usize,
    },
    /// A layer begins to come.
    Began {
        /// Of its bytes.
        layer: Digest,
        /// How many there are.
        bytes: u64,
    },
    /// More of it has come.
    Received {
        /// Of its bytes.
        layer: Digest,
        /// How many more.
        bytes: u64,
    },
    /// All of it has come and is in the store, if it came compressed.
    Ended {
        /// Of its bytes.
        layer: Digest,
    },
}

/// What a pull is told besides what to pull.
#[derive(Clone, Copy)]
pub struct PullOptions<'o> {
    /// For which platform.
    pub platform: &'o Platform,
    /// How many layers come at once.
    pub transfers: usize,
    /// Called from any thread.
    pub progress: &'o (dyn Fn(Progress) + Sync),
}

/// An image that was pulled.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image. Of a reference that stands for one image only, nobody has said that it is for the platform asked for: see its config.
    pub image: LocalImage,
    /// Of what the reference stands for.
    pub digest: Digest,
    /// What the store knows it as.
    pub name: Reference,
    /// What that meant before.
    pub replaced: Option<ImageId>,
}

/// An image that could not be pulled.
#[derive(Debug, thiserror::Error)]
#[error("cannot pull `{reference}`")]
pub struct PullError {
    /// Which one.
    pub reference: Box<Reference>,
    /// Why.
    #[source]
    pub failure: PullFailure,
}

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullFailure {
    /// The store.
    #[error(transparent)]
    Image(Box<Error>),
    /// The registry gives no manifest for it.
    #[error(transparent)]
    Resolve(Box<ResolveError>),
    /// Its config or a layer did not come, or was not what the manifest says.
    #[error(transparent)]
    Blob(Box<BlobError>),
    /// Its config could not be read to the end.
    #[error("the config cannot be read")]
    Read(#[source] io::Error),
    /// Something else that registries hold: a chart, a signature.
    #[error("it is no image: its config is of the type `{0}`")]
    NotAnImage(String),
    /// The config is none.
    #[error("its config cannot be used")]
    Config(#[source] ConfigError),
    /// Manifest and config do not belong together.
    #[error("its manifest has {layers} layers, its config {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },
    /// The manifest refers to something that is no layer.
    #[error("its manifest cannot be used")]
    Descriptor(#[from] DescriptorError),
    /// A layer came and is not what the config says.
    #[error(transparent)]
    Layer(ReceiveError),
}

impl From<Error> for PullFailure {
    fn from(error: Error) -> Self {
        Self::Image(Box::new(error))
    }
}

impl From<BlobError> for PullFailure {
    fn from(error: BlobError) -> Self {
        Self::Blob(Box::new(error))
    }
}

impl From<ReceiveError> for PullFailure {
    /// Tells failures of the network from those of the layer.
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Image(error) => Self::Image(error),
            ReceiveError::Read { diff_id, source } => match BlobError::of(source) {
                Ok(error) => error.into(),
                Err(source) => Self::Layer(ReceiveError::Read { diff_id, source }),
            },
            error => Self::Layer(error),
        }
    }
}

/// Pulls the image that `reference` stands for and names it so; one that is pinned by a digest is kept under `name@digest`.
///
/// # Errors
/// [`PullError`]; then no name has changed.
pub fn pull(
    layers: &Layers<'_>,
    client: &Client,
    reference: &Reference,
    options: PullOptions<'_>,
) -> Result<Pulled, PullError> {
    let remote = Remote { layers, client, reference, progress: options.progress };
    let pulled = remote.pull(options);
    pulled.map_err(|failure| PullError { reference: Box::new(reference.clone()), failure })
}

/// A repository that is pulled from.
struct Remote<'p> {
    layers: &'p Layers<'p>,
    client: &'p Client,
    reference: &'p Reference,
    progress: &'p (dyn Fn(Progress) + Sync),
}

impl Remote<'_> {
    fn pull(&self, options: PullOptions<'_>) -> Result<Pulled, PullFailure> {
        let (layers, reference) = (self.layers, self.reference);
        let resolved = self.client.resolve(reference, options.platform);
        let resolved = resolved.map_err(|error| PullFailure::Resolve(Box::new(error)))?;
        let digest = resolved.digest().clone();
        tracing::debug!(%reference, %digest, "resolved");
        (self.progress)(Progress::Found { digest: digest.clone(), layers: resolved.layers().len() });
        let (documents, offered) = self.documents(resolved)?;
        let staged = receive::stage(layers, &offered, self, options.transfers, &mut HashSet::new())?;
        let ids = receive::publish(layers, staged, &offered, self)?;
        let name = match reference.digest() {
            Some(digest) => reference.at_digest(digest.clone()),
            None => reference.clone(),
        };
        let (image, _) = receive::commit(layers, documents, ids, &[])?;
        let others = self.of_other_platforms(&name, &image, &digest)?;
        let (reference, pulled) = (name.clone(), Some(digest.clone()));
        let tag = Tag { reference, image: image.id.clone(), others, pulled };
        let replaced = layers.lease().set_tag(&tag).map_err(Error::from)?.map(|tag| tag.image);
        Ok(Pulled { image, digest, name, replaced })
    }

    /// What the name means already for other platforms, as long as that is out of the same index.
    fn of_other_platforms(
        &self,
        name: &Reference,
        image: &LocalImage,
        digest: &Digest,
    ) -> Result<Vec<ImageId>, Error> {
        let Some(tag) = self.layers.lease().store().tag(name)? else { return Ok(Vec::new()) };
        let mut others = Vec::new();
        for id in tag.images().filter(|id| **id != image.id) {
            let Some(other) = LocalImage::by_id(self.layers, id)? else { continue };
            let is_of_index = other.manifests.iter().any(|known| known.digest == *digest);
            if is_of_index && other.config.platform() != image.config.platform() {
                others.push(id.clone());
            }
        }
        Ok(others)
    }

    /// Fetches the config, and says what layers there should be.
    fn documents(&self, resolved: Resolved) -> Result<(Documents, Vec<Offered<Descriptor>>), PullFailure> {
        let id = Digest::try_from(resolved.config().digest()).map_err(DescriptorError::from)?;
        let config_bytes = self.config(&id, resolved.config())?;
        let config = Config::from_json(&config_bytes).map_err(PullFailure::Config)?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != resolved.layers().len() {
            let (layers, diff_ids) = (resolved.layers().len(), diff_ids.len());
            return Err(PullFailure::LayerCount { layers, diff_ids });
        }
        let mut offered = Vec::with_capacity(diff_ids.len());
        for (diff_id, layer) in diff_ids.iter().zip(resolved.layers()) {
            let expected = Some(receive::layer_bytes(layer)?);
            offered.push(Offered { diff_id: diff_id.clone(), expected, place: layer.clone() });
        }
        let Resolved { indexes, manifest, image, .. } = resolved;
        let fetched = indexes.into_iter().chain([manifest]).map(|fetched| (fetched.digest, fetched.bytes));
        let manifests = receive::known_manifests(&image, fetched.collect())?;
        Ok((Documents { id: ImageId::new(id), config, config_bytes, manifests }, offered))
    }

    /// The config's bytes, from the store if it has them.
    fn config(&self, id: &Digest, descriptor: &Descriptor) -> Result<Vec<u8>, PullFailure> {
        let media_type = descriptor.media_type().to_string();
        if !CONFIG_MEDIA_TYPES.contains(&media_type.as_str()) {
            return Err(PullFailure::NotAnImage(media_type));
        }
        if let Some(bytes) = self.layers.lease().store().read_blob(id).map_err(Error::from)? {
            return Ok(bytes);
        }
        if descriptor.size() > MAX_CONFIG_BYTES {
            let bytes = usize::try_from(descriptor.size()).unwrap_or(usize::MAX);
            return Err(PullFailure::Config(ConfigError::TooLarge(bytes)));
        }
        match self.fetch(descriptor) {
            Err(_) if self.client.doubt(id) => self.fetch(descriptor),
            fetched => fetched,
        }
    }

    fn fetch(&self, descriptor: &Descriptor) -> Result<Vec<u8>, PullFailure> {
        let mut bytes = Vec::new();
        let mut blob = self.client.blob(self.reference, descriptor)?;
        match blob.read_to_end(&mut bytes).map_err(BlobError::of) {
            Ok(_) => Ok(bytes),
            Err(Ok(error)) => Err(error.into()),
            Err(Err(source)) => Err(PullFailure::Read(source)),
        }
    }
}

impl Origin for Remote<'_> {
    type Place = Descriptor;

    const KEEPS_BLOBS: bool = true;

    fn open<'o>(&'o self, layer: &'o Offered<Descriptor>) -> io::Result<Box<dyn Read + 'o>> {
        let Some(expected) = &layer.expected else { return Err(io::ErrorKind::InvalidInput.into()) };
        let digest = &expected.digest;
        if let Some(file) = self.layers.lease().store().open_blob(digest)? {
            return Ok(Box::new(VerifyingReader::new(file, digest.clone(), expected.size_bytes)));
        }
        let blob = self.client.blob(self.reference, &layer.place).map_err(io::Error::other)?;
        (self.progress)(Progress::Began { layer: digest.clone(), bytes: layer.place.size() });
        Ok(Box::new(Reported { blob, layer: digest, progress: self.progress }))
    }

    fn may_be_better(&self, layer: &Offered<Descriptor>) -> bool {
        layer.expected.as_ref().is_some_and(|expected| self.client.doubt(&expected.digest))
    }

    fn has_come(&self, layer: &Offered<Descriptor>) {
        if let Some(expected) = &layer.expected {
            (self.progress)(Progress::Ended { layer: expected.digest.clone() });
        }
    }
}

/// Tells of every byte that comes.
struct Reported<'p, R> {
    blob: R,
    layer: &'p Digest,
    progress: &'p (dyn Fn(Progress) + Sync),
}

impl<R: Read> Read for Reported<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.blob.read(buffer)?;
        let layer = self.layer.clone();
        if read > 0 {
            (self.progress)(Progress::Received { layer, bytes: read as u64 });
        }
        Ok(read)
    }
}
