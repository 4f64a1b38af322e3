//! A build context as a tree of digests.
//!
//! A context is a directory of the host, less what its ignore file hides. A COPY names sources in it; this crate resolves
//! them ([`Context::select`]), gives the digest that becomes part of the step's cache key ([`Selection::digest`]), says which
//! files a change consists of ([`Selection::file_digests`]), and opens the files for the copy ([`Context::open_file`]). It knows
//! nothing of instructions, layers or images.
//!
//! What holds:
//!
//! * **Nothing outside the directory is reached.** Every file is opened below the context's descriptor without following a
//!   link; links that a source names are resolved here, component by component, with the context as their root.
//! * **Only what is asked for is looked at.** A literal source costs a few system calls; a tree is scanned once, when first
//!   needed, and shared by all steps and threads.
//! * **The digest is that of the bytes copied.** A file that changes meanwhile is noticed, by its inode's times or by content.
//! * **An unchanged file is not read again**: its digest comes from the [stat cache](`stat_cache`), the only file written.
//! * The context's files count as owned by 0:0; times are not part of any digest.
//!
//! ```
//! use context::{Attributes, Context, Ignore, Parents, Source};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # std::fs::write(directory.path().join("main.c"), "int main() {}")?;
//! let ignore = Ignore::parse(b"*.o\n!keep.o\n", ".dockerignore")?;
//! let context = Context::open(directory.path(), ignore, None)?;
//! let source = Source { pattern: b"*.c", excludes: &Ignore::none(), parents: Parents::Dropped };
//! let selection = context.select(&source)?;
//! for entry in selection.entries() {
//!     assert_eq!(entry.destination.as_bytes(), b"main.c");
//! }
//! let key_part = selection.digest(Attributes::ALL)?;
//! context.save()?;
//! # assert_eq!(key_part.to_string().len(), 64);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod context;
mod digest;
mod error;
mod node;
mod selection;

pub mod file_digests;
pub mod ignore;
pub mod stat_cache;
pub mod wildcard;

mod contents;
mod pattern;
mod resolve;
mod scan;
mod tree;

pub use context::{Context, OpenedFile};
pub use digest::{Attributes, Counted, SelectionDigest};
pub use error::{ContextError, Missing};
pub use file_digests::{Change, FileDigests, FileDigestsError};
pub use ignore::{Exclusion, Ignore, IgnoreError, Verdict};
pub use node::{FileDigest, Kind, Node, Xattr};
pub use pattern::PatternError;
pub use selection::{Entry, Match, Parents, Selection, Source};
