//! The second pass: whatever is left, each step as soon as its inputs are done.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cache::{Keys, PartVerdict, RecordedLayer, StepRecord, short_key};
use oci::Digest;
use plan::{ContextName, Linkage, Mount, Op, Plan, Source, Step, StepId};
use sandbox::Sandboxes;
use store::{Layer, LogId, RecordKey, StepLock};
use sys::RootfsPath;
use sys::root::Time;

use crate::adoption;
use crate::causes::{Causes, Explained};
use crate::copy::{self, CopyContext, Wanted};
use crate::error::SolveError;
use crate::event::{Event, Outcome, Reuse, Stream, Until, Verdict};
use crate::filesystem::Filesystem;
use crate::inputs::context_mounts;
use crate::lookup::{Found, Lookup, at, look_up};
use crate::remote;
use crate::run::{self, Caches, RunContext, Sources};
use crate::services::Cancel;
use crate::{Services, StepError, import, workdir};

/// The outcome of a solve.
#[derive(Debug)]
pub struct Solved {
    /// The filesystem of each output.
    pub filesystems: Vec<Filesystem>,
    /// When each step's layer was made, RFC 3339, by step index; `None` for steps without a layer of their own, or whose layer
    /// was not needed.
    pub created: Vec<Option<String>>,
    /// What became of each step, by step index.
    pub reports: Vec<StepReport>,
}

/// What became of one step.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// How it ended.
    pub outcome: Outcome,
    /// The parts of its key beside those of its nearest earlier run; for a reused step, all the same.
    pub parts: Vec<PartVerdict>,
    /// Its log.
    pub log: Option<LogId>,
    /// What its record lies under, if it has one.
    pub key: RecordKey,
}

/// Executes a plan.
///
/// # Errors
/// [`SolveError`]: the first step that failed. What had succeeded is recorded all the same.
pub fn solve(plan: &Plan, services: &Services<'_>) -> Result<Solved, SolveError> {
    let solver = Solver::new(plan, services, None)?;
    solver.cancelled_with_services(|| solver.run_all())?;
    solver.trace_imported()?;
    Ok(solver.solved())
}

fn open_runs(plan: &Plan, found: &[Found]) -> usize {
    let is_open = |(step, found): (&Step, &Found)| matches!((&step.op, found), (Op::Run(_), Found::Open));
    plan.steps.iter().zip(found).filter(|pair| is_open(*pair)).count()
}

/// Which layers will be mounted, by step index: those below a RUN, those mounted into one, and those files are copied from.
fn wanted_forms(plan: &Plan) -> Vec<Wanted> {
    let mut wanted = vec![Wanted::Tar; plan.steps.len()];
    for step in &plan.steps {
        let looks_into: Vec<StepId> = match &step.op {
            Op::Run(_) => step.op.reads(),
            Op::Copy(copy) => copy.from.step().into_iter().chain(copy.fetched()).collect(),
            _ => Vec::new(),
        };
        for id in looks_into.into_iter().flat_map(|id| plan.chain(id)) {
            wanted[id.index()] = Wanted::Tree;
        }
    }
    wanted
}

/// A finished step.
#[derive(Debug)]
struct Done {
    filesystem: Filesystem,
    report: StepReport,
    upstream: Upstream,
}

/// What a thread that works on a step has to tell.
enum Told {
    /// The step's outcome.
    Done(StepId, Done),
    /// The thread has nothing more to do; why the step, or recording it, failed.
    Ended(StepId, Result<(), StepError>),
}

/// Tells that a thread has nothing more to do when it is dropped.
struct End<'t> {
    id: StepId,
    to: &'t Sender<Told>,
    result: Result<(), StepError>,
}

impl End<'_> {
    fn tell(&self, told: Told) {
        self.to.send(told).expect("the receiver outlives the scope's threads");
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Ok(()));
        self.tell(Told::Ended(self.id, result));
    }
}

