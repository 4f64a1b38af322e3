//! The files of an archive by name, to be read in any order.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use layer::Limits;
use layer::compress::{self, Packing};
use layer::tar_read::{Member, Members, TarError};
use oci::{Digest, VerifyingReader};
use sys::{Root, RootfsPath};
use tar::EntryType;

use super::{LoadError, Source};
use crate::stream::{Cancellable, Copying};
use crate::{Error, Layers};

/// The largest document that is read.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// How many links lead to one file at most.
const MAX_LINKS: u32 = 8;

/// The files of an archive or directory.
pub(super) enum Bundle {
    /// Members of a tar, which lies uncompressed in a file.
    Tar { file: File, members: BTreeMap<RootfsPath, Place> },
    /// Files below a directory.
    Directory(Root),
}

/// Where a member is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// Its bytes, from one offset to another.
    Bytes { start: u64, end: u64 },
    /// Another name of this one. Docker before version 25 saved equal layers as links.
    Link(RootfsPath),
    /// Something without content.
    Other,
}

impl Bundle {
    /// Finds the files. A stream, or a compressed file, is first written down uncompressed in the lease's area.
    pub(super) fn open(layers: &Layers<'_>, source: Source<'_>) -> Result<Self, LoadError> {
        let path = match source {
            Source::Stream(stream) => return Self::spool(layers, stream),
            Source::Path(path) => path,
        };
        if path.is_dir() {
            let root = Root::open(&path).map_err(Error::at("open", &path))?;
            return Ok(Self::Directory(root));
        }
        let mut file = File::open(&path).map_err(Error::at("open", &path))?;
        if !is_plain_file(&file, &path)? {
            return Self::spool(layers, &mut file);
        }
        let bytes = BufReader::with_capacity(1 << 18, Cancellable::new(&file, layers.cancelled()));
        let members = find_members(bytes)?;
        Ok(Self::Tar { file, members })
    }

    fn spool(layers: &Layers<'_>, stream: &mut dyn Read) -> Result<Self, LoadError> {
        let scratch = layers.lease().scratch_dir().map_err(Error::from)?;
        let path = scratch.join("archive");
        let writer = File::create_new(&path).map_err(Error::at("create", &path))?;
        let stream = Cancellable::new(stream, layers.cancelled());
        let unpacked = compress::unpacked(stream, &Limits::STANDARD).map_err(LoadError::Read)?;
        let mut copying = Copying::new(unpacked, BufWriter::with_capacity(1 << 18, writer));
        let members = find_members(&mut copying)?;
        copying.finish().map_err(LoadError::Read)?;
        let file = File::open(&path).map_err(Error::at("open", &path))?;
        Ok(Self::Tar { file, members })
    }

    /// Whether there is a file of this name.
    pub(super) fn contains(&self, name: &RootfsPath) -> bool {
        match self {
            Self::Tar { members, .. } => members.contains_key(name),
            Self::Directory(root) => root.resolve(name).is_ok(),
        }
    }

    /// What to say of an archive without images.
    pub(super) fn no_images(&self) -> LoadError {
        let looks_like_rootfs = ["bin", "etc", "usr"]
            .iter()
            .filter_map(|name| RootfsPath::parse(name).ok())
            .any(|name| self.contains(&name));
        if looks_like_rootfs { LoadError::RootFilesystem } else { LoadError::NoImages }
    }

