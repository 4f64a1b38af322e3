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

/// Makes a group per limit that a controller here can enforce, and takes those limits out of `limits`.
pub(super) fn make(
    hierarchies: &[(String, PathBuf)],
    owner: &Owner,
    name: &str,
    limits: &mut Limits,
    group: &mut Group,
) -> Result<(), SandboxError> {
    let settings = [
        // Memory before memory with swap, which may not be the smaller one.
        ("memory", "memory.limit_in_bytes", &mut limits.memory_bytes, 1),
        ("memory", "memory.memsw.limit_in_bytes", &mut limits.memory_and_swap_bytes, 1),
        ("pids", "pids.max", &mut limits.pids, 1),
        // Microseconds of each period, which is 100 ms unless somebody changed the root group.
        ("cpu", "cpu.cfs_quota_us", &mut limits.cpu_millis, 100),
    ];
    for (controller, file, limit, factor) in settings {
        let Some((_, at)) = hierarchies.iter().find(|(name, _)| name == controller) else { continue };
        let Some(value) = limit.take() else { continue };
        let leaf = at.join(PARENT).join(&owner.0).join(name);
        create(&leaf)?;
        // Two controllers mounted together share the directory.
        if !group.directories.contains(&leaf) {
            group.directories.push(leaf.clone());
            group.joined.push(membership(controller, &leaf)?);
        }
        write(&leaf, file, &(value * factor).to_string())?;
        if controller == "memory" {
            group.memory = Some(MemoryFiles {
                peak: leaf.join("memory.max_usage_in_bytes"),
                events: leaf.join("memory.oom_control"),
            });
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
