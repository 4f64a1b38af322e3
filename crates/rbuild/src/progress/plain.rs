//! One line for each thing that happens, each with its step's name: for logs.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use plan::{Plan, StepId};
use solver::{Event, Reuse, Until, Verdict};

use crate::listing::{human_bytes, human_duration, tell};
use crate::progress::{Renderer, Shown, shown_steps};
use crate::terminal::{log_line, one_line};

/// How often a step says how many bytes it has moved.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// A line without an end is shown in pieces of this size, so that memory does not grow with it.
const LONGEST_LINE: usize = 16 << 10;

/// Writes to standard error.
pub(crate) struct Plain {
    began: Instant,
    lines: Mutex<Lines>,
}

impl Plain {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { began: Instant::now(), lines: Mutex::new(Lines::new(plan)) }
    }
}

impl Renderer for Plain {
    fn event(&self, event: Event) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // Written under the lock: lines of one step stay in order.
        for line in lines.fold(event, self.began.elapsed()) {
            tell(line);
        }
    }

    fn finish(&self) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.end_all().iter().for_each(tell);
    }
}

/// Folds events into lines.
pub(crate) struct Lines {
    steps: Vec<Shown>,
    /// The beginnings of lines that have not ended yet, by step.
    open: BTreeMap<StepId, Vec<u8>>,
    /// When each step's bytes were shown last.
    progress: BTreeMap<StepId, Duration>,
}

