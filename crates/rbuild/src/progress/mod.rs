//! What is shown of a build while it goes on: events folded into lines ([`plain`]), a live view ([`tty`]), or records for programs ([`rawjson`]).
//!
//! Both folds ([`plain::Lines`], [`board::Board`]) are state and data only: events and times go in, lines come out, so that tests need no
//! terminal. Whatever a process or a Dockerfile wrote passes through [`crate::terminal`] on its way.

mod board;
mod plain;
pub(crate) mod rawjson;
mod tty;

use plan::{Op, Plan, Step};
use solver::Event;

use crate::cli::Progress;
use crate::environment::Environment;
use crate::terminal::one_line;

/// Shows events. Called from any thread.
pub(crate) trait Renderer: Sync {
    /// Shows one event.
    fn event(&self, event: Event);
    /// Ends the live view, before anything else is written.
    fn finish(&self);
}

/// The renderer that was asked for. A live view needs a terminal; without one, lines it is.
pub(crate) fn renderer(progress: Progress, plan: &Plan, environment: &Environment) -> Box<dyn Renderer> {
    let is_live = environment.stderr_is_terminal && environment.variable("TERM") != Some("dumb");
    match progress {
        Progress::Quiet | Progress::None => Box::new(Silent),
        Progress::RawJson => Box::new(rawjson::RawJson::new(plan)),
        Progress::Auto | Progress::Tty if is_live => Box::new(tty::Tty::new(plan)),
        Progress::Auto | Progress::Tty | Progress::Plain => Box::new(plain::Plain::new(plan)),
    }
}

/// Shows nothing.
struct Silent;

impl Renderer for Silent {
    fn event(&self, _: Event) {}
    fn finish(&self) {}
}

/// How a step is shown.
#[derive(Clone, Debug)]
struct Shown {
    /// `[app 4/6]`
    label: String,
    /// `RUN npm ci`
    title: String,
    /// Whether it does anything of its own: an image does not.
    is_work: bool,
}

/// All steps of a plan, by index.
fn shown_steps(plan: &Plan) -> Vec<Shown> {
    let shown =
        |step: &Step| Shown { label: step_label(step), title: one_line(&step.title), is_work: is_work(step) };
    plan.steps.iter().map(shown).collect()
}

/// Whether a step is an instruction that makes a layer, and not merely where a stage begins.
pub(crate) fn is_work(step: &Step) -> bool {
    !matches!(step.op, Op::Scratch | Op::Image(_) | Op::Remote(_))
}

/// How a line names its step: `[app 4/6]`, or what it is for a step of no stage.
pub(crate) fn step_label(step: &Step) -> String {
    match (&step.place, &step.op) {
        (Some(place), _) => format!("[{place}]"),
        (None, Op::Image(image)) => format!("[{}]", image.reference.familiar()),
        (None, Op::Remote(_)) => "[fetch]".to_owned(),
        (None, _) => "[-]".to_owned(),
    }
}

/// Where a step's instruction stands: `Dockerfile:7`.
pub(crate) fn place_of(step: &Step, source: &dockerfile::Source) -> String {
    format!("{}:{}", one_line(source.name()), source.position(step.span.start).line)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use cache::Cause;
    use dockerfile::Source;
    use oci::Platform;
    use plan::{BaseImage, ImageError, Images, Request, StepId};
    use solver::{Filesystem, Origin, Outcome, Reuse, Verdict};
    use std::time::Duration;

    struct NoImages;

    impl Images for NoImages {
        fn resolve(
            &mut self,
            reference: &oci::Reference,
            _: &Platform,
            _: dockerfile::Span,
        ) -> Result<BaseImage, ImageError> {
            panic!("{} is not needed", reference.familiar())
        }
    }

    /// The plan of a Dockerfile that stands on nothing.
    pub(crate) fn plan_of(dockerfile: &str) -> Plan {
        let parsed = dockerfile::parse(&Source::new("Dockerfile", dockerfile.as_bytes()));
        let request = Request::plain(Platform::host());
        plan::lower(&parsed.file, &request, &mut NoImages).unwrap()
    }

    /// The step of this title.
    pub(super) fn id_of(plan: &Plan, title: &str) -> StepId {
        plan.steps.iter().find(|step| step.title == title).unwrap().id
    }

    pub(super) fn started(step: StepId) -> Event {
        Event::Started { step, cause: Cause::FirstRun, origin: Origin(step) }
    }

    pub(super) fn log(step: StepId, text: &str) -> Event {
        Event::Log { step, stream: solver::Stream::Stdout, bytes: text.as_bytes().to_vec() }
    }

    pub(super) fn ran(step: StepId, took: Duration) -> Event {
        let verdict = Verdict::Ran { cause: Cause::FirstRun, origin: Origin(step) };
        finished(step, verdict, took)
    }

    /// One event of each kind, of a plan with a COPY and a RUN; the RUN does not come to its end.
    pub(super) fn all_events(plan: &Plan) -> Vec<Event> {
        let (copy, run) = (id_of(plan, "COPY a /a"), id_of(plan, "RUN make"));
        vec![
            reused(copy),
            started(run),
            log(run, "x\n"),
            Event::Progress { step: run, bytes: 1, total_bytes: 2 },
            Event::Warning { step: run, message: "mind".to_owned() },
        ]
    }

    pub(super) fn reused(step: StepId) -> Event {
        let verdict = Verdict::Reused { by: Reuse::Definition, saved: Duration::from_secs(1) };
        finished(step, verdict, Duration::ZERO)
    }

    fn finished(step: StepId, verdict: Verdict, took: Duration) -> Event {
        let outcome = Outcome { verdict, took, peak_memory_bytes: None };
        Event::Finished { step, outcome, filesystem: Filesystem::default() }
    }
}
