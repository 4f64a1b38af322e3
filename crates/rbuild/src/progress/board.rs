//! The state of a live view: which steps are at work, since when, and what they said last.

use std::collections::BTreeMap;
use std::time::Duration;

use plan::{Plan, StepId};
use solver::{Event, Until, Verdict};

use crate::listing::{human_bytes, human_duration};
use crate::progress::{Shown, shown_steps};
use crate::terminal::{cut, log_line, one_line};

/// Lines of a view, whatever the terminal has: more would only flicker.
const MOST_LINES: usize = 20;

/// Of an unfinished line, as much is kept as any terminal shows.
const LONGEST_LINE: usize = 4 << 10;

/// Lines and columns that may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Room {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// Folds events into a view.
pub(crate) struct Board {
    steps: Vec<Shown>,
    working: BTreeMap<StepId, Working>,
    ran: usize,
    reused: usize,
}

/// A step at work.
struct Working {
    since: Duration,
    waits_until: Option<Until>,
    /// The last whole line it wrote, fit for a terminal.
    last_line: String,
    /// What it wrote since.
    open_line: Vec<u8>,
    /// Moved, and in all.
    bytes: Option<(u64, u64)>,
}

impl Board {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { steps: shown_steps(plan), working: BTreeMap::new(), ran: 0, reused: 0 }
    }

    /// Takes an event in, `now` being the time since the build began. Gives the lines that stay above the view: one for each step
    /// that has run, cut to `columns`, and warnings.
    pub(crate) fn fold(&mut self, event: Event, now: Duration, columns: usize) -> Vec<String> {
        match event {
            Event::Started { step, .. } => {
                self.working(step, now).waits_until = None;
                Vec::new()
            }
            Event::Waiting { step, until } => {
                self.working(step, now).waits_until = Some(until);
                Vec::new()
            }
            Event::Log { step, bytes, .. } => {
                self.working(step, now).log(&bytes);
                Vec::new()
            }
            Event::Progress { step, bytes, total_bytes } => {
                self.working(step, now).bytes = Some((bytes, total_bytes));
                Vec::new()
            }
            Event::Warning { step, message } => {
                vec![format!("{} warning: {}", self.steps[step.index()].label, one_line(&message))]
            }
            Event::Finished { step, outcome, .. } => self.end(step, &outcome, columns).into_iter().collect(),
        }
    }

    fn working(&mut self, step: StepId, now: Duration) -> &mut Working {
        self.working.entry(step).or_insert_with(|| Working {
            since: now,
            waits_until: None,
            last_line: String::new(),
            open_line: Vec::new(),
            bytes: None,
        })
    }

    fn end(&mut self, step: StepId, outcome: &solver::Outcome, columns: usize) -> Option<String> {
        self.working.remove(&step);
        let shown = &self.steps[step.index()];
        if !shown.is_work {
            return None;
        }
        match outcome.verdict {
            Verdict::Reused { .. } => {
                self.reused += 1;
                None
            }
            Verdict::Ran { .. } => {
                self.ran += 1;
                let took = format!("  {}", human_duration(outcome.took));
                let text = format!("{} {}", shown.label, shown.title);
                Some(format!("{}{took}", cut(&text, columns.saturating_sub(took.len() + 1))))
            }
        }
    }

    /// The view: how far the build is, then a line for each step at work, and below it the last line it wrote if there is room.
    pub(crate) fn view(&self, now: Duration, room: Room) -> Vec<String> {
        // The last column stays free, since some terminals go on to the next line after it.
        let columns = room.columns.saturating_sub(1);
        // One line more than the terminal has would scroll its first line away, for good.
        let rows = room.rows.saturating_sub(1).min(MOST_LINES);
        let mut lines = vec![cut(&self.header(now), columns)];
        let free = rows.saturating_sub(1);
        let count = self.working.len();
        let shown = if count > free { free.saturating_sub(1) } else { count };
        let has_logs = count * 2 <= free;
        for (step, working) in self.by_age().into_iter().take(shown) {
            lines.push(self.step_line(step, working, now, columns));
            let log = working.log_tail();
            if has_logs && !log.is_empty() {
                lines.push(cut(&format!("  | {log}"), columns));
            }
        }
        if count > shown && free > 0 {
            lines.push(cut(&format!("… and {} more at work", count - shown), columns));
        }
        lines
    }

    fn header(&self, now: Duration) -> String {
        let all = self.steps.iter().filter(|step| step.is_work).count();
        let left = all.saturating_sub(self.ran + self.reused + self.working.len());
        let counts =
            [(self.reused, "reused"), (self.ran, "done"), (self.working.len(), "at work"), (left, "to go")];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts.map(|(count, what)| format!("{count} {what}")).collect();
        format!("building for {}: {}", human_duration(whole(now)), counts.join(", "))
    }

    /// The longest at work first: those are what the build waits for.
    fn by_age(&self) -> Vec<(StepId, &Working)> {
        let mut steps: Vec<_> = self.working.iter().map(|(id, working)| (*id, working)).collect();
        steps.sort_by_key(|(id, working)| (working.since, *id));
        steps
    }

    fn step_line(&self, step: StepId, working: &Working, now: Duration, columns: usize) -> String {
        let Shown { label, title, .. } = &self.steps[step.index()];
        let mut state = format!("  {}", human_duration(whole(now.saturating_sub(working.since))));
        if let Some((bytes, total)) = working.bytes {
            state = format!("  {} of {}{state}", human_bytes(bytes), human_bytes(total));
        }
        if let Some(until) = working.waits_until {
            let whom = match until {
                Until::SameStepIsDone => "another build",
                Until::CacheIsFree => "a locked cache",
            };
            state = format!("  waits for {whom}{state}");
        }
        let width = columns.saturating_sub(console::measure_text_width(&state));
        cut(&format!("{}{state}", cut(&format!("{label} {title}"), width)), columns)
    }
}

