//! Sandboxes on the running kernel. Needs root and busybox-static; says so and passes without.

#![expect(clippy::unwrap_used, reason = "a test that meets an error here has failed")]

mod commands;
mod filesystems;
mod owners;
mod posture;
mod world;
