//! The stat cache: what reading a file gave, kept from one build to the next under what statx says of it.
//!
//! # When a record is believed
//!
//! If a file's type, mode, inode number, size, mtime and ctime, to the nanosecond, are those of its record. The ctime is what makes this
//! sound: every change of content, mode or attributes sets it, and no call sets it back, so an edit that keeps the size
//! and restores the mtime is still seen. One hole is left, the one git calls racy: a stamp is only as fine as the clock it comes from (some
//! milliseconds, on old file systems two seconds). A file changed at tick *t*, read, and changed again still in *t* has the stamps of
//! its first change and the content of its second.
//!
//! So a record is *made* only if no later change can have the same stamps: both times must be earlier than the time of the
//! context's file system **before the first byte was read**. A change after that moment is stamped with a later time than the
//! recorded one. (To compare with the time the cache is written, as git does, is too weak: the cache is written long after.) The
//! file system's time is found without writing into the context:
//!
//! | where the cache's directory and the context are | bound |
//! | --- | --- |
//! | on the same file system | the stamp of a new unnamed file beside the cache: the same clock, the same granularity |
//! | on two that this kernel stamps | the same less two seconds: one clock, perhaps another granularity |
//! | the context on a network or user-space file system | the newest ctime seen in the selection, less two seconds: that clock has come at least so far |
//!
//! A file that fails the test is read again by the next build, and recorded then. Files below another mount point have another clock and are never
//! recorded. What remains: stores to a writable shared mapping made before the kernel next writes its page back, a clock
//! that is set back by just the right nanosecond, and file systems that invent ctimes.
//!
//! # The file
//!
//! A block for each directory, in it its records sorted by name, and an index of the blocks sorted by path. The index is read when the
//! file is opened; finding a directory in it is a binary search. A block is read when its directory is scanned, into a buffer that stays in
//! the processor's cache, and gone through in a merge with the sorted names that a scan has anyway. So what a scan holds of the file is
//! the index and, for each thread, one directory.
//!
//! It is replaced by a rename, without a sync. A torn or decayed block fails its check and counts as empty, and so does a file whose index
//! fails its own, which costs a build's reading and nothing else. A crash can leave a `*.new` file beside it; whoever cleans the store may delete those.

mod format;
mod trust;

pub(crate) use format::{LastDirectory, Record, StatCache};
pub(crate) use trust::Trust;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::node::{Contents, FileDigest, Origin, Stamp};

/// Suffix of a cache file that is being written.
pub const UNFINISHED_SUFFIX: &str = ".new";

/// Replaces the cache file atomically.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Unique among live processes and the threads of this one.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let unique =
        format!(".{}-{}{UNFINISHED_SUFFIX}", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(unique);
    let unfinished = Path::new(&unfinished);
    let written = write_new(unfinished, bytes).and_then(|()| fs::rename(unfinished, path));
    if written.is_err() && unfinished.exists() {
        fs::remove_file(unfinished)?;
    }
    written
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Truncating: only a dead process of the same number can have left it.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

impl Record<'_> {
    /// Whether this is what was recorded of the very file that now has these attributes.
    pub(crate) fn is_of(&self, stamp: &Stamp) -> bool {
        self.kind == format::kind_letter(stamp.kind)
            && self.mode == stamp.mode
            && self.inode == stamp.inode
            && self.size_bytes == stamp.size_bytes
            && self.modified == stamp.modified
            && self.changed == stamp.changed
    }

    /// What it says, as if just read.
    pub(crate) fn contents(&self) -> Contents {
        Contents::new(FileDigest(self.digest), Origin::Cache, self.xattrs(), None)
    }
}
