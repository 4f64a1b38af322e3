//! From what was solved to images: config, history and layers put together, for each platform.

use image::{AssembleOptions, Assembled, Contents, Layers};
use jiff::Timestamp;
use oci::{History, LayerId, Reference};
use plan::{Op, Output, Plan, StageLabel, StepId};
use solver::{Filesystem, Solved};
use sys::root::Time;

use crate::build::errors;
use crate::build::output;
use crate::build::request::Asked;
use crate::cli::Squash;
use crate::commands::failures;
use crate::commands::push::ahead::Ahead;
use crate::commands::registry::View;
use crate::diagnostic::Diagnostic;
use crate::failure::Failure;
use crate::listing::tell;

/// What the calls of this module work with.
#[derive(Clone, Copy)]
pub(super) struct Assembly<'a> {
    pub(super) plan: &'a Plan,
    pub(super) solved: &'a Solved,
    pub(super) asked: &'a Asked,
    pub(super) layers: &'a Layers<'a>,
    /// Who compresses what is pushed later, if anybody does.
    pub(super) compressor: Option<&'a Ahead<'a>>,
}

/// The images of one target, one for each platform, before they are in the store.
struct Target {
    /// And when each was made.
    images: Vec<(Contents, Option<String>)>,
    names: Vec<Reference>,
}

/// Refuses what cannot be squashed, before anything is built.
pub(super) fn check(plan: &Plan, asked: &Asked) -> Result<(), Failure> {
    let Some(squash) = &asked.squash else { return Ok(()) };
    let mut of_target = plan.outputs.iter().take(asked.platforms.len().max(1));
    of_target.try_for_each(|output| squash_base(plan, output, squash).map(drop))
}

/// How many layers stay as they are when those above become one.
fn squash_base(plan: &Plan, output: &Output, squash: &Squash) -> Result<usize, Failure> {
    let of_image = output.config.rootfs.diff_ids.len();
    let stage = match squash {
        Squash::New => return Ok(of_image),
        Squash::All => return Ok(0),
        Squash::From(stage) => stage,
    };
    let is_meant =
        |label: &StageLabel| label.name.as_ref() == Some(stage) || label.index.to_string() == *stage;
    let Some((_, step)) = output.bases.iter().find(|(label, _)| is_meant(label)) else {
        let title = format!("`--squash=from:{stage}`: the target is not made FROM a stage `{stage}`");
        let help = "name a stage that it is made FROM, or write `--squash=new`";
        return Err(Failure::usage(title, help));
    };
    let makes_layer = |id: &StepId| !matches!(plan.step(*id).op, Op::Scratch | Op::Image(_));
    Ok(of_image + plan.chain(*step).iter().filter(|id| makes_layer(id)).count())
}

