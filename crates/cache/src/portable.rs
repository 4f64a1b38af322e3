//! Records that travel: those of one build as a document, beside the compressed layers that it names by their position.
//!
//! A record that travels holds its step's key, and of the layers only those that steps have made. What lies below them is the base image,
//! which the key stands for and whoever imports has anyway: so no base image travels, and it does not matter by which ids two stores know its layers.
//!
//! The document is data of a stranger. [`Portable::from_json`] refuses what is not whole in itself; whether the layers are what it says is found
//! out when they come, by their digests. It may name any result for any key: whoever can write where records are imported from decides what steps
//! give. It never makes us read or write anything else.

use std::collections::HashMap;

use jiff::Timestamp;
use oci::{DiffId, Digest};
use serde::{Deserialize, Serialize};
use store::RecordKey;

/// Steps of one document; a build of ten thousand is beyond anything that was ever seen.
const MAX_RECORDS: usize = 100_000;

/// Layers of one document.
const MAX_LAYERS: usize = 100_000;

/// Layers of one record; overlayfs mounts no more.
const MAX_RECORD_LAYERS: usize = 500;

/// The longest that a step may have taken, in milliseconds: a year. Sums of these stay numbers.
const MAX_MILLIS: u64 = 366 * 24 * 60 * 60 * 1000;

/// The records of a build, and what stands beside them in an artifact.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Portable {
    /// Layers that records are made of, each once.
    pub layers: Vec<PortableLayer>,
    /// What steps gave.
    pub records: Vec<PortableRecord>,
    /// What cache mounts held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<PortableMount>,
}

/// What a cache mount held.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PortableMount {
    /// Its id.
    pub id: String,
    /// Which of the artifact's blobs says what it consists of, counted from 0.
    pub blob: usize,
    /// Those that this one needs.
    pub packs: Vec<usize>,
}

/// A layer that a step has made.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortableLayer {
    /// Of its uncompressed tar.
    pub diff_id: DiffId,
    /// When it was made, RFC 3339; empty if that is not known.
    #[serde(default)]
    pub created: String,
    /// Which of the artifact's blobs it is, counted from 0.
    pub blob: usize,
}

/// What a step gave.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PortableRecord {
    /// The step's definition key.
    pub definition: Digest,
    /// Its content key, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
    /// Positions in [`Portable::layers`]: the layers above the base image, the lowest first.
    pub layers: Vec<usize>,
    /// How long the step took, in milliseconds.
    #[serde(default)]
    pub millis: u64,
    /// The same of the steps that it stands on, by [`crate::short_key`].
    #[serde(default)]
    pub upstream: Vec<(String, u64)>,
}

/// Why a document is of no use.
#[derive(Debug, thiserror::Error)]
pub enum PortableError {
    /// No JSON, or not of this shape.
    #[error("the records are not in a form that this version reads")]
    Json(#[from] serde_json::Error),
    /// More of something than any build has.
    #[error("the records have {count} {what}, more than the {limit} that there may be")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The most.
        limit: usize,
    },
    /// A record names a layer that is not there.
    #[error("the record {0} names a layer that is not there")]
    NoLayer(Digest),
    /// A layer names a blob that is not there.
    #[error("the layer {0} names a blob that is not there")]
    NoBlob(DiffId),
    /// A cache mount names a blob that is not there.
    #[error("the cache mount `{0}` names a blob that is not there")]
    NoMountBlob(String),
    /// A step took longer than anybody waits.
    #[error("the record {0} has an impossible duration")]
    Duration(Digest),
    /// A layer was made at no time.
    #[error("the layer {0} has an impossible time")]
    Time(DiffId),
}

impl Portable {
    /// Adds a layer, unless it is there; gives its position.
    pub fn add_layer(&mut self, layer: PortableLayer, known: &mut HashMap<PortableLayer, usize>) -> usize {
        *known.entry(layer).or_insert_with_key(|layer| {
            self.layers.push(layer.clone());
            self.layers.len() - 1
        })
    }

    /// The records by each of their keys. Of several under one key the first counts.
    #[must_use]
    pub fn by_key(&self) -> HashMap<RecordKey, usize> {
        let mut by_key = HashMap::new();
        for (index, record) in self.records.iter().enumerate() {
            for key in std::iter::once(&record.definition).chain(&record.content) {
                by_key.entry(RecordKey::new(key.clone())).or_insert(index);
            }
        }
        by_key
    }

    /// The layers of a record, the lowest first.
    pub fn layers_of<'p>(&'p self, record: &'p PortableRecord) -> impl Iterator<Item = &'p PortableLayer> {
        record.layers.iter().filter_map(|layer| self.layers.get(*layer))
    }

    /// The same where blobs have become others: for each one its new position, or nothing if it is gone, and with it the records that need it.
    #[must_use]
    pub fn with_blobs(&self, positions: &[Option<usize>]) -> Self {
        let mut new = Self::default();
        let mut known = HashMap::new();
        let mut moved = |layer: &usize, new: &mut Self| {
            let layer = self.layers.get(*layer)?;
            let blob = positions.get(layer.blob).copied().flatten()?;
            Some(new.add_layer(PortableLayer { blob, ..layer.clone() }, &mut known))
        };
        for record in &self.records {
            let layers: Option<Vec<usize>> =
                record.layers.iter().map(|layer| moved(layer, &mut new)).collect();
            if let Some(layers) = layers {
                new.records.push(PortableRecord { layers, ..record.clone() });
            }
        }
        let moved = |blob: &usize| positions.get(*blob).copied().flatten();
        for mount in &self.mounts {
            let packs: Option<Vec<usize>> = mount.packs.iter().map(moved).collect();
            if let (Some(blob), Some(packs)) = (moved(&mount.blob), packs) {
                new.mounts.push(PortableMount { id: mount.id.clone(), blob, packs });
            }
        }
        new
    }

