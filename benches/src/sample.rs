//! One measured command.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sys::process::Ending;

/// What `/proc` counts CPU time in: the kernel promises programs 100 ticks a second (USER_HZ) on every machine of ours.
const TICK_MILLIS: u64 = 10;

/// What a command cost.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// From start to end.
    pub wall: Duration,
    /// Of the command and its children, and what the daemon used meanwhile.
    pub cpu: Duration,
    /// Of the largest process of the command, plus those of the daemon's processes.
    pub peak_bytes: u64,
}

/// Measures `command`; what it says goes to `log`.
///
/// The peak of a small process is never below our own, since Linux counts the memory a process had before it executed its program.
///
/// # Errors
/// If it cannot be started or fails; the error has the last of what it said.
pub fn measure(command: &mut Command, daemon: Option<&Daemon>, log: &Path) -> Result<Sample> {
    let output = File::create(log)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let before = daemon.map(Daemon::begin).transpose()?.unwrap_or_default();
    let began = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let ended = sys::process::wait(sys::process::open(child.id())?)?;
    let wall = began.elapsed();
    if ended.ending != Ending::Exited(0) {
        let said = fs::read_to_string(log)?;
        let tail: String =
            said.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
        bail!("{command:?} ended with {:?}:\n{tail}", ended.ending);
    }
    let (daemon_cpu, daemon_peak) = daemon.map(Daemon::usage).transpose()?.unwrap_or_default();
    let cpu = ended.cpu_time + daemon_cpu.saturating_sub(before);
    Ok(Sample { wall, cpu, peak_bytes: ended.peak_resident_bytes + daemon_peak })
}

/// The processes that work for a client: all of one pid namespace.
#[derive(Clone, Debug)]
pub struct Daemon {
    namespace: PathBuf,
}

impl Daemon {
    /// The daemon whose process 1 is `init`.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn of(init: u32) -> Result<Self> {
        Ok(Self { namespace: fs::read_link(format!("/proc/{init}/ns/pid"))? })
    }

    /// Forgets the peaks so far and gives the CPU time so far.
    fn begin(&self) -> Result<Duration> {
        for process in self.processes()? {
            // A process that is gone has no peak to forget.
            fs::write(process.join("clear_refs"), "5").ok();
        }
        Ok(self.usage()?.0)
    }

    /// CPU time of the living processes and of their dead children, and the sum of the peaks.
    fn usage(&self) -> Result<(Duration, u64)> {
        let (mut cpu, mut peak) = (Duration::ZERO, 0);
        for process in self.processes()? {
            let Ok(stat) = fs::read_to_string(process.join("stat")) else { continue };
            let Ok(status) = fs::read_to_string(process.join("status")) else { continue };
            cpu += Duration::from_millis(cpu_ticks(&stat) * TICK_MILLIS);
            peak += peak_bytes(&status);
        }
        Ok((cpu, peak))
    }

    fn processes(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            if fs::read_link(path.join("ns/pid")).is_ok_and(|namespace| namespace == self.namespace) {
                found.push(path);
            }
        }
        Ok(found)
    }
}

/// utime, stime, cutime and cstime of `/proc/PID/stat` (proc(5)): fields 14 to 17, counted after the name in brackets.
fn cpu_ticks(stat: &str) -> u64 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_ascii_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// `VmHWM` of `/proc/PID/status`.
fn peak_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 200 0 0 11 22 33 44 20 0 1 0 5";
        assert_eq!(cpu_ticks(stat), 110);
    }

    #[test]
    fn a_kernel_thread_has_no_peak() {
        assert_eq!(peak_bytes("Name:\tcat\nVmHWM:\t    1536 kB\n"), 1536 * 1024);
        assert_eq!(peak_bytes("Name:\tkthreadd\n"), 0);
    }

    #[test]
    fn a_command_is_measured_and_a_failing_one_is_quoted() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let sample = measure(Command::new("sleep").arg("0.01"), None, log.path()).unwrap();
        assert!(sample.wall >= Duration::from_millis(10) && sample.peak_bytes > 0, "{sample:?}");
        let error = measure(Command::new("ls").arg("/no/such"), None, log.path()).unwrap_err();
        assert!(error.to_string().contains("/no/such"), "{error}");
    }
}
