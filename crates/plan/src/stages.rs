//! The stages of a file: what each starts from, and what a name behind `FROM` or `--from` means.
//!
//! Names are compared without regard to case. A name means the latest earlier stage that has it; so the name of the image in
//! `FROM alpine AS alpine` is the image, and afterwards the stage.

use std::collections::HashMap;

use dockerfile::{Escape, GlobalArg, Span, Spanned, Word};
use oci::{Platform, Reference};

use crate::contexts::NamedContexts;
use crate::env::Environment;
use crate::expand;
use crate::finding::{ErrorKind, Fallible, Finding, PlanError, Warning, WarningKind};
use crate::meant::nearest;
use crate::{NamedContext, StageLabel, lint};

/// The word for a filesystem without layers.
pub(crate) const SCRATCH: &str = "scratch";

/// A stage as far as its FROM tells.
#[derive(Debug)]
pub(crate) struct Stage<'f> {
    pub(crate) syntax: &'f dockerfile::Stage,
    pub(crate) label: StageLabel,
    pub(crate) base: Base,
    pub(crate) body: Body,
    /// `--platform`, expanded.
    pub(crate) platform: Option<Platform>,
}

/// What a stage starts from.
#[derive(Clone, Debug)]
pub(crate) enum Base {
    Scratch,
    Stage(usize),
    /// A named context that is a directory.
    Directory(String),
    Image(Reference),
    /// An error was reported.
    Broken,
}

/// Which instructions a stage has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Body {
    Own,
    /// None: a named context took the stage's place.
    Replaced,
}

/// What a name behind `--from` means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Named {
    /// Perhaps not an earlier one.
    Stage(usize),
    Directory(String),
    Scratch,
    Image(Reference),
}

/// What the FROMs of a file are read with.
pub(crate) struct FromScope<'s> {
    pub(crate) globals: &'s Environment,
    pub(crate) contexts: &'s NamedContexts,
    pub(crate) target_platform: &'s Platform,
    pub(crate) escape: Escape,
    /// The ARGs before the first FROM, also those without a value.
    pub(crate) declared: &'s [GlobalArg],
    /// What the first FROM is instead of what it says.
    pub(crate) first_base: Option<&'s Reference>,
}

impl FromScope<'_> {
    fn declares(&self, name: &str) -> bool {
        let mut declarations = self.declared.iter().flat_map(|global| &global.arg.declarations);
        declarations.any(|declaration| declaration.name.as_str() == name)
    }
}

/// All stages, in order.
#[derive(Debug)]
pub(crate) struct Stages<'f> {
    list: Vec<Stage<'f>>,
    /// The stages of each name, in order.
    by_name: HashMap<String, Vec<usize>>,
}

impl<'f> Stages<'f> {
    /// Reads all FROMs. A stage whose FROM is wrong gets [`Base::Broken`] and a finding.
    pub(crate) fn read(
        file: &'f dockerfile::File,
        scope: &FromScope<'_>,
        errors: &mut Vec<PlanError>,
        warnings: &mut Vec<Warning>,
    ) -> Self {
        let mut stages = Self { list: Vec::with_capacity(file.stages.len()), by_name: HashMap::new() };
        for syntax in &file.stages {
            let stage = stages.read_one(syntax, scope, warnings).unwrap_or_else(|error| {
                errors.push(*error);
                stages.broken(syntax)
            });
            stages.push(stage);
        }
        stages
    }

    fn push(&mut self, stage: Stage<'f>) {
        if let Some(name) = &stage.label.name {
            self.by_name.entry(name.clone()).or_default().push(self.list.len());
        }
        self.list.push(stage);
    }

