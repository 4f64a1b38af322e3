//! Findings for a person, as errors are drawn, or for a program, in the shape of buildx' `--call=check,format=json`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dockerfile::{Source, Span};
use serde::Serialize;

use super::{Findings, Found};
use crate::cli::Format;
use crate::diagnostic::Severity;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::listing::{print_json, tell, write_line};

/// Writes findings to standard output; gives the exit code, which is that of a failed build if there is an error among them.
pub(crate) fn print(findings: &Findings, format: Format, environment: &Environment) -> Result<u8, Failure> {
    match format {
        Format::Json => print_json(&Results::of(findings))?,
        Format::Table => {
            for found in &findings.list {
                let shown = found.diagnostic.render(environment.has_colour_on_stdout());
                write_line(format_args!("{shown}\n"))?;
            }
            write_line(summary(&findings.list))?;
            if !findings.unknown_images.is_empty() {
                let names: Vec<_> =
                    findings.unknown_images.iter().map(|image| format!("`{}`", image.familiar())).collect();
                tell(format_args!("not looked into, because not in the store: {}", names.join(", ")));
            }
        }
    }
    let has_errors = findings.list.iter().any(Found::is_error);
    Ok(if has_errors { Exit::Build as u8 } else { 0 })
}

/// `1 error, 2 warnings`
fn summary(list: &[Found]) -> String {
    let errors = list.iter().filter(|found| found.is_error()).count();
    let count = |count: usize, name: &str| match count {
        0 => None,
        1 => Some(format!("1 {name}")),
        _ => Some(format!("{count} {name}s")),
    };
    let parts: Vec<_> =
        [count(errors, "error"), count(list.len() - errors, "warning")].into_iter().flatten().collect();
    if parts.is_empty() { "nothing found".to_owned() } else { parts.join(", ") }
}

/// The document. Fields that buildx does not have: `severity` and `help`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Results<'f> {
    warnings: Vec<Warning<'f>>,
    sources: Vec<SourceInfo<'f>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_error: Option<BuildError>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning<'f> {
    rule_name: &'static str,
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    detail: &'f str,
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'f str>,
    location: Location,
}

/// The errors as one, which is all that buildx' shape has room for.
#[derive(Debug, Serialize)]
struct BuildError {
    message: String,
    location: Location,
}

#[derive(Debug, Serialize)]
struct SourceInfo<'f> {
    filename: &'f str,
    language: &'static str,
    /// In base64.
    data: String,
}

/// Places of one source.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Location {
    /// -1 for what stands in none.
    source_index: i32,
    ranges: Vec<Range>,
}

#[derive(Debug, Serialize)]
struct Range {
    start: Position,
    end: Position,
}

/// Lines count from 1, characters from 0.
#[derive(Debug, Serialize)]
struct Position {
    line: u32,
    character: u32,
}

impl Location {
    /// A place of the only source.
    pub(crate) fn of(source: &Source, span: Span) -> Self {
        Self { source_index: 0, ranges: vec![Range::of(source, span)] }
    }

    fn of_all<'f>(source: &Source, all: impl Iterator<Item = &'f Found>) -> Self {
        let spans = all.filter_map(|found| found.diagnostic.labels.first()).map(|(span, _)| *span);
        let ranges: Vec<_> = spans.map(|span| Range::of(source, span)).collect();
        Self { source_index: if ranges.is_empty() { -1 } else { 0 }, ranges }
    }
}

impl Range {
    fn of(source: &Source, span: Span) -> Self {
        let position = |offset| {
            let position = source.position(offset);
            Position { line: position.line, character: position.column - 1 }
        };
        Self { start: position(span.start), end: position(span.end) }
    }
}

impl<'f> Results<'f> {
    fn of(findings: &'f Findings) -> Self {
        let source: &'f Arc<Source> = &findings.source;
        let warning = |found: &'f Found| {
            let rule = found.rule?;
            Some(Warning {
                rule_name: rule.as_str(),
                description: rule.description(),
                url: rule.url(),
                detail: &found.diagnostic.title,
                severity: match found.diagnostic.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                },
                help: found.diagnostic.help.as_deref(),
                location: Location::of_all(source, std::iter::once(found)),
            })
        };
        let errors: Vec<_> = findings.list.iter().filter(|found| found.rule.is_none()).collect();
        let messages: Vec<_> = errors.iter().map(|found| found.diagnostic.title.as_str()).collect();
        let build_error = (!errors.is_empty()).then(|| BuildError {
            message: messages.join("; "),
            location: Location::of_all(source, errors.iter().copied()),
        });
        let info = SourceInfo { filename: source.name(), language: "Dockerfile", data: encoded(source) };
        Self {
            warnings: findings.list.iter().filter_map(warning).collect(),
            sources: vec![info],
            build_error,
        }
    }
}

/// The source's text in base64, as Go writes bytes.
pub(crate) fn encoded(source: &Source) -> String {
    STANDARD.encode(source.text())
}