/// A step that was worked on.
struct Worked {
    done: Done,
    unrecorded: Option<Unrecorded>,
    /// Held until the record is written.
    lock: Option<StepLock>,
}

/// What is still to be written down of a step.
struct Unrecorded {
    keys: Keys,
    record: StepRecord,
}

/// How long steps took when they ran, in milliseconds, by their short keys.
type Upstream = BTreeMap<String, u64>;

/// How long a step took when it ran, in milliseconds.
fn millis_of(report: &StepReport) -> u64 {
    let took = match report.outcome.verdict {
        // Nothing takes no time: 0 is for what has never run.
        Verdict::Ran { .. } => report.outcome.took.max(Duration::from_millis(1)),
        Verdict::Reused { saved, .. } => saved,
    };
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

/// A solve that is going on.
pub(crate) struct Solver<'s> {
    pub(crate) plan: &'s Plan,
    pub(crate) services: &'s Services<'s>,
    lookup: Lookup,
    /// The step that is not executed, although everything it needs is.
    held: Option<StepId>,
    /// Written once each.
    steps: Vec<OnceLock<Done>>,
    wanted: Vec<Wanted>,
    /// How many steps use each one's result, by step index.
    consumers: Vec<usize>,
    tokens: Tokens,
    /// How many RUNs may still have to be run, beside those that are worked on.
    runs_left: AtomicUsize,
    pub(crate) cancel: Arc<Cancel>,
    sandboxes: OnceLock<Sandboxes>,
    /// Held while they are opened: there is one owner of sandboxes, and a second one would remove its cgroups when it is dropped.
    opening: Mutex<()>,
}

impl<'s> Solver<'s> {
    /// Looks up what is recorded; `held` is prepared for and left alone.
    pub(crate) fn new(
        plan: &'s Plan,
        services: &'s Services<'s>,
        held: Option<StepId>,
    ) -> Result<Self, SolveError> {
        if services.cancel.is_cancelled() {
            return Err(SolveError::Cancelled);
        }
        let lookup = look_up(plan, services, held).map_err(|error| {
            // What fails once the person has ended the build fails for that.
            if services.cancel.is_cancelled() { SolveError::Cancelled } else { error }
        })?;
        Ok(Self {
            plan,
            services,
            held,
            steps: lookup.found.iter().map(|_| OnceLock::new()).collect(),
            wanted: wanted_forms(plan),
            consumers: adoption::consumers(plan, &lookup.found),
            tokens: Tokens::new(services.jobs),
            runs_left: AtomicUsize::new(open_runs(plan, &lookup.found)),
            cancel: Arc::default(),
            sandboxes: OnceLock::new(),
            opening: Mutex::new(()),
            lookup,
        })
    }

    /// Works for as long as nobody outside cancels.
    pub(crate) fn cancelled_with_services<T>(&self, work: impl FnOnce() -> T) -> T {
        let cancel = Arc::clone(&self.cancel);
        let _hook = self.services.cancel.hook(move || cancel.cancel());
        work()
    }
}

