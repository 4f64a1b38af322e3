//! What can be kept alive: the vocabulary of pins and of what a record needs.

use std::fmt;
use std::str::FromStr;

use oci::{Digest, ImageId, LayerId};

use crate::Error;

/// Something in the store that collection must not take while it is pinned or needed. Its text form, one per line, is what
/// lease files and records hold.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Object {
    /// A layer, in all its forms, with the blobs that are its compressed forms.
    Layer(LayerId),
    /// A blob.
    Blob(Digest),
    /// An image, with all its layers and blobs.
    Image(ImageId),
    /// The log of a step.
    Log(LogId),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(id) => write!(f, "layer {id}"),
            Self::Blob(digest) => write!(f, "blob {digest}"),
            Self::Image(id) => write!(f, "image {id}"),
            Self::Log(id) => write!(f, "log {id}"),
        }
    }
}

/// A line that names no [`Object`].
#[derive(Debug, thiserror::Error)]
#[error("`{0}` names nothing the store keeps")]
pub struct ObjectError(String);

impl FromStr for Object {
    type Err = ObjectError;

    fn from_str(line: &str) -> Result<Self, ObjectError> {
        let parse = || {
            let (kind, name) = line.split_once(' ')?;
            match kind {
                "layer" => name.parse().ok().map(Self::Layer),
                "blob" => name.parse().ok().map(Self::Blob),
                "image" => name.parse().ok().map(Self::Image),
                "log" => name.parse().ok().map(Self::Log),
                _ => None,
            }
        };
        parse().ok_or_else(|| ObjectError(line.to_owned()))
    }
}

/// The name of a step's log: random, so that it tells nothing and cannot be guessed.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LogId(String);

impl LogId {
    pub(crate) fn random() -> Result<Self, Error> {
        random_name().map(Self)
    }

    /// The 32 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LogId {
    type Err = ObjectError;

    fn from_str(text: &str) -> Result<Self, ObjectError> {
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let is_id = text.len() == 32 && text.bytes().all(is_hex);
        is_id.then(|| Self(text.to_owned())).ok_or_else(|| ObjectError(text.to_owned()))
    }
}

/// 32 hex digits that nobody has had before.
pub(crate) fn random_name() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(Error::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_survive_their_text_form() {
        let digest = Digest::of("x");
        let objects = [
            Object::Layer(LayerId::new(digest.clone())),
            Object::Blob(digest.clone()),
            Object::Image(ImageId::new(digest)),
            Object::Log(LogId::random().unwrap()),
        ];
        for object in objects {
            assert_eq!(object.to_string().parse::<Object>().unwrap(), object);
        }
    }

    #[test]
    fn a_log_id_cannot_climb() {
        assert!("../../../../../../../../etc/pass".parse::<LogId>().is_err());
        assert!("layer sha256:00".parse::<Object>().is_err());
    }
}