    /// Opens a file.
    pub(super) fn open_file<'b>(&'b self, name: &RootfsPath) -> io::Result<Box<dyn Read + 'b>> {
        let (file, members) = match self {
            Self::Directory(root) => return Ok(Box::new(root.open_file(name)?)),
            Self::Tar { file, members } => (file, members),
        };
        let mut at = name;
        for _ in 0..MAX_LINKS {
            match members.get(at) {
                Some(Place::Bytes { start, end }) => {
                    let section = Section { file, at: *start, end: *end };
                    return Ok(Box::new(BufReader::with_capacity(1 << 17, section)));
                }
                Some(Place::Link(target)) => at = target,
                Some(Place::Other) | None => break,
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Reads a document, verified if its digest and size are known.
    pub(super) fn read_document(
        &self,
        name: &RootfsPath,
        expected: Option<(&Digest, u64)>,
    ) -> Result<Vec<u8>, LoadError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => LoadError::Missing(name.clone()),
            _ => LoadError::Member { name: name.clone(), source },
        };
        let bytes = self.open_file(name).map_err(failed)?;
        let bytes: Box<dyn Read> = match expected {
            Some((_, size)) if size > MAX_DOCUMENT_BYTES => {
                return Err(LoadError::TooLarge { name: name.clone(), bytes: size });
            }
            Some((digest, size)) => Box::new(VerifyingReader::new(bytes, digest.clone(), Some(size))),
            None => bytes,
        };
        let mut document = Vec::new();
        bytes.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut document).map_err(failed)?;
        if document.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(LoadError::TooLarge { name: name.clone(), bytes: document.len() as u64 });
        }
        Ok(document)
    }

    /// Reads a JSON document.
    pub(super) fn read_json<T: serde::de::DeserializeOwned>(
        &self,
        name: &RootfsPath,
        expected: Option<(&Digest, u64)>,
    ) -> Result<(T, Vec<u8>), LoadError> {
        let bytes = self.read_document(name, expected)?;
        let parsed = serde_json::from_slice(&bytes)
            .map_err(|source| LoadError::Document { name: name.clone(), source })?;
        Ok((parsed, bytes))
    }
}

/// Whether members can be read where they lie.
fn is_plain_file(file: &File, path: &Path) -> Result<bool, Error> {
    let status = file.metadata().map_err(Error::at("look at", path))?;
    let mut magic = [0; 6];
    Ok(status.is_file()
        && match file.read_at(&mut magic, 0) {
            Ok(read) => Packing::sniff(&magic[..read]) == Packing::Plain,
            Err(source) => return Err(Error::at("read", path)(source)),
        })
}

/// Goes through a tar and notes where its members are. Of two with one name the later one counts, as for every reader of tars.
fn find_members(tar: impl Read) -> Result<BTreeMap<RootfsPath, Place>, LoadError> {
    let read_bytes = Cell::new(0);
    let mut reader = Members::new(Counted { inner: tar, bytes: &read_bytes }, &Limits::STANDARD);
    let mut members = BTreeMap::new();
    while let Some(member) = reader.next_member()? {
        let name = RootfsPath::parse_clamped(&member.path)?;
        let place = place_of(&member, &name, read_bytes.get())?;
        members.insert(name, place);
        if members.len() > Limits::STANDARD.entries {
            let limit = Limits::STANDARD.entries as u64;
            return Err(TarError::Limit { what: "entries", limit }.into());
        }
    }
    Ok(members)
}

fn place_of(member: &Member, name: &RootfsPath, start: u64) -> Result<Place, LoadError> {
    Ok(match member.header.entry_type() {
        EntryType::Regular | EntryType::Continuous => Place::Bytes { start, end: start + member.size },
        EntryType::GNUSparse => return Err(LoadError::Sparse(name.clone())),
        EntryType::Link => Place::Link(RootfsPath::parse_clamped(&member.link)?),
        EntryType::Symlink => {
            let parent = name.parent().unwrap_or_default();
            Place::Link(RootfsPath::parse_clamped([parent.as_bytes(), &member.link].join(&b'/'))?)
        }
        _ => Place::Other,
    })
}

/// Tells how far a tar has been read, which is where the current member's content begins.
struct Counted<'c, R> {
    inner: R,
    bytes: &'c Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

/// A part of a file. Any number of them read at once.
struct Section<'f> {
    file: &'f File,
    at: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..length], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
