//! Image references: `registry/repository:tag@digest`, completed as Docker completes them.

use std::fmt;

use crate::{Digest, DigestError};

/// The registry meant when none is named.
const DEFAULT_REGISTRY: &str = "docker.io";

/// A parsed image name. Always has a registry and a repository, and a tag unless a digest was given without one.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a [`Reference`] (grammar: OCI distribution spec, "Pulling manifests"; Docker's reference grammar for the registry part).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing there.
    #[error("an image name is empty")]
    Empty,
    /// The one mistake everybody makes.
    #[error("repository name `{0}` has an upper-case letter")]
    UpperCase(String),
    /// The repository has an odd character or separator.
    #[error(
        "`{0}` is not a repository name: lower-case letters and digits, separated by `.`, `_`, `__`, `-` or `/`"
    )]
    Repository(String),
    /// The repository is over 255 bytes.
    #[error("repository name of {0} bytes is longer than 255")]
    TooLong(usize),
    /// The registry is no host name with an optional port.
    #[error("`{0}` is not a registry: a host name with an optional port")]
    Registry(String),
    /// The tag has an odd character or length.
    #[error("`{0}` is not a tag: up to 128 letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`")]
    Tag(String),
    /// 64 hex digits alone would be taken for an image id.
    #[error("`{0}` looks like an image id, not an image name")]
    LooksLikeId(String),
    /// The part after `@`.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Reference {
    /// Parses and completes a name as typed: `alpine` is `docker.io/library/alpine:latest`.
    ///
    /// # Errors
    /// [`ReferenceError`], naming the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        let (name, tag) = split_tag(name);
        let (registry, path) = split_registry(name);
        check_registry(registry)?;
        let official = registry == DEFAULT_REGISTRY && !path.contains('/');
        let repository = if official { format!("library/{path}") } else { path.to_owned() };
        check_repository(&repository, path)?;
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(check_tag(tag)?.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// The same repository under another tag.
    ///
    /// # Errors
    /// [`ReferenceError::Tag`].
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        Ok(Self { tag: Some(check_tag(tag)?.to_owned()), digest: None, ..self.clone() })
    }

    /// The same tag or digest of another repository of another registry.
    ///
    /// # Errors
    /// [`ReferenceError::Registry`], [`ReferenceError::Repository`].
    pub fn relocated(&self, registry: &str, repository: &str) -> Result<Self, ReferenceError> {
        check_registry(registry)?;
        check_repository(repository, repository)?;
        Ok(Self { registry: registry.to_owned(), repository: repository.to_owned(), ..self.clone() })
    }

    /// Host, and port if one was given: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path below the registry: `library/alpine`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; absent only beside a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The manifest digest, if the name is pinned.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same repository at a digest, without a tag.
    #[must_use]
    pub fn at_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same name without its digest, tagged `latest` if it had no tag: what a local tag is stored under.
    #[must_use]
    pub fn without_digest(&self) -> Self {
        let tag = self.tag.clone().unwrap_or_else(|| "latest".to_owned());
        Self { tag: Some(tag), digest: None, ..self.clone() }
    }

    /// The name as a person would type it: `docker.io/`, `library/` left out where they go without saying, and where what is left still means
    /// the same. `docker.io/library/a/b` is not `a/b`, and `docker.io/localhost/a` is not `localhost/a`.
    #[must_use]
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let on_hub = full.strip_prefix("docker.io/");
        let shorter = [on_hub.and_then(|name| name.strip_prefix("library/")), on_hub];
        let short = shorter.into_iter().flatten().find(|name| self.is_repository_of(name));
        short.map_or(full.clone(), ToOwned::to_owned)
    }

    fn is_repository_of(&self, name: &str) -> bool {
        let same = |other: Self| other.registry == self.registry && other.repository == self.repository;
        Self::parse(name).is_ok_and(same)
    }

    /// Registry and repository in the familiar form, for listings.
    #[must_use]
    pub fn familiar_repository(&self) -> String {
        let bare = Self { tag: None, digest: None, ..self.clone() };
        bare.familiar()
    }
}

impl std::str::FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// A colon after the last slash begins the tag; one before it belongs to the registry's port.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[last..].find(':') {
        Some(colon) => (&name[..last + colon], Some(&name[last + colon + 1..])),
        None => (name, None),
    }
}

