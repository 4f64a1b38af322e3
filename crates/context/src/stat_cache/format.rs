//! The bytes of a stat cache file.
//!
//! | part | fields, little endian |
//! | --- | --- |
//! | file | `HEADER`, one block for each directory, index, length of the index u64, check of the index |
//! | block | records |
//! | record | name (length u16), type letter, mode u16, inode u64, size u64, mtime and ctime (i64 seconds, u32 nanoseconds each), digest (32 bytes, files only), target (length u16, links only), number of xattrs u16, each: name (length u16), value (length u32) |
//! | index | for each block its directory's path (length u16), its length u64, its check |
//! | check | XXH3, 64 bits: against torn writes and bad disks, not against malice, since who may write here may write anything |
//!
//! The root's own record stands in the directory of the empty path under the empty name.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use sys::RootfsPath;
use sys::directory::Kind;
use sys::root::Time;
use twox_hash::XxHash3_64;

use crate::node::{Node, Origin, Place, Xattr};

const HEADER: &[u8] = b"rbuild stat cache 2\n";

/// The length of the index and its check.
const TRAILER_BYTES: usize = 8 + 8;

/// An open cache file and its index, checked. Blocks are read when they are asked for.
#[derive(Debug, Default)]
pub(crate) struct StatCache {
    file: Option<File>,
    index: Vec<u8>,
    /// Sorted by path, bytewise.
    directories: Vec<Directory>,
}

#[derive(Debug)]
struct Directory {
    /// In the index.
    path: Range<usize>,
    /// Where its block begins in the file.
    offset: u64,
    length: usize,
    check: u64,
}

/// The records of one directory, to be asked for in ascending order of name.
#[derive(Clone, Debug)]
pub(crate) struct Records<'a> {
    rest: &'a [u8],
}

/// The directory that was asked for last, for files that are looked at one by one: in the order of their names, they cost one read and
/// one pass altogether.
#[derive(Debug, Default)]
pub(crate) struct LastDirectory {
    path: Option<RootfsPath>,
    block: Vec<u8>,
    /// The name that was asked for last, and where the records after it begin.
    name: Vec<u8>,
    at: usize,
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
    /// Opens a cache file. One that is absent, damaged or of another version counts as empty.
    pub(crate) fn load(path: &Path) -> Self {
        Self::open(path).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::debug!(path = %path.display(), %error, "the stat cache cannot be used: starting anew");
            }
            Self::default()
        })
    }

    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut header = [0; HEADER.len()];
        file.read_exact_at(&mut header, 0)?;
        let index_end = file.metadata()?.len().checked_sub(TRAILER_BYTES as u64);
        let index_end = index_end.filter(|_| header == HEADER).ok_or_else(damaged)?;
        let mut trailer = [0; TRAILER_BYTES];
        file.read_exact_at(&mut trailer, index_end)?;
        let mut reader = Reader { rest: &trailer };
        let (length, check) = reader.u64().zip(reader.u64()).ok_or_else(damaged)?;
        let start = index_end.checked_sub(length).ok_or_else(damaged)?;
        let mut index = vec![0; length_of(length).ok_or_else(damaged)?];
        file.read_exact_at(&mut index, start)?;
        let found = directories_in(&index).filter(|_| XxHash3_64::oneshot(&index) == check);
        let (directories, _) = found.filter(|&(_, end)| end == start).ok_or_else(damaged)?;
        Ok(Self { file: Some(file), index, directories })
    }

    /// The records of a directory, read into a buffer; none if it is not known.
    pub(crate) fn directory<'a>(&self, path: &[u8], buffer: &'a mut Vec<u8>) -> Records<'a> {
        buffer.clear();
        let found = self.directories.binary_search_by(|known| self.index[known.path.clone()].cmp(path));
        if let Ok(index) = found {
            self.read(&self.directories[index], buffer);
        }
        Records { rest: buffer }
    }

    fn block(&self, directory: &Directory) -> Vec<u8> {
        let mut block = Vec::new();
        self.read(directory, &mut block);
        block
    }

    /// Reads a block. One that cannot be read or is damaged counts as empty.
    fn read(&self, directory: &Directory, block: &mut Vec<u8>) {
        let Some(file) = &self.file else { return };
        block.resize(directory.length, 0);
        let read = file.read_exact_at(block, directory.offset);
        if read.is_err() || XxHash3_64::oneshot(block) != directory.check {
            let path = String::from_utf8_lossy(&self.index[directory.path.clone()]);
            tracing::debug!(%path, ?read, "the stat cache is damaged: forgetting a directory");
            block.clear();
        }
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
        let kept = self.directories.iter().filter_map(|known| {
            let directory = &self.index[known.path.clone()];
            let path = RootfsPath::parse(directory).ok()?;
            let is_scanned = scanned.iter().any(|top| path.is_at_or_below(top));
            (!is_scanned).then(|| (directory, self.block(known)))
        });
        let kept: Vec<(&[u8], Vec<u8>)> = kept.collect();
        let mut lines: Vec<Line<'_>> = nodes.into_iter().map(Line::of_node).collect();
        let seen: BTreeSet<(&[u8], &[u8])> = lines.iter().map(|line| (line.directory, line.name)).collect();
        let kept = kept.iter().flat_map(|(directory, block)| Line::in_block(directory, block));
        let kept: Vec<_> = kept.filter(|line| !seen.contains(&(line.directory, line.name))).collect();
        lines.extend(kept);
        // Of two nodes of one path, looked at by itself and in a tree, the one that was read.
        lines.sort_by_key(|line| (line.directory, line.name, !line.is_storable()));
        lines.dedup_by_key(|line| (line.directory, line.name));
        Some(write(&lines))
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "damaged, or of another version")
}

