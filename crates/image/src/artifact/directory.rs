//! Directories as blobs of an artifact, so that a second one of almost the same content sends almost nothing.
//!
//! The canonical tar of a directory is cut where its content says so (FastCDC), so that what changes in one place moves no cut in another. Chunks are
//! compressed one by one and joined to *packs* of some MiB, which are the blobs: a registry sees hundreds of them, not hundreds of thousands. A
//! document says which chunks the tar consists of. Chunks that an artifact before had are used where they are, unless most of their pack is waste by now.
//!
//! What comes back is a tar of a stranger, and read as a layer's is: into an entry list first, then, by that, into an empty directory.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use fastcdc::v2020::StreamCDC;
use layer::foreign::{self, ForeignError, Whiteouts};
use layer::pack::{FileDigests, PackError, pack};
use layer::seal::{self, SealError, TreeContents};
use layer::unpack::{UnpackError, unpack};
use layer::{Limits, Merged, compress};
use oci::{Compression, Descriptor, DiffId, Digest, MediaType};
use serde::{Deserialize, Serialize};
use sys::root::Dir;

use super::{ArtifactError, Part, Place, unpacked};
use crate::stream::Cancellable;
use crate::{Error, Layers, parallel, tar};

/// Bounds of a chunk, and what one has on average, in bytes.
const CHUNK: (usize, usize, usize) = (32 << 10, 128 << 10, 512 << 10);

/// The most that a chunk may have once it is unpacked: what cannot be compressed is a little longer than it was, and other versions may cut otherwise.
const MAX_CHUNK_BYTES: u32 = 4 << 20;

/// When a pack is full, in bytes.
const PACK_BYTES: u64 = 4 << 20;

/// How many packs that are less than half full may come from artifacts before: each export of a cache that grows leaves one.
const SMALL_PACKS: usize = 16;

/// The longest pack that is fetched.
const MAX_PACK_BYTES: u64 = 64 << 20;

/// Threads that read files ahead.
const READERS: usize = 4;

/// Which chunks a tar consists of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Document {
    /// Of the tar.
    tar: Option<DiffId>,
    packs: Vec<Pack>,
    /// In the order of the tar.
    chunks: Vec<Chunk>,
}

/// A blob of chunks.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pack(Digest, u64);

/// Pack by position, offset and length in it, digest of the unpacked bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Chunk(usize, u64, u32, Digest);

/// A directory that is ready to be sent.
#[derive(Debug)]
pub struct Chunked<'p> {
    /// Compressed.
    pub document: Vec<u8>,
    /// What the document needs beside it.
    pub packs: Vec<Part<'p>>,
}

/// The same directory as an artifact has it that is there already.
#[derive(Debug)]
pub struct Before<'p> {
    place: Place<'p>,
    packs: Vec<(Pack, Descriptor)>,
    chunks: HashMap<Digest, Chunk>,
}

