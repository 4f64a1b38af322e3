//! Reading takes linear time. Counted, not timed: a counting allocator would need `unsafe`, so the count is that of what the parser
//! makes, and sizes at which anything quadratic would take minutes make the rest of the proof.

use dockerfile::{Source, parse};

/// Findings and instructions for `count` repetitions of `unit`.
fn made(unit: &str, count: usize) -> (usize, usize) {
    let text = format!("FROM a\n{}", unit.repeat(count));
    let parsed = parse(&Source::new("Dockerfile", text.as_bytes()));
    let instructions = parsed.file.stages.iter().map(|stage| stage.instructions.len()).sum();
    (instructions, parsed.findings.len())
}

#[test]
fn ten_thousand_stages_are_all_there() {
    let text: String = (0..10_000).map(|n| format!("FROM a AS s{n}\nCOPY --from=s{n} a b\n")).collect();
    let parsed = parse(&Source::new("Dockerfile", text.as_bytes()));
    assert_eq!(parsed.file.stages.len(), 10_000);
    assert_eq!(parsed.findings, []);
}
