//! The entry list of a layer: what it adds, changes and removes, sorted by path.
//!
//! Two digests are made of it. The *layer id* covers everything and so fixes the canonical tar. The *content digest* leaves out
//! mtimes (and what follows from where the layer lies: [`Entry::implied`]), so that a step which ran again with the same outcome has the
//! same one.

use std::io::{self, Read, Write};
use std::sync::Arc;

use oci::{ContentDigest, DiffId, Digest, Hasher, LayerId};
use serde::{Deserialize, Serialize};
use sys::RootfsPath;
use sys::root::Time;

/// The sha256 of a file's content.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct FileDigest(pub [u8; 32]);

/// An extended attribute: name and value.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Xattr {
    /// With its namespace: `security.capability`.
    pub name: Box<[u8]>,
    /// Up to 64 KiB.
    pub value: Box<[u8]>,
}

/// One path of a layer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Where; the root itself is an entry too if the layer changes it.
    pub path: RootfsPath,
    /// What.
    pub kind: Kind,
    /// Permission bits, 07777.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Sorted by name.
    pub xattrs: Box<[Xattr]>,
    /// A directory that the layer needs but does not change: attributes are those of the layers below it. It is in the tree, since
    /// overlayfs takes a merged directory's attributes from the topmost layer, but not in the tar.
    pub implied: bool,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A directory; an opaque one hides everything that lower layers have below it.
    Directory {
        /// Whether it is opaque.
        opaque: bool,
    },
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
        /// Of its content.
        digest: FileDigest,
        /// Which member of the layer's tar holds the content, counted from 0; meaningless for a tree.
        member: u32,
    },
    /// Another name of the file `target` of the same layer; attributes are that file's.
    HardLink {
        /// The first name, a [`Kind::File`].
        target: RootfsPath,
    },
    /// A symbolic link.
    Symlink {
        /// Any bytes.
        target: Box<[u8]>,
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
    /// Hides the path, and all below it, of lower layers (OCI image spec, "Whiteouts").
    Whiteout,
}

/// A layer's entries, sorted by path, each path once, every path's parents before it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Entries(Arc<[Entry]>);

/// Why a stored entry list could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Reading failed.
    #[error("cannot read an entry list")]
    Read(#[source] io::Error),
    /// Another format or version.
    #[error("not an entry list of this version")]
    Version,
    /// The checksum at its end is not that of its bytes.
    #[error("entry list is damaged: its checksum does not match")]
    Checksum,
    /// The bytes do not decode.
    #[error("entry list is damaged")]
    Malformed(#[source] postcard::Error),
    /// A path that could not have been written.
    #[error("entry list is damaged")]
    Path(#[source] sys::PathError),
}

/// First bytes of a stored entry list.
const MAGIC: &[u8] = b"rbuild entries 1\n";

impl Entries {
    /// Sorts entries. Of two with the same path the later one stays.
    #[must_use]
    pub fn new(mut list: Vec<Entry>) -> Self {
        list.reverse();
        list.sort_by(|a, b| a.path.cmp(&b.path));
        list.dedup_by(|later, first| later.path == first.path);
        Self(list.into())
    }

    /// All of them in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Entry] {
        &self.0
    }

    /// The position of a path.
    #[must_use]
    pub fn position(&self, path: &RootfsPath) -> Option<usize> {
        self.0.binary_search_by(|entry| entry.path.cmp(path)).ok()
    }

    /// The entry at a path.
    #[must_use]
    pub fn find(&self, path: &RootfsPath) -> Option<&Entry> {
        self.position(path).map(|at| &self.0[at])
    }

    /// The entries strictly below a directory.
    #[must_use]
    pub fn below(&self, directory: &RootfsPath) -> &[Entry] {
        let start = self.0.partition_point(|entry| entry.path <= *directory);
        let length = self.0[start..].partition_point(|entry| entry.path.is_at_or_below(directory));
        &self.0[start..start + length]
    }

    /// The id of a layer of our own making. Covers everything that its canonical tar and its tree are made from.
    #[must_use]
    pub fn layer_id(&self) -> LayerId {
        LayerId::new(self.digest_with(|hasher, entry| {
            hasher.update(entry.mtime.seconds.to_le_bytes());
            hasher.update(entry.mtime.nanos.to_le_bytes());
            hasher.update([u8::from(entry.implied)]);
        }))
    }

    /// The digest that two layers share which differ in mtimes only.
    #[must_use]
    pub fn content_digest(&self) -> ContentDigest {
        ContentDigest::new(self.digest_with(|_, _| {}))
    }

    fn digest_with(&self, more: impl Fn(&mut Hasher, &Entry)) -> Digest {
        let mut hasher = Hasher::sha256();
        for entry in self.as_slice() {
            entry.hash_into(&mut hasher);
            more(&mut hasher, entry);
        }
        hasher.finish()
    }

    /// Sum of the sizes of its files in bytes, hard links counted once.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        self.0.iter().map(Entry::size).sum()
    }

    /// Writes the stored form: magic, entries, sha256 of both.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn encode(&self, mut to: impl Write) -> io::Result<()> {
        let mut hasher = Hasher::sha256();
        let mut buffer = Vec::with_capacity(1 << 16);
        buffer.extend_from_slice(MAGIC);
        buffer.extend_from_slice(&(self.0.len() as u64).to_le_bytes());
        for entry in self.as_slice() {
            buffer = postcard::to_extend(&StoredEntry::from(entry), buffer).map_err(io::Error::other)?;
            if buffer.len() >= 1 << 16 {
                hasher.update(&buffer);
                to.write_all(&buffer)?;
                buffer.clear();
            }
        }
        hasher.update(&buffer);
        to.write_all(&buffer)?;
        to.write_all(hasher.finish().as_bytes())
    }

    /// Reads the stored form to its end.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(mut from: impl Read) -> Result<Self, DecodeError> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map_err(DecodeError::Read)?;
        let body_length = bytes.len().checked_sub(32).ok_or(DecodeError::Checksum)?;
        let (body, checksum) = bytes.split_at(body_length);
        if Digest::of(body).as_bytes() != checksum {
            return Err(DecodeError::Checksum);
        }
        let rest = body.strip_prefix(MAGIC).ok_or(DecodeError::Version)?;
        let (count, mut rest) = rest.split_first_chunk::<8>().ok_or(DecodeError::Version)?;
        let mut list =
            Vec::with_capacity(usize::try_from(u64::from_le_bytes(*count)).unwrap_or(0).min(rest.len()));
        while !rest.is_empty() {
            let (stored, after) =
                postcard::take_from_bytes::<StoredEntry<'_>>(rest).map_err(DecodeError::Malformed)?;
            list.push(stored.into_entry()?);
            rest = after;
        }
        Ok(Self(list.into()))
    }
}

