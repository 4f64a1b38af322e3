//! Trees and tars on a real file system, as root: they hold devices, owners and xattrs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod foreign_tars;
mod support;
mod trees;
