//! `rbuild build`: from a Dockerfile to an image, in the five calls of the architecture.

mod agents;
pub(crate) mod artifacts;
mod assembly;
mod cache;
mod call;
mod dockerfile;
pub(crate) mod errors;
mod fetch;
mod git_labels;
mod images;
mod input;
mod legacy;
mod lock;
mod logfile;
mod output;
pub(crate) mod report;
pub(crate) mod request;
mod resolver;
mod shell;
mod shell_command;
mod summary;
mod warnings;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use ::dockerfile::Audience;
use context::Context;
use image::Layers;
use plan::{ContextName, Plan, PlanError};
use solver::{FillCache, Import, Services, SolveError, Solved, Sought};
use sys::root::Time;

use crate::build::agents::Agents;
use crate::build::assembly::Assembly;
use crate::build::cache::{Imports, Transport};
pub(crate) use crate::build::dockerfile::Dockerfile;
use crate::build::fetch::Fetcher;
use crate::build::images::{Places, Resolver};
use crate::build::input::ContextDir;
pub(crate) use crate::build::input::{Input, Names, Place};
use crate::build::lock::Pins;
use crate::build::logfile::LogFile;
use crate::build::request::Asked;
pub(crate) use crate::build::shell::{shell, unknown_stage};
use crate::build::shell_command::ShellCommand;
use crate::build::warnings::Told;
use crate::cli::{BuildArgs, Call, Global, Method, StepArgs};
use crate::commands::push::ahead::Ahead;
use crate::commands::registry::{Connection, Mover, View};
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::lint::{self, Judge};
use crate::listing::tell;
use crate::progress::{self, Renderer};
use crate::session::{Session, now, store_failure};

/// Builds, or does what `--call` asks for instead; gives the exit code.
pub(crate) fn build(args: &BuildArgs, global: &Global, environment: &Environment) -> Result<u8, Failure> {
    let Some(path) = &args.logfile else { return call(args, global, environment) };
    let log = LogFile::begin(path)?;
    let environment = Environment { stderr_is_terminal: false, ..environment.clone() };
    call(args, global, &environment).map_err(|mut failure| {
        // What cannot be written there is told here.
        if let Err(error) = log.end(&failure) {
            failure.diagnostics.extend(error.diagnostics);
        }
        failure
    })
}

fn call(args: &BuildArgs, global: &Global, environment: &Environment) -> Result<u8, Failure> {
    let Call { method, format } = args.call();
    if method != Method::Build && args.lock.is_some() {
        let title = "`--lock` writes down what names meant in a build, and nothing is built";
        let diagnostic =
            Diagnostic::error("usage", title).help("leave out `--lock`, or `--call` and `--check`");
        return Err(Failure::new(Exit::Usage, diagnostic));
    }
    match method {
        Method::Build => image(args, global, environment).map(|()| 0),
        method => call::call(method, format, args, global, environment),
    }
}

/// Builds an image.
fn image(args: &BuildArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let began = Instant::now();
    let mut asked = Asked::read(args, environment)?;
    asked.precious.push(global.root.clone());
    output::check_removals(&asked)?;
    // Told before anything is built.
    let lock = args.lock.as_ref().map(|given| lock::place("--lock", given.as_deref(), args.names()));
    let lock = lock.transpose()?;
    let session = Session::open(global)?;
    let order =
        Order { asked, session: &session, steps: &args.steps, context: &args.context, global, environment };
    order.carry_out(|work, context, judge| {
        make_image(args, work, context, judge, began)?;
        lock.as_deref().map_or(Ok(()), |path| work.lock(path))
    })?;
    session.close()
}

