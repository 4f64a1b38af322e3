//! The arguments of `run`, understood: Docker's rules for what runs, as whom, with which environment and mounts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use oci::Execution;
use sandbox::{
    Access, BindSource, Layers, Limits, MissingCwd, Mount, MountKind, Network, NewPrivileges, PidOne, Spec,
    Stdio, User,
};
use sys::RootfsPath;
use sys::terminal::WindowSize;

use crate::cli::{RunArgs, RunNetwork};
use crate::commands::run::streams;
use crate::commands::run::surroundings::Surroundings;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::network;

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) input: Input,
    pub(crate) network: Network,
    is_terminal: bool,
    /// `None` for a value takes the variable away.
    env: Vec<(String, Option<String>)>,
    volumes: Vec<Volume>,
    tmpfs: Vec<Tmpfs>,
    cwd: Option<RootfsPath>,
    user: Option<User>,
    /// Instead of the image's; an empty one takes that away.
    entrypoint: Option<String>,
    command: Vec<String>,
    root_access: Access,
    pid_one: PidOne,
    limits: Limits,
    /// In which control group the process' own is made.
    pub(super) cgroup_parent: Option<PathBuf>,
}

/// What the process reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Input {
    /// Nothing.
    Closed,
    /// Our own standard input.
    Ours,
    /// The keyboard of our terminal, key by key.
    Keyboard,
}

/// One `--volume`.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) source: PathBuf,
    pub(crate) target: RootfsPath,
    pub(crate) access: Access,
}

/// One `--tmpfs`.
#[derive(Debug, Eq, PartialEq)]
struct Tmpfs {
    target: RootfsPath,
    size_bytes: Option<u64>,
    mode: u32,
}

impl Request {
    pub(crate) fn read(args: &RunArgs, environment: &Environment) -> Result<Self, Failure> {
        let request = Self {
            input: input(args, environment)?,
            network: match args.network {
                RunNetwork::Host => Network::Host,
                RunNetwork::None => Network::None,
            },
            is_terminal: args.tty,
            env: variables(args, environment),
            tmpfs: args.tmpfs.iter().map(|text| Tmpfs::parse(text)).collect::<Result<_, _>>()?,
            cwd: args.workdir.as_deref().map(|path| absolute("--workdir", path)).transpose()?,
            user: args.user.as_deref().map(user).transpose()?,
            entrypoint: args.entrypoint.clone(),
            command: args.command().to_vec(),
            root_access: if args.read_only { Access::ReadOnly } else { Access::ReadWrite },
            pid_one: if args.init { PidOne::Init } else { PidOne::Command },
            limits: args.limits.read()?,
            cgroup_parent: args.limits.cgroup_parent()?,
            volumes: args.volumes.iter().map(|text| Volume::parse(text)).collect::<Result<_, _>>()?,
        };
        request.check_targets()?;
        Ok(request)
    }

    /// As with Docker, the source of a volume that is not there becomes a directory. For when nothing else is wrong.
    pub(crate) fn make_volumes(&self) -> Result<(), Failure> {
        self.volumes.iter().try_for_each(make)
    }