impl Solver<'_> {
    pub(crate) fn run_all(&self) -> Result<(), SolveError> {
        let mut open: VecDeque<StepId> = VecDeque::new();
        for (step, found) in self.plan.steps.iter().zip(&self.lookup.found) {
            match found {
                _ if self.held == Some(step.id) => {}
                Found::Open | Found::Linked { .. } => open.push_back(step.id),
                found => self.finish_found(step, found),
            }
        }
        std::thread::scope(|scope| {
            let (to, told) = channel();
            let mut running = 0;
            let mut failure = None;
            loop {
                while failure.is_none() && !self.cancel.is_cancelled() {
                    let Some(at) = open.iter().position(|id| self.is_ready(*id)) else { break };
                    let Some(id) = open.remove(at) else { break };
                    running += 1;
                    let to = to.clone();
                    scope.spawn(move || self.work_and_tell(id, &to));
                }
                if running == 0 {
                    break;
                }
                match told.recv().expect("this function holds a sender itself") {
                    Told::Done(id, done) => self.finish(id, done),
                    Told::Ended(id, result) => {
                        running -= 1;
                        if let Err(error) = result {
                            // The first failure is the one to tell; those it causes are cancellations.
                            failure.get_or_insert((id, error));
                            self.cancel.cancel();
                        }
                    }
                }
            }
            match failure {
                // What fails once the person has ended the build fails for that.
                _ if self.services.cancel.is_cancelled() => Err(SolveError::Cancelled),
                Some((_, StepError::Cancelled)) => Err(SolveError::Cancelled),
                Some((step, error)) => {
                    let result = |done: &OnceLock<Done>| done.get().map(|done| done.filesystem.clone());
                    let done = self.steps.iter().map(result).collect();
                    Err(SolveError::Step { step, error: Box::new(error), done })
                }
                None => Ok(()),
            }
        })
    }

    /// Works on a step, tells its outcome as soon as others can go on with it, and only then records it.
    fn work_and_tell(&self, id: StepId, to: &Sender<Told>) {
        // Told in any case: after a panic, too, somebody waits for it.
        let mut end = End { id, to, result: Err(StepError::Cancelled) };
        end.result = self.work(self.plan.step(id)).and_then(|Worked { done, unrecorded, lock }| {
            end.tell(Told::Done(id, done));
            let recorded = unrecorded.map_or(Ok(()), |record| self.record(self.plan.step(id), record));
            // Whoever waits for the step finds its record.
            drop(lock);
            recorded
        });
    }

    fn is_ready(&self, id: StepId) -> bool {
        let op = &self.plan.step(id).op;
        op.parent().into_iter().chain(op.reads()).all(|input| self.steps[input.index()].get().is_some())
    }

    fn finish_found(&self, step: &Step, found: &Found) {
        let Some(by) = Reuse::of(found) else { return };
        let (filesystem, millis, upstream) = match found {
            Found::Done { filesystem, millis, upstream, .. } => {
                (filesystem.clone(), *millis, upstream.iter().cloned().collect())
            }
            _ => (Filesystem::default(), 0, Upstream::new()),
        };
        let verdict = Verdict::Reused { by, saved: Duration::from_millis(millis) };
        let outcome = Outcome { verdict, took: Duration::ZERO, peak_memory_bytes: None };
        let report = StepReport { outcome, parts: self.same_parts(step), log: None, key: self.key(step) };
        self.finish(step.id, Done { filesystem, report, upstream });
    }

    fn same_parts(&self, step: &Step) -> Vec<PartVerdict> {
        let parts = &self.lookup.prepared[step.id.index()].parts;
        parts.iter().map(|(name, _)| PartVerdict { name: name.to_string(), how: None }).collect()
    }

    fn key(&self, step: &Step) -> RecordKey {
        self.lookup.prepared[step.id.index()].definition.clone()
    }

    fn finish(&self, id: StepId, done: Done) {
        let (outcome, filesystem) = (done.report.outcome.clone(), done.filesystem.clone());
        (self.services.events)(Event::Finished { step: id, outcome, filesystem });
        self.steps[id.index()].set(done).expect("each step finishes once");
    }

    pub(crate) fn filesystem(&self, id: StepId) -> Filesystem {
        self.steps[id.index()].get().map(|done| done.filesystem.clone()).unwrap_or_default()
    }

    fn solved(&self) -> Solved {
        let layer_of = |step: &Step| {
            let done = self.steps[step.id.index()].get()?;
            let has_own = !matches!(step.op, Op::Scratch | Op::Image(_));
            done.filesystem.layers.last().filter(|_| has_own)
        };
        let filesystems: Vec<Filesystem> =
            self.plan.outputs.iter().map(|output| self.filesystem(output.step)).collect();
        let mut created: Vec<Option<String>> =
            self.plan.steps.iter().map(|step| layer_of(step).map(|layer| layer.created.clone())).collect();
        // A record of the target holds the times of all layers below it, also those whose own records nobody asked for.
        for (output, filesystem) in self.plan.outputs.iter().zip(&filesystems) {
            let mut own = self.plan.chain(output.step);
            own.retain(|id| !matches!(self.plan.step(*id).op, Op::Scratch | Op::Image(_)));
            let tops = filesystem.layers.iter().skip(filesystem.layers.len().saturating_sub(own.len()));
            for (id, layer) in own.iter().zip(tops) {
                created[id.index()] = Some(layer.created.clone());
            }
        }
        Solved { filesystems, created, reports: self.reports() }
    }

    /// What became of each step. Of those that nobody asked for, the records of later steps tell how long they took.
    fn reports(&self) -> Vec<StepReport> {
        let done: Vec<&Done> = self.steps.iter().filter_map(OnceLock::get).collect();
        let known: Upstream = done.iter().flat_map(|done| done.upstream.clone()).collect();
        let mut reports: Vec<StepReport> = done.iter().map(|done| done.report.clone()).collect();
        for (report, prepared) in reports.iter_mut().zip(&self.lookup.prepared) {
            if let Verdict::Reused { by: Reuse::NotNeeded, saved } = &mut report.outcome.verdict {
                let millis = known.get(&short_key(&prepared.definition)).copied().unwrap_or_default();
                *saved = Duration::from_millis(millis);
            }
        }
        reports
    }
}

