//! A docker engine in namespaces of its own, alive as long as its [`Engine`].
//!
//! `unshare` gives it mount, pid and network namespaces, and `pivot_root` the peers' root (runc refuses to work below a plain
//! chroot). The engine is process 1 there: it cannot outlive its `unshare`, and `unshare` cannot outlive us.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command;

/// Becomes process 1. The root is bound onto itself because `pivot_root` wants a mount point.
const START: &str = r#"
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /sys "$1/sys"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/run"
ip link set lo up
mkdir "$1/run/machine"
cd "$1"
pivot_root . run/machine
exec chroot . sh -euc '
umount -l /run/machine
exec dockerd --feature containerd-snapshotter=true --data-root "$1" --host unix:///run/docker.sock \
    --iptables=false --ip6tables=false --bridge=none --cgroup-parent /rbuild-peers' engine "$2"
"#;

/// The machine's cgroup trees are the engine's too; an empty cgroup of its name is all it leaves there.
const REMOVE_CGROUPS: &str = "find /sys/fs/cgroup -depth -type d -path '*/rbuild-peers*' -exec rmdir {} +";

/// The line by which dockerd says that it can be used.
const READY: &str = "API listen on";

/// A running docker engine; dropping it ends every process of it.
pub(crate) struct Engine {
    unshare: Child,
    /// dockerd, as the machine numbers it.
    init: Pid,
    log: Option<JoinHandle<Result<()>>>,
    root: PathBuf,
}

impl Engine {
    /// Starts the engine in `root` and returns when it answers. What it stores is in `data_root` there, its log is `log`.
    pub(crate) fn start(root: &Path, data_root: &str, log: &Path) -> Result<Self> {
        fs::create_dir_all(root.join("exchange"))?;
        let mut unshare = Command::new("setpriv");
        unshare.args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--net",
            "--fork",
            "--kill-child",
        ]);
        unshare.args(["sh", "-euc", START, "engine"]).arg(root).arg(data_root);
        unshare.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut unshare = unshare.spawn().context("cannot start `setpriv` (util-linux)")?;
        let stderr = unshare.stderr.take().context("the pipe was asked for")?;
        let (ready, answer) = mpsc::channel();
        let path = log.to_owned();
        let copier = thread::spawn(move || copy_log(stderr, &path, &ready));
        if answer.recv().is_err() {
            unshare.kill()?;
            unshare.wait()?;
            bail!("the engine did not start; see `{}`", log.display());
        }
        let init = only_child(&unshare)?;
        Ok(Self { unshare, init, log: Some(copier), root: root.to_owned() })
    }

    /// A command inside the engine's namespaces, with a bare environment and `/exchange` as working directory.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.init.as_raw_nonzero().to_string());
        command.args(["--mount", "--pid", "--net", "--wdns=/exchange", "env", "-i", "HOME=/root"]);
        command.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", program]).stdin(Stdio::null());
        command
    }

    /// Process 1 of the engine's namespaces, as the machine numbers it.
    pub(crate) fn init(&self) -> u32 {
        self.init.as_raw_nonzero().get().unsigned_abs()
    }

    /// A port of the loopback device that the engine sees.
    ///
    /// # Errors
    /// The engine has ended.
    pub(super) fn listen(&self) -> io::Result<TcpListener> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.init()))?;
        let bind = move || {
            // Of this thread alone; a socket stays where it was made.
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            TcpListener::bind(("127.0.0.1", 0))
        };
        thread::spawn(bind).join().unwrap_or_else(|_| Err(io::Error::other("binding panicked")))
    }

    /// The directory that is `/exchange` inside, as the machine sees it.
    pub(crate) fn exchange(&self) -> PathBuf {
        self.root.join("exchange")
    }

    /// Ends the engine in good order, and removes its cgroups.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(self.init, Signal::TERM).context("cannot signal the engine")?;
        self.unshare.wait()?;
        command::run(Command::new("sh").args(["-c", REMOVE_CGROUPS]))?;
        match self.log.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => bail!("the log's copier panicked"),
            None => Ok(()),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // After `stop` there is nothing to kill; before it, an error is on its way and matters more than this one.
        if matches!(self.unshare.try_wait(), Ok(None)) && self.unshare.kill().is_ok() {
            drop(self.unshare.wait());
        }
    }
}

fn copy_log(stderr: ChildStderr, path: &Path, ready: &mpsc::Sender<()>) -> Result<()> {
    let mut file = File::create(path)?;
    for line in BufReader::new(stderr).lines() {
        let line = line?;
        writeln!(file, "{line}")?;
        if line.contains(READY) {
            // Nobody listens any more when the line comes twice; the log matters all the same.
            ready.send(()).ok();
        }
    }
    Ok(())
}

fn only_child(parent: &Child) -> Result<Pid> {
    let id = parent.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
    let child = children.trim().parse().ok().and_then(Pid::from_raw);
    child.with_context(|| format!("process {id} should have one child, has `{}`", children.trim()))
}

/// Empties the engine's build cache, so that a recording depends on nothing before it.
pub(super) fn forget_builds(engine: &Engine) -> Result<()> {
    command::read(engine.command("docker").args(["buildx", "prune", "--all", "--force"])).map(drop)
}