    pub(crate) fn get(&self, index: usize) -> &Stage<'f> {
        &self.list[index]
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Names of all stages, for suggestions.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().filter_map(|stage| stage.label.name.as_deref())
    }

    /// The stage that `--target` names; without it the last one.
    pub(crate) fn target(&self, target: Option<&str>) -> Fallible<usize> {
        let Some(last) = self.list.len().checked_sub(1) else {
            return Err(Finding::new(ErrorKind::NoStage, Span::default())
                .help("begin with `FROM image`")
                .into());
        };
        let Some(name) = target.filter(|name| !name.is_empty()) else { return Ok(last) };
        let by_name = self.latest(name, self.list.len());
        let by_index = || name.parse::<usize>().ok().filter(|index| *index <= last);
        by_name.or_else(by_index).ok_or_else(|| self.unknown_target(name).into())
    }

    /// What a name behind `--from` means in stage `user`.
    pub(crate) fn resolve(
        &self,
        name: &Spanned<Word>,
        user: usize,
        scope: &FromScope<'_>,
    ) -> Fallible<Named> {
        let text = name.as_str();
        if let Some(index) = index_of(text) {
            return self.by_index(index, name.span);
        }
        // A later stage of that name is an error for the caller to report, not an image.
        let later = || self.of_name(text).first().copied();
        if let Some(stage) = self.latest(text, user).or_else(later) {
            return Ok(Named::Stage(stage));
        }
        match scope.contexts.find(text, scope.target_platform) {
            Some(context) => Ok(named_by(context)),
            None if text == SCRATCH => Ok(Named::Scratch),
            None => self.image_reference(text, name.span).map(Named::Image),
        }
    }

    fn read_one(
        &self,
        syntax: &'f dockerfile::Stage,
        scope: &FromScope<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Fallible<Stage<'f>> {
        let label = self.next_label(syntax);
        let image = expand_global(&syntax.image, scope, warnings)?;
        let platform =
            syntax.platform.as_ref().map(|word| read_platform(word, scope, warnings)).transpose()?;
        if let (Some(word), Some(platform)) = (&syntax.platform, &platform) {
            warnings.extend(lint::platform_flag(word, platform, syntax.name.as_ref(), scope.escape));
        }
        let wanted = platform.as_ref().unwrap_or(scope.target_platform);
        let replacement = label.name.as_ref().and_then(|name| scope.contexts.find(name, wanted));
        if let Some(context) = replacement {
            return Ok(Stage { syntax, label, base: base_of(context), body: Body::Replaced, platform });
        }
        let base = self.base(&image, &syntax.image, wanted, scope)?;
        Ok(Stage { syntax, label, base, body: Body::Own, platform })
    }

    fn base(
        &self,
        image: &str,
        word: &Spanned<Word>,
        platform: &Platform,
        scope: &FromScope<'_>,
    ) -> Fallible<Base> {
        if let Some(reference) = scope.first_base.filter(|_| self.list.is_empty()) {
            let is_scratch = reference.familiar_repository() == SCRATCH;
            return Ok(if is_scratch { Base::Scratch } else { Base::Image(reference.clone()) });
        }
        if image.is_empty() {
            let error = Finding::new(ErrorKind::EmptyImage(word.to_string()), word.span);
            return Err(error
                .help("declare the variable with `ARG NAME=default` before the first FROM")
                .into());
        }
        if let Some(stage) = self.latest(image, self.list.len()) {
            return Ok(Base::Stage(stage));
        }
        if image == SCRATCH {
            return Ok(Base::Scratch);
        }
        if let Some(context) = scope.contexts.find(image, platform) {
            return Ok(base_of(context));
        }
        self.image_reference(image, word.span).map(Base::Image)
    }

    fn image_reference(&self, name: &str, span: Span) -> Fallible<Reference> {
        Reference::parse(name).map_err(|source| {
            let error = Finding::new(ErrorKind::Reference { name: name.to_owned(), source }, span);
            Box::new(error.meant(nearest(name, self.names().chain([SCRATCH])), |meant| format!("`{meant}`")))
        })
    }

    fn broken(&self, syntax: &'f dockerfile::Stage) -> Stage<'f> {
        Stage { syntax, label: self.next_label(syntax), base: Base::Broken, body: Body::Own, platform: None }
    }

    fn next_label(&self, syntax: &dockerfile::Stage) -> StageLabel {
        let name = syntax.name.as_ref().map(|name| name.as_str().to_owned());
        StageLabel { index: self.list.len(), name }
    }

    /// The last of the first `before` stages that has the name.
    fn latest(&self, name: &str, before: usize) -> Option<usize> {
        let named = self.of_name(name);
        named[..named.partition_point(|index| *index < before)].last().copied()
    }

    /// The first stage of the name behind stage `index`.
    pub(crate) fn next(&self, name: &str, index: usize) -> Option<usize> {
        let named = self.of_name(name);
        named.get(named.partition_point(|other| *other <= index)).copied()
    }

    /// All stages of a name, in order.
    pub(crate) fn of_name(&self, name: &str) -> &[usize] {
        self.by_name.get(&name.to_lowercase()).map_or(&[], Vec::as_slice)
    }

    fn by_index(&self, index: u64, span: Span) -> Fallible<Named> {
        let found = usize::try_from(index).ok().filter(|index| *index < self.list.len());
        found.map(Named::Stage).ok_or_else(|| {
            let count = self.list.len();
            Finding::new(ErrorKind::StageIndex { index, count }, span)
                .help("name the stage with `FROM … AS name`")
                .into()
        })
    }

    fn unknown_target(&self, name: &str) -> PlanError {
        let span = self.list.last().map(|stage| stage.syntax.span).unwrap_or_default();
        let names: Vec<_> = self.names().map(|name| format!("`{name}`")).collect();
        let error = Finding::new(ErrorKind::UnknownTarget(name.to_owned()), span);
        let error = match names.as_slice() {
            [] => error.note(format!("the file has {} without a name", count_of_stages(self.list.len()))),
            _ => error.note(format!("the file has {}", names.join(", "))),
        };
        error.meant(nearest(name, self.names()), |meant| format!("`{meant}`"))
    }
}

