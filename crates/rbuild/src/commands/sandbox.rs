//! Sandboxes in the name of this process' lease.

use std::path::PathBuf;

use oci::Digest;
use sandbox::{HelperProgram, Machine, Owner, SandboxError, Sandboxes};

use crate::session::Session;

/// Probes the machine, removes what dead processes of this store left on it, and gets ready. Control groups are made below `cgroup_parent`.
pub(crate) fn open(session: &Session, cgroup_parent: Option<PathBuf>) -> Result<Sandboxes, SandboxError> {
    let machine = Machine { cgroup_parent, ..Machine::probe(&[])? };
    for sentence in machine.lowered() {
        tracing::debug!("{sentence}");
    }
    if !machine.seccomp {
        tracing::warn!("commands run without a filter of system calls: the kernel has none");
    }
    sweep(session, &machine)?;
    let owner: Owner = format!("{}-{}", store_name(session), session.lease.name()).parse()?;
    Sandboxes::open(machine, owner, HelperProgram::ThisProgram)
}

/// Removes the cgroups, and ends the processes, of owners whose lease is dead.
pub(crate) fn sweep(session: &Session, machine: &Machine) -> Result<usize, SandboxError> {
    let prefix = format!("{}-", store_name(session));
    let mut swept = 0;
    for owner in sandbox::owners(machine)? {
        let name = owner.to_string();
        let Some(lease) = name.strip_prefix(&prefix) else { continue };
        // Asked anew for each, so that a process that has just begun is not taken for dead.
        let is_live = session.store().live_leases().is_ok_and(|live| live.contains(lease));
        if !is_live {
            sandbox::sweep(machine, &owner)?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Tells the users of different stores apart.
fn store_name(session: &Session) -> String {
    Digest::of(session.store().root().as_os_str().as_encoded_bytes()).short()
}