/// The first component is a registry if it could not be part of a Docker Hub name: it has a dot or colon, is `localhost`, or
/// has an upper-case letter.
fn split_registry(name: &str) -> (&str, &str) {
    let Some((first, rest)) = name.split_once('/') else { return (DEFAULT_REGISTRY, name) };
    let is_host =
        first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase());
    match first {
        "index.docker.io" | "registry-1.docker.io" => (DEFAULT_REGISTRY, rest),
        _ if is_host => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn check_registry(registry: &str) -> Result<(), ReferenceError> {
    let wrong = || ReferenceError::Registry(registry.to_owned());
    let (host, port) = if let Some(rest) = registry.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or_else(wrong)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
        ("localhost", if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(wrong)?) })
    } else {
        registry.split_once(':').map_or((registry, None), |(host, port)| (host, Some(port)))
    };
    let host_ok = host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    });
    let port_ok =
        port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok());
    if host_ok && port_ok { Ok(()) } else { Err(wrong()) }
}

fn check_repository(repository: &str, typed: &str) -> Result<(), ReferenceError> {
    if typed.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(ReferenceError::UpperCase(typed.to_owned()));
    }
    if repository.len() > 255 {
        return Err(ReferenceError::TooLong(repository.len()));
    }
    if repository.split('/').all(is_repository_component) {
        Ok(())
    } else {
        Err(ReferenceError::Repository(typed.to_owned()))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_repository_component(component: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !is_word(*first) || !is_word(*last) {
        return false;
    }
    bytes
        .split(|&b| is_word(b))
        .filter(|gap| !gap.is_empty())
        .all(|gap| matches!(gap, b"." | b"_" | b"__") || gap.iter().all(|&b| b == b'-'))
}

fn check_tag(tag: &str) -> Result<&str, ReferenceError> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let ok = tag.len() <= 128
        && tag.chars().next().is_some_and(word)
        && tag.chars().all(|c| word(c) || c == '.' || c == '-');
    if ok { Ok(tag) } else { Err(ReferenceError::Tag(tag.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&Reference::parse(text).map_or_else(|e| e.to_string(), |r| r.to_string()));
    }

    #[test]
    fn references_are_completed_like_docker() {
        check("alpine", expect!["docker.io/library/alpine:latest"]);
        check("alpine:3.20", expect!["docker.io/library/alpine:3.20"]);
        check("user/app", expect!["docker.io/user/app:latest"]);
        check("index.docker.io/alpine", expect!["docker.io/library/alpine:latest"]);
        check("host:5000/a/b", expect!["host:5000/a/b:latest"]);
        check("localhost/x", expect!["localhost/x:latest"]);
        check("[::1]:5000/x", expect!["[::1]:5000/x:latest"]);
        check("ghcr.io/a/b__c/d--e:v1.0-rc_1", expect!["ghcr.io/a/b__c/d--e:v1.0-rc_1"]);
    }

    #[test]
    fn a_digest_pins_and_makes_the_tag_optional() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let pinned = Reference::parse(&format!("alpine@{digest}")).unwrap();
        assert_eq!((pinned.tag(), pinned.digest().unwrap().to_string().as_str()), (None, digest));
        assert_eq!(Reference::parse(&format!("a:1@{digest}")).unwrap().tag(), Some("1"));
        assert_eq!(pinned.without_digest().familiar(), "alpine:latest");
        check("alpine@sha256:12", expect!["`sha256:12` does not have 64 lower-case hex digits"]);
    }

    #[test]
    fn wrong_names_say_which_part_is_wrong() {
        check("", expect!["an image name is empty"]);
        check("Alpine", expect!["repository name `Alpine` has an upper-case letter"]);
        check(
            "a//b",
            expect![
                "`a//b` is not a repository name: lower-case letters and digits, separated by `.`, `_`, `__`, `-` or `/`"
            ],
        );
        check(
            "a___b",
            expect![
                "`a___b` is not a repository name: lower-case letters and digits, separated by `.`, `_`, `__`, `-` or `/`"
            ],
        );
        check("host:port/x", expect!["`host:port` is not a registry: a host name with an optional port"]);
        check(
            "a:-x",
            expect![
                "`-x` is not a tag: up to 128 letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`"
            ],
        );
        check(
            &"0".repeat(64),
            expect![
                "`0000000000000000000000000000000000000000000000000000000000000000` looks like an image id, not an image name"
            ],
        );
    }

    #[test]
    fn familiar_names_are_what_people_type() {
        for name in ["alpine:latest", "user/app:1", "localhost:5000/x:latest"] {
            assert_eq!(Reference::parse(name).unwrap().familiar(), name);
        }
        assert_eq!(Reference::parse("docker.io/library/alpine").unwrap().familiar_repository(), "alpine");
        // What is left would mean another image.
        for name in ["library/a/b:latest", "docker.io/localhost/a:latest", "docker.io/a.b/c:latest"] {
            assert_eq!(Reference::parse(name).unwrap().familiar(), name);
        }
    }
}
