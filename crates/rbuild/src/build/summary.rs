//! The last lines of a build: what ran and why, what was reused, how long it took and how much time that saved.

use std::time::Duration;

use image::Assembled;
use plan::{Op, Plan};
use solver::{Reuse, Solved, Verdict};

use crate::build::Dockerfile;
use crate::build::request::Asked;
use crate::cli::{BuildArgs, Progress};
use crate::listing::human_duration;
use crate::progress::{place_of, step_label};

/// Writes to standard error.
pub(crate) fn print(
    plan: &Plan,
    solved: &Solved,
    assembled: &Assembled,
    asked: &Asked,
    dockerfile: &Dockerfile,
    took: Duration,
    args: &BuildArgs,
) {
    if args.quiet || args.progress == Progress::Quiet {
        return;
    }
    let (mut ran, mut reused, mut saved) = (0, 0, Duration::ZERO);
    for (step, report) in plan.steps.iter().zip(&solved.reports) {
        if matches!(step.op, Op::Scratch | Op::Image(_)) {
            continue;
        }
        match &report.outcome.verdict {
            Verdict::Ran { cause, origin } => {
                ran += 1;
                let origin = plan.step(origin.0);
                let place = if origin.id == step.id {
                    String::new()
                } else {
                    format!(" ({})", place_of(origin, &dockerfile.source))
                };
                let took = human_duration(report.outcome.took);
                eprintln!("{} {}  ran: {cause}{place}, {took}", step_label(step), step.title);
            }
            Verdict::Reused { by: Reuse::NotNeeded, saved: time } | Verdict::Reused { saved: time, .. } => {
                reused += 1;
                saved += *time;
            }
        }
    }
    let saved = if saved.is_zero() { String::new() } else { format!(", {} saved", human_duration(saved)) };
    eprintln!("{ran} ran, {reused} reused, {} in all{saved}", human_duration(took));
    let names: Vec<String> = asked.tags.iter().map(oci::Reference::familiar).collect();
    let names = if names.is_empty() { String::new() } else { format!(" {}", names.join(" ")) };
    eprintln!("image {}{names}", assembled.id);
}
