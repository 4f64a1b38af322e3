//! `rbuild build`: from a Dockerfile to an image, in the five calls of the architecture.

mod agents;
mod call;
pub(crate) mod errors;
mod images;
mod output;
pub(crate) mod report;
mod request;
mod summary;
mod warnings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use context::{Context, Ignore};
use dockerfile::{Audience, Source};
use image::{Assembled, Layers};
use oci::{History, Reference};
use plan::{ContextName, Plan};
use solver::{Services, Solved};

use crate::build::agents::Agents;
use crate::build::images::Resolver;
use crate::build::output::Output;
use crate::build::request::Asked;
use crate::build::warnings::Told;
use crate::cli::{BuildArgs, Call, Global, Method, Progress};
use crate::commands::pull::{Puller, View};
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
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
    let dockerfile = Dockerfile::read(args.file.as_deref(), &args.context)?;
    let judge = Judge::new(&dockerfile, &asked.request, Audience::Building)?;
    dockerfile.must_be_whole(&judge)?;
    let session = Session::open(global)?;
    let cancel = Arc::clone(&session.cancel);
    let cancelled = move || cancel.is_cancelled();
    let layers = Layers::new(&session.lease, &cancelled);
    let plan = lower(&dockerfile, &asked, &session, &layers, args, environment)?;
    tracing::debug!(%plan, "plan");
    let contexts = open_contexts(&dockerfile, &asked, args, &session)?;
    let found = lint::of_build(&dockerfile, &plan, contexts.get(&ContextName::Main), &judge);
    warnings::tell(found, if args.is_quiet() { Told::No } else { Told::Yes }, environment)?;
    let solved = solve(&plan, &dockerfile, &asked, &contexts, &session, &layers, args, environment)?;
    let assembled = assemble(&plan, &solved, &asked, &layers)?;
    let exported = output::write(&asked, &assembled, &layers)?;
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

/// A Dockerfile, parsed.
pub(crate) struct Dockerfile {
    /// The canonical path: what the build's records go under.
    pub(crate) path: PathBuf,
    pub(crate) source: Arc<Source>,
    /// The tree, perhaps with errors, and every finding of the parser.
    pub(crate) parsed: dockerfile::Parsed,
}

impl Dockerfile {
    /// Reads `file`, else `Dockerfile` or `dockerfile` of the context.
    pub(crate) fn read(file: Option<&Path>, context: &Path) -> Result<Self, Failure> {
        let candidates = match file {
            Some(file) => vec![file.to_owned()],
            None => ["Dockerfile", "dockerfile"].map(|name| context.join(name)).to_vec(),
        };
        let found = candidates.iter().find(|path| path.exists()).unwrap_or(&candidates[0]);
        let bytes = std::fs::read(found).map_err(|error| no_dockerfile(found, file, context, &error))?;
        let name =
            found.file_name().map_or_else(|| "Dockerfile".into(), |name| name.to_string_lossy().into_owned());
        let source = Arc::new(Source::new(name, &bytes));
        let parsed = dockerfile::parse(&source);
        let path = std::fs::canonicalize(found).unwrap_or_else(|_| found.clone());
        Ok(Self { path, source, parsed })
    }

    /// Fails, telling everything that was found, if the tree is not complete.
    pub(crate) fn must_be_whole(&self, judge: &Judge) -> Result<(), Failure> {
        if self.parsed.has_errors() {
            return Err(Failure { exit: Exit::Build, diagnostics: lint::of_broken(self, judge) });
        }
        Ok(())
    }
}

fn no_dockerfile(path: &Path, file: Option<&Path>, context: &Path, error: &std::io::Error) -> Failure {
    let title = format!("cannot read the Dockerfile `{}`", path.display());
    let mut diagnostic = Diagnostic::error("no-dockerfile", title).note(error.to_string());
    diagnostic.help = Some(match file {
        Some(_) => "`--file` is relative to the directory you are in, not to the context".to_owned(),
        None => format!("name it with `--file`, or give another context than `{}`", context.display()),
    });
    Failure::new(Exit::Usage, diagnostic)
}

