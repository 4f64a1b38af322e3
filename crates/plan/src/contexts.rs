//! Named contexts: `--build-context NAME=…` takes the place of a stage or image of that name.

use std::collections::HashMap;

use oci::{Platform, Reference};

use crate::{ContextKind, NamedContext};

/// The named contexts of a request, found by name however it is written: `alpine`, `alpine:latest` and `docker.io/library/alpine`
/// are one.
#[derive(Clone, Debug)]
pub(crate) struct NamedContexts {
    by_name: HashMap<String, NamedContext>,
}

impl NamedContexts {
    pub(crate) fn new(given: &[NamedContext]) -> Self {
        Self {
            by_name: given.iter().map(|context| (normalised_key(&context.name), context.clone())).collect(),
        }
    }

    /// The context that stands for `name`; one for the very platform is preferred. `scratch` and `context` cannot be replaced.
    pub(crate) fn find(&self, name: &str, platform: &Platform) -> Option<&NamedContext> {
        if ["scratch", "context"].iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
            return None;
        }
        let name = normalised(name);
        self.by_name.get(&format!("{name}::{platform}")).or_else(|| self.by_name.get(&name))
    }

    /// The context of that very name, for whatever platform.
    pub(crate) fn of_name(&self, name: &str) -> Option<&NamedContext> {
        self.by_name.get(&normalised(name))
    }

    /// Names for suggestions.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.values().map(|context| context.name.as_str())
    }
}

impl NamedContext {
    pub(crate) fn image(&self) -> Option<&Reference> {
        match &self.kind {
            ContextKind::Image(reference) => Some(reference),
            ContextKind::Directory => None,
        }
    }
}

fn normalised_key(key: &str) -> String {
    match key.split_once("::") {
        Some((name, platform)) => {
            let platform =
                platform.parse::<Platform>().map_or_else(|_| platform.to_owned(), |p| p.to_string());
            format!("{}::{platform}", normalised(name))
        }
        None => normalised(key),
    }
}

fn normalised(name: &str) -> String {
    let lower = name.to_lowercase();
    let Ok(reference) = Reference::parse(&lower) else { return lower };
    let familiar = reference.familiar();
    familiar.strip_suffix(":latest").map_or(familiar.clone(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contexts(names: &[&str]) -> NamedContexts {
        let context = |name: &&str| NamedContext { name: (*name).to_owned(), kind: ContextKind::Directory };
        NamedContexts::new(&names.iter().map(context).collect::<Vec<_>>())
    }

    #[track_caller]
    fn check(given: &[&str], name: &str, expected: Option<&str>) {
        let contexts = contexts(given);
        let found = contexts.find(name, &"linux/arm64".parse().unwrap());
        assert_eq!(found.map(|context| context.name.as_str()), expected);
    }

    #[test]
    fn names_are_compared_as_image_references() {
        check(&["alpine"], "docker.io/library/alpine:latest", Some("alpine"));
        check(&["docker.io/library/alpine:latest"], "alpine", Some("docker.io/library/alpine:latest"));
        check(&["alpine"], "alpine:3", None);
        check(&["Base"], "base", Some("Base"));
    }

    #[test]
    fn a_context_for_the_platform_wins() {
        check(&["alpine", "alpine::linux/arm64"], "alpine", Some("alpine::linux/arm64"));
        check(&["alpine::linux/amd64"], "alpine", None);
        check(&["alpine::linux/arm64/v8"], "alpine", Some("alpine::linux/arm64/v8"));
    }

    #[test]
    fn reserved_names_cannot_be_replaced() {
        check(&["scratch", "context"], "scratch", None);
        check(&["scratch", "context"], "Context", None);
    }
}