    /// As a document.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("records have string keys only, so they always serialise")
    }

    /// Reads a document beside which there are `blobs` blobs.
    ///
    /// # Errors
    /// [`PortableError`]; what is given is whole in itself.
    pub fn from_json(bytes: &[u8], blobs: usize) -> Result<Self, PortableError> {
        let read: Self = serde_json::from_slice(bytes)?;
        let bound = |what, count, limit| {
            if count > limit { Err(PortableError::TooMany { what, count, limit }) } else { Ok(()) }
        };
        bound("layers", read.layers.len(), MAX_LAYERS)?;
        bound("records", read.records.len(), MAX_RECORDS)?;
        for layer in &read.layers {
            if layer.blob >= blobs {
                return Err(PortableError::NoBlob(layer.diff_id.clone()));
            }
            if !layer.created.is_empty() && layer.created.parse::<Timestamp>().is_err() {
                return Err(PortableError::Time(layer.diff_id.clone()));
            }
        }
        bound("cache mounts", read.mounts.len(), MAX_RECORDS)?;
        for mount in &read.mounts {
            if mount.packs.iter().chain([&mount.blob]).any(|blob| *blob >= blobs) {
                return Err(PortableError::NoMountBlob(mount.id.clone()));
            }
        }
        for record in &read.records {
            bound("layers in one record", record.layers.len(), MAX_RECORD_LAYERS)?;
            bound("steps below one record", record.upstream.len(), MAX_RECORDS)?;
            let mut all = record.upstream.iter().map(|(_, millis)| *millis).chain([record.millis]);
            if all.any(|millis| millis > MAX_MILLIS) {
                return Err(PortableError::Duration(record.definition.clone()));
            }
            if record.layers.iter().any(|layer| *layer >= read.layers.len()) {
                return Err(PortableError::NoLayer(record.definition.clone()));
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Portable {
        let mut portable = Portable::default();
        let mut known = HashMap::new();
        let layer = |text: &str| PortableLayer {
            diff_id: DiffId::new(Digest::of(text)),
            created: "2026-01-02T03:04:05Z".to_owned(),
            blob: 0,
        };
        let first = portable.add_layer(layer("a"), &mut known);
        let second = portable.add_layer(layer("b"), &mut known);
        assert_eq!(portable.add_layer(layer("a"), &mut known), first);
        portable.records.push(PortableRecord {
            definition: Digest::of("definition"),
            content: Some(Digest::of("content")),
            layers: vec![first, second],
            millis: 7,
            upstream: vec![("ab".to_owned(), 3)],
        });
        portable.mounts.push(PortableMount { id: "m".to_owned(), blob: 0, packs: vec![0] });
        portable
    }

    #[test]
    fn a_document_is_read_as_it_was_written_and_found_by_both_keys() {
        let portable = example();
        let read = Portable::from_json(&portable.to_json(), 1).unwrap();
        assert_eq!(read, portable);
        let by_key = read.by_key();
        for key in ["definition", "content"] {
            assert_eq!(by_key.get(&RecordKey::new(Digest::of(key))), Some(&0), "{key}");
        }
        assert_eq!(by_key.len(), 2);
        assert_eq!(read.layers_of(&read.records[0]).count(), 2);
    }

    #[test]
    fn records_go_with_the_blobs_that_they_need() {
        let mut portable = example();
        portable.layers[1].blob = 1;
        portable.records.push(PortableRecord { layers: vec![1], ..portable.records[0].clone() });
        let moved = portable.with_blobs(&[Some(4), Some(2)]);
        assert_eq!(moved.records, portable.records);
        assert_eq!(moved.layers.iter().map(|layer| layer.blob).collect::<Vec<_>>(), [4, 2]);
        assert_eq!(moved.mounts, [PortableMount { id: "m".to_owned(), blob: 4, packs: vec![4] }]);
        let left = portable.with_blobs(&[None, Some(0)]);
        assert_eq!((left.records.len(), left.mounts.len()), (1, 0));
        assert_eq!(left.layers_of(&left.records[0]).map(|layer| layer.blob).collect::<Vec<_>>(), [0]);
        assert_eq!(portable.with_blobs(&[]), Portable::default());
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let refused = |change: &dyn Fn(&mut Portable), blobs: usize| {
            let mut portable = example();
            change(&mut portable);
            Portable::from_json(&portable.to_json(), blobs).unwrap_err().to_string()
        };
        assert!(refused(&|_| {}, 0).contains("names a blob that is not there"));
        assert!(refused(&|p| p.records[0].layers.push(2), 1).contains("names a layer that is not there"));
        assert!(refused(&|p| p.records[0].millis = u64::MAX, 1).contains("impossible duration"));
        assert!(refused(&|p| p.records[0].upstream[0].1 = u64::MAX, 1).contains("impossible duration"));
        assert!(refused(&|p| p.layers[1].created = "soon".to_owned(), 1).contains("impossible time"));
        assert!(refused(&|p| p.records[0].layers = vec![0; 501], 1).contains("501 layers in one record"));
        assert!(refused(&|p| p.mounts[0].packs.push(1), 1).contains("the cache mount `m` names a blob"));
        for text in ["", "[]", "{}", "null", r#"{"layers":[{}],"records":[]}"#] {
            assert!(Portable::from_json(text.as_bytes(), 9).is_err(), "{text}");
        }
    }

    #[test]
    fn a_document_of_a_later_version_is_read_as_far_as_it_is_known() {
        let text = r#"{"layers":[],"records":[],"mood":"good"}"#;
        assert_eq!(Portable::from_json(text.as_bytes(), 0).unwrap(), Portable::default());
    }
}
