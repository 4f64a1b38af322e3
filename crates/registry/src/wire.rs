//! The JSON that registries, token servers, credential helpers and configuration files speak.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// `errors` as in the OCI distribution spec, "Error Codes"; the single ones as token servers give them.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct ErrorBody {
    pub(crate) errors: Vec<ErrorEntry>,
    pub(crate) error: Option<String>,
    pub(crate) error_description: Option<String>,
    pub(crate) details: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct ErrorEntry {
    #[serde(default)]
    pub(crate) code: String,
    pub(crate) message: Option<String>,
}

/// A token server's answer, of the GET and of the OAuth 2 form.
#[derive(Deserialize)]
pub(crate) struct TokenBody {
    pub(crate) token: Option<Secret>,
    pub(crate) access_token: Option<Secret>,
}

/// What tells a manifest from an index, and from something that claims to be both.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ManifestShape {
    pub(crate) media_type: Option<String>,
    pub(crate) manifests: Option<IgnoredAny>,
    pub(crate) config: Option<IgnoredAny>,
    pub(crate) layers: Option<IgnoredAny>,
}

/// Docker's `config.json`, of which containers' `auth.json` is a part.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ConfigFile {
    pub(crate) auths: BTreeMap<String, AuthEntry>,
    pub(crate) cred_helpers: BTreeMap<String, String>,
    pub(crate) creds_store: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AuthEntry {
    /// base64 of `user:password`.
    pub(crate) auth: Option<Secret>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    #[serde(rename = "identitytoken")]
    pub(crate) identity_token: Option<Secret>,
    #[serde(rename = "registrytoken")]
    pub(crate) registry_token: Option<Secret>,
}

/// What `docker-credential-NAME store` takes.
#[derive(Serialize)]
pub(crate) struct StoredLogin<'l> {
    #[serde(rename = "ServerURL")]
    pub(crate) server: &'l str,
    #[serde(rename = "Username")]
    pub(crate) username: &'l str,
    #[serde(rename = "Secret")]
    pub(crate) secret: &'l str,
}

/// The answer of `docker-credential-NAME get`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HelperAnswer {
    pub(crate) username: String,
    pub(crate) secret: Secret,
}
