//! Blobs: streamed, verified on the way, and resumed where the connection broke.
//!
//! A reader has already passed on what came before a break, so the rest must begin exactly there. It is asked for with `Range`; an answer with
//! the whole blob, another offset or 416 makes us ask for everything and skip what we have. Whatever a server sends then, size and digest are
//! checked over the bytes passed on.
//!
//! Blobs come from the registry that was asked, or from where it redirects to. The `urls` of a descriptor are never followed: whoever can
//! write a manifest would choose whom we ask.

use std::fmt;
use std::io::{self, Read};

use oci::{Descriptor, Digest, DigestError, Reference, VerifyError, VerifyingReader};
use ureq::http::HeaderMap;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE};

use crate::body::{Body, request_error};
use crate::client::{Client, Question};
use crate::error::{Failure, RequestError};
use crate::retry::pause;

/// Why a blob could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// A request failed, or broke off too often.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The bytes are not those of the descriptor.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The server says beforehand that it has something else. Nothing was read of it.
    #[error("`{host}` has {got} bytes for {digest}, not the {expected} of its descriptor")]
    Size {
        /// Who answered.
        host: String,
        /// What was asked for.
        digest: Digest,
        /// Declared by the descriptor.
        expected: u64,
        /// Declared by the answer.
        got: u64,
    },
    /// A part was sent though the whole was asked for.
    #[error("`{host}` sent a part of {digest} when asked for the whole")]
    Part {
        /// Who answered.
        host: String,
        /// What was asked for.
        digest: Digest,
    },
    /// A digest of an algorithm that we cannot verify.
    #[error("a blob cannot be verified")]
    Digest(#[from] DigestError),
}

/// A blob on its way. The end of the stream is reported only if every byte was as the descriptor says; until then, what was read is not to be
/// relied on. Errors are `io::Error`s with a [`BlobError`] inside, see [`BlobError::of`].
#[derive(Debug)]
pub struct BlobReader(VerifyingReader<Transfer>);

/// The unverified stream: pieces of a blob from one connection after another.
struct Transfer {
    client: Client,
    reference: Reference,
    digest: Digest,
    size: u64,
    /// Bytes passed on.
    offset: u64,
    /// The current connection, and how much of what it sends is to be skipped.
    piece: Option<Piece>,
    /// Whether the server has shown that it cannot continue at an offset.
    whole_only: bool,
    /// Connections lost in a row without [`crate::Limits::progress_bytes`] gained.
    fruitless: u32,
}

struct Piece {
    body: Body,
    host: String,
    mirror: Option<String>,
    skip: u64,
    gained: u64,
}

impl Client {
    /// Begins to fetch a blob of the reference's repository.
    ///
    /// # Errors
    /// [`BlobError`], if not even the first byte can be had.
    pub fn blob(&self, reference: &Reference, descriptor: &Descriptor) -> Result<BlobReader, BlobError> {
        let digest = Digest::try_from(descriptor.digest())?;
        let size = descriptor.size();
        let mut transfer = Transfer {
            client: self.clone(),
            reference: reference.clone(),
            digest: digest.clone(),
            size,
            offset: 0,
            piece: None,
            whole_only: false,
            fruitless: 0,
        };
        if size > 0 {
            transfer.piece = Some(transfer.open()?);
        }
        Ok(BlobReader(VerifyingReader::new(transfer, digest, Some(size))))
    }
}

