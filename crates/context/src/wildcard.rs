//! A source argument of a COPY, taken apart: the directory it starts from, and the patterns below it.

use sys::{PathError, RootfsPath};

use crate::pattern::{Dialect, Pattern, PatternError};

/// A source argument: components from the context's root on. A leading `/` and `..` collapse to the root, a trailing `/` means nothing.
#[derive(Clone, Debug)]
pub struct SourcePattern {
    /// The components before the first wildcard, their escapes resolved.
    pub literal: RootfsPath,
    /// One pattern for each component from the first wildcard on; empty for a literal source.
    pub(crate) wild: Vec<Pattern>,
}

/// Why a source argument cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SourceError {
    /// A wildcard is not well formed.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The literal part is no path.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl SourcePattern {
    /// Takes a source argument apart.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn parse(source: &[u8]) -> Result<Self, SourceError> {
        let mut literal: Vec<Vec<u8>> = Vec::new();
        let mut wild = Vec::new();
        for component in normal_components(source) {
            let pattern = Pattern::parse(component, Dialect::Wildcard)?;
            match pattern.as_literal() {
                Some(name) if wild.is_empty() => literal.push(name.to_vec()),
                _ => wild.push(pattern),
            }
        }
        Ok(Self { literal: RootfsPath::parse(literal.join(&b'/'))?, wild })
    }

    /// Whether it names exactly one path.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.wild.is_empty()
    }

    /// Whether a path of the context is one that this source names, links aside.
    #[must_use]
    pub fn matches(&self, path: &RootfsPath) -> bool {
        let Some(rest) = path.below(&self.literal) else { return false };
        rest.components().count() == self.wild.len()
            && rest.components().zip(&self.wild).all(|(name, pattern)| pattern.matches(name))
    }
}

/// The components of a path seen from a root: without empty ones and `.`, and `..` taking back the one before.
pub(crate) fn normal_components(path: &[u8]) -> Vec<&[u8]> {
    let mut kept = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, path: &str, expected: bool) {
        let source = SourcePattern::parse(source.as_bytes()).unwrap();
        assert_eq!(source.matches(&RootfsPath::parse(path).unwrap()), expected, "{source:?} on `{path}`");
    }

    #[test]
    fn sources_are_seen_from_the_contexts_root() {
        for source in ["a/b", "/a/b", "./a//b/", "../a/b", "x/../a/b", "../../a/./b"] {
            let parsed = SourcePattern::parse(source.as_bytes()).unwrap();
            assert!(parsed.is_literal());
            assert_eq!(parsed.literal.to_string(), "/a/b", "{source}");
        }
        for source in [".", "/", "", "..", "a/.."] {
            assert!(SourcePattern::parse(source.as_bytes()).unwrap().literal.is_root(), "{source}");
        }
    }

    #[test]
    fn wildcards_match_component_by_component() {
        check("*.txt", "a.txt", true);
        check("*.txt", "d/a.txt", false);
        check("*/a", "d/a", true);
        check("*/a", "a", false);
        check("*", ".hidden", true);
        check("d/*", "d", false);
        check("d/*/c?", "d/x/c1", true);
        check("d/*/c?", "d/x/c", false);
        check("a[0-9]b", "a5b", true);
        check("**", "a", true);
        check("**", "a/b", false);
        check("arr[[]0].txt", "arr[0].txt", true);
        check("a\\*b", "a*b", true);
        check("a\\*b", "axb", false);
        check("*/../b*", "bb", true);
    }

    #[test]
    fn an_escaped_wildcard_is_literal() {
        let parsed = SourcePattern::parse(b"dir/a\\*b\\[").unwrap();
        assert!(parsed.is_literal());
        assert_eq!(parsed.literal.as_bytes(), b"dir/a*b[");
    }

    #[test]
    fn what_is_no_pattern_or_no_path_is_refused() {
        assert_eq!(SourcePattern::parse(b"a[").unwrap_err(), SourceError::Pattern(PatternError::OpenClass));
        assert!(matches!(SourcePattern::parse(b"a\0b").unwrap_err(), SourceError::Path(_)));
        assert!(matches!(SourcePattern::parse(&[b'a'; 300]).unwrap_err(), SourceError::Path(_)));
    }
}
