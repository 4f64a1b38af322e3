//! RUN: one process tree over the layers so far, and the layer of what it changed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use image::{MountPoint, Rootfs};
use layer::merged::Merged;
use layer::seal::seal;
use plan::{Access, BindMount, CacheId, Mount, NetworkMode, Presence, Run, SecurityMode, Sharing, StepId};
use sandbox::{
    BindSource, Content, Durability, Ending, Layers, Limits, MissingCwd, MountKind, Network, NewPrivileges,
    Output, PidOne, Posture, Process, Sandboxes, Spec, Stdio, Upper,
};
use store::{CacheMountRequest, CacheSharing, Layer, LogId};
use sys::root::Dir;
use sys::{Root, RootfsPath};

use crate::agent::{self, AgentSocket};
use crate::filesystem::Filesystem;
use crate::services::{Cancel, Secret};
use crate::step_log::{StepLog, Written};
use crate::{Event, RunFailure, Services, StepError};

/// What a process may take to end by itself when the build is cancelled.
const GRACE: Duration = Duration::from_millis(700);

const SIGTERM: i32 = 15;

/// Finds the layer list that a source of a mount shows, and where in it to look.
type Mounted<'m> = dyn Fn(&plan::Source, &Mount) -> Result<(Filesystem, RootfsPath), StepError> + Sync + 'm;

/// What a RUN needs besides the plan.
pub(crate) struct RunContext<'r> {
    pub(crate) step: StepId,
    pub(crate) sandboxes: &'r Sandboxes,
    /// Whether this is not the last process that may have to be started.
    pub(crate) is_another_run_left: &'r (dyn Fn() -> bool + Sync),
    pub(crate) cancel: &'r Arc<Cancel>,
    /// Where its log goes.
    pub(crate) log: (LogId, File),
    pub(crate) sources: Sources<'r>,
}

/// Where the mounts of a RUN come from.
pub(crate) struct Sources<'r> {
    pub(crate) services: &'r Services<'r>,
    /// The layer list that each source of a mount shows: of steps, or of context files that were copied into a layer.
    pub(crate) mounted: &'r Mounted<'r>,
    /// The caches that its mounts show.
    pub(crate) caches: Caches,
}

/// Where a RUN writes.
pub(crate) enum Writes {
    /// Into an empty directory.
    Fresh(PathBuf),
    /// Into what another RUN upon the same layers has left.
    Onto(PathBuf),
}

/// A RUN that only has to be started.
pub(crate) struct Ready {
    pub(crate) spec: Spec,
    /// Reached from inside for as long as they are here.
    pub(crate) agents: Vec<AgentSocket>,
    /// What it writes.
    upper: Dir,
    /// What it writes upon.
    merged: Merged,
}

/// Cache directories by id, each in use by one RUN.
#[derive(Debug, Default)]
pub(crate) struct Caches(BTreeMap<CacheId, store::CacheMount>);

/// Fills the new directory of an id; whether it could.
pub(crate) type Fill<'f> = dyn Fn(&str, &Path) -> bool + 'f;

/// Claims the caches of a RUN, waiting for those that another one has locked; `waits` is called when that begins. `fill` gives a new one what it had elsewhere,
/// and else its source does.
///
/// One claim for each id, in the order of their names: a RUN that mounts one twice does not wait for itself, and two RUNs that want the
/// same two do not wait for each other.
pub(crate) fn claim_caches(
    run: &Run,
    services: &Services<'_>,
    mounted: &Mounted<'_>,
    cancel: &Cancel,
    waits: &dyn Fn(),
    fill: Option<&Fill<'_>>,
) -> Result<Caches, StepError> {
    let mut caches = Caches::default();
    for (id, (mount, cache, sharing)) in wanted_caches(run) {
        let seed = |directory: &Path| -> io::Result<()> {
            if fill.is_some_and(|fill| fill(id.as_str(), directory)) {
                return Ok(());
            }
            let Some(from) = &cache.from else { return Ok(()) };
            let (filesystem, path) = mounted(from, mount).map_err(io::Error::other)?;
            let path = shown_path(from, &cache.path, path).map_err(io::Error::other)?;
            crate::copy::write_tree(&filesystem, &path, directory, services).map_err(io::Error::other)
        };
        let request = CacheMountRequest {
            id: id.as_str(),
            sharing,
            mode: cache.mode,
            uid: cache.uid,
            gid: cache.gid,
            seed: (fill.is_some() || cache.from.is_some()).then_some(&seed),
        };
        let mut has_told = false;
        let claimed = services.lease.cache_mount(&request, || {
            if !std::mem::replace(&mut has_told, true) {
                waits();
            }
            cancel.is_cancelled()
        })?;
        caches.0.insert(id.clone(), claimed.ok_or(StepError::Cancelled)?);
    }
    Ok(caches)
}

