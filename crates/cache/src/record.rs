//! Records: what a step made, under its keys; and what its parts were, under where it stands.

use oci::{ContentDigest, Digest, Hasher, LayerId};
use plan::Step;
use serde::{Deserialize, Serialize};
use store::{Lease, LogId, Object, Record, RecordKey};

use crate::cause::{Cause, Change, How, PartVerdict, compare};
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
    /// The parts of its definition key: names with digests keyed by the [`Salt`].
    pub parts: Vec<(String, String)>,
}

/// The files of a step's sources with their digests, sorted by name.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct FileList(pub Vec<(String, [u8; 32])>);

/// The records of one store, as one build sees them.
#[derive(Debug)]
pub struct Cache<'l> {
    lease: &'l Lease,
    salt: Salt,
    /// Which build this is, so that its steps are compared with their own earlier runs: the Dockerfile's path, for example.
    scope: String,
}

impl<'l> Cache<'l> {
    /// The cache in the store of `lease`.
    #[must_use]
    pub fn new(lease: &'l Lease, salt: Salt, scope: String) -> Self {
        Self { lease, salt, scope }
    }

    /// The record under a key, with all its layers pinned; `None` if there is none or anything of its result is gone.
    ///
    /// # Errors
    /// Those of the store. A damaged record is none.
    pub fn find(&self, key: &RecordKey) -> Result<Option<StepRecord>, store::Error> {
        let Some(record) = self.lease.record(key)? else { return Ok(None) };
        Ok(serde_json::from_slice(&record.payload).ok())
    }

    /// Records what a step made, under both keys, and its parts and files where the next build will look for them.
    ///
    /// # Errors
    /// Those of the store.
    pub fn put(
        &self,
        step: &Step,
        keys: &Keys,
        record: &StepRecord,
        files: &FileList,
    ) -> Result<(), store::Error> {
        let log: Option<LogId> = record.log.as_ref().and_then(|log| log.parse().ok());
        let mut needs: Vec<Object> =
            record.layers.iter().map(|layer| Object::Layer(layer.id.clone())).collect();
        needs.extend(log.map(Object::Log));
        let result = Record { needs, payload: to_json(record) };
        self.lease.put_record(&keys.definition, &result)?;
        self.lease.put_record(&keys.content, &result)?;
        let trace = Record {
            needs: Vec::new(),
            payload: to_json(&Trace { parts: record.parts.clone(), files: files.clone() }),
        };
        for place in self.places(step) {
            self.lease.put_record(&place, &trace)?;
        }
        Ok(())
    }

    /// Records a result under one key, for what is no step of its own.
    ///
    /// # Errors
    /// Those of the store.
    pub fn put_under(&self, key: &RecordKey, record: &StepRecord) -> Result<(), store::Error> {
        let needs = record.layers.iter().map(|layer| Object::Layer(layer.id.clone())).collect();
        self.lease.put_record(key, &Record { needs, payload: to_json(record) })
    }

    /// The layers that stand for a filesystem of this content, all of them pinned; `None` if none was recorded or any is gone.
    ///
    /// # Errors
    /// Those of the store.
    pub fn representative(&self, content: &Digest) -> Result<Option<Vec<RecordedLayer>>, store::Error> {
        Ok(self.find(&representative_key(content))?.map(|record| record.layers))
    }

    /// Lets these layers stand for every filesystem of their content that steps make from now on.
    ///
    /// # Errors
    /// Those of the store.
    pub fn set_representative(&self, layers: &[RecordedLayer]) -> Result<(), store::Error> {
        let content = content_of(layers.iter().map(|layer| &layer.content));
        let record = StepRecord { layers: layers.to_vec(), millis: 0, log: None, parts: Vec::new() };
        self.put_under(&representative_key(&content), &record)
    }

    /// A step's parts as records keep them.
    #[must_use]
    pub fn keyed(&self, parts: &Parts) -> Vec<(String, String)> {
        parts
            .iter()
            .map(|(name, digest)| (name.to_string(), self.keyed_digest(&name.to_string(), digest)))
            .collect()
    }

