//! One line for each thing that happens, each with its step's name: for logs.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use plan::{Plan, StepId};
use solver::{Event, Reuse, Verdict};

use crate::environment::Environment;
use crate::listing::human_duration;
use crate::progress::{Renderer, step_label};

/// Writes to standard error.
pub(crate) struct Plain<'p> {
    plan: &'p Plan,
    /// The beginnings of lines that have not ended yet, by step.
    open_lines: Mutex<BTreeMap<StepId, Vec<u8>>>,
}

impl<'p> Plain<'p> {
    pub(crate) fn new(plan: &'p Plan, _environment: &Environment) -> Self {
        Self { plan, open_lines: Mutex::default() }
    }

    fn line(&self, step: StepId, text: &str) {
        eprintln!("{} {text}", step_label(self.plan.step(step)));
    }

    fn log(&self, step: StepId, bytes: &[u8]) {
        let mut open = self.open_lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = open.entry(step).or_default();
        for part in bytes.split_inclusive(|&b| b == b'\n') {
            line.extend_from_slice(part);
            if line.ends_with(b"\n") {
                self.line(step, &format!("| {}", String::from_utf8_lossy(line).trim_end()));
                line.clear();
            }
        }
    }

    fn end_line(&self, step: StepId) {
        let rest = self.open_lines.lock().unwrap_or_else(PoisonError::into_inner).remove(&step);
        if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
            self.line(step, &format!("| {}", String::from_utf8_lossy(&rest).trim_end()));
        }
    }
}

impl Renderer for Plain<'_> {
    fn event(&self, event: Event) {
        match event {
            Event::Started { step, .. } => self.line(step, &self.plan.step(step).title),
            Event::Waiting { step } => self.line(step, "waits: another build runs the same step"),
            Event::Log { step, bytes, .. } => self.log(step, &bytes),
            Event::Progress { .. } => {}
            Event::Warning { step, message } => self.line(step, &format!("warning: {message}")),
            Event::Finished { step, outcome } => {
                self.end_line(step);
                let title = &self.plan.step(step).title;
                match outcome.verdict {
                    Verdict::Reused { by: Reuse::NotNeeded, .. } => {}
                    Verdict::Reused { .. } => self.line(step, &format!("reused: {title}")),
                    Verdict::Ran { .. } => {
                        self.line(step, &format!("done in {}", human_duration(outcome.took)))
                    }
                }
            }
        }
    }

    fn finish(&self) {}
}
