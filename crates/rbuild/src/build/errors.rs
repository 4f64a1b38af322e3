//! Library errors of a build as diagnostics: one exhaustive match for each kind of error.
//!
//! Each diagnostic has a stable code, the place in the Dockerfile where there is one, the causes as notes, and the way out as help. What a
//! RUN may fail with is in [`run`], what a COPY may fail with in [`files`].

mod files;
mod run;

pub(crate) use run::{EMULATOR_HELP, foreign, is_foreign};

use std::error::Error;
use std::io;
use std::sync::Arc;

use dockerfile::{Finding, Source, Span};
use image::RootfsError;
use plan::{ErrorKind, ImageErrorCause, Plan, PlanError, RemoteError, RemoteErrorCause, Step};
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
    let diagnostics = found.iter().map(|finding| of_plan_error(finding, source)).collect();
    Failure { exit: plans_exit(found).unwrap_or(Exit::Build), diagnostics }
}

/// The code of the worst of them.
pub(crate) fn plans_exit(found: &[PlanError]) -> Option<Exit> {
    found.iter().map(|finding| plan_exit(&finding.kind)).max_by_key(|exit| *exit as u8)
}

fn plan_exit(kind: &ErrorKind) -> Exit {
    match kind {
        ErrorKind::Image { source: error, .. } => match error.cause {
            ImageErrorCause::Registry => Exit::Network,
            ImageErrorCause::Store => Exit::Machine,
            ImageErrorCause::NotFound | ImageErrorCause::NoSuchPlatform => Exit::Build,
        },
        ErrorKind::Remote { error } => remote_exit(error),
        kind if is_of_command_line(kind) => Exit::Usage,
        _ => Exit::Build,
    }
}

/// Whether it stands on the command line.
fn is_of_command_line(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnknownTarget(_) | ErrorKind::NoSuchStep { .. } | ErrorKind::NothingBefore(_))
}

/// A context that cannot be had. It stands on the command line.
pub(crate) fn of_remote(error: &RemoteError) -> Failure {
    match error.cause {
        RemoteErrorCause::Cancelled => Failure::cancelled(),
        RemoteErrorCause::Refused => Failure::new(Exit::Usage, remote_diagnostic(error)),
        _ => Failure::new(remote_exit(error), remote_diagnostic(error)),
    }
}

fn remote_diagnostic(error: &RemoteError) -> Diagnostic {
    let code = match error.cause {
        RemoteErrorCause::Checksum => "wrong-checksum",
        _ => "source-unavailable",
    };
    let mut diagnostic = Diagnostic::from_error(code, error);
    diagnostic.notes.extend(error.notes.iter().cloned());
    diagnostic.help.clone_from(&error.help);
    diagnostic
}

fn remote_exit(error: &RemoteError) -> Exit {
    match error.cause {
        RemoteErrorCause::Refused | RemoteErrorCause::Checksum => Exit::Build,
        RemoteErrorCause::Network => Exit::Network,
        RemoteErrorCause::Machine => Exit::Machine,
        RemoteErrorCause::Cancelled => Exit::Cancelled,
    }
}

/// One thing that lowering found wrong.
pub(crate) fn of_plan_error(finding: &PlanError, source: &Arc<Source>) -> Diagnostic {
    let mut diagnostic = Diagnostic::from_error(finding.kind.code(), &finding.kind);
    if let ErrorKind::Image { source: error, .. } = &finding.kind {
        // What was tried says more than that it was in vain.
        if !error.notes.is_empty() {
            diagnostic.notes.clone_from(&error.notes);
        }
        diagnostic.help.clone_from(&error.help);
    }
    let has_place = !is_of_command_line(&finding.kind);
    with_finding(diagnostic, finding, source, has_place)
}

/// What lowering has to say that stops nothing.
pub(crate) fn of_warning(warning: &plan::Warning, source: &Arc<Source>) -> Diagnostic {
    let mut diagnostic = Diagnostic::from_error(warning.kind.code(), &warning.kind);
    diagnostic.severity = Severity::Warning;
    // A build argument stands on the command line.
    let has_place = !matches!(warning.kind, plan::WarningKind::UnusedBuildArg(_));
    with_finding(diagnostic, warning, source, has_place)
}

fn with_finding<K>(
    mut diagnostic: Diagnostic,
    finding: &plan::Finding<K>,
    source: &Arc<Source>,
    has_place: bool,
) -> Diagnostic {
    if has_place {
        diagnostic = diagnostic.at(source, finding.span, "");
    }
    for (span, text) in &finding.labels {
        diagnostic = diagnostic.at(source, *span, text.clone());
    }
    diagnostic.notes.extend(finding.notes.iter().cloned());
    if finding.help.is_some() {
        diagnostic.help.clone_from(&finding.help);
    }
    diagnostic
}

