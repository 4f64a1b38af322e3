use std::collections::BTreeSet;

use dockerfile::{Audience, Code, Finding, Level, Parsed, Policy, Severity, Source};

use crate::show;

#[test]
fn every_case_gives_its_tree_and_its_findings() {
    testkit::golden::check("dockerfile", |case| {
        let source = Source::new("Dockerfile", &case.read_bytes("Dockerfile"));
        let parsed = dockerfile::parse(&source);
        case.compare("ast.txt", &show::tree(&source, &parsed.file));
        case.compare("findings.txt", &show::findings(&source, &reported(&parsed)));
    });
}

/// What somebody who lints is told, each at its level.
fn reported(parsed: &Parsed) -> Vec<Finding> {
    let policy = Policy::of(&parsed.file, Audience::Linting);
    let mut all = parsed.findings.clone();
    all.extend(dockerfile::improvements(&parsed.file));
    all.sort_by_key(|finding| finding.span);
    all.retain_mut(|finding| match finding.code.rule().map(|rule| policy.level(rule, finding.span)) {
        Some(Level::Off) => false,
        Some(Level::Error) => {
            finding.severity = Severity::Error;
            true
        }
        Some(Level::Warning) | None => true,
    });
    all
}

#[test]
fn every_warning_breaks_a_rule_and_no_error_does() {
    for code in Code::ALL {
        assert_eq!(code.rule().is_some(), code.severity() == Severity::Warning, "{code}");
    }
}

#[test]
fn every_code_has_a_case() {
    let mut seen = BTreeSet::new();
    for case in testkit::golden::directories("dockerfile") {
        let source = Source::new("Dockerfile", &case.read_bytes("Dockerfile"));
        seen.extend(reported(&dockerfile::parse(&source)).iter().map(|finding| finding.code.as_str()));
    }
    // 16 MiB are no golden file; `a_file_that_is_too_large_is_cut` covers it.
    seen.insert(Code::FileTooLarge.as_str());
    let missing: Vec<_> = Code::ALL.iter().filter(|code| !seen.contains(code.as_str())).collect();
    assert!(missing.is_empty(), "no case shows {missing:?}");
}

#[test]
fn a_file_that_is_too_large_is_cut() {
    let mut text = b"FROM a\n".to_vec();
    text.resize(dockerfile::MAX_SOURCE_BYTES + 1, b'\n');
    let parsed = dockerfile::parse(&Source::new("Dockerfile", &text));
    assert_eq!(parsed.findings[0].code, Code::FileTooLarge);
    assert_eq!(parsed.file.stages.len(), 1);
}
