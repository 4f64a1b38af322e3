//! What is kept of a build in the store: why each step ran or was reused, for `explain`; what each step made, for `diff`; and where it
//! failed, for `shell`.

use std::path::Path;

use cache::{Cause, Change, PartVerdict};
use oci::{Digest, ImageId};
use plan::{Linkage, Op, Plan, Step, StepId};
use serde::{Deserialize, Serialize};
use solver::{Origin, Reuse, SolveError, Solved, StepReport, Verdict};
use store::Store;

use crate::build::Dockerfile;
use crate::build::shell_command::step_name;
use crate::cli::StepName;
use crate::failure::Failure;
use crate::progress::{place_of, step_label};
use crate::session::{Session, now, store_failure};

/// Changes kept of one step. A person reads a few; a program that wants all of a thousand files compares the files.
const KEPT_CHANGES: usize = 100;

/// Under which name the last build of all is kept.
const LAST: &str = "last";

/// What is kept of a build that succeeded.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    report: Report,
    /// In the order of the plan.
    steps: Vec<MadeStep>,
}

/// A step, and where to find what it made.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MadeStep {
    /// `None` for what no stage owns.
    pub(crate) place: Option<MadePlace>,
    /// The step that it stands on, by its index.
    pub(crate) parent: Option<usize>,
    pub(crate) made: Made,
}

/// Which step of which stage.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MadePlace {
    /// Counted from 0.
    pub(crate) stage: usize,
    pub(crate) name: Option<String>,
    /// Counted from 1.
    pub(crate) number: usize,
}

/// Where to find what a step made. Records are named by their keys, which are for this store's eyes only, as records are.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Made {
    /// No layer at all.
    Nothing,
    /// All layers of an image.
    Image(ImageId),
    /// The layers of a record.
    Record(Digest),
    /// The layer of a record, upon those of the step that it stands on.
    Layer(Digest),
}

/// The report of one build.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The Dockerfile's path.
    pub(crate) dockerfile: String,
    /// When the build ended, RFC 3339.
    pub(crate) finished: String,
    /// In the order of the plan.
    pub(crate) steps: Vec<StepLine>,
}

/// One step of a [`Report`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StepLine {
    /// `[app 4/6]`
    pub(crate) step: String,
    /// The instruction.
    pub(crate) title: String,
    /// `Dockerfile:7`
    pub(crate) place: String,
    pub(crate) verdict: StepVerdict,
    /// Why it ran, or what allowed reusing it, in one line.
    pub(crate) reason: String,
    /// The step whose own change is the cause, if it is another one.
    pub(crate) origin: Option<OriginLine>,
    /// What is different at the origin, the most telling first.
    pub(crate) changes: Vec<Change>,
    /// How many changes there are beside those.
    pub(crate) more_changes: usize,
    /// Milliseconds it took, or had taken when it ran.
    pub(crate) millis: u64,
    /// Where all lies that its process wrote, if it ran and had one.
    pub(crate) log: Option<String>,
    /// Every part of its key.
    pub(crate) parts: Vec<PartVerdict>,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StepVerdict {
    Ran,
    Reused,
    /// A later step was reused, so nobody asked.
    NotNeeded,
}

/// The step that a cause was found at.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OriginLine {
    pub(crate) title: String,
    pub(crate) place: String,
}

/// Keeps the report under the Dockerfile's path, and as the last one of all.
pub(crate) fn keep(
    dockerfile: &Dockerfile,
    plan: &Plan,
    solved: &Solved,
    session: &Session,
) -> Result<(), store::Error> {
    let path = dockerfile.path.to_string_lossy().into_owned();
    let lines = plan.steps.iter().zip(&solved.reports);
    let steps = lines.map(|(step, report)| line(step, report, dockerfile, plan, session.store())).collect();
    let report = Report { dockerfile: path.clone(), finished: now().text, steps };
    let lines = plan.steps.iter().zip(&solved.reports);
    let kept = Kept { report, steps: lines.map(|(step, report)| made_step(step, report)).collect() };
    let bytes = serde_json::to_vec(&kept).expect("a report has string keys only, so it always serialises");
    let logs: Vec<_> = solved.reports.iter().filter_map(|report| report.log.clone()).collect();
    for name in [path.as_str(), LAST] {
        session.lease.put_build_report(name, &logs, &bytes)?;
    }
    Ok(())
}

/// Keeps where a build of the Dockerfile failed, for the shell that somebody wants to open there; or that it no longer fails.
pub(crate) fn keep_failure(
    dockerfile: &Dockerfile,
    plan: &Plan,
    error: Option<&SolveError>,
    session: &Session,
) -> Result<(), store::Error> {
    let name = failure_name(dockerfile);
    let place = match error {
        Some(SolveError::Cancelled) => return Ok(()),
        Some(SolveError::Step { step, .. }) => plan.step(*step).place.as_ref(),
        None if session.store().build_report(&name)?.is_none_or(|step| step.is_empty()) => return Ok(()),
        None => None,
    };
    let text = place.map(|place| step_name(place, dockerfile)).unwrap_or_default();
    session.lease.put_build_report(&name, &[], text.as_bytes())
}

