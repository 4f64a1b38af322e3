//! The plan as text: stable, for `--debug` and for golden files.

use std::fmt::{self, Display, Formatter};

use crate::{
    Access, Archives, CacheMount, ContextName, Copy, Destination, DestinationForm, Fetched, Image, ImagePath,
    Linkage, Mount, NetworkMode, Op, Output, Parents, Place, Plan, Presence, Remote, Run, SecretMount,
    SecurityMode, Sharing, Source, SourcePath, StageLabel, Step, StepId, UserSpec, Variable, VariableOrigin,
    Workdir,
};

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            step.fmt(f)?;
        }
        self.outputs.iter().try_for_each(|output| output.fmt(f))
    }
}

impl Display for Output {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "output: {} of stage {}", self.step, self.stage)?;
        if let Some(epoch) = self.epoch {
            writeln!(f, "made at: {epoch}")?;
        }
        writeln!(f, "history:")?;
        for entry in &self.history {
            match entry.step {
                Some(step) => writeln!(f, "  {:?} ({step})", entry.created_by)?,
                None => writeln!(f, "  {:?}", entry.created_by)?,
            }
        }
        let config = serde_json::to_string_pretty(&self.config).map_err(|_| fmt::Error)?;
        writeln!(f, "config: {config}")
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)?;
        if let Some(place) = &self.place {
            write!(f, " [{place}]")?;
        }
        writeln!(f, " {:?} at {}, {}", self.title, self.span, self.platform)?;
        match &self.op {
            Op::Scratch => writeln!(f, "  scratch"),
            Op::Image(image) => print_image(f, image),
            Op::Remote(remote) => print_remote(f, remote),
            Op::Run(run) => print_run(f, run),
            Op::Copy(copy) => print_copy(f, copy),
            Op::Workdir(workdir) => print_workdir(f, workdir),
        }
    }
}

fn print_image(f: &mut Formatter<'_>, image: &Image) -> fmt::Result {
    writeln!(f, "  image {} for {}, {}", image.reference, image.platform, image.image)
}

fn print_remote(f: &mut Formatter<'_>, remote: &Remote) -> fmt::Result {
    let content = &remote.content;
    write!(f, "  fetch {}", remote.request.url())?;
    if let Some(name) = &content.file_name {
        write!(f, " as {name:?}")?;
    }
    writeln!(f, ", {}", content.digest)
}

fn print_workdir(f: &mut Formatter<'_>, workdir: &Workdir) -> fmt::Result {
    writeln!(f, "  workdir {} on {}", workdir.path, workdir.parent)?;
    print_time(f, workdir.time)?;
    print_user(f, workdir.user.as_ref())
}

fn print_time(f: &mut Formatter<'_>, time: Option<i64>) -> fmt::Result {
    time.map_or(Ok(()), |time| writeln!(f, "    modified at {time}"))
}

fn print_user(f: &mut Formatter<'_>, user: Option<&UserSpec>) -> fmt::Result {
    user.map_or(Ok(()), |user| writeln!(f, "    user {:?}", user.as_str()))
}

fn print_run(f: &mut Formatter<'_>, run: &Run) -> fmt::Result {
    writeln!(f, "  run {:?} on {}", run.args, run.parent)?;
    print_time(f, run.time)?;
    for variable in &run.env {
        writeln!(f, "    {variable}")?;
    }
    for (name, value) in &run.proxy_env {
        writeln!(f, "    proxy {name}={value:?}")?;
    }
    writeln!(f, "    cwd {}", run.cwd)?;
    print_user(f, run.user.as_ref())?;
    for mount in &run.mounts {
        writeln!(f, "    mount {mount}")?;
    }
    writeln!(f, "    network {}, hostname {}", run.network, run.hostname)?;
    if run.security == SecurityMode::Insecure {
        writeln!(f, "    insecure")?;
    }
    for host in &run.extra_hosts {
        writeln!(f, "    host {} is {}", host.name, host.address)?;
    }
    if let Some(script) = &run.script {
        writeln!(f, "    script {:?} {:?}", script.name, script.content)?;
    }
    writeln!(f, "    command {:?}", run.command)
}

fn print_copy(f: &mut Formatter<'_>, copy: &Copy) -> fmt::Result {
    let linkage = match copy.linkage {
        Linkage::OnParent => "on",
        Linkage::Independent => "linked above",
    };
    writeln!(f, "  copy to {} {linkage} {}", copy.destination, copy.parent)?;
    print_time(f, copy.time)?;
    if !copy.paths.is_empty() {
        writeln!(f, "    from {}", copy.from)?;
    }
    for path in &copy.paths {
        writeln!(f, "    source {path}")?;
    }
    for file in &copy.inline {
        writeln!(f, "    file {:?} {:?}", file.name, file.content)?;
    }
    if let Some(owner) = &copy.owner {
        writeln!(f, "    owner {owner}")?;
    }
    if let Some(mode) = &copy.mode {
        writeln!(f, "    mode {mode}")?;
    }
    for pattern in &copy.exclude {
        writeln!(f, "    exclude {pattern:?}")?;
    }
    if copy.parents == Parents::Kept {
        writeln!(f, "    parents kept")?;
    }
    if copy.archives == Archives::Unpacked {
        writeln!(f, "    archives unpacked")?;
    }
    Ok(())
}

