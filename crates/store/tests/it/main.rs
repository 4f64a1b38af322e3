//! The store through its public face: one process and many, in one boot and across power cuts, on full disks.

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

mod crash;
mod full_disk;
mod many;
mod scenario;
mod tracer;
