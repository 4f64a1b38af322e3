//! Digests, and the newtypes that say what was digested.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

/// A digest algorithm registered by the OCI image specification ("Descriptors", "Registered Algorithms").
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Algorithm {
    /// 32 bytes.
    Sha256,
    /// 64 bytes.
    Sha512,
}

/// `algorithm:hex`: the identity of some bytes, always of the bytes as received or written.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Digest {
    /// The one everybody writes.
    Sha256([u8; 32]),
    /// Read and verified, never made by us.
    Sha512(Box<[u8; 64]>),
}

/// Why a text is not a [`Digest`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DigestError {
    /// No `algorithm:` in front.
    #[error("`{0}` has no algorithm: a digest looks like `sha256:<64 hex digits>`")]
    NoAlgorithm(String),
    /// Not one of [`Algorithm`].
    #[error("`{0}` is not a digest algorithm this program verifies (sha256, sha512)")]
    UnknownAlgorithm(String),
    /// Wrong length, or a character outside `0-9a-f`.
    #[error("`{0}` does not have {1} lower-case hex digits")]
    Malformed(String, usize),
}

impl Algorithm {
    /// The name in front of the colon.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl Digest {
    /// The sha256 digest of bytes at hand.
    #[must_use]
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self::Sha256(Sha256::digest(bytes.as_ref()).into())
    }

    /// The algorithm that made it.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The digest's bytes: 32 or 64.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => &bytes[..],
        }
    }

    /// The hex digits alone, as used for file names.
    #[must_use]
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(self.algorithm().digits());
        for byte in self.as_bytes() {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text
    }

    /// The first twelve hex digits, as listings show an id.
    #[must_use]
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }

    /// A sha256 digest from its 64 hex digits, as found in a file name.
    ///
    /// # Errors
    /// [`DigestError::Malformed`].
    pub fn from_sha256_hex(hex: &str) -> Result<Self, DigestError> {
        parse_hex(hex).map(Self::Sha256).ok_or_else(|| DigestError::Malformed(hex.to_owned(), 64))
    }
}

fn parse_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if hex.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) =
            text.split_once(':').ok_or_else(|| DigestError::NoAlgorithm(text.to_owned()))?;
        let malformed = |algorithm: Algorithm| DigestError::Malformed(text.to_owned(), algorithm.digits());
        match algorithm {
            "sha256" => parse_hex(hex).map(Self::Sha256).ok_or_else(|| malformed(Algorithm::Sha256)),
            "sha512" => {
                parse_hex(hex).map(|b| Self::Sha512(Box::new(b))).ok_or_else(|| malformed(Algorithm::Sha512))
            }
            other => Err(DigestError::UnknownAlgorithm(other.to_owned())),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl From<&Digest> for oci_spec::image::Digest {
    fn from(digest: &Digest) -> Self {
        digest.to_string().parse().expect("our digests are a subset of those the specification allows")
    }
}

impl TryFrom<&oci_spec::image::Digest> for Digest {
    type Error = DigestError;

    fn try_from(digest: &oci_spec::image::Digest) -> Result<Self, DigestError> {
        digest.as_ref().parse()
    }
}

/// A digest in the making: feed it bytes, or write through it.
#[derive(Clone, Debug)]
pub enum Hasher {
    /// Makes a [`Digest::Sha256`].
    Sha256(Sha256),
    /// Makes a [`Digest::Sha512`].
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// A hasher for the given algorithm.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Box::new(Sha512::new())),
        }
    }

    /// A sha256 hasher.
    #[must_use]
    pub fn sha256() -> Self {
        Self::new(Algorithm::Sha256)
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes.as_ref()),
            Self::Sha512(hasher) => hasher.update(bytes.as_ref()),
        }
    }

    /// Adds bytes together with their length, so that a sequence of fields cannot be read as another sequence.
    pub fn update_field(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.update((bytes.len() as u64).to_le_bytes());
        self.update(bytes);
    }

    /// The digest of everything added.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Self::Sha512(hasher) => Digest::Sha512(Box::new(hasher.finalize().into())),
        }
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

macro_rules! digest_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Digest);

        impl $name {
            /// Says that `digest` has this meaning.
            #[must_use]
            pub fn new(digest: Digest) -> Self {
                Self(digest)
            }

            /// The plain digest.
            #[must_use]
            pub fn digest(&self) -> &Digest {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                text.parse().map(Self)
            }
        }
    };
}

digest_newtype! {
    /// Digest of a layer's **uncompressed** tar, as listed in `rootfs.diff_ids` (OCI image spec, "Image Configuration").
    /// Never equal to the blob digest of a compressed layer.
    DiffId
}

digest_newtype! {
    /// Digest of a layer's entries **without their mtimes**: what cache keys are made of. Two layers of equal content
    /// digest may differ in DiffID; one never silently stands for the other.
    ContentDigest
}

digest_newtype! {
    /// The name of a layer in the store: the digest of its whole entry list, mtimes included. It is known before the DiffID
    /// and fixes it for layers of our own making.
    LayerId
}

digest_newtype! {
    /// The digest of an image's config, which is what `docker images` calls an image id.
    ImageId
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&text.parse::<Digest>().map_or_else(|e| e.to_string(), |d| d.to_string()));
    }

    #[test]
    fn digests_are_parsed_strictly() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of("").to_string(), empty);
        check(empty, expect!["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]);
        check("e3b0", expect!["`e3b0` has no algorithm: a digest looks like `sha256:<64 hex digits>`"]);
        check("md5:00", expect!["`md5` is not a digest algorithm this program verifies (sha256, sha512)"]);
        check("sha256:00", expect!["`sha256:00` does not have 64 lower-case hex digits"]);
        assert!(empty.to_uppercase().replace("SHA256", "sha256").parse::<Digest>().is_err());
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let digest_of = |fields: &[&str]| {
            let mut hasher = Hasher::sha256();
            fields.iter().for_each(|f| hasher.update_field(f));
            hasher.finish()
        };
        assert_ne!(digest_of(&["ab", "c"]), digest_of(&["a", "bc"]));
    }
}
