//! The last lines of a build: what ran and why, what was reused, how long it took and how much time that saved.

use std::time::Duration;

use cache::Cause;
use image::Assembled;
use plan::{Plan, Step};
use solver::{Solved, StepReport, Verdict};

use crate::build::Dockerfile;
use crate::build::report::origin_of;
use crate::build::request::Asked;
use crate::listing::{human_bytes, human_duration, tell};
use crate::progress::{is_work, place_of};
use crate::terminal::{cut, one_line};

/// Steps told one by one; `explain` shows all.
const MOST_LINES: usize = 20;

/// Columns of an instruction.
const TITLE_COLUMNS: usize = 60;

/// Columns of the widest instruction that others are aligned to.
const ALIGNED_COLUMNS: usize = 40;

/// Writes to standard error.
pub(crate) fn print(
    plan: &Plan,
    solved: &Solved,
    assembled: &[Assembled],
    asked: &Asked,
    dockerfile: &Dockerfile,
    took: Duration,
) {
    if !asked.progress.is_for_people() {
        return;
    }
    let place = |step: &Step| place_of(step, &dockerfile.source);
    lines(plan, &solved.reports, &place, took).iter().for_each(tell);
    let names: Vec<String> = asked.all_names().iter().map(oci::Reference::familiar).collect();
    let names = if names.is_empty() { String::new() } else { format!(" {}", names.join(" ")) };
    if let [image] = assembled {
        tell(format_args!("image {}{names}", image.id));
        return;
    }
    for image in assembled {
        tell(format_args!("image {} for {}{names}", image.id, image.config.platform()));
    }
}

/// Everything but the image's name.
fn lines(
    plan: &Plan,
    reports: &[StepReport],
    place: &dyn Fn(&Step) -> String,
    took: Duration,
) -> Vec<String> {
    let steps = || plan.steps.iter().zip(reports).filter(|(step, _)| is_work(step));
    let ran = |wanted: fn(&Cause) -> bool| {
        steps().filter(
            move |(_, report)| matches!(&report.outcome.verdict, Verdict::Ran { cause, .. } if wanted(cause)),
        )
    };
    let told: Vec<(String, String)> = ran(is_told_alone)
        .map(|(step, report)| (cut(&one_line(&step.title), TITLE_COLUMNS), why(step, report, plan, place)))
        .collect();
    let mut lines = aligned(&told);
    let first = ran(|cause| *cause == Cause::FirstRun).count();
    if first > 0 {
        lines.push(format!("{} ran for the first time", steps_text(first)));
    }
    let off = ran(|cause| *cause == Cause::CacheOff).count();
    if off > 0 {
        lines.push(format!("{} ran because the cache is off", steps_text(off)));
    }
    let aged = ran(|cause| *cause == Cause::TooOld).count();
    if aged > 0 {
        lines.push(format!("{} ran because of `--cache-ttl`", steps_text(aged)));
    }
    let reused = steps().filter_map(|(_, report)| match report.outcome.verdict {
        Verdict::Reused { saved, .. } => Some(saved),
        Verdict::Ran { .. } => None,
    });
    let (count, saved) = reused.fold((0, Duration::ZERO), |(count, sum), saved| (count + 1, sum + saved));
    lines.push(total(ran(|_| true).count(), count, took, saved));
    lines
}

/// Whether a cause says something about the step, and not only about the build.
fn is_told_alone(cause: &Cause) -> bool {
    match cause {
        Cause::Changed(_) | Cause::ResultGone => true,
        Cause::FirstRun | Cause::CacheOff | Cause::TooOld => false,
    }
}

/// `ran: package-lock.json changed (COPY Dockerfile:4), 3.2 s`
fn why(step: &Step, report: &StepReport, plan: &Plan, place: &dyn Fn(&Step) -> String) -> String {
    let verdict = &report.outcome.verdict;
    let Verdict::Ran { cause, .. } = verdict else { return String::new() };
    let at = origin_of(step, verdict, plan).map(|origin| {
        let keyword = origin.title.split_whitespace().next().unwrap_or_default();
        format!(" ({keyword} {})", place(origin))
    });
    let took = human_duration(report.outcome.took);
    let memory =
        report.outcome.peak_memory_bytes.map(|bytes| format!(" with {} of memory", human_bytes(bytes)));
    let (cause, at) = (one_line(&cause.to_string()), at.unwrap_or_default());
    format!("ran: {cause}{at}, {took}{}", memory.unwrap_or_default())
}

/// At most [`MOST_LINES`], the reasons below each other as far as the instructions are not too different.
fn aligned(told: &[(String, String)]) -> Vec<String> {
    let width = |title: &str| console::measure_text_width(title);
    let widths = told.iter().take(MOST_LINES).map(|(title, _)| width(title));
    let column = widths.filter(|width| *width <= ALIGNED_COLUMNS).max().unwrap_or(0);
    let padded = |(title, why): &(String, String)| {
        format!("{title}{}  {why}", " ".repeat(column.saturating_sub(width(title))))
    };
    let mut lines: Vec<String> = told.iter().take(MOST_LINES).map(padded).collect();
    if told.len() > MOST_LINES {
        lines.push(format!("and {} more: `rbuild explain` shows all", told.len() - MOST_LINES));
    }
    lines
}

