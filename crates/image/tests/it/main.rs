//! Whole images through a real store, as root: trees hold devices, owners and xattrs.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test binary through and through")]

mod archives;
mod artifacts;
mod check;
mod exports;
mod forms;
mod images;
mod peers;
mod pulls;
mod world;
