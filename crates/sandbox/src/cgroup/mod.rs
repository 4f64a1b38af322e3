//! Control groups: `rbuild/OWNER/N` in each hierarchy of cgroup 1 that is used, and `rbuild/OWNER/confined/N` in cgroup 2, made before a process starts and removed after it is gone.
//!
//! Moving a process into a group by writing `cgroup.procs` waits for an RCU grace period: 9 to 23 ms where this was measured, three
//! times what a whole sandbox costs. So:
//!
//! * on cgroup 2 the process is *born* in its group (`CLONE_INTO_CGROUP`), which costs nothing;
//! * on cgroup 1, which has no such call, a process joins a group only when a limit was asked for, or a parent for the groups. Without, its
//!   peak memory is that of its largest process, as counted by the kernel anyway.
//!
//! | machine | group of its own | joined by | devices decided by |
//! | --- | --- | --- | --- |
//! | cgroup 2 with the memory controller | always | birth | program on `rbuild/OWNER/confined` |
//! | cgroup 2 without controllers (hybrid) | none, `rbuild/OWNER/confined` | birth | program on `rbuild/OWNER/confined` |
//! | cgroup 1 | for limits, one per controller | the process itself | – |
//! | neither writable | none | – | nothing: `nodev` everywhere |

mod devices;
mod v1;
mod v2;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{Limits, Machine, Posture, SandboxError};

pub(crate) use devices::RULES as DEVICE_RULES;

/// Directory of all our groups in each hierarchy.
const PARENT: &str = "rbuild";

/// How long a killed process may take to leave its group.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Names one user of sandboxes, usually one rbuild process: its groups can be found and removed when it died.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Owner(String);

impl FromStr for Owner {
    type Err = SandboxError;

    /// Parses 1 to 64 lower-case letters, digits, `-` and `_`.
    fn from_str(name: &str) -> Result<Self, SandboxError> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if (1..=64).contains(&name.len()) && name.bytes().all(fits) {
            Ok(Self(name.to_owned()))
        } else {
            Err(SandboxError::OwnerName(name.to_owned()))
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The groups of one owner.
#[derive(Debug)]
pub(crate) struct Groups {
    owner: Owner,
    next: AtomicU64,
    unified: Option<v2::Parent>,
    /// Per controller of cgroup 1, the mount of its hierarchy, or what was asked for below it.
    legacy: Vec<(String, PathBuf)>,
    /// Whether a process joins every one of them.
    joins_all: bool,
    hierarchies: Vec<PathBuf>,
    /// Groups on the way to ours that were not there, the innermost first.
    missing: Vec<PathBuf>,
}

/// The group or groups of one sandbox; dropping it removes them, for which its processes must be gone.
#[derive(Debug)]
pub(crate) struct Group {
    /// The cgroup 2 directory to be born in.
    pub(crate) birthplace: Option<Arc<OwnedFd>>,
    /// The cgroup 1 groups that the process joins, by controller.
    pub(crate) joined: Vec<v1::Membership>,
    directories: Vec<PathBuf>,
    memory: Option<MemoryFiles>,
}

/// Where a group says what its memory came to.
#[derive(Debug)]
struct MemoryFiles {
    peak: PathBuf,
    events: PathBuf,
}

/// What a group says at the end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct MemoryUse {
    pub(crate) peak_bytes: Option<u64>,
    pub(crate) oom_kills: u64,
}

impl Groups {
    pub(crate) fn open(machine: &Machine, owner: Owner) -> Result<Self, SandboxError> {
        let legacy = machine.cgroup1.iter().map(|(name, at)| (name.clone(), machine.groups_at(at)));
        let legacy: Vec<(String, PathBuf)> = legacy.collect();
        let hierarchies = hierarchies(machine);
        let missing = |at: &PathBuf| {
            at.ancestors().map(Path::to_owned).take_while(|path| !path.exists()).collect::<Vec<_>>()
        };
        let missing = hierarchies.iter().flat_map(missing).collect();
        let unified = match &machine.cgroup2 {
            Some(at) => Some(v2::Parent::open(at, &owner, machine)?),
            None => None,
        };
        let joins_all = machine.cgroup_parent.is_some();
        Ok(Self { owner, next: AtomicU64::new(0), unified, legacy, joins_all, hierarchies, missing })
    }

