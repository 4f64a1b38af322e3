//! The image config document (OCI image spec, "Image Configuration", with Docker's extension fields).
//!
//! Our own type, since the vocabulary crate's drops `Healthcheck`, `OnBuild` and `Shell` and writes maps in random order. Here
//! every unknown field survives a round trip, maps are ordered, and the order of fields is fixed.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::{DiffId, Digest, ImageId, Platform};

/// The search path that an image without one gets.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Deepest nesting and largest size of a config that is accepted, against documents made to exhaust memory.
const MAX_CONFIG_BYTES: usize = 4 << 20;

/// One image's config document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// RFC 3339 time of creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Set by `MAINTAINER`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Go's name of the processor.
    pub architecture: String,
    /// Go's name of the operating system.
    pub os: String,
    /// Processor variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Windows' build number.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Windows' features.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// How to run it.
    #[serde(default, rename = "config", deserialize_with = "null_is_default")]
    pub execution: Execution,
    /// The layers, lowest first.
    pub rootfs: RootFs,
    /// What made each layer, lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    /// Everything else, kept.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// Execution parameters: the `config` object of the document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    /// `user[:group]` as written in `USER`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp` and the like.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub exposed_ports: BTreeMap<String, EmptyObject>,
    /// `NAME=value`, in order of first appearance.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// What runs; `None` if nothing was ever set or it was reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments, or the command if there is no entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Docker: how to find out whether the container works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Docker: whether `Cmd` is already escaped for Windows. Meaningless on Linux, but Docker writes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Paths that get a volume.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, EmptyObject>,
    /// Where the process starts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Docker: instructions for whoever builds on this image.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub on_build: Vec<String>,
    /// Free-form metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the process to stop.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Docker: the shell of shell-form instructions.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub shell: Vec<String>,
    /// Everything else, kept.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// `{}`: the value in sets that Go writes as maps.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EmptyObject;

impl Serialize for EmptyObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        serializer.serialize_map(Some(0))?.end()
    }
}

impl<'de> Deserialize<'de> for EmptyObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// Docker's health check; durations in nanoseconds, 0 means "inherit the default".
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time one check may take.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time in which failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between checks during the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The layers of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// One line of history; those that are not `empty_layer` belong to the layers in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Set by `MAINTAINER`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Who built it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether no layer belongs to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Everything else, kept.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// Why bytes are not a [`Config`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Over 4 MiB.
    #[error("image config of {0} bytes is larger than 4 MiB")]
    TooLarge(usize),
    /// Not JSON, or of the wrong shape.
    #[error("image config is malformed")]
    Malformed(#[source] serde_json::Error),
}

impl Config {
    /// An image without layers for a platform.
    #[must_use]
    pub fn empty(platform: &Platform) -> Self {
        Self {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            ..Self::default()
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.len() > MAX_CONFIG_BYTES {
            return Err(ConfigError::TooLarge(bytes.len()));
        }
        serde_json::from_slice(bytes).map_err(ConfigError::Malformed)
    }

    /// The bytes to store: the same for equal configs.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a config has string keys only, so it always serialises")
    }

    /// The id of the image whose stored config bytes are `json`.
    #[must_use]
    pub fn id_of(json: &[u8]) -> ImageId {
        ImageId::new(Digest::of(json))
    }

    /// The platform the image says it is for.
    #[must_use]
    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

impl Execution {
    /// The value of an environment variable; the last one wins, as in a process.
    #[must_use]
    pub fn env_value(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// Sets an environment variable in its place, or appends it.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let pair = format!("{name}={value}");
        let is_same = |old: &String| old.split('=').next() == Some(name);
        match self.env.iter_mut().find(|old| is_same(old)) {
            Some(old) => *old = pair,
            None => self.env.push(pair),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Go writes empty lists and maps as `null`.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const DOCKER: &str = r#"{"architecture":"amd64","os":"linux","config":{"Hostname":"","Env":["PATH=/bin"],"Cmd":["sh"],"Volumes":null,
        "Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":1000000000},"OnBuild":["RUN x"],"Shell":["/bin/bash","-c"],"Labels":{"b":"2","a":"1"}},
        "container":"abc","docker_version":"20.10","rootfs":{"type":"layers","diff_ids":null},"history":[{"created_by":"x","emptyLayerX":1}]}"#;

    #[test]
    fn unknown_fields_survive_and_maps_are_ordered() {
        let config = Config::from_json(DOCKER.as_bytes()).unwrap();
        expect![[r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["sh"],"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":1000000000},"OnBuild":["RUN x"],"Labels":{"a":"1","b":"2"},"Shell":["/bin/bash","-c"],"Hostname":""},"rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"x","emptyLayerX":1}],"container":"abc","docker_version":"20.10"}"#]]
        .assert_eq(&String::from_utf8(config.to_json()).unwrap());
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn environment_keeps_the_order_of_first_appearance() {
        let mut execution = Execution::default();
        for (name, value) in [("A", "1"), ("B", "2"), ("A", "3")] {
            execution.set_env(name, value);
        }
        assert_eq!(execution.env, ["A=3", "B=2"]);
        assert_eq!(execution.env_value("A"), Some("3"));
        assert_eq!(execution.env_value("AB"), None);
    }

    #[test]
    fn a_config_without_rootfs_is_refused() {
        assert!(matches!(Config::from_json(b"{}"), Err(ConfigError::Malformed(_))));
    }
}
