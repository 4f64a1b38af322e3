//! One file of a context: what a scan saw of it, and what reading it gave.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use sys::RootfsPath;
use sys::directory::Status;
use sys::root::Time;

/// SHA-256 of a regular file's bytes.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FileDigest(pub [u8; 32]);

/// What a [`Node`] is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind<'a> {
    /// A regular file.
    File {
        /// Its length.
        size_bytes: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, as it says.
        target: &'a [u8],
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// An extended attribute that travels with a file.
///
/// `security.capability` does, and whatever is in neither the `security.` nor the `system.` namespace: labels and access lists
/// belong to the host. overlayfs' own attributes do not either, or a context could write whiteouts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Xattr {
    /// Its full name, such as `user.mime_type`.
    pub name: Box<[u8]>,
    /// Its bytes.
    pub value: Box<[u8]>,
}

/// One file, directory, link or special file of a context.
///
/// Attributes are those of the last look: the scan's, or of the time its content was read if it had changed in between.
/// About 160 bytes with its name and its place in a tree, so that a context of a million files fits in memory.
#[derive(Debug)]
pub struct Node {
    place: Place,
    scanned: Stamp,
    /// Of a symbolic link. In two boxes, so that other nodes pay for one pointer without a length.
    target: Option<Box<Box<[u8]>>>,
    contents: OnceLock<Contents>,
}

/// Where a file is: its name in the block that the nodes of its directory share. A block for each path would be a third of all memory
/// that a scan takes.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    siblings: Arc<Siblings>,
    start: u32,
    length: u8,
}

/// A directory and the names in it, those that are ignored, too.
#[derive(Debug)]
pub(crate) struct Siblings {
    directory: RootfsPath,
    names: Box<[u8]>,
}

/// What statx says and a digest depends on: if all of it is equal, the content is (see [`crate::stat_cache`]).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    pub(crate) kind: sys::directory::Kind,
    pub(crate) mode: u16,
    /// Whether the stat cache may keep it: false below a mount point, whose clock is another.
    pub(crate) cacheable: bool,
    /// Whether the inode has more names than one.
    pub(crate) is_linked: bool,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size_bytes: u64,
    pub(crate) modified: Time,
    pub(crate) changed: Time,
}

/// What only reading tells.
#[derive(Clone, Debug)]
pub(crate) struct Contents {
    /// Zeroes for anything but a regular file.
    pub(crate) digest: FileDigest,
    /// Where it was learned.
    pub(crate) origin: Origin,
    /// What few files have.
    rare: Option<Box<Rare>>,
}

#[derive(Clone, Debug)]
struct Rare {
    /// Sorted by name.
    xattrs: Box<[Xattr]>,
    /// The attributes at the time of reading, if they are not the scan's any more.
    reread: Option<Stamp>,
}

/// Where a node's contents were learned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Origin {
    /// From the stat cache.
    Cache,
    /// By reading.
    Read {
        /// Whether the stat cache may keep it: a later change cannot go unseen.
        storable: bool,
    },
}

impl Siblings {
    pub(crate) fn new(directory: RootfsPath, names: &[u8]) -> Arc<Self> {
        Arc::new(Self { directory, names: names.into() })
    }
}

impl Place {
    /// `name` is where the name is among those of `siblings`: one that their directory's path takes.
    pub(crate) fn among(siblings: &Arc<Siblings>, name: Range<usize>) -> Self {
        let start = u32::try_from(name.start).expect("the names in one directory are below 4 GiB");
        let length = u8::try_from(name.len()).expect("a name has at most 255 bytes");
        Self { siblings: Arc::clone(siblings), start, length }
    }

    /// The place of one file by itself.
    pub(crate) fn alone(path: &RootfsPath) -> Self {
        let name = path.file_name().unwrap_or_default();
        Self::among(&Siblings::new(path.parent().unwrap_or_default(), name), 0..name.len())
    }

    pub(crate) fn directory(&self) -> &RootfsPath {
        &self.siblings.directory
    }

    /// Empty for the root.
    pub(crate) fn name(&self) -> &[u8] {
        &self.siblings.names[self.start as usize..][..self.length.into()]
    }

    pub(crate) fn path(&self) -> RootfsPath {
        self.directory().join_name(self.name()).expect("the directory's path takes the name")
    }
}

impl Node {
    /// `target` is that of a symbolic link; `known` is what an earlier build read of the file as it is now.
    pub(crate) fn new(
        place: Place,
        scanned: Stamp,
        target: Option<Box<[u8]>>,
        known: Option<Contents>,
    ) -> Self {
        let contents = known.map_or_else(OnceLock::new, OnceLock::from);
        Self { place, scanned, target: target.map(Box::new), contents }
    }

