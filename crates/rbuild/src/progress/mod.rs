//! What a person sees of a build while it goes on: events folded into lines or into a live view.

mod plain;

use plan::{Op, Plan, Step};
use solver::Event;

use crate::cli::Progress;
use crate::environment::Environment;

/// Shows events. Called from any thread.
pub(crate) trait Renderer: Sync {
    /// Shows one event.
    fn event(&self, event: Event);
    /// Ends the live view, before anything else is written.
    fn finish(&self);
}

/// The renderer that was asked for.
pub(crate) fn renderer<'p>(
    progress: Progress,
    plan: &'p Plan,
    environment: &Environment,
) -> Box<dyn Renderer + 'p> {
    match progress {
        Progress::Quiet => Box::new(Silent),
        Progress::Auto | Progress::Tty | Progress::Plain => Box::new(plain::Plain::new(plan, environment)),
    }
}

/// Shows nothing.
struct Silent;

impl Renderer for Silent {
    fn event(&self, _: Event) {}
    fn finish(&self) {}
}

/// How a line names its step: `[app 4/6]`, or what it is for a step of no stage.
pub(crate) fn step_label(step: &Step) -> String {
    match (&step.place, &step.op) {
        (Some(place), _) => {
            let stage = place.stage.name.clone().unwrap_or_else(|| format!("stage-{}", place.stage.index));
            format!("[{stage} {}/{}]", place.number, place.of)
        }
        (None, Op::Image(image)) => format!("[{}]", image.reference.familiar()),
        (None, _) => "[-]".to_owned(),
    }
}

/// Where a step's instruction stands: `Dockerfile:7`.
pub(crate) fn place_of(step: &Step, source: &dockerfile::Source) -> String {
    format!("{}:{}", source.name(), source.position(step.span.start).line)
}
