//! Golden cases in `testdata/plan`: a Dockerfile and perhaps `args.txt` (flags of `rbuild build`, one a line) become `plan.txt`
//! and `findings.txt`. Images are configs in `testdata/plan/.images`.

#![expect(clippy::unwrap_used, reason = "a test binary through and through")]

mod differential;
mod flags;
mod images;
mod properties;
mod shell;

use std::fmt::{Display, Write as _};

use dockerfile::Source;
use plan::Finding;

use crate::flags::request;
use crate::images::RecordedImages;

#[test]
fn dockerfiles_become_the_plans_beside_them() {
    let mut refused = Vec::new();
    testkit::golden::check("plan", |case| {
        let source = Source::new("Dockerfile", &case.read_bytes("Dockerfile"));
        let parsed = dockerfile::parse(&source);
        if parsed.has_errors() {
            return refused.push((case.name.clone(), parsed.findings));
        }
        let request = request(&case.read_if_present("args.txt").unwrap_or_default());
        let mut images = RecordedImages::default();
        let (plan, findings) = match plan::lower(&parsed.file, &request, &mut images) {
            Ok(plan) => {
                let shown = plan.warnings.iter().map(|w| show(&source, "warning", w.kind.code(), w));
                (plan.to_string(), shown.collect::<String>())
            }
            Err(errors) => {
                let shown = errors.iter().map(|e| show(&source, "error", e.kind.code(), e) + &causes(e));
                (String::new(), shown.collect())
            }
        };
        case.compare("plan.txt", &plan);
        case.compare("findings.txt", &findings);
    });
    assert!(refused.is_empty(), "the parser refuses {refused:#?}");
}

fn show<K: Display + 'static>(source: &Source, severity: &str, code: &str, finding: &Finding<K>) -> String {
    let mut text = String::new();
    let place = source.position(finding.span.start);
    writeln!(text, "{severity}[{code}] {place} `{}`: {finding}", first_line(source.slice(finding.span)))
        .unwrap();
    for (span, label) in &finding.labels {
        writeln!(text, "  at {} `{}`: {label}", source.position(span.start), first_line(source.slice(*span)))
            .unwrap();
    }
    for note in &finding.notes {
        writeln!(text, "  note: {note}").unwrap();
    }
    if let Some(help) = &finding.help {
        writeln!(text, "  help: {help}").unwrap();
    }
    text
}

fn causes(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |source| source.source());
    sources.map(|source| format!("  because: {source}\n")).collect()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
