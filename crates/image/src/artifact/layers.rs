//! Layers out of an artifact.

use std::collections::HashSet;
use std::io::{self, Read};

use oci::{Descriptor, DiffId, LayerId, VerifyingReader};

use super::Place;
use crate::Layers;
use crate::receive::{self, Offered, Origin, ReceiveError};

/// How layers come.
#[derive(Clone, Copy)]
pub struct Options<'o> {
    /// How many at once.
    pub transfers: usize,
    /// Told how many more bytes have come, from any thread.
    pub progress: &'o (dyn Fn(u64) + Sync),
}

/// Brings layers from an artifact into the store, and gives their ids, the lowest first. They stand upon `below`. What the
/// store has of them does not come.
///
/// # Errors
/// [`ReceiveError`]; every byte is checked against the descriptors and the `DiffId`s.
pub fn receive(
    layers: &Layers<'_>,
    place: &Place<'_>,
    below: &[LayerId],
    wanted: &[(DiffId, Descriptor)],
    options: Options<'_>,
) -> Result<Vec<LayerId>, ReceiveError> {
    let mut offered = Vec::with_capacity(wanted.len());
    for (diff_id, blob) in wanted {
        let expected = receive::layer_bytes(blob).map_err(|error| ReceiveError::Read {
            diff_id: diff_id.clone(),
            source: io::Error::other(error),
        })?;
        offered.push(Offered { diff_id: diff_id.clone(), expected: Some(expected), place: blob.clone() });
    }
    let artifact = Artifact { layers, place, progress: options.progress };
    let staged = receive::stage(layers, &offered, &artifact, options.transfers, &mut HashSet::new())?;
    let mut ids = receive::publish_upon(layers, below, staged, &offered, &artifact)?;
    Ok(ids.split_off(below.len()))
}

struct Artifact<'a> {
    layers: &'a Layers<'a>,
    place: &'a Place<'a>,
    progress: &'a (dyn Fn(u64) + Sync),
}

/// Tells of bytes as they come.
struct Told<'t, R> {
    from: R,
    progress: &'t (dyn Fn(u64) + Sync),
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        (self.progress)(read as u64);
        Ok(read)
    }
}

impl Origin for Artifact<'_> {
    type Place = Descriptor;

    const KEEPS_BLOBS: bool = true;

    fn open<'o>(&'o self, layer: &'o Offered<Descriptor>) -> io::Result<Box<dyn Read + 'o>> {
        let Some(expected) = &layer.expected else { return Err(io::ErrorKind::InvalidInput.into()) };
        match self.layers.lease().store().open_blob(&expected.digest)? {
            Some(file) => {
                Ok(Box::new(VerifyingReader::new(file, expected.digest.clone(), expected.size_bytes)))
            }
            None => {
                let from = self.place.open(&layer.place)?;
                Ok(Box::new(Told { from, progress: self.progress }))
            }
        }
    }
}
