//! The graph while it grows: steps in topological order, images and the empty filesystem only once.

use std::collections::HashMap;

use dockerfile::Span;
use oci::{Platform, Reference};

use crate::{Image, Op, Place, Remote, StageLabel, Step, StepId};

/// Where a new step comes from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) platform: Platform,
    pub(crate) stage: Option<StageLabel>,
    pub(crate) span: Span,
    pub(crate) title: String,
}

/// Steps, each added after its inputs.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    steps: Vec<Step>,
    scratch: Option<StepId>,
    images: HashMap<(Reference, Platform), StepId>,
    remotes: HashMap<Remote, StepId>,
    /// How many numbered steps each stage has so far, by its index.
    counts: HashMap<usize, usize>,
}

impl Graph {
    pub(crate) fn push(&mut self, op: Op, origin: Origin) -> StepId {
        let id = StepId(self.steps.len());
        let place = origin.stage.map(|stage| {
            let number = self.next_number(&stage);
            Place { stage, number, of: 0, platform: None, target: None }
        });
        self.steps.push(Step {
            id,
            op,
            platform: origin.platform,
            place,
            span: origin.span,
            title: origin.title,
        });
        id
    }

    /// The empty filesystem. Nobody waits for it, so no stage counts it.
    pub(crate) fn scratch(&mut self, platform: &Platform, span: Span) -> StepId {
        if let Some(id) = self.scratch {
            return id;
        }
        let origin =
            Origin { platform: platform.clone(), stage: None, span, title: "FROM scratch".to_owned() };
        let id = self.push(Op::Scratch, origin);
        self.scratch = Some(id);
        id
    }

    /// Whether a step's filesystem is the empty one.
    pub(crate) fn is_scratch(&self, step: StepId) -> bool {
        self.scratch == Some(step)
    }

    /// When the files of these steps were made, if the build says so: the same for all.
    pub(crate) fn time(&self, steps: impl IntoIterator<Item = StepId>) -> Option<i64> {
        steps.into_iter().find_map(|step| self.steps[step.0].op.time())
    }

    /// The step of an image. A second stage on the same image counts it, but shares the first one's step.
    pub(crate) fn image(&mut self, image: Image, origin: Origin) -> StepId {
        let key = (image.reference.clone(), image.platform.clone());
        if let Some(id) = self.images.get(&key).copied() {
            if let Some(stage) = &origin.stage {
                self.next_number(stage);
            }
            return id;
        }
        let id = self.push(Op::Image(image), origin);
        self.images.insert(key, id);
        id
    }

    /// The step of a remote source; one for all that add it.
    pub(crate) fn remote(&mut self, remote: Remote, origin: Origin) -> StepId {
        if let Some(id) = self.remotes.get(&remote) {
            return *id;
        }
        let id = self.push(Op::Remote(Box::new(remote.clone())), origin);
        self.remotes.insert(remote, id);
        id
    }

    /// The steps, with their stages' totals filled in.
    pub(crate) fn finish(mut self) -> Vec<Step> {
        for place in self.steps.iter_mut().filter_map(|step| step.place.as_mut()) {
            place.of = self.counts.get(&place.stage.index).copied().unwrap_or(place.number);
        }
        self.steps
    }

    /// How many numbered steps a stage has so far.
    pub(crate) fn count(&self, stage: usize) -> usize {
        self.counts.get(&stage).copied().unwrap_or_default()
    }

    /// A stage's step of that number. There is none where the stage shares the step of its image with an earlier one.
    pub(crate) fn numbered(&self, stage: usize, number: usize) -> Option<&Step> {
        let is_meant = |place: &Place| place.stage.index == stage && place.number == number;
        self.steps.iter().find(|step| step.place.as_ref().is_some_and(is_meant))
    }

    fn next_number(&mut self, stage: &StageLabel) -> usize {
        let count = self.counts.entry(stage.index).or_default();
        *count += 1;
        *count
    }
}

/// The steps that one of them needs, itself included, and what its id is among them.
pub(crate) fn needed_by(steps: Vec<Step>, wanted: StepId) -> (Vec<Step>, StepId) {
    let mut is_needed = vec![false; steps.len()];
    is_needed[wanted.index()] = true;
    // Inputs stand before the steps that need them.
    for step in steps.iter().rev() {
        if is_needed[step.id.index()] {
            step.op.parent().into_iter().chain(step.op.reads()).for_each(|id| is_needed[id.index()] = true);
        }
    }
    let mut new_ids = vec![wanted; steps.len()];
    let mut kept = Vec::new();
    for mut step in steps.into_iter().filter(|step| is_needed[step.id.index()]) {
        new_ids[step.id.index()] = StepId(kept.len());
        step.id = StepId(kept.len());
        step.op.inputs_mut().into_iter().for_each(|id| *id = new_ids[id.index()]);
        kept.push(step);
    }
    (kept, new_ids[wanted.index()])
}
