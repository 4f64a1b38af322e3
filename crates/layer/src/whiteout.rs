//! The two notations for "not here any more".
//!
//! A tar says it with names (OCI image spec, "Whiteouts"): an empty file `.wh.NAME` hides `NAME`, an empty file `.wh..wh..opq`
//! hides everything that lower layers have in its directory. A tree says it as overlayfs does (kernel documentation,
//! filesystems/overlayfs): a 0/0 character device, and the xattr `trusted.overlay.opaque` with the value `y`.

use std::ffi::OsStr;

use sys::RootfsPath;
use sys::root::Node;

/// Prefix of a name that hides another in a tar.
pub const PREFIX: &[u8] = b".wh.";

/// Prefix of names that are reserved for the notation itself.
const RESERVED_PREFIX: &[u8] = b".wh..wh.";

/// The name that makes its directory opaque in a tar.
pub const OPAQUE: &[u8] = b".wh..wh..opq";

/// The xattr that makes a directory opaque in a tree.
pub const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// Its value.
pub const OPAQUE_VALUE: &[u8] = b"y";

/// What hides a name in a tree.
pub const NODE: Node = Node::CharDevice { major: 0, minor: 0 };

/// What a name in a tar says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Meaning {
    /// An ordinary path.
    Path,
    /// This path is hidden.
    Hides(RootfsPath),
    /// Everything that lower layers have below this directory is hidden.
    Opaque(RootfsPath),
}

/// A name that claims to be a whiteout but hides nothing nameable, such as `.wh.` or `.wh..`.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a whiteout of anything")]
pub struct InvalidWhiteout(pub RootfsPath);

/// Reads a path of a tar.
///
/// # Errors
/// [`InvalidWhiteout`].
pub fn meaning(path: &RootfsPath) -> Result<Meaning, InvalidWhiteout> {
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else { return Ok(Meaning::Path) };
    let Some(hidden) = name.strip_prefix(PREFIX) else { return Ok(Meaning::Path) };
    if name == OPAQUE {
        return Ok(Meaning::Opaque(parent));
    }
    let invalid = || InvalidWhiteout(path.clone());
    if hidden.is_empty() || matches!(hidden, b"." | b"..") || name.starts_with(RESERVED_PREFIX) {
        return Err(invalid());
    }
    parent.join_name(hidden).map(Meaning::Hides).map_err(|_| invalid())
}

/// The path in a tar that hides `path`; the root cannot be hidden.
#[must_use]
pub fn hiding(path: &RootfsPath) -> Vec<u8> {
    let parent = path.parent().unwrap_or_default();
    let mut bytes = parent.as_bytes().to_vec();
    if !bytes.is_empty() {
        bytes.push(b'/');
    }
    bytes.extend_from_slice(PREFIX);
    bytes.extend_from_slice(path.file_name().unwrap_or_default());
    bytes
}

/// Whether an xattr belongs to overlayfs itself and must neither be read from a layer nor be found in one.
#[must_use]
pub fn is_overlay_xattr(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: &str) {
        let got = match meaning(&RootfsPath::parse(path).unwrap()) {
            Ok(Meaning::Path) => "path".to_owned(),
            Ok(Meaning::Hides(path)) => format!("hides {path}"),
            Ok(Meaning::Opaque(path)) => format!("opaque {path}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn names_are_read_as_the_specification_says() {
        check("a/b", "path");
        check("a/.wh.b", "hides /a/b");
        check(".wh.b", "hides /b");
        check("a/.wh..wh..opq", "opaque /a");
        check(".wh..wh..opq", "opaque /");
        check("a/.wh.", "`/a/.wh.` is not a whiteout of anything");
        check("a/.wh..", "`/a/.wh..` is not a whiteout of anything");
        check("a/.wh...", "`/a/.wh...` is not a whiteout of anything");
        check("a/.wh..wh.plnk", "`/a/.wh..wh.plnk` is not a whiteout of anything");
        check("a/.whx", "path");
        check("a/.wh.b/c", "path");
    }

    #[test]
    fn hiding_is_the_inverse_of_meaning() {
        for text in ["a", "a/b", "a/.hidden"] {
            let path = RootfsPath::parse(text).unwrap();
            assert_eq!(meaning(&RootfsPath::parse(hiding(&path)).unwrap()), Ok(Meaning::Hides(path)));
        }
    }
}
