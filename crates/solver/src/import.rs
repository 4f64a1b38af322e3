//! Results from elsewhere: what the store does not have, somebody else may have recorded.
//!
//! It is asked for as late as a record of the store is: a step that nobody needs is not asked for, and so its layers do not come. A result that
//! does not come is none, and its step runs.

use cache::{RecordedLayer, StepRecord};
use oci::Digest;
use plan::{Op, Plan, Step, StepId};
use store::RecordKey;

use crate::event::Event;
use crate::lookup::image_filesystem;
use crate::schedule::is_linked;
use crate::{Services, StepError};

/// A result that is looked for elsewhere.
pub struct Sought<'a> {
    /// What it lies under.
    pub key: &'a RecordKey,
    /// Of which step.
    pub step: StepId,
    /// What the layers below that of the step contain ([`cache::key::content_of`]), if the key says so: a result that stands on others is none.
    pub below: Option<Digest>,
    /// The layers that it stands on: those of the base image, if there is one.
    pub base: Vec<RecordedLayer>,
    /// How many layers steps have made above those. A result with more or less is not one of this step.
    pub own: usize,
    /// Told of bytes that have come so far, and how many there are in all.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
}

/// Brings the layers of a result here and gives its record; `None` if nobody has it. The text says why what somebody has does not come.
pub type Import<'s> = dyn Fn(&Sought<'_>) -> Result<Option<StepRecord>, String> + Sync + 's;

/// Asks elsewhere for the result of a step under one of its keys.
pub(crate) fn find(
    step: &Step,
    plan: &Plan,
    services: &Services<'_>,
    key: &RecordKey,
    below: Option<Digest>,
) -> Result<Option<StepRecord>, StepError> {
    let Some(import) = services.import else { return Ok(None) };
    let (base, own) = match is_linked(step) {
        true => (Vec::new(), 1),
        false => (base(step, plan, services)?, plan.own_layers(step.id)),
    };
    let progress =
        |bytes, total_bytes| (services.events)(Event::Progress { step: step.id, bytes, total_bytes });
    match import(&Sought { key, step: step.id, below, base, own, progress: &progress }) {
        Ok(found) => Ok(found),
        Err(message) => {
            (services.events)(Event::Warning { step: step.id, message });
            Ok(None)
        }
    }
}

fn base(step: &Step, plan: &Plan, services: &Services<'_>) -> Result<Vec<RecordedLayer>, StepError> {
    match plan.chain(step.id).first().map(|id| &plan.step(*id).op) {
        Some(Op::Image(image)) => Ok(image_filesystem(&image.image, services)?.layers),
        _ => Ok(Vec::new()),
    }
}