/// One step, from its content key to its record.
impl Solver<'_> {
    fn work(&self, step: &Step) -> Result<Worked, StepError> {
        let began = Instant::now();
        if let Found::Linked { by, record } = &self.lookup.found[step.id.index()] {
            let done = self.reuse_linked(step, record, self.upstream_below(step, record), *by, began)?;
            return Ok(Worked { done, unrecorded: None, lock: None });
        }
        if matches!(step.op, Op::Run(_)) {
            self.runs_left.fetch_sub(1, Ordering::Relaxed);
        }
        let prepared = &self.lookup.prepared[step.id.index()];
        let keys = prepared.keys(step, self.plan, self.services, &|id| self.filesystem(id))?;
        let is_allowed = self.services.cache_mode.allows(step);
        if is_allowed && let Some(record) = self.find(step, &keys)? {
            return self.reuse(step, keys, record, Reuse::Content, began);
        }
        let Explained { cause, origin, parts } = self.explain(step)?;
        let lock = if is_allowed { self.lock(step, &keys)? } else { None };
        // It may have been made while we waited for its lock.
        if is_allowed && let Some(record) = self.find(step, &keys)? {
            return self.reuse(step, keys, record, Reuse::OtherBuild, began);
        }
        // Under the lock, so that no other build of the store fetches the same.
        if is_allowed && let Some(record) = self.find_elsewhere(step, &keys)? {
            return self.reuse(step, keys, record, Reuse::Imported, began);
        }
        // Before the token, so that no other step waits for one that waits.
        let caches = self.claim_caches(step)?;
        let _token = self.tokens.take();
        if self.cancel.is_cancelled() {
            return Err(StepError::Cancelled);
        }
        (self.services.events)(Event::Started { step: step.id, cause: cause.clone(), origin });
        let made = self.execute(step, lock.as_ref(), caches)?;
        let outcome = Outcome {
            verdict: Verdict::Ran { cause, origin },
            took: began.elapsed(),
            peak_memory_bytes: made.peak_memory_bytes,
        };
        let report = StepReport { outcome, parts, log: made.log, key: keys.definition.clone() };
        let filesystem = self.filesystem_with(step, &made.layer)?;
        let upstream = self.upstream(step);
        let recorded = if is_linked(step) { filesystem.layers.len() - 1 } else { 0 };
        let record = StepRecord {
            layers: filesystem.layers[recorded..].to_vec(),
            millis: millis_of(&report),
            log: report.log.as_ref().map(ToString::to_string),
            upstream: upstream.clone().into_iter().collect(),
            content: None,
            origin: None,
        };
        let done = Done { filesystem, report, upstream };
        Ok(Worked { done, unrecorded: Some(Unrecorded { keys, record }), lock })
    }

    /// By content, if the result agrees with the rest of this build. A linked copy brings no layers but its own.
    fn find(&self, step: &Step, keys: &Keys) -> Result<Option<StepRecord>, StepError> {
        let Some(record) = self.services.cache.find(&keys.content)? else { return Ok(None) };
        Ok(self.agrees(step, &record).then_some(record))
    }

    fn find_elsewhere(&self, step: &Step, keys: &Keys) -> Result<Option<StepRecord>, StepError> {
        let below = step.op.parent().filter(|_| !is_linked(step)).map(|id| {
            let filesystem = self.filesystem(id);
            filesystem.content()
        });
        let found = import::find(step, self.plan, self.services, &keys.content, below)?;
        Ok(found.filter(|record| self.agrees(step, record)))
    }

    fn agrees(&self, step: &Step, record: &StepRecord) -> bool {
        let now = |id: StepId| match &self.lookup.found[id.index()] {
            Found::NotNeeded => None,
            _ => self.steps[id.index()].get().map(|done| &done.filesystem),
        };
        is_linked(step) || adoption::agrees(self.plan, step.id, &record.layers, &self.consumers, now)
    }

    fn reuse(
        &self,
        step: &Step,
        keys: Keys,
        record: StepRecord,
        by: Reuse,
        began: Instant,
    ) -> Result<Worked, StepError> {
        let upstream = self.upstream(step);
        if is_linked(step) {
            let done = self.reuse_linked(step, &record, upstream, by, began)?;
            return Ok(Worked { done, unrecorded: None, lock: None });
        }
        let report = self.reused(step, &record, by, began);
        // From now on the definition leads here, too.
        let record = StepRecord { upstream: upstream.clone().into_iter().collect(), ..record };
        let filesystem = Filesystem { layers: record.layers.clone() };
        let done = Done { filesystem, report, upstream };
        Ok(Worked { done, unrecorded: Some(Unrecorded { keys, record }), lock: None })
    }

    /// The layers below a linked copy are not those of its record.
    fn reuse_linked(
        &self,
        step: &Step,
        record: &StepRecord,
        upstream: Upstream,
        by: Reuse,
        began: Instant,
    ) -> Result<Done, StepError> {
        let report = self.reused(step, record, by, began);
        let mut made = step.op.parent().map(|id| self.filesystem(id)).unwrap_or_default();
        made.layers.extend(record.layers.last().cloned());
        let filesystem =
            adoption::settle(made, step.op.time(), self.services.cache, self.services.cache_mode)?;
        Ok(Done { filesystem, report, upstream })
    }

    fn reused(&self, step: &Step, record: &StepRecord, by: Reuse, began: Instant) -> StepReport {
        let saved = Duration::from_millis(record.millis);
        let verdict = Verdict::Reused { by, saved };
        let outcome = Outcome { verdict, took: began.elapsed(), peak_memory_bytes: None };
        StepReport { outcome, parts: self.same_parts(step), log: None, key: self.key(step) }
    }

    /// How long the steps took that a linked copy stands on: those it is copied from by its record, since they were not looked at.
    fn upstream_below(&self, step: &Step, record: &StepRecord) -> Upstream {
        let mut all: Upstream = record.upstream.iter().cloned().collect();
        all.extend(self.upstream_of(step.op.parent()));
        all
    }

    /// Writes down what a step gave and what it was made of.
    fn record(&self, step: &Step, Unrecorded { keys, record }: Unrecorded) -> Result<(), StepError> {
        self.services.cache.put(&keys, &record)?;
        let all = &self.lookup.prepared;
        let trace = all[step.id.index()].trace(step, all, self.services)?;
        Ok(self.services.cache.put_trace(self.plan, step, &keys.definition, &trace)?)
    }

    /// Keeps traces of steps whose results came from elsewhere, and of those below: the next miss can say what changed since.
    fn trace_imported(&self) -> Result<(), SolveError> {
        let was = |step: &Step, how: Reuse| {
            let done = self.steps[step.id.index()].get();
            done.is_some_and(
                |done| matches!(done.report.outcome.verdict, Verdict::Reused { by, .. } if by == how),
            )
        };
        if !self.plan.steps.iter().any(|step| was(step, Reuse::Imported)) {
            return Ok(());
        }
        let all = &self.lookup.prepared;
        let is_untold = |step: &&Step| was(step, Reuse::Imported) || was(step, Reuse::NotNeeded);
        for step in self.plan.steps.iter().filter(is_untold) {
            let keep = || -> Result<(), StepError> {
                let (cache, definition) = (self.services.cache, &all[step.id.index()].definition);
                if cache.trace(definition)?.is_none() {
                    let trace = all[step.id.index()].trace(step, all, self.services)?;
                    cache.put_trace(self.plan, step, definition, &trace)?;
                }
                Ok(())
            };
            keep().map_err(|error| at(step.id, error))?;
        }
        Ok(())
    }

    fn explain(&self, step: &Step) -> Result<Explained, StepError> {
        let report = |id: StepId| self.steps[id.index()].get().map(|done| &done.report);
        let prepared = &self.lookup.prepared;
        Causes { plan: self.plan, services: self.services, prepared, report: &report }.explain(step)
    }

    /// How long the steps took that this one stands on, when they ran.
    fn upstream(&self, step: &Step) -> Upstream {
        self.upstream_of(step.op.parent().into_iter().chain(step.op.reads()))
    }

    fn upstream_of(&self, inputs: impl IntoIterator<Item = StepId>) -> Upstream {
        let mut all = Upstream::new();
        for id in inputs {
            let Some(done) = self.steps[id.index()].get() else { continue };
            all.extend(done.upstream.iter().map(|(key, millis)| (key.clone(), *millis)));
            all.insert(short_key(&self.lookup.prepared[id.index()].definition), millis_of(&done.report));
        }
        all
    }

    /// Waits until nobody else runs the step, passing on what they log meanwhile.
    fn lock(&self, step: &Step, keys: &Keys) -> Result<Option<StepLock>, StepError> {
        let store = self.services.lease.store();
        if let Some(lock) = store.try_step_lock(&keys.definition)? {
            return Ok(Some(lock));
        }
        (self.services.events)(Event::Waiting { step: step.id, until: Until::SameStepIsDone });
        let mut follow = FollowedLog::default();
        let lock = store.wait_step_lock(&keys.definition, || {
            follow.pass_on(step.id, &keys.definition, self.services);
            self.cancel.is_cancelled()
        })?;
        // What it wrote last.
        follow.pass_on(step.id, &keys.definition, self.services);
        lock.map_or(Err(StepError::Cancelled), |lock| Ok(Some(lock)))
    }

    /// The filesystem below a step with its own layer, or as it was recorded if it has turned out as it was before.
    fn filesystem_with(&self, step: &Step, layer: &Layer) -> Result<Filesystem, StepError> {
        let below = step.op.parent().map(|id| self.filesystem(id)).unwrap_or_default();
        let own = RecordedLayer {
            id: layer.id().clone(),
            content: layer.facts().content.clone(),
            created: (self.services.clock)().text,
        };
        Ok(adoption::settle(below.with(own), step.op.time(), self.services.cache, self.services.cache_mode)?)
    }

    fn execute(&self, step: &Step, lock: Option<&StepLock>, caches: Caches) -> Result<Made, StepError> {
        let below = step.op.parent().map(|id| self.filesystem(id)).unwrap_or_default();
        match &step.op {
            Op::Scratch | Op::Image(_) => unreachable!("the first pass finds images"),
            Op::Remote(op) => {
                let cancelled = || self.cancel.is_cancelled();
                let place = op.request.shown().to_owned();
                let context = self.copy_context(step, None, place, Wanted::Tree, &cancelled);
                remote::execute(op, &context).map(Made::layer)
            }
            Op::Workdir(op) => {
                let time = op.time.map_or_else(|| (self.services.clock)().time, Time::whole);
                workdir::execute(op, &below, self.services, time).map(Made::layer)
            }
            Op::Copy(op) => {
                let below = if is_linked(step) { Filesystem::default() } else { below };
                let source = op.from.step().map(|id| self.filesystem(id));
                let fetched = op.fetched().into_iter().map(|id| (id, self.filesystem(id)));
                let cancelled = || self.cancel.is_cancelled();
                let place = cache::key::source_name(&op.from, &self.plan.steps);
                let context =
                    self.copy_context(step, source, place, self.wanted[step.id.index()], &cancelled);
                copy::execute(op, &below, &fetched.collect(), &context).map(Made::layer)
            }
            Op::Run(op) => self.execute_run(step, op, &below, lock, caches),
        }
    }

    pub(crate) fn claim_caches(&self, step: &Step) -> Result<Caches, StepError> {
        let Op::Run(op) = &step.op else { return Ok(Caches::default()) };
        let mounted = |source: &Source, mount: &Mount| self.mounted(step, op, source, mount);
        let event = Event::Waiting { step: step.id, until: Until::CacheIsFree };
        let waits = || (self.services.events)(event.clone());
        let fill = self.services.fill_cache.map(|fill| {
            move |id: &str, directory: &Path| {
                fill(id, directory).unwrap_or_else(|message| {
                    (self.services.events)(Event::Warning { step: step.id, message });
                    false
                })
            }
        });
        let fill = fill.as_ref().map(|fill| fill as &run::Fill<'_>);
        run::claim_caches(op, self.services, &mounted, &self.cancel, &waits, fill)
    }

    fn copy_context<'c>(
        &'c self,
        step: &Step,
        source: Option<Filesystem>,
        place: String,
        wanted: Wanted,
        cancelled: &'c (dyn Fn() -> bool + Sync),
    ) -> CopyContext<'c> {
        CopyContext {
            step: step.id,
            services: self.services,
            prepared: &self.lookup.prepared[step.id.index()],
            source,
            place,
            wanted,
            time: step.op.time().map_or_else(|| (self.services.clock)().time, Time::whole),
            cancelled,
        }
    }

    fn execute_run(
        &self,
        step: &Step,
        op: &plan::Run,
        below: &Filesystem,
        lock: Option<&StepLock>,
        caches: Caches,
    ) -> Result<Made, StepError> {
        let log = self.services.lease.create_log()?;
        if let Some(lock) = lock {
            lock.announce_log(&log.0)?;
        }
        let id = log.0.clone();
        let mounted = |source: &Source, mount: &Mount| self.mounted(step, op, source, mount);
        let context = RunContext {
            step: step.id,
            sandboxes: self.sandboxes()?,
            is_another_run_left: &|| self.runs_left.load(Ordering::Relaxed) > 0,
            cancel: &self.cancel,
            log,
            sources: Sources { services: self.services, mounted: &mounted, caches },
        };
        let ran = run::execute(op, below, context)?;
        Ok(Made { layer: ran.layer, peak_memory_bytes: Some(ran.peak_memory_bytes), log: Some(id) })
    }

    pub(crate) fn sandboxes(&self) -> Result<&Sandboxes, StepError> {
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sandboxes) = self.sandboxes.get() {
            return Ok(sandboxes);
        }
        let opened = (self.services.sandboxes)()?;
        Ok(self.sandboxes.get_or_init(|| opened))
    }

    /// The layers that a mount shows: a step's, or one made of context files and kept for the next build with the same files.
    pub(crate) fn mounted(
        &self,
        step: &Step,
        run: &plan::Run,
        source: &Source,
        mount: &Mount,
    ) -> Result<(Filesystem, RootfsPath), StepError> {
        let name = match source {
            Source::Step(id) => return Ok((self.filesystem(*id), RootfsPath::root())),
            Source::Context(name) => name,
        };
        let index = context_mounts(run).position(|(other, _)| std::ptr::eq(other, mount));
        self.context_layer(step, index.expect("the mount is one of this RUN"), name)
    }

    fn context_layer(
        &self,
        step: &Step,
        index: usize,
        name: &ContextName,
    ) -> Result<(Filesystem, RootfsPath), StepError> {
        let files = &self.lookup.prepared[step.id.index()].contexts[index];
        let file_name = files.selection.matches().iter().find(|matched| !matched.is_directory);
        let path =
            file_name.and_then(|matched| matched.name.file_name()).map(RootfsPath::parse).transpose()?;
        let path = path.unwrap_or_default();
        let key = RecordKey::new(Digest::of(format!("context layer {}", files.digest())));
        if let Some(record) = self.services.cache.find(&key)? {
            return Ok((Filesystem { layers: record.layers }, path));
        }
        let cancelled = || self.cancel.is_cancelled();
        let context = self.copy_context(step, None, files.name.clone(), Wanted::Tree, &cancelled);
        let layer = copy::context_layer(index, &context, name)?;
        let content = layer.facts().content.clone();
        let layers = vec![RecordedLayer { id: layer.id().clone(), content, created: String::new() }];
        let record =
            StepRecord { layers, millis: 0, log: None, upstream: Vec::new(), content: None, origin: None };
        self.services.cache.put_under(&key, &record)?;
        Ok((Filesystem { layers: record.layers }, path))
    }
}

