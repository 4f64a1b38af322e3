//! Logging in and out: Docker's `config.json` as a document that is edited, and the helpers that it names.
//!
//! Keys that mean nothing here stay, and so does the order of all. Where a login goes: to the helper that `credHelpers` names for the registry,
//! else to that of `credsStore`, else into `auths`.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oci::Reference;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use crate::auth::Access;
use crate::client::{Client, Location, Question};
use crate::credentials::{CredentialsError, HUB_KEY, aliases, host_of, place_of};
use crate::error::RequestError;
use crate::helper;
use crate::limits::Limits;
use crate::secret::Secret;
use crate::wire::StoredLogin;

/// What `docker login` keeps its logins in.
#[derive(Clone)]
pub struct LoginFile {
    document: Map<String, Value>,
    helper_directories: Vec<PathBuf>,
}

impl Client {
    /// Asks the registry of a reference whether it takes the credentials that this client was given.
    ///
    /// # Errors
    /// [`RequestError`]; [`crate::Failure::Denied`] or [`crate::Failure::Token`] if it does not.
    pub fn log_in(&self, reference: &Reference) -> Result<(), RequestError> {
        let question = Question {
            method: Method::GET,
            place: Location::Top,
            access: Access::Login,
            ..Question::get(String::new(), "API".to_owned(), "application/json")
        };
        self.ask(reference, &question, |_| Ok(()))
    }
}

impl LoginFile {
    /// Reads the file's text; of a file that is not there, nothing.
    ///
    /// # Errors
    /// [`CredentialsError::Malformed`].
    pub fn parse(text: &[u8], helper_directories: Vec<PathBuf>) -> Result<Self, CredentialsError> {
        let document = match text.trim_ascii() {
            b"" => Map::new(),
            text => serde_json::from_slice(text).map_err(|error| CredentialsError::Malformed {
                line: error.line(),
                column: error.column(),
            })?,
        };
        Ok(Self { document, helper_directories })
    }

    /// Keeps a login; the file is to be written then.
    ///
    /// # Errors
    /// Those of a helper; then nothing is kept.
    pub fn log_in(
        &mut self,
        registry: &str,
        username: &str,
        password: &Secret,
        limits: &Limits,
    ) -> Result<(), CredentialsError> {
        let (key, helper) = (self.key(registry), self.helper(registry));
        let entry = match helper {
            Some((server, name)) => {
                let login = StoredLogin { server: &server, username, secret: password.reveal() };
                helper::store(&self.helper_directories, &name, &login, limits)?;
                // As Docker does: so that it is known that there is a login.
                json!({})
            }
            None => json!({ "auth": BASE64.encode(format!("{username}:{}", password.reveal())) }),
        };
        let auths = self.document.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        if let Some(auths) = auths.as_object_mut() {
            // Under another of its names, an older login would count for more.
            auths.retain(|known, _| *known == key || !aliases(registry).contains(&place_of(known)));
            auths.insert(key, entry);
        }
        Ok(())
    }

    /// Forgets a login; says whether there was one, and what a helper could not do. What the file has is forgotten in any case.
    pub fn log_out(&mut self, registry: &str, limits: &Limits) -> (bool, Result<(), CredentialsError>) {
        let (mut was_there, mut helped) = (false, Ok(()));
        if let Some((server, name)) = self.helper(registry) {
            // What cannot be read can still be erased.
            let known = helper::get(&self.helper_directories, &name, &server, limits);
            was_there = !matches!(known, Ok(None));
            helped = helper::erase(&self.helper_directories, &name, &server, limits);
        }
        if let Some(auths) = self.document.get_mut("auths").and_then(Value::as_object_mut) {
            let before = auths.len();
            auths.retain(|key, _| !aliases(registry).contains(&place_of(key)));
            was_there |= auths.len() < before;
        }
        (was_there, helped)
    }

    /// Forgets all logins; gives the registries of which there was one, and what a helper could not do.
    pub fn log_out_everywhere(&mut self, limits: &Limits) -> (Vec<String>, Result<(), CredentialsError>) {
        let (mut kept, mut helped) = (Vec::new(), Ok(()));
        if let Some(name) =
            self.document.get("credsStore").and_then(Value::as_str).filter(|name| !name.is_empty())
        {
            match helper::list(&self.helper_directories, name, limits) {
                Ok(servers) => kept = servers.iter().map(|server| registry_of(server)).collect(),
                Err(error) => helped = Err(error),
            }
        }
        let keys = |of: &str| self.document.get(of).and_then(Value::as_object).into_iter().flatten();
        kept.extend(["auths", "credHelpers"].into_iter().flat_map(keys).map(|(key, _)| registry_of(key)));
        kept.sort();
        kept.dedup();
        let mut gone = Vec::new();
        for registry in kept {
            let (was_there, erased) = self.log_out(&registry, limits);
            helped = helped.and(erased);
            if was_there {
                gone.push(registry);
            }
        }
        // What is kept for a part of a registry.
        if let Some(auths) = self.document.get_mut("auths").and_then(Value::as_object_mut) {
            gone.extend(auths.keys().map(|key| place_of(key).to_owned()));
            auths.clear();
        }
        (gone, helped)
    }

