//! RUN: one process tree over the layers so far, and the layer of what it changed.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use image::{MountPoint, Rootfs};
use layer::merged::Merged;
use layer::seal::seal;
use plan::{Access, BindMount, Mount, NetworkMode, Presence, Run, Sharing, StepId};
use sandbox::{
    BindSource, Content, Durability, Ending, Layers, Limits, MissingCwd, MountKind, Network, NewPrivileges,
    Output, PidOne, Sandboxes, Signaller, Spec, Stdio, Upper,
};
use store::{CacheMountRequest, CacheSharing, Layer, LogId};
use sys::RootfsPath;
use sys::root::Dir;

use crate::filesystem::Filesystem;
use crate::services::Cancel;
use crate::{Event, RunFailure, Services, StepError, step_log};

/// What a process may take to end by itself when the build is cancelled.
const GRACE: Duration = Duration::from_millis(700);

const SIGTERM: i32 = 15;

/// Finds the layer list that a source of a mount shows, and where in it to look.
type Mounted<'m> = dyn Fn(&plan::Source, &Mount) -> Result<(Filesystem, RootfsPath), StepError> + Sync + 'm;

/// What a RUN needs besides the plan.
pub(crate) struct RunContext<'r> {
    pub(crate) step: StepId,
    pub(crate) services: &'r Services<'r>,
    pub(crate) sandboxes: &'r Sandboxes,
    /// Whether this is not the last process that may have to be started.
    pub(crate) is_another_run_left: &'r (dyn Fn() -> bool + Sync),
    pub(crate) cancel: &'r Arc<Cancel>,
    /// Where its log goes.
    pub(crate) log: (LogId, File),
    /// The layer list that each source of a mount shows: of steps, or of context files that were copied into a layer.
    pub(crate) mounted: &'r Mounted<'r>,
}

/// A RUN's outcome.
pub(crate) struct Ran {
    pub(crate) layer: Layer,
    pub(crate) peak_memory_bytes: u64,
}

/// Runs the process, and seals and publishes its layer.
pub(crate) fn execute(run: &Run, below: &Filesystem, context: &RunContext<'_>) -> Result<Ran, StepError> {
    let services = context.services;
    let mut prepared = Prepared::default();
    prepared.add_standard(run, services);
    for mount in &run.mounts {
        prepared.add(mount, context)?;
    }
    let rootfs = Rootfs::new(services.layers, &below.ids(), &prepared.targets)?;
    let draft = services.lease.layer_draft()?;
    let directory = draft.make_fs()?;
    let upper_dir = rootfs.prepare_top(&directory)?;
    let upper = Upper { directory, work: services.lease.scratch_dir()?, durability: Durability::Volatile };
    let root = Layers { lower: rootfs.lower.clone(), upper: Some(upper) };
    let env = std::mem::take(&mut prepared.env);
    let spec = spec(run, root, std::mem::take(&mut prepared.mounts), env)?;
    let exit = run_process(run, &spec, context)?;
    // Cache directories are free for the next step as soon as the process is gone.
    drop(prepared);

    let layer = seal_layer(&upper_dir, &rootfs.merged, draft, context)?;
    Ok(Ran { layer, peak_memory_bytes: exit.peak_memory_bytes })
}

fn seal_layer(
    upper: &Dir,
    merged: &Merged,
    draft: store::LayerDraft,
    context: &RunContext<'_>,
) -> Result<Layer, StepError> {
    let cancelled = || context.cancel.is_cancelled();
    let packed = seal(upper, merged, context.services.jobs.min(4), &cancelled)?;
    Ok(context.services.layers.publish(draft, &packed)?)
}

fn spec(
    run: &Run,
    root: Layers,
    mounts: Vec<sandbox::Mount>,
    secrets: Vec<(OsString, OsString)>,
) -> Result<Spec, StepError> {
    let variables = run.env.iter().map(|variable| (&variable.name, &variable.value));
    let proxies = run.proxy_env.iter().map(|(name, value)| (name, value));
    let env =
        variables.chain(proxies).map(|(name, value)| (name.into(), value.into())).chain(secrets).collect();
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
        limits: Limits::default(),
        stdio: Stdio::Captured,
        pid_one: PidOne::Command,
        new_privileges: NewPrivileges::Allowed,
    })
}

/// Mounts, the names they need in the root, and what must stay alive meanwhile.
#[derive(Default)]
struct Prepared {
    mounts: Vec<sandbox::Mount>,
    targets: Vec<(RootfsPath, MountPoint)>,
    env: Vec<(OsString, OsString)>,
    caches: Vec<store::CacheMount>,
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

    fn add(&mut self, mount: &Mount, context: &RunContext<'_>) -> Result<(), StepError> {
        match mount {
            Mount::Tmpfs(tmpfs) => {
                let kind = MountKind::Tmpfs { size_bytes: tmpfs.size_bytes, mode: 0o755 };
                self.push(tmpfs.target.as_str(), MountPoint::Directory, kind)
            }
            Mount::Secret(secret) => self.add_secret(secret, context.services),
            Mount::Cache(cache) => self.add_cache(cache, mount, context),
            Mount::Bind(bind) => self.add_bind(bind, mount, context),
        }
    }

