//! Sandboxes on the running kernel. Needs root and busybox-static; says so and passes without.

mod commands;
mod filesystems;
mod owners;
mod posture;
mod world;
