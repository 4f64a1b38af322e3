//! The form of a lock file: a line for each name, in order, made to be read by a person and compared by git.
//!
//! ```text
//! version 1
//! git URL COMMIT
//! image NAME OS/ARCH[/VARIANT] DIGEST|- ID
//! url URL DIGEST
//! ```
//!
//! DIGEST of an image is what a registry has the name under, of an index or a manifest, ID is its config's, which is what the build goes by.
//! A `-` stands for an image that no registry is known to have. A URL has no query, which may hold a signature or a token; so several of one
//! place may stand there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::str::FromStr;

use dockerfile::{Source, Span};
use oci::{Digest, ImageId, Platform, Reference};
use source::git::Commit;

/// What a file begins with.
const HEAD: &str = "\
# What the names in the Dockerfile meant when `rbuild build --lock` wrote this; `rbuild build --locked` takes exactly these.
version 1
";

/// Of the form of these files.
const VERSION: &str = "1";

/// Stands for no digest.
const NONE: &str = "-";

/// What names meant in a build.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Lock {
    /// By reference and platform, both as they are written.
    pub(super) images: BTreeMap<(String, String), LockedImage>,
    /// By URL with all that is said there.
    pub(super) commits: BTreeMap<String, Commit>,
    /// By URL without its query.
    pub(super) files: BTreeMap<String, BTreeSet<Digest>>,
}

/// An image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LockedImage {
    /// Of the index or manifest, where a registry has it.
    pub(crate) digest: Option<Digest>,
    pub(crate) id: ImageId,
}

/// What is wrong with a file, and where.
#[derive(Debug)]
pub(super) struct Malformed {
    pub(super) span: Span,
    pub(super) what: String,
}

impl Lock {
    pub(super) fn to_text(&self) -> String {
        let mut text = HEAD.to_owned();
        let mut line = |words: std::fmt::Arguments<'_>| {
            writeln!(text, "{words}").expect("a string takes everything");
        };
        for (url, commit) in &self.commits {
            line(format_args!("git {url} {commit}"));
        }
        for ((name, platform), LockedImage { digest, id }) in &self.images {
            let digest = digest.as_ref().map_or_else(|| NONE.to_owned(), Digest::to_string);
            line(format_args!("image {name} {platform} {digest} {id}"));
        }
        for (url, digests) in &self.files {
            digests.iter().for_each(|digest| line(format_args!("url {url} {digest}")));
        }
        text
    }

    pub(super) fn parse(source: &Source) -> Result<Self, Malformed> {
        let mut lock = Self::default();
        let mut has_version = false;
        for span in (1..=source.line_count()).filter_map(|line| source.line(line)) {
            let line = source.slice(span);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let read = if has_version { lock.read(line) } else { check_version(line) };
            read.map_err(|what| Malformed { span, what })?;
            has_version = true;
        }
        let end = source.line(source.line_count()).unwrap_or_default();
        has_version.then_some(lock).ok_or_else(|| Malformed { span: end, what: NO_VERSION.to_owned() })
    }

    fn read(&mut self, line: &str) -> Result<(), String> {
        let form = |form: &str| format!("the line is not of the form `{form}`");
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        // Names may have spaces in them, what they mean has none.
        let pair = rest.rsplit_once(' ').filter(|(name, _)| !name.is_empty());
        match kind {
            "image" => {
                let words: Vec<&str> = rest.split(' ').collect();
                let [name, platform, digest, id] = words[..] else {
                    return Err(form("image NAME OS/ARCH DIGEST ID"));
                };
                self.read_image(name, platform, digest, id)
            }
            "git" => {
                let (url, commit) = pair.ok_or_else(|| form("git URL COMMIT"))?;
                let commit =
                    Commit::parse(commit).ok_or_else(|| format!("`{commit}` is no commit's whole id"))?;
                once(self.commits.insert(url.to_owned(), commit))
            }
            "url" => {
                let (url, digest) = pair.ok_or_else(|| form("url URL DIGEST"))?;
                self.files.entry(url.to_owned()).or_default().insert(parse(digest, "digest")?);
                Ok(())
            }
            other => Err(format!("there are lines of `git`, `image` and `url`, not of `{other}`")),
        }
    }

    fn read_image(&mut self, name: &str, platform: &str, digest: &str, id: &str) -> Result<(), String> {
        // As a person may have written them.
        let name = parse::<Reference>(name, "image's name")?.familiar();
        let platform = parse::<Platform>(platform, "platform")?.to_string();
        let digest = if digest == NONE { None } else { Some(parse(digest, "digest")?) };
        let id = ImageId::new(parse(id, "image's id")?);
        once(self.images.insert((name, platform), LockedImage { digest, id }))
    }
}