/// The caches of a RUN by id, each with the strictest way of sharing that it is mounted with.
fn wanted_caches(run: &Run) -> BTreeMap<&CacheId, (&Mount, &plan::CacheMount, CacheSharing)> {
    let mut wanted: BTreeMap<&CacheId, (&Mount, &plan::CacheMount, CacheSharing)> = BTreeMap::new();
    for mount in &run.mounts {
        let Mount::Cache(cache) = mount else { continue };
        let sharing = sharing(cache.sharing);
        let entry = wanted.entry(&cache.id).or_insert((mount, cache, sharing));
        entry.2 = entry.2.max(sharing);
    }
    wanted
}

fn sharing(sharing: Sharing) -> CacheSharing {
    match sharing {
        Sharing::Private => CacheSharing::Private,
        Sharing::Shared => CacheSharing::Shared,
        Sharing::Locked => CacheSharing::Locked,
    }
}

/// Where in a source's filesystem a mount looks. Only what was selected of a context is in its layer, under a name of its own.
fn shown_path(
    from: &plan::Source,
    written: &plan::ImagePath,
    selected: RootfsPath,
) -> Result<RootfsPath, sys::PathError> {
    match from {
        plan::Source::Context(_) => Ok(selected),
        plan::Source::Step(_) => RootfsPath::parse(written.as_str()),
    }
}

/// A RUN's outcome.
pub(crate) struct Ran {
    pub(crate) layer: Layer,
    pub(crate) peak_memory_bytes: u64,
}

/// Runs the process, and seals and publishes its layer.
pub(crate) fn execute(run: &Run, below: &Filesystem, mut context: RunContext<'_>) -> Result<Ran, StepError> {
    let draft = context.sources.services.lease.layer_draft()?;
    let writes = Writes::Fresh(draft.make_fs()?);
    let Ready { spec, agents, upper, merged } =
        make_ready(run, below, writes, Stdio::Captured, &context.sources)?;
    let exit = match run_process(run, &spec, &context) {
        Ok(exit) => exit,
        Err(error) => {
            if matches!(error, StepError::Run(_)) {
                draft.abandon();
            }
            return Err(error);
        }
    };
    // Cache directories are free for the next step, and agents out of reach, as soon as the process is gone.
    drop((spec, agents));
    context.sources.caches = Caches::default();

    let layer = seal_layer(&upper, &merged, draft, &context)?;
    Ok(Ran { layer, peak_memory_bytes: exit.peak_memory_bytes })
}

/// Makes the sandbox of a RUN, up to its start.
pub(crate) fn make_ready(
    run: &Run,
    below: &Filesystem,
    writes: Writes,
    stdio: Stdio,
    sources: &Sources<'_>,
) -> Result<Ready, StepError> {
    let services = sources.services;
    let mut prepared = Prepared::default();
    prepared.add_standard(run, services);
    for mount in &run.mounts {
        prepared.add(mount, sources)?;
    }
    let rootfs = Rootfs::new(services.layers, &below.ids(), &prepared.targets)?;
    let (top, directory) = match writes {
        Writes::Fresh(directory) => (rootfs.prepare_top(&directory)?, directory),
        Writes::Onto(directory) => {
            let opened = Dir::open(&directory);
            let failed = |source| StepError::Prepare { path: directory.clone(), source };
            (opened.map_err(failed)?, directory)
        }
    };
    let upper = Upper { directory, work: services.lease.scratch_dir()?, durability: Durability::Volatile };
    let root = Layers { lower: rootfs.lower.clone(), upper: Some(upper) };
    let spec = spec(run, root, prepared.mounts, prepared.env, services.limits)?;
    Ok(Ready { spec: Spec { stdio, ..spec }, agents: prepared.agents, upper: top, merged: rootfs.merged })
}