impl Assembly<'_> {
    /// Makes the images and names them; gives those of the target, one for each platform.
    pub(super) fn assemble(self, view: View) -> Result<Vec<Assembled>, Failure> {
        let platforms = self.asked.platforms.len().max(1);
        let outputs = self.plan.outputs.chunks(platforms).zip(self.solved.filesystems.chunks(platforms));
        let mut targets = Vec::new();
        for (number, ((outputs, filesystems), names)) in
            outputs.zip(self.asked.names_of_targets()).enumerate()
        {
            let squash = self.asked.squash.as_ref().filter(|_| number == 0);
            let images = outputs.iter().zip(filesystems).map(|(output, filesystem)| {
                let base = squash.map(|squash| squash_base(self.plan, output, squash)).transpose()?;
                let (history, created) = self.history(output);
                let contents = self.contents(output, filesystem, history, base);
                Ok((contents.map_err(|error| errors::of_image(&error))?, created))
            });
            targets.push(Target { images: images.collect::<Result<_, Failure>>()?, names });
        }
        // Whoever interrupts it has nothing named.
        self.compress(&targets, view)?;
        let assembled: Result<Vec<_>, _> = targets.iter().map(|target| self.commit(target)).collect();
        Ok(assembled.map_err(|error| errors::of_image(&error))?.swap_remove(0))
    }

    /// For a push later, so that it becomes durable with the image. That can be done without.
    fn compress(self, targets: &[Target], view: View) -> Result<(), Failure> {
        let Some(compressor) = self.compressor else { return Ok(()) };
        let wanted = targets.iter().filter(|target| output::compresses(&self.asked.outputs, &target.names));
        let ids = wanted.flat_map(|target| &target.images).flat_map(|(contents, _)| contents.layers.clone());
        let Err(error) = compressor.compress(ids.collect(), self.layers, view) else { return Ok(()) };
        if self.layers.is_cancelled() {
            return Err(Failure::cancelled());
        }
        for Diagnostic { title, notes, help, .. } in failures::of_export(&error).diagnostics {
            let why = [vec![title], notes].concat().join(": ");
            if view == View::Quiet {
                tracing::debug!("layers are not compressed for a push later: {why}");
            } else {
                tell(format_args!("note: layers are not compressed for a push later: {why}"));
                help.iter().for_each(|help| tell(format_args!("note: {help}")));
            }
        }
        Ok(())
    }

    /// Makes the images of one target durable, and names them.
    fn commit(self, target: &Target) -> Result<Vec<Assembled>, image::Error> {
        // A name leads to all images, or to those that it led to before.
        let tags = if target.images.len() == 1 { &target.names[..] } else { &[] };
        let assemble = |(contents, created): &(Contents, Option<String>)| {
            image::assemble(self.layers, contents, &AssembleOptions { created: created.clone(), tags })
        };
        let assembled: Vec<Assembled> = target.images.iter().map(assemble).collect::<Result<_, _>>()?;
        if assembled.len() > 1 {
            let ids: Vec<_> = assembled.iter().map(|image| image.id.clone()).collect();
            image::name(self.layers, &ids, &target.names)?;
        }
        Ok(assembled)
    }

    /// Config and layers; those above the first `squashed` become one.
    fn contents(
        self,
        output: &Output,
        filesystem: &Filesystem,
        history: Vec<History>,
        squashed: Option<usize>,
    ) -> Result<Contents, image::Error> {
        let mut config = output.config.clone();
        // What the base image brings stays as it is.
        let base = config.rootfs.diff_ids.len();
        if history.iter().any(|entry| !entry.empty_layer) {
            complete_history(&mut config.history, base);
        }
        config.history.extend(history);
        let mut ids = filesystem.ids();
        if let Some(kept) = squashed {
            let before = ids.len();
            ids = image::squash(self.layers, &ids, kept)?;
            if ids.len() < before {
                squash_history(&mut config.history, kept);
            }
        }
        if self.asked.omits_history {
            config.history.clear();
        }
        if let Some(epoch) = output.epoch.filter(|_| self.asked.rewrites_times) {
            ids = rewritten(self.layers, ids, base.min(squashed.unwrap_or(base)), epoch)?;
        }
        Ok(Contents { layers: ids, config })
    }

    /// What this build adds to the history, and when the image was made.
    ///
    /// An instruction without a layer takes the time of the layer before it, so that the same build gives the same image. With
    /// `SOURCE_DATE_EPOCH` all of it was made then.
    fn history(self, output: &Output) -> (Vec<History>, Option<String>) {
        let epoch = output.epoch.and_then(|seconds| Timestamp::from_second(seconds).ok());
        let epoch = epoch.map(|time| time.to_string());
        let base = output.config.history.iter().rev().find_map(|entry| entry.created.clone());
        let mut latest = epoch.clone().or(base);
        let mut history = Vec::with_capacity(output.history.len());
        for entry in &output.history {
            let made = entry.step.and_then(|step| self.solved.created[step.index()].clone());
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
}

/// Gives each layer a line, so that those of layers to come are theirs.
fn complete_history(history: &mut Vec<History>, layers: usize) {
    let told = history.iter().filter(|entry| !entry.empty_layer).count();
    let untold = || History { created_by: "unknown".to_owned(), ..History::default() };
    history.extend(std::iter::repeat_with(untold).take(layers.saturating_sub(told)));
}

/// All lines stay, and of those whose layers are one now the last has it.
fn squash_history(history: &mut [History], kept: usize) {
    let mut with_layer: Vec<&mut History> =
        history.iter_mut().filter(|entry| !entry.empty_layer).skip(kept).collect();
    with_layer.pop();
    with_layer.into_iter().for_each(|entry| entry.empty_layer = true);
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