/// Why a directory cannot travel.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The store.
    #[error(transparent)]
    Image(#[from] Error),
    /// The document or a pack does not come.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The directory cannot be listed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It cannot be read.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Packs cannot be written or fetched, or a chunk not be unpacked.
    #[error("cannot {action} what a directory consists of")]
    Io {
        /// A verb.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The document is none.
    #[error("it is not written down in a form that this version reads")]
    Malformed(#[from] serde_json::Error),
    /// The document contradicts itself.
    #[error("what is written down of it contradicts itself")]
    Contradiction,
    /// The tar cannot be used.
    #[error("its content cannot be used")]
    Foreign(#[from] Box<ForeignError>),
    /// The tar is another one.
    #[error("it should be the tar {expected}, and is {got}")]
    WrongTar {
        /// In the document.
        expected: DiffId,
        /// Of the bytes.
        got: DiffId,
    },
    /// The tar cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

impl From<store::Error> for DirectoryError {
    fn from(error: store::Error) -> Self {
        Error::from(error).into()
    }
}

fn io_error(action: &'static str) -> impl Fn(io::Error) -> DirectoryError {
    move |source| DirectoryError::Io { action, source }
}

impl Document {
    /// Reads a document that stands in an artifact.
    fn load(place: &Place<'_>, blob: &Descriptor) -> Result<Self, DirectoryError> {
        let bytes = unpacked(place.open(blob).map_err(io_error("fetch"))?)?;
        let read: Self = serde_json::from_slice(&bytes)?;
        let fits = |Chunk(pack, offset, length, _): &Chunk| {
            let Some(Pack(_, size)) = read.packs.get(*pack) else { return false };
            offset.checked_add(u64::from(*length)).is_some_and(|end| end <= *size)
                && *length <= MAX_CHUNK_BYTES
        };
        let is_whole = read.chunks.iter().all(fits) && read.packs.iter().all(|pack| pack.1 <= MAX_PACK_BYTES);
        if is_whole { Ok(read) } else { Err(DirectoryError::Contradiction) }
    }

    /// How much of each pack is still of use, in bytes.
    fn live_bytes(&self) -> Vec<u64> {
        let mut live = vec![0; self.packs.len()];
        let mut seen = std::collections::HashSet::new();
        for Chunk(pack, offset, length, _) in &self.chunks {
            if seen.insert((*pack, *offset)) {
                live[*pack] += u64::from(*length);
            }
        }
        live
    }
}

impl<'p> Before<'p> {
    /// What the artifact at a place has, by its document `blob`. Packs of which less than half is of use are left alone, and small ones if there are many: what
    /// is in them is sent anew, in fewer packs.
    ///
    /// # Errors
    /// [`DirectoryError`], if the document does not come or is none.
    pub fn load(place: Place<'p>, blob: &Descriptor, blobs: &[Descriptor]) -> Result<Self, DirectoryError> {
        let document = Document::load(&place, blob)?;
        let live = document.live_bytes();
        let is_small = |Pack(_, size): &&Pack| *size < PACK_BYTES / 2;
        let are_few = document.packs.iter().filter(is_small).count() <= SMALL_PACKS;
        let is_kept = |index: usize, pack: &Pack| live[index] * 2 >= pack.1 && (are_few || !is_small(&pack));
        let by_digest = |blob: &Descriptor| Some((Digest::try_from(blob.digest()).ok()?, blob.clone()));
        let there: HashMap<Digest, Descriptor> = blobs.iter().filter_map(by_digest).collect();
        let mut packs = Vec::new();
        let mut positions = HashMap::new();
        for (index, pack) in document.packs.iter().enumerate() {
            if let Some(blob) = there.get(&pack.0).filter(|_| is_kept(index, pack)) {
                positions.insert(index, packs.len());
                packs.push((pack.clone(), blob.clone()));
            }
        }
        let moved = |Chunk(pack, offset, length, digest): &Chunk| {
            Some((digest.clone(), Chunk(*positions.get(pack)?, *offset, *length, digest.clone())))
        };
        Ok(Self { place, packs, chunks: document.chunks.iter().filter_map(moved).collect() })
    }
}

/// Cuts a directory into chunks; those that `before` has not are written into packs of the type `media_type`, in a directory of the lease. Nobody may
/// change it meanwhile. Sockets in it go.
///
/// # Errors
/// [`DirectoryError`].
pub fn chunk<'p>(
    layers: &Layers<'_>,
    directory: &Path,
    before: Option<&Before<'p>>,
    media_type: &MediaType,
) -> Result<Chunked<'p>, DirectoryError> {
    let tree = Dir::open(directory).map_err(Error::at("open", directory))?;
    let list = seal::list(&tree, &Merged::default())?;
    let scratch = layers.lease().scratch_dir()?;
    let mut packer = Packer::new(scratch, before, media_type);
    let contents = TreeContents { tree: &tree };
    let (packer, packed) = tar::piped(
        layers,
        |form, cancelled| pack(list, &contents, FileDigests::Compute, form, READERS, cancelled),
        DirectoryError::from,
        |bytes| {
            let (least, average, most) = CHUNK;
            for chunk in StreamCDC::new(bytes, least, average, most) {
                packer.add(&chunk.map_err(|error| io_error("read")(error.into()))?.data)?;
            }
            packer.end_pack()?;
            Ok::<_, DirectoryError>(packer.finish())
        },
    )?;
    let (document, packs) = packer;
    let document = Document { tar: Some(packed.diff_id), ..document };
    let json = serde_json::to_vec(&document)?;
    let mut compressed = Vec::new();
    compress::compress(&*json, Compression::Zstd, &mut compressed).map_err(io_error("compress"))?;
    Ok(Chunked { document: compressed, packs })
}

/// Where a chunk is while packs are still being filled.
#[derive(Clone, Copy)]
enum In {
    /// A new pack.
    New(usize),
    /// A pack of before, by its position among those that are used.
    Before(usize),
}

/// Collects chunks.
struct Packer<'b, 'p> {
    scratch: PathBuf,
    before: Option<&'b Before<'p>>,
    media_type: &'b MediaType,
    new: Vec<(Pack, Part<'p>)>,
    /// Packs of before that are used, by their positions there.
    taken: Vec<usize>,
    chunks: Vec<(In, Chunk)>,
    known: HashMap<Digest, usize>,
    /// The pack that is being filled.
    open: Vec<u8>,
}

impl<'b, 'p> Packer<'b, 'p> {
    fn new(scratch: PathBuf, before: Option<&'b Before<'p>>, media_type: &'b MediaType) -> Self {
        Self {
            scratch,
            before,
            media_type,
            new: Vec::new(),
            taken: Vec::new(),
            chunks: Vec::new(),
            known: HashMap::new(),
            open: Vec::new(),
        }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), DirectoryError> {
        let digest = Digest::of(bytes);
        let chunk = match (self.known.get(&digest), self.chunk_of_before(&digest)) {
            (Some(same), _) => self.chunks[*same].clone(),
            (None, Some((before, chunk))) => {
                let taken = self.taken.iter().position(|taken| *taken == before);
                let taken = taken.unwrap_or_else(|| {
                    self.taken.push(before);
                    self.taken.len() - 1
                });
                (In::Before(taken), chunk)
            }
            (None, None) => self.new_chunk(bytes, &digest)?,
        };
        self.known.entry(digest).or_insert(self.chunks.len());
        self.chunks.push(chunk);
        Ok(())
    }

    fn chunk_of_before(&self, digest: &Digest) -> Option<(usize, Chunk)> {
        let chunk = self.before?.chunks.get(digest)?;
        Some((chunk.0, chunk.clone()))
    }

    /// The document, and its packs: the new ones first.
    fn finish(self) -> (Document, Vec<Part<'p>>) {
        let news = self.new.len();
        let (mut packs, mut parts): (Vec<Pack>, Vec<Part<'p>>) = self.new.into_iter().unzip();
        if let Some(Before { place, packs: of_before, .. }) = self.before {
            for position in self.taken {
                let (pack, blob) = of_before[position].clone();
                packs.push(pack);
                parts.push(Part::Of { place: *place, blob: Box::new(blob) });
            }
        }
        let moved = |(place, Chunk(_, offset, length, digest)): (In, Chunk)| {
            let pack = match place {
                In::New(position) => position,
                In::Before(position) => news + position,
            };
            Chunk(pack, offset, length, digest)
        };
        (Document { tar: None, packs, chunks: self.chunks.into_iter().map(moved).collect() }, parts)
    }

    fn new_chunk(&mut self, bytes: &[u8], digest: &Digest) -> Result<(In, Chunk), DirectoryError> {
        let mut packed = Vec::new();
        compress::compress(bytes, Compression::Zstd, &mut packed).map_err(io_error("compress"))?;
        if (self.open.len() + packed.len()) as u64 > PACK_BYTES {
            self.end_pack()?;
        }
        let offset = self.open.len() as u64;
        self.open.extend_from_slice(&packed);
        let length = u32::try_from(packed.len()).expect("a chunk is short");
        Ok((In::New(self.new.len()), Chunk(0, offset, length, digest.clone())))
    }

    /// Writes the pack that is being filled, if anything is in it.
    fn end_pack(&mut self) -> Result<(), DirectoryError> {
        if self.open.is_empty() {
            return Ok(());
        }
        let (digest, size) = (Digest::of(&self.open), self.open.len() as u64);
        let path = self.scratch.join(self.new.len().to_string());
        let written = File::create_new(&path).and_then(|mut file| file.write_all(&self.open));
        written.map_err(io_error("write"))?;
        self.open.clear();
        let part = Part::File { media_type: self.media_type.clone(), digest: digest.clone(), size, path };
        self.new.push((Pack(digest, size), part));
        Ok(())
    }
}

/// Writes a directory that an artifact has into an empty one, by the artifact's document `blob`, with at most `transfers` packs on their way at once.
///
/// # Errors
/// [`DirectoryError`]; what is in `into` is then to be thrown away.
pub fn restore(
    layers: &Layers<'_>,
    place: &Place<'_>,
    blob: &Descriptor,
    into: &Path,
    transfers: usize,
) -> Result<(), DirectoryError> {
    let document = Document::load(place, blob)?;
    let Some(expected) = document.tar.clone() else { return Err(DirectoryError::Contradiction) };
    // Each once, or a short document would have a large pack come a thousand times.
    let distinct: HashSet<_> = document.packs.iter().map(|pack| &pack.0).collect();
    if distinct.len() < document.packs.len() {
        return Err(DirectoryError::Contradiction);
    }
    let packed = document.packs.iter().fold(0, |all: u64, pack| all.saturating_add(pack.1));
    let scratch = layers.lease().scratch_dir()?;
    let indexed: Vec<(usize, &Pack)> = document.packs.iter().enumerate().collect();
    parallel::map(transfers, &indexed, |(index, Pack(digest, size))| {
        let blob = Descriptor::new(MediaType::from("application/octet-stream"), *size, digest);
        let mut file = File::create_new(scratch.join(index.to_string()))?;
        io::copy(&mut Cancellable::new(place.open(&blob)?, layers.cancelled()), &mut file)
    })
    .map_err(io_error("fetch"))?;
    let read = || Chunks {
        document: &document,
        scratch: &scratch,
        next: 0,
        open: None,
        bytes: Vec::new(),
        used: 0,
        total: 0,
        packed,
    };
    let read = || Cancellable::new(read(), layers.cancelled());
    let foreign =
        foreign::read(read(), &Merged::default(), Whiteouts::Refused, &Limits::STANDARD).map_err(Box::new)?;
    if foreign.diff_id != expected {
        return Err(DirectoryError::WrongTar { expected, got: foreign.diff_id });
    }
    let tree = Dir::open(into).map_err(Error::at("open", into))?;
    unpack(read(), &foreign.entries, &tree)?;
    // Before the lease ends: they may be as large as what was unpacked.
    fs::remove_dir_all(&scratch).map_err(io_error("remove"))
}

/// The tar that chunks are of.
struct Chunks<'c> {
    document: &'c Document,
    scratch: &'c Path,
    next: usize,
    /// The pack of the last chunk: the next one is mostly of the same.
    open: Option<(usize, File)>,
    bytes: Vec<u8>,
    used: usize,
    /// How many bytes all chunks so far have given.
    total: u64,
    /// How many all packs have.
    packed: u64,
}

/// A chunk may stand in a tar any number of times.
#[derive(Debug, thiserror::Error)]
#[error("{bytes} bytes came of {packed}, as they do of nothing that is real")]
struct Bomb {
    bytes: u64,
    packed: u64,
}

impl Chunks<'_> {
    fn unpack(&mut self, Chunk(pack, offset, length, _): &Chunk) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(open, _)| open != pack) {
            self.open = Some((*pack, File::open(self.scratch.join(pack.to_string()))?));
        }
        let mut packed = vec![0; *length as usize];
        if let Some((_, file)) = &self.open {
            file.read_exact_at(&mut packed, *offset)?;
        }
        self.bytes.clear();
        let mut unpacked = compress::unpacked(&*packed, &Limits::STANDARD)?.take(u64::from(MAX_CHUNK_BYTES));
        unpacked.read_to_end(&mut self.bytes)?;
        self.used = 0;
        self.total += self.bytes.len() as u64;
        let Limits { ratio, ratio_from_bytes, .. } = Limits::STANDARD;
        if self.total > ratio_from_bytes && self.total / ratio > self.packed {
            return Err(io::Error::other(Bomb { bytes: self.total, packed: self.packed }));
        }
        Ok(())
    }
}

impl Read for Chunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let document = self.document;
        while self.used == self.bytes.len() {
            let Some(chunk) = document.chunks.get(self.next) else { return Ok(0) };
            self.next += 1;
            self.unpack(chunk)?;
        }
        let read = buffer.len().min(self.bytes.len() - self.used);
        buffer[..read].copy_from_slice(&self.bytes[self.used..self.used + read]);
        self.used += read;
        Ok(read)
    }
}
