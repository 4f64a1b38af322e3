//! Absolute paths inside the filesystem a build makes.

use std::fmt;

/// The longest path that a kernel takes, without the NUL at its end: `PATH_MAX` of limits.h(0p).
pub(crate) const MAX_BYTES: usize = 4095;

/// An absolute, lexically cleaned path: no `.`, no `..`, no doubled or trailing slash, and `/` for the root.
///
/// Cleaning is by text, as Dockerfiles define it. Symlinks are followed when the step runs, below the step's root.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ImagePath(String);

impl ImagePath {
    /// `/`.
    #[must_use]
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Cleans `text` as if it began at the root: `../a//b/` is `/a/b`.
    #[must_use]
    pub fn rooted(text: &str) -> Self {
        Self::root().join(text)
    }

    /// `text` as seen from this directory; an absolute `text` stands for itself. `..` stops at the root.
    #[must_use]
    pub fn join(&self, text: &str) -> Self {
        let mut components: Vec<&str> = Vec::new();
        let base = if text.starts_with('/') { "" } else { self.0.as_str() };
        for component in base.split('/').chain(text.split('/')) {
            match component {
                "" | "." => {}
                ".." => {
                    components.pop();
                }
                name => components.push(name),
            }
        }
        Self(format!("/{}", components.join("/")))
    }

    /// The text, beginning with `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text without its leading `/`: empty for the root.
    #[must_use]
    pub(crate) fn relative(&self) -> &str {
        &self.0[1..]
    }

    /// Whether this is `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// The last component; `None` for the root.
    #[must_use]
    pub fn file_name(&self) -> Option<&str> {
        self.0.rsplit('/').next().filter(|name| !name.is_empty())
    }

    /// The directory that holds it; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (directory, name) = self.0.rsplit_once('/')?;
        (!name.is_empty())
            .then(|| if directory.is_empty() { Self::root() } else { Self(directory.to_owned()) })
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(base: &str, text: &str, expected: Expect) {
        expected.assert_eq(ImagePath::rooted(base).join(text).as_str());
    }

    #[test]
    fn joining_cleans_and_never_leaves_the_root() {
        check("/", "", expect!["/"]);
        check("/a", "b", expect!["/a/b"]);
        check("/a", "/b/", expect!["/b"]);
        check("/a/b", "../c/./d//e", expect!["/a/c/d/e"]);
        check("/a", "../../..", expect!["/"]);
        check("a/b", ".", expect!["/a/b"]);
    }

    #[test]
    fn parents_end_at_the_root() {
        let path = ImagePath::rooted("/a/b");
        assert_eq!(path.file_name(), Some("b"));
        let parents: Vec<_> =
            std::iter::successors(Some(path), ImagePath::parent).map(|p| p.to_string()).collect();
        assert_eq!(parents, ["/a/b", "/a", "/"]);
        assert_eq!(ImagePath::root().file_name(), None);
        assert_eq!(ImagePath::root().relative(), "");
    }
}
