//! Paths inside a rootfs, parsed once.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// Longest name of one path component, in bytes (NAME_MAX of Linux file systems).
pub const MAX_NAME_BYTES: usize = 255;

/// Longest path accepted, in bytes (PATH_MAX without its NUL).
pub const MAX_PATH_BYTES: usize = 4095;

/// A path below a root directory: relative bytes without NUL, empty, `.` or `..` components. The root itself is the empty path.
///
/// It cannot be joined onto a host path by accident: files are reached through [`crate::Root`] only. Ordering is by
/// component, so that a directory comes right before everything below it.
#[derive(Clone, Eq, Hash, PartialEq, Default)]
pub struct RootfsPath(Box<[u8]>);

/// Why bytes are not a [`RootfsPath`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    /// A NUL byte ends every path in the kernel.
    #[error("path `{0}` contains a NUL byte")]
    Nul(String),
    /// `..` would climb.
    #[error("path `{0}` contains a `..` component")]
    Climbs(String),
    /// One component is longer than [`MAX_NAME_BYTES`].
    #[error("path `{0}` has a component of over 255 bytes")]
    NameTooLong(String),
    /// The whole is longer than [`MAX_PATH_BYTES`].
    #[error("a path of {0} bytes is longer than 4095 bytes")]
    TooLong(usize),
}

impl RootfsPath {
    /// The root directory itself.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Parses a path as found in a layer or an image: leading, trailing and doubled slashes and `.` components vanish, `..` is refused.
    ///
    /// # Errors
    /// [`PathError`], naming the path.
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let bytes = bytes.as_ref();
        if is_normal(bytes) {
            return Ok(Self(bytes.into()));
        }
        let shown = || String::from_utf8_lossy(bytes).into_owned();
        let mut normal = Vec::with_capacity(bytes.len());
        for component in bytes.split(|&b| b == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(PathError::Climbs(shown())),
                name if name.contains(&0) => return Err(PathError::Nul(shown())),
                name if name.len() > MAX_NAME_BYTES => return Err(PathError::NameTooLong(shown())),
                name => {
                    if !normal.is_empty() {
                        normal.push(b'/');
                    }
                    normal.extend_from_slice(name);
                }
            }
        }
        if normal.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong(normal.len()));
        }
        Ok(Self(normal.into()))
    }

    /// Like [`RootfsPath::parse`], but `..` removes the component before it and stops at the root, as a process sees it
    /// that has this root (`/../a` is `/a`).
    ///
    /// # Errors
    /// [`PathError`], naming the path; never [`PathError::Climbs`].
    pub fn parse_clamped(bytes: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let mut kept: Vec<&[u8]> = Vec::new();
        for component in bytes.as_ref().split(|&b| b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => {
                    kept.pop();
                }
                name => kept.push(name),
            }
        }
        Self::parse(kept.join(&b'/'))
    }

    /// The path's bytes, without a leading slash; empty for the root.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as the standard library's relative path, for calls that take a directory descriptor. The root is `.`.
    #[must_use]
    pub fn as_relative(&self) -> &std::path::Path {
        if self.is_root() {
            return std::path::Path::new(".");
        }
        std::path::Path::new(OsStr::from_bytes(&self.0))
    }

    /// Whether this is the root itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components from the top.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|c| !c.is_empty())
    }

    /// The directory that holds this path; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].into()))
    }

    /// The last component; `None` for the root.
    #[must_use]
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// All proper ancestors from the root down, the root first; empty for the root.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        let own = (!self.is_root()).then(Self::root);
        let bytes = &self.0;
        own.into_iter().chain(
            bytes.iter().enumerate().filter(|&(_, &b)| b == b'/').map(|(at, _)| Self(bytes[..at].into())),
        )
    }

    /// This path extended by one parsed path.
    ///
    /// # Errors
    /// [`PathError::TooLong`] if the whole no longer fits.
    pub fn join(&self, below: &Self) -> Result<Self, PathError> {
        if self.is_root() || below.is_root() {
            return Ok(if self.is_root() { below.clone() } else { self.clone() });
        }
        let joined = [&*self.0, &*below.0].join(&b'/');
        if joined.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong(joined.len()));
        }
        Ok(Self(joined.into()))
    }

    /// This path extended by one name, which is parsed.
    ///
    /// # Errors
    /// [`PathError`] if the name is no component or the whole no longer fits.
    pub fn join_name(&self, name: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let name = name.as_ref();
        if self.is_root() {
            return Self::parse(name);
        }
        if !self.takes_name(name) {
            return self.join(&Self::parse(name)?);
        }
        let mut joined = Vec::with_capacity(self.0.len() + 1 + name.len());
        joined.extend_from_slice(&self.0);
        joined.push(b'/');
        joined.extend_from_slice(name);
        Ok(Self(joined.into()))
    }

    /// Whether a name is one component, as it is, and this path extended by it still fits.
    #[must_use]
    pub fn takes_name(&self, name: &[u8]) -> bool {
        is_normal_name(name) && self.0.len() + 1 + name.len() <= MAX_PATH_BYTES
    }

    /// Whether this path is `ancestor` or lies below it.
    #[must_use]
    pub fn is_at_or_below(&self, ancestor: &Self) -> bool {
        let rest = self.0.strip_prefix(&*ancestor.0);
        ancestor.is_root() || rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
    }

    /// The rest of this path below `ancestor`; `None` if it does not lie there. A path lies below itself, by the empty rest.
    #[must_use]
    pub fn below(&self, ancestor: &Self) -> Option<Self> {
        if ancestor.is_root() {
            return Some(self.clone());
        }
        let rest = self.0.strip_prefix(&*ancestor.0)?;
        match rest {
            [] => Some(Self::root()),
            [b'/', rest @ ..] => Some(Self(rest.into())),
            _ => None,
        }
    }
}

