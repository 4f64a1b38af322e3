//! Who we are to a registry, from the files and helpers that `docker login` and `podman login` leave behind.
//!
//! Both files have one shape (Docker's `config.json`; `containers-auth.json(5)`), and are looked through in the order given:
//!
//! | in the file | key | means |
//! | --- | --- | --- |
//! | `credHelpers` | the registry's host | ask `docker-credential-NAME` about it |
//! | `credsStore` | – | ask `docker-credential-NAME` about every registry |
//! | `auths` | `host`, `https://host/v1/` | the entry itself: name and password, or a token |
//! | `auths` | `host/namespace`, `host/namespace/repository` | the same for a part of the registry; the longest key wins |
//!
//! Docker Hub goes by `https://index.docker.io/v1/` and by `docker.io`. A helper that knows nothing is passed over, and so is one that is not
//! installed, with a warning: a configuration copied from a desktop should not keep anybody from public images.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::helper;
use crate::limits::Limits;
use crate::secret::Secret;
use crate::wire::{AuthEntry, ConfigFile, HelperAnswer};

/// What Docker's files and helpers call Docker Hub.
pub(crate) const HUB_KEY: &str = "https://index.docker.io/v1/";

/// How to log in to one repository.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Credential {
    /// Not at all.
    Anonymous,
    /// With a name and a password, at the registry or at its token server.
    Basic {
        /// The user's name.
        username: String,
        /// The password, or what the registry issued in its place.
        password: Secret,
    },
    /// With a refresh token that the token server exchanges (`identitytoken`).
    IdentityToken(Secret),
    /// With a bearer token as it is (`registrytoken`).
    RegistryToken(Secret),
}

/// Everything that is configured about logging in. Holds no credentials of helpers: these are asked when a registry wants to know.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    files: Vec<ConfigFile>,
    helper_directories: Vec<PathBuf>,
}

/// Why the configured credentials cannot be used. No message holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Not JSON, or not of the right shape. The parser's own message could quote a password.
    #[error("the credentials file is not what `docker login` writes, at line {line}, column {column}")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// `auth` is not base64 of `user:password`.
    #[error("the entry `{key}` of the credentials file has an `auth` that is not base64 of `user:password`")]
    Auth {
        /// The key in `auths`.
        key: String,
    },
    /// A name that could leave the directories of helpers.
    #[error("`{0}` is not the name of a credential helper")]
    HelperName(String),
    /// No such program, though a login is to be kept by it.
    #[error("the credential helper `{0}` of the credentials file is not installed")]
    HelperMissing(String),
    /// The program exists but cannot be run.
    #[error("cannot run `{program}`")]
    HelperStart {
        /// The helper's path.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended with an error other than "not found".
    #[error("`{program}` does not do its work for `{server}` ({status})")]
    HelperFailed {
        /// The helper's path.
        program: PathBuf,
        /// What it was asked about.
        server: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// It printed something else than the protocol's JSON, or too much.
    #[error("`{program}` does not answer as a credential helper does")]
    HelperAnswer {
        /// The helper's path.
        program: PathBuf,
    },
    /// It was ended for taking too long.
    #[error("`{program}` did not answer within {limit:?}")]
    HelperTimeout {
        /// The helper's path.
        program: PathBuf,
        /// [`Limits::helper`].
        limit: std::time::Duration,
    },
}

impl Credentials {
    /// No logins.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// One login, given by the user.
    #[must_use]
    pub fn given(registry: &str, username: &str, password: Secret) -> Self {
        let entry = AuthEntry {
            username: Some(username.to_owned()),
            password: Some(password),
            ..AuthEntry::default()
        };
        let auths = [(registry.to_owned(), entry)].into();
        Self { files: vec![ConfigFile { auths, ..ConfigFile::default() }], helper_directories: Vec::new() }
    }

    /// Reads the text of a `config.json` or `auth.json`; what else these files hold does not matter.
    ///
    /// # Errors
    /// [`CredentialsError::Malformed`].
    pub fn parse(text: &[u8]) -> Result<Self, CredentialsError> {
        let file = serde_json::from_slice(text)
            .map_err(|error| CredentialsError::Malformed { line: error.line(), column: error.column() })?;
        Ok(Self { files: vec![file], helper_directories: Vec::new() })
    }

    /// Adds what `other` knows, for registries of which `self` knows nothing.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.files.extend(other.files);
        self.helper_directories.extend(other.helper_directories);
        self
    }

    /// Says where the `docker-credential-NAME` programs are: the directories of `PATH`.
    #[must_use]
    pub fn with_helpers_in(mut self, directories: impl IntoIterator<Item = PathBuf>) -> Self {
        self.helper_directories.extend(directories);
        self
    }

    /// The login for a repository of a registry, named as in a reference. May run a helper.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn find(
        &self,
        registry: &str,
        repository: &str,
        limits: &Limits,
    ) -> Result<Credential, CredentialsError> {
        for file in &self.files {
            if let Some(credential) = self.helper_login(file, registry, limits)? {
                return Ok(credential);
            }
            if let Some(credential) = file_login(file, registry, repository)? {
                return Ok(credential);
            }
        }
        Ok(Credential::Anonymous)
    }

    fn helper_login(
        &self,
        file: &ConfigFile,
        registry: &str,
        limits: &Limits,
    ) -> Result<Option<Credential>, CredentialsError> {
        let own = file.cred_helpers.iter().find(|(key, _)| aliases(registry).contains(&host_of(key)));
        let server = if registry == "docker.io" { HUB_KEY } else { registry };
        let (server, name) = match (own, &file.creds_store) {
            (Some((key, name)), _) => (key.as_str(), name),
            (None, Some(name)) => (server, name),
            (None, None) => return Ok(None),
        };
        if name.is_empty() {
            return Ok(None);
        }
        let answer = helper::get(&self.helper_directories, name, server, limits)?;
        Ok(answer.map(|HelperAnswer { username, secret }| match username.as_str() {
            "<token>" => Credential::IdentityToken(secret),
            _ => Credential::Basic { username, password: secret },
        }))
    }
}

