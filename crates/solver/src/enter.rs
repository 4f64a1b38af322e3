//! A look into the midst of a build: the sandbox of a RUN, handed over in place of running it.

use std::sync::Arc;

use plan::{Mount, Op, Plan, Run, Source, Step};
use sandbox::{Sandboxes, Spec, Stdio};

use crate::error::{RunFailure, SolveError};
use crate::filesystem::Filesystem;
use crate::lookup::at;
use crate::run::{Ready, Sources, Writes, make_ready};
use crate::schedule::Solver;
use crate::{Services, StepError};

/// What becomes of a RUN that fails right below the step that is entered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BrokenBelow {
    /// There is nothing to enter.
    Fails,
    /// What it left is entered.
    IsEntered,
}

/// Everything that is needed to start a process.
#[derive(Debug)]
pub struct Entry<'e> {
    /// Starts it.
    pub sandboxes: &'e Sandboxes,
    /// What to start, and where.
    pub spec: Spec,
    /// Why the RUN right below failed, if what it left is entered.
    pub failure: Option<&'e RunFailure>,
}

/// Executes what the last step of a plan, a RUN, needs, and has `act` work in its sandbox. Nothing of what is written there is kept, except in
/// cache mounts.
///
/// # Errors
/// [`SolveError`], before `act` is called.
///
/// # Panics
/// If the plan's output is no RUN.
pub fn enter<T>(
    plan: &Plan,
    services: &Services<'_>,
    broken: BrokenBelow,
    stdio: Stdio,
    act: impl FnOnce(Entry<'_>) -> T,
) -> Result<T, SolveError> {
    let step = plan.step(plan.output().step);
    let Op::Run(run) = &step.op else { panic!("only a RUN has a sandbox to be entered") };
    let mut solver = Solver::new(plan, services, Some(step.id))?;
    let failure = match solver.cancelled_with_services(|| solver.run_all()) {
        Ok(()) => None,
        Err(error) => Some(left_below(error, run, broken)?),
    };
    // A failure has cancelled all that went on at the time.
    solver.cancel = Arc::default();
    let enter = || solver.enter(step, run, failure.as_ref(), stdio, act);
    solver.cancelled_with_services(enter).map_err(|error| at(step.id, error))
}

/// The failure whose remains are to be entered, or else the error.
fn left_below(error: SolveError, run: &Run, broken: BrokenBelow) -> Result<RunFailure, SolveError> {
    match error {
        SolveError::Step { step, error } if step == run.parent && broken == BrokenBelow::IsEntered => {
            match *error {
                StepError::Run(failure) => Ok(failure),
                error => Err(at(step, error)),
            }
        }
        error => Err(error),
    }
}

impl Solver<'_> {
    fn enter<T>(
        &self,
        step: &Step,
        run: &Run,
        failure: Option<&RunFailure>,
        stdio: Stdio,
        act: impl FnOnce(Entry<'_>) -> T,
    ) -> Result<T, StepError> {
        let services = self.services;
        let mounted = |source: &Source, mount: &Mount| self.mounted(step, run, source, mount);
        let sources = Sources { services, mounted: &mounted, caches: self.claim_caches(step)? };
        let sandboxes = self.sandboxes()?;
        let (below, writes) = match failure {
            None => (self.filesystem(run.parent), Writes::Fresh(services.lease.scratch_dir()?)),
            Some(failure) => {
                // Nobody may have the directory mounted any more.
                sandboxes.settle();
                (self.below(run.parent), Writes::Onto(failure.left.clone()))
            }
        };
        // The agents stay reachable until the end.
        let Ready { spec, agents, .. } = make_ready(run, &below, writes, stdio, &sources)?;
        let done = act(Entry { sandboxes, spec, failure });
        sandboxes.settle();
        drop((agents, sources));
        Ok(done)
    }

    /// The filesystem that a step stands on.
    fn below(&self, id: plan::StepId) -> Filesystem {
        self.plan.step(id).op.parent().map(|parent| self.filesystem(parent)).unwrap_or_default()
    }
}
