//! What there is to say about a Dockerfile: findings of the parser, of lowering and of a look at the context, as one list.
//!
//! `build` gathers what concerns its target and tells it before it builds; `build --check` and `lint` examine the whole file and need
//! neither images nor a store. Which findings are reported, and how, is decided here by the [`Policy`] for all of them.

mod context;
pub(crate) mod images;
pub(crate) mod offers;
pub(crate) mod show;

use std::sync::Arc;

use ::context::Context;
use dockerfile::{Audience, Check, Level, Policy, Rule, Source, Span};
use oci::Reference;
use plan::{Images, Plan, Request, Warning};

use crate::build::{Dockerfile, Input, errors};
use crate::diagnostic::{Diagnostic, Severity};
use crate::failure::Failure;

/// The build argument that stands for the `# check=` of the file.
const CHECK_ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Decides which findings are told, and as what.
#[derive(Debug)]
pub(crate) struct Judge {
    source: Arc<Source>,
    policy: Policy,
    /// Whether the policy of the whole file came with a build argument.
    is_overridden: bool,
}

impl Judge {
    /// Takes the file's own `# check=`, unless a build argument stands for it.
    pub(crate) fn new(
        dockerfile: &Dockerfile,
        request: &Request,
        audience: Audience,
    ) -> Result<Self, Failure> {
        let mut policy = Policy::of(&dockerfile.parsed.file, audience);
        let given = check_argument(request)?;
        let is_overridden = given.is_some();
        policy.check = given.unwrap_or(policy.check);
        Ok(Self { source: Arc::clone(&dockerfile.source), policy, is_overridden })
    }

    /// Adds a level from the command line.
    pub(crate) fn choose(&mut self, rule: Rule, level: Level) {
        self.policy.chosen.insert(rule, level);
    }

    fn is_linting(&self) -> bool {
        self.policy.audience == Audience::Linting
    }

    fn is_off(&self, rule: Rule, at: Span) -> bool {
        self.policy.level(rule, at) == Level::Off
    }

    /// The diagnostic at its level; `None` if it is not to be told. What breaks no rule is an error.
    fn judge(&self, rule: Option<Rule>, at: Span, mut diagnostic: Diagnostic) -> Option<Found> {
        if let Some(rule) = rule {
            match self.policy.level(rule, at) {
                Level::Off => return None,
                Level::Warning => diagnostic.severity = Severity::Warning,
                Level::Error => {
                    diagnostic.severity = Severity::Error;
                    diagnostic.notes.push(format!("{} makes this warning an error", self.cause(rule)));
                }
            }
        }
        Some(Found { rule, at, diagnostic })
    }

    /// Who made a warning of `rule` an error.
    fn cause(&self, rule: Rule) -> String {
        if self.policy.chosen.contains_key(&rule) {
            format!("`--rule {rule}=error`")
        } else if self.is_overridden && self.policy.check.error == Some(true) {
            format!("`--build-arg {CHECK_ARGUMENT}=error=true`")
        } else {
            "`# check=error=true`".to_owned()
        }
    }

    fn syntax(&self, findings: &[dockerfile::Finding]) -> Vec<Found> {
        let judged = findings.iter().filter_map(|finding| {
            let diagnostic = errors::of_finding(finding, &self.source);
            self.judge(finding.code.rule(), finding.span, diagnostic)
        });
        judged.collect()
    }

    fn warnings(&self, warnings: &[Warning]) -> Vec<Found> {
        let judged = warnings.iter().filter_map(|warning| {
            let diagnostic = errors::of_warning(warning, &self.source);
            self.judge(Some(warning.kind.rule()), warning.span, diagnostic)
        });
        judged.collect()
    }
}

/// The value of the build argument, understood.
fn check_argument(request: &Request) -> Result<Option<Check>, Failure> {
    let given = request.build_args.iter().rev().find(|arg| arg.name == CHECK_ARGUMENT);
    let Some(value) = given.and_then(|arg| arg.value.as_deref()) else { return Ok(None) };
    value.parse().map(Some).map_err(|error: dockerfile::CheckError| {
        let title = format!("`--build-arg {CHECK_ARGUMENT}={value}` cannot be understood: {error}");
        let help = "write it as `skip=RULE,…`, `error=true` or `experimental=RULE,…`, joined by `;`";
        Failure::usage(title, help)
    })
}

/// One finding.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The rule that is broken; none for what makes the file impossible to build.
    pub(crate) rule: Option<Rule>,
    /// Its place, even if the diagnostic shows none.
    at: Span,
    pub(crate) diagnostic: Diagnostic,
}

impl Found {
    pub(crate) fn span(&self) -> Span {
        self.at
    }

    /// Whether it fails a build or check.
    pub(crate) fn is_error(&self) -> bool {
        self.diagnostic.severity == Severity::Error
    }
}

/// All that was found, in the order of the file.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) source: Arc<Source>,
    pub(crate) list: Vec<Found>,
    /// Images whose contents nobody knows here.
    pub(crate) unknown_images: Vec<Reference>,
}

/// What to tell somebody whose Dockerfile cannot be read.
pub(crate) fn of_broken(dockerfile: &Dockerfile, judge: &Judge) -> Vec<Diagnostic> {
    in_order(judge.syntax(&dockerfile.parsed.findings)).into_iter().map(|found| found.diagnostic).collect()
}

/// What to tell somebody who builds, before anything is executed.
pub(crate) fn of_build(
    dockerfile: &Dockerfile,
    plan: &Plan,
    main: Option<&Context>,
    judge: &Judge,
) -> Vec<Found> {
    let mut list = judge.syntax(&dockerfile.parsed.findings);
    list.extend(judge.warnings(&plan.warnings));
    list.extend(main.into_iter().flat_map(|main| context::findings(&plan.steps, main, judge)));
    in_order(list)
}

/// Everything about the file, whatever of it would be built.
pub(crate) fn examine(
    input: &Input,
    request: &Request,
    judge: &Judge,
    images: &mut dyn Images,
) -> Result<Findings, Failure> {
    let Input { dockerfile, context: main, .. } = input;
    let parsed = &dockerfile.parsed;
    let mut list = judge.syntax(&parsed.findings);
    if judge.is_linting() {
        list.extend(judge.syntax(&dockerfile::improvements(&parsed.file)));
    }
    let mut unknown_images = Vec::new();
    // The tree of a file with errors is not complete: what it lacks would be reported as missing.
    if !parsed.has_errors() {
        let checked = plan::check(&parsed.file, request, images)
            .map_err(|error| errors::of_plan(&[*error], &dockerfile.source))?;
        list.extend(checked.errors.iter().map(|error| Found {
            rule: None,
            at: error.span,
            diagnostic: errors::of_plan_error(error, &dockerfile.source),
        }));
        list.extend(judge.warnings(&checked.warnings));
        list.extend(context::findings(&checked.steps, &main.open_briefly()?, judge));
        unknown_images = checked.unknown_images;
    }
    Ok(Findings { source: Arc::clone(&dockerfile.source), list: in_order(list), unknown_images })
}

fn in_order(mut list: Vec<Found>) -> Vec<Found> {
    list.sort_by_key(|found| found.at);
    list
}
