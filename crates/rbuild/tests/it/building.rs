//! A build that is going on: its lines as they come, and its end, or ours for it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a line, or the end, may take to come.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running program, usually `rbuild build --progress plain`.
#[derive(Debug)]
pub(crate) struct Building {
    child: Child,
    lines: Receiver<(Instant, String)>,
    reader: JoinHandle<()>,
}

impl Building {
    /// Starts a command; its standard error is what is read.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let stderr = child.stderr.take().expect("it was asked for");
        let (to, lines) = channel();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n') {
                let line = String::from_utf8_lossy(&line.expect("a pipe can be read")).into_owned();
                // Nobody listens any more when the test has seen enough.
                to.send((Instant::now(), line)).ok();
            }
        });
        Self { child, lines, reader }
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads on until a line contains `text`: when it came. `None` if the program ends without one.
    pub(crate) fn wait_for(&self, text: &str) -> Option<Instant> {
        loop {
            let (at, line) = self.lines.recv_timeout(PATIENCE).ok()?;
            if line.contains(text) {
                return Some(at);
            }
        }
    }

    /// SIGKILL; whether it was in time, so that the program did not end by itself.
    pub(crate) fn kill(self) -> bool {
        self.kill_and_read().0
    }

    /// The same, and the lines that nobody has read yet.
    pub(crate) fn kill_and_read(mut self) -> (bool, Vec<String>) {
        self.child.kill().expect("a child can be killed");
        let status = self.child.wait().expect("a child can be waited for");
        self.reader.join().expect("the reader does not panic");
        (status.signal() == Some(9), self.lines.try_iter().map(|(_, line)| line).collect())
    }

    /// Waits for its end: how, and the lines that nobody has read yet.
    pub(crate) fn finish(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("a child can be waited for");
        self.reader.join().expect("the reader does not panic");
        let lines: Vec<String> = self.lines.try_iter().map(|(_, line)| line).collect();
        (status, lines.join("\n"))
    }
}
