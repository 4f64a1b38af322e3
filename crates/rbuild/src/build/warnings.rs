//! What deserves a word but does not stop a build: lint findings of the parser and warnings of lowering, told once, before the build.

use std::collections::BTreeMap;

use dockerfile::{Severity, Span};
use plan::Plan;

use crate::build::{Dockerfile, errors};
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};

/// Warnings of one kind that are shown in full; a file that breaks one rule everywhere would push everything else off the screen.
const SHOWN_OF_A_KIND: usize = 3;

/// Tells the warnings of a Dockerfile that has a plan.
///
/// # Errors
/// If the Dockerfile says that a warning is an error (`# check=error=true`).
pub(crate) fn tell(dockerfile: &Dockerfile, plan: &Plan, environment: &Environment) -> Result<(), Failure> {
    let warnings = gather(dockerfile, plan);
    let check = dockerfile.file.directives.check.as_ref();
    if check.is_some_and(|check| check.error == Some(true)) && !warnings.is_empty() {
        return Err(Failure { exit: Exit::Build, diagnostics: as_errors(warnings) });
    }
    for line in shown(&warnings, environment.has_colour()) {
        eprintln!("{line}\n");
    }
    Ok(())
}

/// In the order of the file, without those that the file asks to leave out.
fn gather(dockerfile: &Dockerfile, plan: &Plan) -> Vec<Diagnostic> {
    let source = &dockerfile.source;
    let found = dockerfile.findings.iter().filter(|finding| finding.severity == Severity::Warning);
    let found = found.map(|finding| (finding.span, errors::of_finding(finding, source)));
    let check = dockerfile.file.directives.check.as_ref();
    let is_wanted =
        |warning: &&plan::Warning| !check.is_some_and(|check| check.skip.contains(warning.kind.code()));
    let lowered = plan.warnings.iter().filter(is_wanted);
    let lowered = lowered.map(|warning| (warning.span, errors::of_warning(warning, source)));
    let mut all: Vec<(Span, Diagnostic)> = found.chain(lowered).collect();
    all.sort_by_key(|(span, _)| *span);
    all.into_iter().map(|(_, diagnostic)| diagnostic).collect()
}

fn as_errors(warnings: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let as_error = |mut diagnostic: Diagnostic| {
        diagnostic.severity = crate::diagnostic::Severity::Error;
        diagnostic.note("`# check=error=true` makes this warning an error")
    };
    warnings.into_iter().map(as_error).collect()
}

/// The first of each kind in full, and how many more there are.
fn shown(warnings: &[Diagnostic], colour: bool) -> Vec<String> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut lines = Vec::new();
    for warning in warnings {
        let count = seen.entry(warning.code).or_default();
        *count += 1;
        if *count <= SHOWN_OF_A_KIND {
            lines.push(warning.render(colour));
        }
    }
    let more = seen.into_iter().filter(|(_, count)| *count > SHOWN_OF_A_KIND);
    lines.extend(more.map(|(code, count)| {
        let mut diagnostic =
            Diagnostic::error(code, format!("{} more of this kind", count - SHOWN_OF_A_KIND));
        diagnostic.severity = crate::diagnostic::Severity::Warning;
        diagnostic.help(format!("`# check=skip={code}` at the top of the file turns it off")).render(colour)
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_warnings_of_a_kind_are_counted() {
        let warning = |code, title: &str| {
            let mut diagnostic = Diagnostic::error(code, title);
            diagnostic.severity = crate::diagnostic::Severity::Warning;
            diagnostic
        };
        let warnings: Vec<_> = ["A", "B", "A", "A", "A", "A"].map(|code| warning(code, "title")).into();
        let shown = shown(&warnings, false);
        assert_eq!(shown.len(), 5, "three of A, one of B, and the rest: {shown:?}");
        assert!(shown[4].starts_with("warning[A]: 2 more of this kind"), "{}", shown[4]);
    }
}
