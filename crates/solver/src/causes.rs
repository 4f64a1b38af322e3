//! Why a step must run: what is different since its own last run, in itself or in any step it stands on.
//!
//! The parts of a step's key are compared with the trace of its last run. If only the outcome of another step is different, the search goes
//! on there, with the trace of *that step as it was then*, until it comes to a step that is different itself: a file, an argument, an
//! image. That is the cause to tell, and the step it was found at is its origin.

use cache::trace::is_in_stage;
use cache::{Cause, Change, FileHow, How, PartName, PartVerdict, Trace};
use context::FileDigests;
use context::file_digests::Changed;
use plan::{Op, Plan, Step, StepId};
use sys::RootfsPath;

use crate::event::{Origin, Verdict};
use crate::inputs::Prepared;
use crate::schedule::StepReport;
use crate::{Services, StepError};

/// What is known when a step is found to have no result.
pub(crate) struct Causes<'c> {
    pub(crate) plan: &'c Plan,
    pub(crate) services: &'c Services<'c>,
    /// By step index.
    pub(crate) prepared: &'c [Prepared],
    /// What became of a step in this build, if it is finished.
    pub(crate) report: &'c dyn Fn(StepId) -> Option<&'c StepReport>,
}

/// Why a step runs.
pub(crate) struct Explained {
    pub(crate) cause: Cause,
    pub(crate) origin: Origin,
    /// Its own parts beside those of its last run.
    pub(crate) parts: Vec<PartVerdict>,
}

