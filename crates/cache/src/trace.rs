//! What earlier runs of a step were made of, kept so that a miss can say what changed.
//!
//! A *trace* has the parts of a definition key by name, the definition keys of the steps that the run stood on, and the files of its
//! contexts in short form. It lies under the run's definition key; two small pointers lead there from where the step stands, one by the
//! instruction's text and one by its number. Through the keys of its inputs the traces of a whole build hang together as they were then: what
//! changed below a step since *its* last run can be found even if the steps between have run since, as they have after a build that failed.

use oci::{Digest, Hasher};
use plan::{Plan, Step};
use serde::{Deserialize, Serialize};
use store::{Record, RecordKey};

use crate::Cache;
use crate::cause::{PartVerdict, compare};
use crate::key::Parts;

/// What one run of a step was made of.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Trace {
    /// The instruction, as it was written.
    pub title: String,
    /// The parts of its definition key: names with digests keyed by the store's salt.
    pub parts: Vec<(String, String)>,
    /// The steps that its result stood on: names of parts with definition keys.
    pub inputs: Vec<(String, RecordKey)>,
    /// The files that each of its context sources gave, in a form that only the caller reads.
    pub files: Vec<Vec<u8>>,
}

/// The first line of a trace's payload; the bytes of the files follow it.
#[derive(Serialize, Deserialize)]
struct Header {
    title: String,
    parts: Vec<(String, String)>,
    inputs: Vec<(String, String)>,
    file_bytes: Vec<usize>,
}

/// Leads from a place to the trace of what ran there last.
#[derive(Serialize, Deserialize)]
struct Pointer {
    title: String,
    definition: String,
}

impl Trace {
    fn to_bytes(&self) -> Vec<u8> {
        let inputs = self.inputs.iter().map(|(name, key)| (name.clone(), key.to_string())).collect();
        let file_bytes = self.files.iter().map(Vec::len).collect();
        let header = Header { title: self.title.clone(), parts: self.parts.clone(), inputs, file_bytes };
        let mut bytes = to_json(&header);
        bytes.push(b'\n');
        self.files.iter().for_each(|files| bytes.extend_from_slice(files));
        bytes
    }

    /// `None` for what another version wrote.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let header: Header = serde_json::from_slice(&bytes[..end]).ok()?;
        let mut rest = &bytes[end + 1..];
        let mut files = Vec::with_capacity(header.file_bytes.len());
        for length in header.file_bytes {
            let (file, after) = rest.split_at_checked(length)?;
            files.push(file.to_vec());
            rest = after;
        }
        let inputs = header.inputs.into_iter().map(|(name, key)| Some((name, parse_key(&key)?)));
        Some(Self { title: header.title, parts: header.parts, inputs: inputs.collect::<Option<_>>()?, files })
    }
}

