//! `rbuild build`: from a Dockerfile to an image, in the five calls of the architecture.

mod agents;
mod assembly;
mod call;
mod dockerfile;
pub(crate) mod errors;
mod fetch;
mod images;
mod input;
mod output;
pub(crate) mod report;
pub(crate) mod request;
mod summary;
mod warnings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use ::dockerfile::Audience;
use context::Context;
use image::Layers;
use plan::{ContextName, Plan};
use solver::{Services, Solved};
use sys::root::Time;

use crate::build::agents::Agents;
pub(crate) use crate::build::dockerfile::Dockerfile;
use crate::build::fetch::Fetcher;
use crate::build::images::{Places, Resolver};
use crate::build::input::ContextDir;
pub(crate) use crate::build::input::Input;
pub(crate) use crate::build::input::Place;
use crate::build::request::Asked;
use crate::build::warnings::Told;
use crate::cli::{BuildArgs, Call, Global, Method, Progress};
use crate::commands::pull::{Puller, View};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::lint::{self, Judge};
use crate::progress;
use crate::session::{Session, now, store_failure};

/// Builds, or does what `--call` asks for instead; gives the exit code.
pub(crate) fn build(args: &BuildArgs, global: &Global, environment: &Environment) -> Result<u8, Failure> {
    let Call { method, format } = args.call();
    match method {
        Method::Build => image(args, global, environment).map(|()| 0),
        method => call::call(method, format, args, global, environment),
    }
}

/// Builds an image.
fn image(args: &BuildArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let began = Instant::now();
    let asked = Asked::read(args, environment)?;
    let session = Session::open(global)?;
    let fetcher = Fetcher::new(&session, &asked.secrets, environment);
    let Input { dockerfile, context, archive } = Input::read(args, &session, &fetcher, environment)?;
    let judge = Judge::new(&dockerfile, &asked.request, Audience::Building)?;
    dockerfile.must_be_whole(&judge)?;
    let cancel = Arc::clone(&session.cancel);
    let cancelled = move || cancel.is_cancelled();
    let layers = Layers::new(&session.lease, &cancelled);
    let archive = archive.as_deref();
    let places = Places { main: Place::of(&args.context)?, named: &asked.contexts, archive };
    let work = Work {
        dockerfile: &dockerfile,
        asked: &asked,
        session: &session,
        layers: &layers,
        fetcher: &fetcher,
        places: &places,
        args,
        environment,
    };
    let plan = work.lower()?;
    tracing::debug!(%plan, "plan");
    let contexts = work.open_contexts(&plan, &context)?;
    let found = lint::of_build(&dockerfile, &plan, contexts.get(&ContextName::Main), &judge);
    warnings::tell(found, if args.is_quiet() { Told::No } else { Told::Yes }, environment)?;
    if asked.rewrites_times && plan.output().epoch.is_none() && !args.is_quiet() {
        warnings::tell_of_no_epoch(environment);
    }
    let solved = work.solve(&plan, &contexts)?;
    let assembled = assembly::assemble(&plan, &solved, &asked, &layers)?;
    let exported = output::write(&asked, &assembled, &layers, plan.output().epoch.map(Time::whole))?;
    // Losing what `explain` shows loses nothing that was built.
    if let Err(error) = report::keep(&dockerfile, &plan, &solved, &session) {
        tracing::warn!(%error, "what `rbuild explain` shows was not kept");
    }
    summary::print(&plan, &solved, &assembled, &asked, &dockerfile, began.elapsed(), args);
    output::write_files(args, &assembled, &asked, exported.as_ref())?;
    close(session)
}

/// What could not be given back is said, but does not unmake what was built.
fn close(session: Session) -> Result<(), Failure> {
    session.lease.close().map_err(|error| store_failure(&error))
}

/// What the calls of a build work with.
#[derive(Clone, Copy)]
struct Work<'w> {
    dockerfile: &'w Dockerfile,
    asked: &'w Asked,
    session: &'w Session,
    layers: &'w Layers<'w>,
    fetcher: &'w Fetcher<'w>,
    places: &'w Places<'w>,
    args: &'w BuildArgs,
    environment: &'w Environment,
}

impl Work<'_> {
    fn lower(&self) -> Result<Plan, Failure> {
        let Self { dockerfile, asked, session, layers, fetcher, places, args, environment } = *self;
        let view = if args.is_quiet() { View::Quiet } else { View::of(environment) };
        let puller = Puller::new(layers, &session.cancel, environment, view);
        let mut resolver = Resolver::new(layers, puller, fetcher, &asked.layouts, places, args.pull);
        let mut plans = Vec::new();
        for request in asked.requests() {
            let plan = plan::lower(&dockerfile.parsed.file, &request, &mut resolver);
            plans.push(plan.map_err(|found| errors::of_plan(&found, &dockerfile.source))?);
        }
        Ok(Plan::join(plans))
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

    fn solve(&self, plan: &Plan, contexts: &BTreeMap<ContextName, Context>) -> Result<Solved, Failure> {
        let Self { dockerfile, asked, session, layers, fetcher, args, environment, .. } = *self;
        let _hooks: Vec<_> =
            contexts.values().cloned().map(|context| session.cancel.hook(move || context.cancel())).collect();
        let scratch = || session.lease.scratch_dir().map_err(|error| store_failure(&error));
        let agents = Agents::open(&args.ssh, environment, &scratch)?;
        let salt = session.store().salt().map_err(|error| store_failure(&error))?;
        let scope = dockerfile.path.to_string_lossy().into_owned();
        let cache = cache::Cache::new(&session.lease, cache::Salt(salt), scope);
        let resolv_conf = std::fs::read("/etc/resolv.conf").unwrap_or_default();
        let sandboxes = || crate::commands::sandbox::open(session, asked.cgroup_parent.clone());
        let progress = if args.is_quiet() { Progress::Quiet } else { args.progress };
        let renderer = progress::renderer(progress, plan, environment);
        let services = Services {
            lease: &session.lease,
            layers,
            cache: &cache,
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
            events: &|event| renderer.event(event),
        };
        let solved = solver::solve(plan, &services);
        renderer.finish();
        for context in contexts.values() {
            // Losing it costs time, nothing else.
            if let Err(error) = context.save() {
                tracing::warn!(%error, "the stat cache of a context was not kept");
            }
        }
        solved.map_err(|error| errors::of_solve(&error, plan, &dockerfile.source))
    }
}
