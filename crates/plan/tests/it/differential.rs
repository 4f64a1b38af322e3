//! The differential corpus: config and history of each plan equal those of the reference builder's image.
//!
//! Whatever needs a filesystem is the solver's business; everything that an image says of itself is decided here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dockerfile::{Source, Span};
use oci::{Config, Digest, ImageId, Platform, Reference};
use plan::{
    BaseImage, BuildArg, ContextKind, Entitlement, ExtraHost, ImageError, Images, NamedContext, Output,
    Request,
};
use serde_json::{Value, json};
use testkit::differential::{Arguments, Case};

/// Cases that build with the reference builder and shall not build here, with a part of the message that says why.
const REFUSED: [(&str, &str); 2] = [
    ("copy-several-without-slash", "2 sources cannot be copied to one file `/nx`"),
    ("platform-unknown-system", "building for plan9/amd64 is not supported yet"),
];

/// Cases where this builder knows better.
const BETTER: [(&str, &str); 2] = [
    ("contexts-directory-as-from", "the layer of the directory has its own line of history, in its place"),
    (
        "expand-dollar-in-replacement",
        "`$1` in the replacement of `${V//P/W}` is text, as it is in that of `${V/P/W}`",
    ),
];

#[test]
fn configs_and_histories_are_those_of_the_reference_builder() {
    let corpus = corpus();
    let mut differences = Vec::new();
    let mut compared = 0;
    for case in cases(&corpus) {
        let expected = case.directory.join("expected");
        if !expected.join("config.json").is_file() {
            continue;
        }
        compared += 1;
        let refused = REFUSED.iter().find(|(name, _)| *name == case.name);
        match (lower(&case, &case.directory.join("Dockerfile"), &case.arguments), refused) {
            (Ok(output), None) => {
                let found = [("config.json", config(&output)), ("history.json", history(&output))]
                    .into_iter()
                    .filter_map(|(file, actual)| difference(&expected.join(file), &actual));
                let found: Vec<_> = found.map(|difference| format!("{}\n{difference}", case.name)).collect();
                match BETTER.iter().find(|(name, _)| *name == case.name) {
                    None => differences.extend(found),
                    Some(_) if !found.is_empty() => {}
                    Some((name, why)) => differences.push(format!("{name} does not differ, although {why}")),
                }
            }
            (Err(message), Some((_, reason))) if message.contains(reason) => {}
            (outcome, _) => differences.push(format!("{}: {:?}", case.name, outcome.map(|_| "has a plan"))),
        }
    }
    assert!(compared > 200, "only {compared} cases have a recorded config");
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

/// What the messages of errors begin with that are not the plan's to find: those that only a filesystem, a process, a secret or an unpacked
/// archive can bring; those of the ignore file, of lint and of the command line; and what is refused by the reference builder alone.
const ELSEWHERE: [&str; 18] = [
    "Internal: rpc error",
    "cannot copy to non-directory",
    "cannot replace to directory",
    "dockerfile parse error on line 2: unknown flag: --security",
    "failed to compute cache key",
    "failed to parse stage name \"Other\"",
    "failed to resolve source metadata for docker.io/docker/dockerfile:1",
    "illegal exclusion pattern",
    "invalid entry name",
    "linkat ",
    "lint violation found",
    "mkdir ",
    "process \"",
    "secret ",
    "syntax error in pattern",
    "unexpected EOF",
    "unknown entitlement",
    "unset ssh forward key",
];

#[test]
fn what_the_reference_builder_refuses_before_it_runs_anything_is_refused() {
    let mut accepted = Vec::new();
    let mut refused = 0;
    for case in cases(&corpus()) {
        let Ok(message) = std::fs::read_to_string(case.directory.join("expected/error.txt")) else {
            continue;
        };
        match lower(&case, &case.directory.join("Dockerfile"), &case.arguments) {
            Err(_) => refused += 1,
            Ok(_) if ELSEWHERE.iter().any(|beginning| message.starts_with(beginning)) => {}
            Ok(_) => accepted.push(format!("{}: {message}", case.name)),
        }
    }
    assert!(refused > 30, "only {refused} cases are refused");
    assert!(accepted.is_empty(), "these have a plan:\n{}", accepted.concat());
}

fn corpus() -> PathBuf {
    testkit::golden::testdata().join("../fixtures/differential")
}

/// Those that need nothing but the Dockerfile and images: no server, no context that the Dockerfile is found in, no times, and a platform
/// that is one.
fn cases(corpus: &Path) -> Vec<Case> {
    let is_alone = |case: &Case| {
        let Arguments { context, platform, times, .. } = &case.arguments;
        let is_there = |name: &str| case.directory.join(name).exists();
        let is_platform = platform.as_ref().is_none_or(|platform| platform.parse::<Platform>().is_ok());
        is_there("Dockerfile") && !is_there("site.manifest") && context.is_none() && !times && is_platform
    };
    Case::all(corpus).unwrap().into_iter().filter(is_alone).collect()
}

fn difference(expected: &Path, actual: &Value) -> Option<String> {
    let expected: Value = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
    (expected != *actual).then(|| format!("- {expected}\n+ {actual}"))
}

/// As recorded: without times, layers and history.
fn config(output: &Output) -> Value {
    let mut config = serde_json::to_value(&output.config).unwrap();
    for key in ["rootfs", "history", "created"] {
        config.as_object_mut().unwrap().remove(key);
    }
    config
}

fn history(output: &Output) -> Value {
    let inherited = output.config.history.iter().map(|entry| serde_json::to_value(entry).unwrap());
    let new = output.history.iter().map(|entry| {
        let mut line = json!({ "comment": entry.comment, "created_by": entry.created_by });
        if entry.is_empty_layer() {
            line["empty_layer"] = json!(true);
        }
        line
    });
    inherited.chain(new).collect()
}

fn lower(case: &Case, dockerfile: &Path, arguments: &Arguments) -> Result<Output, String> {
    let source = Source::new("Dockerfile", &std::fs::read(dockerfile).unwrap());
    let parsed = dockerfile::parse(&source);
    if parsed.has_errors() {
        return Err(format!("{:?}", parsed.findings));
    }
    let mut images = CaseImages { case };
    let plan = plan::lower(&parsed.file, &request(arguments), &mut images);
    plan.map(|plan| plan.output().clone()).map_err(|errors| errors.iter().map(|e| format!("{e}\n")).collect())
}

fn request(arguments: &Arguments) -> Request {
    let environment: &BTreeMap<_, _> = &arguments.environment;
    let value =
        |name: &String, given: &Option<String>| given.clone().or_else(|| environment.get(name).cloned());
    Request {
        target: arguments.target.clone(),
        build_args: arguments
            .build_args
            .iter()
            .map(|(name, given)| BuildArg { name: name.clone(), value: value(name, given) })
            .collect(),
        named_contexts: arguments.contexts.iter().map(|(name, value)| named_context(name, value)).collect(),
        labels: arguments.labels.clone().into_iter().collect(),
        extra_hosts: arguments
            .hosts
            .iter()
            .map(|(name, address)| ExtraHost { name: name.clone(), address: address.parse().unwrap() })
            .collect(),
        platform: arguments.platform.as_ref().map(|platform| platform.parse().unwrap()),
        allowed: arguments.allow.iter().filter_map(|name| entitlement(name)).collect(),
        ..Request::plain("linux/amd64".parse().unwrap())
    }
}

fn entitlement(name: &str) -> Option<Entitlement> {
    Entitlement::ALL.into_iter().find(|known| known.as_str() == name)
}

fn named_context(name: &str, value: &str) -> NamedContext {
    let schemes = ["docker-image://", "oci-layout://"];
    let image = schemes
        .iter()
        .find_map(|scheme| value.strip_prefix(scheme))
        .map(|image| Reference::parse(image).unwrap());
    NamedContext { name: name.to_owned(), kind: image.map_or(ContextKind::Directory, ContextKind::Image) }
}

/// The images that a case builds first, and imported root filesystems, which say nothing of themselves.
struct CaseImages<'c> {
    case: &'c Case,
}

impl Images for CaseImages<'_> {
    fn resolve(
        &mut self,
        reference: &Reference,
        platform: &Platform,
        _: Span,
    ) -> Result<BaseImage, ImageError> {
        let name = reference.familiar_repository();
        let dockerfile = self.case.directory.join("images").join(&name).join("Dockerfile");
        let config = if dockerfile.is_file() {
            let output = lower(self.case, &dockerfile, &Arguments::default()).unwrap();
            let history = serde_json::from_value(history(&output)).unwrap();
            Config { history, ..output.config }
        } else {
            Config::empty(platform)
        };
        Ok(BaseImage { image: ImageId::new(Digest::of(config.to_json())), config })
    }
}