fn seal_layer(
    upper: &Dir,
    merged: &Merged,
    draft: store::LayerDraft,
    context: &RunContext<'_>,
) -> Result<Layer, StepError> {
    let cancelled = || context.cancel.is_cancelled();
    let packed = seal(upper, merged, context.sources.services.jobs.min(4), &cancelled)?;
    Ok(context.sources.services.layers.publish(draft, &packed)?)
}

fn spec(
    run: &Run,
    root: Layers,
    mounts: Vec<sandbox::Mount>,
    secrets: Vec<(OsString, OsString)>,
    limits: &Limits,
) -> Result<Spec, StepError> {
    let variables = run.env.iter().map(|variable| (&variable.name, &variable.value));
    let proxies = run.proxy_env.iter().map(|(name, value)| (name, value));
    let mut env: Vec<(OsString, OsString)> =
        variables.chain(proxies).map(|(name, value)| (name.into(), value.into())).collect();
    for (name, value) in secrets {
        // An agent's socket does not replace what the image says of it; a secret's variable comes last and counts.
        if name != "SSH_AUTH_SOCK" || !env.iter().any(|(known, _)| *known == name) {
            env.push((name, value));
        }
    }
    Ok(Spec {
        root,
        root_access: sandbox::Access::ReadWrite,
        mounts,
        args: run.args.iter().map(OsString::from).collect(),
        env,
        cwd: RootfsPath::parse(run.cwd.as_str())?,
        missing_cwd: MissingCwd::Create,
        user: run.user.as_ref().map_or(Ok(sandbox::User::default()), |user| user.as_str().parse())?,
        hostname: run.hostname.clone(),
        network: match run.network {
            // Until there is a bridge, the default is the machine's own network.
            NetworkMode::Default | NetworkMode::Host => Network::Host,
            NetworkMode::None => Network::None,
        },
        limits: limits.clone(),
        stdio: Stdio::Captured,
        pid_one: PidOne::Command,
        new_privileges: NewPrivileges::Allowed,
        posture: match run.security {
            SecurityMode::Sandbox => Posture::Confined,
            SecurityMode::Insecure => Posture::Insecure,
        },
    })
}

/// Mounts, the names they need in the root, and what must stay alive meanwhile.
#[derive(Default)]
struct Prepared {
    mounts: Vec<sandbox::Mount>,
    targets: Vec<(RootfsPath, MountPoint)>,
    env: Vec<(OsString, OsString)>,
    agents: Vec<AgentSocket>,
}

impl Prepared {
    fn add_standard(&mut self, run: &Run, services: &Services<'_>) {
        let file = |target: &str, content: Vec<u8>, mode| sandbox::Mount {
            target: RootfsPath::parse(target).unwrap_or_default(),
            kind: MountKind::File { content: Content(content), mode, uid: 0, gid: 0 },
        };
        self.mounts.push(file("etc/resolv.conf", services.resolv_conf.to_vec(), 0o644));
        self.mounts.push(file("etc/hosts", hosts(run).into_bytes(), 0o644));
        if let Some(script) = &run.script {
            self.mounts.push(file(
                &format!("dev/pipes/{}", script.name),
                script.content.clone().into_bytes(),
                0o755,
            ));
        }
    }

    fn add(&mut self, mount: &Mount, sources: &Sources<'_>) -> Result<(), StepError> {
        match mount {
            Mount::Tmpfs(tmpfs) => {
                let kind = MountKind::Tmpfs { size_bytes: tmpfs.size_bytes, mode: 0o755 };
                self.push(tmpfs.target.as_str(), MountPoint::Directory, kind)
            }
            Mount::Secret(secret) => self.add_secret(secret, sources.services),
            Mount::Cache(cache) => self.add_cache(cache, &sources.caches),
            Mount::Bind(bind) => self.add_bind(bind, mount, sources),
            Mount::Ssh(ssh) => self.add_ssh(ssh, sources.services),
            Mount::Host(host) => self.add_host(host),
        }
    }