/// How much of a stored list is read at first to get at its first entry, which is seldom larger.
const FIRST_ENTRY_BYTES: u64 = 4096;

/// The root directory's entry in a stored list, if it has one, without reading the rest: no checksum is looked at.
///
/// # Errors
/// [`DecodeError`].
pub fn stored_root(mut from: impl Read) -> Result<Option<Entry>, DecodeError> {
    let mut bytes = Vec::new();
    from.by_ref().take(FIRST_ENTRY_BYTES).read_to_end(&mut bytes).map_err(DecodeError::Read)?;
    let is_whole = (bytes.len() as u64) < FIRST_ENTRY_BYTES;
    match first_entry(&bytes) {
        Err(DecodeError::Malformed(_)) if !is_whole => {
            from.read_to_end(&mut bytes).map_err(DecodeError::Read)?;
            first_entry(&bytes)
        }
        first => first,
    }
    .map(|first| first.filter(|entry| entry.path.is_root()))
}

fn first_entry(bytes: &[u8]) -> Result<Option<Entry>, DecodeError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(DecodeError::Version)?;
    let (count, rest) = rest.split_first_chunk::<8>().ok_or(DecodeError::Version)?;
    if u64::from_le_bytes(*count) == 0 {
        return Ok(None);
    }
    let (stored, _) = postcard::take_from_bytes::<StoredEntry<'_>>(rest).map_err(DecodeError::Malformed)?;
    stored.into_entry().map(Some)
}

impl FromIterator<Entry> for Entries {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        Self::new(entries.into_iter().collect())
    }
}

/// The id of a layer that came from outside and keeps its own bytes. `lookups` is the digest of what had to be looked up in the layers
/// below to understand it, if anything had.
#[must_use]
pub fn foreign_layer_id(diff_id: &DiffId, lookups: Option<&Digest>) -> LayerId {
    let mut hasher = Hasher::sha256();
    hasher.update_field(b"foreign layer");
    hasher.update_field(diff_id.digest().as_bytes());
    hasher.update_field(lookups.map_or(&[][..], Digest::as_bytes));
    LayerId::new(hasher.finish())
}

