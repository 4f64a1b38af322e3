//! Running `git` with nothing of anybody's but what it is told.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::GitError;
use crate::Authorization;

/// How long at most until it is noticed that the caller has cancelled.
const CANCEL_LATENCY: Duration = Duration::from_millis(100);

/// How long git has to take its lock files away when it is told to end.
const GRACE: Duration = Duration::from_secs(2);

/// The program, and where it finds others.
#[derive(Clone, Debug)]
pub struct Program {
    /// `git` itself.
    pub path: PathBuf,
    /// `PATH` for its own helpers.
    pub search_path: OsString,
    /// The certificates of those whom to trust, if not what it was built with.
    pub certificates: Option<PathBuf>,
    /// The variables that say through whom to ask.
    pub proxies: Vec<(&'static str, String)>,
    /// How it reaches others by ssh, if it may.
    pub ssh: Option<Ssh>,
}

/// How others are reached by ssh. Nobody is asked anything on the way, and a host must be known (ssh_config(5)).
#[derive(Clone, Debug)]
pub struct Ssh {
    /// For a shell.
    command: String,
    agent: Option<PathBuf>,
    /// Where the command looks for what is the user's.
    home: Option<PathBuf>,
}

impl Ssh {
    /// As the user has it: keys, agent, configuration, and perhaps a command (`GIT_SSH_COMMAND` in git(1)).
    #[must_use]
    pub fn of_user(command: Option<&str>, agent: Option<PathBuf>, home: Option<PathBuf>) -> Self {
        Self {
            command: command
                .unwrap_or("ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15")
                .to_owned(),
            agent,
            home,
        }
    }

    /// With the keys of an agent, and nothing of the user's but the hosts that he knows.
    #[must_use]
    pub fn of_agent(agent: PathBuf) -> Self {
        let command = "ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=yes -o IdentityFile=none \
            -o ConnectTimeout=30 -o ServerAliveInterval=15";
        Self { command: command.to_owned(), agent: Some(agent), home: None }
    }
}

/// One run of it.
pub(super) struct Run<'r> {
    pub(super) program: &'r Program,
    pub(super) directory: &'r Path,
    /// Where what it writes is put.
    pub(super) scratch: &'r Path,
    /// Transports that it may use, separated by colons.
    pub(super) protocols: &'r str,
    /// For which remote, and what.
    pub(super) authorization: Option<(&'r str, &'r Authorization)>,
    pub(super) is_cancelled: &'r dyn Fn() -> bool,
}

/// What a run gave.
pub(super) struct Ran {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    /// The line of its errors that says most.
    pub(super) message: String,
}

impl Program {
    /// Looks for `git` in directories, in order.
    #[must_use]
    pub fn find(directories: &[PathBuf]) -> Option<Self> {
        let path = directories.iter().map(|directory| directory.join("git")).find(|path| path.is_file())?;
        let search_path = std::env::join_paths(directories).ok()?;
        Some(Self { path, search_path, certificates: None, proxies: Vec::new(), ssh: None })
    }
}