fn steps_text(count: usize) -> String {
    if count == 1 { "1 step".to_owned() } else { format!("{count} steps") }
}

fn total(ran: usize, reused: usize, took: Duration, saved: Duration) -> String {
    let what = match (ran, reused) {
        (0, 0) => "nothing to do".to_owned(),
        (0, reused) => format!("{} reused", steps_text(reused)),
        (ran, 0) => format!("{} ran", steps_text(ran)),
        (ran, reused) => format!("{ran} of {} ran", steps_text(ran + reused)),
    };
    let saved = match saved {
        Duration::ZERO => String::new(),
        saved => format!(", {} saved", human_duration(saved)),
    };
    format!("{what} in {}{saved}", human_duration(took))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::plan_of;
    use cache::{Change, FileHow};
    use expect_test::{Expect, expect};
    use oci::Digest;
    use plan::StepId;
    use solver::{Origin, Outcome, Reuse};
    use store::RecordKey;

    fn report(verdict: Verdict) -> StepReport {
        let outcome = Outcome { verdict, took: Duration::from_millis(3200), peak_memory_bytes: None };
        StepReport { outcome, parts: Vec::new(), log: None, key: RecordKey::new(Digest::of("a step")) }
    }

    fn reused() -> StepReport {
        report(Verdict::Reused { by: Reuse::Definition, saved: Duration::from_secs(20) })
    }

    fn ran(cause: Cause, origin: StepId) -> StepReport {
        report(Verdict::Ran { cause, origin: Origin(origin) })
    }

    fn changed(path: &str) -> Cause {
        Cause::Changed(vec![Change::File { path: path.to_owned(), how: FileHow::Content }])
    }

    #[track_caller]
    fn check(dockerfile: &str, verdict: impl Fn(&Step) -> StepReport, expected: Expect) {
        let plan = plan_of(dockerfile);
        let reports: Vec<StepReport> = plan.steps.iter().map(verdict).collect();
        let place = |step: &Step| format!("Dockerfile:{}", step.id.index() + 1);
        expected.assert_eq(&lines(&plan, &reports, &place, Duration::from_millis(6500)).join("\n"));
    }

    const NODE: &str =
        "FROM scratch\nWORKDIR /app\nRUN apk add make\nCOPY package*.json ./\nRUN npm ci\nCOPY . .\n";

    #[test]
    fn a_step_that_ran_says_why_on_one_line() {
        let plan = plan_of(NODE);
        let copy = plan.steps.iter().find(|step| step.title.starts_with("COPY package")).unwrap().id;
        let verdict = |step: &Step| {
            if step.id < copy { reused() } else { ran(changed("package-lock.json"), copy) }
        };
        check(
            NODE,
            verdict,
            expect![[r"
            COPY package*.json ./  ran: package-lock.json changed, 3.2 s
            RUN npm ci             ran: package-lock.json changed (COPY Dockerfile:4), 3.2 s
            COPY . .               ran: package-lock.json changed (COPY Dockerfile:4), 3.2 s
            3 of 5 steps ran in 6.5 s, 40.0 s saved"]],
        );
    }

    #[test]
    fn a_step_says_how_much_memory_it_took_if_anybody_counted() {
        let verdict = |step: &Step| {
            let mut report = ran(changed("a"), step.id);
            report.outcome.peak_memory_bytes = Some(3 << 20);
            report
        };
        check(
            "FROM scratch\nRUN make\n",
            verdict,
            expect![[r"
            RUN make  ran: a changed, 3.2 s with 3.1 MB of memory
            1 step ran in 6.5 s"]],
        );
    }

    #[test]
    fn what_all_steps_share_is_told_once() {
        check(
            NODE,
            |step| ran(Cause::FirstRun, step.id),
            expect![[r"
            5 steps ran for the first time
            5 steps ran in 6.5 s"]],
        );
        check(
            NODE,
            |step| ran(Cause::CacheOff, step.id),
            expect![[r"
            5 steps ran because the cache is off
            5 steps ran in 6.5 s"]],
        );
        check(NODE, |_| reused(), expect!["5 steps reused in 6.5 s, 1m40s saved"]);
    }

    #[test]
    fn a_large_plan_has_a_short_summary() {
        let steps: String = (0..60)
            .map(|n| format!("RUN make part {n} of a program with a very long name and more\n"))
            .collect();
        let plan = plan_of(&format!("FROM scratch\n{steps}"));
        let reports: Vec<StepReport> = plan.steps.iter().map(|step| ran(changed("a"), step.id)).collect();
        let lines = lines(&plan, &reports, &|_| "Dockerfile:1".to_owned(), Duration::from_secs(1));
        assert_eq!(lines.len(), MOST_LINES + 2);
        assert_eq!(lines[MOST_LINES], "and 40 more: `rbuild explain` shows all");
        assert!(
            lines[0].starts_with("RUN make part 0 of a program with a very long name and more"),
            "{}",
            lines[0]
        );
    }
}
