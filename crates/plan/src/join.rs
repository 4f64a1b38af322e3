//! One plan for several platforms: what is the same for two of them is one step.

use std::collections::HashMap;

use crate::{Mount, Op, Plan, Source, Step, StepId};

impl Plan {
    /// Joins the plans that one file gives for different platforms. Outputs stay in order; a step that two plans have, such as a stage
    /// `FROM --platform=$BUILDPLATFORM`, is there once. With several plans each step's place names its platform.
    ///
    /// # Panics
    /// Without any plan.
    #[must_use]
    pub fn join(plans: Vec<Self>) -> Self {
        let names_platforms = plans.len() > 1;
        let joined = plans.into_iter().reduce(Self::and);
        let mut joined = joined.expect("a build is for one platform at least");
        if names_platforms {
            for step in &mut joined.steps {
                let platform = step.platform.clone();
                step.place.iter_mut().for_each(|place| place.platform = Some(platform.clone()));
            }
        }
        joined
    }

    fn and(mut self, other: Self) -> Self {
        let mut ids: Vec<StepId> = Vec::with_capacity(other.steps.len());
        // Steps without a place in a stage do not tell their platform apart, nor need they.
        let mut known: HashMap<_, Vec<StepId>> = HashMap::new();
        for step in &self.steps {
            known.entry(step.span).or_default().push(step.id);
        }
        for step in other.steps {
            let op = step.op.renumbered(&ids);
            let same = known.get(&step.span).into_iter().flatten().copied();
            let same = same.into_iter().find(|id| is_same(&self.steps[id.0], &op, &step));
            ids.push(same.unwrap_or(StepId(self.steps.len())));
            if same.is_none() {
                self.steps.push(Step { id: StepId(self.steps.len()), op, ..step });
            }
        }
        for mut output in other.outputs {
            output.step = ids[output.step.0];
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

/// Whether two steps give the same, and may be told as one. Where files are only moved about, the platform does not matter.
fn is_same(own: &Step, op: &Op, other: &Step) -> bool {
    let is_of_platform = matches!(op, Op::Run(_) | Op::Image(_));
    own.op == *op && own.title == other.title && (own.platform == other.platform || !is_of_platform)
}

impl Op {
    /// The same with each input replaced.
    fn renumbered(&self, ids: &[StepId]) -> Self {
        let mut op = self.clone();
        match &mut op {
            Self::Scratch | Self::Image(_) | Self::Remote(_) => {}
            Self::Workdir(workdir) => workdir.parent = ids[workdir.parent.0],
            Self::Copy(copy) => {
                copy.parent = ids[copy.parent.0];
                renumber(&mut copy.from, ids);
                for fetched in copy.paths.iter_mut().filter_map(|path| path.fetched.as_mut()) {
                    fetched.step = ids[fetched.step.0];
                }
            }
            Self::Run(run) => {
                run.parent = ids[run.parent.0];
                for mount in &mut run.mounts {
                    match mount {
                        Mount::Bind(bind) => renumber(&mut bind.from, ids),
                        Mount::Cache(cache) => cache.from.iter_mut().for_each(|from| renumber(from, ids)),
                        Mount::Tmpfs(_) | Mount::Secret(_) | Mount::Ssh(_) => {}
                    }
                }
            }
        }
        op
    }
}

fn renumber(source: &mut Source, ids: &[StepId]) {
    if let Source::Step(step) = source {
        *step = ids[step.0];
    }
}
