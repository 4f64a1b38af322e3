//! What a build that failed leaves.

use std::fs;

use layer::seal::seal;
use plan::{Output, Plan};
use sys::root::Dir;

use crate::error::{RunFailure, SolveError};
use crate::filesystem::Filesystem;
use crate::{Services, StepError};

/// What each output of a plan had become when the build failed: the result of the last of its steps that was done, or, of a RUN that
/// failed, all that it wrote. `None` if nothing of it was done, or the build was cancelled.
///
/// # Errors
/// [`StepError`] if what a RUN wrote cannot be read.
pub fn remains(
    plan: &Plan,
    services: &Services<'_>,
    error: SolveError,
) -> Result<Vec<Option<Filesystem>>, StepError> {
    let SolveError::Step { step, error, done } = error else { return Ok(vec![None; plan.outputs.len()]) };
    let of_step = |id: plan::StepId| done.get(id.index()).cloned().flatten();
    let written = match (*error, plan.step(step).op.parent().and_then(of_step)) {
        (StepError::Run(failure), Some(below)) => Some(upon(&below, &failure, services)?),
        _ => None,
    };
    let of_output = |output: &Output| {
        let chain = plan.chain(output.step);
        match &written {
            Some(written) if chain.contains(&step) => Some(written.clone()),
            _ => chain.into_iter().rev().find_map(of_step),
        }
    };
    Ok(plan.outputs.iter().map(of_output).collect())
}

/// What a RUN has left, as a layer upon those it stood on.
fn upon(below: &Filesystem, failure: &RunFailure, services: &Services<'_>) -> Result<Filesystem, StepError> {
    let failed = |source| StepError::Prepare { path: failure.left.clone(), source };
    let draft = services.lease.layer_draft()?;
    let upper = draft.make_fs()?;
    // Onto the empty directory.
    fs::rename(&failure.left, &upper).map_err(failed)?;
    let dir = Dir::open(&upper).map_err(failed)?;
    let merged = services.layers.merged(&below.ids())?;
    let packed = seal(&dir, &merged, services.jobs.min(4), &|| services.cancel.is_cancelled())?;
    let layer = services.layers.publish(draft, &packed)?;
    Ok(below.with(cache::RecordedLayer {
        id: layer.id().clone(),
        content: layer.facts().content.clone(),
        created: String::new(),
    }))
}
