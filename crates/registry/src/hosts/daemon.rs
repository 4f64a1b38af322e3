//! Docker's `daemon.json` (dockerd(8)).

use std::path::Path;

use serde::Deserialize;

use super::{HostsError, Insecure, Mirror, Names, Whom};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    registry_mirrors: Vec<String>,
    #[serde(default)]
    insecure_registries: Vec<String>,
}

pub(super) fn parse(path: &Path, text: &[u8]) -> Result<(Vec<Mirror>, Vec<Insecure>), HostsError> {
    let failed = |line, message| HostsError { path: path.to_owned(), line, message };
    if text.trim_ascii().is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let file: File =
        serde_json::from_slice(text).map_err(|error| failed(Some(error.line()), error.to_string()))?;
    let mirror = |address: &String| {
        let Some((scheme, location)) = address.split_once("://") else {
            return Err(failed(None, format!("the mirror `{address}` is no address: it has no scheme")));
        };
        if location.contains('@') {
            let message = "a mirror has a user name in it: log in with `rbuild login` instead".to_owned();
            return Err(failed(None, message));
        }
        let is_plain = scheme.eq_ignore_ascii_case("http");
        Ok(Mirror {
            location: location.trim_end_matches('/').to_owned(),
            is_insecure: is_plain,
            is_plain,
            names: Names::All,
            path: path.to_owned(),
        })
    };
    let insecure = |whom: &String| Insecure {
        whom: whom.parse().map_or_else(|_| Whom::Host(bare(whom).to_owned()), Whom::Network),
        path: path.to_owned(),
    };
    let mirrors: Result<_, _> = file.registry_mirrors.iter().map(mirror).collect();
    Ok((mirrors?, file.insecure_registries.iter().map(insecure).collect()))
}

/// Docker takes addresses for hosts, with a warning.
fn bare(host: &str) -> &str {
    host.split_once("://").map_or(host, |(_, rest)| rest).trim_end_matches('/')
}
