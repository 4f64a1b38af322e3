//! Artifacts in registries.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use oci::{Digest, ImageManifest, ManifestKind, Platform, Reference};
use registry::{Client, Delivery, Failure, ManifestError, ResolveError};

use super::ArtifactError;
use crate::export::package::File;
use crate::push::{self, PushFailure};
use crate::{Error, Layers};

/// In which other repositories blobs may be.
pub(super) type Elsewhere = BTreeMap<Digest, String>;

/// The manifest of an artifact, or of an image; of one for several platforms those for these, as far as they are there.
pub(super) fn manifests(
    client: &Client,
    reference: &Reference,
    platforms: &[Platform],
) -> Result<Vec<ImageManifest>, ArtifactError> {
    let fetched = client.manifest(reference).map_err(|error| match &error {
        ManifestError::Request(request) if matches!(*request.failure, Failure::NotFound { .. }) => {
            ArtifactError::Missing
        }
        _ => ArtifactError::Manifest(Box::new(error)),
    })?;
    if fetched.kind == ManifestKind::Manifest {
        return Ok(vec![serde_json::from_slice(&fetched.bytes)?]);
    }
    // The tag may move.
    let index = reference.at_digest(fetched.digest);
    let mut found = Vec::with_capacity(platforms.len());
    for platform in platforms {
        match client.resolve(&index, platform) {
            Ok(resolved) => found.push(resolved.image),
            Err(ResolveError::NoPlatform { .. }) => {}
            Err(error) => return Err(ArtifactError::Resolve(Box::new(error))),
        }
    }
    if found.is_empty() { Err(ArtifactError::Missing) } else { Ok(found) }
}

pub(super) fn elsewhere(layers: &Layers<'_>, reference: &Reference) -> Result<Elsewhere, Error> {
    push::elsewhere(layers, reference)
}

/// Sees to it that a repository has a blob; whether it had to be sent.
pub(super) fn send(
    layers: &Layers<'_>,
    client: &Client,
    reference: &Reference,
    digest: &Digest,
    file: &File,
    mount_from: Option<&str>,
) -> Result<bool, ArtifactError> {
    let delivered = push::Errand { layers, client, reference, is_over: &AtomicBool::new(false) }.deliver(
        digest,
        file,
        mount_from,
        &|_| {},
    );
    match delivered {
        Ok(delivery) => Ok(delivery == Delivery::Sent),
        Err(PushFailure::Export(error)) => Err(ArtifactError::Export(error)),
        Err(PushFailure::Registry(error)) => Err(ArtifactError::Push(error)),
        Err(PushFailure::Nothing) => unreachable!("a blob is something"),
    }
}