fn count_of_stages(count: usize) -> String {
    if count == 1 { "one stage".to_owned() } else { format!("{count} stages") }
}

fn index_of(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn base_of(context: &NamedContext) -> Base {
    context.image().map_or_else(|| Base::Directory(context.name.clone()), |image| Base::Image(image.clone()))
}

fn named_by(context: &NamedContext) -> Named {
    context
        .image()
        .map_or_else(|| Named::Directory(context.name.clone()), |image| Named::Image(image.clone()))
}

fn read_platform(
    word: &Spanned<Word>,
    scope: &FromScope<'_>,
    warnings: &mut Vec<Warning>,
) -> Fallible<Platform> {
    let text = expand_global(word, scope, warnings)?;
    if text.is_empty() {
        return Err(Finding::new(ErrorKind::EmptyPlatform(word.to_string()), word.span)
            .help("declare the variable with `ARG NAME=default` before the first FROM")
            .into());
    }
    text.parse().map_err(|error| Finding::new(ErrorKind::Platform(error), word.span).into())
}

/// Expands a word of FROM, which sees global arguments only.
fn expand_global(
    word: &Spanned<Word>,
    scope: &FromScope<'_>,
    warnings: &mut Vec<Warning>,
) -> Fallible<String> {
    let expanded = expand::word(word.as_str(), scope.escape, scope.globals)
        .map_err(|error| Finding::new(ErrorKind::Expand(error), word.span))?;
    let missing = expanded.missing.into_iter().filter(|(name, _)| !scope.declares(name));
    for (name, range) in missing {
        let span = expand::place(word, &range);
        let meant = nearest(&name, scope.globals.names());
        let warning = Finding::new(WarningKind::UndefinedArgInFrom(name.clone()), span);
        warnings.push(warning.meant(meant, |meant| format!("`${meant}`")));
    }
    Ok(expanded.value)
}
