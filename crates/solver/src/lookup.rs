//! The first pass: keys of everything, and records from the target downwards. No process, no mount, no thread.

use cache::{RecordedLayer, StepRecord};
use oci::{ContentDigest, Digest, ImageId, LayerId};
use plan::{Op, Plan, Step, StepId};
use store::RecordKey;

use crate::adoption::{disagreeing, mixed};
use crate::error::SolveError;
use crate::event::Reuse;
use crate::filesystem::Filesystem;
use crate::inputs::{Prepared, looked_at_parent};
use crate::{Services, StepError, import};

/// What the first pass knows of a step.
#[derive(Debug)]
pub(crate) enum Found {
    /// Its result was recorded, or is an image.
    Done {
        /// How it was found.
        by: Reuse,
        /// With which document it was imported, if it was.
        origin: Option<Digest>,
        /// The result.
        filesystem: Filesystem,
        /// How long it took when it ran, in milliseconds.
        millis: u64,
        /// How long the steps took that it stands on, by their short keys.
        upstream: Vec<(String, u64)>,
    },
    /// The layer of a linked copy came from elsewhere, so that what it is copied from need not come. What lies below it is still to be found.
    Linked {
        /// How it was found.
        by: Reuse,
        /// Its own layer alone.
        record: StepRecord,
    },
    /// Nobody needs its result.
    NotNeeded,
    /// It must be looked up by content, and perhaps run.
    Open,
}

impl Found {
    /// What is there without any work.
    fn given(filesystem: Filesystem) -> Self {
        Self::Done { by: Reuse::Definition, origin: None, filesystem, millis: 0, upstream: Vec::new() }
    }
}

impl Found {
    fn recorded(record: StepRecord, by: Reuse) -> Self {
        let filesystem = Filesystem { layers: record.layers };
        let StepRecord { millis, upstream, origin, .. } = record;
        Self::Done { by, origin, filesystem, millis, upstream }
    }
}

/// The outcome of the first pass, by step index.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) prepared: Vec<Prepared>,
    pub(crate) found: Vec<Found>,
}

/// Derives all keys and asks for records. No record is asked for the step that is `held`: what it needs is wanted in any case.
pub(crate) fn look_up(
    plan: &Plan,
    services: &Services<'_>,
    held: Option<StepId>,
) -> Result<Lookup, SolveError> {
    let prepared = prepare(plan, services)?;
    let mut found: Vec<Found> = plan.steps.iter().map(|_| Found::NotNeeded).collect();
    let by_definition = trusts_definition(plan, services);
    let mut wanted: Vec<StepId> = plan.outputs.iter().map(|output| output.step).collect();
    let mut seen = vec![false; plan.steps.len()];
    loop {
        while let Some(id) = wanted.pop() {
            if std::mem::replace(&mut seen[id.index()], true) {
                continue;
            }
            let is_trusted = by_definition[id.index()] && held != Some(id);
            let key = is_trusted.then_some(&prepared[id.index()].definition);
            let outcome = find(id, plan, services, key).map_err(|error| at(id, error))?;
            match &outcome {
                Found::Open => wanted.extend(inputs(plan, id)),
                Found::Linked { .. } => wanted.extend(plan.step(id).op.parent()),
                Found::Done { .. } | Found::NotNeeded => {}
            }
            found[id.index()] = outcome;
        }
        let Some(id) = disagreeing(plan, &found).or_else(|| mixed(plan, &found)) else { break };
        found[id.index()] = Found::Open;
        wanted.extend(inputs(plan, id));
    }
    Ok(Lookup { prepared, found })
}

/// Derives the definition keys of all steps.
fn prepare(plan: &Plan, services: &Services<'_>) -> Result<Vec<Prepared>, SolveError> {
    let mut prepared: Vec<Prepared> = Vec::with_capacity(plan.steps.len());
    let mut foundations: Vec<RecordKey> = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        let made = Prepared::new(step, plan, services, &foundations).map_err(|error| at(step.id, error))?;
        foundations.push(made.foundation.clone());
        prepared.push(made);
    }
    Ok(prepared)
}