/// What is wrong with an ignore file.
pub(crate) fn of_ignore(error: &context::IgnoreError) -> Failure {
    use context::IgnoreError;
    let diagnostic = Diagnostic::from_error("bad-dockerignore", error);
    match error {
        IgnoreError::Pattern { .. }
        | IgnoreError::LoneBang { .. }
        | IgnoreError::TooLarge { .. }
        | IgnoreError::NotAFile { .. } => Failure::new(Exit::Build, diagnostic),
        IgnoreError::Read { .. } => Failure::new(Exit::Machine, diagnostic),
    }
}

/// Why the directory that the command line names is no context.
pub(crate) fn of_context(error: &context::ContextError) -> Failure {
    Failure::new(Exit::Usage, Diagnostic::from_error("no-context", error))
}

/// Why a build stopped. `shell` says how to look at a step.
pub(crate) fn of_solve(
    error: &SolveError,
    plan: &Plan,
    source: &Arc<Source>,
    shell: &dyn Fn(&Step) -> Option<String>,
) -> Failure {
    match error {
        SolveError::Cancelled => Failure::cancelled(),
        SolveError::Step { step, error, .. } => {
            Place { step: plan.step(*step), source, shell }.of_step(error)
        }
    }
}

/// What a RUN failed with, for whoever wants to look at what it left.
pub(crate) fn of_run(failure: &RunFailure, step: &Step, source: &Arc<Source>) -> Diagnostic {
    let place = Place { step, source, shell: &|_| None };
    place.of_failure(failure).at(source, step.span, place.in_stage())
}

/// Where a step stands, for errors that happened there.
#[derive(Clone, Copy)]
struct Place<'p> {
    step: &'p Step,
    source: &'p Arc<Source>,
    /// How to look at it.
    shell: &'p dyn Fn(&Step) -> Option<String>,
}

impl Place<'_> {
    fn of_step(&self, error: &StepError) -> Failure {
        if is_disk_full(error) {
            return self.fails(Exit::Machine, no_space(error));
        }
        match error {
            StepError::Run(failure) => self.fails(Exit::Build, self.of_failure(failure)),
            StepError::Sandbox(error) => self.of_sandbox(error),
            StepError::User(error) => self.fails(Exit::Build, run::of_user(error)),
            StepError::SecretMissing(id) => self.fails(Exit::Build, run::of_missing_secret(id)),
            StepError::CachePath { .. } => self.fails(
                Exit::Build,
                Diagnostic::from_error("cache-path", error).help(
                    "an earlier RUN must have made it in the cache; leave `source` out to mount all of it",
                ),
            ),
            StepError::AgentMissing(id) => self.fails(Exit::Build, run::of_missing_agent(id)),
            StepError::Agent { .. } => self.fails(Exit::Machine, Diagnostic::from_error("ssh-agent", error)),
            StepError::Context(error) => self.of_context(error),
            StepError::Exclude(error) => {
                self.fails(Exit::Build, Diagnostic::from_error("bad-exclude", error))
            }
            StepError::MissingInStep { path, candidates, .. } => {
                self.fails_at(path, Exit::Build, files::of_missing_in_step(error, path, candidates))
            }
            StepError::Pattern { pattern, .. } => {
                self.fails_at(pattern, Exit::Build, Diagnostic::from_error("bad-pattern", error))
            }
            StepError::Resolve(_)
            | StepError::Path(_)
            | StepError::Rootfs(RootfsError::Resolve(_) | RootfsError::Path(_)) => {
                self.fails(Exit::Build, Diagnostic::from_error("bad-path", error))
            }
            StepError::OntoNonDirectory { .. }
            | StepError::OntoDirectory { .. }
            | StepError::ManyOntoOne { .. } => self.fails(Exit::Build, files::of_conflict(error)),
            StepError::Remote(error) => self.of_remote(error),
            StepError::Archive { path, .. } => self.fails_at(path, Exit::Build, files::of_archive(error)),
            StepError::NoContext(name) => self.fails(Exit::Build, files::of_unknown_context(name)),
            StepError::Accounts(_) => self.fails(Exit::Build, Diagnostic::from_error("bad-accounts", error)),
            StepError::Seal(seal) => self.of_seal(seal),
            StepError::Pack(_)
            | StepError::Unpack(_)
            | StepError::Prepare { .. }
            | StepError::Log(_)
            | StepError::Rootfs(RootfsError::Tree(_)) => {
                self.fails(Exit::Machine, Diagnostic::from_error("machine", error))
            }
            StepError::Image(error) | StepError::Rootfs(RootfsError::Image(error)) => self.of_image(error),
            StepError::Store(error) => store_failure(error),
            StepError::Cancelled => Failure::cancelled(),
        }
    }

    fn of_remote(&self, error: &RemoteError) -> Failure {
        match error.cause {
            RemoteErrorCause::Cancelled => Failure::cancelled(),
            _ => self.fails(remote_exit(error), remote_diagnostic(error)),
        }
    }

    fn of_seal(&self, error: &layer::seal::SealError) -> Failure {
        use layer::seal::SealError;
        match error {
            SealError::ReservedName(_) => {
                let diagnostic = Diagnostic::from_error("reserved-name", error);
                self.fails(Exit::Build, diagnostic.help("remove or rename the file at the end of the step"))
            }
            SealError::Path(_) => self.fails(Exit::Build, Diagnostic::from_error("bad-path", error)),
            SealError::Read { .. } | SealError::Pack(_) => {
                self.fails(Exit::Machine, Diagnostic::from_error("machine", error))
            }
        }
    }

    fn of_image(&self, error: &image::Error) -> Failure {
        match error {
            image::Error::TooManyLayers { .. } => {
                let diagnostic = Diagnostic::from_error("too-many-layers", error);
                self.fails(
                    Exit::Build,
                    diagnostic.help("join RUN instructions, or start from an image with fewer layers"),
                )
            }
            error => of_image(error),
        }
    }

    /// Points at the whole instruction.
    fn fails(&self, exit: Exit, diagnostic: Diagnostic) -> Failure {
        Failure::new(exit, diagnostic.at(self.source, self.step.span, self.in_stage()))
    }

    /// Points at one word of the instruction, if it stands there exactly once.
    fn fails_at(&self, word: &str, exit: Exit, diagnostic: Diagnostic) -> Failure {
        let span = span_of_word(self.source, self.step.span, word).unwrap_or(self.step.span);
        Failure::new(exit, diagnostic.at(self.source, span, self.in_stage()))
    }

    /// `in stage `app`, step 4 of 6`
    fn in_stage(&self) -> String {
        match &self.step.place {
            Some(place) => {
                let on = place.platform.as_ref().map(|platform| format!(" on {platform}"));
                let target = place.target.as_ref().filter(|target| place.platform.as_ref() != Some(target));
                let target = target.map(|target| format!(" for {target}"));
                let platform = on.unwrap_or_default() + &target.unwrap_or_default();
                let stage = &place.stage;
                format!("in stage `{stage}`{platform}, step {} of {}", place.number, place.of)
            }
            None => String::new(),
        }
    }
}