/// Whether the bytes are already in the form that [`RootfsPath::parse`] gives, the common case by far.
fn is_normal(bytes: &[u8]) -> bool {
    bytes.is_empty() || (bytes.len() <= MAX_PATH_BYTES && bytes.split(|&b| b == b'/').all(is_normal_name))
}

fn is_normal_name(bytes: &[u8]) -> bool {
    !matches!(bytes, b"" | b"." | b"..")
        && bytes.len() <= MAX_NAME_BYTES
        && !bytes.iter().any(|&b| b == 0 || b == b'/')
}

impl Ord for RootfsPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // A slash sorts below every other byte, so `a`, `a/b`, `a-b` come in this order and a tree stays together.
        let key = |b: &u8| if *b == b'/' { 0 } else { *b };
        self.0.iter().map(key).cmp(other.0.iter().map(key))
    }
}

impl PartialOrd for RootfsPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RootfsPath {
    /// As seen from inside the root: with a leading slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RootfsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl AsRef<OsStr> for RootfsPath {
    fn as_ref(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let got = RootfsPath::parse(text).map_or_else(|e| e.to_string(), |p| p.to_string());
        assert_eq!(got, expected);
    }

    #[test]
    fn paths_are_normalised_and_never_climb() {
        check("/a//b/./c/", "/a/b/c");
        check("", "/");
        check("./", "/");
        check("a/../b", "path `a/../b` contains a `..` component");
        check("a\0b", "path `a\0b` contains a NUL byte");
    }

    #[test]
    fn a_joined_name_is_as_if_the_whole_had_been_parsed() {
        let deep = "d".repeat(250) + "/" + &["e"; 1900].join("/");
        for stem in ["", "a", "a/b", &deep] {
            let directory = RootfsPath::parse(stem).unwrap();
            let lengths = [44, 45, 255, 256].map(|length| "n".repeat(length));
            let names = ["c", "c/d", ".", "", "/c/", "..", "c\0"].into_iter();
            for name in names.chain(lengths.iter().map(String::as_str)) {
                let whole = RootfsPath::parse(format!("{stem}/{name}"));
                assert_eq!(directory.join_name(name).ok(), whole.ok(), "{stem} {name}");
            }
        }
    }

    #[test]
    fn clamped_paths_stop_at_the_root() {
        assert_eq!(RootfsPath::parse_clamped("../../a/./b/../c").unwrap().to_string(), "/a/c");
    }

    #[test]
    fn a_directory_sorts_right_before_its_contents() {
        let mut paths: Vec<_> =
            ["a-b", "a/b/c", "a", "a/b", "b", ""].iter().map(|p| RootfsPath::parse(p).unwrap()).collect();
        paths.sort();
        let shown: Vec<_> = paths.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["/", "/a", "/a/b", "/a/b/c", "/a-b", "/b"]);
    }

    #[test]
    fn below_and_ancestors_split_at_components() {
        let path = RootfsPath::parse("usr/lib/x").unwrap();
        assert_eq!(path.below(&RootfsPath::parse("usr/li").unwrap()), None);
        assert_eq!(path.below(&RootfsPath::parse("usr").unwrap()).unwrap().to_string(), "/lib/x");
        for ancestor in ["", "usr", "usr/li", "usr/lib", "usr/lib/x", "usr/lib/x/y", "lib"] {
            let ancestor = RootfsPath::parse(ancestor).unwrap();
            assert_eq!(path.is_at_or_below(&ancestor), path.below(&ancestor).is_some(), "{ancestor}");
        }
        let above: Vec<_> = path.ancestors().map(|p| p.to_string()).collect();
        assert_eq!(above, ["/", "/usr", "/usr/lib"]);
    }
}
