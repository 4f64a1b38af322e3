//! Which files of a context an ignore file hides; also the patterns of `--exclude`.
//!
//! Every pattern is anchored at the root and matches a path or everything below it; the last pattern that matches decides, and
//! one that begins with `!` brings back. A directory that is hidden is not even opened unless a later `!` could bring back
//! something below it: with `node_modules` and `!node_modules/keep` it is, with `*.log` and `!src/keep.log` no other directory is.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sys::{Root, RootfsPath};

use crate::pattern::{Dialect, Pattern, PatternError};

/// Largest ignore file accepted: 1 MiB. Reading it is the first thing a build does; it must not be a way to fill memory.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// The name of a context's own ignore file, and the suffix of a Dockerfile's.
pub const FILE_NAME: &str = ".dockerignore";

/// The name that buildah and podman also look for; where both are, it wins.
pub const CONTAINER_FILE_NAME: &str = ".containerignore";

/// Compiled rules, in order.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

/// Whether a path belongs to the context.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict<'a> {
    /// It does.
    Included,
    /// It is hidden.
    Excluded(&'a Exclusion),
}

/// The rule that hides a path. Displayed as "line 3 of .dockerignore" or "`--exclude=*.log`".
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Exclusion {
    /// A line of an ignore file.
    Line {
        /// Counted from 1.
        line: usize,
        /// The file's name, as given to [`Ignore::parse`].
        file: String,
    },
    /// The value of a flag.
    Flag {
        /// As written.
        pattern: String,
    },
}

/// Why an ignore file or an `--exclude` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IgnoreError {
    /// A pattern is not well formed.
    #[error("`{pattern}`, {rule}, is no valid pattern")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Where it stands.
        rule: Exclusion,
        /// Why.
        #[source]
        source: PatternError,
    },
    /// `!` with nothing after it.
    #[error("`!` stands alone: {rule}")]
    LoneBang {
        /// Where it stands.
        rule: Exclusion,
    },
    /// The file is there and cannot be read.
    #[error("cannot read the ignore file `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is a directory, a device or the like.
    #[error("the ignore file `{}` is not a regular file", path.display())]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// The file is larger than [`MAX_FILE_BYTES`].
    #[error("the ignore file `{}` is larger than 1 MiB", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    brings_back: bool,
    origin: Exclusion,
}

/// What the directories above a path decided: which rules match one of them, and so everything below.
#[derive(Clone, Debug)]
pub(crate) struct Above(Box<[bool]>);