    /// Makes what a sandbox with these limits needs.
    pub(crate) fn make(&self, limits: &Limits, posture: Posture) -> Result<Group, SandboxError> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let mut group = Group { birthplace: None, joined: Vec::new(), directories: Vec::new(), memory: None };
        let mut left = limits.clone();
        if let Some(unified) = &self.unified {
            unified.make(&name, posture, &mut left, &mut group)?;
        }
        let legacy = v1::Hierarchies { all: &self.legacy, owner: &self.owner, joins_all: self.joins_all };
        legacy.make(&name, &mut left, &mut group)?;
        match first_limit(&left) {
            Some(resource) => Err(SandboxError::CannotLimit { resource }),
            None => Ok(group),
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for hierarchy in &self.hierarchies {
            let parent = hierarchy.join(PARENT);
            let own = parent.join(&self.owner.0);
            v2::PLACES.iter().for_each(|place| remove(&own.join(place)));
            remove(&own);
            // The parent stays while another owner has groups in it.
            remove(&parent);
        }
        self.missing.iter().for_each(|path| remove(path));
    }
}

impl Group {
    /// Memory use so far.
    pub(crate) fn memory(&self) -> MemoryUse {
        let Some(files) = &self.memory else { return MemoryUse::default() };
        // A file that is missing on this kernel (memory.peak before 5.19) leaves the coarser figure.
        let peak_bytes = fs::read_to_string(&files.peak).ok().and_then(|text| text.trim().parse().ok());
        let events = fs::read_to_string(&files.events).unwrap_or_default();
        let oom_kills = events
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "))
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or(0);
        MemoryUse { peak_bytes, oom_kills }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.directories.iter().for_each(|directory| remove(directory));
    }
}

fn hierarchies(machine: &Machine) -> Vec<PathBuf> {
    let mounts = machine.cgroup1.values().chain(&machine.cgroup2);
    let mut all: Vec<PathBuf> = mounts.map(|at| machine.groups_at(at)).collect();
    all.sort();
    all.dedup();
    all
}

/// The owners that have groups on this machine, dead or alive.
///
/// # Errors
/// Those of reading the cgroup file systems.
pub fn owners(machine: &Machine) -> Result<Vec<Owner>, SandboxError> {
    let mut found = Vec::new();
    for parent in hierarchies(machine).into_iter().map(|at| at.join(PARENT)) {
        found.extend(subdirectories(&parent)?.iter().filter_map(|path| {
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok())
        }));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Kills what is left in the groups of an owner that died, and removes them. The caller knows that it died.
///
/// # Errors
/// [`SandboxError::Cgroup`] for the first group that could not be removed.
pub fn sweep(machine: &Machine, dead: &Owner) -> Result<(), SandboxError> {
    for hierarchy in hierarchies(machine) {
        let parent = hierarchy.join(PARENT);
        sweep_directory(&parent.join(&dead.0))?;
        remove(&parent);
    }
    Ok(())
}

fn sweep_directory(directory: &Path) -> Result<(), SandboxError> {
    for below in subdirectories(directory)? {
        sweep_directory(&below)?;
    }
    kill_members(directory).and_then(|()| fs::remove_dir(directory)).or_else(|source| match source.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(SandboxError::Cgroup { path: directory.to_owned(), source }),
    })
}

fn kill_members(directory: &Path) -> io::Result<()> {
    let file = directory.join("cgroup.procs");
    for pid in fs::read_to_string(&file)?.lines().filter_map(|line| line.parse::<u32>().ok()) {
        let Ok(pidfd) = sys::process::open(pid) else { continue };
        // The number may have been given to another process before it was opened; now it cannot any more.
        let still_member = fs::read_to_string(&file)?.lines().any(|line| line.parse() == Ok(pid));
        if still_member && sys::process::signal(&pidfd, sys::process::SIGKILL).is_ok() {
            sys::process::ends_within(&pidfd, KILL_PATIENCE)?;
        }
    }
    Ok(())
}

fn subdirectories(directory: &Path) -> Result<Vec<PathBuf>, SandboxError> {
    let failed = |source| SandboxError::Cgroup { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn first_limit(limits: &Limits) -> Option<&'static str> {
    [
        ("memory", limits.memory_bytes.is_some()),
        ("swap", limits.memory_and_swap_bytes.is_some()),
        ("cpu", limits.cpu_millis.is_some() || limits.cpu_shares.is_some()),
        ("cpuset", limits.cpus.is_some() || limits.memory_nodes.is_some()),
        ("pids", limits.pids.is_some()),
    ]
    .into_iter()
    .find_map(|(name, is_left)| is_left.then_some(name))
}

/// Makes `rbuild/OWNER` (or more) below a hierarchy. Another owner may remove the emptied parent at the same time.
fn create(directory: &Path) -> Result<(), SandboxError> {
    let mut result = Ok(());
    for _ in 0..8 {
        result = fs::create_dir_all(directory);
        if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    result.map_err(|source| SandboxError::Cgroup { path: directory.to_owned(), source })
}

fn write(directory: &Path, file: &str, value: &str) -> Result<(), SandboxError> {
    let path = directory.join(file);
    // Control files exist already; creating one would be a sign that this is no cgroup.
    let written = File::options()
        .write(true)
        .open(&path)
        .and_then(|mut f| io::Write::write_all(&mut f, value.as_bytes()));
    written.map_err(|source| SandboxError::Cgroup { path, source })
}

fn remove(directory: &Path) {
    match fs::remove_dir(directory) {
        Ok(()) => {}
        // Gone, or (the parent only) still in use by others.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::debug!(directory = %directory.display(), %error, "cgroup directory stays");
        }
    }
}
