//! From a reference and a platform to one image's manifest, through indexes.

use oci::{Descriptor, Digest, ImageIndex, ImageManifest, ManifestKind, MediaType, Platform, Reference};

use crate::client::Client;
use crate::manifest::{Fetched, ManifestError};

/// An image as its registry holds it. Nothing of it but these documents has been fetched.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The indexes that led to the manifest, the outermost first; empty if the reference stands for the manifest itself.
    pub indexes: Vec<Fetched>,
    /// The image's manifest.
    pub manifest: Fetched,
    /// The same, read.
    pub image: ImageManifest,
    /// The platform that the index gives the manifest; without an index only the config knows.
    pub platform: Option<Platform>,
}

/// Why an image could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// A manifest or index could not be had.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The index has images, but none to run here.
    #[error("`{reference}` has no image for {wanted}, only for {}", list(available))]
    NoPlatform {
        /// What was asked for.
        reference: Box<Reference>,
        /// The platform asked for.
        wanted: Box<Platform>,
        /// Those there are, without duplicates.
        available: Vec<Platform>,
    },
    /// An index has another size than the document that refers to it says, or is not what that says it is.
    #[error(
        "`{reference}` refers to {digest} as {expected_bytes} bytes of `{expected}`, but it is {got_bytes} bytes of `{got}`"
    )]
    Misdescribed {
        /// What was asked for.
        reference: Box<Reference>,
        /// Of the document referred to.
        digest: Digest,
        /// Declared size.
        expected_bytes: u64,
        /// Declared media type.
        expected: MediaType,
        /// Real size.
        got_bytes: u64,
        /// Real media type.
        got: MediaType,
    },
    /// A digest of an algorithm that we cannot verify.
    #[error("`{reference}` refers to something that cannot be verified")]
    Digest {
        /// What was asked for.
        reference: Box<Reference>,
        /// Which.
        #[source]
        source: oci::DigestError,
    },
    /// Indexes within indexes.
    #[error("`{reference}` has more than {limit} indexes within each other")]
    TooDeep {
        /// What was asked for.
        reference: Box<Reference>,
        /// [`crate::Limits::index_depth`].
        limit: u32,
    },
    /// More layers than can be mounted.
    #[error("`{reference}` has {layers} layers, more than the {limit} that can be mounted")]
    TooManyLayers {
        /// What was asked for.
        reference: Box<Reference>,
        /// How many it has.
        layers: usize,
        /// [`crate::Limits::layers`].
        limit: usize,
    },
}

impl Resolved {
    /// The digest that the reference stands for: that of the outermost index, or of the manifest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.indexes.first().unwrap_or(&self.manifest).digest
    }

    /// The image's config.
    #[must_use]
    pub fn config(&self) -> &Descriptor {
        self.image.config()
    }

    /// The image's layers, the lowest first.
    #[must_use]
    pub fn layers(&self) -> &[Descriptor] {
        self.image.layers()
    }
}

impl Client {
    /// Finds the image for `platform`: the manifest itself, or the entry of an index (also of a Docker manifest list, also of an index within
    /// an index) that fits best. A tag is asked for once, so that one that moves meanwhile cannot mix two images.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<Resolved, ResolveError> {
        let (mut indexes, mut found) = (Vec::new(), None);
        let mut fetched = self.manifest(reference)?;
        while fetched.kind == ManifestKind::Index {
            if indexes.len() as u64 >= u64::from(self.limits().index_depth) {
                let limit = self.limits().index_depth;
                return Err(ResolveError::TooDeep { reference: Box::new(reference.clone()), limit });
            }
            let index: ImageIndex = read(&fetched, reference)?;
            let Some((entry, entry_platform)) = choose(index.manifests(), platform) else {
                let available = platforms(index.manifests());
                let (reference, wanted) = (Box::new(reference.clone()), Box::new(platform.clone()));
                return Err(ResolveError::NoPlatform { reference, wanted, available });
            };
            found = entry_platform.or(found);
            let next = self.follow(reference, entry)?;
            indexes.push(std::mem::replace(&mut fetched, next));
        }
        let image: ImageManifest = read(&fetched, reference)?;
        let (layers, limit) = (image.layers().len(), self.limits().layers);
        if layers > limit {
            return Err(ResolveError::TooManyLayers {
                reference: Box::new(reference.clone()),
                layers,
                limit,
            });
        }
        Ok(Resolved { indexes, manifest: fetched, image, platform: found })
    }

    fn follow(&self, reference: &Reference, entry: &Descriptor) -> Result<Fetched, ResolveError> {
        let digest = Digest::try_from(entry.digest())
            .map_err(|source| ResolveError::Digest { reference: Box::new(reference.clone()), source })?;
        let fetched = self.manifest(&reference.at_digest(digest))?;
        let got_bytes = fetched.bytes.len() as u64;
        if got_bytes == entry.size() && fetched.media_type == *entry.media_type() {
            return Ok(fetched);
        }
        Err(ResolveError::Misdescribed {
            reference: Box::new(reference.clone()),
            digest: fetched.digest,
            expected_bytes: entry.size(),
            expected: entry.media_type().clone(),
            got_bytes,
            got: fetched.media_type,
        })
    }
}

fn read<T: serde::de::DeserializeOwned>(fetched: &Fetched, reference: &Reference) -> Result<T, ResolveError> {
    serde_json::from_slice(&fetched.bytes).map_err(|source| {
        let (host, digest) = (reference.registry().to_owned(), fetched.digest.clone());
        ManifestError::Malformed { host, digest, source }.into()
    })
}

/// The entry that fits best, the first of equals. Entries without a platform are the last resort: an index that is there for
/// attestations or artifacts may well have one image only, and does not say for what.
fn choose<'a>(entries: &'a [Descriptor], wanted: &Platform) -> Option<(&'a Descriptor, Option<Platform>)> {
    let usable = || entries.iter().filter(|entry| ManifestKind::of(entry.media_type().as_ref()).is_ok());
    let best = usable()
        .filter_map(|entry| Some((entry, platform_of(entry)?)))
        .filter_map(|(entry, platform)| Some((platform.fit(wanted)?, entry, platform)))
        .min_by_key(|(fit, ..)| *fit);
    match best {
        Some((_, entry, platform)) => Some((entry, Some(platform))),
        None => usable().find(|entry| entry.platform().is_none()).map(|entry| (entry, None)),
    }
}

fn platform_of(entry: &Descriptor) -> Option<Platform> {
    let platform = entry.platform().as_ref()?;
    let (os, architecture) = (platform.os().to_string(), platform.architecture().to_string());
    Some(Platform::new(&os, &architecture, platform.variant().as_deref()))
}

/// What a person could ask for instead. BuildKit files attestations under the platform `unknown/unknown`.
fn platforms(entries: &[Descriptor]) -> Vec<Platform> {
    let mut platforms: Vec<Platform> =
        entries.iter().filter_map(platform_of).filter(|platform| platform.os != "unknown").collect();
    platforms.sort();
    platforms.dedup();
    platforms
}

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "none".to_owned();
    }
    platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(", ")
}
