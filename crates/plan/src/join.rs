//! One plan for several platforms or targets: what is the same for two of them is one step.

use std::collections::HashMap;

use oci::Platform;

use crate::{Op, Plan, Step, StepId};

impl Plan {
    /// Joins the plans that one file gives for different platforms or targets. Outputs stay in order; a step that two plans have, such as a
    /// stage `FROM --platform=$BUILDPLATFORM`, is there once. With several platforms each step's place names its own.
    ///
    /// # Panics
    /// Without any plan.
    #[must_use]
    pub fn join(mut plans: Vec<Self>) -> Self {
        let targets: Vec<Platform> = plans.iter().map(|plan| plan.output().config.platform()).collect();
        if targets.iter().any(|target| *target != targets[0]) {
            for (plan, target) in plans.iter_mut().zip(targets) {
                for step in &mut plan.steps {
                    let (platform, target) = (Some(step.platform.clone()), Some(target.clone()));
                    step.place.iter_mut().for_each(|place| {
                        (place.platform, place.target) = (platform.clone(), target.clone());
                    });
                }
            }
        }
        plans.into_iter().reduce(Self::and).expect("a build is for one platform and target at least")
    }

    fn and(mut self, other: Self) -> Self {
        let mut ids: Vec<StepId> = Vec::with_capacity(other.steps.len());
        // Steps without a place in a stage do not tell their platform apart, nor need they.
        let mut known: HashMap<_, Vec<StepId>> = HashMap::new();
        for step in &self.steps {
            known.entry(step.span).or_default().push(step.id);
        }
        for step in other.steps {
            let mut op = step.op.clone();
            op.inputs_mut().into_iter().for_each(|input| *input = ids[input.0]);
            let same = match is_of_no_stage(&op) {
                true => self.steps.iter().find(|own| own.op == op && own.platform == step.platform),
                false => {
                    let here = known.get(&step.span).into_iter().flatten().map(|id| &self.steps[id.0]);
                    here.into_iter().find(|own| is_same(own, &op, &step))
                }
            };
            let same = same.map(|own| own.id);
            ids.push(same.unwrap_or(StepId(self.steps.len())));
            match same {
                None => self.steps.push(Step { id: StepId(self.steps.len()), op, ..step }),
                Some(StepId(own)) => self.steps[own].is_also(&step),
            }
        }
        for mut output in other.outputs {
            output.step = ids[output.step.0];
            output.bases.iter_mut().for_each(|(_, step)| *step = ids[step.0]);
            for step in output.history.iter_mut().filter_map(|entry| entry.step.as_mut()) {
                *step = ids[step.0];
            }
            self.outputs.push(output);
        }
        let new: Vec<_> = other.warnings.into_iter().filter(|new| !self.warnings.contains(new)).collect();
        self.warnings.extend(new);
        self
    }
}

impl Step {
    /// What is a step of two images is told of neither.
    fn is_also(&mut self, other: &Self) {
        if let (Some(own), Some(other)) = (&mut self.place, &other.place)
            && own.target != other.target
        {
            own.target = None;
        }
    }
}

/// Whether a step is the same for all that use it, whichever of them stands first.
fn is_of_no_stage(op: &Op) -> bool {
    matches!(op, Op::Scratch | Op::Image(_) | Op::Remote(_))
}

/// Whether two steps of a stage give the same, and may be told as one. Where files are only moved about, the platform does not matter.
fn is_same(own: &Step, op: &Op, other: &Step) -> bool {
    let is_of_platform = matches!(op, Op::Run(_));
    own.op == *op && own.title == other.title && (own.platform == other.platform || !is_of_platform)
}
