//! A checksummed file: what it needs, and bytes whose meaning is somebody else's.
//!
//! ```text
//! rbuild <kind> 1
//! <sha256 over the file's name and everything below this line>
//! <one Object per line>
//! <empty line>
//! <payload>
//! ```
//!
//! Such files are written without a sync. One that a power cut or a bad disk has changed does not open, and counts as absent: all
//! of them can be made again.

use oci::{Digest, Hasher};

use crate::Object;

/// A file of this form, opened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Envelope {
    pub(crate) needs: Vec<Object>,
    pub(crate) payload: Vec<u8>,
}

impl Envelope {
    /// The bytes of the file `name`.
    pub(crate) fn seal(&self, kind: &str, name: &str) -> Vec<u8> {
        let mut body: Vec<u8> =
            self.needs.iter().flat_map(|object| format!("{object}\n").into_bytes()).collect();
        body.push(b'\n');
        body.extend_from_slice(&self.payload);
        let mut bytes = format!("rbuild {kind} 1\n{}\n", checksum(name, &body).hex()).into_bytes();
        bytes.append(&mut body);
        bytes
    }

    /// Opens the file `name`; `None` if it is not exactly what [`Envelope::seal`] gave for this kind and name.
    pub(crate) fn open(kind: &str, name: &str, bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(format!("rbuild {kind} 1\n").as_bytes())?;
        let (sum, body) = rest.split_at_checked(64)?;
        let body = body.strip_prefix(b"\n")?;
        if checksum(name, body).hex().as_bytes() != sum {
            return None;
        }
        let mut needs = Vec::new();
        let mut rest = body;
        loop {
            let end = rest.iter().position(|&byte| byte == b'\n')?;
            let (line, below) = (&rest[..end], &rest[end + 1..]);
            if line.is_empty() {
                return Some(Self { needs, payload: below.to_vec() });
            }
            needs.push(std::str::from_utf8(line).ok()?.parse().ok()?);
            rest = below;
        }
    }
}

fn checksum(name: &str, body: &[u8]) -> Digest {
    let mut hasher = Hasher::sha256();
    hasher.update_field(name);
    hasher.update(body);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::LayerId;
    use proptest::prelude::*;

    fn envelope(needs: &[u8], payload: &[u8]) -> Envelope {
        let layer = |seed: &u8| Object::Layer(LayerId::new(Digest::of([*seed])));
        Envelope { needs: needs.iter().map(layer).collect(), payload: payload.to_vec() }
    }

    #[test]
    fn a_file_cut_anywhere_or_under_another_name_does_not_open() {
        let bytes = envelope(&[1, 2], b"\npayload\n").seal("record", "a");
        for end in 0..bytes.len() {
            assert_eq!(Envelope::open("record", "a", &bytes[..end]), None, "cut at {end}");
        }
        assert_eq!(Envelope::open("record", "b", &bytes), None);
        assert_eq!(Envelope::open("build", "a", &bytes), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = envelope(&[1], b"payload").seal("record", "a");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Envelope::open("record", "a", &flipped), None, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(needs: Vec<u8>, payload: Vec<u8>) {
            let envelope = envelope(&needs, &payload);
            prop_assert_eq!(Envelope::open("record", "a", &envelope.seal("record", "a")), Some(envelope));
        }
    }
}
