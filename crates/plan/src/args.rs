//! Build arguments: where an ARG's value comes from, and the names that need no declaration.
//!
//! Global scope is what FROM sees: the platform arguments, then each ARG before the first FROM. A stage imports a global by
//! repeating its name. In a stage the value is that of `--build-arg`, else the ARG's own default, else the global one.

use std::collections::HashMap;

use oci::Platform;

use crate::env::Environment;
use crate::epoch;
use crate::{BuildArg, Request, VariableOrigin};

/// Proxy variables, by the upper-case name; set in each RUN in both cases.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Arguments that mean something to the builder itself.
const BUILDER: [&str; 10] = [
    "BUILDKIT_BUILD_NAME",
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_DOCKERFILE_CHECK",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_MULTI_PLATFORM",
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_SYNTAX",
    epoch::NAME,
    SBOM_SCAN_CONTEXT,
];

const SBOM_SCAN_CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
const SBOM_SCAN_STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";

/// What the machine is called in a RUN unless `BUILDKIT_SANDBOX_HOSTNAME` says otherwise.
const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// The values of `--build-arg`, of those that have one.
#[derive(Clone, Debug)]
pub(crate) struct BuildArgs {
    values: HashMap<String, String>,
}

impl BuildArgs {
    pub(crate) fn new(given: &[BuildArg]) -> Self {
        let valued = given.iter().filter_map(|arg| Some((arg.name.clone(), arg.value.clone()?)));
        Self { values: valued.collect() }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Gives an argument another value, or takes it away.
    pub(crate) fn replace(&mut self, name: &str, value: Option<String>) {
        match value {
            Some(value) => drop(self.values.insert(name.to_owned(), value)),
            None => drop(self.values.remove(name)),
        }
    }

    pub(crate) fn hostname(&self) -> &str {
        self.get("BUILDKIT_SANDBOX_HOSTNAME").filter(|name| !name.is_empty()).unwrap_or(DEFAULT_HOSTNAME)
    }

    /// `BUILDKIT_CACHE_MOUNT_NS`: keeps the cache mounts of different people apart.
    pub(crate) fn cache_namespace(&self) -> Option<&str> {
        self.get("BUILDKIT_CACHE_MOUNT_NS").filter(|namespace| !namespace.is_empty())
    }

    /// Proxy variables for a RUN: each in both cases, the lower-case argument first choice. A variable that the environment sets is
    /// left to it.
    pub(crate) fn proxy_env(&self, env: &Environment) -> Vec<(String, String)> {
        let mut variables = Vec::new();
        for upper in PROXIES {
            let lower = upper.to_ascii_lowercase();
            let given = self.get(&lower).or_else(|| self.get(upper)).filter(|value| !value.is_empty());
            let Some(value) = given else { continue };
            let names = [upper.to_owned(), lower].into_iter().filter(|name| !env.contains(name));
            variables.extend(names.map(|name| (name, value.to_owned())));
        }
        variables
    }
}

/// Whether a `--build-arg` of this name has a meaning without any ARG.
pub(crate) fn is_predefined(name: &str) -> bool {
    PROXIES.iter().any(|proxy| *proxy == name || proxy.to_ascii_lowercase() == name)
        || BUILDER.contains(&name)
        || name == SBOM_SCAN_STAGE
        || is_of_platform(name)
}

/// Whether an ARG of this name becomes a variable: those that only speak to the builder do not.
pub(crate) fn is_variable(name: &str) -> bool {
    name != SBOM_SCAN_CONTEXT && name != SBOM_SCAN_STAGE
}

/// Whether an argument of this name has a value before anybody declares it.
pub(crate) fn is_of_platform(name: &str) -> bool {
    PLATFORM_ARGS.contains(&name)
}

const PLATFORM_ARGS: [&str; 11] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

/// The global scope before the first ARG: platform arguments, each of which a `--build-arg` overrides.
pub(crate) fn platform_scope(
    request: &Request,
    target: &Platform,
    stage: &str,
    given: &BuildArgs,
) -> Environment {
    let build = &request.build_platform;
    let variant = |platform: &Platform| platform.variant.clone().unwrap_or_default();
    let stage = if stage.is_empty() { "default" } else { stage };
    let values = [
        build.to_string(),
        build.os.clone(),
        String::new(),
        build.architecture.clone(),
        variant(build),
        target.to_string(),
        target.os.clone(),
        String::new(),
        target.architecture.clone(),
        variant(target),
        stage.to_owned(),
    ];
    let mut scope = Environment::default();
    for (name, value) in PLATFORM_ARGS.into_iter().zip(values) {
        scope.set(name, given.get(name).map_or(value, ToOwned::to_owned), VariableOrigin::Arg);
    }
    scope
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, Option<&str>)]) -> BuildArgs {
        let arg = |(name, value): &(&str, Option<&str>)| BuildArg {
            name: (*name).to_owned(),
            value: value.map(ToOwned::to_owned),
        };
        BuildArgs::new(&pairs.iter().map(arg).collect::<Vec<_>>())
    }

    #[test]
    fn proxies_appear_in_both_cases_unless_the_environment_sets_them() {
        let args = given(&[
            ("http_proxy", Some("p")),
            ("NO_PROXY", Some("n")),
            ("all_proxy", Some("")),
            ("ftp_proxy", None),
        ]);
        let mut env = Environment::default();
        env.set("no_proxy", "own", VariableOrigin::Env);
        let text: Vec<_> =
            args.proxy_env(&env).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(text, ["HTTP_PROXY=p", "http_proxy=p", "NO_PROXY=n"]);
    }

    #[test]
    fn predefined_names_need_no_declaration() {
        for name in
            ["HTTP_PROXY", "https_proxy", "TARGETARCH", "SOURCE_DATE_EPOCH", "BUILDKIT_SBOM_SCAN_STAGE"]
        {
            assert!(is_predefined(name), "{name}");
        }
        assert!(!is_predefined("Http_Proxy") && !is_predefined("VERSION"));
        assert!(is_variable("VERSION") && !is_variable("BUILDKIT_SBOM_SCAN_CONTEXT"));
    }

    #[test]
    fn the_last_build_argument_of_a_name_counts() {
        assert_eq!(given(&[("A", Some("1")), ("A", Some("2")), ("B", None)]).get("A"), Some("2"));
        assert_eq!(given(&[("B", None)]).get("B"), None);
    }
}