fn make_image(
    args: &BuildArgs,
    work: Work<'_>,
    context: &ContextDir,
    judge: &Judge,
    began: Instant,
) -> Result<(), Failure> {
    let Work { dockerfile, asked, session, layers, environment, .. } = work;
    let file = &dockerfile.parsed.file;
    let plan = work.plan(|images| lower_all(file, &asked.requests(file), images))?;
    tracing::debug!(%plan, "plan");
    assembly::check(&plan, asked)?;
    let contexts = work.open_contexts(&plan, context)?;
    let found = lint::of_build(dockerfile, &plan, contexts.get(&ContextName::Main), judge);
    let for_metadata = warnings::for_metadata(&found, &dockerfile.source, environment);
    warnings::tell(found, Told::by(asked.progress), &dockerfile.source, environment)?;
    let is_told = asked.progress.is_for_people();
    if asked.rewrites_times && plan.output().epoch.is_none() && is_told {
        warnings::tell_of_no_epoch(environment);
    }
    legacy::notes(&args.legacy)
        .iter()
        .filter(|_| is_told)
        .for_each(|note| tell(format_args!("note: {note}")));
    let view = if asked.progress.is_for_people() { View::of(environment) } else { View::Quiet };
    let connection = Connection::new(&session.cancel, environment, &asked.registry);
    let transport = Transport::open(asked, &plan, &connection, environment, view)?;
    transport.check_mounts(&plan);
    let mover = Mover::new(layers, &session.cancel, environment, &asked.registry, view);
    let ahead = output::ahead(asked, &plan, &mover)?;
    let build = || {
        let solved = work.solve(&plan, &contexts, &transport, ahead.as_ref())?;
        let (plan, transport, mover, ahead) = (&plan, &transport, &mover, ahead.as_ref());
        let delivery =
            Delivery { args, work, plan, solved: &solved, transport, mover, ahead, began, for_metadata };
        let delivered = delivery.deliver();
        // Whatever becomes of the image, the next build need not do its steps again.
        transport.fill_caches(plan, layers);
        match (delivered, work.export(plan, &solved, transport)) {
            (Err(mut failure), Err(other)) => {
                failure.diagnostics.extend(other.diagnostics);
                Err(failure)
            }
            (delivered, exported) => delivered.and(exported),
        }
    };
    match &ahead {
        Some(ahead) => ahead.during(session, build),
        None => build(),
    }
}

/// What was built, on its way to where it is wanted.
struct Delivery<'d> {
    args: &'d BuildArgs,
    work: Work<'d>,
    plan: &'d Plan,
    solved: &'d Solved,
    transport: &'d Transport<'d>,
    mover: &'d Mover<'d>,
    ahead: Option<&'d Ahead<'d>>,
    began: Instant,
    for_metadata: Option<serde_json::Value>,
}

impl Delivery<'_> {
    fn deliver(self) -> Result<(), Failure> {
        let Self { args, work, plan, solved, transport, mover, ahead, began, for_metadata } = self;
        let Work { dockerfile, asked, session, layers, .. } = work;
        let filesystems: Vec<_> = solved.filesystems.iter().cloned().map(Some).collect();
        artifacts::must_be_there(&artifacts::write(asked, plan, layers, &filesystems)?)?;
        let compressor = ahead.filter(|ahead| ahead.only_compresses());
        let assembled = Assembly { plan, solved, asked, layers, compressor }.assemble(mover.view)?;
        let inline = transport.inline(plan, solved, &assembled, layers, &work.cache()?)?;
        let made = output::Made { images: &assembled, layers, annotations: &inline };
        let exported = output::write(asked, made, plan.output().epoch.map(Time::whole))?;
        // Losing what `explain` and `diff` show loses nothing that was built.
        if let Err(error) = report::keep(dockerfile, plan, solved, session) {
            tracing::warn!(%error, "what `rbuild explain` shows was not kept");
        }
        summary::print(plan, solved, &assembled, asked, dockerfile, began.elapsed());
        let pushed = output::push(asked, made, mover, ahead);
        // Whoever deploys by digest gets what the registry has.
        let exported = pushed.map_err(|failure| work.unless_cancelled(failure))?.or(exported);
        output::write_files(args, &assembled, asked, exported.as_ref(), for_metadata)
    }
}

/// Makes the plans for all requests and joins them. What is wrong is told of all of them, unless a server did not answer: to wait for that
/// once is enough.
fn lower_all(
    file: &::dockerfile::File,
    requests: &[plan::Request],
    images: &mut Resolver<'_>,
) -> Result<Plan, Vec<PlanError>> {
    let (mut plans, mut found) = (Vec::new(), Vec::new());
    for request in requests {
        match plan::lower(file, request, images) {
            Ok(plan) => plans.push(plan),
            Err(errors) => found.extend(errors),
        }
        if errors::plans_exit(&found).is_some_and(|exit| exit != Exit::Build && exit != Exit::Usage) {
            break;
        }
    }
    if found.is_empty() {
        return Ok(Plan::join(plans));
    }
    found.sort_by_cached_key(|error| (error.span, error.kind.to_string()));
    found.dedup();
    Err(found)
}

/// What is to be worked on.
struct Order<'o> {
    asked: Asked,
    session: &'o Session,
    steps: &'o StepArgs,
    context: &'o Path,
    global: &'o Global,
    environment: &'o Environment,
}

