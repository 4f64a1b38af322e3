//! Adoption: filesystems of equal content are one filesystem, times included.
//!
//! Keys leave modification times out, but `make`, Python's .pyc files and the like compare them. An image is therefore right only if its
//! layers, and the files that were copied between its stages, come from runs that saw each other. Two rules see to that.
//!
//! **A step that ran again with an outcome known already takes the known layers** ([`settle`]). Else a stage built upon its new layer would
//! meet files of another stage that was reused upon the old one: sources that are newer than what was made of them. Whatever
//! step had the outcome before is no matter; only the content of all layers is, and that the layers below are the very same.
//!
//! **A recorded result is taken only if it agrees with the rest of the build** ([`agrees`], [`disagreeing`]). It brings the layers it was made on; where
//! another step of this build stands on other layers for the same step below, the recorded result is left alone and its step runs
//! again. With the first rule that is rare: after `--no-cache`, which adopts nothing, and after a prune between two builds.
//!
//! **A linked copy that was imported is taken only onto what was imported with it** ([`mixed`]), since its record says nothing of what lies below.
//!
//! What is not followed is the way of single files: a copy that is reused because its files are the same keeps their earlier times, also
//! where the stage they are of has changed in other files and ran again.

use cache::{Cache, RecordedLayer};
use plan::{Op, Plan, StepId};

use crate::filesystem::Filesystem;
use crate::lookup::Found;
use crate::services::CacheMode;

/// The filesystem that stands for what a step has just made; `time` is what the build gives to files, if it does.
pub(crate) fn settle(
    made: Filesystem,
    time: Option<i64>,
    cache: &Cache<'_>,
    mode: &CacheMode,
) -> Result<Filesystem, store::Error> {
    if *mode != CacheMode::Off
        && let Some(layers) = cache.representative(&made.content(), time)?
        && is_same(below_top(&layers), below_top(&made.layers))
    {
        return Ok(Filesystem { layers });
    }
    cache.set_representative(&made.layers, time)?;
    Ok(made)
}

/// Which inputs are used by how many of the steps that are left for the second pass, by step index.
pub(crate) fn consumers(plan: &Plan, found: &[Found]) -> Vec<usize> {
    let mut counts = vec![0; plan.steps.len()];
    for (step, found) in plan.steps.iter().zip(found) {
        let mut inputs: Vec<StepId> = match found {
            Found::Open => step.op.parent().into_iter().chain(step.op.reads()).collect(),
            Found::Linked { .. } => step.op.parent().into_iter().collect(),
            Found::Done { .. } | Found::NotNeeded => continue,
        };
        inputs.sort_unstable();
        inputs.dedup();
        inputs.iter().for_each(|input| counts[input.index()] += 1);
    }
    counts
}

/// Whether a recorded result of `id` stands on the layers that others use. A step below that nobody else uses may have come out otherwise:
/// then the recorded layers replace its own, and nobody sees the difference.
pub(crate) fn agrees<'f>(
    plan: &Plan,
    id: StepId,
    recorded: &[RecordedLayer],
    consumers: &[usize],
    filesystem: impl Fn(StepId) -> Option<&'f Filesystem>,
) -> bool {
    prefixes(plan, id, recorded).all(|(below, layers)| {
        let is_shared = consumers[below.index()] > 1;
        !is_shared || filesystem(below).is_none_or(|now| is_same(&now.layers, layers))
    })
}

/// A step found in the first pass whose layers are not those found for a step below it that something else needs, too; or where that
/// one's are still open.
pub(crate) fn disagreeing(plan: &Plan, found: &[Found]) -> Option<StepId> {
    let disagrees = |id: StepId| {
        let Found::Done { filesystem, .. } = &found[id.index()] else { return false };
        prefixes(plan, id, &filesystem.layers).any(|(below, layers)| match &found[below.index()] {
            Found::Done { filesystem, .. } => !is_same(&filesystem.layers, layers),
            Found::Open | Found::Linked { .. } => true,
            Found::NotNeeded => false,
        })
    };
    plan.steps.iter().map(|step| step.id).find(|id| disagrees(*id))
}

/// A linked copy whose layer came from elsewhere, and what is below it did not come with it: then nobody has seen the two together, and what it is copied from
/// has to be looked at.
pub(crate) fn mixed(plan: &Plan, found: &[Found]) -> Option<StepId> {
    let is_mixed = |id: StepId| {
        let Found::Linked { record, .. } = &found[id.index()] else { return false };
        plan.step(id).op.parent().is_some_and(|below| match (&plan.step(below).op, &found[below.index()]) {
            (Op::Scratch | Op::Image(_), _) => false,
            (_, Found::Linked { record: other, .. }) => other.origin != record.origin,
            (_, Found::Done { origin, .. }) => *origin != record.origin,
            (_, Found::Open | Found::NotNeeded) => true,
        })
    };
    plan.steps.iter().map(|step| step.id).find(|id| is_mixed(*id))
}

/// The steps below one, from the top down, each with the part of the step's layers that stands for it.
fn prefixes<'l>(
    plan: &'l Plan,
    id: StepId,
    layers: &'l [RecordedLayer],
) -> impl Iterator<Item = (StepId, &'l [RecordedLayer])> {
    std::iter::successors(Some((id, layers)), |(id, layers)| {
        let op = &plan.step(*id).op;
        let own = usize::from(!matches!(op, Op::Scratch | Op::Image(_)));
        Some((op.parent()?, &layers[..layers.len().saturating_sub(own)]))
    })
    .skip(1)
}

fn below_top(layers: &[RecordedLayer]) -> &[RecordedLayer] {
    layers.split_last().map_or(&[], |(_, below)| below)
}

fn is_same(one: &[RecordedLayer], other: &[RecordedLayer]) -> bool {
    one.iter().map(|layer| &layer.id).eq(other.iter().map(|layer| &layer.id))
}
