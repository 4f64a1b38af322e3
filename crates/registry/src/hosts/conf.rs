//! `registries.conf`, version 2.

use std::path::Path;

use serde::Deserialize;

use super::{HostsError, Mirror, Names, Rule};

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Registry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Registry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<PullFrom>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFrom {
    All,
    DigestOnly,
    TagOnly,
}

pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Rule>, HostsError> {
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        HostsError { path: path.to_owned(), line, message: error.message().to_owned() }
    })?;
    file.registry.into_iter().map(|registry| rule(path, registry)).collect()
}

fn rule(path: &Path, table: Registry) -> Result<Rule, HostsError> {
    let trimmed = |text: String| text.trim_end_matches('/').to_owned();
    let location = table.location.map(trimmed).filter(|location| !location.is_empty());
    let Some(prefix) = table.prefix.map(trimmed).filter(|p| !p.is_empty()).or_else(|| location.clone())
    else {
        let message = "a `[[registry]]` has neither `prefix` nor `location`".to_owned();
        return Err(HostsError { path: path.to_owned(), line: None, message });
    };
    let places = [Some(&prefix), location.as_ref()].into_iter().flatten();
    let mirrors = table.mirror.iter().map(|mirror| &mirror.location);
    if let Some(address) = places.chain(mirrors).find(|place| place.contains("://")) {
        let message = format!("`{address}` is an address, not a host or the beginning of a name");
        return Err(HostsError { path: path.to_owned(), line: None, message });
    }
    let of_all = if table.mirror_by_digest_only { Names::Digests } else { Names::All };
    let mirror = |mirror: MirrorTable| Mirror {
        location: mirror.location.trim_end_matches('/').to_owned(),
        is_insecure: mirror.insecure,
        is_plain: false,
        names: match mirror.pull_from_mirror {
            None => of_all,
            Some(PullFrom::All) => Names::All,
            Some(PullFrom::DigestOnly) => Names::Digests,
            Some(PullFrom::TagOnly) => Names::Tags,
        },
        path: path.to_owned(),
    };
    Ok(Rule {
        location: location.filter(|location| *location != prefix),
        prefix,
        is_insecure: table.insecure,
        is_blocked: table.blocked,
        mirrors: table.mirror.into_iter().map(mirror).collect(),
        path: path.to_owned(),
    })
}