impl Ignore {
    /// No rules: everything is included.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Parses the bytes of an ignore file; `name` is what messages call it.
    ///
    /// # Errors
    /// [`IgnoreError::Pattern`] and [`IgnoreError::LoneBang`], naming the line.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self, IgnoreError> {
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        let mut rules = Vec::new();
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            // Only in the first column: the reference looks for it before it trims.
            if !line.starts_with(b"#") {
                let origin = Exclusion::Line { line: index + 1, file: name.to_owned() };
                rules.extend(Rule::parse(line, origin)?);
            }
        }
        Ok(Self { rules })
    }

    /// Compiles the values of `--exclude` flags, in their order.
    ///
    /// # Errors
    /// [`IgnoreError::Pattern`] and [`IgnoreError::LoneBang`], naming the flag.
    pub fn from_flags<'a>(patterns: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, IgnoreError> {
        let mut rules = Vec::new();
        for pattern in patterns {
            let origin = Exclusion::Flag { pattern: String::from_utf8_lossy(pattern).into_owned() };
            rules.extend(Rule::parse(pattern, origin)?);
        }
        Ok(Self { rules })
    }

    /// Reads the ignore file of a build: `<Dockerfile>.dockerignore` beside the Dockerfile if that exists, else `.containerignore` or
    /// `.dockerignore` at the context's root, else none. They are never merged. Inside the context, links lead to files of the context only.
    ///
    /// # Errors
    /// All of [`IgnoreError`]; a file that does not exist is none.
    pub fn find(context: &Path, dockerfile: Option<&Path>) -> Result<Self, IgnoreError> {
        if let Some(dockerfile) = dockerfile {
            let mut beside = dockerfile.as_os_str().to_owned();
            beside.push(FILE_NAME);
            if let Some(found) = read(context, Path::new(&beside))? {
                return Ok(found);
            }
        }
        for name in [CONTAINER_FILE_NAME, FILE_NAME] {
            if let Some(found) = read(context, &context.join(name))? {
                return Ok(found);
            }
        }
        Ok(Self::none())
    }

    /// Reads a file of any name; `None` if it does not exist.
    ///
    /// # Errors
    /// All of [`IgnoreError`].
    pub fn read(context: &Path, file: &Path) -> Result<Option<Self>, IgnoreError> {
        read(context, file)
    }

    /// Whether there are no rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether any rule brings files back with `!`.
    #[must_use]
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.brings_back)
    }

    /// Whether a path belongs to the context. The root always does.
    #[must_use]
    pub fn matches(&self, path: &RootfsPath) -> Verdict<'_> {
        let bytes = path.as_bytes();
        if bytes.is_empty() {
            return Verdict::Included;
        }
        verdict(self.rules.iter().rev().find(|rule| rule.pattern.matches_or_above(bytes)))
    }

    pub(crate) fn above_root(&self) -> Above {
        Above(vec![false; self.rules.len()].into())
    }

    /// What holds for everything in a directory, given what holds for everything beside it.
    pub(crate) fn enter(&self, above: &Above, directory: &[u8]) -> Above {
        let matching = |(rule, &inherited): (&Rule, &bool)| inherited || rule.pattern.matches(directory);
        Above(self.rules.iter().zip(&above.0).map(matching).collect())
    }

    /// The verdict on a path whose parent directory is known.
    pub(crate) fn decide(&self, above: &Above, path: &[u8]) -> Verdict<'_> {
        if path.is_empty() {
            return Verdict::Included;
        }
        let rules = self.rules.iter().zip(&above.0);
        let last = rules.rev().find(|(rule, inherited)| **inherited || rule.pattern.matches(path));
        verdict(last.map(|(rule, _)| rule))
    }

    /// Whether something below an excluded directory may be included: some `!` rule comes after the last rule that hides the directory.
    pub(crate) fn may_bring_back_below(&self, above: &Above, directory: &[u8]) -> bool {
        let rules = self.rules.iter().zip(&above.0).rev();
        rules
            .take_while(|(rule, inherited)| {
                rule.brings_back || !(**inherited || rule.pattern.matches(directory))
            })
            .any(|(rule, _)| rule.brings_back && rule.pattern.may_match_below(directory))
    }
}

/// What the last rule that matches decides.
fn verdict(last: Option<&Rule>) -> Verdict<'_> {
    match last {
        Some(rule) if !rule.brings_back => Verdict::Excluded(&rule.origin),
        _ => Verdict::Included,
    }
}

impl Rule {
    /// `None` for a blank line.
    fn parse(line: &[u8], origin: Exclusion) -> Result<Option<Self>, IgnoreError> {
        let text = trim(line);
        let (brings_back, text) = match text.strip_prefix(b"!") {
            Some(rest) => (true, trim(rest)),
            None => (false, text),
        };
        if text.is_empty() {
            return if brings_back { Err(IgnoreError::LoneBang { rule: origin }) } else { Ok(None) };
        }
        let cleaned = clean(text);
        let anchored =
            if cleaned.len() > 1 { cleaned.strip_prefix(b"/").unwrap_or(&cleaned) } else { &*cleaned };
        match Pattern::parse(anchored, Dialect::Ignore) {
            Ok(pattern) => Ok(Some(Self { pattern, brings_back, origin })),
            Err(source) => {
                let pattern = String::from_utf8_lossy(text).into_owned();
                Err(IgnoreError::Pattern { pattern, rule: origin, source })
            }
        }
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { line, file } => write!(f, "line {line} of {file}"),
            Self::Flag { pattern } => write!(f, "`--exclude={pattern}`"),
        }
    }
}

/// Removes white space at both ends, Unicode's if the line is UTF-8.
fn trim(line: &[u8]) -> &[u8] {
    std::str::from_utf8(line).map_or_else(|_| line.trim_ascii(), |text| text.trim().as_bytes())
}

/// Go's `path.Clean`, by which patterns are normalised: no `.`, no doubled or trailing slash, `..` removes what is before it.
/// `..` at the start stays, and so never matches.
fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.starts_with(b"/");
    let mut kept: Vec<&[u8]> = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if kept.last().is_some_and(|last| *last != b"..") => {
                kept.pop();
            }
            b".." if rooted => {}
            name => kept.push(name),
        }
    }
    let joined = kept.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", &*joined].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

