//! `rbuild explain`: every part of every step's verdict in the last build, as the build has kept it.

use std::path::Path;
use std::time::Duration;

use cache::{How, PartVerdict};
use store::Store;

use crate::build::Place;
use crate::build::report::{self, Report, StepLine, StepVerdict};
use crate::cli::{ExplainArgs, Format, Global};
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};
use crate::listing::{human_duration, print_json, write_out};
use crate::session::store_failure;
use crate::terminal::visible;

/// Explains.
pub(crate) fn explain(args: &ExplainArgs, global: &Global) -> Result<(), Failure> {
    let store = Store::open(&global.root).map_err(|error| store_failure(&error))?;
    let path = args.file.as_deref().map(canonical).transpose()?;
    let report = report::read(path.as_deref(), &store)?.ok_or_else(|| no_report(args.file.as_deref()))?;
    match args.format.format {
        Format::Json => print_json(&report),
        Format::Table => write_out(&visible(&text(&report))),
    }
}

/// Reports lie under the path without links, as `build` finds it; those of standard input under `-`, those of a
/// context from elsewhere under its URL.
pub(crate) fn canonical(path: &Path) -> Result<std::path::PathBuf, Failure> {
    if !matches!(Place::of(path), Ok(Place::Directory(_))) {
        return Ok(path.to_owned());
    }
    std::fs::canonicalize(path).map_err(|error| {
        let title = format!("cannot find the Dockerfile `{}`", path.display());
        Failure::new(Exit::Usage, Diagnostic::error("no-dockerfile", title).note(error.to_string()))
    })
}

pub(crate) fn no_report(file: Option<&Path>) -> Failure {
    let title = match file {
        Some(file) => format!("no build of `{}` has succeeded in this store", file.display()),
        None => "no build has succeeded in this store".to_owned(),
    };
    let help = "`rbuild build` keeps a report; with another `--root` it lies there";
    Failure::new(Exit::Usage, Diagnostic::error("no-report", title).help(help))
}

fn text(report: &Report) -> String {
    let mut text = format!("{}, built {}\n", report.dockerfile, report.finished);
    report.steps.iter().for_each(|step| text.push_str(&step_text(step)));
    text
}

/// The step, its verdict, the changes, and its parts: those that differ one by one, the others on one line.
fn step_text(step: &StepLine) -> String {
    let mut text = format!("\n{} {}  {}\n  {}\n", step.step, step.title, step.place, verdict_text(step));
    for change in step.changes.iter().skip(1) {
        text.push_str(&format!("  and: {change}\n"));
    }
    if step.more_changes > 0 {
        text.push_str(&format!("  and {} more\n", step.more_changes));
    }
    let of = |wanted: Option<How>| -> Vec<&str> {
        let parts = step.parts.iter().filter(|part| part.how == wanted);
        parts.map(|PartVerdict { name, .. }| name.as_str()).collect()
    };
    for (how, word) in [
        (Some(How::Changed), "changed"),
        (Some(How::Added), "new"),
        (Some(How::Removed), "gone"),
        (None, "same"),
    ] {
        let names = of(how);
        if !names.is_empty() {
            text.push_str(&format!("  {word:<8} {}\n", names.join(", ")));
        }
    }
    if let Some(log) = &step.log {
        text.push_str(&format!("  log      {log}\n"));
    }
    text
}

fn verdict_text(step: &StepLine) -> String {
    let saves = |millis| match millis {
        0 => String::new(),
        millis => format!(", saves {}", human_duration(Duration::from_millis(millis))),
    };
    match step.verdict {
        StepVerdict::Ran => {
            let took = human_duration(Duration::from_millis(step.millis));
            let cause = step.changes.first().map_or_else(|| step.reason.clone(), ToString::to_string);
            let origin = step.origin.as_ref().map(|origin| format!(" ({} {})", origin.title, origin.place));
            format!("ran in {took}: {cause}{}", origin.unwrap_or_default())
        }
        StepVerdict::Reused => format!("reused{}: {}", saves(step.millis), step.reason),
        StepVerdict::NotNeeded => format!("not needed{}: {}", saves(step.millis), step.reason),
    }
}
