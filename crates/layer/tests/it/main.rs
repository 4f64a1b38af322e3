//! Trees and tars on a real file system, as root: they hold devices, owners and xattrs.

mod foreign_tars;
mod support;
mod trees;