/// The place of a word within an instruction, if it stands there exactly once.
pub(crate) fn span_of_word(source: &Source, instruction: Span, word: &str) -> Option<Span> {
    let text = source.slice(instruction);
    let is_end = |c: Option<char>| {
        c.is_none_or(|c| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '/' | '[' | ']'))
    };
    let found = text.match_indices(word).filter(|(at, _)| {
        is_end(text[..*at].chars().next_back()) && is_end(text[at + word.len()..].chars().next())
    });
    let mut starts = found.map(|(at, _)| at);
    let (start, None) = (starts.next()?, starts.next()) else { return None };
    let start = instruction.start + u32::try_from(start).ok()?;
    Some(Span::new(start, start + u32::try_from(word.len()).ok()?)).filter(|_| !word.is_empty())
}

/// Trouble with layers or images of the store.
pub(crate) fn of_image(error: &image::Error) -> Failure {
    if is_disk_full(error) {
        return Failure::new(Exit::Machine, no_space(error));
    }
    let machine = |diagnostic| Failure::new(Exit::Machine, diagnostic);
    match error {
        image::Error::Store(error) => store_failure(error),
        image::Error::Cancelled => Failure::cancelled(),
        image::Error::TooManyLayers { .. } => {
            Failure::new(Exit::Build, Diagnostic::from_error("too-many-layers", error))
        }
        image::Error::Entries { .. }
        | image::Error::WrongDiffId { .. }
        | image::Error::NoContents(_)
        | image::Error::Config { .. }
        | image::Error::Read { .. } => {
            let diagnostic = Diagnostic::from_error("damaged-store", error);
            machine(
                diagnostic.help("`rbuild fsck --repair` drops what can be made again and says what cannot"),
            )
        }
        image::Error::Unpack { .. }
        | image::Error::Pack { .. }
        | image::Error::Io { .. }
        | image::Error::Resource { .. } => machine(Diagnostic::from_error("machine", error)),
    }
}

/// Whether a full disk or quota is at the bottom of it, however deep.
pub(crate) fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    let is_full = |error: &(dyn Error + 'static)| match error.downcast_ref::<io::Error>() {
        Some(error) => matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
        None => matches!(error.downcast_ref(), Some(store::Error::NoSpace { .. })),
    };
    std::iter::successors(Some(error), |error| (*error).source()).any(is_full)
}

/// A full disk, and how to make room.
pub(crate) fn no_space(error: &(dyn Error + 'static)) -> Diagnostic {
    Diagnostic::from_error("no-space", error)
        .help("`rbuild prune` frees what no image needs; `rbuild du` shows what takes the space")
}