    /// Where it is, below the context's root; put together for each call.
    #[must_use]
    pub fn path(&self) -> RootfsPath {
        self.place.path()
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind<'_> {
        use sys::directory::Kind as Seen;
        match self.stamp().kind {
            Seen::File => Kind::File { size_bytes: self.stamp().size_bytes },
            Seen::Directory => Kind::Directory,
            Seen::Symlink => Kind::Symlink { target: self.target.as_deref().map_or(&[], |target| target) },
            Seen::CharDevice { major, minor } => Kind::CharDevice { major, minor },
            Seen::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
            Seen::Fifo => Kind::Fifo,
            Seen::Socket => Kind::Socket,
        }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.scanned.kind == sys::directory::Kind::Directory
    }

    /// Permission bits with set-uid, set-gid and sticky (07777).
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.stamp().mode.into()
    }

    /// Length in bytes of a regular file, 0 of anything else.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        match self.kind() {
            Kind::File { size_bytes } => size_bytes,
            _ => 0,
        }
    }

    /// When its content changed last.
    #[must_use]
    pub fn modified(&self) -> Time {
        self.stamp().modified
    }

    /// Device and inode number if the file has more than one name: nodes with equal values are hard links of one another.
    #[must_use]
    pub fn hard_link(&self) -> Option<(u64, u64)> {
        let stamp = self.stamp();
        (stamp.is_linked && !self.is_directory()).then_some((stamp.device, stamp.inode))
    }

    /// The digest of a regular file's content; `None` for anything else, and before [`crate::Selection::read`].
    #[must_use]
    pub fn digest(&self) -> Option<FileDigest> {
        let is_file = self.scanned.kind == sys::directory::Kind::File;
        self.contents.get().filter(|_| is_file).map(|contents| contents.digest)
    }

    /// The extended attributes that travel, sorted by name; empty before [`crate::Selection::read`].
    #[must_use]
    pub fn xattrs(&self) -> &[Xattr] {
        self.rare().map_or(&[], |rare| &rare.xattrs)
    }

    /// The attributes of the last look.
    pub(crate) fn stamp(&self) -> &Stamp {
        self.rare().and_then(|rare| rare.reread.as_ref()).unwrap_or(&self.scanned)
    }

    fn rare(&self) -> Option<&Rare> {
        self.contents.get()?.rare.as_deref()
    }

    pub(crate) fn contents(&self) -> Option<&Contents> {
        self.contents.get()
    }

    /// Remembers what reading gave. Two threads may have read the same file: the first one's result stays.
    pub(crate) fn learn(&self, contents: Contents) {
        self.contents.get_or_init(|| contents);
    }
}

impl Contents {
    /// `xattrs` are sorted by name; `reread` are the attributes at the time of reading, if they are not the scan's any more.
    pub(crate) fn new(
        digest: FileDigest,
        origin: Origin,
        xattrs: Box<[Xattr]>,
        reread: Option<Stamp>,
    ) -> Self {
        let is_rare = !xattrs.is_empty() || reread.is_some();
        Self { digest, origin, rare: is_rare.then(|| Box::new(Rare { xattrs, reread })) }
    }
}

impl Stamp {
    pub(crate) fn new(status: &Status, cacheable: bool) -> Self {
        Self {
            kind: status.kind,
            mode: status.mode,
            cacheable,
            is_linked: status.links > 1,
            device: status.device,
            inode: status.inode,
            size_bytes: status.size_bytes,
            modified: status.modified,
            changed: status.changed,
        }
    }

    /// Whether this is still the same inode with the same content, as far as its own word goes. More or fewer hard links change
    /// the inode's time without its content, which costs a look, not an error.
    pub(crate) fn is_same_content(&self, now: &Status) -> bool {
        let seen = |device, inode, size, modified, changed| (device, inode, size, modified, changed);
        self.kind == now.kind
            && seen(self.device, self.inode, self.size_bytes, self.modified, self.changed)
                == seen(now.device, now.inode, now.size_bytes, now.modified, now.changed)
    }
}

impl fmt::Display for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_144_bytes_beside_its_name() {
        assert!(size_of::<Node>() <= 144, "{}", size_of::<Node>());
    }

    #[test]
    fn a_place_is_its_path() {
        for path in ["", "a", "a/b", "a/b/c"] {
            let path = RootfsPath::parse(path).unwrap();
            assert_eq!(Place::alone(&path).path(), path);
        }
        let siblings = Siblings::new(RootfsPath::parse("a/b").unwrap(), b"one\0two\0");
        assert_eq!(Place::among(&siblings, 4..7).path().to_string(), "/a/b/two");
    }
}
