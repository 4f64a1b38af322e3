//! Images from one registry to another: every byte as it is, so every digest stays.
//!
//! Nothing lies on this machine in between. What the other repository has is not moved, and within one registry blobs are taken over. Manifests go
//! last, those below an index before it, so that nothing has a name before all of it is there.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use oci::{Descriptor, Digest, DigestError, ImageIndex, ImageManifest, ManifestKind, Platform, Reference};
use registry::{
    Client, Delivery, Fetched, ManifestError, Outgoing, PushError, PushReferrerError, ReferrersError,
    ResolveError, Source,
};

use crate::parallel;

/// How many manifests and blobs an image may have before its next manifest is not asked for.
const MOST_DOCUMENTS: usize = 10_000;

/// What a copy is told besides from where to where.
#[derive(Clone, Copy)]
pub struct CopyOptions<'o> {
    /// The one platform to copy; `None` for all that there are.
    pub platform: Option<&'o Platform>,
    /// Whether what refers to it is copied, too, and what refers to that.
    pub with_referrers: bool,
    /// How many blobs are on their way at once.
    pub transfers: usize,
    /// Called from any thread.
    pub progress: &'o (dyn Fn(Progress) + Sync),
}

/// How far a copy is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Progress {
    /// It is known what is to be copied.
    Found {
        /// How many blobs there are.
        blobs: usize,
    },
    /// A blob is about to be moved.
    Began {
        /// Which.
        blob: Digest,
        /// How long it is.
        bytes: u64,
    },
    /// So much of it has been handed over; less than before, if the connection broke.
    Moved {
        /// Which.
        blob: Digest,
        /// How much.
        bytes: u64,
    },
    /// It is there.
    Ended {
        /// Which.
        blob: Digest,
        /// How it came there.
        delivery: Delivery,
    },
}

/// What was copied.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Copied {
    /// Of what has the name now.
    pub digest: Digest,
    /// Bytes of blobs that were sent.
    pub sent_bytes: u64,
}

/// An image that could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It could not be found, or not be read.
    #[error("cannot copy `{reference}`")]
    From {
        /// Which.
        reference: Box<Reference>,
        /// Why.
        #[source]
        source: Box<FromError>,
    },
    /// It could not be put where it should go.
    #[error("cannot copy to `{reference}`")]
    To {
        /// Where.
        reference: Box<Reference>,
        /// Why.
        #[source]
        source: Box<PushError>,
    },
    /// Nor what refers to it.
    #[error("cannot copy what refers to it to `{reference}`")]
    Referrer {
        /// Where.
        reference: Box<Reference>,
        /// Why.
        #[source]
        source: Box<PushReferrerError>,
    },
}