/// What the result of each step lies under, by step index, whether or not there is one.
///
/// # Errors
/// [`SolveError::Step`]: the step whose files cannot be read.
pub fn definition_keys(plan: &Plan, services: &Services<'_>) -> Result<Vec<RecordKey>, SolveError> {
    Ok(prepare(plan, services)?.into_iter().map(|prepared| prepared.definition).collect())
}

fn inputs(plan: &Plan, id: StepId) -> impl Iterator<Item = StepId> {
    let op = &plan.step(id).op;
    op.parent().into_iter().chain(op.reads())
}

/// Whether a step's record may be found by definition: not if it must run, and not if anything it is made from must, since a definition
/// key says nothing of what that gives this time.
fn trusts_definition(plan: &Plan, services: &Services<'_>) -> Vec<bool> {
    let mut trusted = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        let inputs = looked_at_parent(step).into_iter().chain(step.op.parent()).chain(step.op.reads());
        let all = inputs.into_iter().all(|id: StepId| trusted[id.index()]);
        trusted.push(all && services.cache_mode.allows(step));
    }
    trusted
}

fn find(
    id: StepId,
    plan: &Plan,
    services: &Services<'_>,
    key: Option<&RecordKey>,
) -> Result<Found, StepError> {
    let step = plan.step(id);
    match &step.op {
        Op::Scratch => return Ok(Found::given(Filesystem::default())),
        Op::Image(image) => return Ok(Found::given(image_filesystem(&image.image, services)?)),
        // The layers below a linked copy are whatever they are this time; its record knows only its own.
        Op::Copy(copy) if copy.linkage == plan::Linkage::Independent => {
            return find_linked(step, plan, services, key);
        }
        _ => {}
    }
    let Some(key) = key else { return Ok(Found::Open) };
    if let Some(record) = services.cache.find(key)? {
        return Ok(Found::recorded(record, Reuse::Definition));
    }
    Ok(match import::find(step, plan, services, key, None)? {
        Some(record) => Found::recorded(record, Reuse::Imported),
        None => Found::Open,
    })
}

/// The layer of a linked copy, if it came from elsewhere. Of one that was made here it is known what it is copied from, and that is looked at.
fn find_linked(
    step: &Step,
    plan: &Plan,
    services: &Services<'_>,
    key: Option<&RecordKey>,
) -> Result<Found, StepError> {
    let Some(key) = key else { return Ok(Found::Open) };
    let (by, record) = match services.cache.find(key)? {
        Some(record) => (Reuse::Definition, Some(record).filter(|record| record.origin.is_some())),
        None => (Reuse::Imported, import::find(step, plan, services, key, None)?),
    };
    Ok(record.map_or(Found::Open, |record| Found::Linked { by, record }))
}

/// The layers of an image in the store, pinned.
pub(crate) fn image_filesystem(id: &ImageId, services: &Services<'_>) -> Result<Filesystem, StepError> {
    let image = services.lease.image(id)?.ok_or_else(|| store::Error::MissingImage(id.clone()))?;
    let ids: Vec<LayerId> = image.layers;
    let layers = services.lease.layers(&ids)?.ok_or_else(|| store::Error::MissingImage(id.clone()))?;
    let recorded = layers.iter().map(|layer| {
        let content: ContentDigest = layer.facts().content.clone();
        RecordedLayer { id: layer.id().clone(), content, created: String::new() }
    });
    Ok(Filesystem { layers: recorded.collect() })
}

pub(crate) fn at(step: StepId, error: StepError) -> SolveError {
    SolveError::Step { step, error: Box::new(error), done: Vec::new() }
}

impl Reuse {
    /// How a result found in the first pass was found.
    pub(crate) fn of(found: &Found) -> Option<Self> {
        match found {
            Found::Done { by, .. } => Some(*by),
            Found::NotNeeded => Some(Self::NotNeeded),
            Found::Open | Found::Linked { .. } => None,
        }
    }
}