impl Display for StepId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "step {}", self.index())
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(platform) = &self.platform {
            write!(f, "{platform}")?;
            // As BuildKit writes that something is compiled on one platform for another.
            if let Some(target) = self.target.as_ref().filter(|target| *target != platform) {
                let same_system = target.os == platform.os;
                let target = target.to_string();
                let shown = if same_system {
                    target.split_once('/').map_or(&*target, |(_, rest)| rest)
                } else {
                    &target
                };
                write!(f, "->{shown}")?;
            }
            f.write_str(" ")?;
        }
        write!(f, "{} {}/{}", self.stage, self.number, self.of)
    }
}

impl Display for StageLabel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "stage-{}", self.index),
        }
    }
}

impl Display for Variable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let origin = match self.origin {
            VariableOrigin::Env => "env",
            VariableOrigin::Arg => "arg",
        };
        write!(f, "{origin} {}={:?}", self.name, self.value)
    }
}

impl Display for NetworkMode {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::None => "none",
            Self::Host => "host",
        })
    }
}

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Context(name) => name.fmt(f),
            Self::Step(step) => step.fmt(f),
        }
    }
}

impl Display for ContextName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Main => f.write_str("the context"),
            Self::Named(name) => write!(f, "context {name}"),
        }
    }
}

impl Display for SourcePath {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.pattern)?;
        if !self.pivot.is_empty() {
            write!(f, " below {:?}", self.pivot)?;
        }
        if self.is_wildcard() {
            f.write_str(", a pattern")?;
        }
        match self.fetched {
            Some(Fetched { step, archives: Archives::Unpacked }) => write!(f, " of {step}, unpacked"),
            Some(Fetched { step, archives: Archives::Copied }) => write!(f, " of {step}"),
            None => Ok(()),
        }
    }
}

impl Display for Destination {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.form {
            DestinationForm::Directory => write!(f, "directory {}", self.path),
            DestinationForm::Open => self.path.fmt(f),
            DestinationForm::ExistingDirectory => write!(f, "existing directory {}", self.path),
        }
    }
}

impl Display for Mount {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(bind) => {
                write!(f, "bind {} of {} at {}, {}", bind.path, bind.from, bind.target, bind.access)
            }
            Self::Cache(cache) => print_cache(f, cache),
            Self::Tmpfs(tmpfs) => {
                write!(f, "tmpfs at {}, {}", tmpfs.target, tmpfs.access)?;
                tmpfs.size_bytes.map_or(Ok(()), |size| write!(f, ", {size} bytes"))
            }
            Self::Secret(secret) => print_secret(f, secret),
            Self::Ssh(ssh) => {
                write!(f, "ssh agent {:?} at {}, mode {:04o}", ssh.id, ssh.target, ssh.mode)?;
                write!(f, " owner {}:{}, {}", ssh.uid, ssh.gid, ssh.presence)
            }
            Self::Host(host) => {
                write!(f, "{} of the machine at {}, {}", host.source.display(), host.target, host.access)
            }
        }
    }
}

fn print_cache(f: &mut Formatter<'_>, cache: &CacheMount) -> fmt::Result {
    write!(f, "cache {:?} at {}, {}, {}", cache.id.as_str(), cache.target, cache.sharing, cache.access)?;
    write!(f, ", mode {:04o} owner {}:{}", cache.mode, cache.uid, cache.gid)?;
    if cache.path != ImagePath::root() {
        write!(f, ", only {}", cache.path)?;
    }
    cache.from.as_ref().map_or(Ok(()), |from| write!(f, ", begins as {from}"))
}

fn print_secret(f: &mut Formatter<'_>, secret: &SecretMount) -> fmt::Result {
    write!(f, "secret {:?}", secret.id)?;
    if let Some(target) = &secret.target {
        write!(f, " at {target}, mode {:04o} owner {}:{}", secret.mode, secret.uid, secret.gid)?;
    }
    if let Some(env) = &secret.env {
        write!(f, " in ${env}")?;
    }
    write!(f, ", {}", secret.presence)
}

impl Display for Presence {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Optional => "optional",
            Self::Required => "required",
        })
    }
}

impl Display for Access {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "read-write",
        })
    }
}

impl Display for Sharing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "shared",
            Self::Private => "private",
            Self::Locked => "locked",
        })
    }
}