/// The step that the last build of the Dockerfile failed at, if it failed.
pub(crate) fn last_failure(dockerfile: &Dockerfile, store: &Store) -> Result<Option<StepName>, Failure> {
    let bytes = store.build_report(&failure_name(dockerfile)).map_err(|error| store_failure(&error))?;
    Ok(bytes.and_then(|bytes| str::from_utf8(&bytes).ok()?.parse().ok()))
}

fn failure_name(dockerfile: &Dockerfile) -> String {
    format!("failed {}", dockerfile.path.to_string_lossy())
}

/// The report of the last build of a Dockerfile, or of the last build of all. One that another version wrote is none.
pub(crate) fn read(dockerfile: Option<&Path>, store: &Store) -> Result<Option<Report>, Failure> {
    Ok(read_kept(dockerfile, store)?.map(|kept| kept.report))
}

/// What the steps of that build made, in the order of its plan.
pub(crate) fn read_steps(dockerfile: Option<&Path>, store: &Store) -> Result<Option<Vec<MadeStep>>, Failure> {
    Ok(read_kept(dockerfile, store)?.map(|kept| kept.steps))
}

fn read_kept(dockerfile: Option<&Path>, store: &Store) -> Result<Option<Kept>, Failure> {
    let name = dockerfile.map_or(LAST.into(), |path| path.to_string_lossy());
    let bytes = store.build_report(&name).map_err(|error| store_failure(&error))?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn made_step(step: &Step, report: &StepReport) -> MadeStep {
    let key = || report.key.digest().clone();
    let place = step.place.as_ref().map(|place| MadePlace {
        stage: place.stage.index,
        name: place.stage.name.clone(),
        number: place.number,
    });
    let made = match &step.op {
        Op::Scratch => Made::Nothing,
        Op::Image(image) => Made::Image(image.image.clone()),
        Op::Copy(copy) if copy.linkage == Linkage::Independent => Made::Layer(key()),
        Op::Remote(_) | Op::Run(_) | Op::Copy(_) | Op::Workdir(_) => Made::Record(key()),
    };
    MadeStep { place, parent: step.op.parent().map(StepId::index), made }
}

fn line(step: &Step, report: &StepReport, dockerfile: &Dockerfile, plan: &Plan, store: &Store) -> StepLine {
    let (verdict, reason, took) = match &report.outcome.verdict {
        Verdict::Reused { by, saved } => (verdict_of(*by), reuse_text(*by).to_owned(), *saved),
        Verdict::Ran { cause, .. } => (StepVerdict::Ran, cause.to_string(), report.outcome.took),
    };
    let (changes, more_changes) = match &report.outcome.verdict {
        Verdict::Ran { cause: Cause::Changed(changes), .. } => {
            let kept = changes.len().min(KEPT_CHANGES);
            (changes[..kept].to_vec(), changes.len() - kept)
        }
        _ => (Vec::new(), 0),
    };
    StepLine {
        step: step_label(step),
        title: step.title.clone(),
        place: place_of(step, &dockerfile.source),
        verdict,
        reason,
        origin: origin_of(step, &report.outcome.verdict, plan).map(|origin| OriginLine {
            title: origin.title.clone(),
            place: place_of(origin, &dockerfile.source),
        }),
        changes,
        more_changes,
        millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        log: report.log.as_ref().map(|log| store.log_path(log).display().to_string()),
        parts: report.parts.clone(),
    }
}

/// The step that the cause of a run was found at, if it is another one.
pub(crate) fn origin_of<'p>(step: &Step, verdict: &Verdict, plan: &'p Plan) -> Option<&'p Step> {
    match verdict {
        Verdict::Ran { origin: Origin(origin), .. } if *origin != step.id => Some(plan.step(*origin)),
        _ => None,
    }
}

fn verdict_of(by: Reuse) -> StepVerdict {
    match by {
        Reuse::NotNeeded => StepVerdict::NotNeeded,
        Reuse::Definition | Reuse::Content | Reuse::OtherBuild | Reuse::Imported => StepVerdict::Reused,
    }
}

/// Why a result could be reused.
fn reuse_text(by: Reuse) -> &'static str {
    match by {
        Reuse::Definition => "nothing it is made from changed",
        Reuse::Content => "its inputs have the content they had",
        Reuse::OtherBuild => "another build ran it at the same time",
        Reuse::Imported => "another cache had it",
        Reuse::NotNeeded => "a later step was reused",
    }
}
