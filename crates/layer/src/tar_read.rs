//! Members of a tar, as they stand in it.
//!
//! Headers are read with the `tar` crate; the frame around them is ours, since extended headers decide where the next member begins and what
//! it is called, and their values may hold any byte (file capabilities do).

use std::io::{self, Read};

use crate::Limits;
use crate::tar_header::BLOCK;

/// A stream of members.
#[derive(Debug)]
pub struct Members<R> {
    tar: R,
    limits: Limits,
    /// Content bytes of the current member that were not read yet.
    left: u64,
    /// Zero bytes that follow them.
    padding: u64,
    /// Where the current member's stored bytes belong, if it is sparse: (offset, length), in order.
    sparse: Vec<(u64, u64)>,
    /// Where the current member's content stands: bytes given so far, and its full size.
    at: u64,
    size: u64,
}

/// One member's header, with all extensions applied.
#[derive(Debug)]
pub struct Member {
    /// The last header block.
    pub header: tar::Header,
    /// The name as written.
    pub path: Vec<u8>,
    /// The link target as written.
    pub link: Vec<u8>,
    /// Size of the content in bytes, holes included.
    pub size: u64,
    /// PAX records in order.
    pub records: Vec<Record>,
}

/// Key and value of a PAX record; both may hold any byte.
pub type Record = (Vec<u8>, Vec<u8>);

/// A tar that is cut short or makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Reading failed.
    #[error("cannot read the tar")]
    Read(#[from] io::Error),
    /// The archive ends inside a member.
    #[error("the tar ends in the middle of a member")]
    Truncated,
    /// A header's checksum is wrong: this is no tar, or a damaged one.
    #[error("this is no tar: block {0} is not a header")]
    NoHeader(u64),
    /// A PAX record that does not parse.
    #[error("the tar has a malformed extended header")]
    Records,
    /// A way to write sparse files that is not read here.
    #[error("`{0}` is a sparse file in a format that cannot be read: write the tar without --sparse")]
    Sparse(String),
    /// A bound of [`Limits`].
    #[error("the tar has more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
}

/// Extensions gathered before a member's own header.
#[derive(Default)]
struct Pending {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Vec<Record>,
}

impl<R: Read> Members<R> {
    /// Reads from the start of a tar.
    pub fn new(tar: R, limits: &Limits) -> Self {
        Self { tar, limits: *limits, left: 0, padding: 0, sparse: Vec::new(), at: 0, size: 0 }
    }

