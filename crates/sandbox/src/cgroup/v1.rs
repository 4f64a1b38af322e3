//! cgroup 1: one hierarchy per controller, joined by writing to `cgroup.procs`, and only for limits.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::{Group, MemoryFiles, Owner, PARENT, create, write};
use crate::{Limits, SandboxError};

/// One group that a process joins.
#[derive(Debug)]
pub(crate) struct Membership {
    /// The controller, as `/sys/fs/cgroup` names it.
    pub(crate) controller: &'static str,
    /// Its `cgroup.procs`, open for writing.
    pub(crate) procs: OwnedFd,
    /// Its directory.
    pub(crate) directory: OwnedFd,
}

/// The hierarchies, and whose groups they get.
pub(super) struct Hierarchies<'h> {
    /// By controller.
    pub(super) all: &'h [(String, PathBuf)],
    pub(super) owner: &'h Owner,
    /// Whether a process joins every one, limits or not.
    pub(super) joins_all: bool,
}

/// How a limit is written, and where; takes it out.
type Setting = (&'static str, &'static str, fn(&mut Limits) -> Option<String>);

const SETTINGS: [Setting; 7] = [
    // Memory before memory with swap, which may not be the smaller one.
    ("memory", "memory.limit_in_bytes", |limits| text(limits.memory_bytes.take())),
    ("memory", "memory.memsw.limit_in_bytes", |limits| text(limits.memory_and_swap_bytes.take())),
    ("pids", "pids.max", |limits| text(limits.pids.take())),
    // Microseconds of each period, which is 100 ms unless somebody changed the root group.
    ("cpu", "cpu.cfs_quota_us", |limits| text(limits.cpu_millis.take().map(|millis| millis * 100))),
    ("cpu", "cpu.shares", |limits| text(limits.cpu_shares.take())),
    ("cpuset", "cpuset.cpus", |limits| text(limits.cpus.take())),
    ("cpuset", "cpuset.mems", |limits| text(limits.memory_nodes.take())),
];

fn text(limit: Option<impl ToString>) -> Option<String> {
    limit.map(|limit| limit.to_string())
}

/// The controllers that a process can be seen by: where it joins all, it joins these.
const JOINED: [&str; 7] = ["memory", "pids", "cpu", "cpuacct", "cpuset", "blkio", "freezer"];

impl Hierarchies<'_> {
    /// Makes a group per limit that a controller here can enforce, and takes those limits out of `limits`.
    pub(super) fn make(
        &self,
        name: &str,
        limits: &mut Limits,
        group: &mut Group,
    ) -> Result<(), SandboxError> {
        for (controller, file, take) in SETTINGS {
            if !self.all.iter().any(|(name, _)| name == controller) {
                continue;
            }
            if let Some(value) = take(limits)
                && let Some(leaf) = self.leaf(controller, name, group)?
            {
                write(&leaf, file, &value)?;
            }
        }
        for controller in JOINED.iter().filter(|_| self.joins_all) {
            self.leaf(controller, name, group)?;
        }
        Ok(())
    }

    /// The group of a controller, made and to be joined.
    fn leaf(
        &self,
        controller: &'static str,
        name: &str,
        group: &mut Group,
    ) -> Result<Option<PathBuf>, SandboxError> {
        let Some((_, at)) = self.all.iter().find(|(name, _)| name == controller) else { return Ok(None) };
        let leaf = at.join(PARENT).join(&self.owner.0).join(name);
        // Two controllers mounted together share the directory.
        if !group.directories.contains(&leaf) {
            create(&leaf)?;
            group.directories.push(leaf.clone());
            if controller == "cpuset" {
                hand_down(&leaf)?;
            }
            group.joined.push(membership(controller, &leaf)?);
        }
        if controller == "memory" {
            group.memory = Some(MemoryFiles {
                peak: leaf.join("memory.max_usage_in_bytes"),
                events: leaf.join("memory.oom_control"),
            });
        }
        Ok(Some(leaf))
    }
}

/// A new group has no processors and no memory, and takes no process, until it is given some: here those of the nearest group above that has
/// any (cpuset(7), "cgroup.clone_children").
fn hand_down(leaf: &Path) -> Result<(), SandboxError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let read = |directory: &Path| std::fs::read_to_string(directory.join(file)).unwrap_or_default();
        let without: Vec<&Path> = leaf.ancestors().take_while(|path| read(path).trim().is_empty()).collect();
        let Some(given) = without.last().and_then(|top| top.parent()).map(read) else { continue };
        for directory in without.into_iter().rev() {
            write(directory, file, given.trim())?;
        }
    }
    Ok(())
}

fn membership(controller: &'static str, leaf: &Path) -> Result<Membership, SandboxError> {
    let procs = leaf.join("cgroup.procs");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SandboxError::Cgroup { path, source }
    };
    Ok(Membership {
        controller,
        procs: File::options().write(true).open(&procs).map_err(failed(&procs))?.into(),
        directory: File::open(leaf).map_err(failed(leaf))?.into(),
    })
}
