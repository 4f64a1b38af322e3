//! From an entry list and the contents of its files to a canonical tar or a tree, with the DiffID, reading every file once.
//!
//! Readers work ahead in parallel and hash each file if its digest is not known; one writer puts members in order; the DiffID's
//! sha256, which nothing can split, runs beside it. Memory is bounded by the buffers in flight, whatever the sizes of the files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};

use oci::{DiffId, Hasher};
use sys::RootfsPath;
use sys::block_file::{Block, BlockFile};
use sys::root::Dir;

use crate::entries::{Entries, Entry, FileDigest, Kind};
use crate::tar_header;
use crate::unpack::{TreeError, TreeWriter};

/// Content handed from a reader to the writer at a time, in bytes.
const PIECE_BYTES: usize = 256 << 10;
/// Small files are read together up to this many bytes.
const BATCH_BYTES: u64 = 512 << 10;
/// And up to this many files.
const BATCH_FILES: usize = 128;
/// Batches that may be read ahead of the writer.
const BATCHES_AHEAD: usize = 8;
/// Pieces of one large file that may be read ahead.
const PIECES_AHEAD: usize = 4;
/// Tar bytes hashed and written at a time.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks that may wait for the hash.
const BLOCKS_AHEAD: usize = 4;

/// Where the contents of an entry list's files come from.
pub trait Contents: Sync {
    /// Opens the content of `entry`, the `index`-th of the list.
    ///
    /// # Errors
    /// Whatever keeps the content from being read.
    fn open(&self, index: usize, entry: &Entry) -> io::Result<Box<dyn Read + '_>>;
}

/// What to make besides the DiffID.
#[derive(Debug)]
pub enum Form<'d> {
    /// Nothing: the content is already where it belongs.
    DiffIdOnly,
    /// The canonical tar, written to this file.
    Tar(File),
    /// The tree, in this empty directory.
    Tree(&'d Dir),
}

/// Whether the digests in the entry list are right already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileDigests {
    /// They are; contents are not hashed again.
    Known,
    /// They are made from the contents.
    Compute,
}

/// A packed layer.
#[derive(Clone, Debug)]
pub struct Packed {
    /// With digests and tar members filled in.
    pub entries: Entries,
    /// Of the canonical tar, whether or not it was written.
    pub diff_id: DiffId,
    /// Size of the canonical tar in bytes.
    pub tar_bytes: u64,
}

