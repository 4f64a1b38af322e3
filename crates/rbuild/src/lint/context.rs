//! Rules about the files that COPY and ADD name: they need the context's ignore rules, and its names.

use context::wildcard::SourcePattern;
use context::{Context, ContextError, Exclusion, Ignore, Parents, Verdict};
use dockerfile::{Rule, Span};
use plan::{ContextName, Copy, Op, Source, SourcePath, Step};

use super::{Found, Judge};
use crate::build::errors::span_of_word;
use crate::diagnostic::Diagnostic;

/// What the steps that take files from the main context break.
pub(super) fn findings(steps: &[Step], main: &Context, judge: &Judge) -> Vec<Found> {
    let mut found = Vec::new();
    for step in steps {
        let Op::Copy(copy) = &step.op else { continue };
        if copy.from != Source::Context(ContextName::Main) {
            continue;
        }
        for path in copy.paths.iter().filter(|path| path.fetched.is_none()) {
            let at = span_of_word(&judge.source, step.span, &path.written).unwrap_or(step.span);
            found.extend(ignored(path, at, main, judge));
            found.extend(unmatched(path, at, copy, main, judge));
        }
    }
    found
}

/// A source's path below the context, its pivot included.
fn whole(path: &SourcePath) -> String {
    match path.pivot.as_str() {
        "" => path.pattern.clone(),
        pivot => format!("{pivot}/{}", path.pattern),
    }
}

/// `CopyIgnoredFile`. As in BuildKit, not where the ignore file brings files back: a directory may be hidden and a file in it not.
fn ignored(path: &SourcePath, at: Span, main: &Context, judge: &Judge) -> Option<Found> {
    let pattern = SourcePattern::parse(whole(path).as_bytes()).ok()?;
    let ignore = main.ignore();
    if ignore.has_exceptions() {
        return None;
    }
    let Verdict::Excluded(exclusion) = ignore.matches(&pattern.literal) else { return None };
    let title = format!("`{}` is excluded by {exclusion}, so there is nothing to copy", path.written);
    let help = "take that line out, or copy something else";
    let diagnostic =
        Diagnostic::error(Rule::CopyIgnoredFile.as_str(), title).at(&judge.source, at, "").help(help);
    judge.judge(Some(Rule::CopyIgnoredFile), at, diagnostic)
}

/// `WildcardNoMatch`.
fn unmatched(path: &SourcePath, at: Span, copy: &Copy, main: &Context, judge: &Judge) -> Option<Found> {
    // Asked first: looking for matches reads directories.
    if judge.is_off(Rule::WildcardNoMatch, at)
        || SourcePattern::parse(whole(path).as_bytes()).ok()?.is_literal()
    {
        return None;
    }
    let excludes = Ignore::none();
    let parents = match copy.parents {
        plan::Parents::Kept => Parents::Kept,
        plan::Parents::Dropped => Parents::Dropped,
    };
    let written = whole(path);
    let source = context::Source { pattern: written.as_bytes(), excludes: &excludes, parents };
    let hidden_by: Option<Exclusion> = match main.select(&source) {
        Ok(selection) if selection.matches().is_empty() => selection.hidden_by().cloned(),
        Err(ContextError::Missing { .. }) => None,
        // What cannot be read is the build's to report.
        Ok(_) | Err(_) => return None,
    };
    let title = format!("`{}` matches nothing in the build context, so nothing is copied", path.written);
    let mut diagnostic = Diagnostic::error(Rule::WildcardNoMatch.as_str(), title).at(&judge.source, at, "");
    if let Some(exclusion) = hidden_by {
        diagnostic = diagnostic.note(format!("a file that it would match is excluded by {exclusion}"));
    }
    judge.judge(Some(Rule::WildcardNoMatch), at, diagnostic.help("correct the pattern, or remove it"))
}
