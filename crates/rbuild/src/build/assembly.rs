//! From what was solved to an image: config, history and layers put together.

use image::{AssembleOptions, Assembled, Contents, Layers};
use jiff::Timestamp;
use oci::{History, LayerId, Reference};
use plan::Plan;
use solver::Solved;
use sys::root::Time;

use crate::build::errors;
use crate::build::output::Output;
use crate::build::request::Asked;
use crate::failure::Failure;

/// Makes the image and names it.
pub(super) fn assemble(
    plan: &Plan,
    solved: &Solved,
    asked: &Asked,
    layers: &Layers<'_>,
) -> Result<Assembled, Failure> {
    let mut config = plan.output.config.clone();
    // What the base image brings stays as it is.
    let base = config.rootfs.diff_ids.len();
    let (history, created) = history(plan, solved);
    config.history.extend(history);
    let ids = solved.filesystem.ids();
    let ids = match plan.output.epoch.filter(|_| asked.rewrites_times) {
        Some(epoch) => rewritten(layers, ids, base, epoch).map_err(|error| errors::of_image(&error))?,
        None => ids,
    };
    let tags: &[Reference] = if asked.outputs.contains(&Output::Image) { &asked.tags } else { &[] };
    let contents = Contents { layers: ids, config };
    let options = AssembleOptions { created, tags };
    image::assemble(layers, &contents, &options).map_err(|error| errors::of_image(&error))
}

/// What this build adds to the history, and when the image was made.
///
/// An instruction without a layer takes the time of the layer before it, so that the same build gives the same image. With
/// `SOURCE_DATE_EPOCH` all of it was made then.
fn history(plan: &Plan, solved: &Solved) -> (Vec<History>, Option<String>) {
    let epoch = plan.output.epoch.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let epoch = epoch.map(|time| time.to_string());
    let base = plan.output.config.history.iter().rev().find_map(|entry| entry.created.clone());
    let mut latest = epoch.clone().or(base);
    let mut history = Vec::with_capacity(plan.output.history.len());
    for entry in &plan.output.history {
        let made = entry.step.and_then(|step| solved.created[step.index()].clone());
        latest = epoch.clone().or(made).or(latest);
        history.push(History {
            created: latest.clone(),
            created_by: entry.created_by.clone(),
            comment: entry.comment.clone(),
            empty_layer: entry.is_empty_layer(),
            ..History::default()
        });
    }
    (history, latest)
}

/// The layers, those above the first `base` with no file younger than `epoch`.
fn rewritten(
    layers: &Layers<'_>,
    mut ids: Vec<LayerId>,
    base: usize,
    epoch: i64,
) -> Result<Vec<LayerId>, image::Error> {
    for id in ids.iter_mut().skip(base) {
        *id = image::no_younger_than(layers, id, Time::whole(epoch))?;
    }
    Ok(ids)
}
