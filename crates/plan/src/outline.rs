//! What a Dockerfile offers to whoever builds it: its targets, and the arguments, secrets, ssh keys and caches of one of them.

use std::collections::{BTreeMap, BTreeSet};

use dockerfile::{ArgDeclaration, File, Instruction, Part, Span, Spanned, Word, parse_word};

use crate::Presence;
use crate::args;
use crate::env::Environment;

/// What the build of a target takes from outside. It needs no base image.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outline {
    /// The target's name, if it has one.
    pub name: Option<String>,
    /// The description above its FROM.
    pub description: Option<String>,
    /// The ARGs that can make a difference, in the order of the file.
    pub args: Vec<OutlineArg>,
    /// Secret mounts, each id once.
    pub secrets: Vec<OutlineMount>,
    /// Mounts of an ssh agent, each id once.
    pub ssh: Vec<OutlineMount>,
    /// Cache mounts, each id once.
    pub cache: Vec<OutlineCache>,
}

/// An ARG.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// The description above it.
    pub description: Option<String>,
    /// What it would be in this build: the build argument, else its default, expanded.
    pub value: Option<String>,
    /// Where it is declared; one that a stage takes over from before the first FROM, there.
    pub span: Span,
}

/// Something that the build mounts if it is given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OutlineMount {
    /// Its id.
    pub id: String,
    /// Whether the build fails without it.
    pub presence: Presence,
    /// The first mount.
    pub span: Span,
}

/// A cache mount.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OutlineCache {
    /// Its id.
    pub id: String,
    /// The first mount.
    pub span: Span,
}

/// A stage as something to build.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target<'f> {
    /// Its name, if it has one.
    pub name: Option<&'f str>,
    /// The description above its FROM.
    pub description: Option<&'f str>,
    /// Whether it is built when no target is named.
    pub is_default: bool,
    /// What it starts from, as written.
    pub base: &'f str,
    /// `--platform`, as written.
    pub platform: Option<&'f str>,
    /// Its FROM.
    pub span: Span,
}

/// The stages of a file, in order.
#[must_use]
pub fn targets(file: &File) -> Vec<Target<'_>> {
    let last = file.stages.len().saturating_sub(1);
    let target = |(index, stage)| target(stage, index == last);
    file.stages.iter().enumerate().map(target).collect()
}

fn target(stage: &dockerfile::Stage, is_default: bool) -> Target<'_> {
    Target {
        name: stage.name.as_ref().map(|name| name.as_str()),
        description: stage.doc.as_deref(),
        is_default,
        base: stage.image.as_str(),
        platform: stage.platform.as_ref().map(|platform| platform.as_str()),
        span: stage.span,
    }
}

/// Collects an [`Outline`] while stages are lowered.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// By name; of several declarations the last one, which is nearest to the target. [`Recorder::finish`] replaces those that only
    /// take over what stands before the first FROM.
    args: BTreeMap<String, OutlineArg>,
    secrets: Vec<OutlineMount>,
    ssh: Vec<OutlineMount>,
    cache: Vec<OutlineCache>,
}

impl Recorder {
    pub(crate) fn arg(&mut self, declaration: &ArgDeclaration, value: Option<&str>, span: Span) {
        let name = declaration.name.to_string();
        // Nobody who builds has to know of those that have a value by themselves.
        if declaration.default.is_none() && args::is_of_platform(&name) {
            return;
        }
        let arg = OutlineArg {
            name: name.clone(),
            description: declaration.doc.clone(),
            value: value.map(ToOwned::to_owned),
            span,
        };
        self.args.insert(name, arg);
    }

    pub(crate) fn secret(&mut self, id: &str, presence: Presence, span: Span) {
        record(&mut self.secrets, id, presence, span);
    }

    pub(crate) fn ssh(&mut self, id: &str, presence: Presence, span: Span) {
        record(&mut self.ssh, id, presence, span);
    }

    pub(crate) fn cache(&mut self, id: &str, span: Span) {
        if self.cache.iter().all(|known| known.id != id) {
            self.cache.push(OutlineCache { id: id.to_owned(), span });
        }
    }

    /// Adds what stands before the first FROM, as far as `stages` use it: in a FROM, or taken over by an ARG.
    pub(crate) fn finish(
        mut self,
        file: &File,
        stages: &[&dockerfile::Stage],
        globals: &Environment,
    ) -> Outline {
        let words = stages.iter().flat_map(|stage| stage.platform.iter().chain([&stage.image]));
        let mut used: BTreeSet<String> = words.flat_map(|word| variables(word, file)).collect();
        used.extend(stages.iter().flat_map(|stage| taken_over(stage)));
        for global in file.global_args.iter().rev() {
            for declaration in global.arg.declarations.iter().rev() {
                let name = declaration.name.as_str();
                if !used.contains(name) {
                    continue;
                }
                used.extend(declaration.default.iter().flat_map(|default| variables(default, file)));
                let local = self.args.get(name);
                let description = local.and_then(|local| local.description.clone());
                let arg = OutlineArg {
                    name: name.to_owned(),
                    description: declaration.doc.clone().or(description),
                    value: (declaration.default.is_some() || !args::is_of_platform(name))
                        .then(|| globals.get(name).map(ToOwned::to_owned))
                        .flatten(),
                    span: global.span,
                };
                self.args.insert(name.to_owned(), arg);
            }
        }
        let mut args: Vec<_> = self.args.into_values().collect();
        args.sort_by_key(|arg| arg.span);
        Outline {
            name: None,
            description: None,
            args,
            secrets: self.secrets,
            ssh: self.ssh,
            cache: self.cache,
        }
    }
}

/// The names of ARGs without a default, which get the value from before the first FROM.
fn taken_over(stage: &dockerfile::Stage) -> impl Iterator<Item = String> {
    let args = stage.instructions.iter().filter_map(|statement| match &statement.instruction {
        Instruction::Arg(arg) => Some(arg),
        _ => None,
    });
    let without_default = args.flat_map(|arg| &arg.declarations).filter(|arg| arg.default.is_none());
    without_default.map(|declaration| declaration.name.to_string())
}

fn record(known: &mut Vec<OutlineMount>, id: &str, presence: Presence, span: Span) {
    match known.iter_mut().find(|known| known.id == id) {
        Some(known) if presence == Presence::Required => known.presence = presence,
        Some(_) => {}
        None => known.push(OutlineMount { id: id.to_owned(), presence, span }),
    }
}

/// The variables that a word names, nested ones included.
pub(crate) fn variables(word: &Spanned<Word>, file: &File) -> Vec<String> {
    let mut names = Vec::new();
    collect(&parse_word(word.as_str(), file.escape()).unwrap_or_default(), &mut names);
    names
}

/// Recurses as deep as the word nests, which `dockerfile::MAX_DEPTH` bounds.
fn collect(parts: &[Part], names: &mut Vec<String>) {
    use dockerfile::Operator::{Alternate, Default, Replace, Require, StripPrefix, StripSuffix, Value};
    for part in parts {
        match part {
            Part::Literal(_) | Part::Escaped(_) | Part::SingleQuoted(_) => {}
            Part::DoubleQuoted(inner) => collect(inner, names),
            Part::Variable(variable) => {
                names.push(variable.name.clone());
                match &variable.operator {
                    Value => {}
                    Default(_, word) | Alternate(_, word) | Require(_, word) => collect(word, names),
                    StripPrefix(_, word) | StripSuffix(_, word) => collect(word, names),
                    Replace(_, pattern, word) => {
                        collect(pattern, names);
                        collect(word, names);
                    }
                }
            }
        }
    }
}
