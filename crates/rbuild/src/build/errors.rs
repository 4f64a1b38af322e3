//! Library errors of a build as diagnostics: one exhaustive match for each kind of error.

use std::sync::Arc;

use dockerfile::{Finding, Source};
use plan::{ErrorKind, ImageErrorCause, Plan, PlanError, Step};
use sandbox::SandboxError;
use solver::{RunFailure, SolveError, StepError};

use crate::diagnostic::{Diagnostic, Severity};
use crate::failure::{Exit, Failure};
use crate::session::store_failure;

/// What the parser found.
pub(crate) fn of_finding(finding: &Finding, source: &Arc<Source>) -> Diagnostic {
    let mut diagnostic = Diagnostic::error(finding.code.as_str(), finding.message.clone());
    diagnostic.severity = match finding.severity {
        dockerfile::Severity::Error => Severity::Error,
        dockerfile::Severity::Warning => Severity::Warning,
    };
    diagnostic = diagnostic.at(source, finding.span, "");
    for label in &finding.labels {
        diagnostic = diagnostic.at(source, label.span, label.text.clone());
    }
    diagnostic.help.clone_from(&finding.help);
    diagnostic
}

/// What lowering found.
pub(crate) fn of_plan(found: &[PlanError], source: &Arc<Source>) -> Failure {
    let exit = found.iter().map(|finding| plan_exit(&finding.kind)).next().unwrap_or(Exit::Build);
    Failure { exit, diagnostics: found.iter().map(|finding| of_plan_finding(finding, source)).collect() }
}

fn plan_exit(kind: &ErrorKind) -> Exit {
    match kind {
        ErrorKind::Image { source: error, .. } => match error.cause {
            ImageErrorCause::Registry => Exit::Network,
            ImageErrorCause::Store => Exit::Machine,
            ImageErrorCause::NotFound | ImageErrorCause::NoSuchPlatform => Exit::Build,
        },
        ErrorKind::UnknownTarget(_) => Exit::Usage,
        _ => Exit::Build,
    }
}

fn of_plan_finding(finding: &PlanError, source: &Arc<Source>) -> Diagnostic {
    let mut diagnostic = Diagnostic::from_error("plan", &finding.kind);
    if !matches!(finding.kind, ErrorKind::UnknownTarget(_)) {
        diagnostic = diagnostic.at(source, finding.span, "");
    }
    for (span, text) in &finding.labels {
        diagnostic = diagnostic.at(source, *span, text.clone());
    }
    if let ErrorKind::Image { source: error, .. } = &finding.kind {
        diagnostic.code = "no-image".to_owned();
        diagnostic.notes.clone_from(&error.notes);
        diagnostic.help.clone_from(&error.help);
    }
    diagnostic.notes.extend(finding.notes.iter().cloned());
    if finding.help.is_some() {
        diagnostic.help.clone_from(&finding.help);
    }
    diagnostic
}

/// Why a build stopped.
pub(crate) fn of_solve(error: &SolveError, plan: &Plan, source: &Arc<Source>) -> Failure {
    match error {
        SolveError::Cancelled => Failure::cancelled(),
        SolveError::Step { step, error } => of_step(error, plan.step(*step), source),
    }
}

fn of_step(error: &StepError, step: &Step, source: &Arc<Source>) -> Failure {
    let at_step = |diagnostic: Diagnostic| diagnostic.at(source, step.span, where_in_stage(step));
    let build = |code: &str| Failure::new(Exit::Build, at_step(Diagnostic::from_error(code, error)));
    match error {
        StepError::Run(failure) => Failure::new(Exit::Build, at_step(of_run(failure))),
        StepError::Sandbox(error) => of_sandbox(error, &at_step),
        StepError::Context(error) => Failure::new(Exit::Build, at_step(of_context(error))),
        StepError::MissingInStep { path, candidates, .. } => {
            let mut failure = build("missing-source");
            let names: Vec<String> = candidates.iter().map(ToString::to_string).collect();
            failure.diagnostics[0].help = nearest(path, &names).map(|name| format!("did you mean `{name}`?"));
            failure
        }
        StepError::User(_) => build("unknown-user"),
        StepError::SecretMissing(id) => {
            let mut failure = build("missing-secret");
            failure.diagnostics[0].help =
                Some(format!("give it with `--secret id={id},src=FILE` or `--secret id={id},env=VARIABLE`"));
            failure
        }
        StepError::Exclude(_)
        | StepError::Pattern { .. }
        | StepError::Resolve(_)
        | StepError::Path(_)
        | StepError::OntoNonDirectory { .. }
        | StepError::OntoDirectory { .. }
        | StepError::ManyOntoOne { .. }
        | StepError::Archive { .. }
        | StepError::Seal(_)
        | StepError::Pack(_)
        | StepError::Accounts(_)
        | StepError::NoContext(_) => build("step-failed"),
        StepError::Unpack(_) | StepError::Prepare { .. } | StepError::Log(_) => {
            Failure::new(Exit::Machine, at_step(Diagnostic::from_error("machine", error)))
        }
        StepError::Image(error) | StepError::Rootfs(image::RootfsError::Image(error)) => of_image(error),
        StepError::Rootfs(_) => build("step-failed"),
        StepError::Store(error) => store_failure(error),
        StepError::Cancelled => Failure::cancelled(),
    }
}