    fn add_host(&mut self, host: &plan::HostMount) -> Result<(), StepError> {
        let failed = |source| StepError::Prepare { path: host.source.clone(), source };
        let found = std::fs::metadata(&host.source).map_err(failed)?;
        let shape = if found.is_dir() { MountPoint::Directory } else { MountPoint::File };
        let source = BindSource::Path(host.source.clone());
        self.push(host.target.as_str(), shape, MountKind::Bind { source, access: access(host.access) })
    }

    fn push(&mut self, target: &str, shape: MountPoint, kind: MountKind) -> Result<(), StepError> {
        let target = RootfsPath::parse(target)?;
        self.targets.push((target.clone(), shape));
        self.mounts.push(sandbox::Mount { target, kind });
        Ok(())
    }

    fn add_secret(&mut self, secret: &plan::SecretMount, services: &Services<'_>) -> Result<(), StepError> {
        let Some(Secret { value, .. }) = services.secrets.get(&secret.id) else {
            return match secret.presence {
                Presence::Required => Err(StepError::SecretMissing(secret.id.clone())),
                Presence::Optional => Ok(()),
            };
        };
        if let Some(name) = &secret.env {
            use std::os::unix::ffi::OsStringExt as _;
            self.env.push((name.into(), OsString::from_vec(value.clone())));
        }
        let Some(target) = &secret.target else { return Ok(()) };
        let content = Content(value.clone());
        let kind = MountKind::File { content, mode: secret.mode, uid: secret.uid, gid: secret.gid };
        self.push(target.as_str(), MountPoint::File, kind)
    }

    fn add_ssh(&mut self, ssh: &plan::SshMount, services: &Services<'_>) -> Result<(), StepError> {
        let Some(agent) = services.agents.get(&ssh.id) else {
            return match ssh.presence {
                Presence::Required => Err(StepError::AgentMissing(ssh.id.clone())),
                Presence::Optional => Ok(()),
            };
        };
        let access = agent::Access { mode: ssh.mode, uid: ssh.uid, gid: ssh.gid };
        let socket = AgentSocket::open(&services.lease.scratch_dir()?, agent, access)
            .map_err(|source| StepError::Agent { id: ssh.id.clone(), source })?;
        if self.agents.is_empty() {
            self.env.push(("SSH_AUTH_SOCK".into(), ssh.target.as_str().into()));
        }
        let source = BindSource::Path(socket.path().to_owned());
        self.agents.push(socket);
        let kind = MountKind::Bind { source, access: sandbox::Access::ReadWrite };
        self.push(ssh.target.as_str(), MountPoint::File, kind)
    }

    fn add_cache(&mut self, cache: &plan::CacheMount, caches: &Caches) -> Result<(), StepError> {
        let claimed = caches.0.get(&cache.id).expect("every cache of a RUN is claimed before it runs");
        // With a source elsewhere, the path says what of that the cache begins with.
        let path = match &cache.from {
            Some(_) => RootfsPath::root(),
            None => RootfsPath::parse(cache.path.as_str())?,
        };
        // What lies in a cache was written by processes inside: links in it must not lead out of it.
        let opened = Root::open(claimed.path()).and_then(|root| root.resolve(&path));
        let failed = |source| StepError::CachePath { id: cache.id.as_str().to_owned(), path, source };
        let source = BindSource::Descriptor(opened.map_err(failed)?);
        let kind = MountKind::Bind { source, access: access(cache.access) };
        self.push(cache.target.as_str(), MountPoint::Directory, kind)
    }

    fn add_bind(&mut self, bind: &BindMount, mount: &Mount, sources: &Sources<'_>) -> Result<(), StepError> {
        let services = sources.services;
        let (filesystem, path) = (sources.mounted)(&bind.from, mount)?;
        let rootfs = Rootfs::plain(services.layers, &filesystem.ids())?;
        let path = shown_path(&bind.from, &bind.path, path)?;
        let (path, shape) = mounted_path(&path, &rootfs.merged)?;
        let upper = match bind.access {
            Access::ReadOnly => None,
            // Writes are allowed and thrown away.
            Access::ReadWrite => {
                let directory = services.lease.scratch_dir()?;
                rootfs.prepare_top(&directory)?;
                Some(Upper {
                    directory,
                    work: services.lease.scratch_dir()?,
                    durability: Durability::Volatile,
                })
            }
        };
        let lower = rootfs.lower;
        let kind = MountKind::Layers { layers: Layers { lower, upper }, path };
        self.push(bind.target.as_str(), shape, kind)
    }
}

