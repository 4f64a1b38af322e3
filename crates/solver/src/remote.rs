//! What was found behind a URL, as the layer that later steps copy from.

use plan::Remote;
use store::Layer;

use crate::StepError;
use crate::copy::{self, CopyContext};

/// Has the source written out, and makes a layer of that.
pub(crate) fn execute(remote: &Remote, context: &CopyContext<'_>) -> Result<Layer, StepError> {
    let services = context.services;
    let directory = services.lease.scratch_dir()?;
    let directory = (services.fetch)(remote, &directory, context.cancelled)?;
    copy::directory_layer(&directory, context)
}
