//! Which rules are reported, and how: defaults, the file's `# check=`, what stands above an instruction, and the command line.
//!
//! From the strongest to the weakest:
//!
//! 1. a `skip` right above the instruction: whoever wrote it had looked at this very place;
//! 2. [`Policy::chosen`], the command line;
//! 3. [`Policy::check`]: the file's directive, or what was given in its stead;
//! 4. who is told by default, [`Reported`].

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::ast::{Check, File};
use crate::rule::{Reported, Rule};
use crate::span::{Span, Spanned};

/// Who is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Audience {
    /// Somebody who builds.
    Building,
    /// Somebody who asked what could be better.
    Linting,
}

/// How a finding is reported.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// Not at all.
    Off,
    /// As a warning.
    Warning,
    /// As an error: the build or check fails.
    Error,
}

/// A text that names no level.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a rule is `off`, `warn` or `error`, not `{0}`")]
pub struct UnknownLevel(pub String);

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        match text {
            "off" => Ok(Self::Off),
            "warn" => Ok(Self::Warning),
            "error" => Ok(Self::Error),
            other => Err(UnknownLevel(other.to_owned())),
        }
    }
}

/// Decides for each finding.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Who is told.
    pub audience: Audience,
    /// What holds for the whole file.
    pub check: Check,
    /// What holds for single instructions, in order; a span is that of the instruction.
    pub local: Vec<Spanned<Check>>,
    /// Levels given by name.
    pub chosen: BTreeMap<Rule, Level>,
}

impl Policy {
    /// What the file itself asks for.
    pub fn of(file: &File, audience: Audience) -> Self {
        let check = file.directives.check.as_ref().map(|check| check.node.clone());
        Self {
            audience,
            check: check.unwrap_or_default(),
            local: file.checks.clone(),
            chosen: BTreeMap::new(),
        }
    }

    /// How a finding of `rule` whose place is `at` is reported.
    pub fn level(&self, rule: Rule, at: Span) -> Level {
        let local = self.local_at(at);
        let name = rule.as_str();
        if local.is_some_and(|check| check.skip.contains(name)) {
            return Level::Off;
        }
        if let Some(level) = self.chosen.get(&rule) {
            return *level;
        }
        let is_experiment = |check: &Check| check.experimental.contains(name);
        let is_on = match rule.reported() {
            Reported::Always => true,
            Reported::Linting => self.audience == Audience::Linting,
            Reported::Experimental => is_experiment(&self.check) || local.is_some_and(is_experiment),
        };
        if !is_on || self.check.skip.contains(name) {
            return Level::Off;
        }
        let is_strict = local.and_then(|check| check.error).or(self.check.error);
        if is_strict == Some(true) { Level::Error } else { Level::Warning }
    }

    fn local_at(&self, at: Span) -> Option<&Check> {
        let behind = self.local.partition_point(|check| check.span.start <= at.start);
        let nearest = self.local.get(behind.checked_sub(1)?)?;
        (at.start <= nearest.span.end).then_some(&nearest.node)
    }
}