/// Why an image is not to be had for a copy.
#[derive(Debug, thiserror::Error)]
pub enum FromError {
    /// A manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// There is none for the platform.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// What refers to it.
    #[error(transparent)]
    Referrers(#[from] ReferrersError),
    /// A manifest says nothing that can be understood.
    #[error("{digest} cannot be read")]
    Malformed {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A digest of an algorithm that we cannot verify.
    #[error("it refers to something that cannot be verified")]
    Digest(#[from] DigestError),
    /// Manifests upon manifests.
    #[error("it has more than {MOST_DOCUMENTS} manifests and blobs")]
    TooMany,
}

/// Copies an image, or all that an index has, and gives it a name there.
///
/// # Errors
/// [`CopyError`]; then the name means what it meant before.
pub fn copy(
    client: &Client,
    from: &Reference,
    to: &Reference,
    options: CopyOptions<'_>,
) -> Result<Copied, CopyError> {
    let failed = |source| CopyError::From { reference: Box::new(from.clone()), source: Box::new(source) };
    let documents = documents(client, from, options.platform).map_err(failed)?;
    let mut copied = put(client, from, to, &documents, options)?;
    if options.with_referrers {
        let subjects = documents.below.iter().chain([&documents.top]).map(|fetched| fetched.digest.clone());
        copied.sent_bytes += copy_referrers(client, from, to, subjects.collect(), options)?;
    }
    Ok(copied)
}

/// Copies what refers to some documents, and what refers to that; gives how many bytes of blobs were sent.
fn copy_referrers(
    client: &Client,
    from: &Reference,
    to: &Reference,
    mut subjects: Vec<Digest>,
    options: CopyOptions<'_>,
) -> Result<u64, CopyError> {
    let failed =
        |source: FromError| CopyError::From { reference: Box::new(from.clone()), source: Box::new(source) };
    // A registry may say of two that each refers to the other.
    let mut seen: HashSet<Digest> = subjects.iter().cloned().collect();
    let mut sent_bytes = 0;
    while let Some(subject) = subjects.pop() {
        let referrers = client.referrers(from, &subject).map_err(|error| failed(error.into()))?;
        for descriptor in referrers {
            let digest = Digest::try_from(descriptor.digest()).map_err(|error| failed(error.into()))?;
            if !seen.insert(digest.clone()) {
                continue;
            }
            if seen.len() > MOST_DOCUMENTS {
                return Err(failed(FromError::TooMany));
            }
            let documents = documents(client, &from.at_digest(digest.clone()), None).map_err(failed)?;
            let copying = Route::new(client, from, to, options);
            copying.deliver_all(&documents)?;
            let top = &documents.top;
            let put = client.push_referrer(to, &subject, &descriptor, &top.bytes);
            put.map_err(|source| CopyError::Referrer {
                reference: Box::new(to.clone()),
                source: Box::new(source),
            })?;
            sent_bytes += copying.sent.into_inner();
            subjects.push(digest);
        }
    }
    Ok(sent_bytes)
}

/// Sends all blobs, then the manifests; the last of them gets the name.
pub(crate) fn put(
    client: &Client,
    from: &Reference,
    to: &Reference,
    documents: &Documents,
    options: CopyOptions<'_>,
) -> Result<Copied, CopyError> {
    (options.progress)(Progress::Found { blobs: documents.blobs.len() });
    let copying = Route::new(client, from, to, options);
    copying.deliver_all(documents)?;
    let top = &documents.top;
    client
        .push_manifest(to, top.media_type.as_ref(), &top.bytes)
        .map_err(|error| copying.cannot_put(error))?;
    Ok(Copied { digest: top.digest.clone(), sent_bytes: copying.sent.into_inner() })
}

/// What an image consists of.
pub(crate) struct Documents {
    /// Its manifest or index.
    pub(crate) top: Fetched,
    /// What is below an index, each behind what is below itself.
    pub(crate) below: Vec<Fetched>,
    /// Each once.
    pub(crate) blobs: Vec<Descriptor>,
}

/// Fetches all manifests of an image.
pub(crate) fn documents(
    client: &Client,
    from: &Reference,
    platform: Option<&Platform>,
) -> Result<Documents, FromError> {
    let top = match platform {
        None => client.manifest(from)?,
        Some(platform) => client.resolve(from, platform)?.manifest,
    };
    let mut walk = Walk { client, from, below: Vec::new(), blobs: Vec::new(), seen: HashSet::new() };
    walk.visit(&top)?;
    Ok(Documents { top, below: walk.below, blobs: walk.blobs })
}

struct Walk<'w> {
    client: &'w Client,
    from: &'w Reference,
    below: Vec<Fetched>,
    blobs: Vec<Descriptor>,
    /// Digests of manifests and of blobs.
    seen: HashSet<String>,
}

impl Walk<'_> {
    /// Recurses as deep as indexes are within each other, and no document can be within itself.
    fn visit(&mut self, fetched: &Fetched) -> Result<(), FromError> {
        let malformed = |source| FromError::Malformed { digest: fetched.digest.clone(), source };
        if fetched.kind == ManifestKind::Manifest {
            let manifest: ImageManifest = serde_json::from_slice(&fetched.bytes).map_err(malformed)?;
            let blobs = std::iter::once(manifest.config()).chain(manifest.layers());
            let own = blobs.filter(|blob| !is_foreign(blob));
            self.blobs.extend(own.filter(|blob| self.seen.insert(blob.digest().to_string())).cloned());
            return Ok(());
        }
        let index: ImageIndex = serde_json::from_slice(&fetched.bytes).map_err(malformed)?;
        for entry in index.manifests() {
            if !self.seen.insert(entry.digest().to_string()) {
                continue;
            }
            if self.seen.len() >= MOST_DOCUMENTS {
                return Err(FromError::TooMany);
            }
            let next = self.client.manifest(&self.from.at_digest(Digest::try_from(entry.digest())?))?;
            self.visit(&next)?;
            self.below.push(next);
        }
        Ok(())
    }
}

/// Whether a layer may be held by whoever makes it alone: registries take the manifest without it.
fn is_foreign(blob: &Descriptor) -> bool {
    let media_type = blob.media_type().to_string();
    media_type.contains(".nondistributable.") || media_type.contains(".foreign.")
}

/// From where to where.
struct Route<'r> {
    client: &'r Client,
    from: &'r Reference,
    to: &'r Reference,
    options: CopyOptions<'r>,
    /// Bytes of blobs that were sent.
    sent: AtomicU64,
}