/// The directories of an index, and where their blocks end.
fn directories_in(index: &[u8]) -> Option<(Vec<Directory>, u64)> {
    let (mut directories, mut offset) = (Vec::new(), HEADER.len() as u64);
    let mut reader = Reader { rest: index };
    while !reader.rest.is_empty() {
        let path = reader.short_bytes()?;
        let end = index.len() - reader.rest.len();
        let (length, check) = (reader.u64()?, reader.u64()?);
        directories.push(Directory {
            path: end - path.len()..end,
            offset,
            length: length_of(length)?,
            check,
        });
        offset = offset.checked_add(length)?;
    }
    Some((directories, offset))
}

fn length_of(length: u64) -> Option<usize> {
    usize::try_from(length).ok()
}

impl LastDirectory {
    /// The record of a file.
    pub(crate) fn find(&mut self, cache: &StatCache, file: &Place) -> Option<Record<'_>> {
        let Self { path, block, name, at } = self;
        if path.as_ref() != Some(file.directory()) {
            cache.directory(file.directory().as_bytes(), block);
            (*path, *at) = (Some(file.directory().clone()), 0);
        } else if file.name() <= &**name {
            *at = 0;
        }
        let mut records = Records { rest: &block[*at..] };
        let found = records.find(file.name());
        *at = block.len() - records.rest.len();
        name.clear();
        name.extend_from_slice(file.name());
        found
    }
}

impl<'a> Records<'a> {
    /// The record of a name. Names must be asked for in ascending order.
    pub(crate) fn find(&mut self, name: &[u8]) -> Option<Record<'a>> {
        loop {
            let order = self.peek()?.cmp(name);
            if order.is_gt() {
                return None;
            }
            let record = self.next()?;
            if order.is_eq() {
                return Some(record);
            }
        }
    }

    /// The name of the next record.
    fn peek(&self) -> Option<&'a [u8]> {
        Reader { rest: self.rest }.short_bytes()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    /// Reads one record. A block that is not well formed ends at the fault: its bytes were checked, so that only an error of ours makes one.
    fn next(&mut self) -> Option<Record<'a>> {
        let whole = self.rest;
        let mut reader = Reader { rest: whole };
        let record = Record::read(&mut reader)?;
        self.rest = reader.rest;
        Some(Record { encoded: &whole[..whole.len() - reader.rest.len()], ..record })
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
        if self.xattr_count == 0 {
            return Box::default();
        }
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
        let (directory, name) = (node.place().directory().as_bytes(), node.place().name());
        Self { directory, name, source: LineSource::Node(node) }
    }

    fn in_block(directory: &'a [u8], block: &'a [u8]) -> impl Iterator<Item = Self> {
        let records = Records { rest: block };
        records.map(move |record| Self {
            directory,
            name: record.name,
            source: LineSource::Kept(record.encoded),
        })
    }

    fn is_storable(&self) -> bool {
        match self.source {
            LineSource::Node(node) => is_storable(node),
            LineSource::Kept(_) => true,
        }
    }
}

fn is_storable(node: &Node) -> bool {
    node.contents().is_some_and(|contents| contents.origin != Origin::Read { storable: false })
}

fn write(lines: &[Line<'_>]) -> Vec<u8> {
    let (mut file, mut index) = (HEADER.to_vec(), Vec::new());
    for directory in lines.chunk_by(|a, b| a.directory == b.directory) {
        let start = file.len();
        for line in directory {
            match line.source {
                LineSource::Kept(encoded) => file.extend_from_slice(encoded),
                LineSource::Node(node) if line.is_storable() => put_record(&mut file, line.name, node),
                LineSource::Node(_) => {}
            }
        }
        let block = &file[start..];
        if !block.is_empty() {
            put_short(&mut index, directory[0].directory);
            index.extend_from_slice(&(block.len() as u64).to_le_bytes());
            index.extend_from_slice(&XxHash3_64::oneshot(block).to_le_bytes());
        }
    }
    file.extend_from_slice(&index);
    file.extend_from_slice(&(index.len() as u64).to_le_bytes());
    file.extend_from_slice(&XxHash3_64::oneshot(&index).to_le_bytes());
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
    into.extend_from_slice(&u16_of(node.xattrs().len()).to_le_bytes());
    for xattr in node.xattrs() {
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
    let length = u32::try_from(bytes.len()).expect("values of attributes are at most 64 KiB in Linux");
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(bytes);
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

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
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
        let length = self.u32()?;
        Some((name, self.bytes(usize::try_from(length).ok()?)?))
    }
}