const NO_VERSION: &str = "it does not begin with `version 1`";

fn check_version(line: &str) -> Result<(), String> {
    match line.strip_prefix("version ") {
        Some(VERSION) => Ok(()),
        Some(other) => Err(format!("its form is of version `{other}`, and this rbuild knows `{VERSION}`")),
        None => Err(NO_VERSION.to_owned()),
    }
}

fn parse<T: FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is no {what}"))
}

fn once<T>(before: Option<T>) -> Result<(), String> {
    before.map_or(Ok(()), |_| Err("a line above says something else of the same name".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Lock, (u32, String)> {
        let source = Source::new("rbuild.lock", text.as_bytes());
        Lock::parse(&source)
            .map_err(|wrong| (source.position(wrong.span.range().start as u32).line, wrong.what))
    }

    fn lock() -> Lock {
        let image = |digest: Option<&str>| LockedImage {
            digest: digest.map(Digest::of),
            id: ImageId::new(Digest::of("config")),
        };
        let named = |name: &str, platform: &str| (name.to_owned(), platform.to_owned());
        let digests = ["one", "two"].map(Digest::of);
        Lock {
            images: BTreeMap::from([
                (named("alpine:3.20", "linux/amd64"), image(Some("index"))),
                (named("alpine:3.20", "linux/arm64"), image(Some("index"))),
                (named("base:latest", "linux/amd64"), image(None)),
            ]),
            commits: BTreeMap::from([(
                "https://h/r.git#main:a dir".to_owned(),
                Commit::parse(&"1".repeat(40)).unwrap(),
            )]),
            files: BTreeMap::from([("https://h/f".to_owned(), BTreeSet::from(digests))]),
        }
    }

    #[test]
    fn what_is_written_is_a_line_for_each_and_is_read_again() {
        let text = lock().to_text();
        let kinds: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(kinds, ["#", "version", "git", "image", "image", "image", "url", "url"]);
        assert_eq!(parsed(&text), Ok(lock()));
        assert_eq!(parsed(&text.replace('\n', "\r\n")), Ok(lock()), "an editor may do that");
        assert_eq!(parsed(&text.replace("alpine:3.20", "docker.io/library/alpine:3.20")), Ok(lock()));
    }

    #[test]
    fn what_is_malformed_is_told_with_its_line() {
        #[track_caller]
        fn check(text: &str, line: u32, what: &str) {
            assert_eq!(parsed(text), Err((line, what.to_owned())), "{text}");
        }
        let digest = Digest::of("x");
        check("", 1, NO_VERSION);
        check("# only this\n", 2, NO_VERSION);
        check("url https://h/f\n", 1, NO_VERSION);
        check("version 2\n", 1, "its form is of version `2`, and this rbuild knows `1`");
        let check = |line: &str, what: &str| check(&format!("version 1\n\n{line}\n"), 3, what);
        check("<<<<<<< HEAD", "there are lines of `git`, `image` and `url`, not of `<<<<<<<`");
        check("url https://h/f", "the line is not of the form `url URL DIGEST`");
        check("url https://h/f sha256:x", "`sha256:x` is no digest");
        check("git https://h/r.git main", "`main` is no commit's whole id");
        check(
            &format!("image alpine linux/amd64 {digest}"),
            "the line is not of the form `image NAME OS/ARCH DIGEST ID`",
        );
        check(&format!("image UPPER linux/amd64 - {digest}"), "`UPPER` is no image's name");
        check(&format!("image alpine amd64/x/y/z - {digest}"), "`amd64/x/y/z` is no platform");
        check("image alpine linux/amd64 - -", "`-` is no image's id");
        let twice =
            format!("version 1\nimage a linux/amd64 - {digest}\nimage a:latest linux/amd64 - {digest}\n");
        assert_eq!(parsed(&twice).unwrap_err().0, 3);
    }
}