    /// The next member, skipping what is left of the one before; `None` at the end.
    ///
    /// # Errors
    /// [`TarError`].
    pub fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        self.skip_rest()?;
        let mut pending = Pending::default();
        let mut blocks = 0;
        while let Some(header) = self.next_header(blocks)? {
            blocks += 1;
            let size = header.entry_size()?;
            match header.entry_type() {
                tar::EntryType::XHeader => {
                    let bytes = self.extension(size)?;
                    pending.records.extend(parse_records(&bytes)?);
                }
                tar::EntryType::GNULongName => pending.path = Some(cut_at_nul(self.extension(size)?)),
                tar::EntryType::GNULongLink => pending.link = Some(cut_at_nul(self.extension(size)?)),
                tar::EntryType::XGlobalHeader => drop(self.extension(size)?),
                _ => return self.begin(header, size, pending).map(Some),
            }
        }
        Ok(None)
    }

    /// The current member's content from where it stands.
    pub fn content(&mut self) -> Content<'_, R> {
        Content { members: self }
    }

    fn begin(&mut self, header: tar::Header, stored: u64, pending: Pending) -> Result<Member, TarError> {
        let record =
            |key: &[u8]| pending.records.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.clone());
        let path = record(b"path").or(pending.path).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = record(b"linkpath").or(pending.link);
        let link =
            link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned)).unwrap_or_default();
        if pending.records.iter().any(|(key, _)| key.starts_with(b"GNU.sparse.")) {
            return Err(TarError::Sparse(String::from_utf8_lossy(&path).into_owned()));
        }
        let stored = match record(b"size") {
            Some(text) => decimal(&text)?,
            None => stored,
        };
        // Links and devices have no content, whatever size their header claims (pax(1)).
        let has_content = matches!(
            header.entry_type(),
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse
        );
        let stored = if has_content { stored } else { 0 };
        (self.left, self.padding) = (stored, stored.wrapping_neg() % BLOCK as u64);
        (self.at, self.size) = (0, stored);
        self.sparse = Vec::new();
        if header.entry_type() == tar::EntryType::GNUSparse {
            self.begin_sparse(&header, &path)?;
        }
        if self.size > self.limits.file_bytes {
            return Err(TarError::Limit { what: "bytes in one file", limit: self.limits.file_bytes });
        }
        Ok(Member { header, path, link, size: self.size, records: pending.records })
    }

    /// Reads where the pieces of an old GNU sparse file belong (GNU tar manual, "Old GNU Format").
    fn begin_sparse(&mut self, header: &tar::Header, path: &[u8]) -> Result<(), TarError> {
        let wrong = || TarError::Sparse(String::from_utf8_lossy(path).into_owned());
        let gnu = header.as_gnu().ok_or_else(wrong)?;
        self.size = gnu.real_size()?;
        let mut pieces: Vec<(u64, u64)> = Vec::new();
        let mut add = |list: &[tar::GnuSparseHeader]| -> Result<(), TarError> {
            for piece in list.iter().filter(|piece| !piece.is_empty()) {
                pieces.push((piece.offset()?, piece.length()?));
            }
            Ok(())
        };
        add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        let mut extended = tar::GnuExtSparseHeader::new();
        while more {
            self.read_block(extended.as_mut_bytes())?;
            add(&extended.sparse)?;
            more = extended.is_extended();
        }
        let mut end = 0;
        for &(offset, length) in &pieces {
            if offset < end {
                return Err(wrong());
            }
            end = offset.checked_add(length).filter(|&end| end <= self.size).ok_or_else(wrong)?;
        }
        let stored: u64 = pieces.iter().map(|(_, length)| length).sum();
        if stored != self.left {
            return Err(wrong());
        }
        pieces.reverse();
        self.sparse = pieces;
        Ok(())
    }

    /// The next header block; `None` at the end-of-archive blocks or the end of the stream.
    fn next_header(&mut self, number: u64) -> Result<Option<tar::Header>, TarError> {
        let mut header = tar::Header::new_old();
        let mut filled = 0;
        while filled < BLOCK {
            match self.tar.read(&mut header.as_mut_bytes()[filled..])? {
                0 if filled == 0 && number == 0 => return Ok(None),
                0 => return Err(TarError::Truncated),
                read => filled += read,
            }
        }
        let bytes = header.as_bytes();
        if bytes.iter().all(|&b| b == 0) {
            return if number == 0 { Ok(None) } else { Err(TarError::Truncated) };
        }
        let outside = bytes[..148].iter().chain(&bytes[156..]);
        let sum: u32 = outside.map(|&b| u32::from(b)).sum::<u32>() + 8 * u32::from(b' ');
        match header.cksum() {
            Ok(stated) if stated == sum => Ok(Some(header)),
            _ => Err(TarError::NoHeader(number)),
        }
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let limit = self.limits.extension_bytes;
        if size > limit {
            return Err(TarError::Limit { what: "bytes of extended headers at one member", limit });
        }
        let mut bytes = Vec::new();
        let padded = size.next_multiple_of(BLOCK as u64);
        self.tar.by_ref().take(padded).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < size {
            return Err(TarError::Truncated);
        }
        bytes.truncate(usize::try_from(size).expect("bounded by the limit"));
        Ok(bytes)
    }

    fn read_block(&mut self, block: &mut [u8]) -> Result<(), TarError> {
        self.tar.read_exact(block).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated,
            _ => TarError::Read(error),
        })
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let rest = self.left + self.padding;
        let skipped = io::copy(&mut self.tar.by_ref().take(rest), &mut io::sink())?;
        // The padding of the very last member may be missing, as other readers allow.
        if skipped < self.left {
            return Err(TarError::Truncated);
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

/// Reads one member's content, holes of a sparse file as zeros.
#[derive(Debug)]
pub struct Content<'m, R> {
    members: &'m mut Members<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let m = &mut *self.members;
        let room = (buffer.len() as u64).min(m.size - m.at);
        if room == 0 {
            return Ok(0);
        }
        let is_sparse = m.size != m.at + m.left || !m.sparse.is_empty();
        let (is_hole, room) = match m.sparse.last() {
            Some(&(offset, _)) if m.at < offset => (true, room.min(offset - m.at)),
            Some(&(offset, length)) => (false, room.min(offset + length - m.at)),
            None => (is_sparse, room),
        };
        let buffer = &mut buffer[..usize::try_from(room).expect("at most the buffer's length")];
        let read = if is_hole {
            buffer.fill(0);
            buffer.len()
        } else {
            let read = m.tar.read(buffer)?;
            if read == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, TarError::Truncated));
            }
            m.left -= read as u64;
            read
        };
        m.at += read as u64;
        while m.sparse.last().is_some_and(|&(offset, length)| m.at >= offset + length) {
            m.sparse.pop();
        }
        Ok(read)
    }
}

fn cut_at_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(nul) = bytes.iter().position(|&b| b == 0) {
        bytes.truncate(nul);
    }
    bytes
}

fn decimal(text: &[u8]) -> Result<u64, TarError> {
    std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()).ok_or(TarError::Records)
}

/// `LENGTH key=value\n` repeated; the length counts the whole record, so values may hold any byte.
fn parse_records(mut bytes: &[u8]) -> Result<Vec<Record>, TarError> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|&b| b == b' ').ok_or(TarError::Records)?;
        let length = usize::try_from(decimal(&bytes[..space])?).map_err(|_| TarError::Records)?;
        if length <= space + 1 || length > bytes.len() {
            return Err(TarError::Records);
        }
        let (record, rest) = bytes.split_at(length);
        let record = record[space + 1..].strip_suffix(b"\n").ok_or(TarError::Records)?;
        let equals = record.iter().position(|&b| b == b'=').ok_or(TarError::Records)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        bytes = rest;
    }
    Ok(records)
}