impl Order<'_> {
    /// Reads the Dockerfile and finds its context, and has `act` work with them.
    fn carry_out<T>(
        self,
        act: impl FnOnce(Work<'_>, &ContextDir, &Judge) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Self { mut asked, session, steps, context: named, global, environment } = self;
        let agents = Agents::of(session, steps, environment)?;
        let pins = Pins::of(steps, named)?;
        let fetcher = Fetcher::new(session, &asked.secrets, asked.access, environment, &agents, &pins);
        let Input { dockerfile, context, archive } =
            Input::read(steps.names(named), &asked.request.build_args, session, &fetcher, environment)?;
        let judge = Judge::new(&dockerfile, &asked.request, Audience::Building)?;
        dockerfile.must_be_whole(&judge)?;
        let main = Place::of(named)?;
        if let Place::Directory(directory) = &main {
            let labels = git_labels::of(&dockerfile.path, directory, environment);
            // Those of the command line count for more.
            asked.request.labels.splice(..0, labels);
        }
        let cancelled = session.cancelled();
        let layers = Layers::new(&session.lease, &cancelled);
        let places = Places { main, named: &asked.contexts, archive: archive.as_deref() };
        let shell = ShellCommand { root: &global.root, steps, context: named };
        let work = Work {
            dockerfile: &dockerfile,
            asked: &asked,
            session,
            layers: &layers,
            fetcher: &fetcher,
            agents: &agents,
            pins: &pins,
            places: &places,
            environment,
            shell: &shell,
        };
        act(work, &context, &judge)
    }
}

/// What the calls of a build work with.
#[derive(Clone, Copy)]
struct Work<'w> {
    dockerfile: &'w Dockerfile,
    asked: &'w Asked,
    session: &'w Session,
    layers: &'w Layers<'w>,
    fetcher: &'w Fetcher<'w>,
    agents: &'w Agents,
    pins: &'w Pins,
    places: &'w Places<'w>,
    environment: &'w Environment,
    /// What the person is told to type to look at a step.
    shell: &'w ShellCommand<'w>,
}