impl Cache<'_> {
    /// Keeps the trace of a run, for the next miss at the same place and for those of steps upon it.
    ///
    /// # Errors
    /// Those of the store.
    pub fn put_trace(
        &self,
        plan: &Plan,
        step: &Step,
        definition: &RecordKey,
        trace: &Trace,
    ) -> Result<(), store::Error> {
        let put = |key: &RecordKey, payload: Vec<u8>| {
            self.lease().put_record(key, &Record { needs: Vec::new(), payload })
        };
        put(&trace_key(definition), trace.to_bytes())?;
        let pointer = Pointer { title: step.title.clone(), definition: definition.to_string() };
        for place in [self.by_text(plan, step), self.by_number(plan, step)] {
            put(&place, to_json(&pointer))?;
        }
        Ok(())
    }

    /// The trace of the run that had this definition key.
    ///
    /// # Errors
    /// Those of the store. A damaged trace is none.
    pub fn trace(&self, definition: &RecordKey) -> Result<Option<Trace>, store::Error> {
        let record = self.lease().record(&trace_key(definition))?;
        Ok(record.and_then(|record| Trace::from_bytes(&record.payload)))
    }

    /// The trace of the nearest earlier run: of the same instruction in the same stage, else of the one that stood in its place, unless
    /// that has only moved.
    ///
    /// # Errors
    /// Those of the store.
    pub fn last_trace(&self, plan: &Plan, step: &Step) -> Result<Option<Trace>, store::Error> {
        if let Some(pointer) = self.pointer(&self.by_text(plan, step))? {
            return self.follow(&pointer);
        }
        let Some(pointer) = self.pointer(&self.by_number(plan, step))? else { return Ok(None) };
        if is_in_stage(plan, step, &pointer.title) { Ok(None) } else { self.follow(&pointer) }
    }

    /// Whether an instruction of this text stood in the step's stage before.
    ///
    /// # Errors
    /// Those of the store.
    pub fn is_known(&self, plan: &Plan, step: &Step) -> Result<bool, store::Error> {
        Ok(self.pointer(&self.by_text(plan, step))?.is_some())
    }

    /// The parts of a step beside those of an earlier run.
    #[must_use]
    pub fn compare(&self, parts: &Parts, earlier: &Trace) -> Vec<PartVerdict> {
        let now = self.keyed(parts);
        compare(pairs(&earlier.parts), pairs(&now))
    }

    fn pointer(&self, place: &RecordKey) -> Result<Option<Pointer>, store::Error> {
        let record = self.lease().record(place)?;
        Ok(record.and_then(|record| serde_json::from_slice(&record.payload).ok()))
    }

    fn follow(&self, pointer: &Pointer) -> Result<Option<Trace>, store::Error> {
        parse_key(&pointer.definition).map_or(Ok(None), |key| self.trace(&key))
    }

    /// The n-th instruction of this text in its stage.
    fn by_text(&self, plan: &Plan, step: &Step) -> RecordKey {
        let before = of_stage(plan, step).take_while(|other| other.id != step.id);
        let nth = before.filter(|other| other.title == step.title).count();
        self.place(plan, step, "text", &format!("{nth} {}", step.title))
    }

    /// The instruction of this number in its stage, if it is of the same kind.
    fn by_number(&self, plan: &Plan, step: &Step) -> RecordKey {
        let number = step.place.as_ref().map_or(0, |place| place.number);
        let kind = step.title.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        self.place(plan, step, "number", &format!("{number} {kind}"))
    }

    fn place(&self, plan: &Plan, step: &Step, kind: &str, last: &str) -> RecordKey {
        let stage = step.place.as_ref().map(|place| match &place.stage {
            // A stage that is put before it moves the number of a target without a name.
            stage if stage.name.is_none() && *stage == plan.output().stage => "target".to_owned(),
            stage => stage.to_string(),
        });
        let mut hasher = Hasher::sha256();
        // In a build for several platforms each has its own earlier run; else another platform is a change like any other.
        let platform = step.place.as_ref().and_then(|place| place.platform.as_ref());
        let platform = platform.map(ToString::to_string).unwrap_or_default();
        for field in ["place", kind, self.scope(), &platform, &stage.unwrap_or_default(), last] {
            hasher.update_field(field);
        }
        RecordKey::new(hasher.finish())
    }
}

/// Whether an instruction of this text stands in the step's stage.
#[must_use]
pub fn is_in_stage(plan: &Plan, step: &Step, title: &str) -> bool {
    of_stage(plan, step).any(|other| other.title == title)
}

fn of_stage<'p>(plan: &'p Plan, step: &'p Step) -> impl Iterator<Item = &'p Step> {
    let stage = |step: &'p Step| step.place.as_ref().map(|place| (&place.stage, &step.platform));
    plan.steps.iter().filter(move |other| stage(other) == stage(step))
}

fn trace_key(definition: &RecordKey) -> RecordKey {
    let mut hasher = Hasher::sha256();
    hasher.update_field("trace");
    hasher.update_field(definition.digest().as_bytes());
    RecordKey::new(hasher.finish())
}

fn parse_key(text: &str) -> Option<RecordKey> {
    text.parse::<Digest>().ok().map(RecordKey::new)
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("traces have string keys only, so they always serialise")
}

fn pairs(parts: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    parts.iter().map(|(name, digest)| (name.as_str(), digest.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_survives_its_bytes() {
        let trace = Trace {
            title: "RUN make".to_owned(),
            parts: vec![("command".to_owned(), "ab".to_owned())],
            inputs: vec![("parent".to_owned(), RecordKey::new(Digest::of("below")))],
            files: vec![b"\n\0binary".to_vec(), Vec::new(), b"x".to_vec()],
        };
        let bytes = trace.to_bytes();
        assert_eq!(Trace::from_bytes(&bytes).as_ref(), Some(&trace));
        for end in 0..bytes.len() {
            assert_eq!(Trace::from_bytes(&bytes[..end]), None, "cut at {end}");
        }
    }
}
