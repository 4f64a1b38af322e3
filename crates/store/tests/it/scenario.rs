//! What child processes do: the test binary starts itself again, with the name of a scenario.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use store::{Lease, Object, PrunePolicy, Record, Store, Tag};

use crate::support::{Form, Outcome, key, layer_id, reference, try_commit, try_publish};

pub(crate) const HOLD_A_LEASE: &str = "hold a lease";
pub(crate) const HOLD_A_STEP: &str = "hold a step";
pub(crate) const PIN_A_LAYER: &str = "pin a layer";
pub(crate) const BUILD: &str = "build";
pub(crate) const PRUNE: &str = "prune";
pub(crate) const RETAG: &str = "retag";
pub(crate) const CROWD: &str = "crowd";

const SCENARIO: &str = "STORE_TEST_SCENARIO";
const ROOT: &str = "STORE_TEST_ROOT";
const TRACED: &str = "STORE_TEST_TRACED";

/// A process that works on a store.
pub(crate) struct Child {
    pub(crate) process: std::process::Child,
    lines: BufReader<ChildStdout>,
    traced_thread: Option<Pid>,
}

impl Child {
    pub(crate) fn start(root: &Path, scenario: &str) -> Self {
        Self::spawn(root, scenario, false)
    }

    /// Starts a process that asks to be traced by the calling thread and then stops.
    pub(crate) fn start_traced(root: &Path, scenario: &str) -> Self {
        Self::spawn(root, scenario, true)
    }

    fn spawn(root: &Path, scenario: &str, is_traced: bool) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "scenario::child_process", "--nocapture", "--test-threads=1"]);
        command.env(SCENARIO, scenario).env(ROOT, root).stdin(Stdio::piped()).stdout(Stdio::piped());
        if is_traced {
            command.env(TRACED, "1");
        }
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Self { process, lines, traced_thread: None }
    }

    /// Waits until the child says something of its own.
    pub(crate) fn wait_for_line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some((_, said)) = line.split_once("> ") {
                return Some(said.trim_end().to_owned());
            }
        }
    }

    /// Waits for the child to say which of its threads it lets be traced.
    pub(crate) fn wait_for_thread(&mut self) -> Pid {
        let thread = Pid::from_raw(self.wait_for_line().unwrap().parse().unwrap());
        self.traced_thread = Some(thread);
        thread
    }

    /// Everything the child says until it ends.
    pub(crate) fn remaining_lines(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.wait_for_line()).collect()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        if let Some(thread) = self.traced_thread {
            // It must be waited for by its tracer before its process can be.
            let end = waitpid(thread, Some(WaitPidFlag::__WALL));
            assert!(matches!(end, Ok(WaitStatus::Signaled(..)) | Err(Errno::ECHILD)), "{end:?}");
        }
        self.process.wait().unwrap();
    }

    pub(crate) fn finish(mut self) {
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Already waited for, in a test that passes.
        if matches!(self.process.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

/// Does nothing in the tests' own process.
#[test]
fn child_process() {
    let (Ok(scenario), Ok(root)) = (env::var(SCENARIO), env::var(ROOT)) else { return };
    let root = PathBuf::from(root);
    if env::var(TRACED).is_ok() {
        // The test harness runs tests beside the main thread, and only the calling thread is traced.
        ptrace::traceme().unwrap();
        say(&nix::unistd::gettid().to_string());
        raise(Signal::SIGSTOP).unwrap();
    }
    // An error is an answer like any other; only a panic makes the child fail.
    if let Err(error) = run(&scenario, &root) {
        say(&format!("error: {error}"));
    }
}

pub(crate) fn run(scenario: &str, root: &Path) -> Outcome<()> {
    let store = Store::open(root)?;
    match scenario {
        HOLD_A_LEASE => {
            let lease = store.lease()?;
            fs::write(lease.scratch_dir()?.join("x"), "x")?;
            hold();
        }
        HOLD_A_STEP => {
            let _lock = store.try_step_lock(&key("step"))?.unwrap();
            hold();
        }
        PIN_A_LAYER => {
            let lease = store.lease()?;
            try_publish(&lease, "pinned", &[Form::Fs])?;
            hold();
        }
        BUILD => build(&store)?,
        PRUNE => drop(store.prune(&PrunePolicy::everything())?),
        RETAG => {
            let lease = store.lease()?;
            let tag = store.tag(&reference("two"))?.unwrap();
            lease.set_tag(&Tag { reference: reference("one"), ..tag })?;
            store.remove_tag(&reference("two"))?;
            say("retagged");
            lease.close()?;
        }
        CROWD => crowd(&store),
        other => panic!("no scenario `{other}`"),
    }
    Ok(())
}

fn say(line: &str) {
    println!("> {line}");
    std::io::stdout().flush().unwrap();
}

/// Says that all is ready and waits to be killed: the parent holds the other end of stdin.
fn hold() {
    say("ready");
    std::io::read_to_string(std::io::stdin()).unwrap();
}

/// What a build of three steps does: look up, run under a lock, publish, record, commit.
fn build(store: &Store) -> Outcome<()> {
    let lease = store.lease()?;
    for step in ["base", "middle", "top"] {
        build_step(store, &lease, step)?;
    }
    try_commit(&lease, "app", &["base", "middle", "top"])?;
    say("committed");
    lease.put_build_report("app", &[], b"report")?;
    Ok(lease.close()?)
}

fn build_step(store: &Store, lease: &Lease, step: &str) -> Outcome<()> {
    if lease.record(&key(step))?.is_some() {
        return Ok(());
    }
    let lock = store.wait_step_lock(&key(step), || false)?.unwrap();
    if lease.record(&key(step))?.is_none() {
        let (log, mut file) = lease.create_log()?;
        lock.announce_log(&log)?;
        file.write_all(step.as_bytes())?;
        try_publish(lease, step, &[Form::Fs])?;
        let needs = vec![Object::Layer(layer_id(step)), Object::Log(log)];
        lease.put_record(&key(step), &Record { needs, payload: step.as_bytes().to_vec() })?;
    }
    Ok(())
}

/// One of many processes that build and prune at random; the seed is its process id.
fn crowd(store: &Store) {
    let mut state = std::process::id();
    for _ in 0..12 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match (state >> 16) % 4 {
            0 => drop(store.prune(&PrunePolicy::unneeded()).unwrap()),
            1 => drop(store.prune(&PrunePolicy::everything()).unwrap()),
            _ => build(store).unwrap(),
        }
    }
}
