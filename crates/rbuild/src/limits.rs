//! `--memory` and its kin: what processes may use, as Docker writes it.

use std::ops::RangeInclusive;
use std::path::{Component, PathBuf};

use clap::Args;
use sandbox::{CpuList, Limits, Ulimit, UlimitError, UlimitName};

use crate::failure::Failure;

/// The heading of these options.
const HEADING: &str = "Limits of a process and all it starts";

/// The kernel's period for CPU time where none is asked for, in microseconds (cgroups(7), "cpu.max").
const CPU_PERIOD: u64 = 100_000;

/// The periods that the kernel takes, in microseconds.
const CPU_PERIODS: RangeInclusive<u64> = 1000..=1_000_000;

/// The shares that the kernel takes.
const CPU_SHARES: RangeInclusive<u64> = 2..=262_144;

/// The least memory that the kernel can start a process in, as Docker has it.
const LEAST_MEMORY: u64 = 6 << 20;

/// A limit of memory and swap together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum MemoryAndSwap {
    Bytes(u64),
    Unlimited,
}

/// Options of every command that starts processes. Each names its heading, since others may follow.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LimitArgs {
    /// The most memory, such as 512m or 2g
    #[arg(short, long, help_heading = HEADING, value_name = "BYTES", value_parser = bytes)]
    memory: Option<u64>,
    /// The most memory and swap together; -1 leaves swap unlimited
    #[arg(long, help_heading = HEADING, value_name = "BYTES", value_parser = memory_and_swap, allow_negative_numbers = true)]
    memory_swap: Option<MemoryAndSwap>,
    /// How many processors' worth of time, such as 1.5
    #[arg(long, help_heading = HEADING, value_name = "NUMBER", value_parser = processors, conflicts_with_all = ["cpu_quota", "cpu_period"])]
    cpus: Option<u64>,
    /// CPU time in each period, in microseconds
    #[arg(long, help_heading = HEADING, value_name = "MICROSECONDS")]
    cpu_quota: Option<u64>,
    /// The period of --cpu-quota, in microseconds [default: 100000]
    #[arg(long, help_heading = HEADING, value_name = "MICROSECONDS", requires = "cpu_quota", value_parser = clap::value_parser!(u64).range(CPU_PERIODS))]
    cpu_period: Option<u64>,
    /// Share of CPU time where it is scarce; 1024 is usual
    #[arg(short = 'c', long, help_heading = HEADING, value_name = "SHARES", value_parser = clap::value_parser!(u64).range(CPU_SHARES))]
    cpu_shares: Option<u64>,
    /// Processors that may be used, such as 0-3 or 0,2
    #[arg(long, help_heading = HEADING, value_name = "LIST")]
    cpuset_cpus: Option<CpuList>,
    /// Memory nodes that may be used
    #[arg(long, help_heading = HEADING, value_name = "LIST")]
    cpuset_mems: Option<CpuList>,
    /// The control group in which those of the processes are made
    #[arg(long, help_heading = HEADING, value_name = "PATH")]
    cgroup_parent: Option<PathBuf>,
    /// The size of /dev/shm [default: 64m]
    #[arg(long, help_heading = HEADING, value_name = "BYTES", value_parser = bytes)]
    shm_size: Option<u64>,
    /// A limit of each process, such as nofile=1024:4096
    #[arg(long = "ulimit", help_heading = HEADING, value_name = "NAME=SOFT[:HARD]", value_parser = ulimit)]
    ulimits: Vec<Ulimit>,
}

/// Options of `build` that say the same in buildx' newer way.
#[derive(Args, Debug, Default)]
pub(crate) struct ResourceArgs {
    /// One of the limits as buildx writes it: memory, memory-swap, cpu-shares, cpu-quota, cpu-period, cpuset-cpus or cpuset-mems
    #[arg(long = "resource", help_heading = HEADING, value_name = "NAME=VALUE")]
    resources: Vec<String>,
}

impl ResourceArgs {
    /// The option, if it was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        (!self.resources.is_empty()).then_some("--resource")
    }

    /// The limits with those that are given here in their place.
    pub(crate) fn over(&self, limits: &LimitArgs) -> Result<LimitArgs, Failure> {
        let mut all = limits.clone();
        for text in &self.resources {
            let Some((name, value)) = text.split_once('=') else {
                return Err(wrong(format!("`--resource {text}` has no value"), RESOURCE_HELP));
            };
            all.set(name, value)
                .map_err(|why| wrong(format!("`--resource {text}`: {why}"), RESOURCE_HELP))?;
        }
        Ok(all)
    }
}

