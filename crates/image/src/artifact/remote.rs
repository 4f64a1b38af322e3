//! Artifacts in registries.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use oci::{Digest, ManifestKind, Reference};
use registry::{Client, Delivery, Failure, ManifestError};

use super::ArtifactError;
use crate::export::package::File;
use crate::push::{self, PushFailure};
use crate::{Error, Layers};

/// In which other repositories blobs may be.
pub(super) type Elsewhere = BTreeMap<Digest, String>;

/// The bytes of an artifact's manifest.
pub(super) fn manifest(client: &Client, reference: &Reference) -> Result<Vec<u8>, ArtifactError> {
    let fetched = client.manifest(reference).map_err(|error| match &error {
        ManifestError::Request(request) if matches!(*request.failure, Failure::NotFound { .. }) => {
            ArtifactError::Missing
        }
        _ => ArtifactError::Manifest(Box::new(error)),
    })?;
    if fetched.kind == ManifestKind::Manifest {
        return Ok(fetched.bytes);
    }
    let (got, expected) = (fetched.media_type.to_string(), super::MANIFEST.to_owned());
    Err(ArtifactError::OtherKind { got, expected })
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
