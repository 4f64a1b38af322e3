//! Readers that look at what passes through them.

use std::io::{self, Read, Write};

use oci::{Digest, Hasher};

/// Says inside an `io::Error` that the caller wanted everything to end. Whoever gets the error asks the caller again instead of looking
/// for this: decoders wrap errors as they like.
#[derive(Debug, thiserror::Error)]
#[error("cancelled")]
struct Cancelled;

/// Fails once the caller wants everything to end.
pub(crate) struct Cancellable<'c, R> {
    inner: R,
    cancelled: &'c (dyn Fn() -> bool + Sync),
}

impl<'c, R: Read> Cancellable<'c, R> {
    pub(crate) fn new(inner: R, cancelled: &'c (dyn Fn() -> bool + Sync)) -> Self {
        Self { inner, cancelled }
    }
}

impl<R: Read> Read for Cancellable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.cancelled)() { Err(io::Error::other(Cancelled)) } else { self.inner.read(buffer) }
    }
}

/// Counts and digests bytes.
pub(crate) struct Hashing<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::sha256(), bytes: 0 }
    }

    /// Reads what is left, then tells digest and number of all bytes.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.hasher.finish(), self.bytes))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// Writes down what is read. A failure, which whoever reads through this may wrap as he likes, is kept apart.
pub(crate) struct Copying<R, W> {
    from: R,
    to: W,
    failure: Option<io::Error>,
}

/// Stands for an error that [`Copying`] keeps.
#[derive(Debug, thiserror::Error)]
#[error("reading has failed")]
struct Failed;

impl<R: Read, W: Write> Copying<R, W> {
    pub(crate) fn new(from: R, to: W) -> Self {
        Self { from, to, failure: None }
    }

    /// The first failure of reading or writing.
    pub(crate) fn failure(self) -> Option<io::Error> {
        self.failure
    }

    /// Copies what is left; gives the first failure of all reading and writing.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let copied = io::copy(&mut self, &mut io::sink()).map(|_| ());
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => copied.and_then(|()| self.to.flush()).map(|()| self.to),
        }
    }
}

impl<R: Read, W: Write> Read for Copying<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failure.is_some() {
            return Err(io::Error::other(Failed));
        }
        let copied =
            self.from.read(buffer).and_then(|read| self.to.write_all(&buffer[..read]).map(|()| read));
        copied.map_err(|error| {
            let kind = error.kind();
            if kind == io::ErrorKind::Interrupted {
                return error;
            }
            self.failure = Some(error);
            io::Error::new(kind, Failed)
        })
    }
}

/// Which side of a copy has failed.
#[derive(Debug)]
pub(crate) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies to the end, and tells failures of the source from those of the destination.
pub(crate) fn copy(mut from: impl Read, to: &mut dyn Write) -> Result<u64, CopyError> {
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(read) => {
                to.write_all(&buffer[..read]).map_err(CopyError::Write)?;
                bytes += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Read(error)),
        }
    }
}
