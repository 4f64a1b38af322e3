//! Debian's `docker-registry`, where all builders reach it: on loopback of the network namespace that the others are in.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long it may take to begin.
const START: Duration = Duration::from_secs(20);

/// A running registry, ended on drop.
pub struct Registry {
    process: Child,
    host: String,
}

impl Registry {
    /// Starts an empty one that keeps its blobs below `work`.
    ///
    /// # Errors
    /// If it is not installed, or does not begin.
    pub fn start(work: &Path, namespace_of: Option<u32>) -> Result<Self> {
        // Most likely it is free there, too.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let (host, directory) = (format!("127.0.0.1:{port}"), work.join("registry"));
        fs::create_dir_all(&directory)?;
        let config = work.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{host}\"}}\n",
            directory.display()
        );
        fs::write(&config, text)?;
        let mut command = within(namespace_of, Path::new("docker-registry"));
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().context("cannot start `docker-registry`")?;
        let registry = Self { process, host };
        registry.wait(namespace_of)?;
        Ok(registry)
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    fn wait(&self, namespace_of: Option<u32>) -> Result<()> {
        let start = Instant::now();
        let (address, port) = self.host.split_once(':').unwrap_or_default();
        let script = format!("exec 3<>/dev/tcp/{address}/{port}");
        loop {
            let mut bash = within(namespace_of, Path::new("bash"));
            let connected = bash.args(["-c", &script]).stderr(Stdio::null()).status()?;
            if connected.success() {
                return Ok(());
            }
            if start.elapsed() > START {
                bail!("`docker-registry` does not answer at {}", self.host);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if self.process.kill().is_ok() {
            drop(self.process.wait());
        }
    }
}

/// A program in the network namespace of a process.
#[must_use]
pub fn within(namespace_of: Option<u32>, program: &Path) -> Command {
    let Some(process) = namespace_of else { return Command::new(program) };
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{process}/ns/net")).arg("--").arg(program);
    command
}
