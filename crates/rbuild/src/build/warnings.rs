//! What deserves a word but does not stop a build, told once, before the build.

use std::collections::BTreeMap;

use dockerfile::Source;
use serde_json::{Value, json};

use crate::cli::Progress;
use crate::diagnostic::Diagnostic;
use crate::environment::{Environment, is_true};
use crate::failure::{Exit, Failure};
use crate::lint::Found;
use crate::listing;
use crate::progress::rawjson;

/// Warnings of one kind that are shown in full; a file that breaks one rule everywhere would push everything else off the screen.
const SHOWN_OF_A_KIND: usize = 3;

/// Whether warnings are told; one that the Dockerfile or the command line made an error is told in any case.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Told {
    Yes,
    /// As records of progress.
    Records,
    No,
}

impl Told {
    pub(crate) fn by(progress: Progress) -> Self {
        match progress {
            Progress::RawJson => Self::Records,
            progress if progress.is_for_people() => Self::Yes,
            _ => Self::No,
        }
    }
}

/// Tells what was found in a Dockerfile that has a plan.
///
/// # Errors
/// If one of the findings is an error (`# check=error=true`).
pub(crate) fn tell(
    found: Vec<Found>,
    told: Told,
    source: &Source,
    environment: &Environment,
) -> Result<(), Failure> {
    let is_wrong = found.iter().any(Found::is_error);
    if told == Told::Records && !is_wrong {
        found.iter().for_each(|found| {
            listing::tell(format_args!("{}", json!({ "warnings": [rawjson::warning(found, source)] })))
        });
    }
    let diagnostics: Vec<_> = found.into_iter().map(|found| found.diagnostic).collect();
    if is_wrong {
        return Err(Failure { exit: Exit::Build, diagnostics });
    }
    if told == Told::Yes {
        for line in shown(&diagnostics, environment.has_colour()) {
            listing::tell(format_args!("{line}\n"));
        }
    }
    Ok(())
}

/// What was found for `--metadata-file`, if `BUILDX_METADATA_WARNINGS` asks for it.
pub(crate) fn for_metadata(found: &[Found], source: &Source, environment: &Environment) -> Option<Value> {
    let is_asked = environment.variable("BUILDX_METADATA_WARNINGS").is_some_and(is_true);
    is_asked.then(|| found.iter().map(|found| rawjson::warning(found, source)).collect())
}

/// Tells that `rewrite-timestamp` has no time to rewrite to.
pub(crate) fn tell_of_no_epoch(environment: &Environment) {
    let title = "`rewrite-timestamp` rewrites nothing, since the build has no `SOURCE_DATE_EPOCH`";
    let warning = Diagnostic::warning("no-epoch", title);
    let help = "give one: `--build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)`";
    listing::tell(format_args!("{}\n", warning.help(help).render(environment.has_colour())));
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
        let diagnostic = Diagnostic::warning(code, format!("{} more of this kind", count - SHOWN_OF_A_KIND));
        diagnostic.help(format!("`# check=skip={code}` at the top of the file turns it off")).render(colour)
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_warnings_of_a_kind_are_counted() {
        let warnings: Vec<_> =
            ["A", "B", "A", "A", "A", "A"].map(|code| Diagnostic::warning(code, "title")).into();
        let shown = shown(&warnings, false);
        assert_eq!(shown.len(), 5, "three of A, one of B, and the rest: {shown:?}");
        assert!(shown[4].starts_with("warning[A]: 2 more of this kind"), "{}", shown[4]);
    }
}
