//! Commands other than `build`.

pub(crate) mod sandbox;
pub(crate) mod transfer;
