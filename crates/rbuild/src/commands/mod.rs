//! Commands other than `build`.
//!
//! Each reads its arguments, opens a [`Session`](crate::session::Session), calls one library operation and prints what it gives.

pub(crate) mod diff;
pub(crate) mod explain;
pub(crate) mod failures;
pub(crate) mod names;
pub(crate) mod sandbox;

pub(crate) mod copy;
pub(crate) mod help_files;
pub(crate) mod images;
pub(crate) mod lint;
pub(crate) mod login;
pub(crate) mod machine;
pub(crate) mod manifest;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod registry;
pub(crate) mod run;
pub(crate) mod search;
pub(crate) mod transfer;
pub(crate) mod upkeep;
