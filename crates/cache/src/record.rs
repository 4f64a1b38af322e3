//! Records: what a step made, under its keys.

use jiff::Timestamp;
use oci::{ContentDigest, Digest, Hasher, LayerId};
use serde::{Deserialize, Serialize};
use store::{Lease, LogId, Object, Record, RecordKey};

use crate::key::{Keys, Parts, content_of};

/// A secret of the store that keys the digests of part values, so that a short value cannot be found by trying.
#[derive(Clone)]
pub struct Salt(pub [u8; 32]);

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// One layer of a result.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct RecordedLayer {
    /// In the store.
    pub id: LayerId,
    /// What it contains.
    pub content: ContentDigest,
    /// When it was made, RFC 3339. For layers of a base image, whatever its history says.
    pub created: String,
}

/// What a step made.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The whole filesystem, lowest layer first, the step's own layer last.
    pub layers: Vec<RecordedLayer>,
    /// How long it took, in milliseconds: what reusing it saves.
    pub millis: u64,
    /// Its log, if it had one.
    pub log: Option<String>,
    /// How long the steps took that its result stands on, in milliseconds, by [`short_key`] of their definition keys: what reusing
    /// it saves besides, since then nobody asks for their own records.
    #[serde(default)]
    pub upstream: Vec<(String, u64)>,
    /// The content key that it was recorded under, so that it can travel under both keys. Filled in by [`Cache::put`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
    /// Of the document that it was imported with, if it was: what came together was made together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Digest>,
}

/// The records of one store, as one build sees them.
#[derive(Debug)]
pub struct Cache<'l> {
    lease: &'l Lease,
    salt: Salt,
    /// Which build this is, so that its steps are compared with their own earlier runs: the Dockerfile's path, for example.
    scope: String,
    /// What was made before is not there.
    oldest: Option<Timestamp>,
}

impl<'l> Cache<'l> {
    /// The cache in the store of `lease`.
    #[must_use]
    pub fn new(lease: &'l Lease, salt: Salt, scope: String) -> Self {
        Self { lease, salt, scope, oldest: None }
    }

    /// The same without results that were made before `oldest`.
    #[must_use]
    pub fn not_before(self, oldest: Option<Timestamp>) -> Self {
        Self { oldest, ..self }
    }

    /// The record under a key, with all its layers pinned; `None` if there is none or anything of its result is gone.
    ///
    /// # Errors
    /// Those of the store. A damaged record is none.
    pub fn find(&self, key: &RecordKey) -> Result<Option<StepRecord>, store::Error> {
        Ok(self.find_of_any_age(key)?.filter(|record| !self.is_too_old(record)))
    }

    /// Whether there would be a record under a key, were it not so old.
    ///
    /// # Errors
    /// Those of the store.
    pub fn has_aged(&self, key: &RecordKey) -> Result<bool, store::Error> {
        Ok(self.find_of_any_age(key)?.is_some_and(|record| self.is_too_old(&record)))
    }