/// Why packing stopped. What was written so far is to be thrown away.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file could not be opened or read.
    #[error("cannot read `{path}`")]
    Read {
        /// As named in the layer.
        path: RootfsPath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file was shorter or longer than when it was listed.
    #[error("`{path}` changed while it was read")]
    Changed {
        /// As named in the layer.
        path: RootfsPath,
    },
    /// The tar could not be written.
    #[error("cannot write a layer")]
    Write(#[source] io::Error),
    /// The tree could not be written.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// Packs an entry list, sorted by path.
///
/// `threads` bounds the readers; `cancelled` is asked between files, and between pieces of large ones.
///
/// # Errors
/// [`PackError`].
pub fn pack(
    mut list: Vec<Entry>,
    contents: &dyn Contents,
    digests: FileDigests,
    form: Form<'_>,
    threads: usize,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Packed, PackError> {
    let batches = batches(&list);
    let (diff_id, tar_bytes, computed) = std::thread::scope(|scope| {
        let (order, ordered) = sync_channel(BATCHES_AHEAD);
        let claims = Mutex::new(Claims { next: 0, order });
        let readers = Readers { list: &list, contents, digests, batches: &batches, claims };
        let readers = Arc::new(readers);
        for _ in 0..threads.max(1).min(batches.len()) {
            let readers = Arc::clone(&readers);
            scope.spawn(move || readers.run());
        }
        // The last reader to end closes the order channel, which tells the writer that a reader died early.
        drop(readers);
        let mut incoming =
            Incoming { ordered, batch: None, piece: Vec::new(), used: 0, computed: Vec::new() };
        let mut output = Output::new(form, scope);
        let has_tree = output.tree.is_some();
        for entry in list.iter().filter(|entry| !entry.implied || has_tree) {
            if cancelled() {
                return Err(PackError::Cancelled);
            }
            output.begin(entry)?;
            incoming.copy_content(entry, &mut output, cancelled)?;
            output.end(entry)?;
        }
        incoming.finish()?;
        let (diff_id, bytes) = output.finish(&list)?;
        Ok((diff_id, bytes, incoming.computed))
    })?;
    number_members(&mut list);
    if digests == FileDigests::Compute {
        fill_digests(&mut list, computed);
    }
    Ok(Packed { entries: Entries::new(list), diff_id, tar_bytes })
}

/// Says which tar member holds each file: implied entries have none, an opaque directory has two.
fn number_members(list: &mut [Entry]) {
    let mut next = 0;
    for entry in list.iter_mut().filter(|entry| !entry.implied) {
        if let Kind::File { member, .. } = &mut entry.kind {
            *member = next;
        }
        next += if entry.kind == (Kind::Directory { opaque: true }) { 2 } else { 1 };
    }
}

fn fill_digests(list: &mut [Entry], computed: Vec<FileDigest>) {
    let files = list.iter_mut().filter_map(|entry| match &mut entry.kind {
        Kind::File { digest, .. } => Some(digest),
        _ => None,
    });
    for (digest, value) in files.zip(computed) {
        *digest = value;
    }
}

/// Runs of files that one reader reads at once: many small ones, or one large one.
fn batches(list: &[Entry]) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    let (mut bytes, mut files) = (0, 0);
    for (index, entry) in list.iter().enumerate() {
        let Kind::File { size, .. } = entry.kind else { continue };
        match batches.last_mut() {
            Some(batch) if bytes + size <= BATCH_BYTES && files < BATCH_FILES => batch.end = index + 1,
            _ => {
                batches.push(index..index + 1);
                (bytes, files) = (0, 0);
            }
        }
        bytes += size;
        files += 1;
    }
    batches
}

/// What a reader hands over: contents of a batch's files one after the other, then their digests.
enum Piece {
    Bytes(Vec<u8>),
    Digests(Vec<FileDigest>),
}

type PieceSender = SyncSender<Result<Piece, PackError>>;
type Pieces = Receiver<Result<Piece, PackError>>;

struct Claims {
    next: usize,
    order: SyncSender<Pieces>,
}

struct Readers<'p> {
    list: &'p [Entry],
    contents: &'p dyn Contents,
    digests: FileDigests,
    batches: &'p [Range<usize>],
    claims: Mutex<Claims>,
}

impl Readers<'_> {
    /// Reads batches until none is left or the writer is gone.
    fn run(&self) {
        while let Some((batch, to)) = self.claim() {
            if let Err(error) = self.read_batch(batch, &to) {
                // A writer that is gone has its own error to tell.
                drop(to.send(Err(error)));
                return;
            }
        }
    }

    /// Takes the next batch and promises its pieces to the writer, in order.
    fn claim(&self) -> Option<(Range<usize>, PieceSender)> {
        let mut claims = self.claims.lock().expect("no reader panics while it holds the lock");
        let batch = self.batches.get(claims.next)?.clone();
        let (to, pieces) = sync_channel(PIECES_AHEAD);
        claims.order.send(pieces).ok()?;
        claims.next += 1;
        Some((batch, to))
    }

    fn read_batch(&self, batch: Range<usize>, to: &PieceSender) -> Result<(), PackError> {
        let mut digests = Vec::with_capacity(batch.len());
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        for index in batch {
            let entry = &self.list[index];
            let Kind::File { size, .. } = entry.kind else { continue };
            let mut hasher = (self.digests == FileDigests::Compute).then(Hasher::sha256);
            let failed = |source| PackError::Read { path: entry.path.clone(), source };
            let mut content = self.contents.open(index, entry).map_err(failed)?;
            let mut left = size;
            while left > 0 {
                if piece.len() == PIECE_BYTES {
                    let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE_BYTES));
                    if to.send(Ok(Piece::Bytes(full))).is_err() {
                        return Err(PackError::Cancelled);
                    }
                }
                let start = piece.len();
                let room = ((PIECE_BYTES - start) as u64).min(left);
                let read = content.by_ref().take(room).read_to_end(&mut piece).map_err(failed)?;
                if read == 0 {
                    return Err(PackError::Changed { path: entry.path.clone() });
                }
                left -= read as u64;
                if let Some(hasher) = &mut hasher {
                    hasher.update(&piece[start..]);
                }
            }
            if content.read(&mut [0]).map_err(failed)? != 0 {
                return Err(PackError::Changed { path: entry.path.clone() });
            }
            if let Some(oci::Digest::Sha256(bytes)) = hasher.map(Hasher::finish) {
                digests.push(FileDigest(bytes));
            }
        }
        let sent = to.send(Ok(Piece::Bytes(piece))).and_then(|()| to.send(Ok(Piece::Digests(digests))));
        sent.map_err(|_| PackError::Cancelled)
    }
}