    fn push(&mut self, target: &str, shape: MountPoint, kind: MountKind) -> Result<(), StepError> {
        let target = RootfsPath::parse(target)?;
        self.targets.push((target.clone(), shape));
        self.mounts.push(sandbox::Mount { target, kind });
        Ok(())
    }

    fn add_secret(&mut self, secret: &plan::SecretMount, services: &Services<'_>) -> Result<(), StepError> {
        let Some(value) = services.secrets.get(&secret.id) else {
            return match secret.presence {
                Presence::Required => Err(StepError::SecretMissing(secret.id.clone())),
                Presence::Optional => Ok(()),
            };
        };
        if let Some(name) = &secret.env {
            use std::os::unix::ffi::OsStringExt as _;
            self.env.push((name.into(), OsString::from_vec(value.0.clone())));
        }
        let Some(target) = &secret.target else { return Ok(()) };
        let content = Content(value.0.clone());
        let kind = MountKind::File { content, mode: secret.mode, uid: secret.uid, gid: secret.gid };
        self.push(target.as_str(), MountPoint::File, kind)
    }

    fn add_cache(
        &mut self,
        cache: &plan::CacheMount,
        mount: &Mount,
        context: &RunContext<'_>,
    ) -> Result<(), StepError> {
        let seed = |directory: &Path| -> std::io::Result<()> {
            let Some(from) = &cache.from else { return Ok(()) };
            let (filesystem, _) = (context.mounted)(from, mount).map_err(std::io::Error::other)?;
            crate::copy::write_tree(&filesystem, &cache.path, directory, context.services)
                .map_err(std::io::Error::other)
        };
        let request = CacheMountRequest {
            id: cache.id.as_str(),
            sharing: match cache.sharing {
                Sharing::Shared => CacheSharing::Shared,
                Sharing::Private => CacheSharing::Private,
                Sharing::Locked => CacheSharing::Locked,
            },
            mode: cache.mode,
            uid: cache.uid,
            gid: cache.gid,
            seed: cache.from.is_some().then_some(&seed),
        };
        let claimed = context.services.lease.cache_mount(&request, || context.cancel.is_cancelled())?;
        let claimed = claimed.ok_or(StepError::Cancelled)?;
        let source = match (&cache.from, cache.path.is_root()) {
            (None, false) => claimed.path().join(cache.path.relative()),
            _ => claimed.path().to_owned(),
        };
        let kind = MountKind::Bind { source: BindSource::Path(source), access: access(cache.access) };
        self.caches.push(claimed);
        self.push(cache.target.as_str(), MountPoint::Directory, kind)
    }

    fn add_bind(
        &mut self,
        bind: &BindMount,
        mount: &Mount,
        context: &RunContext<'_>,
    ) -> Result<(), StepError> {
        let services = context.services;
        let (filesystem, path) = (context.mounted)(&bind.from, mount)?;
        let rootfs = Rootfs::plain(services.layers, &filesystem.ids())?;
        let path = match &bind.from {
            // Only what was selected of a context is in its layer.
            plan::Source::Context(_) => path,
            plan::Source::Step(_) => RootfsPath::parse(bind.path.as_str())?,
        };
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
    let hook = context.cancel.hook(stopper(process.signaller()));
    let (log_id, log_file) = &context.log;
    let events = context.services.events;
    let told = |stream, bytes| events(Event::Log { step: context.step, stream, bytes });
    // The end of its first process is the end of all, so both streams end, too.
    let (last_lines, kept) = match output {
        Output::Captured { stdout, stderr } => step_log::keep(stdout, stderr, log_file, &told),
        _ => (Vec::new(), Ok(())),
    };
    let exit = process.wait()?;
    drop(hook);
    if context.cancel.is_cancelled() {
        return Err(StepError::Cancelled);
    }
    kept.map_err(StepError::Log)?;
    if exit.ending == Ending::Exited(0) {
        return Ok(exit);
    }
    Err(RunFailure {
        command: run.command.clone(),
        ending: exit.ending,
        out_of_memory: exit.oom_killed,
        last_lines,
        log: context.services.lease.store().log_path(log_id),
    }
    .into())
}

/// Asks a process to end, and ends it if it does not. A hook, so it must not block.
fn stopper(signaller: Signaller) -> impl Fn() + Send + 'static {
    move || {
        let signaller = signaller.clone();
        std::thread::spawn(move || {
            if let Err(error) = signaller.signal(SIGTERM) {
                tracing::debug!(%error, "a cancelled step could not be asked to end");
            }
            std::thread::sleep(GRACE);
            if let Err(error) = signaller.kill() {
                tracing::warn!(%error, "a cancelled step could not be killed");
            }
        });
    }
}
