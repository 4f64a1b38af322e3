//! The bytes of a stat cache file.
//!
//! | part | fields, little endian |
//! | --- | --- |
//! | file | `HEADER`, directories, SHA-256 of all before |
//! | directory | path and block, each with its length as u32 before it |
//! | block | records |
//! | record | name (length u16), type letter, mode u16, inode u64, size u64, mtime and ctime (i64 seconds, u32 nanoseconds each), digest (32 bytes, files only), target (length u16, links only), number of xattrs u16, each: name (length u16), value (length u32) |
//!
//! The root's own record stands in the directory of the empty path under the empty name.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use sys::RootfsPath;
use sys::directory::Kind;
use sys::root::Time;

use crate::node::{Node, Origin, Xattr};
use crate::scan::split;

const HEADER: &[u8] = b"rbuild stat cache 1\n";
const CHECK_BYTES: usize = 32;

/// A cache file's bytes, checked, and where its directories are.
#[derive(Debug, Default)]
pub(crate) struct StatCache {
    bytes: Vec<u8>,
    /// Sorted by path, bytewise.
    directories: Vec<Directory>,
}

#[derive(Clone, Debug)]
struct Directory {
    path: Range<usize>,
    block: Range<usize>,
}

/// The records of one directory, to be asked for in ascending order of name.
#[derive(Clone, Debug)]
pub(crate) struct Records<'a> {
    rest: &'a [u8],
    /// The record that was read last, if it was beyond the name asked for.
    next: Option<Record<'a>>,
}

/// What is known of one file.
#[derive(Clone, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) kind: u8,
    pub(crate) mode: u16,
    pub(crate) inode: u64,
    pub(crate) size_bytes: u64,
    pub(crate) modified: Time,
    pub(crate) changed: Time,
    pub(crate) digest: [u8; 32],
    pub(crate) target: &'a [u8],
    /// Still encoded.
    xattrs: &'a [u8],
    xattr_count: u16,
    /// The whole record, to be copied into a new file.
    encoded: &'a [u8],
}

impl StatCache {
    /// Reads a cache file. One that is absent, damaged or of another version counts as empty.
    pub(crate) fn load(path: &Path) -> Self {
        match fs::read(path) {
            Ok(bytes) => Self::parse(bytes).unwrap_or_else(|| {
                tracing::debug!(path = %path.display(), "the stat cache is damaged or of another version: starting anew");
                Self::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "the stat cache cannot be read: starting anew");
                Self::default()
            }
        }
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
        if !body.starts_with(HEADER) || Sha256::digest(body).as_slice() != check {
            return None;
        }
        let (mut at, end) = (HEADER.len(), body.len());
        let mut directories = Vec::new();
        while at < end {
            let path = sized(&bytes[..end], at)?;
            let block = sized(&bytes[..end], path.end)?;
            at = block.end;
            directories.push(Directory { path, block });
        }
        Some(Self { bytes, directories })
    }

    /// The records of a directory; none if it is not known.
    pub(crate) fn directory(&self, path: &[u8]) -> Records<'_> {
        let found = self.directories.binary_search_by(|known| self.bytes[known.path.clone()].cmp(path));
        let block = found.map_or(0..0, |index| self.directories[index].block.clone());
        Records { rest: &self.bytes[block], next: None }
    }

    /// The bytes of the cache file after a build that saw these nodes and scanned these trees; `None` if the build read nothing that
    /// may be recorded, so that the file is as good as it was.
    ///
    /// Records of files that were not looked at stay. Those of files that were, and of files that are gone from a scanned tree, go.
    pub(crate) fn updated(&self, nodes: Vec<&Node>, scanned: &[&RootfsPath]) -> Option<Vec<u8>> {
        let is_new =
            |node: &&Node| is_storable(node) && node.contents().is_some_and(|c| c.origin != Origin::Cache);
        if !nodes.iter().any(is_new) {
            return None;
        }
        let mut lines: Vec<Line<'_>> = nodes.into_iter().map(Line::of_node).collect();
        let seen: BTreeSet<(&[u8], &[u8])> = lines.iter().map(|line| (line.directory, line.name)).collect();
        let kept: Vec<_> = self.lines().filter(|line| !line.is_stale(&seen, scanned)).collect();
        lines.extend(kept);
        // Of two nodes of one path, looked at by itself and in a tree, the one that was read.
        lines.sort_by_key(|line| (line.directory, line.name, !line.is_storable()));
        lines.dedup_by_key(|line| (line.directory, line.name));
        Some(write(&lines))
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.directories.iter().flat_map(|known| {
            let directory = &self.bytes[known.path.clone()];
            let records = Records { rest: &self.bytes[known.block.clone()], next: None };
            records.map(move |record| Line {
                directory,
                name: record.name,
                source: LineSource::Kept(record.encoded),
            })
        })
    }
}

impl<'a> Records<'a> {
    /// The record of a name. Names must be asked for in ascending order.
    pub(crate) fn find(&mut self, name: &[u8]) -> Option<Record<'a>> {
        loop {
            let record = self.next.take().or_else(|| self.read())?;
            match record.name.cmp(name) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Some(record),
                std::cmp::Ordering::Greater => {
                    self.next = Some(record);
                    return None;
                }
            }
        }
    }

    /// Reads one record. A block that is not well formed ends at the fault: its bytes were checked, so that only an error of ours makes one.
    fn read(&mut self) -> Option<Record<'a>> {
        let whole = self.rest;
        let mut reader = Reader { rest: whole };
        let record = Record::read(&mut reader)?;
        self.rest = reader.rest;
        Some(Record { encoded: &whole[..whole.len() - reader.rest.len()], ..record })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        self.next.take().or_else(|| self.read())
    }
}

