//! Blobs: immutable bytes under their digest, hashed while they stream in.
//!
//! Where a blob lies is the proof of its durability: `blobs/sha256/<hex>` holds synced bytes only; before a sync covers them, they lie in
//! `blobs/unsynced-<boot id>/`, for every process of this run of the kernel to see. After a power cut that directory is another
//! boot's, and worth nothing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use oci::{Algorithm, Digest, Hasher, VerifyError};

use crate::store::GcShared;
use crate::{Error, Lease, Object, Store, files};

/// What a blob's bytes must turn out to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expected {
    /// Their digest.
    pub digest: Digest,
    /// How many, where somebody said so.
    pub size_bytes: Option<u64>,
}

/// A blob that is in the store, pinned by the lease that wrote it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Blob {
    /// Its name.
    pub digest: Digest,
    /// Its length.
    pub size_bytes: u64,
    /// Whether its bytes are those that were written now, not those that were there.
    pub is_new: bool,
}

/// Writes one blob: bytes go to the lease's area and become visible by [`BlobWriter::finish`]. Dropping it removes them.
#[derive(Debug)]
pub struct BlobWriter<'l> {
    lease: &'l Lease,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    written_bytes: u64,
    expected: Option<Expected>,
}

impl Store {
    /// Opens a blob for reading; `None` if it is not there. Whoever cannot trust the disk reads it through
    /// [`oci::VerifyingReader`].
    ///
    /// # Errors
    /// What the file system says.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<File>, Error> {
        self.look_at_blob(digest, files::open_if_exists)
    }

    /// Reads a small blob whole (a config, a manifest) and checks its bytes; `None` if it is not there.
    ///
    /// # Errors
    /// [`VerifyError::WrongDigest`] inside [`Error::Blob`] if the disk has other bytes than were written.
    pub fn read_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let Some(bytes) = self.look_at_blob(digest, files::read_if_exists)? else { return Ok(None) };
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        let got = hasher.finish();
        if got == *digest {
            return Ok(Some(bytes));
        }
        Err(VerifyError::WrongDigest { expected: digest.clone(), got }.into())
    }

    /// A blob's length in bytes; `None` if it is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        self.look_at_blob(digest, |path| {
            let found = files::present(fs::symlink_metadata(path)).map_err(Error::at("look at", path))?;
            Ok(found.map(|found| found.len()))
        })
    }

    /// Whether a blob is there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn contains_blob(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.blob_path(digest)?.is_some())
    }

    /// Where a blob lies now. A commit may move it at any time: whoever wants to look at it does so with [`Self::look_at_blob`].
    pub(crate) fn blob_path(&self, digest: &Digest) -> Result<Option<PathBuf>, Error> {
        self.look_at_blob(digest, |path| Ok(files::exists(path)?.then(|| path.to_path_buf())))
    }

    /// Looks where a blob may lie, until something is there.
    fn look_at_blob<T>(
        &self,
        digest: &Digest,
        look: impl Fn(&Path) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        let (durable, unsynced) = (self.layout().blob(digest), self.layout().unsynced_blob(digest));
        // The durable place once more: a commit may move the blob there between the first two looks.
        for path in [&durable, &unsynced, &durable] {
            if let Some(found) = look(path)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl Lease {
    /// Begins a blob. With `expected`, no byte beyond the announced size is taken and [`BlobWriter::finish`] insists on the digest.
    ///
    /// # Errors
    /// What the file system says.
    pub fn blob_writer(&self, expected: Option<Expected>) -> Result<BlobWriter<'_>, Error> {
        let path = self.temporary("blob")?;
        let file = files::create_file(&path)?;
        let algorithm = expected.as_ref().map_or(Algorithm::Sha256, |expected| expected.digest.algorithm());
        Ok(BlobWriter { lease: self, path, file, hasher: Hasher::new(algorithm), written_bytes: 0, expected })
    }

    /// Stores bytes at hand and pins them; writes nothing if they are there already.
    ///
    /// # Errors
    /// What the file system says.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Blob, Error> {
        let digest = Digest::of(bytes);
        let blob = Blob { digest: digest.clone(), size_bytes: bytes.len() as u64, is_new: false };
        let gc = self.store().gc_shared()?;
        if self.store().contains_blob(&digest)? {
            self.pin_under(&gc, &[Object::Blob(digest)])?;
            return Ok(blob);
        }
        drop(gc);
        let mut writer = self.blob_writer(None)?;
        writer.append(bytes)?;
        writer.finish()
    }

    /// Pins a blob and makes a complete file of this lease's area its contents, unless it is there already.
    /// Says whether it was not.
    fn publish_blob(&self, gc: &GcShared, file: &Path, digest: &Digest) -> Result<bool, Error> {
        self.pin_under(gc, &[Object::Blob(digest.clone())])?;
        if self.store().contains_blob(digest)? {
            return Ok(false);
        }
        let layout = self.store().layout();
        if files::create_dir(&layout.unsynced_blobs())? {
            // The first of this boot; what other boots left is worth nothing.
            for dir in self.store().unsynced_blobs_of_other_boots()? {
                files::rename(&dir, &self.temporary("unsynced")?)?;
            }
        }
        // Never replacing: the one that is there may have been synced in the meantime.
        files::rename_if_absent(file, &layout.unsynced_blob(digest))
    }
}

impl BlobWriter<'_> {
    /// Bytes taken so far.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Opens what is being written, for somebody who reads along. It stays open when the blob is finished.
    ///
    /// # Errors
    /// What the file system says.
    pub fn reader(&self) -> Result<File, Error> {
        File::open(&self.path).map_err(Error::at("open", &self.path))
    }

    /// Checks what was written and makes it a blob: visible to everybody, pinned by the lease, durable with its next commit.
    ///
    /// # Errors
    /// [`Error::Blob`] if size or digest are not the expected ones; nothing is kept then.
    pub fn finish(self) -> Result<Blob, Error> {
        let got = self.hasher.clone().finish();
        if let Some(Expected { digest, size_bytes }) = &self.expected {
            check_size(digest, *size_bytes, self.written_bytes)?;
            if *digest != got {
                return Err(VerifyError::WrongDigest { expected: digest.clone(), got }.into());
            }
        }
        let gc = self.lease.store().gc_shared()?;
        let is_new = self.lease.publish_blob(&gc, &self.path, &got)?;
        Ok(Blob { digest: got, size_bytes: self.written_bytes, is_new })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.written_bytes + bytes.len() as u64;
        if let Some(Expected { digest, size_bytes: Some(expected) }) = &self.expected
            && written > *expected
        {
            return Err(VerifyError::TooLong { digest: digest.clone(), expected: *expected }.into());
        }
        self.file.write_all(bytes).map_err(Error::at("write", &self.path))?;
        self.hasher.update(bytes);
        self.written_bytes = written;
        Ok(())
    }
}

impl Write for BlobWriter<'_> {
    /// Takes all of `bytes`. The `io::Error` holds the store's [`Error`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes).map_err(io::Error::from)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter<'_> {
    fn drop(&mut self) {
        // Published, it is no longer there.
        if let Err(error) = files::remove_file(&self.path) {
            tracing::debug!(%error, "an unfinished blob stays until its lease ends");
        }
    }
}

fn check_size(digest: &Digest, expected: Option<u64>, got: u64) -> Result<(), VerifyError> {
    match expected {
        Some(expected) if got < expected => {
            Err(VerifyError::TooShort { digest: digest.clone(), expected, got })
        }
        _ => Ok(()),
    }
}