impl BlobError {
    /// The error inside an `io::Error` of a [`BlobReader`]. Others are returned as they are.
    ///
    /// # Errors
    /// The given error, if no `BlobError` is in it.
    pub fn of(error: io::Error) -> Result<Self, io::Error> {
        match error.downcast::<Self>() {
            Ok(error) => Ok(error),
            Err(error) => error.downcast::<VerifyError>().map(Self::Verify),
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Transfer {
    /// Connects, and finds out where in the blob the answer begins.
    fn open(&mut self) -> Result<Piece, BlobError> {
        loop {
            let mut mirror = None;
            match self.ask(&mut mirror) {
                // A mirror that has something else is no reason to give up.
                Err(error @ (BlobError::Part { .. } | BlobError::Size { .. }))
                    if self.client.distrust(mirror.as_deref(), &error.to_string()) => {}
                asked => {
                    self.client.note_served(&self.digest, mirror.as_ref());
                    return asked;
                }
            }
        }
    }

    fn ask(&mut self, mirror: &mut Option<String>) -> Result<Piece, BlobError> {
        loop {
            let range_from = (self.offset > 0 && !self.whole_only).then_some(self.offset);
            let (path, what) = (format!("blobs/{}", self.digest), format!("blob {}", self.digest));
            let question = Question { range_from, ..Question::get(path, what, "*/*") };
            let answer = self.client.ask(&self.reference, &question, Ok)?;
            let host = answer.origin.to_string();
            mirror.clone_from(&answer.mirror);
            let begins = match answer.status {
                200 => Some(0),
                206 if range_from.is_none() => {
                    return Err(BlobError::Part { host, digest: self.digest.clone() });
                }
                206 => range_start(&answer.headers, self.size).filter(|start| *start == self.offset),
                _ => None,
            };
            let Some(begins) = begins else {
                tracing::debug!(host, status = answer.status, "the server does not continue where asked");
                self.whole_only = true;
                continue;
            };
            if begins == 0 {
                self.check_length(&host, &answer.headers)?;
            }
            let (skip, mirror) = (self.offset - begins, answer.mirror);
            return Ok(Piece { body: answer.body, host, mirror, skip, gained: 0 });
        }
    }

    fn check_length(&self, host: &str, headers: &HeaderMap) -> Result<(), BlobError> {
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        match length {
            Some(got) if got != self.size => {
                let (host, digest) = (host.to_owned(), self.digest.clone());
                Err(BlobError::Size { host, digest, expected: self.size, got })
            }
            _ => Ok(()),
        }
    }

    /// The next bytes from the current connection. `Ok(None)`: they were skipped, or the connection was lost and a new one may be made.
    fn advance(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, BlobError> {
        let mut piece = match self.piece.take() {
            Some(piece) => piece,
            None => self.open()?,
        };
        // Nothing beyond the declared size is even read.
        let wanted = if piece.skip > 0 { piece.skip } else { self.size - self.offset };
        let room = usize::try_from(wanted).map_or(buffer.len(), |wanted| wanted.min(buffer.len()));
        let read = match piece.body.read(&mut buffer[..room]) {
            Ok(0) => return self.lost(&piece, io::ErrorKind::UnexpectedEof.into()).map(|()| None),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return self.lost(&piece, error).map(|()| None),
        };
        let skipping = piece.skip > 0;
        if skipping {
            piece.skip -= read as u64;
        } else {
            piece.gained += read as u64;
            self.offset += read as u64;
        }
        self.piece = Some(piece);
        Ok((!skipping && read > 0).then_some(read))
    }

    /// Waits before the next connection, if there may be one.
    fn lost(&mut self, piece: &Piece, error: io::Error) -> Result<(), BlobError> {
        let client = self.client.clone();
        let mut error = request_error(error, &piece.host);
        if client.transport().is_cancelled() {
            *error.failure = Failure::Cancelled;
        }
        let is_fruitless = piece.gained < client.limits().progress_bytes;
        if is_fruitless && client.distrust(piece.mirror.as_deref(), &error.to_string()) {
            return Ok(());
        }
        self.fruitless = if piece.gained >= client.limits().progress_bytes { 1 } else { self.fruitless + 1 };
        error.attempts = self.fruitless;
        if !error.is_transient() || self.fruitless >= client.limits().attempts {
            return Err(error.into());
        }
        pause(client.transport(), self.fruitless, &error);
        Ok(())
    }
}

impl Read for Transfer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.offset < self.size {
            if let Some(read) = self.advance(buffer).map_err(io::Error::other)? {
                return Ok(read);
            }
        }
        // What a server sends beyond the declared size stays unread: the connection is closed, not reused.
        self.piece = None;
        Ok(0)
    }
}

/// Where a part begins: `bytes 100-199/200`, if it is a part of a blob of the declared size.
fn range_start(headers: &HeaderMap, size: u64) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim().strip_prefix("bytes ")?;
    let (range, total) = range.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    (total == "*" || total.parse() == Ok(size)).then(|| start.parse().ok()).flatten()
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer")
            .field("digest", &self.digest)
            .field("offset", &self.offset)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