impl Causes<'_> {
    /// Compares a step with its last run.
    pub(crate) fn explain(&self, step: &Step) -> Result<Explained, StepError> {
        let here = Origin(step.id);
        let earlier = self.services.cache.last_trace(self.plan, step)?;
        let parts = self.compare(step, &earlier.clone().unwrap_or_default());
        if !self.services.cache_mode.allows(step) {
            return Ok(Explained { cause: Cause::CacheOff, origin: here, parts });
        }
        let Some(earlier) = earlier else {
            return Ok(Explained { cause: Cause::FirstRun, origin: here, parts });
        };
        let (cause, origin) = match self.changes_since(step, &earlier)? {
            Some((changes, origin)) => (Cause::Changed(changes), origin),
            None if self.services.cache.has_aged(&self.prepared[step.id.index()].definition)? => {
                (Cause::TooOld, here)
            }
            None => self.cause_of_ran_input(step).unwrap_or((Cause::ResultGone, here)),
        };
        Ok(Explained { cause, origin, parts })
    }

    fn compare(&self, step: &Step, earlier: &Trace) -> Vec<PartVerdict> {
        self.services.cache.compare(&self.prepared[step.id.index()].parts, earlier)
    }

    /// The nearest differences and where they were found; `None` if there are none.
    fn changes_since(
        &self,
        step: &Step,
        earlier: &Trace,
    ) -> Result<Option<(Vec<Change>, Origin)>, StepError> {
        let verdicts = self.compare(step, earlier);
        let own = self.own_changes(step, &verdicts, earlier)?;
        if !own.is_empty() {
            return Ok(Some((own, Origin(step.id))));
        }
        let prepared = &self.prepared[step.id.index()];
        let mut unexplained = None;
        for (name, input) in &prepared.inputs {
            let name = name.to_string();
            let is_changed = verdicts.iter().any(|verdict| verdict.name == name && verdict.how.is_some());
            if !is_changed {
                continue;
            }
            if let Some(found) = self.input_changes(*input, &name, step.id, earlier)? {
                return Ok(Some(found));
            }
            unexplained = Some((vec![Change::Part { name, how: How::Changed }], Origin(step.id)));
        }
        Ok(unexplained)
    }

    /// What is different in a step that `upon` stands on, since the run of `upon` that `earlier` tells of.
    fn input_changes(
        &self,
        input: StepId,
        name: &str,
        upon: StepId,
        earlier: &Trace,
    ) -> Result<Option<(Vec<Change>, Origin)>, StepError> {
        if let Some(found) = self.cause_in_this_build(input) {
            return Ok(Some(found));
        }
        let step = self.plan.step(input);
        let then = earlier.inputs.iter().find(|(then, _)| then == name).map(|(_, key)| key);
        let trace = then.map(|key| self.services.cache.trace(key)).transpose()?.flatten();
        // Images leave no traces.
        let Some(trace) = trace else {
            let Op::Image(image) = &step.op else { return Ok(None) };
            let name = format!("image {}", image.reference.familiar());
            return Ok(Some((vec![Change::Part { name, how: How::Changed }], Origin(input))));
        };
        if let Some((change, at)) = self.instruction_change(step, &trace)? {
            return Ok(Some((vec![change], Origin(at.unwrap_or(upon)))));
        }
        self.changes_since(step, &trace)
    }

    /// The cause that was found for a step that ran in this build.
    fn cause_in_this_build(&self, id: StepId) -> Option<(Vec<Change>, Origin)> {
        let Verdict::Ran { cause, origin } = &(self.report)(id)?.outcome.verdict else { return None };
        match cause {
            Cause::Changed(changes) => Some((changes.clone(), *origin)),
            Cause::FirstRun => Some((vec![new_instruction()], Origin(id))),
            Cause::CacheOff | Cause::TooOld | Cause::ResultGone => None,
        }
    }

    /// Whether an instruction has come, or one has gone, where a step stood on another one than now; then where to look for it: at `step`,
    /// or, for one that is gone, nowhere.
    fn instruction_change(
        &self,
        step: &Step,
        then: &Trace,
    ) -> Result<Option<(Change, Option<StepId>)>, StepError> {
        if then.title == step.title {
            return Ok(None);
        }
        let is_known = self.services.cache.is_known(self.plan, step)?;
        let stands_still = is_in_stage(self.plan, step, &then.title);
        let kind = |title: &str| title.split_whitespace().next().map(str::to_ascii_uppercase);
        let is_edited = !is_known && !stands_still && kind(&then.title) == kind(&step.title);
        let begins_stage = matches!(step.op, Op::Image(_) | Op::Scratch);
        Ok(if is_edited {
            None
        } else if (is_known || begins_stage) && !stands_still {
            Some((Change::Part { name: then.title.clone(), how: How::Removed }, None))
        } else {
            Some((new_instruction(), Some(step.id)))
        })
    }

    /// The differences of the step itself: its parts, then its files.
    fn own_changes(
        &self,
        step: &Step,
        verdicts: &[PartVerdict],
        earlier: &Trace,
    ) -> Result<Vec<Change>, StepError> {
        let prepared = &self.prepared[step.id.index()];
        let (mut own, mut files) = (Vec::new(), Vec::new());
        for PartVerdict { name, how } in verdicts {
            let Some(how) = how else { continue };
            let change = Change::Part { name: name.clone(), how: *how };
            match prepared.parts.iter().find(|(part, _)| part.to_string() == *name) {
                Some((PartName::Files(_), _)) => files.push(change),
                Some((part, _)) if part.is_input() && *how == How::Changed => {}
                _ => own.push(change),
            }
        }
        if !files.is_empty() {
            let named = self.file_changes(prepared, earlier)?;
            // The files say it better than the digest over all of them.
            let all = if named.is_empty() { files } else { named };
            // With another `--chmod`, other modes count, and that is no change of the files.
            let is_mode = |change: &Change| matches!(change, Change::File { how: FileHow::Mode { .. }, .. });
            let has_own = !own.is_empty();
            own.extend(all.into_iter().filter(|change| !(has_own && is_mode(change))));
        }
        Ok(own)
    }

    fn file_changes(&self, prepared: &Prepared, earlier: &Trace) -> Result<Vec<Change>, StepError> {
        let mut changes = Vec::new();
        for (source, then) in prepared.contexts.iter().zip(&earlier.files) {
            let Ok(then) = FileDigests::from_bytes(then) else { continue };
            let now = source.selection.file_digests(source.counted)?;
            for change in now.changes_since(&then) {
                let how = match change.what {
                    Changed::Removed => self.how_removed(prepared, &change.path),
                    Changed::Added => FileHow::Added,
                    Changed::Type => FileHow::Type,
                    Changed::Content => FileHow::Content,
                    Changed::Mode { from, to } => FileHow::Mode { from, to },
                };
                let path = String::from_utf8_lossy(change.path.as_bytes()).into_owned();
                changes.push(Change::File { path: if path.is_empty() { ".".to_owned() } else { path }, how });
            }
        }
        // An attribute of a directory says less than a file in it.
        changes.sort_by_key(|change| matches!(change, Change::File { how: FileHow::Mode { .. }, .. }));
        Ok(changes)
    }

    /// Whether a file is gone, or only hidden.
    fn how_removed(&self, prepared: &Prepared, path: &RootfsPath) -> FileHow {
        let contexts =
            prepared.contexts.iter().filter_map(|source| self.services.contexts.get(&source.context));
        let rule = contexts.into_iter().find_map(|context| match context.ignore().matches(path) {
            context::Verdict::Excluded(rule) => Some(rule.to_string()),
            context::Verdict::Included => None,
        });
        rule.map_or(FileHow::Removed, |by| FileHow::Ignored { by })
    }

    /// For a step that is defined as before: the cause of an input that ran in this build, and whose outcome must be another.
    fn cause_of_ran_input(&self, step: &Step) -> Option<(Cause, Origin)> {
        let inputs = step.op.reads().into_iter().chain(step.op.parent());
        inputs.into_iter().find_map(|id| match &(self.report)(id)?.outcome.verdict {
            Verdict::Ran { cause, origin } => Some((cause.clone(), *origin)),
            Verdict::Reused { .. } => None,
        })
    }
}

fn new_instruction() -> Change {
    Change::Part { name: "instruction".to_owned(), how: How::Added }
}