const RESOURCE_HELP: &str = "write it as NAME=VALUE, such as `memory=2g` or `cpu-quota=50000`";

impl LimitArgs {
    /// The options that were given.
    pub(crate) fn given(&self) -> impl Iterator<Item = &'static str> {
        let Self { memory, memory_swap, cpus, cpu_quota, cpu_period, cpu_shares, .. } = self;
        let Self { cpuset_cpus, cpuset_mems, cgroup_parent, shm_size, ulimits, .. } = self;
        let all = [
            ("--memory", memory.is_some()),
            ("--memory-swap", memory_swap.is_some()),
            ("--cpus", cpus.is_some()),
            ("--cpu-quota", cpu_quota.is_some()),
            ("--cpu-period", cpu_period.is_some()),
            ("--cpu-shares", cpu_shares.is_some()),
            ("--cpuset-cpus", cpuset_cpus.is_some()),
            ("--cpuset-mems", cpuset_mems.is_some()),
            ("--cgroup-parent", cgroup_parent.is_some()),
            ("--shm-size", shm_size.is_some()),
            ("--ulimit", !ulimits.is_empty()),
        ];
        all.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name)
    }

    /// Sets one by the name that it has in `--resource`.
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number = || value.parse::<u64>().map_err(|_| format!("`{value}` is no number"));
        let within = |range: RangeInclusive<u64>| {
            let fits = |number: &u64| range.contains(number);
            let wrong = || format!("{value} is not from {} to {}", range.start(), range.end());
            number().and_then(|number| Some(number).filter(fits).ok_or_else(wrong))
        };
        let list = || value.parse::<CpuList>().map_err(|error| error.to_string());
        match name {
            "memory" => self.memory = Some(bytes(value)?),
            "memory-swap" => self.memory_swap = Some(memory_and_swap(value)?),
            "cpu-shares" => self.cpu_shares = Some(within(CPU_SHARES)?),
            "cpu-quota" => self.cpu_quota = Some(number()?),
            "cpu-period" => self.cpu_period = Some(within(CPU_PERIODS)?),
            "cpuset-cpus" => self.cpuset_cpus = Some(list()?),
            "cpuset-mems" => self.cpuset_mems = Some(list()?),
            other => return Err(format!("there is no resource `{other}`")),
        }
        Ok(())
    }

    /// Where the control groups are made.
    pub(crate) fn cgroup_parent(&self) -> Result<Option<PathBuf>, Failure> {
        let Some(path) = &self.cgroup_parent else { return Ok(None) };
        let relative = path.strip_prefix("/").unwrap_or(path);
        let is_plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if relative.as_os_str().is_empty() || !is_plain {
            let title = format!("`--cgroup-parent {}` is no control group", path.display());
            return Err(wrong(
                title,
                "write it as a path in the hierarchy, such as `builds` or `/ci/builds`",
            ));
        }
        Ok(Some(relative.to_owned()))
    }

    /// What they come to together.
    pub(crate) fn read(&self) -> Result<Limits, Failure> {
        let both = match self.memory_swap {
            Some(MemoryAndSwap::Bytes(bytes)) => Some(bytes),
            Some(MemoryAndSwap::Unlimited) | None => None,
        };
        if let Some(memory) = self.memory.filter(|memory| *memory < LEAST_MEMORY) {
            return Err(wrong(
                format!("`--memory` of {memory} bytes is less than 6 MiB"),
                "give a process room to start: `--memory 64m`",
            ));
        }
        if both.is_some() && self.memory.is_none() {
            return Err(wrong(
                "`--memory-swap` stands alone".to_owned(),
                "it limits memory and swap together, and needs `--memory` beside it",
            ));
        }
        if both.zip(self.memory).is_some_and(|(both, memory)| both < memory) {
            return Err(wrong(
                "`--memory-swap` is less than `--memory`".to_owned(),
                "it limits memory and swap together, so it is the larger one",
            ));
        }
        let period = self.cpu_period.unwrap_or(CPU_PERIOD);
        // More than there can be is no limit either way.
        let quota = self.cpu_quota.map(|quota| quota.saturating_mul(1000).div_ceil(period));
        Ok(Limits {
            memory_bytes: self.memory,
            memory_and_swap_bytes: both,
            cpu_millis: self.cpus.or(quota),
            cpu_shares: self.cpu_shares,
            cpus: self.cpuset_cpus.clone(),
            memory_nodes: self.cpuset_mems.clone(),
            pids: None,
            shm_bytes: self.shm_size,
            ulimits: last_of_each(&[open_files(), self.ulimits.clone()].concat()),
        })
    }
}