pub(crate) fn is_linked(step: &Step) -> bool {
    matches!(&step.op, Op::Copy(copy) if copy.linkage == Linkage::Independent)
}

/// What executing a step gave.
struct Made {
    layer: Layer,
    peak_memory_bytes: Option<u64>,
    log: Option<LogId>,
}

impl Made {
    fn layer(layer: Layer) -> Self {
        Self { layer, peak_memory_bytes: None, log: None }
    }
}

/// How many steps may work at once.
#[derive(Debug)]
struct Tokens {
    free: Mutex<usize>,
    freed: Condvar,
}

/// Given back when it is dropped.
struct Token<'t>(&'t Tokens);

impl Tokens {
    fn new(count: usize) -> Self {
        Self { free: Mutex::new(count.max(1)), freed: Condvar::new() }
    }

    fn take(&self) -> Token<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Token(self)
    }
}

impl Drop for Token<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

/// How much of another build's log is passed on at a time.
const FOLLOWED_BYTES: usize = 64 << 10;

/// The log of another process' run of a step, as far as it was passed on.
#[derive(Default)]
struct FollowedLog {
    file: Option<File>,
}

impl FollowedLog {
    fn pass_on(&mut self, step: StepId, key: &RecordKey, services: &Services<'_>) {
        let store = services.lease.store();
        if self.file.is_none() {
            let log = store.step_log(key).ok().flatten();
            self.file = log.and_then(|log| store.open_log(&log).ok().flatten());
        }
        let Some(file) = &mut self.file else { return };
        let mut buffer = vec![0; FOLLOWED_BYTES];
        while let Ok(read) = file.read(&mut buffer)
            && read > 0
        {
            let bytes = buffer[..read].to_vec();
            (services.events)(Event::Log { step, stream: Stream::Stdout, bytes });
        }
    }
}