/// `in stage `app`, step 4 of 6`
fn where_in_stage(step: &Step) -> String {
    let Some(place) = &step.place else { return String::new() };
    let stage = place.stage.name.clone().unwrap_or_else(|| place.stage.index.to_string());
    format!("in stage `{stage}`, step {} of {}", place.number, place.of)
}

fn of_run(failure: &RunFailure) -> Diagnostic {
    let code = if failure.out_of_memory { "out-of-memory" } else { "run-failed" };
    let mut diagnostic = Diagnostic::error(code, failure.to_string());
    if !failure.last_lines.is_empty() {
        diagnostic = diagnostic.note(format!("last lines:\n{}", failure.last_lines.join("\n")));
    }
    diagnostic = diagnostic.note(format!("all it wrote is in {}", failure.log.display()));
    if failure.out_of_memory {
        diagnostic =
            diagnostic.help("give the machine more memory, or the step less to do at once (`--jobs 1`)");
    }
    diagnostic
}

fn of_sandbox(error: &SandboxError, at_step: &dyn Fn(Diagnostic) -> Diagnostic) -> Failure {
    let diagnostic = Diagnostic::from_error("sandbox", error);
    match error {
        SandboxError::NeedsRoot => Failure::new(Exit::Machine, diagnostic.help("run rbuild as root")),
        SandboxError::CommandNotFound { .. }
        | SandboxError::MissingInterpreter { .. }
        | SandboxError::NotRunnable { .. }
        | SandboxError::User(_)
        | SandboxError::Cwd { .. }
        | SandboxError::LayersPath { .. }
        | SandboxError::TargetKind { .. } => Failure::new(Exit::Build, at_step(diagnostic)),
        _ => Failure::new(Exit::Machine, at_step(diagnostic)),
    }
}

fn of_context(error: &context::ContextError) -> Diagnostic {
    use context::{ContextError, Missing};
    let diagnostic = Diagnostic::from_error("missing-source", error);
    match error {
        ContextError::Missing { name, why: Missing::Absent { candidates } } => {
            let names: Vec<String> =
                candidates.iter().map(|path| String::from_utf8_lossy(path.as_bytes()).into_owned()).collect();
            match nearest(name, &names) {
                Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
                None => diagnostic,
            }
        }
        ContextError::Missing { name, why: Missing::Excluded(_) } => {
            diagnostic.help(format!("take that line out, or bring the file back with a later line `!{name}`"))
        }
        _ => diagnostic,
    }
}

/// The candidate that is most like what was written, if any is.
fn nearest<'c>(written: &str, candidates: &'c [String]) -> Option<&'c String> {
    let written = written.trim_matches('/');
    let likeness = |candidate: &&String| strsim::jaro_winkler(written, candidate.trim_matches('/'));
    let best = candidates.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) > 0.8).then_some(best)
}

/// Trouble with layers or images of the store.
pub(crate) fn of_image(error: &image::Error) -> Failure {
    match error {
        image::Error::Store(error) => store_failure(error),
        image::Error::Cancelled => Failure::cancelled(),
        error => Failure::new(
            Exit::Machine,
            Diagnostic::from_error("store", error)
                .help("`rbuild fsck --repair` drops what can be made again"),
        ),
    }
}
