//! Results as text.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::builder::{Builder, Peers};
use crate::machine;
use crate::run::Outcome;
use crate::statistics::Summary;

/// Everything about a run that a reader needs to trust or repeat it.
///
/// # Errors
/// If the machine cannot be described.
pub fn render(outcomes: &[Outcome], peers: Option<&Peers<'_>>, work: &Path, title: &str) -> Result<String> {
    let mut text = format!("# {title}\n\n");
    for line in machine::describe(work)? {
        writeln!(text, "* {line}")?;
    }
    for (name, version) in peers.map_or(&[][..], |peers| &peers.versions) {
        writeln!(text, "* {name}: {version}")?;
    }
    text.push_str(LEGEND);
    for outcome in outcomes {
        append(&mut text, outcome)?;
    }
    Ok(text)
}

const LEGEND: &str = "
Median wall time with the shortest and the longest; CPU time (median) and peak memory include children and daemons. The builders took
turns. `ratio` is a builder's median over rbuild's.
";

fn append(text: &mut String, outcome: &Outcome) -> Result<()> {
    let workload = outcome.workload;
    let bar =
        workload.bar_seconds().map(|bar| format!(" (figure to reach: {})", seconds(bar))).unwrap_or_default();
    writeln!(text, "\n## {workload}: {}{bar}\n", workload.about())?;
    text.push_str("| builder | wall | shortest to longest | CPU | peak memory | samples | ratio |\n");
    text.push_str("|---|---|---|---|---|---|---|\n");
    let ours = summary(outcome, Builder::Rbuild).map(|ours| ours.wall);
    for builder in outcome.samples.keys() {
        if let Some(summary) = summary(outcome, *builder) {
            append_row(text, *builder, summary, ours)?;
        }
    }
    append_floor(text, outcome)?;
    if let (Some(bar), Some(ours)) = (workload.bar_seconds(), ours) {
        let verdict = if ours.as_secs_f64() <= bar { "reached" } else { "missed" };
        writeln!(text, "\nThe figure is {verdict}.")?;
    }
    for (builder, why) in &outcome.failures {
        writeln!(text, "\n{builder} failed: {}", why.lines().last().unwrap_or_default())?;
    }
    Ok(())
}

fn append_row(text: &mut String, builder: Builder, summary: Summary, ours: Option<Duration>) -> Result<()> {
    let ratio = ours.map(|ours| summary.wall.as_secs_f64() / ours.as_secs_f64());
    writeln!(
        text,
        "| {builder} | {} | {} to {} | {} | {} MiB | {} | {} |",
        seconds(summary.wall.as_secs_f64()),
        seconds(summary.fastest.as_secs_f64()),
        seconds(summary.slowest.as_secs_f64()),
        seconds(summary.cpu.as_secs_f64()),
        summary.peak_bytes >> 20,
        summary.count,
        ratio.map(|ratio| format!("{ratio:.1}")).unwrap_or_default(),
    )?;
    Ok(())
}

/// Our CPU time beside that of looking at each file once.
fn append_floor(text: &mut String, outcome: &Outcome) -> Result<()> {
    let (Some(floor), Some(ours)) = (Summary::of(&outcome.floor), summary(outcome, Builder::Rbuild)) else {
        return Ok(());
    };
    let ratio = ours.cpu.as_secs_f64() / floor.cpu.as_secs_f64();
    let floor = seconds(floor.cpu.as_secs_f64());
    writeln!(
        text,
        "\nOne statx pass on one thread, in the same run: {floor} of CPU; rbuild needs {ratio:.2} times that (to reach: 1.5)."
    )?;
    Ok(())
}

fn summary(outcome: &Outcome, builder: Builder) -> Option<Summary> {
    Summary::of(outcome.samples.get(&builder)?)
}

fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1000.0) } else { format!("{seconds:.2} s") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::sample::Sample;
    use crate::workload::Workload;

    #[test]
    fn a_row_tells_the_ratio_to_ours_and_a_missed_figure_is_named() {
        let sample = |millis| Sample {
            wall: Duration::from_millis(millis),
            cpu: Duration::from_millis(millis / 2),
            peak_bytes: 3 << 20,
        };
        let outcome = Outcome {
            workload: Workload::CachedRebuild,
            samples: BTreeMap::from([
                (Builder::Rbuild, vec![sample(20)]),
                (Builder::BuildKit, vec![sample(300), sample(500)]),
            ]),
            floor: Vec::new(),
            failures: BTreeMap::from([(Builder::Buildah, "ended with 1:\nno space".to_owned())]),
        };
        let mut text = String::new();
        append(&mut text, &outcome).unwrap();
        assert!(
            text.contains("| BuildKit | 400.0 ms | 300.0 ms to 500.0 ms | 200.0 ms | 3 MiB | 2 | 20.0 |"),
            "{text}"
        );
        assert!(text.ends_with("buildah failed: no space\n"), "{text}");
        assert!(text.contains("The figure is missed."), "{text}");
    }
}