impl Run<'_> {
    /// Runs it to its end.
    pub(super) fn run(&self, args: &[&OsStr]) -> Result<Ran, GitError> {
        tracing::debug!(?args, "git");
        let (out, err) = (self.scratch.join("git.out"), self.scratch.join("git.err"));
        let create = |path: &Path| File::create(path).map_err(files(path));
        let mut command = Command::new(&self.program.path);
        self.set_environment(&mut command);
        // Ctrl-C is for us to understand, not for git to fail by; and nothing that it starts finds a terminal to ask anybody on.
        sys::process::leads_session(command.args(args).current_dir(self.directory));
        command.stdin(Stdio::null()).stdout(create(&out)?).stderr(create(&err)?);
        sys::process::bind_to_us(&mut command);
        let status = self.wait(command.spawn().map_err(GitError::Start)?)?;
        let read = |path: &Path| fs::read(path).map_err(files(path));
        let (stdout, stderr) = (read(&out)?, read(&err)?);
        let stderr = String::from_utf8_lossy(&stderr);
        Ok(Ran {
            status,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            message: telling_line(&stderr).to_owned(),
        })
    }

    fn set_environment(&self, command: &mut Command) {
        let nowhere = "/dev/null";
        command.env_clear().env("PATH", &self.program.search_path);
        for (name, value) in [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", nowhere),
            ("GIT_CONFIG_SYSTEM", nowhere),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "/bin/false"),
            ("GIT_ALLOW_PROTOCOL", self.protocols),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("HOME", "/nonexistent"),
            ("LC_ALL", "C"),
        ] {
            command.env(name, value);
        }
        let ssh = self.program.ssh.as_ref();
        command.env("GIT_SSH_COMMAND", ssh.map_or("/bin/false", |ssh| &ssh.command));
        if let Some(home) = ssh.and_then(|ssh| ssh.home.as_ref()) {
            command.env("HOME", home);
        }
        if let Some(agent) = ssh.and_then(|ssh| ssh.agent.as_ref()) {
            command.env("SSH_AUTH_SOCK", agent);
        }
        command.envs(self.program.proxies.iter().map(|(name, value)| (name, value)));
        if let Some(certificates) = &self.program.certificates {
            command.env("GIT_SSL_CAINFO", certificates);
        }
        // By the environment, so that no list of processes shows a token.
        let mut config = vec![
            ("core.hooksPath".to_owned(), nowhere.to_owned()),
            ("core.fsmonitor".to_owned(), "false".to_owned()),
            ("core.attributesFile".to_owned(), nowhere.to_owned()),
            ("core.excludesFile".to_owned(), nowhere.to_owned()),
            ("advice.detachedHead".to_owned(), "false".to_owned()),
            ("init.defaultBranch".to_owned(), "master".to_owned()),
            ("gc.auto".to_owned(), "0".to_owned()),
            ("maintenance.auto".to_owned(), "false".to_owned()),
            ("http.lowSpeedLimit".to_owned(), "1000".to_owned()),
            ("http.lowSpeedTime".to_owned(), "60".to_owned()),
            ("safe.directory".to_owned(), "*".to_owned()),
        ];
        if let Some((remote, authorization)) = self.authorization {
            let header = format!("Authorization: {}", authorization.reveal());
            config.push((format!("http.{}.extraheader", scope(remote)), header));
            // A server that redirects must not have the header taken along.
            config.push(("http.followRedirects".to_owned(), "false".to_owned()));
        }
        command.env("GIT_CONFIG_COUNT", config.len().to_string());
        for (number, (key, value)) in config.into_iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
    }

    fn wait(&self, mut child: Child) -> Result<ExitStatus, GitError> {
        let ended = self.wait_or_cancel(&child);
        if ended.is_err()
            && let Err(error) = end_group(&child)
        {
            tracing::debug!(%error, "git's group cannot be ended, so git alone is");
            child.kill().map_err(GitError::Start)?;
        }
        let status = child.wait().map_err(GitError::Start)?;
        ended.map(|()| status)
    }

    fn wait_or_cancel(&self, child: &Child) -> Result<(), GitError> {
        let pidfd = sys::process::open(child.id()).map_err(GitError::Start)?;
        while !sys::process::ends_within(&pidfd, CANCEL_LATENCY).map_err(GitError::Start)? {
            if (self.is_cancelled)() {
                return Err(GitError::Cancelled);
            }
        }
        Ok(())
    }
}

/// Ends git and the helpers that it started, which are a group: by the signal that has it tidy up, and then by the one that nobody outlives.
fn end_group(child: &Child) -> io::Result<()> {
    let pidfd = sys::process::open(child.id())?;
    sys::process::signal_group(child.id(), sys::process::SIGTERM)?;
    if !sys::process::ends_within(&pidfd, GRACE)? {
        tracing::debug!("git does not end when told to");
    }
    // It is not reaped yet, so the number still is its group's.
    sys::process::signal_group(child.id(), sys::process::SIGKILL)
}

/// What git says when ssh, right above, has said why.
const BROUGHT_TO_AN_END: &str = "fatal: Could not read from remote repository.";

/// The first line in which git or the server says what is wrong, or else the last that says anything.
fn telling_line(stderr: &str) -> &str {
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let says_why = |line: &&str| ["fatal:", "error:", "remote:"].iter().any(|start| line.starts_with(start));
    let of_ssh = lines().take_while(|line| *line != BROUGHT_TO_AN_END).last();
    if let Some(line) = of_ssh.filter(|_| lines().any(|line| line == BROUGHT_TO_AN_END)) {
        return line;
    }
    lines().find(says_why).or_else(|| lines().next_back()).unwrap_or_default()
}

/// Scheme and host of a remote: where its credentials belong.
fn scope(remote: &str) -> String {
    let (scheme, rest) = remote.split_once("://").unwrap_or(("", remote));
    format!("{scheme}://{}/", rest.split('/').next().unwrap_or_default())
}

pub(super) fn files(path: &Path) -> impl FnOnce(io::Error) -> GitError + '_ {
    move |source| GitError::Files { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_line_that_says_why() {
        let told =
            "Cloning\nfatal: repository not found\nPlease make sure you have the correct access rights\n\n";
        assert_eq!(telling_line(told), "fatal: repository not found");
        assert_eq!(telling_line("one\n two \n\n"), "two");
        let by_ssh = "Warning: added\ngit@h: Permission denied (publickey).\r\nfatal: Could not read from remote repository.\n\nPlease";
        assert_eq!(telling_line(by_ssh), "git@h: Permission denied (publickey).");
        assert_eq!(telling_line(""), "");
    }
}