    /// Why a step has no record: its parts and files beside those of its nearest earlier run.
    ///
    /// # Errors
    /// Those of the store.
    pub fn explain(
        &self,
        step: &Step,
        parts: &Parts,
        files: &FileList,
    ) -> Result<(Cause, Vec<PartVerdict>), store::Error> {
        let keyed = self.keyed(parts);
        let Some(earlier) = self.trace(step)? else {
            let verdicts = compare(std::iter::empty(), pairs(&keyed));
            return Ok((Cause::FirstRun, verdicts));
        };
        let verdicts = compare(pairs(&earlier.parts), pairs(&keyed));
        let changes = changes(parts, &verdicts, &earlier.files, files);
        let cause = if changes.is_empty() { Cause::ResultGone } else { Cause::Changed(changes) };
        Ok((cause, verdicts))
    }

    /// The nearest earlier run: of the same instruction in the same stage, else of whatever stood in its place.
    fn trace(&self, step: &Step) -> Result<Option<Trace>, store::Error> {
        for place in self.places(step) {
            let record = self.lease.record(&place)?;
            if let Some(trace) = record.and_then(|record| serde_json::from_slice(&record.payload).ok()) {
                return Ok(Some(trace));
            }
        }
        Ok(None)
    }

    fn places(&self, step: &Step) -> Vec<RecordKey> {
        let stage = step
            .place
            .as_ref()
            .map(|place| place.stage.name.clone().unwrap_or_else(|| place.stage.index.to_string()));
        let number = step.place.as_ref().map_or(0, |place| place.number).to_string();
        let key = |kind: &str, last: &str| {
            let mut hasher = Hasher::sha256();
            for field in ["trace", kind, &self.scope, stage.as_deref().unwrap_or_default(), last] {
                hasher.update_field(field);
            }
            RecordKey::new(hasher.finish())
        };
        vec![key("text", &step.title), key("number", &number)]
    }

    fn keyed_digest(&self, name: &str, digest: &Digest) -> String {
        let mut hasher = Hasher::sha256();
        hasher.update_field(self.salt.0);
        hasher.update_field(name);
        hasher.update_field(digest.as_bytes());
        hasher.finish().hex()
    }
}

fn representative_key(content: &Digest) -> RecordKey {
    let mut hasher = Hasher::sha256();
    hasher.update_field("representative");
    hasher.update_field(content.as_bytes());
    RecordKey::new(hasher.finish())
}

/// What an earlier run of a step was made of.
#[derive(Serialize, Deserialize)]
struct Trace {
    parts: Vec<(String, String)>,
    files: FileList,
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("records have string keys only, so they always serialise")
}

fn pairs(parts: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    parts.iter().map(|(name, digest)| (name.as_str(), digest.as_str()))
}

/// The differences, those of the step itself first, then files, then other steps.
fn changes(parts: &Parts, verdicts: &[PartVerdict], old: &FileList, new: &FileList) -> Vec<Change> {
    let is_input = |name: &str| {
        let of_parts = parts.iter().find(|(part, _)| part.to_string() == name);
        of_parts.is_some_and(|(part, _)| part.is_input())
    };
    let mut own = Vec::new();
    let mut inputs = Vec::new();
    for PartVerdict { name, how } in verdicts {
        match how {
            None => {}
            Some(How::Changed) if is_input(name) => inputs.push(Change::Input { name: name.clone() }),
            Some(how) => own.push(Change::Part { name: name.clone(), how: *how }),
        }
    }
    let of =
        |list: &FileList| list.0.iter().map(|(name, digest)| (name.clone(), *digest)).collect::<Vec<_>>();
    let (old, new) = (of(old), of(new));
    let files = compare(old.iter().map(|(n, d)| (n.as_str(), d)), new.iter().map(|(n, d)| (n.as_str(), d)));
    own.extend(
        files.into_iter().filter_map(|file| file.how.map(|how| Change::File { path: file.name, how })),
    );
    if own.iter().any(|change| matches!(change, Change::File { .. })) {
        // The files say it better than the digest over all of them.
        inputs.retain(|change| !matches!(change, Change::Input { name } if name.starts_with("files of ")));
    }
    own.extend(inputs);
    own
}
