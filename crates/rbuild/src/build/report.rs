//! What `explain` shows later: why each step of the build ran or was reused, kept in the store.

use cache::PartVerdict;
use plan::Plan;
use serde::{Deserialize, Serialize};
use solver::{Reuse, Solved, Verdict};

use crate::build::Dockerfile;
use crate::failure::Failure;
use crate::progress::{place_of, step_label};
use crate::session::{Session, store_failure};

/// The report of one build.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The Dockerfile's path.
    pub(crate) dockerfile: String,
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
    /// `reused`, `ran`, `not needed`.
    pub(crate) verdict: String,
    /// Why it ran, or what allowed reusing it.
    pub(crate) reason: String,
    /// The place of the step whose own change is the cause, if it is another one.
    pub(crate) origin: Option<String>,
    /// Milliseconds it took, or had taken.
    pub(crate) millis: u64,
    /// Every part of its key.
    pub(crate) parts: Vec<PartVerdict>,
}

/// Under which name the last build of all is kept.
pub(crate) const LAST: &str = "last";

/// Keeps the report under the Dockerfile's path, and as the last one of all.
pub(crate) fn keep(
    dockerfile: &Dockerfile,
    plan: &Plan,
    solved: &Solved,
    session: &Session,
) -> Result<(), Failure> {
    let path = dockerfile.path.to_string_lossy().into_owned();
    let report = Report { dockerfile: path.clone(), steps: lines(dockerfile, plan, solved) };
    let bytes = serde_json::to_vec(&report).expect("a report has string keys only, so it always serialises");
    let logs: Vec<_> = solved.reports.iter().filter_map(|report| report.log.clone()).collect();
    for name in [path.as_str(), LAST] {
        session.lease.put_build_report(name, &logs, &bytes).map_err(|error| store_failure(&error))?;
    }
    Ok(())
}

fn lines(dockerfile: &Dockerfile, plan: &Plan, solved: &Solved) -> Vec<StepLine> {
    let line = |(step, report): (&plan::Step, &solver::StepReport)| {
        let (verdict, reason, origin, took) = match &report.outcome.verdict {
            Verdict::Reused { by: Reuse::NotNeeded, saved } => {
                ("not needed", "a later step was reused".to_owned(), None, *saved)
            }
            Verdict::Reused { by, saved } => ("reused", reuse_text(*by).to_owned(), None, *saved),
            Verdict::Ran { cause, origin } => {
                let origin = (origin.0 != step.id).then(|| place_of(plan.step(origin.0), &dockerfile.source));
                ("ran", cause.to_string(), origin, report.outcome.took)
            }
        };
        StepLine {
            step: step_label(step),
            title: step.title.clone(),
            place: place_of(step, &dockerfile.source),
            verdict: verdict.to_owned(),
            reason,
            origin,
            millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            parts: report.parts.clone(),
        }
    };
    plan.steps.iter().zip(&solved.reports).map(line).collect()
}

/// Why a result could be reused.
fn reuse_text(by: Reuse) -> &'static str {
    match by {
        Reuse::Definition => "nothing it is made from changed",
        Reuse::Content => "a step before it ran again with the same outcome",
        Reuse::OtherBuild => "another build ran it at the same time",
        Reuse::NotNeeded => "a later step was reused",
    }
}