impl Working {
    fn log(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.open_line.len() < LONGEST_LINE {
                self.open_line.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                let line = log_line(&std::mem::take(&mut self.open_line));
                if !line.trim().is_empty() {
                    self.last_line = line;
                }
            }
        }
    }

    /// What it writes at the moment, else its last line.
    fn log_tail(&self) -> String {
        let open = log_line(&self.open_line);
        if open.trim().is_empty() { self.last_line.clone() } else { open }
    }
}

/// Tenths of seconds from the first second on are enough for the eye; below it, none at all.
fn whole(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis() / 100 * 100).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::{id_of, log, plan_of, ran, reused, started};
    use expect_test::{Expect, expect};

    /// Columns for lines that stay.
    const WIDE: usize = 80;

    #[track_caller]
    fn check(board: &Board, seconds: u64, rows: usize, columns: usize, expected: Expect) {
        let lines = board.view(Duration::from_secs(seconds), Room { rows, columns });
        for line in &lines {
            assert!(console::measure_text_width(line) < columns, "{line:?} is wider than {columns}");
        }
        assert!(lines.len() < rows, "{} lines in {rows} rows", lines.len());
        expected.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn steps_at_work_show_their_time_and_their_last_line() {
        let plan = plan_of("FROM scratch\nWORKDIR /a\nCOPY big /\nRUN make all\nRUN test\n");
        let id = |title| id_of(&plan, title);
        let (copy, make) = (id("COPY big /"), id("RUN make all"));
        let mut board = Board::new(&plan);
        let second = Duration::from_secs;
        assert!(board.fold(reused(id("WORKDIR /a")), second(0), WIDE).is_empty());
        board.fold(started(copy), second(0), WIDE);
        board.fold(
            Event::Progress { step: copy, bytes: 120_000_000, total_bytes: 500_000_000 },
            second(1),
            WIDE,
        );
        board.fold(started(make), second(2), WIDE);
        board.fold(log(make, "cc a.c\n\u{1b}[2Kcc b.c\r\ncc c"), second(3), WIDE);
        check(
            &board,
            4,
            24,
            60,
            expect![[r"
            building for 4.0 s: 1 reused, 2 at work, 1 to go
            [stage-0 2/4] COPY big /  120 MB of 500 MB  4.0 s
            [stage-0 3/4] RUN make all  2.0 s
              | cc c"]],
        );
        check(
            &board,
            4,
            24,
            30,
            expect![[r#"
                building for 4.0 s: 1 reused…
                [st…  120 MB of 500 MB  4.0 s
                [stage-0 3/4] RUN mak…  2.0 s
                  | cc c"#]],
        );
        let kept = board.fold(ran(copy, Duration::from_millis(4100)), second(4), WIDE);
        assert_eq!(kept, ["[stage-0 2/4] COPY big /  4.1 s"]);
        let narrow = board.fold(ran(copy, Duration::from_millis(4100)), second(4), 24);
        assert_eq!(narrow, ["[stage-0 2/4] C…  4.1 s"]);
        board.fold(log(make, "\n"), second(5), WIDE);
        check(
            &board,
            5,
            24,
            60,
            expect![[r"
            building for 5.0 s: 1 reused, 2 done, 1 at work
            [stage-0 3/4] RUN make all  3.0 s
              | cc c"]],
        );
    }

    #[test]
    fn many_steps_fit_in_few_rows() {
        let stages: String = (0..60).map(|n| format!("FROM scratch AS s{n}\nRUN make {n}\n")).collect();
        let copies: String = (0..60).map(|n| format!("COPY --from=s{n} / /\n")).collect();
        let plan = plan_of(&format!("{stages}FROM scratch\n{copies}"));
        let mut board = Board::new(&plan);
        for n in 0..60 {
            board.fold(started(id_of(&plan, &format!("RUN make {n}"))), Duration::from_secs(n), WIDE);
        }
        check(
            &board,
            60,
            6,
            50,
            expect![[r"
            building for 1m00s: 60 at work, 60 to go
            [s0 1/1] RUN make 0  1m00s
            [s1 1/1] RUN make 1  59.0 s
            [s2 1/1] RUN make 2  58.0 s
            … and 57 more at work"]],
        );
        assert_eq!(board.view(Duration::from_secs(60), Room { rows: 100, columns: 80 }).len(), MOST_LINES);
        assert_eq!(board.view(Duration::from_secs(60), Room { rows: 2, columns: 80 }).len(), 1);
        assert_eq!(board.view(Duration::from_secs(60), Room { rows: 0, columns: 0 }).len(), 1);
    }

    #[test]
    fn a_step_that_waits_says_for_what() {
        let plan = plan_of("FROM scratch\nRUN make\n");
        let make = id_of(&plan, "RUN make");
        let mut board = Board::new(&plan);
        let until = Until::SameStepIsDone;
        board.fold(Event::Waiting { step: make, until }, Duration::ZERO, WIDE);
        check(
            &board,
            1,
            24,
            80,
            expect![[r"
            building for 1.0 s: 1 at work
            [stage-0 1/1] RUN make  waits for another build  1.0 s"]],
        );
    }
}