    /// Whether a result of layers that were made at these times is as young as the caller wants it. Layers of base images have no time here, and neither
    /// have those of files that a mount shows.
    #[must_use]
    pub fn is_wanted<'r>(&self, made: impl IntoIterator<Item = &'r str>) -> bool {
        let mut made = made.into_iter().filter_map(|made| made.parse::<Timestamp>().ok());
        !self.oldest.is_some_and(|oldest| made.any(|made| made < oldest))
    }

    fn find_of_any_age(&self, key: &RecordKey) -> Result<Option<StepRecord>, store::Error> {
        let record = self.lease.record(key)?;
        Ok(record.and_then(|record| serde_json::from_slice(&record.payload).ok()))
    }

    fn is_too_old(&self, record: &StepRecord) -> bool {
        !self.is_wanted(record.layers.iter().map(|layer| layer.created.as_str()))
    }

    /// Records what a step made, under both keys.
    ///
    /// # Errors
    /// Those of the store.
    pub fn put(&self, keys: &Keys, record: &StepRecord) -> Result<(), store::Error> {
        let log: Option<LogId> = record.log.as_ref().and_then(|log| log.parse().ok());
        let mut needs: Vec<Object> =
            record.layers.iter().map(|layer| Object::Layer(layer.id.clone())).collect();
        needs.extend(log.map(Object::Log));
        let record = StepRecord { content: Some(keys.content.digest().clone()), ..record.clone() };
        let result = Record { needs, payload: to_json(&record) };
        self.lease.put_record(&keys.definition, &result)?;
        self.lease.put_record(&keys.content, &result)
    }

    /// Records a result under one key, for what is no step of its own.
    ///
    /// # Errors
    /// Those of the store.
    pub fn put_under(&self, key: &RecordKey, record: &StepRecord) -> Result<(), store::Error> {
        let needs = record.layers.iter().map(|layer| Object::Layer(layer.id.clone())).collect();
        self.lease.put_record(key, &Record { needs, payload: to_json(record) })
    }

    /// The layers that stand for a filesystem of this content and of this `SOURCE_DATE_EPOCH`, all of them pinned; `None` if none was recorded or any is gone.
    ///
    /// # Errors
    /// Those of the store.
    pub fn representative(
        &self,
        content: &Digest,
        time: Option<i64>,
    ) -> Result<Option<Vec<RecordedLayer>>, store::Error> {
        Ok(self.find(&representative_key(content, time))?.map(|record| record.layers))
    }

    /// Lets these layers stand for every filesystem of their content and of this `SOURCE_DATE_EPOCH` that steps make from now on.
    ///
    /// # Errors
    /// Those of the store.
    pub fn set_representative(
        &self,
        layers: &[RecordedLayer],
        time: Option<i64>,
    ) -> Result<(), store::Error> {
        let content = content_of(layers.iter().map(|layer| &layer.content));
        let record = StepRecord {
            layers: layers.to_vec(),
            millis: 0,
            log: None,
            upstream: Vec::new(),
            content: None,
            origin: None,
        };
        self.put_under(&representative_key(&content, time), &record)
    }

    /// A step's parts as records keep them.
    #[must_use]
    pub fn keyed(&self, parts: &Parts) -> Vec<(String, String)> {
        parts
            .iter()
            .map(|(name, digest)| (name.to_string(), self.keyed_digest(&name.to_string(), digest)))
            .collect()
    }

    pub(crate) fn lease(&self) -> &'l Lease {
        self.lease
    }

    pub(crate) fn scope(&self) -> &str {
        &self.scope
    }

    /// A digest of a secret that says nothing to whoever has not this store's salt.
    #[must_use]
    pub fn secret_digest(&self, value: &[u8]) -> Digest {
        let mut hasher = Hasher::sha256();
        hasher.update_field(self.salt.0);
        hasher.update_field("secret");
        hasher.update_field(value);
        hasher.finish()
    }

    fn keyed_digest(&self, name: &str, digest: &Digest) -> String {
        let mut hasher = Hasher::sha256();
        hasher.update_field(self.salt.0);
        hasher.update_field(name);
        hasher.update_field(digest.as_bytes());
        hasher.finish().hex()
    }
}

fn representative_key(content: &Digest, time: Option<i64>) -> RecordKey {
    let mut hasher = Hasher::sha256();
    hasher.update_field("representative");
    hasher.update_field(content.as_bytes());
    if let Some(time) = time {
        hasher.update_field(time.to_string());
    }
    RecordKey::new(hasher.finish())
}

/// Enough of a definition key to tell the steps of one build apart.
#[must_use]
pub fn short_key(definition: &RecordKey) -> String {
    /// Half of a digest's hexadecimal digits are plenty for some hundred steps; a quarter still is.
    const DIGITS: usize = 16;
    definition.digest().hex()[..DIGITS].to_owned()
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("records have string keys only, so they always serialise")
}
