//! Taking turns.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::builder::{Builder, Site, build_unmeasured, quiet};
use crate::sample::{Sample, measure};
use crate::workload::{Before, Measured, Workload};

/// A sample that takes longer than this makes its builder a slow one, which is measured fewer times.
const SLOW: Duration = Duration::from_secs(8);

/// How many samples are taken.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// Of each builder.
    pub usual: usize,
    /// Of slow ones.
    pub slow: usize,
}

/// The samples of one workload.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub workload: Workload,
    /// By builder.
    pub samples: BTreeMap<Builder, Vec<Sample>>,
    /// What the context's files cost to look at, where that is the measure.
    pub floor: Vec<Sample>,
    /// Builders that failed, and how.
    pub failures: BTreeMap<Builder, String>,
}

/// Measures the workloads, one after the other, the builders in turns; `measured` gets all results so far after each.
///
/// # Errors
/// If rbuild fails or the work cannot be prepared. A peer that fails is reported and left out.
pub fn run(
    site: &Site<'_>,
    workloads: &[Workload],
    rounds: Rounds,
    measured: &mut dyn FnMut(&[Outcome]) -> Result<()>,
) -> Result<()> {
    copy_builds(site.work)?;
    site.configure()?;
    for builder in site.builders() {
        site.make_base(builder)?;
    }
    let mut outcomes = Vec::new();
    for workload in workloads {
        outcomes.push(run_one(site, *workload, rounds)?);
        measured(&outcomes)?;
    }
    Ok(())
}

fn run_one(site: &Site<'_>, workload: Workload, rounds: Rounds) -> Result<Outcome> {
    println!("{workload}: {}", workload.about());
    let mut outcome =
        Outcome { workload, samples: BTreeMap::new(), floor: Vec::new(), failures: BTreeMap::new() };
    let able: Vec<Builder> = site.builders().into_iter().filter(|builder| builder.can(workload)).collect();
    if workload == Workload::Pull {
        site.fill_registry()?;
    }
    for builder in &able {
        if workload.directory() == "layers" && workload != Workload::Pull {
            let prepared = site.prepare_push(*builder);
            let pushed = prepared.and_then(|()| quiet(&mut site.push(*builder)?));
            note_failure(&mut outcome, *builder, pushed)?;
        }
        if workload.wants_first_build() {
            let built = build_unmeasured(site, *builder, workload);
            note_failure(&mut outcome, *builder, built)?;
        }
    }
    for round in 0..rounds.usual {
        for builder in &able {
            if wants_sample(&outcome, *builder, rounds) {
                let sample = one_sample(site, *builder, workload, round);
                let sample = note_failure(&mut outcome, *builder, sample)?;
                outcome.samples.entry(*builder).or_default().extend(sample);
            }
        }
        if workload == Workload::UnchangedContext {
            outcome.floor.push(crate::floor::measure_pass(site)?);
        }
    }
    Ok(outcome)
}

fn wants_sample(outcome: &Outcome, builder: Builder, rounds: Rounds) -> bool {
    let taken = outcome.samples.get(&builder).map_or(&[][..], Vec::as_slice);
    let is_slow = taken.iter().any(|sample| sample.wall > SLOW);
    let wanted = if is_slow { rounds.slow } else { rounds.usual };
    taken.len() < wanted && !outcome.failures.contains_key(&builder)
}

fn one_sample(site: &Site<'_>, builder: Builder, workload: Workload, round: usize) -> Result<Sample> {
    // No two samples of a run, so that nobody has anything of it from before.
    let serial = (workload as usize * 100 + round) * 10 + builder as usize;
    match workload.before() {
        Before::Nothing => {}
        Before::Forget => site.forget(builder)?,
        Before::ForgetAndBuild => {
            site.forget(builder)?;
            build_unmeasured(site, builder, workload)?;
        }
        Before::ChangeOneFile => site.material.change_one_file(serial)?,
        Before::ChangeOneLayer => site.material.change_one_layer(serial)?,
        Before::ChangeAndBuildNamed => {
            site.material.change_one_layer(serial)?;
            site.prepare_push(builder)?;
        }
        Before::ChangeAndBuild => {
            site.material.change_one_layer(serial)?;
            site.prepare_push_compressing(builder)?;
        }
    }
    // What one builder left unwritten must not be waited for by the next.
    rustix::fs::sync();
    let daemon = site.daemon(builder)?;
    let log = site.work.join("log");
    let sample = measure(&mut site.measured(builder, workload)?, daemon.as_ref(), &log)?;
    let is_export = matches!(workload.measured(), Measured::Export(_));
    let exported = is_export.then(|| site.exported_bytes(builder)).flatten();
    println!(
        "  {builder}: {:.3} s, {:.3} s CPU, {} MiB{}",
        sample.wall.as_secs_f64(),
        sample.cpu.as_secs_f64(),
        sample.peak_bytes >> 20,
        exported.map_or_else(String::new, |bytes| format!(", {bytes} bytes written"))
    );
    Ok(sample)
}

/// Keeps a peer's failure for the report; ours ends the run.
fn note_failure<T>(outcome: &mut Outcome, builder: Builder, result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if builder == Builder::Rbuild => Err(error),
        Err(error) => {
            println!("  {builder} failed: {error:#}");
            outcome.failures.insert(builder, format!("{error:#}"));
            Ok(None)
        }
    }
}

/// The Dockerfiles, where every builder sees them.
fn copy_builds(work: &Path) -> Result<()> {
    let builds = Path::new(env!("CARGO_MANIFEST_DIR")).join("builds");
    for entry in fs::read_dir(&builds).with_context(|| format!("cannot read `{}`", builds.display()))? {
        let name = entry?.file_name();
        let copy = work.join("builds").join(&name);
        fs::create_dir_all(&copy)?;
        fs::copy(builds.join(&name).join("Dockerfile"), copy.join("Dockerfile"))?;
    }
    Ok(())
}