fn read(context: &Path, path: &Path) -> Result<Option<Ignore>, IgnoreError> {
    let failed = |source| IgnoreError::Read { path: path.to_owned(), source };
    let file = match open(context, path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(IgnoreError::NotAFile { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(IgnoreError::TooLarge { path: path.to_owned() });
    }
    let name = path.strip_prefix(context).unwrap_or(path).to_string_lossy();
    Ignore::parse(&bytes, &name).map(Some)
}

/// Opens a file: below the context through the context's root, so that a link in it cannot name a file of the host; elsewhere below
/// the directory it lies in, which the user named.
fn open(context: &Path, path: &Path) -> io::Result<File> {
    use std::os::unix::ffi::OsStrExt;
    let within = path.strip_prefix(context).ok().map(|rest| (context, rest));
    let Some((root, rest)) = within.or_else(|| Some((path.parent()?, Path::new(path.file_name()?)))) else {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    };
    let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
    let rest = RootfsPath::parse_clamped(rest.as_os_str().as_bytes())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
    Root::open(root)?.open_file(&rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn path(text: &str) -> RootfsPath {
        RootfsPath::parse(text).unwrap()
    }

    /// 0 for an included path, else the line that excludes it.
    #[track_caller]
    fn check(file: &str, tested: &str, line: usize) {
        let ignore = Ignore::parse(file.as_bytes(), FILE_NAME).unwrap();
        let got = match ignore.matches(&path(tested)) {
            Verdict::Excluded(Exclusion::Line { line, .. }) => *line,
            Verdict::Excluded(other) => panic!("{other}"),
            Verdict::Included => 0,
        };
        assert_eq!(got, line, "{file:?} on `{tested}`");
    }

    #[test]
    fn lines_are_trimmed_and_comments_begin_in_the_first_column() {
        check("# a\na", "a", 2);
        check("#a", "#a", 0);
        check(" #a", "#a", 1);
        check("  a  \t", "a", 1);
        check("\u{FEFF}a", "a", 1);
        check("a\r\nb\r\n", "b", 2);
        check("\n\n a\n", "a", 3);
        check("\u{A0}a\u{A0}", "a", 1);
        check("", "a", 0);
    }

    #[test]
    fn patterns_are_cleaned_and_anchored_at_the_root() {
        check("/a", "a", 1);
        check("a/", "a", 1);
        check("./a/.", "a", 1);
        check("//a//b", "a/b", 1);
        check("a/../b", "b", 1);
        check("../a", "a", 0);
        check("/../a", "a", 1);
        check("a", "b/a", 0);
        check("**/a", "b/a", 1);
        check(".", "a", 0);
        check("/", "a", 0);
        check("a b", "a b", 1);
        check(".git", ".gitignore", 0);
    }

    #[test]
    fn what_matches_a_directory_matches_everything_below() {
        check("a", "a/b/c", 1);
        check("a/*", "a/b/c", 1);
        check("a/*", "a", 0);
        check("*/temp*", "x/temporary/file", 1);
        check("*", "a/b", 1);
        check("a/b", "a", 0);
        check("node_modules", "node_modules/x/index.js", 1);
    }

    #[test]
    fn the_last_line_that_matches_decides() {
        check("*.md\n!README.md", "README.md", 0);
        check("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", 3);
        check("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", 0);
        check("!a\na", "a", 2);
        check("a\n!a/b", "a/b/c", 0);
        check("a\n!a/b", "a/c", 1);
        check("a\n!a/b\na/b/c", "a/b/c/d", 3);
        check("**\n!util/docker/web", "util/docker/web/foo", 0);
        check("**\n!util/docker/web\nutil/docker/web/foo", "util/docker/web/foo", 3);
        check("**\n!dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", 0);
        check("*\n!src/**", "src/a/b.c", 0);
        check("*\n!src/**", "src", 1);
        // Also through a directory: the third line matches what the second brought back.
        check("a\n!a/b\na", "a/b", 3);
        check("! a", "a", 0);
        check("a\n! /a/b/", "a/b", 0);
        check("!!a\n", "!a", 0);
        check("*\n!!a\n", "!a", 0);
    }

    #[test]
    fn a_verdict_names_its_line_or_flag() {
        let ignore = Ignore::parse(b"x\n\n*.log", "sub/Dockerfile.dockerignore").unwrap();
        let Verdict::Excluded(by) = ignore.matches(&path("a.log")) else { panic!("included") };
        assert_eq!(by.to_string(), "line 3 of sub/Dockerfile.dockerignore");
        let flags = Ignore::from_flags([&b"*.txt"[..], b"/*.md"]).unwrap();
        let Verdict::Excluded(by) = flags.matches(&path("a.md")) else { panic!("included") };
        assert_eq!(by.to_string(), "`--exclude=/*.md`");
    }

    #[test]
    fn errors_name_the_line() {
        let shown = |file: &str| {
            let error = Ignore::parse(file.as_bytes(), FILE_NAME).unwrap_err();
            match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            }
        };
        assert_eq!(shown("a\n[b"), "`[b`, line 2 of .dockerignore, is no valid pattern: `[` is never closed");
        assert_eq!(shown("!\n"), "`!` stands alone: line 1 of .dockerignore");
    }

    #[track_caller]
    fn check_descent(file: &str, directory: &str, expected: bool) {
        let ignore = Ignore::parse(file.as_bytes(), FILE_NAME).unwrap();
        let directory = path(directory);
        let enter = |above, ancestor: RootfsPath| ignore.enter(&above, ancestor.as_bytes());
        let above = directory.ancestors().skip(1).fold(ignore.above_root(), enter);
        assert_ne!(
            ignore.decide(&above, directory.as_bytes()),
            Verdict::Included,
            "only excluded ones are asked for"
        );
        assert_eq!(
            ignore.may_bring_back_below(&above, directory.as_bytes()),
            expected,
            "{file:?} in `{directory}`"
        );
    }

    #[test]
    fn an_excluded_directory_is_read_only_if_something_can_come_back() {
        check_descent("a", "a", false);
        check_descent("a\n!b/c", "a", false);
        check_descent("a\n!a/b", "a", true);
        check_descent("!a/b\na", "a", false);
        check_descent("a\n!a/b\na/b", "a", true);
        check_descent("a\n!**/keep", "a/x/y", true);
        check_descent("*\n!src/*.c", "node_modules", false);
        check_descent("*\n!src/*.c", "src", true);
        check_descent("*\n!src/*.c", "src/deep", false);
        check_descent("*\n!s?c/x", "src", true);
        check_descent("a\n!ab/c", "a", false);
        check_descent("a\n!a/b/c", "a/b", true);
        check_descent("a\n!a/b/c", "a/x", false);
    }

    #[test]
    fn the_dockerfiles_own_ignore_file_wins_and_nothing_is_merged() {
        let base = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(base.path().join(name), text).unwrap();
        let find = |dockerfile: &str| Ignore::find(base.path(), Some(&base.path().join(dockerfile))).unwrap();
        assert!(find("Dockerfile").is_empty());
        write(".dockerignore", "general");
        write("Dockerfile.dockerignore", "own");
        assert_eq!(find("Dockerfile").matches(&path("general")), Verdict::Included);
        assert_ne!(find("Dockerfile").matches(&path("own")), Verdict::Included);
        assert_ne!(find("Other").matches(&path("general")), Verdict::Included);
        write(".containerignore", "contained");
        assert_ne!(find("Other").matches(&path("contained")), Verdict::Included);
        assert_eq!(find("Other").matches(&path("general")), Verdict::Included);
        assert_ne!(find("Dockerfile").matches(&path("own")), Verdict::Included);
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("D.dockerignore"), "far").unwrap();
        let far = Ignore::find(base.path(), Some(&outside.path().join("D"))).unwrap();
        assert_ne!(far.matches(&path("far")), Verdict::Included);
    }

    #[test]
    fn an_ignore_file_is_a_regular_file_of_the_context() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "[").unwrap();
        let base = tempfile::tempdir().unwrap();
        let name = base.path().join(FILE_NAME);
        symlink(outside.path().join("secret"), &name).unwrap();
        assert!(Ignore::find(base.path(), None).unwrap().is_empty());
        std::fs::remove_file(&name).unwrap();
        std::fs::create_dir(&name).unwrap();
        assert!(matches!(Ignore::find(base.path(), None), Err(IgnoreError::NotAFile { .. })));
        std::fs::remove_dir(&name).unwrap();
        std::fs::File::create(&name).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert!(matches!(Ignore::find(base.path(), None), Err(IgnoreError::TooLarge { .. })));
    }
}
