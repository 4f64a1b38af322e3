//! From what was solved to images: config, history and layers put together, for each platform.

use image::{AssembleOptions, Assembled, Contents, Layers};
use jiff::Timestamp;
use oci::{History, LayerId, Reference};
use plan::Plan;
use solver::{Filesystem, Solved};
use sys::root::Time;

use crate::build::errors;
use crate::build::output::Output;
use crate::build::request::Asked;
use crate::failure::Failure;

/// Makes the images and names them, in the order of the plan's outputs.
pub(super) fn assemble(
    plan: &Plan,
    solved: &Solved,
    asked: &Asked,
    layers: &Layers<'_>,
) -> Result<Vec<Assembled>, Failure> {
    let names: &[Reference] = if asked.outputs.contains(&Output::Image) { &asked.tags } else { &[] };
    // A name leads to all images, or to those that it led to before.
    let tags = if plan.outputs.len() == 1 { names } else { &[] };
    let assembled = plan.outputs.iter().zip(&solved.filesystems).map(|(output, filesystem)| {
        let (history, created) = history(output, solved);
        let contents = contents(output, filesystem, history, asked, layers)?;
        image::assemble(layers, &contents, &AssembleOptions { created, tags })
    });
    let assembled = assembled.collect::<Result<Vec<_>, image::Error>>();
    let assembled = assembled.map_err(|error| errors::of_image(&error))?;
    if plan.outputs.len() > 1 {
        let ids: Vec<_> = assembled.iter().map(|image| image.id.clone()).collect();
        image::name(layers, &ids, names).map_err(|error| errors::of_image(&error))?;
    }
    Ok(assembled)
}

fn contents(
    output: &plan::Output,
    filesystem: &Filesystem,
    history: Vec<History>,
    asked: &Asked,
    layers: &Layers<'_>,
) -> Result<Contents, image::Error> {
    let mut config = output.config.clone();
    // What the base image brings stays as it is.
    let base = config.rootfs.diff_ids.len();
    config.history.extend(history);
    let ids = match output.epoch.filter(|_| asked.rewrites_times) {
        Some(epoch) => rewritten(layers, filesystem.ids(), base, epoch)?,
        None => filesystem.ids(),
    };
    Ok(Contents { layers: ids, config })
}

/// What this build adds to the history, and when the image was made.
///
/// An instruction without a layer takes the time of the layer before it, so that the same build gives the same image. With
/// `SOURCE_DATE_EPOCH` all of it was made then.
fn history(output: &plan::Output, solved: &Solved) -> (Vec<History>, Option<String>) {
    let epoch = output.epoch.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let epoch = epoch.map(|time| time.to_string());
    let base = output.config.history.iter().rev().find_map(|entry| entry.created.clone());
    let mut latest = epoch.clone().or(base);
    let mut history = Vec::with_capacity(output.history.len());
    for entry in &output.history {
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
