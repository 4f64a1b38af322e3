//! A layer: a change set to a filesystem, as an entry list, as a tree in overlayfs form, and as a tar.
//!
//! * [`Entries`] is the sorted list of what a layer adds, changes and removes. It is what cache keys, COPY, `explain` and
//!   `fsck` read; no file of the layer has to be opened for it.
//! * [`Merged`] answers questions about a list of layers as if they were mounted: look-ups, links, listings.
//! * [`compare`](mod@compare) tells two such lists apart.
//! * A *tree* is the change set as overlayfs wants it (whiteouts are 0/0 character devices, opaque directories an xattr). [`seal`](mod@seal)
//!   reads one, [`unpack`](mod@unpack) makes one.
//! * A *tar* is the change set as the OCI image spec wants it ("Layer Changesets"). [`pack`](mod@pack) writes canonical ones,
//!   [`foreign`] reads anybody's.
//!
//! Invariants: attributes come from the merged view of the layers below, never from a half-made tree; equal entry lists give equal
//! tars, byte for byte; nothing here knows manifests, tags or instructions.

#![forbid(unsafe_code)]

pub mod compare;
pub mod compress;
pub mod entries;
pub mod foreign;
pub mod limits;
pub mod merged;
pub mod pack;
pub mod seal;
pub mod tar_header;
pub mod tar_read;
pub mod unpack;
pub mod whiteout;

pub use entries::{Entries, Entry, FileDigest, Kind, Xattr};
pub use limits::Limits;
pub use merged::{Found, Merged, Resolved};
