//! The store through its public face: one process and many, in one boot and across power cuts, on full disks.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "these are tests, also where clippy sees a helper or the entry of a child process"
)]

mod support;

mod blobs;
mod cache_mounts;
mod commit;
mod fsck;
mod layers;
mod leases;
mod locks;
mod prune;
mod records;
mod sources;

#[cfg(target_arch = "x86_64")]
mod crash;
mod full_disk;
mod many;
mod scenario;
#[cfg(target_arch = "x86_64")]
mod tracer;