impl Lines {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { steps: shown_steps(plan), open: BTreeMap::new(), progress: BTreeMap::new() }
    }

    /// The lines that an event gives, `now` being the time since the build began.
    pub(crate) fn fold(&mut self, event: Event, now: Duration) -> Vec<String> {
        match event {
            Event::Started { step, .. } => {
                self.progress.insert(step, now);
                vec![self.line(step, &self.steps[step.index()].title)]
            }
            Event::Waiting { step, until } => vec![self.line(
                step,
                match until {
                    Until::SameStepIsDone => "waits: another build runs the same step",
                    Until::CacheIsFree => "waits: another step has locked a cache that it mounts",
                },
            )],
            Event::Log { step, bytes, .. } => self.log(step, &bytes),
            Event::Progress { step, bytes, total_bytes } => self.moved(step, bytes, total_bytes, now),
            Event::Warning { step, message } => {
                vec![self.line(step, &format!("warning: {}", one_line(&message)))]
            }
            Event::Finished { step, outcome, .. } => {
                let mut lines: Vec<String> = self.end_line(step).into_iter().collect();
                lines.extend(self.end(step, &outcome));
                lines
            }
        }
    }

    /// What is left of lines that never ended, for a build that stops in their midst.
    fn end_all(&mut self) -> Vec<String> {
        let steps: Vec<StepId> = self.open.keys().copied().collect();
        steps.into_iter().filter_map(|step| self.end_line(step)).collect()
    }

    fn end(&self, step: StepId, outcome: &solver::Outcome) -> Option<String> {
        let shown = &self.steps[step.index()];
        match outcome.verdict {
            Verdict::Reused { by: Reuse::NotNeeded, .. } => None,
            Verdict::Reused { .. } if !shown.is_work => None,
            Verdict::Reused { .. } => Some(self.line(step, &format!("reused: {}", shown.title))),
            Verdict::Ran { .. } => {
                Some(self.line(step, &format!("done in {}", human_duration(outcome.took))))
            }
        }
    }

    fn log(&mut self, step: StepId, bytes: &[u8]) -> Vec<String> {
        let mut open = self.open.remove(&step).unwrap_or_default();
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            open.extend_from_slice(part);
            if open.ends_with(b"\n") || open.len() >= LONGEST_LINE {
                lines.push(self.log_line(step, &open));
                open.clear();
            }
        }
        if !open.is_empty() {
            self.open.insert(step, open);
        }
        lines
    }

    fn moved(&mut self, step: StepId, bytes: u64, total_bytes: u64, now: Duration) -> Vec<String> {
        let last = self.progress.entry(step).or_insert(now);
        if now.saturating_sub(*last) < PROGRESS_EVERY {
            return Vec::new();
        }
        *last = now;
        vec![self.line(step, &format!("{} of {}", human_bytes(bytes), human_bytes(total_bytes)))]
    }

    fn end_line(&mut self, step: StepId) -> Option<String> {
        self.open.remove(&step).map(|rest| self.log_line(step, &rest))
    }

    fn log_line(&self, step: StepId, bytes: &[u8]) -> String {
        self.line(step, format!("| {}", log_line(bytes)).trim_end())
    }

    fn line(&self, step: StepId, text: &str) -> String {
        format!("{} {text}", self.steps[step.index()].label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::{id_of, log, plan_of, ran, reused, started};
    use expect_test::expect;

    #[test]
    fn every_line_names_its_stage_and_step() {
        let plan = plan_of(
            "FROM scratch AS lib\nRUN make lib\nFROM scratch\nWORKDIR /app\nCOPY --from=lib /lib /lib\nRUN make\n",
        );
        let id = |title| id_of(&plan, title);
        let (library, copy, make) = (id("RUN make lib"), id("COPY --from=lib /lib /lib"), id("RUN make"));
        let moved = |step, bytes| Event::Progress { step, bytes, total_bytes: 500_000_000 };
        let mut lines = Lines::new(&plan);
        let mut shown = Vec::new();
        for (second, event) in [
            (0, reused(id("WORKDIR /app"))),
            (0, started(library)),
            (1, log(library, "cc a.c\ncc ")),
            (1, Event::Warning { step: library, message: "old\nkernel".to_owned() }),
            (2, log(library, "b.c\n\u{1b}[31mred\u{1b}[0m\n50%\r100%\n\nno end")),
            (3, ran(library, Duration::from_millis(3250))),
            (3, started(copy)),
            (4, moved(copy, 1)),
            (9, moved(copy, 250_000_000)),
            (10, moved(copy, 300_000_000)),
            (11, ran(copy, Duration::from_secs(8))),
            (11, Event::Waiting { step: make, until: Until::SameStepIsDone }),
        ] {
            shown.extend(lines.fold(event, Duration::from_secs(second)));
        }
        expect![[r"
            [stage-1 1/3] reused: WORKDIR /app
            [lib 1/1] RUN make lib
            [lib 1/1] | cc a.c
            [lib 1/1] warning: old kernel
            [lib 1/1] | cc b.c
            [lib 1/1] | red
            [lib 1/1] | 100%
            [lib 1/1] |
            [lib 1/1] | no end
            [lib 1/1] done in 3.2 s
            [stage-1 2/3] COPY --from=lib /lib /lib
            [stage-1 2/3] 250 MB of 500 MB
            [stage-1 2/3] done in 8.0 s
            [stage-1 3/3] waits: another build runs the same step"]]
        .assert_eq(&shown.join("\n"));
    }

    #[test]
    fn a_line_that_a_failure_cuts_off_is_shown() {
        let plan = plan_of("FROM scratch\nRUN make\n");
        let make = id_of(&plan, "RUN make");
        let mut lines = Lines::new(&plan);
        assert!(lines.fold(log(make, "half a line"), Duration::ZERO).is_empty());
        assert_eq!(lines.end_all(), ["[stage-0 1/1] | half a line"]);
        assert!(lines.end_all().is_empty());
    }

    #[test]
    fn an_endless_line_is_shown_in_pieces() {
        let plan = plan_of("FROM scratch\nRUN make\n");
        let make = id_of(&plan, "RUN make");
        let mut lines = Lines::new(&plan);
        let long = "x".repeat(LONGEST_LINE);
        assert_eq!(lines.fold(log(make, &long), Duration::ZERO).len(), 1);
        assert!(lines.end_all().is_empty());
    }
}