fn file_login(
    file: &ConfigFile,
    registry: &str,
    repository: &str,
) -> Result<Option<Credential>, CredentialsError> {
    for place in places(registry, repository) {
        for (key, entry) in file.auths.iter().filter(|(key, _)| place_of(key) == place) {
            if let Some(credential) = read_entry(key, entry)? {
                return Ok(Some(credential));
            }
        }
    }
    Ok(None)
}

/// The places at which a login for `registry/repository` may be filed, the closest first.
fn places(registry: &str, repository: &str) -> impl Iterator<Item = String> {
    let whole = format!("/{repository}");
    let ends: Vec<usize> = whole.rmatch_indices('/').map(|(at, _)| at).collect();
    let paths: Vec<String> =
        std::iter::once(whole.len()).chain(ends).map(|end| whole[..end].to_owned()).collect();
    let hosts = aliases(registry);
    paths.into_iter().flat_map(move |path| hosts.clone().into_iter().map(move |host| format!("{host}{path}")))
}

pub(crate) fn aliases(registry: &str) -> Vec<&str> {
    match registry {
        "docker.io" => vec!["docker.io", "index.docker.io", "registry-1.docker.io"],
        other => vec![other],
    }
}

/// Keys with a scheme are server addresses, whose path is an API version; others are a host, possibly with a repository's path.
pub(crate) fn place_of(key: &str) -> &str {
    if key.contains("://") {
        return host_of(key);
    }
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

pub(crate) fn host_of(key: &str) -> &str {
    let bare = key.split_once("://").map_or(key, |(_, rest)| rest);
    bare.split('/').next().unwrap_or(bare)
}

fn read_entry(key: &str, entry: &AuthEntry) -> Result<Option<Credential>, CredentialsError> {
    let filled = |secret: &Option<Secret>| secret.clone().filter(|s| !s.reveal().is_empty());
    if let Some(token) = filled(&entry.identity_token) {
        return Ok(Some(Credential::IdentityToken(token)));
    }
    if let Some(token) = filled(&entry.registry_token) {
        return Ok(Some(Credential::RegistryToken(token)));
    }
    if let Some(auth) = filled(&entry.auth) {
        let (username, password) =
            decode_auth(&auth).ok_or_else(|| CredentialsError::Auth { key: key.to_owned() })?;
        return Ok(Some(Credential::Basic { username, password }));
    }
    Ok(match (&entry.username, filled(&entry.password)) {
        (Some(username), Some(password)) if !username.is_empty() => {
            Some(Credential::Basic { username: username.clone(), password })
        }
        _ => None,
    })
}

fn decode_auth(auth: &Secret) -> Option<(String, Secret)> {
    // Written with padding by Docker, without it by hand.
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
    let text = String::from_utf8(engine.decode(auth.reveal().trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    let password = password.trim_end_matches('\0');
    let usable = !username.is_empty() && !text.contains(['\r', '\n']);
    usable.then(|| (username.to_owned(), Secret::new(password)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const FILE: &str = r#"{
        "auths": {
            "https://index.docker.io/v1/": { "auth": "aHViOnB3" },
            "quay.io": { "username": "quay", "password": "pw" },
            "quay.io/team": { "auth": "dGVhbTpwdw" },
            "quay.io/team/app": { "identitytoken": "refresh", "auth": "YXBwOg==" },
            "http://plain.test:5000/v2/": { "registrytoken": "bearer" },
            "empty.test": {},
            "odd.test": { "auth": "!!" },
            "nocolon.test": { "auth": "aHVi" }
        },
        "HttpHeaders": { "User-Agent": "Docker-Client" }
    }"#;

    #[track_caller]
    fn check(registry: &str, repository: &str, expected: Expect) {
        let found = Credentials::parse(FILE.as_bytes()).unwrap().find(registry, repository, &Limits::DEFAULT);
        expected.assert_eq(&found.map_or_else(
            |error| error.to_string(),
            |credential| match credential {
                Credential::Anonymous => "anonymous".to_owned(),
                Credential::Basic { username, password } => format!("{username}:{}", password.reveal()),
                Credential::IdentityToken(token) => format!("identity {}", token.reveal()),
                Credential::RegistryToken(token) => format!("registry {}", token.reveal()),
            },
        ));
    }

    #[test]
    fn the_closest_entry_counts() {
        check("docker.io", "library/alpine", expect!["hub:pw"]);
        check("quay.io", "other/app", expect!["quay:pw"]);
        check("quay.io", "team/tool", expect!["team:pw"]);
        check("quay.io", "team/app", expect!["identity refresh"]);
        check("quay.io", "teams", expect!["quay:pw"]);
        check("plain.test:5000", "x", expect!["registry bearer"]);
        check("plain.test", "x", expect!["anonymous"]);
        check("empty.test", "x", expect!["anonymous"]);
    }

    #[test]
    fn entries_that_cannot_be_read_are_named() {
        let text = |key: &str| {
            format!(
                "the entry `{key}` of the credentials file has an `auth` that is not base64 of `user:password`"
            )
        };
        for key in ["odd.test", "nocolon.test"] {
            let error =
                Credentials::parse(FILE.as_bytes()).unwrap().find(key, "x", &Limits::DEFAULT).unwrap_err();
            assert_eq!(error.to_string(), text(key));
        }
    }

    #[test]
    fn errors_and_debug_output_hold_no_secret() {
        let error = Credentials::parse(br#"{"auths": {"h": "hunter2"}}"#).unwrap_err();
        expect!["the credentials file is not what `docker login` writes, at line 1, column 25"]
            .assert_eq(&error.to_string());
        let all = format!("{:?} {error:?}", Credentials::parse(FILE.as_bytes()).unwrap());
        for secret in ["aHViOnB3", "refresh", "bearer", "hunter2", "\"pw\""] {
            assert!(!all.contains(secret), "{secret} in {all}");
        }
    }

    #[test]
    fn the_first_file_that_knows_the_registry_wins() {
        let parse = |text: &str| Credentials::parse(text.as_bytes()).unwrap();
        let first = parse(r#"{"auths": {"a.test": {"auth": "b25lOjE="}}}"#);
        let second = parse(r#"{"auths": {"a.test": {"auth": "dHdvOjI="}, "b.test": {"auth": "dHdvOjI="}}}"#);
        let both = first.or(second);
        let user = |registry: &str| match both.find(registry, "x", &Limits::DEFAULT).unwrap() {
            Credential::Basic { username, .. } => username,
            other => panic!("{other:?}"),
        };
        assert_eq!((user("a.test"), user("b.test")), ("one".to_owned(), "two".to_owned()));
    }
}
