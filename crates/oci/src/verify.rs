//! Bytes are checked against their descriptor while they stream.

use std::io::{self, Read};

use crate::{Digest, Hasher};

/// What was wrong with a stream that should have had a given size and digest.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum VerifyError {
    /// More bytes came than were declared; reading stopped there.
    #[error("{digest} is longer than the {expected} bytes that were declared for it")]
    TooLong {
        /// What was to be read.
        digest: Digest,
        /// Declared size in bytes.
        expected: u64,
    },
    /// The stream ended early.
    #[error("{digest} ended after {got} of {expected} bytes")]
    TooShort {
        /// What was to be read.
        digest: Digest,
        /// Declared size in bytes.
        expected: u64,
        /// Bytes that came.
        got: u64,
    },
    /// The size fits, the bytes do not.
    #[error("the bytes received for {expected} have the digest {got}")]
    WrongDigest {
        /// What was to be read.
        expected: Digest,
        /// What came.
        got: Digest,
    },
}

/// Passes bytes through and fails, with a [`VerifyError`] inside the `io::Error`, unless exactly the expected ones come: never a byte
/// beyond the declared size, and the end of the stream only if size and digest are right.
#[derive(Debug)]
pub struct VerifyingReader<R> {
    inner: R,
    hasher: Option<Hasher>,
    expected: Digest,
    expected_bytes: Option<u64>,
    got_bytes: u64,
}

impl<R: Read> VerifyingReader<R> {
    /// Checks `inner` against a digest and, where one was declared, a size in bytes.
    pub fn new(inner: R, expected: Digest, expected_bytes: Option<u64>) -> Self {
        let hasher = Some(Hasher::new(expected.algorithm()));
        Self { inner, hasher, expected, expected_bytes, got_bytes: 0 }
    }

    fn check_end(&mut self) -> Result<(), VerifyError> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        if let Some(expected) = self.expected_bytes
            && self.got_bytes < expected
        {
            return Err(VerifyError::TooShort {
                digest: self.expected.clone(),
                expected,
                got: self.got_bytes,
            });
        }
        let got = hasher.finish();
        if got == self.expected {
            Ok(())
        } else {
            Err(VerifyError::WrongDigest { expected: self.expected.clone(), got })
        }
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.inner.read(buffer)?;
        if read == 0 {
            return self.check_end().map(|()| 0).map_err(io::Error::other);
        }
        self.got_bytes += read as u64;
        if let Some(expected) = self.expected_bytes
            && self.got_bytes > expected
        {
            return Err(io::Error::other(VerifyError::TooLong { digest: self.expected.clone(), expected }));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], expected: &[u8], size: Option<u64>) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        VerifyingReader::new(bytes, Digest::of(expected), size)
            .read_to_end(&mut all)
            .map(|_| all)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn only_the_expected_bytes_pass() {
        assert_eq!(read(b"abc", b"abc", Some(3)).unwrap(), b"abc");
        assert_eq!(read(b"abc", b"abc", None).unwrap(), b"abc");
        assert!(read(b"abd", b"abc", Some(3)).unwrap_err().contains("have the digest"));
        assert!(read(b"abcd", b"abc", Some(3)).unwrap_err().contains("longer than the 3 bytes"));
        assert!(read(b"ab", b"abc", Some(3)).unwrap_err().contains("ended after 2 of 3"));
    }
}