impl Work<'_> {
    /// What fails because everything ends is no news.
    fn unless_cancelled(&self, failure: Failure) -> Failure {
        if self.session.cancel.is_cancelled() { Failure::cancelled() } else { failure }
    }

    /// Writes down what names meant.
    fn lock(&self, path: &Path) -> Result<(), Failure> {
        let names = self.pins.write(path)?;
        if self.asked.progress.is_for_people() {
            let names = if names == 1 { "1 name".to_owned() } else { format!("{names} names") };
            tell(format_args!("note: `{}` says what {names} meant", path.display()));
        }
        Ok(())
    }

    /// Makes a plan, with what is needed to look up what the Dockerfile names.
    fn plan(
        &self,
        lower: impl FnOnce(&mut Resolver<'_>) -> Result<Plan, Vec<PlanError>>,
    ) -> Result<Plan, Failure> {
        let Self { dockerfile, asked, session, layers, fetcher, pins, places, environment, .. } = *self;
        let view = if asked.progress.is_for_people() { View::of(environment) } else { View::Quiet };
        let mover = Mover::new(layers, &session.cancel, environment, &asked.registry, view);
        let Asked { layouts, pull, access, .. } = asked;
        let (pull, access) = (*pull, *access);
        let mut resolver = Resolver { layers, mover, fetcher, layouts, places, pull, access, pins };
        lower(&mut resolver).map_err(|found| errors::of_plan(&found, &dockerfile.source))
    }

    fn open_contexts(
        &self,
        plan: &Plan,
        main: &ContextDir,
    ) -> Result<BTreeMap<ContextName, Context>, Failure> {
        let mut contexts = BTreeMap::from([(ContextName::Main, main.open(self.session)?)]);
        let used: BTreeSet<&ContextName> = plan.steps.iter().flat_map(|step| step.op.contexts()).collect();
        for (name, place) in &self.asked.contexts {
            let name = ContextName::Named(name.clone());
            // What nobody takes files from is not fetched.
            if used.contains(&name) || matches!(place, Place::Directory(_)) {
                let context = place.named(self.session, self.fetcher)?.open(self.session)?;
                contexts.insert(name, context);
            }
        }
        Ok(contexts)
    }

    fn solve(
        &self,
        plan: &Plan,
        contexts: &BTreeMap<ContextName, Context>,
        transport: &Transport<'_>,
        ahead: Option<&Ahead<'_>>,
    ) -> Result<Solved, Failure> {
        self.with_services(plan, contexts, transport.imports(), ahead, |services, _| {
            let solved = solver::solve(plan, services);
            if let (Err(_), Some(ahead)) = (&solved, ahead) {
                ahead.give_up();
            }
            let kept = report::keep_failure(self.dockerfile, plan, solved.as_ref().err(), self.session);
            // Losing where it failed only means that the person has to say it.
            if let Err(error) = kept {
                tracing::warn!(%error, "where the build failed was not kept");
            }
            solved.map_err(|error| {
                let mut failure = self.of_solve(&error, plan);
                if !self.asked.artifacts.is_empty() {
                    failure = self.save(error, failure, plan, services);
                }
                let exported = self.export_what_is_done(plan, services, transport);
                failure
                    .diagnostics
                    .extend(exported.err().into_iter().flat_map(|failure| failure.diagnostics));
                failure
            })
        })?
    }

    /// Sends the results of a build to other caches.
    fn export(&self, plan: &Plan, solved: &Solved, transport: &Transport<'_>) -> Result<(), Failure> {
        if !transport.exports() || self.session.cancel.is_cancelled() {
            return Ok(());
        }
        let keys: Vec<_> = solved.reports.iter().map(|report| report.key.clone()).collect();
        let exported = transport.export(plan, &keys, Some(solved), self.layers, &self.cache()?);
        exported.map_err(|failure| self.unless_cancelled(failure))
    }

    /// The same of a build that failed: whoever builds next need not do again what was done.
    fn export_what_is_done(
        &self,
        plan: &Plan,
        services: &Services<'_>,
        transport: &Transport<'_>,
    ) -> Result<(), Failure> {
        if !transport.exports() || self.session.cancel.is_cancelled() {
            return Ok(());
        }
        let keys = solver::definition_keys(plan, services).map_err(|error| self.of_solve(&error, plan))?;
        transport.export(plan, &keys, None, self.layers, services.cache)
    }

    /// The records of the store as this build sees them.
    fn cache(&self) -> Result<::cache::Cache<'_>, Failure> {
        let Self { dockerfile, asked, session, .. } = *self;
        let salt = session.store().salt().map_err(|error| store_failure(&error))?;
        let scope = dockerfile.path.to_string_lossy().into_owned();
        Ok(::cache::Cache::new(&session.lease, ::cache::Salt(salt), scope).not_before(asked.oldest))
    }

    /// Writes what there is of the artifacts of a build that failed.
    fn save(&self, error: SolveError, mut failure: Failure, plan: &Plan, services: &Services<'_>) -> Failure {
        let saved = solver::remains(plan, services, error)
            .map_err(|error| Diagnostic::error("artifact", error.to_string()));
        let saved = saved.map_err(|diagnostic| Failure::new(Exit::Machine, diagnostic));
        match saved.and_then(|filesystems| artifacts::write(self.asked, plan, self.layers, &filesystems)) {
            Ok(missing) => {
                let notes = missing.iter().map(|missing| format!("{missing} yet"));
                failure.diagnostics.iter_mut().take(1).for_each(|first| first.notes.extend(notes.clone()));
            }
            Err(other) => failure.diagnostics.extend(other.diagnostics),
        }
        failure
    }

    fn of_solve(&self, error: &SolveError, plan: &Plan) -> Failure {
        errors::of_solve(error, plan, &self.dockerfile.source, &|step| self.shell.help(step, self.dockerfile))
    }

    /// Calls the solver with all that it works with, and with the view of its events.
    fn with_services<T>(
        &self,
        plan: &Plan,
        contexts: &BTreeMap<ContextName, Context>,
        imports: Option<&Imports<'_>>,
        ahead: Option<&Ahead<'_>>,
        call: impl FnOnce(&Services<'_>, &dyn Renderer) -> T,
    ) -> Result<T, Failure> {
        let Self { asked, session, layers, fetcher, agents, environment, .. } = *self;
        let _hooks: Vec<_> =
            contexts.values().cloned().map(|context| session.cancel.hook(move || context.cancel())).collect();
        let cache = &self.cache()?;
        let import = imports.map(|imports| move |sought: &Sought<'_>| imports.find(sought, layers, cache));
        let fill = imports.map(|imports| move |id: &str, into: &Path| imports.fill_cache(id, into, layers));
        let resolv_conf = asked.names.resolv_conf(&std::fs::read("/etc/resolv.conf").unwrap_or_default());
        let sandboxes = || crate::commands::sandbox::open(session, asked.cgroup_parent.clone());
        let renderer = progress::renderer(asked.progress, plan, environment);
        let services = Services {
            lease: &session.lease,
            layers,
            cache,
            fill_cache: fill.as_ref().map(|fill| fill as &FillCache<'_>),
            import: import.as_ref().map(|import| import as &Import<'_>),
            contexts,
            fetch: &|remote, into, is_cancelled| fetcher.write(remote, into, is_cancelled),
            sandboxes: &sandboxes,
            secrets: &asked.secrets,
            agents: &agents.sockets,
            resolv_conf: &resolv_conf,
            cache_mode: &asked.cache_mode,
            jobs: asked.jobs,
            limits: &asked.limits,
            cancel: &session.cancel,
            clock: &now,
            events: &|event| {
                ahead.into_iter().for_each(|ahead| ahead.event(&event));
                renderer.event(event);
            },
        };
        let done = call(&services, &*renderer);
        renderer.finish();
        for context in contexts.values() {
            // Losing it costs time, nothing else.
            if let Err(error) = context.save() {
                tracing::warn!(%error, "the stat cache of a context was not kept");
            }
        }
        Ok(done)
    }
}
