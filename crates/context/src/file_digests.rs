//! A selection's digest, file by file and in short form: kept beside a cache record, it answers "which file changed?".
//!
//! Each file takes its path (less what it shares with the one before), type, permission bits and eight bytes of digest: some 25
//! bytes. Eight bytes are enough to tell a person what changed; what is reused is decided by [`crate::SelectionDigest`] alone.

use std::cmp::Ordering;
use std::fmt;

use sha2::{Digest as _, Sha256};
use sys::{PathError, RootfsPath};

use crate::digest::{Attributes, Counted, encode_content, type_letter};
use crate::node::{Kind, Node};
use crate::selection::Match;

const VERSION: u8 = 1;

/// Short digests of the files of a selection, sorted by path.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FileDigests {
    files: Vec<Short>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Short {
    /// In the context, which is the name the user knows.
    path: RootfsPath,
    letter: u8,
    /// 0 if `--chmod` replaces it, and for links.
    mode: u16,
    content: [u8; 8],
}

/// One difference between two builds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The file, below the context.
    pub path: RootfsPath,
    /// What is different.
    pub what: Changed,
}

/// How a file differs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Changed {
    /// It is new.
    Added,
    /// It is gone, or ignored by now.
    Removed,
    /// It is of another type.
    Type,
    /// Other content, link target, device number or extended attributes.
    Content,
    /// Only other permission bits.
    Mode {
        /// What they were.
        from: u16,
        /// What they are.
        to: u16,
    },
}

/// Why bytes are not [`FileDigests`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FileDigestsError {
    /// Written by another version of rbuild.
    #[error("file digests of version {0}")]
    Version(u8),
    /// They end early or hold an impossible length.
    #[error("file digests are cut short")]
    CutShort,
    /// A path in them is none.
    #[error("file digests name an impossible path")]
    Path(#[from] PathError),
}

impl FileDigests {
    pub(crate) fn of(matches: &[Match], counted: Attributes) -> Self {
        let mut encoded = Vec::new();
        let nodes = matches.iter().flat_map(Match::nodes);
        let mut files: Vec<Short> = nodes.map(|node| short(node, counted, &mut encoded)).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        Self { files }
    }

    /// How many files.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What is different now from `earlier`, in order of path. A directory is not different because files in it are.
    #[must_use]
    pub fn changes_since(&self, earlier: &Self) -> Vec<Change> {
        let (mut old, mut new) = (earlier.files.iter().peekable(), self.files.iter().peekable());
        let mut changes = Vec::new();
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return changes,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.path.cmp(&new.path),
            };
            let before = old.next_if(|_| order.is_le());
            let after = new.next_if(|_| order.is_ge());
            let path = after.or(before).map(|file| file.path.clone()).unwrap_or_default();
            changes.extend(difference(before, after).map(|what| Change { path, what }));
        }
    }

    /// The bytes to keep.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        let mut previous: &[u8] = b"";
        for file in &self.files {
            let path = file.path.as_bytes();
            let shared = path.iter().zip(previous).take_while(|(a, b)| a == b).count();
            put_length(&mut bytes, shared);
            put_length(&mut bytes, path.len() - shared);
            bytes.extend_from_slice(&path[shared..]);
            bytes.push(file.letter);
            bytes.extend_from_slice(&file.mode.to_le_bytes());
            bytes.extend_from_slice(&file.content);
            previous = path;
        }
        bytes
    }

    /// Reads what [`FileDigests::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`FileDigestsError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FileDigestsError> {
        let (&version, mut rest) = bytes.split_first().ok_or(FileDigestsError::CutShort)?;
        if version != VERSION {
            return Err(FileDigestsError::Version(version));
        }
        let (mut files, mut path) = (Vec::new(), Vec::new());
        while !rest.is_empty() {
            let shared = take_length(&mut rest)?;
            let own = take_length(&mut rest)?;
            if shared > path.len() {
                return Err(FileDigestsError::CutShort);
            }
            path.truncate(shared);
            path.extend_from_slice(take(&mut rest, own)?);
            let letter = take_array::<1>(&mut rest)?[0];
            let mode = u16::from_le_bytes(take_array(&mut rest)?);
            let content = take_array(&mut rest)?;
            files.push(Short { path: RootfsPath::parse(&path)?, letter, mode, content });
        }
        Ok(Self { files })
    }
}

fn short(node: &Node, counted: Attributes, encoded: &mut Vec<u8>) -> Short {
    let is_link = matches!(node.kind(), Kind::Symlink { .. });
    let mode = if counted.mode == Counted::Replaced || is_link { 0 } else { node.mode() };
    let content = match node.digest().filter(|_| node.xattrs().is_empty()) {
        // The digest says it all, size included; only the odd file needs another one.
        Some(digest) => first_eight(&digest.0),
        None => {
            encoded.clear();
            encode_content(encoded, node);
            first_eight(&Sha256::digest(&encoded))
        }
    };
    let mode = u16::try_from(mode).expect("permission bits have 12 bits");
    Short { path: node.path(), letter: type_letter(node.kind()), mode, content }
}

fn first_eight(digest: &[u8]) -> [u8; 8] {
    *digest.first_chunk().expect("a SHA-256 has 32 bytes")
}

fn difference(before: Option<&Short>, after: Option<&Short>) -> Option<Changed> {
    match (before, after) {
        (None, None) => None,
        (None, Some(_)) => Some(Changed::Added),
        (Some(_), None) => Some(Changed::Removed),
        (Some(old), Some(new)) if old.letter != new.letter => Some(Changed::Type),
        (Some(old), Some(new)) if old.content != new.content => Some(Changed::Content),
        (Some(old), Some(new)) if old.mode != new.mode => {
            Some(Changed::Mode { from: old.mode, to: new.mode })
        }
        (Some(_), Some(_)) => None,
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = String::from_utf8_lossy(self.path.as_bytes());
        let path = if path.is_empty() { "." } else { &path };
        match self.what {
            Changed::Added => write!(f, "{path} is new"),
            Changed::Removed => write!(f, "{path} is gone"),
            Changed::Type => write!(f, "{path} is of another type"),
            Changed::Content => write!(f, "{path} changed"),
            Changed::Mode { from, to } => write!(f, "{path} has mode {to:04o}, was {from:04o}"),
        }
    }
}

/// Seven bits a byte, the lowest first.
fn put_length(into: &mut Vec<u8>, mut length: usize) {
    while length > 0x7F {
        into.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    into.push(length as u8);
}

/// Paths have at most 4,095 bytes, so two bytes suffice.
fn take_length(rest: &mut &[u8]) -> Result<usize, FileDigestsError> {
    let low = take_array::<1>(rest)?[0];
    if low < 0x80 {
        return Ok(low.into());
    }
    let high = take_array::<1>(rest)?[0];
    if high >= 0x80 {
        return Err(FileDigestsError::CutShort);
    }
    Ok(usize::from(low & 0x7F) | usize::from(high) << 7)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], FileDigestsError> {
    let (taken, after) = rest.split_at_checked(length).ok_or(FileDigestsError::CutShort)?;
    *rest = after;
    Ok(taken)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], FileDigestsError> {
    let (taken, after) = rest.split_first_chunk().ok_or(FileDigestsError::CutShort)?;
    *rest = after;
    Ok(*taken)
}