/// What processes get where nothing is asked for, as systemd gives it: the result of a build is not to depend on the shell it was started from.
/// (More than 1024 open files at once is for programs that raise the limit for themselves; some old ones walk over all there could be.)
const OPEN_FILES: &str = "nofile=1024:524288";

fn open_files() -> Vec<Ulimit> {
    vec![OPEN_FILES.parse().expect("the constant is a limit")]
}

/// A hard limit that was lowered cannot be raised again, so only what counts in the end is set.
fn last_of_each(ulimits: &[Ulimit]) -> Vec<Ulimit> {
    let is_last =
        |(at, limit): &(usize, &Ulimit)| ulimits[at + 1..].iter().all(|later| later.name != limit.name);
    ulimits.iter().enumerate().filter(is_last).map(|(_, limit)| *limit).collect()
}

fn wrong(title: String, help: &str) -> Failure {
    Failure::usage(title, help)
}

/// `64m`, `1.5g`, `100`: powers of 1024, as Docker has them.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    plan::parse_size(text).ok_or_else(|| "write a number of bytes, or with a unit: `64m`, `1.5g`".to_owned())
}

fn memory_and_swap(text: &str) -> Result<MemoryAndSwap, String> {
    if text == "-1" { Ok(MemoryAndSwap::Unlimited) } else { bytes(text).map(MemoryAndSwap::Bytes) }
}

/// Thousandths of one processor.
fn processors(text: &str) -> Result<u64, String> {
    let number: f64 = text.parse().map_err(|_| "write a number, such as `2` or `0.5`".to_owned())?;
    let millis = (number * 1000.0).round();
    // The kernel takes no less than a hundredth.
    if !(10.0..1e9).contains(&millis) {
        return Err("write at least 0.01".to_owned());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be within the range"
    )]
    Ok(millis as u64)
}

fn ulimit(text: &str) -> Result<Ulimit, String> {
    text.parse().map_err(|error: UlimitError| match error {
        UlimitError::Name(_) => {
            format!("{error}; there are {}", UlimitName::all().collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_in_thousandths() {
        assert_eq!(processors("1.5"), Ok(1500));
        assert_eq!(processors("0.01"), Ok(10));
        for wrong in ["0", "-1", "many", "NaN", "1e300"] {
            assert!(processors(wrong).is_err(), "{wrong}");
        }
    }

    #[track_caller]
    fn check(args: LimitArgs, expected: Option<u64>) {
        assert_eq!(args.read().unwrap().cpu_millis, expected);
    }

    #[test]
    fn a_quota_is_of_its_period() {
        check(LimitArgs { cpu_quota: Some(50_000), ..LimitArgs::default() }, Some(500));
        check(
            LimitArgs { cpu_quota: Some(50_000), cpu_period: Some(25_000), ..LimitArgs::default() },
            Some(2000),
        );
        check(LimitArgs { cpus: Some(250), ..LimitArgs::default() }, Some(250));
        check(LimitArgs::default(), None);
        check(
            LimitArgs { cpu_quota: Some(u64::MAX), ..LimitArgs::default() },
            Some(u64::MAX.div_ceil(100_000)),
        );
    }

    #[test]
    fn a_resource_has_the_range_of_its_option() {
        let set = |name: &str, value: &str| LimitArgs::default().set(name, value);
        for (name, least) in [("cpu-period", "1000"), ("cpu-shares", "2")] {
            assert_eq!(set(name, least), Ok(()));
            assert!(set(name, "0").is_err_and(|why| why.starts_with("0 is not from ")), "{name}");
        }
    }

    #[test]
    fn memory_and_swap_fit_together() {
        let read = |memory, memory_swap| LimitArgs { memory, memory_swap, ..LimitArgs::default() }.read();
        assert!(read(None, Some(MemoryAndSwap::Bytes(1 << 30))).is_err());
        assert!(read(Some(2 << 30), Some(MemoryAndSwap::Bytes(1 << 30))).is_err());
        assert!(read(Some(1), None).is_err());
        assert_eq!(read(Some(1 << 30), Some(MemoryAndSwap::Unlimited)).unwrap().memory_and_swap_bytes, None);
        assert_eq!(
            read(Some(1 << 30), Some(MemoryAndSwap::Bytes(2 << 30))).unwrap().memory_and_swap_bytes,
            Some(2 << 30)
        );
    }
}