impl<'r> Route<'r> {
    fn new(client: &'r Client, from: &'r Reference, to: &'r Reference, options: CopyOptions<'r>) -> Self {
        Self { client, from, to, options, sent: AtomicU64::new(0) }
    }

    /// Everything but the outermost manifest.
    fn deliver_all(&self, documents: &Documents) -> Result<(), CopyError> {
        let delivered = parallel::map(self.options.transfers, &documents.blobs, |blob| self.deliver(blob));
        delivered.map_err(|error| self.cannot_put(error))?;
        for below in &documents.below {
            let place = self.to.at_digest(below.digest.clone());
            let put = self.client.push_manifest(&place, below.media_type.as_ref(), &below.bytes);
            put.map_err(|error| self.cannot_put(error))?;
        }
        Ok(())
    }

    fn cannot_put(&self, source: PushError) -> CopyError {
        CopyError::To { reference: Box::new(self.to.clone()), source: Box::new(source) }
    }

    fn deliver(&self, blob: &Descriptor) -> Result<(), PushError> {
        let digest = Digest::try_from(blob.digest()).map_err(io::Error::other).map_err(PushError::Source)?;
        let tell = self.options.progress;
        tell(Progress::Began { blob: digest.clone(), bytes: blob.size() });
        let of_registry = self.from.registry() == self.to.registry();
        let elsewhere = of_registry && self.from.repository() != self.to.repository();
        let outgoing = Outgoing {
            digest: &digest,
            size: blob.size(),
            source: &Remote { client: self.client, reference: self.from, blob },
            mount_from: elsewhere.then(|| self.from.repository()),
            progress: &|bytes| tell(Progress::Moved { blob: digest.clone(), bytes }),
        };
        let delivery = self.client.push_blob(self.to, &outgoing)?;
        if delivery == Delivery::Sent {
            self.sent.fetch_add(blob.size(), Ordering::Relaxed);
        }
        tell(Progress::Ended { blob: digest, delivery });
        Ok(())
    }
}

/// A blob at another registry, to be read.
struct Remote<'r> {
    client: &'r Client,
    reference: &'r Reference,
    blob: &'r Descriptor,
}

impl Source for Remote<'_> {
    /// From the beginning in any case, so that all of it is verified.
    fn read(
        &self,
        from: u64,
        consume: &mut dyn FnMut(&mut dyn Read) -> Result<(), PushError>,
    ) -> Result<(), PushError> {
        let reader = self.client.blob(self.reference, self.blob);
        let mut reader = reader.map_err(io::Error::other).map_err(PushError::Source)?;
        io::copy(&mut reader.by_ref().take(from), &mut io::sink()).map_err(PushError::Source)?;
        consume(&mut reader)
    }
}