    fn check_targets(&self) -> Result<(), Failure> {
        let volumes = self.volumes.iter().map(|volume| &volume.target);
        let mut targets: Vec<&RootfsPath> = volumes.chain(self.tmpfs.iter().map(|t| &t.target)).collect();
        targets.sort();
        match targets.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => {
                Err(Failure::usage(format!("two mounts are to be at `{}`", pair[0]), "leave one of them out"))
            }
            None => Ok(()),
        }
    }

    /// Puts it together with what the image says.
    pub(crate) fn spec(
        &self,
        execution: &Execution,
        root: Layers,
        surroundings: Surroundings,
    ) -> Result<Spec, Failure> {
        let cwd = match &self.cwd {
            Some(cwd) => cwd.clone(),
            None => RootfsPath::parse_clamped(&execution.working_dir).map_err(|error| {
                Failure::usage(
                    format!("the image's working directory: {error}"),
                    "give another with `--workdir`",
                )
            })?,
        };
        let user = match &self.user {
            Some(user) => user.clone(),
            None => user(&execution.user)?,
        };
        Ok(Spec {
            root,
            root_access: self.root_access,
            args: self.args(execution)?.into_iter().map(OsString::from).collect(),
            env: self.environment(execution, &surroundings.hostname),
            cwd,
            missing_cwd: MissingCwd::Create,
            user,
            hostname: surroundings.hostname.clone(),
            network: self.network,
            limits: self.limits.clone(),
            stdio: self.stdio(),
            pid_one: self.pid_one,
            new_privileges: NewPrivileges::Allowed,
            posture: sandbox::Posture::Confined,
            mounts: surroundings.mounts.into_iter().chain(self.mounts()).collect(),
        })
    }

    fn stdio(&self) -> Stdio {
        match (self.is_terminal, self.input) {
            (true, _) => {
                Stdio::Terminal(streams::terminal_size().unwrap_or(WindowSize { rows: 0, columns: 0 }))
            }
            (false, Input::Closed) => Stdio::Captured,
            (false, Input::Ours | Input::Keyboard) => Stdio::Piped,
        }
    }

    fn mounts(&self) -> Vec<Mount> {
        let volumes = self.volumes.iter().map(|volume| Mount {
            target: volume.target.clone(),
            kind: MountKind::Bind { source: BindSource::Path(volume.source.clone()), access: volume.access },
        });
        let tmpfs = self.tmpfs.iter().map(|tmpfs| Mount {
            target: tmpfs.target.clone(),
            kind: MountKind::Tmpfs { size_bytes: tmpfs.size_bytes, mode: tmpfs.mode },
        });
        volumes.chain(tmpfs).collect()
    }

    /// An entrypoint of one's own also takes away the image's command, which is made of arguments for its own entrypoint.
    fn args(&self, execution: &Execution) -> Result<Vec<String>, Failure> {
        let (entrypoint, command) = match &self.entrypoint {
            Some(program) if program.is_empty() => (Vec::new(), self.command.clone()),
            Some(program) => (vec![program.clone()], self.command.clone()),
            None if self.command.is_empty() => {
                (execution.entrypoint.clone().unwrap_or_default(), execution.cmd.clone().unwrap_or_default())
            }
            None => (execution.entrypoint.clone().unwrap_or_default(), self.command.clone()),
        };
        let args = [entrypoint, command].concat();
        if args.is_empty() {
            return Err(Failure::usage(
                "no command is given, and the image has none".to_owned(),
                "name one behind the image",
            ));
        }
        Ok(args)
    }

    /// Docker's order: what every container has, then the image's, then one's own; a name keeps its first place and gets its last value.
    fn environment(&self, execution: &Execution, hostname: &str) -> Vec<(OsString, OsString)> {
        let mut variables = Execution::default();
        variables.set_env("PATH", oci::DEFAULT_PATH);
        variables.set_env("HOSTNAME", hostname);
        if self.is_terminal {
            variables.set_env("TERM", "xterm");
        }
        for pair in &execution.env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            variables.set_env(name, value);
        }
        for (name, value) in &self.env {
            match value {
                Some(value) => variables.set_env(name, value),
                None => variables.env.retain(|pair| pair.split('=').next() != Some(name.as_str())),
            }
        }
        let pairs = variables.env.iter().filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.into(), value.into())).collect()
    }
}

fn input(args: &RunArgs, environment: &Environment) -> Result<Input, Failure> {
    match (args.interactive, args.tty, environment.stdin_is_terminal) {
        (false, _, _) => Ok(Input::Closed),
        (true, true, true) => Ok(Input::Keyboard),
        (true, false, _) => Ok(Input::Ours),
        (true, true, false) => Err(Failure::usage(
            "`-it` needs a terminal, and standard input is none".to_owned(),
            "leave out `-t` to direct a file or a pipe into the process",
        )),
    }
}

/// `NAME=VALUE`, or `NAME` for the value that it has here.
/// Those of the command line, and behind them what is configured of proxies and not said there.
fn variables(args: &RunArgs, environment: &Environment) -> Vec<(String, Option<String>)> {
    let mut given: Vec<_> = args.env.iter().map(|text| variable(text, environment)).collect();
    let configured = network::proxies_of_containers(environment).into_iter();
    let unsaid =
        configured.filter(|(name, _)| given.iter().all(|(said, _)| !said.eq_ignore_ascii_case(name)));
    let unsaid: Vec<_> = unsaid.map(|(name, value)| (name, Some(value))).collect();
    given.extend(unsaid);
    given
}

