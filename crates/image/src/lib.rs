//! Image operations over the store: everything that knows both what an image is and where its parts lie.
//!
//! [`Layers`] is the ground: layers as entry lists, trees and tars, each form made from another when it is first needed. On top of it:
//!
//! | to get an image into the store | to get it out | to look after it |
//! | --- | --- | --- |
//! | [`assemble`](fn@assemble): layers and a config, from a build | [`export::archive`], [`export::layout`]: OCI and Docker archives | [`find`](fn@find), [`local`](fn@local): what a name means |
//! | [`import`](mod@import): a root filesystem's tar | [`export::rootfs_tar`], [`export::rootfs_tree`]: files only | [`list`](fn@list), [`history`](fn@history), [`inspect`](fn@inspect) |
//! | [`load`](mod@load): an archive that somebody saved | | [`tag`](fn@tag), [`remove`](fn@remove) |
//! | [`pull`](mod@pull): from a registry | [`push`](mod@push): into a registry | [`fsck`](fn@fsck) |
//!
//! What is no image, but travels like one, is an [`artifact`].
//!
//! **Invariants.**
//!
//! * An image's id is the digest of its config's bytes, which are never written anew: what came from outside leaves as it came.
//! * Layers from outside keep their bytes. Those of our own making are canonical: their tar is made again from entry list and tree, and checked
//!   against its DiffID whenever that happens.
//! * Nothing is compressed before it leaves, or somebody asks for that. A compressed form is kept with its layer and used again.
//! * Everything from outside is verified while it streams, and named in the store only when all of it was right.
//! * Memory does not grow with bytes, only with the number of entries.
//!
//! Nothing here starts a process, reads the clock or prints; times are text that the caller gives.

#![forbid(unsafe_code)]

mod error;
mod layers;
mod rootfs;
mod stream;
mod tar;

mod assemble;
mod find;
mod flat;
mod growing;

mod oci_layout;
mod parallel;
mod receive;

pub mod artifact;
pub mod copy;
pub mod export;
pub mod import;
pub mod load;
pub mod manifest_list;
pub mod pull;
pub mod push;

mod fsck;
mod inspect;
mod list;
mod names;
mod retime;
mod squash;

pub use assemble::{AssembleOptions, Assembled, Contents, MAX_LAYERS, assemble};
pub use copy::copy;
pub use error::Error;
pub use find::{FindError, LocalImage, find, find_all, find_for, local};
pub use fsck::{Difference, LayerDamage, fsck};
pub use import::import;
pub use inspect::{Inspected, InspectedRootFs, inspect};
pub use layers::{Layers, TarRead};
pub use list::{HistoryLine, Listed, history, list};
pub use load::load;
pub use names::{NameError, RemoveMode, Removed, name, remove, tag};
pub use parallel::apart;
pub use pull::pull;
pub use push::push;
pub use receive::{DescriptorError, ReceiveError};
pub use retime::no_younger_than;
pub use rootfs::{Disposable, MountPoint, Rootfs, RootfsError};
pub use squash::squash;
