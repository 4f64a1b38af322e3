//! `--ssh`: the agents that RUN steps may use.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::cli::StepArgs;
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::session::{Session, store_failure};

const HELP: &str = "write it as default, ID, ID=SOCKET or ID=KEYFILE[,KEYFILE…]; without a path, the agent is that of SSH_AUTH_SOCK";

/// What each id leads to, and the agents of our own among them, which end with this.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    /// Their sockets, by id.
    pub(crate) sockets: BTreeMap<String, PathBuf>,
    own: Vec<OwnAgent>,
}

impl Agents {
    /// Those of a build; key files get an agent in its private area.
    pub(crate) fn of(session: &Session, args: &StepArgs, environment: &Environment) -> Result<Self, Failure> {
        let scratch = || session.lease.scratch_dir().map_err(|error| store_failure(&error));
        Self::open(&args.ssh, environment, &scratch)
    }

    /// Understands every `--ssh`; key files get an agent of their own, whose socket lies in a directory that `scratch` makes.
    pub(crate) fn open(
        options: &[String],
        environment: &Environment,
        scratch: &dyn Fn() -> Result<PathBuf, Failure>,
    ) -> Result<Self, Failure> {
        let mut agents = Self::default();
        for text in options {
            let (id, paths) = text.split_once('=').unwrap_or((text, ""));
            if id.is_empty() {
                return Err(Failure::usage(format!("`--ssh {text}` has no id"), HELP));
            }
            let paths: Vec<&str> = paths.split(',').filter(|path| !path.is_empty()).collect();
            let socket = match paths.as_slice() {
                [] => agent_of_environment(text, environment)?,
                [path] if is_socket(text, path)? => PathBuf::from(path),
                keys => {
                    let own = OwnAgent::start(keys, &scratch()?)?;
                    let socket = own.socket.clone();
                    agents.own.push(own);
                    socket
                }
            };
            agents.sockets.insert(id.to_owned(), socket);
        }
        Ok(agents)
    }
}

fn agent_of_environment(text: &str, environment: &Environment) -> Result<PathBuf, Failure> {
    let socket = environment.variable("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
    let none =
        || Failure::usage(format!("`--ssh {text}`: there is no ssh agent: SSH_AUTH_SOCK is not set"), HELP);
    socket.map(PathBuf::from).ok_or_else(none)
}

fn is_socket(text: &str, path: &str) -> Result<bool, Failure> {
    let found = fs::metadata(path)
        .map_err(|error| Failure::usage(format!("`--ssh {text}`: cannot look at `{path}`: {error}"), HELP))?;
    Ok(found.file_type().is_socket())
}

/// An agent that knows some key files and ends when it is dropped.
#[derive(Debug)]
struct OwnAgent {
    socket: PathBuf,
    process: Child,
}

impl OwnAgent {
    fn start(keys: &[&str], directory: &Path) -> Result<Self, Failure> {
        let socket = directory.join("agent");
        let mut command = Command::new("ssh-agent");
        // In the foreground, so that it is our child; the name is relative, since an address of a socket is short.
        command.args(["-D", "-a", "agent"]).current_dir(directory);
        sys::process::bind_to_us(&mut command);
        let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut process = started.map_err(|error| no_program("ssh-agent", &error))?;
        // It writes where it listens once it does.
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(|error| no_program("ssh-agent", &error))?;
        }
        let agent = Self { socket, process };
        if !agent.socket.exists() {
            return Err(Failure::usage("ssh-agent did not start".to_owned(), "see what it says above"));
        }
        agent.add(keys)?;
        Ok(agent)
    }

    fn add(&self, keys: &[&str]) -> Result<(), Failure> {
        let mut command = Command::new("ssh-add");
        command.args(["-q", "--"]).args(keys).env("SSH_AUTH_SOCK", &self.socket).stdin(Stdio::null());
        let output = command.output().map_err(|error| no_program("ssh-add", &error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let title = format!("cannot read the key `{}`", keys.join("`, `"));
        let help = "a key with a passphrase must be given through an agent that has it: `ssh-add KEYFILE`, then `--ssh default`";
        Err(Failure::new(Exit::Usage, Diagnostic::error("usage", title).note(said).help(help)))
    }
}

fn no_program(name: &str, error: &std::io::Error) -> Failure {
    let title = format!("cannot start `{name}`, which `--ssh` with a key file needs");
    let help = "install OpenSSH's client, or give the socket of a running agent: `--ssh ID=SOCKET`";
    Failure::new(Exit::Machine, Diagnostic::error("ssh-agent", title).note(error.to_string()).help(help))
}

impl Drop for OwnAgent {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            tracing::warn!(%error, "an ssh agent of ours could not be ended");
        }
    }
}