impl Entry {
    /// A directory as `mkdir` makes it for root: 0755, owned by 0:0.
    #[must_use]
    pub fn directory(path: RootfsPath, mtime: Time) -> Self {
        Self {
            path,
            kind: Kind::Directory { opaque: false },
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime,
            xattrs: Box::default(),
            implied: false,
        }
    }

    /// A whiteout of a path.
    #[must_use]
    pub fn whiteout(path: RootfsPath) -> Self {
        let kind = Kind::Whiteout;
        Self {
            path,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Box::default(),
            implied: false,
        }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory { .. })
    }

    /// Bytes of content; 0 for all but files.
    #[must_use]
    pub fn size(&self) -> u64 {
        if let Kind::File { size, .. } = self.kind { size } else { 0 }
    }

    /// Whether mode, owner and xattrs are the same, which is all that a directory has besides its mtime.
    #[must_use]
    pub fn has_attributes_of(&self, other: &Self) -> bool {
        (self.mode, self.uid, self.gid, &self.xattrs) == (other.mode, other.uid, other.gid, &other.xattrs)
    }

    /// Adds everything but mtime and `implied` to a digest.
    pub fn hash_into(&self, hasher: &mut Hasher) {
        hasher.update_field(self.path.as_bytes());
        self.kind.hash_into(hasher);
        for number in [self.mode, self.uid, self.gid] {
            hasher.update(number.to_le_bytes());
        }
        hasher.update((self.xattrs.len() as u64).to_le_bytes());
        for xattr in &self.xattrs {
            hasher.update_field(&xattr.name);
            hasher.update_field(&xattr.value);
        }
    }
}

impl Kind {
    fn hash_into(&self, hasher: &mut Hasher) {
        match self {
            Self::Directory { opaque } => hasher.update([b'd', u8::from(*opaque)]),
            Self::File { size, digest, member: _ } => {
                hasher.update(b"f");
                hasher.update(size.to_le_bytes());
                hasher.update(digest.0);
            }
            Self::HardLink { target } => {
                hasher.update(b"h");
                hasher.update_field(target.as_bytes());
            }
            Self::Symlink { target } => {
                hasher.update(b"l");
                hasher.update_field(target);
            }
            Self::CharDevice { major, minor } => hash_device(hasher, *b"c", *major, *minor),
            Self::BlockDevice { major, minor } => hash_device(hasher, *b"b", *major, *minor),
            Self::Fifo => hasher.update(b"p"),
            Self::Whiteout => hasher.update(b"w"),
        }
    }
}

fn hash_device(hasher: &mut Hasher, tag: [u8; 1], major: u32, minor: u32) {
    hasher.update(tag);
    hasher.update(major.to_le_bytes());
    hasher.update(minor.to_le_bytes());
}

impl FileDigest {
    /// As a general digest.
    #[must_use]
    pub fn to_digest(self) -> Digest {
        Digest::Sha256(self.0)
    }
}

impl std::fmt::Debug for FileDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.to_digest(), f)
    }
}

/// What is written for an [`Entry`]; a file format, so the order of fields and variants is fixed.
#[derive(Serialize, Deserialize)]
struct StoredEntry<'a> {
    #[serde(borrow)]
    path: &'a [u8],
    #[serde(borrow)]
    kind: StoredKind<'a>,
    mode: u32,
    uid: u32,
    gid: u32,
    seconds: i64,
    nanos: u32,
    #[serde(borrow)]
    xattrs: Vec<(&'a [u8], &'a [u8])>,
    implied: bool,
}

#[derive(Serialize, Deserialize)]
enum StoredKind<'a> {
    Directory { opaque: bool },
    File { size: u64, digest: FileDigest, member: u32 },
    HardLink(&'a [u8]),
    Symlink(&'a [u8]),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
    Whiteout,
}

impl<'a> From<&'a Entry> for StoredEntry<'a> {
    fn from(entry: &'a Entry) -> Self {
        let kind = match &entry.kind {
            Kind::Directory { opaque } => StoredKind::Directory { opaque: *opaque },
            Kind::File { size, digest, member } => {
                StoredKind::File { size: *size, digest: *digest, member: *member }
            }
            Kind::HardLink { target } => StoredKind::HardLink(target.as_bytes()),
            Kind::Symlink { target } => StoredKind::Symlink(target),
            Kind::CharDevice { major, minor } => StoredKind::CharDevice(*major, *minor),
            Kind::BlockDevice { major, minor } => StoredKind::BlockDevice(*major, *minor),
            Kind::Fifo => StoredKind::Fifo,
            Kind::Whiteout => StoredKind::Whiteout,
        };
        Self {
            path: entry.path.as_bytes(),
            kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            seconds: entry.mtime.seconds,
            nanos: entry.mtime.nanos,
            xattrs: entry.xattrs.iter().map(|x| (&*x.name, &*x.value)).collect(),
            implied: entry.implied,
        }
    }
}