    /// The file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let text = serde_json::to_string_pretty(&self.document);
        text.expect("a document with text keys is always JSON") + "\n"
    }

    /// The key in `auths`: the one that is there, or else the one that Docker writes.
    fn key(&self, registry: &str) -> String {
        let auths = self.document.get("auths").and_then(Value::as_object);
        let known = auths.into_iter().flatten().map(|(key, _)| key);
        let mut known = known.filter(|key| aliases(registry).contains(&place_of(key)));
        known.next().map_or_else(|| server(registry).to_owned(), ToOwned::to_owned)
    }

    /// The helper of a registry, and what that calls it.
    fn helper(&self, registry: &str) -> Option<(String, String)> {
        let helpers = self.document.get("credHelpers").and_then(Value::as_object);
        let own = helpers.into_iter().flatten().find(|(key, _)| aliases(registry).contains(&host_of(key)));
        let (server, name) = match own {
            Some((key, name)) => (key.as_str(), name),
            None => (server(registry), self.document.get("credsStore")?),
        };
        let name = name.as_str().filter(|name| !name.is_empty())?;
        Some((server.to_owned(), name.to_owned()))
    }
}

/// The registry of an address, as in a reference.
fn registry_of(address: &str) -> String {
    let host = host_of(address);
    if aliases("docker.io").contains(&host) { "docker.io".to_owned() } else { host.to_owned() }
}

fn server(registry: &str) -> &str {
    if registry == "docker.io" { HUB_KEY } else { registry }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn file(text: &str) -> LoginFile {
        LoginFile::parse(text.as_bytes(), Vec::new()).unwrap()
    }

    #[test]
    fn what_is_not_understood_stays_as_it_is() {
        let mut file =
            file(r#"{"z": [1], "auths": {"quay.io": {"auth": "eA==", "x": 1}}, "a": {"b": null}}"#);
        let password = Secret::new("pw");
        file.log_in("registry.test:5000", "hub", &password, &Limits::DEFAULT).unwrap();
        file.log_in("docker.io", "hub", &password, &Limits::DEFAULT).unwrap();
        expect![[r#"
            {
              "z": [
                1
              ],
              "auths": {
                "quay.io": {
                  "auth": "eA==",
                  "x": 1
                },
                "registry.test:5000": {
                  "auth": "aHViOnB3"
                },
                "https://index.docker.io/v1/": {
                  "auth": "aHViOnB3"
                }
              },
              "a": {
                "b": null
              }
            }
        "#]]
        .assert_eq(&file.to_text());
        for (registry, was_there) in [("quay.io", true), ("docker.io", true), ("docker.io", false)] {
            assert_eq!(file.log_out(registry, &Limits::DEFAULT).0, was_there, "{registry}");
        }
        expect![[r#"
            {
              "z": [
                1
              ],
              "auths": {
                "registry.test:5000": {
                  "auth": "aHViOnB3"
                }
              },
              "a": {
                "b": null
              }
            }
        "#]]
        .assert_eq(&file.to_text());
    }

    #[test]
    fn a_login_replaces_the_one_before_wherever_that_is() {
        let mut file = file(r#"{"auths": {"https://registry.test/v2/": {"auth": "eA=="}}}"#);
        file.log_in("registry.test", "hub", &Secret::new("pw"), &Limits::DEFAULT).unwrap();
        expect![[r#"
            {
              "auths": {
                "https://registry.test/v2/": {
                  "auth": "aHViOnB3"
                }
              }
            }
        "#]]
        .assert_eq(&file.to_text());
    }

    #[test]
    fn no_other_name_of_a_registry_keeps_an_older_login() {
        let mut file = file(
            r#"{"auths": {"https://index.docker.io/v1/": {"auth": "eA=="}, "docker.io": {"auth": "eA=="}}}"#,
        );
        file.log_in("docker.io", "hub", &Secret::new("pw"), &Limits::DEFAULT).unwrap();
        assert!(!file.to_text().contains("eA=="), "{}", file.to_text());
    }

    #[test]
    fn what_the_file_has_is_forgotten_even_if_the_helper_is_gone() {
        let mut file = file(r#"{"credsStore": "nosuch", "auths": {"registry.test": {"auth": "eA=="}}}"#);
        let (was_there, helped) = file.log_out("registry.test", &Limits::DEFAULT);
        assert!(was_there && matches!(helped, Err(CredentialsError::HelperMissing(_))));
        assert!(!file.to_text().contains("registry.test"));
    }

    #[test]
    fn what_a_missing_helper_should_keep_is_not_kept_elsewhere() {
        let text = r#"{"credsStore": "nosuch"}"#;
        let mut file = file(text);
        let result = file.log_in("registry.test", "hub", &Secret::new("pw"), &Limits::DEFAULT);
        assert!(matches!(result, Err(CredentialsError::HelperMissing(_))), "{result:?}");
        assert!(!file.to_text().contains("auths"));
    }

    #[test]
    fn what_is_no_file_of_logins_is_refused_without_its_text() {
        let error = LoginFile::parse(br#"["hunter2"]"#, Vec::new()).err().unwrap();
        assert!(!error.to_string().contains("hunter2"));
        assert!(LoginFile::parse(b" ", Vec::new()).is_ok());
    }
}