/// The writer's side of the readers.
struct Incoming {
    ordered: Receiver<Pieces>,
    batch: Option<Pieces>,
    piece: Vec<u8>,
    used: usize,
    computed: Vec<FileDigest>,
}

impl Incoming {
    fn copy_content(
        &mut self,
        entry: &Entry,
        output: &mut Output<'_, '_, '_>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), PackError> {
        let mut left = usize::try_from(entry.size()).expect("sizes are bounded far below the address space");
        while left > 0 {
            if self.used == self.piece.len() {
                if cancelled() {
                    return Err(PackError::Cancelled);
                }
                self.next_piece(entry)?;
            }
            let length = left.min(self.piece.len() - self.used);
            output.content(entry, &self.piece[self.used..self.used + length])?;
            self.used += length;
            left -= length;
        }
        Ok(())
    }

    fn next_piece(&mut self, entry: &Entry) -> Result<(), PackError> {
        let gone = || PackError::Changed { path: entry.path.clone() };
        loop {
            let received = self.batch.as_ref().and_then(|batch| batch.recv().ok());
            match received {
                Some(piece) => match piece? {
                    Piece::Bytes(bytes) if bytes.is_empty() => {}
                    Piece::Bytes(bytes) => {
                        (self.piece, self.used) = (bytes, 0);
                        return Ok(());
                    }
                    Piece::Digests(digests) => self.computed.extend(digests),
                },
                None => self.batch = Some(self.ordered.recv().map_err(|_| gone())?),
            }
        }
    }

    /// Takes what is left: digests of the last files, and of batches that had no content.
    fn finish(&mut self) -> Result<(), PackError> {
        loop {
            for piece in self.batch.iter().flatten() {
                if let Piece::Digests(digests) = piece? {
                    self.computed.extend(digests);
                }
            }
            match self.ordered.recv() {
                Ok(batch) => self.batch = Some(batch),
                Err(_) => return Ok(()),
            }
        }
    }
}

/// The way to the hashing thread, the way back of the blocks, and the thread.
struct Hashing<'scope> {
    to: SyncSender<Block>,
    done: Receiver<Block>,
    thread: std::thread::ScopedJoinHandle<'scope, Hasher>,
}

/// The tar as a stream of blocks, hashed on a thread of its own as soon as there is a second block, and perhaps a tree.
struct Output<'scope, 'env, 'd> {
    scope: &'scope std::thread::Scope<'scope, 'env>,
    tar: Option<BlockFile>,
    tree: Option<TreeWriter<'d>>,
    file: Option<File>,
    /// Of the entry that was begun last.
    header: Vec<u8>,
    block: Block,
    bytes: u64,
    hashing: Option<Hashing<'scope>>,
}

