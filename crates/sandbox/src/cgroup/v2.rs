//! cgroup 2: one hierarchy, processes in leaves only, born there.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::{DEVICE_RULES, Group, MemoryFiles, Owner, PARENT, create, write};
use crate::{Limits, Machine, Posture, SandboxError};

/// The controllers that we use, where the machine has them.
const WANTED: &[&str] = &["memory", "pids", "cpu", "cpuset"];

/// Where processes are, below `rbuild/OWNER`: the first may use few devices, the second, which is made when it is needed, all.
pub(super) const PLACES: [&str; 2] = ["confined", "insecure"];

/// `rbuild/OWNER` of the hierarchy.
#[derive(Debug)]
pub(super) struct Parent {
    directory: PathBuf,
    confined: Place,
    insecure: OnceLock<Place>,
    controllers: Vec<&'static str>,
}

/// One of [`PLACES`].
#[derive(Debug)]
struct Place {
    directory: PathBuf,
    handle: Arc<OwnedFd>,
}

impl Place {
    /// Makes `name`, and hands the controllers down to what will be below it.
    fn make(parent: &Path, name: &str, controllers: &[&str]) -> Result<Self, SandboxError> {
        let directory = parent.join(name);
        create(&directory)?;
        enable(&directory, controllers)?;
        let handle = Arc::new(open(&directory)?);
        Ok(Self { directory, handle })
    }
}

impl Parent {
    pub(super) fn open(at: &Path, owner: &Owner, machine: &Machine) -> Result<Self, SandboxError> {
        let groups = machine.groups_at(at);
        let directory = groups.join(PARENT).join(&owner.0);
        create(&directory)?;
        let controllers: Vec<_> = WANTED
            .iter()
            .copied()
            .filter(|wanted| machine.cgroup2_controllers.iter().any(|name| name == wanted))
            .collect();
        let mut levels: Vec<&Path> =
            directory.ancestors().take_while(|level| level.starts_with(at)).collect();
        levels.reverse();
        for level in levels {
            enable(level, &controllers)?;
        }
        let [confined, _] = PLACES;
        let confined = Place::make(&directory, confined, &controllers)?;
        if machine.device_filter {
            attach_device_filter(&confined.directory, &confined.handle)?;
        }
        Ok(Self { directory, confined, insecure: OnceLock::new(), controllers })
    }

    fn place(&self, posture: Posture) -> Result<&Place, SandboxError> {
        if posture == Posture::Confined {
            return Ok(&self.confined);
        }
        if let Some(place) = self.insecure.get() {
            return Ok(place);
        }
        let [_, insecure] = PLACES;
        let place = Place::make(&self.directory, insecure, &self.controllers)?;
        // Another thread may have made the same one.
        Ok(self.insecure.get_or_init(|| place))
    }

    /// Chooses the birthplace, and takes the limits it can enforce out of `limits`.
    pub(super) fn make(
        &self,
        name: &str,
        posture: Posture,
        limits: &mut Limits,
        group: &mut Group,
    ) -> Result<(), SandboxError> {
        let place = self.place(posture)?;
        if self.controllers.is_empty() {
            group.birthplace = Some(Arc::clone(&place.handle));
            return Ok(());
        }
        let leaf = place.directory.join(name);
        create(&leaf)?;
        group.directories.push(leaf.clone());
        let has = |controller| self.controllers.contains(&controller);
        if has("memory") {
            let memory = limits.memory_bytes.take();
            if let Some(bytes) = memory {
                write(&leaf, "memory.max", &bytes.to_string())?;
            }
            // Here swap is counted by itself.
            if let Some(both) = limits.memory_and_swap_bytes.take() {
                let swap = both.saturating_sub(memory.unwrap_or(0));
                write(&leaf, "memory.swap.max", &swap.to_string())?;
            }
            group.memory =
                Some(MemoryFiles { peak: leaf.join("memory.peak"), events: leaf.join("memory.events") });
        }
        if has("pids")
            && let Some(pids) = limits.pids.take()
        {
            write(&leaf, "pids.max", &pids.to_string())?;
        }
        self.limit_processors(&leaf, limits)?;
        group.birthplace = Some(Arc::new(open(&leaf)?));
        Ok(())
    }
}

impl Parent {
    fn limit_processors(&self, leaf: &Path, limits: &mut Limits) -> Result<(), SandboxError> {
        let has = |controller| self.controllers.contains(&controller);
        if has("cpu") {
            if let Some(millis) = limits.cpu_millis.take() {
                write(leaf, "cpu.max", &format!("{} 100000", millis * 100))?;
            }
            if let Some(shares) = limits.cpu_shares.take() {
                write(leaf, "cpu.weight", &weight(shares).to_string())?;
            }
        }
        if has("cpuset") {
            if let Some(cpus) = limits.cpus.take() {
                write(leaf, "cpuset.cpus", &cpus.to_string())?;
            }
            if let Some(nodes) = limits.memory_nodes.take() {
                write(leaf, "cpuset.mems", &nodes.to_string())?;
            }
        }
        Ok(())
    }
}

/// Shares, 2 to 262144, as a weight, 1 to 10000, as the OCI runtimes convert them.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Passes controllers on to the groups below, where that was not done yet.
fn enable(directory: &Path, controllers: &[&str]) -> Result<(), SandboxError> {
    const FILE: &str = "cgroup.subtree_control";
    let path = directory.join(FILE);
    let enabled = fs::read_to_string(&path).map_err(|source| SandboxError::Cgroup { path, source })?;
    let missing: Vec<_> = controllers
        .iter()
        .filter(|wanted| !enabled.split_whitespace().any(|name| name == **wanted))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() { Ok(()) } else { write(directory, FILE, &missing.join(" ")) }
}

fn open(directory: &Path) -> Result<OwnedFd, SandboxError> {
    File::open(directory)
        .map(OwnedFd::from)
        .map_err(|source| SandboxError::Cgroup { path: directory.to_owned(), source })
}

fn attach_device_filter(directory: &Path, handle: &OwnedFd) -> Result<(), SandboxError> {
    sys::device_filter::load(&DEVICE_RULES.program())
        .and_then(|program| sys::device_filter::attach(program.as_fd(), handle.as_fd()))
        .map_err(|source| SandboxError::Cgroup { path: directory.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_as_with_other_runtimes() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 39, 10_000]);
    }
}
