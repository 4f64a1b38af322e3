//! The digest of a selection: the part of a COPY's cache key that its files make.
//!
//! | in it | why |
//! | --- | --- |
//! | each file's name below the destination, its type, in order of copying | |
//! | permission bits, unless an octal `--chmod` replaces them; never a link's | |
//! | owner 0:0, unless `--chown` replaces it | a context's files belong to nobody |
//! | size and content of files, target of links, numbers of devices | |
//! | extended attributes that travel (see [`crate::Xattr`]) | |
//! | which files of the selection are one inode | hard links are kept |
//!
//! Not in it: times, inode numbers, the host's owners and paths, files that are not selected.

use std::collections::HashMap;
use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::node::{Kind, Node};
use crate::selection::Match;

/// How much is encoded before it is hashed: hashing single entries costs a call for every other block.
const BATCH_BYTES: usize = 32 * 1024;

/// The digest of everything in a selection that can affect the result of copying it.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SelectionDigest(pub [u8; 32]);

/// Whether an attribute of the files reaches the image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Counted {
    /// It does.
    Yes,
    /// A flag of the COPY sets it for every file, so that the source's cannot matter.
    Replaced,
}

/// Which attributes a digest covers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attributes {
    /// Permission bits. A symbolic `--chmod` such as `u+x` depends on them: they count then.
    pub mode: Counted,
    /// Owner and group.
    pub owner: Counted,
}

impl Attributes {
    /// Everything: no flag replaces anything.
    pub const ALL: Self = Self { mode: Counted::Yes, owner: Counted::Yes };
}

impl SelectionDigest {
    pub(crate) fn of(matches: &[Match], counted: Attributes) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"context selection 1\n");
        let mut encoded = Vec::with_capacity(2 * BATCH_BYTES);
        let mut links = HardLinks::default();
        for found in matches {
            encoded.push(u8::from(found.is_directory));
            for node in found.nodes() {
                put_path(&mut encoded, found.destination_parts(node));
                encode(&mut encoded, node, counted);
                put_number(&mut encoded, links.first_of(node));
                if encoded.len() > BATCH_BYTES {
                    hasher.update(&encoded);
                    encoded.clear();
                }
            }
            // Where one match ends: no name begins with a NUL.
            put_bytes(&mut encoded, b"\0");
        }
        hasher.update(&encoded);
        Self(hasher.finalize().into())
    }
}

/// Appends what a node contributes beside its name, unambiguously: every field is tagged by its place or has its length before it.
pub(crate) fn encode(into: &mut Vec<u8>, node: &Node, counted: Attributes) {
    into.push(type_letter(node.kind()));
    let is_link = matches!(node.kind(), Kind::Symlink { .. });
    if counted.mode == Counted::Yes && !is_link {
        put_number(into, node.mode().into());
    }
    if counted.owner == Counted::Yes {
        into.extend_from_slice(b"0:0");
    }
    encode_content(into, node);
}

/// The part of [`encode`] that no flag replaces.
pub(crate) fn encode_content(into: &mut Vec<u8>, node: &Node) {
    match node.kind() {
        Kind::File { size_bytes } => {
            put_number(into, size_bytes);
            into.extend_from_slice(&node.digest().expect("a selection is read before it is digested").0);
        }
        Kind::Symlink { target } => put_bytes(into, target),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            put_number(into, major.into());
            put_number(into, minor.into());
        }
        Kind::Directory | Kind::Fifo | Kind::Socket => {}
    }
    put_number(into, node.xattrs().len() as u64);
    for xattr in node.xattrs() {
        put_bytes(into, &xattr.name);
        put_bytes(into, &xattr.value);
    }
}

pub(crate) fn type_letter(kind: Kind<'_>) -> u8 {
    match kind {
        Kind::File { .. } => b'f',
        Kind::Directory => b'd',
        Kind::Symlink { .. } => b'l',
        Kind::CharDevice { .. } => b'c',
        Kind::BlockDevice { .. } => b'b',
        Kind::Fifo => b'p',
        Kind::Socket => b's',
    }
}

/// Seven bits a byte, the lowest first: most numbers here are small, and what is not written is not hashed.
fn put_number(into: &mut Vec<u8>, mut value: u64) {
    while value > 0x7F {
        into.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    put_number(into, bytes.len() as u64);
    into.extend_from_slice(bytes);
}

/// As [`put_bytes`] of the whole path.
fn put_path(into: &mut Vec<u8>, (directory, name): (&[u8], &[u8])) {
    if directory.is_empty() {
        return put_bytes(into, name);
    }
    put_number(into, (directory.len() + 1 + name.len()) as u64);
    into.extend_from_slice(directory);
    into.push(b'/');
    into.extend_from_slice(name);
}

/// Numbers the inodes that have several names, in order of appearance. Which names share one is what counts, not how many names
/// exist outside the selection: package managers link the files of a checkout to a store of their own.
#[derive(Default)]
struct HardLinks {
    first: HashMap<(u64, u64), u64>,
    seen: u64,
}

impl HardLinks {
    /// The position of the first node that is the same inode, counted from 1; 0 if this is the first.
    fn first_of(&mut self, node: &Node) -> u64 {
        self.seen += 1;
        let Some(inode) = node.hard_link() else { return 0 };
        let first = *self.first.entry(inode).or_insert(self.seen);
        if first == self.seen { 0 } else { first }
    }
}

impl fmt::Display for SelectionDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SelectionDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
