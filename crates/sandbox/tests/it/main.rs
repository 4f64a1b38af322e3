//! Sandboxes on the running kernel. Needs root and busybox-static; says so and passes without.

mod commands;
mod world;
