//! A layer's uncompressed tar as a stream, from whichever form the layer has.
//!
//! Bytes that are stored (a tar, a compressed blob) are read and hashed on the way. Of a tree the canonical tar is packed anew, by a thread that
//! writes into a pipe: packing reads small files in parallel, and the tar is on no disk.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use layer::entries::{Entries, Entry, Kind};
use layer::pack::{Contents, FileDigests, Form, PackError, Packed, pack};
use layer::{Limits, compress, tar_header};
use oci::{DiffId, VerifyingReader};
use store::{BlobOrigin, Layer, LayerBlob, Store};
use sys::directory::open_file_below;
use sys::root::Dir;

use crate::layers::pack_error;
use crate::stream::{Cancellable, Hashing};
use crate::{Error, Layers, TarRead};

/// Threads that read a tree's files ahead of the packer.
const READERS: usize = 4;

/// Bytes taken from a stored form at a time.
const BUFFER_BYTES: usize = 1 << 18;

/// A layer's stored bytes.
pub(crate) enum Stored {
    Tar(File),
    /// Compressed, and verified to the last byte.
    Blob(Box<VerifyingReader<File>>),
}

/// Opens a layer's stored bytes; `None` if it has a tree only, or nothing at all.
pub(crate) fn open(store: &Store, layer: &Layer) -> Result<Option<Stored>, Error> {
    if let Some(path) = layer.tar_path() {
        return Ok(Some(Stored::Tar(File::open(&path).map_err(Error::at("open", &path))?)));
    }
    // What we have compressed of a tree ourselves, the tree gives as well, and without having to be intact.
    let is_needed = |blob: &&LayerBlob| blob.origin == BlobOrigin::Received || layer.fs_path().is_none();
    for blob in layer.blobs().iter().filter(is_needed) {
        // A blob that was found damaged has been moved aside.
        if let Some(file) = store.open_blob(&blob.digest)? {
            let verified = VerifyingReader::new(file, blob.digest.clone(), None);
            return Ok(Some(Stored::Blob(Box::new(verified))));
        }
    }
    Ok(None)
}

/// Gives stored bytes, uncompressed, to `consume`, and reads what that leaves.
pub(crate) fn read<T, E: From<Error>>(
    layers: &Layers<'_>,
    layer: &Layer,
    stored: Stored,
    consume: impl FnOnce(&mut dyn Read) -> Result<T, E>,
) -> Result<TarRead<T>, E> {
    let failed = |source| E::from(Error::Read { layer: layer.id().clone(), source });
    let read = match stored {
        Stored::Tar(file) => read_hashed(layers, file, consume, failed),
        Stored::Blob(mut verified) => {
            let unpacked = compress::unpacked(&mut verified, &Limits::STANDARD).map_err(failed)?;
            let read = read_hashed(layers, unpacked, consume, failed);
            // What stands behind the compressed data belongs to the digest, too.
            read.and_then(|read| io::copy(&mut verified, &mut io::sink()).map(|_| read).map_err(failed))
        }
    };
    read.map_err(|error| if layers.is_cancelled() { Error::Cancelled.into() } else { error })
}

fn read_hashed<T, E>(
    layers: &Layers<'_>,
    bytes: impl Read,
    consume: impl FnOnce(&mut dyn Read) -> Result<T, E>,
    failed: impl Fn(io::Error) -> E,
) -> Result<TarRead<T>, E> {
    let bytes = Cancellable::new(bytes, layers.cancelled());
    let mut hashing = Hashing::new(io::BufReader::with_capacity(BUFFER_BYTES, bytes));
    let value = consume(&mut hashing)?;
    let (digest, tar_bytes) = hashing.finish().map_err(failed)?;
    Ok(TarRead { value, diff_id: DiffId::new(digest), tar_bytes })
}