impl<'scope> Hashing<'scope> {
    fn begin(scope: &'scope std::thread::Scope<'scope, '_>) -> Self {
        let (to, blocks) = sync_channel::<Block>(BLOCKS_AHEAD);
        let (back, done) = channel();
        let hash = move || {
            let mut hasher = Hasher::sha256();
            for block in blocks {
                hasher.update(block.as_slice());
                // Once all is written, nobody wants it any more.
                drop(back.send(block));
            }
            hasher
        };
        Self { to, done, thread: scope.spawn(hash) }
    }

    fn end(self) -> Hasher {
        drop(self.to);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl<'scope, 'env, 'd> Output<'scope, 'env, 'd> {
    fn new(form: Form<'d>, scope: &'scope std::thread::Scope<'scope, 'env>) -> Self {
        let (tar, tree) = match form {
            Form::DiffIdOnly => (None, None),
            Form::Tar(file) => (Some(BlockFile::new(file)), None),
            Form::Tree(dir) => (None, Some(TreeWriter::new(dir))),
        };
        let (header, block) = (Vec::new(), Block::new(BLOCK_BYTES));
        Self { scope, tar, tree, file: None, header, block, bytes: 0, hashing: None }
    }

    fn begin(&mut self, entry: &Entry) -> Result<(), PackError> {
        if let Some(tree) = &mut self.tree {
            self.file = tree.create(entry)?;
        }
        let mut header = std::mem::take(&mut self.header);
        header.clear();
        tar_header::append(entry, &mut header);
        self.append(&header)?;
        self.header = header;
        Ok(())
    }

    fn content(&mut self, entry: &Entry, bytes: &[u8]) -> Result<(), PackError> {
        if let Some(file) = &mut self.file {
            file.write_all(bytes).map_err(|source| TreeError::new(&entry.path, "write", source))?;
        }
        if entry.implied { Ok(()) } else { self.append(bytes) }
    }

    fn end(&mut self, entry: &Entry) -> Result<(), PackError> {
        self.append(tar_header::padding(entry.size()))?;
        if let Some(tree) = &mut self.tree {
            tree.finish_entry(entry, self.file.take())?;
        }
        Ok(())
    }

    fn append(&mut self, mut bytes: &[u8]) -> Result<(), PackError> {
        loop {
            bytes = self.block.fill(bytes);
            if bytes.is_empty() {
                return Ok(());
            }
            self.pass_block_on()?;
        }
    }

    /// Writes the block, which is full, has it hashed, and begins another.
    fn pass_block_on(&mut self) -> Result<(), PackError> {
        self.write_block()?;
        let hashing = self.hashing.get_or_insert_with(|| Hashing::begin(self.scope));
        let mut next = hashing.done.try_recv().unwrap_or_else(|_| Block::new(BLOCK_BYTES));
        next.clear();
        let block = std::mem::replace(&mut self.block, next);
        hashing.to.send(block).expect("the hashing thread ends only when this sender is dropped");
        Ok(())
    }

    fn write_block(&mut self) -> Result<(), PackError> {
        self.bytes += self.block.as_slice().len() as u64;
        self.tar.as_mut().map_or(Ok(()), |file| file.append(&self.block)).map_err(PackError::Write)
    }

    fn finish(mut self, list: &[Entry]) -> Result<(DiffId, u64), PackError> {
        self.append(&tar_header::END)?;
        self.write_block()?;
        let mut hasher = self.hashing.take().map_or_else(Hasher::sha256, Hashing::end);
        hasher.update(self.block.as_slice());
        if let Some(tree) = self.tree {
            tree.finish(list)?;
        }
        Ok((DiffId::new(hasher.finish()), self.bytes))
    }
}