impl StoredEntry<'_> {
    fn into_entry(self) -> Result<Entry, DecodeError> {
        let path = |bytes: &[u8]| RootfsPath::parse(bytes).map_err(DecodeError::Path);
        let kind = match self.kind {
            StoredKind::Directory { opaque } => Kind::Directory { opaque },
            StoredKind::File { size, digest, member } => Kind::File { size, digest, member },
            StoredKind::HardLink(target) => Kind::HardLink { target: path(target)? },
            StoredKind::Symlink(target) => Kind::Symlink { target: target.into() },
            StoredKind::CharDevice(major, minor) => Kind::CharDevice { major, minor },
            StoredKind::BlockDevice(major, minor) => Kind::BlockDevice { major, minor },
            StoredKind::Fifo => Kind::Fifo,
            StoredKind::Whiteout => Kind::Whiteout,
        };
        Ok(Entry {
            path: path(self.path)?,
            kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: Time { seconds: self.seconds, nanos: self.nanos },
            xattrs: self
                .xattrs
                .iter()
                .map(|(name, value)| Xattr { name: (*name).into(), value: (*value).into() })
                .collect(),
            implied: self.implied,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_a_stored_list_is_found_at_its_beginning() {
        let stored = |list: Vec<Entry>| {
            let mut bytes = Vec::new();
            Entries::new(list).encode(&mut bytes).unwrap();
            stored_root(&*bytes).unwrap()
        };
        let time = Time { seconds: 5, nanos: 0 };
        let large = Xattr { name: b"user.large".as_slice().into(), value: vec![7; 60_000].into() };
        let root =
            Entry { mode: 0o555, xattrs: [large].into(), ..Entry::directory(RootfsPath::root(), time) };
        let below = Entry::directory(RootfsPath::parse("a").unwrap(), time);
        assert_eq!(stored(vec![below.clone(), root.clone()]), Some(root));
        assert_eq!(stored(vec![below]), None);
        assert_eq!(stored(Vec::new()), None);
        assert!(matches!(stored_root(&b"rbuild entries 0\n"[..]), Err(DecodeError::Version)));
    }

    fn sample(mtime: i64) -> Entries {
        let path = |text: &str| RootfsPath::parse(text).unwrap();
        let time = Time { seconds: mtime, nanos: 7 };
        let file = Kind::File { size: 3, digest: FileDigest([9; 32]), member: 2 };
        let base = Entry::directory(path("a"), time);
        [
            Entry { path: path("a/z"), kind: Kind::HardLink { target: path("a/f") }, ..base.clone() },
            Entry { path: path("a/f"), kind: file, mode: 0o4755, ..base.clone() },
            base.clone(),
            Entry {
                path: path("a-b"),
                kind: Kind::Symlink { target: b"../x".as_slice().into() },
                ..base.clone()
            },
            Entry { path: path("dev"), kind: Kind::CharDevice { major: 1, minor: 3 }, ..base.clone() },
            Entry::whiteout(path("gone")),
            Entry {
                path: path("x"),
                xattrs: [Xattr { name: b"user.a".as_slice().into(), value: b"\0\xff".as_slice().into() }]
                    .into(),
                implied: true,
                ..base
            },
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn the_stored_form_gives_the_same_list_back() {
        let mut bytes = Vec::new();
        sample(5).encode(&mut bytes).unwrap();
        assert_eq!(Entries::decode(&bytes[..]).unwrap(), sample(5));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        sample(5).encode(&mut bytes).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Entries::decode(&damaged[..]).is_err(), "byte {at}");
        }
        assert!(Entries::decode(&bytes[..20]).is_err());
    }

    #[test]
    fn mtimes_change_the_layer_id_but_not_the_content_digest() {
        assert_eq!(sample(5).content_digest(), sample(6).content_digest());
        assert_ne!(sample(5).layer_id(), sample(6).layer_id());
    }

    #[test]
    fn entries_below_a_directory_leave_out_its_neighbours() {
        let entries = sample(5);
        let below: Vec<_> =
            entries.below(&RootfsPath::parse("a").unwrap()).iter().map(|e| e.path.to_string()).collect();
        assert_eq!(below, ["/a/f", "/a/z"]);
        assert_eq!(entries.below(&RootfsPath::root()).len(), entries.as_slice().len());
    }
}
