//! RUN.

use dockerfile::{CommandLine, Heredoc, Span};

use crate::finding::{ErrorKind, Fallible, Feature, Finding, MAX_HOSTNAME_BYTES};
use crate::instruction::{Item, StageLowering};
use crate::lower::{Lowering, Purpose};
use crate::state::StageState;
use crate::{Entitlement, InlineFile, Mount, NetworkMode, Op, Run, SecurityMode, config};

/// What a RUN executes.
struct Command {
    args: Vec<String>,
    script: Option<InlineFile>,
    /// The command on one line, as people know it.
    shown: String,
}

impl StageLowering<'_, '_> {
    pub(crate) fn run(&mut self, run: &dockerfile::Run, item: &Item<'_>) -> Fallible<()> {
        check_support(run)?;
        self.count(self.state.env.bytes() + self.state.args.bytes(), item.span)?;
        let hostname = self.shared.args.hostname();
        if hostname.len() > MAX_HOSTNAME_BYTES || hostname.contains('\0') {
            let error = Finding::new(ErrorKind::Hostname(hostname.to_owned()), item.span);
            return Err(error.help("give a shorter one with `--build-arg`").into());
        }
        // The Dockerfile's own stand in front of the machine's.
        let mut mounts = self.shared.plain_run(&self.state).mounts;
        for mount in &run.mounts {
            let sockets = mounts.iter().filter(|mount| matches!(mount, Mount::Ssh(_))).count();
            mounts.push(self.mount(mount, item, sockets)?);
        }
        let command = self.command(run);
        let title = match run.script() {
            Some(script) => format!("{} ({})", item.title, summary(&script.content)),
            None => item.title.clone(),
        };
        let line = format!("RUN {} # buildkit", self.history_words(&command.args).join(" "));
        let sources = mounts.iter().filter_map(|mount| mount.source()?.step());
        let time = self.shared.graph.time(std::iter::once(self.state.step).chain(sources));
        let op = Run {
            args: command.args,
            mounts,
            network: self.network(run)?,
            security: self.security(run)?,
            script: command.script,
            command: command.shown,
            time,
            ..self.shared.plain_run(&self.state)
        };
        let origin = self.origin(item, title);
        let step = self.shared.graph.push(Op::Run(Box::new(op)), origin);
        self.state.advance(step, line);
        Ok(())
    }

    fn command(&self, run: &dockerfile::Run) -> Command {
        let config = &self.state.config;
        let (text, shown) = match (&run.command.node, run.script()) {
            (CommandLine::Exec(words), _) => {
                return Command { args: words.clone(), script: None, shown: words.join(" ") };
            }
            (CommandLine::Shell(_), Some(script)) if script.body().starts_with("#!") => {
                return self.script_command(script);
            }
            (CommandLine::Shell(_), Some(script)) => (script.body(), summary(&script.content)),
            (CommandLine::Shell(text), None) => (reassembled(text, &run.heredocs), text.clone()),
        };
        Command { args: config::with_shell(config, &text), script: None, shown }
    }

    /// A heredoc with an interpreter of its own: a file that is mounted and executed, by the shell as the reference
    /// implementation does it.
    fn script_command(&self, script: &Heredoc) -> Command {
        let path = format!("/dev/pipes/{}", script.name);
        Command {
            args: config::with_shell(&self.state.config, &path),
            script: Some(InlineFile { name: script.name.clone(), content: script.body() }),
            shown: summary(&script.content),
        }
    }

    /// `RUN --network=default` means what the build was started with, as no flag does.
    fn network(&self, run: &dockerfile::Run) -> Fallible<NetworkMode> {
        let given = self.shared.request.network;
        let Some(network) = &run.network else { return Ok(given) };
        match network.node {
            dockerfile::NetworkMode::Default => Ok(given),
            dockerfile::NetworkMode::None => Ok(NetworkMode::None),
            // What the whole build was given needs no further word.
            dockerfile::NetworkMode::Host if given == NetworkMode::Host => Ok(NetworkMode::Host),
            dockerfile::NetworkMode::Host => {
                self.must_be_allowed(Entitlement::NetworkHost, network.span)?;
                Ok(NetworkMode::Host)
            }
        }
    }

    fn security(&self, run: &dockerfile::Run) -> Fallible<SecurityMode> {
        match &run.security {
            Some(security) if security.node == dockerfile::SecurityMode::Insecure => {
                self.must_be_allowed(Entitlement::SecurityInsecure, security.span)?;
                Ok(SecurityMode::Insecure)
            }
            _ => Ok(SecurityMode::Sandbox),
        }
    }

    /// Who only looks at a file allows nothing, and nothing happens.
    fn must_be_allowed(&self, entitlement: Entitlement, span: Span) -> Fallible<()> {
        if self.shared.purpose == Purpose::Check || self.shared.request.allowed.contains(&entitlement) {
            return Ok(());
        }
        let error = Finding::new(ErrorKind::NotAllowed(entitlement), span);
        Err(Box::new(
            error
                .help(format!("if you trust this Dockerfile, build with `--allow {}`", entitlement.as_str())),
        ))
    }

    /// `|N A=1 B=2 /bin/sh -c …`: the ARGs declared so far with the values the command sees, each once, then the command.
    fn history_words(&self, args: &[String]) -> Vec<String> {
        let declared = self.state.args.iter();
        let count = (declared.len() > 0).then(|| format!("|{}", declared.len()));
        let seen = |name: &str, own: Option<&str>| {
            format!("{name}={}", self.state.env.get(name).or(own).unwrap_or_default())
        };
        let pairs = declared.map(|(name, own)| seen(name, own));
        count.into_iter().chain(pairs).chain(args.iter().cloned()).collect()
    }
}

impl Lowering<'_> {
    /// A RUN of nothing, with all that a stage in this state gives to any.
    pub(crate) fn plain_run(&self, state: &StageState) -> Run {
        Run {
            parent: state.step,
            args: Vec::new(),
            env: state.env.to_vec(),
            proxy_env: self.args.proxy_env(&state.env),
            cwd: state.cwd(),
            user: state.user(),
            mounts: self.request.volumes.iter().cloned().map(Mount::Host).collect(),
            network: self.request.network,
            security: SecurityMode::Sandbox,
            hostname: self.args.hostname().to_owned(),
            extra_hosts: self.request.extra_hosts.clone(),
            script: None,
            command: String::new(),
            time: self.graph.time([state.step]),
        }
    }
}

/// Refuses what would otherwise run in another way than it asks for.
fn check_support(run: &dockerfile::Run) -> Fallible<()> {
    let Some(device) = run.devices.first() else { return Ok(()) };
    let error = Finding::new(ErrorKind::Unsupported(Feature::Device), device.span);
    Err(Box::new(error.help("remove the flag if the command works without the device")))
}

/// A line with heredocs in it goes to the shell together with their bodies and end words, as they were written.
fn reassembled(line: &str, heredocs: &[Heredoc]) -> String {
    let bodies: String =
        heredocs.iter().map(|heredoc| format!("\n{}{}", heredoc.content, heredoc.name)).collect();
    format!("{line}{bodies}")
}

/// The first line of a script, for people.
fn summary(content: &str) -> String {
    let mut lines = content.trim().lines();
    let first = lines.next().unwrap_or_default().trim_end();
    if lines.next().is_some() { format!("{first}…") } else { first.to_owned() }
}