/// Packs the canonical tar of a layer's tree and gives it to `consume`.
pub(crate) fn read_packed<T, E: From<Error>>(
    layers: &Layers<'_>,
    layer: &Layer,
    entries: &Entries,
    consume: impl FnOnce(&mut dyn Read) -> Result<T, E>,
) -> Result<TarRead<T>, E> {
    let contents = contents(layer, entries)?;
    let packing = |form: Form<'_>, cancelled: &(dyn Fn() -> bool + Sync)| {
        let list = entries.as_slice().to_vec();
        pack(list, &*contents, FileDigests::Known, form, READERS, cancelled)
    };
    let (value, packed) = piped(layers, packing, |error| pack_error(layer.id(), error).into(), consume)?;
    Ok(TarRead { value, diff_id: packed.diff_id, tar_bytes: packed.tar_bytes })
}

/// Runs a packing on a thread of its own and gives what it writes to `consume`, while it is written.
pub(crate) fn piped<T, E: From<Error>>(
    layers: &Layers<'_>,
    packing: impl FnOnce(Form<'_>, &(dyn Fn() -> bool + Sync)) -> Result<Packed, PackError> + Send,
    failed: impl FnOnce(PackError) -> E,
    consume: impl FnOnce(&mut dyn Read) -> Result<T, E>,
) -> Result<(T, Packed), E> {
    let no_pipe = |source| Error::Resource { what: "pipe", source };
    let (mut reader, writer) = io::pipe().map_err(no_pipe)?;
    let is_abandoned = AtomicBool::new(false);
    let stop = || is_abandoned.load(Ordering::Relaxed) || layers.is_cancelled();
    std::thread::scope(|scope| {
        let form = Form::Tar(File::from(OwnedFd::from(writer)));
        let packer = scope.spawn(|| packing(form, &stop));
        let consumed = consume(&mut reader);
        is_abandoned.store(consumed.is_err(), Ordering::Relaxed);
        // To the end in any case: a packer that writes where nobody reads would be killed by a signal.
        let drained = io::copy(&mut reader, &mut io::sink());
        let packed = packer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let value = consumed.map_err(|e| if layers.is_cancelled() { Error::Cancelled.into() } else { e })?;
        let packed = packed.map_err(failed)?;
        drained.map_err(no_pipe)?;
        Ok((value, packed))
    })
}

/// The contents of a layer's files, from its tree.
pub(crate) fn contents(layer: &Layer, entries: &Entries) -> Result<Box<dyn Contents>, Error> {
    match layer.fs_path() {
        Some(path) => Ok(Box::new(TreeAt(Dir::open(&path).map_err(Error::at("open", &path))?))),
        None if entries.content_bytes() == 0 => Ok(Box::new(Empty)),
        None => Err(Error::NoContents(layer.id().clone())),
    }
}

/// An open tree.
struct TreeAt(Dir);

impl Contents for TreeAt {
    fn open(&self, _: usize, entry: &Entry) -> io::Result<Box<dyn Read + '_>> {
        open_file_below(&self.0, &entry.path).map(|file| Box::new(file) as Box<dyn Read>)
    }
}

/// The contents of files that all are empty.
struct Empty;

impl Contents for Empty {
    fn open(&self, _: usize, _: &Entry) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(io::empty()))
    }
}

/// How long a layer's uncompressed tar is.
pub(crate) fn bytes(layers: &Layers<'_>, layer: &Layer) -> Result<u64, Error> {
    if let Some(path) = layer.tar_path() {
        return Ok(std::fs::metadata(&path).map_err(Error::at("look at", &path))?.len());
    }
    match open(layers.lease().store(), layer)? {
        Some(_) => Ok(layers.read_tar(layer.id(), |_| Ok::<(), Error>(()))?.tar_bytes),
        None => Ok(canonical_bytes(&layers.entries(layer.id())?)),
    }
}

fn canonical_bytes(entries: &Entries) -> u64 {
    let mut headers = Vec::new();
    let mut bytes = tar_header::END.len() as u64;
    for entry in entries.as_slice().iter().filter(|entry| !entry.implied) {
        headers.clear();
        tar_header::append(entry, &mut headers);
        let content = if let Kind::File { size, .. } = entry.kind { size } else { 0 };
        bytes += headers.len() as u64 + content + tar_header::padding(content).len() as u64;
    }
    bytes
}
