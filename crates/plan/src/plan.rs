//! The result of lowering: steps, and what the target's image says of itself.

use dockerfile::Span;
use oci::Config;

use crate::{Mount, Op, Run, StageLabel, Step, StepId, Warning};

/// The comment that BuildKit writes into each history entry.
pub const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// A graph of steps and the config of the image at its end. Plain data; [`Display`](std::fmt::Display) prints all of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Only what the target needs; each stands after its inputs.
    pub steps: Vec<Step>,
    /// What was asked for: one image, or one for each of several platforms. Never empty.
    pub outputs: Vec<Output>,
    /// What deserves a word but does not stop the build.
    pub warnings: Vec<Warning>,
}

/// The image that the target stage describes.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The stage.
    pub stage: StageLabel,
    /// Its FROM.
    pub span: Span,
    /// The step whose filesystem is the image's.
    pub step: StepId,
    /// The config. Its `rootfs` and `history` are those of the base image, untouched; `created` is absent. Whoever assembles the
    /// image appends one DiffID for each entry of `history` that has a step.
    pub config: Config,
    /// What this build adds to the base image's history, lowest first.
    pub history: Vec<HistoryEntry>,
    /// When the image was made, in seconds since 1970, if the build says so (`SOURCE_DATE_EPOCH`).
    pub epoch: Option<i64>,
    /// The stages that the stage is made FROM, the nearest first, and the step that each ends in.
    pub bases: Vec<(StageLabel, StepId)>,
}

/// One instruction's line of history (spec of its text: BuildKit's `created_by`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HistoryEntry {
    /// The instruction, as `docker history` shows it.
    pub created_by: String,
    /// [`HISTORY_COMMENT`].
    pub comment: String,
    /// The step that made its layer; `None` for an instruction that makes none, whose line is then `empty_layer`.
    pub step: Option<StepId>,
}

impl HistoryEntry {
    /// Whether no layer belongs to it.
    #[must_use]
    pub fn is_empty_layer(&self) -> bool {
        self.step.is_none()
    }
}

impl Plan {
    /// The only output, or the first.
    ///
    /// # Panics
    /// Never: a plan has an output.
    #[must_use]
    pub fn output(&self) -> &Output {
        self.outputs.first().expect("a plan is made with one output and gets more")
    }

    /// The step with an id of this plan.
    ///
    /// # Panics
    /// If the id is of another plan with more steps.
    #[must_use]
    pub fn step(&self, id: StepId) -> &Step {
        &self.steps[id.index()]
    }

    /// The steps whose layers are stacked below `id`, lowest first, itself last.
    #[must_use]
    pub fn chain(&self, id: StepId) -> Vec<StepId> {
        let mut chain: Vec<_> = std::iter::successors(Some(id), |id| self.step(*id).op.parent()).collect();
        chain.reverse();
        chain
    }

    /// Whether the results of steps, by their index, are this machine's alone: directories of it (`--volume`) are in no key but by their names.
    #[must_use]
    pub fn bound_to_machine(&self) -> Vec<bool> {
        let mut bound = vec![false; self.steps.len()];
        // Inputs stand before the steps that need them.
        for step in &self.steps {
            let mounts_host = |run: &Run| run.mounts.iter().any(|mount| matches!(mount, Mount::Host(_)));
            let is_bound = matches!(&step.op, Op::Run(run) if mounts_host(run));
            let mut inputs = step.op.parent().into_iter().chain(step.op.reads());
            bound[step.id.index()] = is_bound || inputs.any(|id| bound[id.index()]);
        }
        bound
    }

    /// How many layers the steps that a step stands on have made, its own included; not those of an image at the bottom.
    #[must_use]
    pub fn own_layers(&self, id: StepId) -> usize {
        let has_own = |id: &StepId| !matches!(self.step(*id).op, Op::Scratch | Op::Image(_));
        self.chain(id).iter().filter(|id| has_own(id)).count()
    }
}