fn variable(text: &str, environment: &Environment) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), environment.variable(text).map(ToOwned::to_owned)),
    }
}

fn user(text: &str) -> Result<User, Failure> {
    text.parse().map_err(|error: sandbox::UserError| {
        Failure::usage(error.to_string(), "a user is written as USER or USER:GROUP, each a name or a number")
    })
}

/// A path in the container.
fn absolute(flag: &str, text: &str) -> Result<RootfsPath, Failure> {
    const HELP: &str = "a path in the container begins with `/`";
    if !text.starts_with('/') {
        return Err(Failure::usage(format!("`{flag}`: `{text}` is no absolute path"), HELP));
    }
    RootfsPath::parse_clamped(text).map_err(|error| Failure::usage(format!("`{flag}`: {error}"), HELP))
}

/// A path that something is mounted at.
fn target(flag: &str, text: &str) -> Result<RootfsPath, Failure> {
    let path = absolute(flag, text)?;
    if path.is_root() {
        return Err(Failure::usage(
            format!("`{flag}`: nothing can be mounted at `/`"),
            "mount it at a directory below",
        ));
    }
    Ok(path)
}

impl Volume {
    /// `SOURCE:TARGET[:OPTION,…]`.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        const HELP: &str = "write it as SOURCE:TARGET or SOURCE:TARGET:ro, both paths from the root";
        let mut parts = text.split(':');
        let (Some(source), Some(path), options, None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Failure::usage(format!("`--volume {text}` is not understood"), HELP));
        };
        let target = target("--volume", path)?;
        let source = source_path(source)?;
        let mut access = Access::ReadWrite;
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            access = match option {
                "ro" | "readonly" => Access::ReadOnly,
                "rw" => Access::ReadWrite,
                _ => {
                    return Err(Failure::usage(
                        format!("`--volume {text}` has an unknown option `{option}`"),
                        HELP,
                    ));
                }
            };
        }
        Ok(Self { source, target, access })
    }
}

/// A directory or file of the machine. A bare word would be the name of a volume, and there are none yet.
fn source_path(text: &str) -> Result<PathBuf, Failure> {
    if text.starts_with('/') {
        return Ok(PathBuf::from(text));
    }
    if text == "." || text == ".." || text.starts_with("./") || text.starts_with("../") {
        return std::path::absolute(text).map_err(|error| {
            Failure::usage(format!("`--volume`: `{text}`: {error}"), "give the path from the root")
        });
    }
    Err(Failure::usage(
        format!("`--volume`: `{text}` is no path"),
        "a path begins with `/` or `./`; volumes with names do not exist yet",
    ))
}

fn make(volume: &Volume) -> Result<(), Failure> {
    let source = &volume.source;
    let made = match fs::metadata(source) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => fs::create_dir_all(source),
        found => found.map(drop),
    };
    match made {
        Ok(()) => Ok(()),
        Err(error) => Err(Failure::usage(
            format!("`--volume`: cannot use `{}`: {error}", source.display()),
            "give a directory or file that can be read",
        )),
    }
}

impl Tmpfs {
    /// `TARGET[:size=BYTES,mode=OCTAL]`.
    fn parse(text: &str) -> Result<Self, Failure> {
        const HELP: &str = "write it as TARGET or TARGET:size=64m,mode=1777";
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        let mut tmpfs = Self { target: target("--tmpfs", path)?, size_bytes: None, mode: 0o1777 };
        let fields: BTreeMap<&str, &str> = options
            .split(',')
            .filter(|o| !o.is_empty())
            .map(|o| o.split_once('=').unwrap_or((o, "")))
            .collect();
        for (key, value) in fields {
            let wrong =
                || Failure::usage(format!("`--tmpfs {text}`: `{key}={value}` is not understood"), HELP);
            match key {
                "size" => tmpfs.size_bytes = Some(plan::parse_size(value).ok_or_else(wrong)?),
                "mode" => {
                    let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
                    tmpfs.mode = mode.ok_or_else(wrong)?;
                }
                _ => {
                    return Err(Failure::usage(
                        format!("`--tmpfs {text}` has an unknown option `{key}`"),
                        HELP,
                    ));
                }
            }
        }
        Ok(tmpfs)
    }
}