fn lower(
    dockerfile: &Dockerfile,
    asked: &Asked,
    session: &Session,
    layers: &Layers<'_>,
    args: &BuildArgs,
    environment: &Environment,
) -> Result<Plan, Failure> {
    let view = if args.is_quiet() { View::Quiet } else { View::of(environment) };
    let puller = Puller::new(layers, &session.cancel, environment, view);
    let mut resolver = Resolver::new(layers, puller, args.pull);
    plan::lower(&dockerfile.parsed.file, &asked.request, &mut resolver)
        .map_err(|found| errors::of_plan(&found, &dockerfile.source))
}

fn open_contexts(
    dockerfile: &Dockerfile,
    asked: &Asked,
    args: &BuildArgs,
    session: &Session,
) -> Result<BTreeMap<ContextName, Context>, Failure> {
    let mut contexts = BTreeMap::new();
    let main = (ContextName::Main, args.context.clone(), Some(dockerfile.path.as_path()));
    let named =
        asked.directories.iter().map(|(name, path)| (ContextName::Named(name.clone()), path.clone(), None));
    for (name, path, dockerfile) in std::iter::once(main).chain(named) {
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        let ignore = Ignore::find(&path, dockerfile).map_err(|error| errors::of_ignore(&error))?;
        let cache = session.store().context_path(&path.to_string_lossy());
        let context =
            Context::open(&path, ignore, Some(&cache)).map_err(|error| errors::of_context(&error))?;
        contexts.insert(name, context);
    }
    Ok(contexts)
}

#[expect(clippy::too_many_arguments, reason = "everything that was made so far goes in here")]
fn solve(
    plan: &Plan,
    dockerfile: &Dockerfile,
    asked: &Asked,
    contexts: &BTreeMap<ContextName, Context>,
    session: &Session,
    layers: &Layers<'_>,
    args: &BuildArgs,
    environment: &Environment,
) -> Result<Solved, Failure> {
    let _hooks: Vec<_> =
        contexts.values().cloned().map(|context| session.cancel.hook(move || context.cancel())).collect();
    let scratch = || session.lease.scratch_dir().map_err(|error| store_failure(&error));
    let agents = Agents::open(&args.ssh, environment, &scratch)?;
    let salt = session.store().salt().map_err(|error| store_failure(&error))?;
    let scope = dockerfile.path.to_string_lossy().into_owned();
    let cache = cache::Cache::new(&session.lease, cache::Salt(salt), scope);
    let resolv_conf = std::fs::read("/etc/resolv.conf").unwrap_or_default();
    let sandboxes = || crate::commands::sandbox::open(session);
    let progress = if args.is_quiet() { Progress::Quiet } else { args.progress };
    let renderer = progress::renderer(progress, plan, environment);
    let services = Services {
        lease: &session.lease,
        layers,
        cache: &cache,
        contexts,
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

/// Puts config, history and layers together.
fn assemble(plan: &Plan, solved: &Solved, asked: &Asked, layers: &Layers<'_>) -> Result<Assembled, Failure> {
    let mut config = plan.output.config.clone();
    let base_created = config.history.iter().rev().find_map(|entry| entry.created.clone());
    // An instruction without a layer takes the time of the layer before it, so that the same build gives the same image.
    let mut latest = base_created;
    for entry in &plan.output.history {
        if let Some(created) = entry.step.and_then(|step| solved.created[step.index()].clone()) {
            latest = Some(created);
        }
        config.history.push(History {
            created: latest.clone(),
            created_by: entry.created_by.clone(),
            comment: entry.comment.clone(),
            empty_layer: entry.is_empty_layer(),
            ..History::default()
        });
    }
    let contents = image::Contents { layers: solved.filesystem.ids(), config };
    let tags: &[Reference] = if asked.outputs.contains(&Output::Image) { &asked.tags } else { &[] };
    let options = image::AssembleOptions { created: latest, tags };
    image::assemble(layers, &contents, &options).map_err(|error| errors::of_image(&error))
}