/// What a bind mount shows: of a context file, the one file in its layer.
fn mounted_path(path: &RootfsPath, merged: &Merged) -> Result<(RootfsPath, MountPoint), StepError> {
    let resolved = merged.resolve(path, layer::merged::Follow::Last)?;
    let shape = match resolved.found {
        Some(found) if !found.entry.is_directory() => MountPoint::File,
        _ => MountPoint::Directory,
    };
    Ok((resolved.path, shape))
}

fn access(access: Access) -> sandbox::Access {
    match access {
        Access::ReadOnly => sandbox::Access::ReadOnly,
        Access::ReadWrite => sandbox::Access::ReadWrite,
    }
}

/// `/etc/hosts` of a RUN.
fn hosts(run: &Run) -> String {
    let mut text = format!(
        "127.0.0.1\tlocalhost {}\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
        run.hostname
    );
    for host in &run.extra_hosts {
        text.push_str(&format!("{}\t{}\n", host.address, host.name));
    }
    text
}

/// Starts the process, passes its output on, and waits for its end.
fn run_process(run: &Run, spec: &Spec, context: &RunContext<'_>) -> Result<sandbox::Exit, StepError> {
    if context.cancel.is_cancelled() {
        return Err(StepError::Cancelled);
    }
    let (process, output) = context.sandboxes.start(spec)?;
    if (context.is_another_run_left)() {
        context.sandboxes.expect_another(spec);
    }
    let Output::Captured { stdout, stderr } = output else { unreachable!("that is what was asked for") };
    let (log_id, log_file) = &context.log;
    let events = context.sources.services.events;
    let told = |stream, bytes| events(Event::Log { step: context.step, stream, bytes });
    let log = StepLog::new(stdout, stderr, log_file, &told);
    let written = follow(&process, log, context.cancel).map_err(StepError::Log)?;
    let exit = process.wait()?;
    if context.cancel.is_cancelled() {
        return Err(StepError::Cancelled);
    }
    written.kept.map_err(StepError::Log)?;
    if exit.ending == Ending::Exited(0) {
        return Ok(exit);
    }
    Err(RunFailure {
        command: run.command.clone(),
        ending: exit.ending,
        out_of_memory: exit.oom_killed,
        last_lines: written.last_lines,
        log: context.sources.services.lease.store().log_path(log_id),
        left: spec.root.upper.as_ref().map(|upper| upper.directory.clone()).unwrap_or_default(),
    }
    .into())
}

/// Passes a process' output on until it has ended, which ends all others in its sandbox and so the output. A process of a cancelled build is
/// asked to end, and killed if it takes its time.
fn follow(process: &Process, mut log: StepLog<'_>, cancel: &Cancel) -> io::Result<Written> {
    let (cancelled, raise) = io::pipe()?;
    // There is room for one byte in an empty pipe, so this does not wait.
    let _hook = cancel.hook(move || drop((&raise).write(&[0])));
    let signaller = process.signaller();
    let (mut is_running, mut is_asked, mut deadline) = (true, false, None::<Instant>);
    while is_running || log.open_streams().next().is_some() {
        let streams: Vec<BorrowedFd<'_>> = log.open_streams().collect();
        let count = streams.len();
        let waits_for_end = is_running.then(|| process.as_fd());
        let waits_for_cancel = (!is_asked).then(|| cancelled.as_fd());
        let all: Vec<_> = streams.into_iter().chain(waits_for_end).chain(waits_for_cancel).collect();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let readable = sys::poll::readable(&all, left)?;
        let mut rest = readable[count..].iter();
        is_running &= !(waits_for_end.is_some() && rest.next() == Some(&true));
        if waits_for_cancel.is_some() && rest.next() == Some(&true) {
            is_asked = true;
            deadline = Some(Instant::now() + GRACE);
            log_failure("asked to end", signaller.signal(SIGTERM));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            deadline = None;
            log_failure("killed", signaller.kill());
        }
        log.read(&readable[..count]);
    }
    Ok(log.finish())
}

/// The process may have ended meanwhile.
fn log_failure(what: &str, result: Result<(), sandbox::SandboxError>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a cancelled step could not be {what}");
    }
}