impl<'a> Record<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let name = reader.short_bytes()?;
        let kind = reader.array::<1>()?[0];
        let mode = reader.u16()?;
        let (inode, size_bytes) = (reader.u64()?, reader.u64()?);
        let (modified, changed) = (reader.time()?, reader.time()?);
        let digest = if kind == FILE { reader.array()? } else { [0; 32] };
        let target = if kind == SYMLINK { reader.short_bytes()? } else { &[] };
        let xattr_count = reader.u16()?;
        let before = reader.rest;
        for _ in 0..xattr_count {
            reader.xattr()?;
        }
        let xattrs = &before[..before.len() - reader.rest.len()];
        let encoded = &[];
        Some(Self {
            name,
            kind,
            mode,
            inode,
            size_bytes,
            modified,
            changed,
            digest,
            target,
            xattrs,
            xattr_count,
            encoded,
        })
    }

    pub(crate) fn xattrs(&self) -> Box<[Xattr]> {
        let mut reader = Reader { rest: self.xattrs };
        let xattrs = (0..self.xattr_count).map_while(|_| reader.xattr());
        xattrs.map(|(name, value)| Xattr { name: name.into(), value: value.into() }).collect()
    }
}

/// One record of the file to be written, or the knowledge that there is none.
struct Line<'a> {
    directory: &'a [u8],
    name: &'a [u8],
    source: LineSource<'a>,
}

enum LineSource<'a> {
    Node(&'a Node),
    Kept(&'a [u8]),
}

impl<'a> Line<'a> {
    fn of_node(node: &'a Node) -> Self {
        let (directory, name) = split(node.path().as_bytes());
        Self { directory, name, source: LineSource::Node(node) }
    }

    fn is_storable(&self) -> bool {
        match self.source {
            LineSource::Node(node) => is_storable(node),
            LineSource::Kept(_) => true,
        }
    }

    fn is_stale(&self, seen: &BTreeSet<(&[u8], &[u8])>, scanned: &[&RootfsPath]) -> bool {
        let is_below = |top: &[u8]| {
            top.is_empty()
                || self
                    .directory
                    .strip_prefix(top)
                    .is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
        };
        seen.contains(&(self.directory, self.name)) || scanned.iter().any(|top| is_below(top.as_bytes()))
    }
}

fn is_storable(node: &Node) -> bool {
    node.contents().is_some_and(|contents| contents.origin != Origin::Read { storable: false })
}

fn write(lines: &[Line<'_>]) -> Vec<u8> {
    let mut file = HEADER.to_vec();
    for directory in lines.chunk_by(|a, b| a.directory == b.directory) {
        let mut block = Vec::new();
        for line in directory {
            match line.source {
                LineSource::Kept(encoded) => block.extend_from_slice(encoded),
                LineSource::Node(node) if line.is_storable() => put_record(&mut block, line.name, node),
                LineSource::Node(_) => {}
            }
        }
        if !block.is_empty() {
            put_long(&mut file, directory[0].directory);
            put_long(&mut file, &block);
        }
    }
    let check = Sha256::digest(&file);
    file.extend_from_slice(&check);
    file
}

fn put_record(into: &mut Vec<u8>, name: &[u8], node: &Node) {
    let (Some(contents), stamp) = (node.contents(), node.stamp()) else { return };
    let letter = kind_letter(stamp.kind);
    put_short(into, name);
    into.push(letter);
    into.extend_from_slice(&stamp.mode.to_le_bytes());
    into.extend_from_slice(&stamp.inode.to_le_bytes());
    into.extend_from_slice(&stamp.size_bytes.to_le_bytes());
    for time in [stamp.modified, stamp.changed] {
        into.extend_from_slice(&time.seconds.to_le_bytes());
        into.extend_from_slice(&time.nanos.to_le_bytes());
    }
    if letter == FILE {
        into.extend_from_slice(&contents.digest.0);
    }
    if let crate::Kind::Symlink { target } = node.kind() {
        put_short(into, target);
    }
    into.extend_from_slice(&u16_of(contents.xattrs.len()).to_le_bytes());
    for xattr in &contents.xattrs {
        put_short(into, &xattr.name);
        put_long(into, &xattr.value);
    }
}

const FILE: u8 = b'f';
const SYMLINK: u8 = b'l';

pub(super) fn kind_letter(kind: Kind) -> u8 {
    match kind {
        Kind::File => FILE,
        Kind::Directory => b'd',
        Kind::Symlink => SYMLINK,
        Kind::CharDevice { .. } => b'c',
        Kind::BlockDevice { .. } => b'b',
        Kind::Fifo => b'p',
        Kind::Socket => b's',
    }
}

fn u16_of(length: usize) -> u16 {
    u16::try_from(length).expect("names, targets and lists of attributes are below 64 KiB in Linux")
}

fn put_short(into: &mut Vec<u8>, bytes: &[u8]) {
    into.extend_from_slice(&u16_of(bytes.len()).to_le_bytes());
    into.extend_from_slice(bytes);
}

fn put_long(into: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("one directory's records are below 4 GiB");
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(bytes);
}

/// The range of bytes after a length of 32 bits.
fn sized(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let length = bytes.get(at..)?.first_chunk::<4>()?;
    let start = at + 4;
    let end = start.checked_add(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    (end <= bytes.len()).then_some(start..end)
}

/// Reads fields from the front; `None` where the bytes end.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<Time> {
        let seconds = self.array().map(i64::from_le_bytes)?;
        let nanos = self.array().map(u32::from_le_bytes)?;
        Some(Time { seconds, nanos })
    }

    fn short_bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.bytes(length.into())
    }

    fn xattr(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let name = self.short_bytes()?;
        let length = self.array().map(u32::from_le_bytes)?;
        Some((name, self.bytes(usize::try_from(length).ok()?)?))
    }
}
