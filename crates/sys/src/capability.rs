//! Capability sets of the calling thread.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// Capabilities by name.
pub use rustix::thread::CapabilitySet as Capabilities;

/// The highest capability number that a `u64` mask can carry.
const LAST: u32 = 63;

/// Removes every capability outside `kept` from the bounding set: no program executed later can regain it.
///
/// # Errors
/// `EPERM` without CAP_SETPCAP.
pub fn bound(kept: Capabilities) -> io::Result<()> {
    for number in 0..=LAST {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            // Numbers beyond the kernel's last one.
            Err(rustix::io::Errno::INVAL) => break,
            other => other?,
        }
    }
    Ok(())
}

/// Sets the effective and permitted sets; the inheritable and ambient ones become empty.
///
/// # Errors
/// `EPERM` for a capability that is not permitted.
pub fn set(capabilities: Capabilities) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let sets = CapabilitySets {
        effective: capabilities,
        permitted: capabilities,
        inheritable: CapabilitySet::empty(),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// The effective capabilities of the calling thread.
///
/// # Errors
/// Those of capget(2).
pub fn effective() -> io::Result<Capabilities> {
    Ok(rustix::thread::capabilities(None)?.effective)
}
