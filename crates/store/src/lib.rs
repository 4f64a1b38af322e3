//! The only owner of the on-disk layout: blobs, layers, images, tags, cache records, leases, garbage collection.
//!
//! Plain files with git's discipline, no database:
//!
//! ```text
//! <root>/format               the version; written last when a store is made
//!        salt                 what keeps keyed digests of this store its own
//!        blobs/               immutable bytes by digest                              BlobWriter
//!        layers/              one directory each, holding a layer's forms            Layer
//!        images/              one file each: layers and known manifests              Image
//!        tags/                one file each, replaced atomically                     Tag
//!        records/             cache records, checksummed                             Record
//!        cache-mounts/        what RUN --mount=type=cache keeps                      CacheMount
//!        sources/             what was fetched from URLs and git repositories            SourceDir
//!        logs/ builds/ contexts/   step logs, build reports, stat caches
//!        locks/               `gc`, one per directory that is synced, one per step       StepLock
//!        leases/ tmp/         who is alive, and where it writes                      Lease
//!        damaged/             what a repair moved out of the way
//! ```
//!
//! **Reading needs a [`Store`], writing a [`Lease`].** A lease pins what it looked up, so that nothing is collected under a running build, and
//! owns a private area in which everything is made before one rename makes it visible: a file is complete or absent.
//!
//! **Invariants**, each with its place in the code:
//!
//! * A tag names an image that is there, an image names layers and blobs that are there, and all of it is synced (`commit`). Removal goes the
//!   other way round (`prune`).
//! * What one process sees of another's images, tags and blobs is durable, or is made so before it is relied on (`names`).
//! * A layer or blob that is not synced yet says so, by names that hold the kernel's boot id (`layer`, `blob`). In the same boot the
//!   page cache is the truth and it may be used; in another it counts as absent.
//! * Everything else (records, reports, stat caches) is written unsynced and checked when read. Losing it costs time, never a wrong image.
//! * Looking up and pinning happen under a shared `locks/gc`, deciding what goes under the exclusive one (`lease`, `prune`). Lock order:
//!   `gc`, then `tags` or `images`, then a layer's directory.
//! * Nothing expires by time or process id: locks are flock(2)'s and go with their process.
//! * No name from outside becomes a file name unescaped (`file_name`); directories are 0700, files 0600, temporary names random.
//!
//! The store speaks no HTTP, parses no Dockerfile, and does not know what is inside an entry list or a record's payload.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let store = store::Store::open(dir.path())?;
//! let lease = store.lease()?;
//! let blob = lease.put_blob(b"{}")?;
//! assert_eq!(store.read_blob(&blob.digest)?.as_deref(), Some(&b"{}"[..]));
//! lease.close()?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod blob;
mod cache_mount;
mod commit;
mod error;
mod identity;
mod image;
mod layer;
mod lease;
mod log;
mod manifest_list;
mod object;
mod record;
mod source;
mod step_lock;
mod store;
mod tag;

mod fsck;
mod mark;
mod prune;
mod usage;

mod envelope;
mod file_name;
mod files;
mod layout;
mod names;

pub use blob::{Blob, BlobWriter, Expected};
pub use cache_mount::{CacheMount, CacheMountInfo, CacheMountRequest, CacheSeed, CacheSharing};
pub use error::{Damage, Error, Remedy};
pub use fsck::{Finding, Found, FsckMode, Outcome, Report, Severity};
pub use image::{Image, KnownManifest};
pub use layer::{BlobOrigin, Layer, LayerBlob, LayerDraft, LayerFacts};
pub use lease::Lease;
pub use object::{LogId, Object, ObjectError};
pub use prune::{Kind, PrunePolicy, Pruned, Retain, Tally};
pub use record::{Record, RecordKey};
pub use source::SourceDir;
pub use step_lock::StepLock;
pub use store::Store;
pub use tag::Tag;
pub use usage::{ImageUsage, KindUsage, LayerUsage, Usage};
