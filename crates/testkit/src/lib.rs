//! For tests only: golden directories, tiny root filesystems, an in-process registry.

#![forbid(unsafe_code)]

pub mod agent;
pub mod differential;
pub mod fuzz;
pub mod golden;
pub mod leftovers;
pub mod manifest;
pub mod observed;
pub mod probe;
pub mod proxy;
pub mod registry;
pub mod requirements;
pub mod rootfs;
pub mod site;
pub mod tree;

pub use requirements::{Need, can_run, skip};
