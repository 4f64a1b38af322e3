//! What a name behind `--from` gives, and what to say if it gives nothing.

use std::collections::{HashMap, VecDeque};

use dockerfile::{Span, Spanned, Word};
use oci::{Platform, Reference};

use crate::finding::{ErrorKind, Fallible, Finding, PlanError};
use crate::graph::Origin;
use crate::lower::{Lowering, Purpose};
use crate::meant::nearest;
use crate::stages::{Base, Body, Named};
use crate::{
    BaseImage, ContextName, Image, ImageError, Images, RemoteContent, RemoteError, RemoteRequest, Source,
    TimeSource,
};

impl Lowering<'_> {
    /// What `--from=name` means in stage `index`, as a source of files.
    pub(crate) fn source(&mut self, name: &Spanned<Word>, index: usize) -> Fallible<Source> {
        match self.stages.resolve(name, index, &self.scope())? {
            Named::Stage(other) if other >= index => Err(Box::new(self.misplaced(index, other, name.span))),
            Named::Stage(other) => Ok(match (self.stages.get(other).body, &self.stages.get(other).base) {
                (Body::Replaced, Base::Directory(context)) => {
                    Source::Context(ContextName::Named(context.clone()))
                }
                _ => Source::Step(self.state(other).step),
            }),
            Named::Directory(context) => Ok(Source::Context(ContextName::Named(context))),
            Named::Scratch => Ok(Source::Step(self.graph.scratch(&self.target_platform, name.span))),
            Named::Image(reference) => {
                let platform = self.target_platform.clone();
                let found = self.images.find(&reference, &platform, name.span);
                let base = match found {
                    Err(error) if self.purpose == Purpose::Check => self.unknown_image(*error, &platform),
                    found => found.map_err(|error| self.explain_image(*error, name, index))?,
                };
                let title = format!("FROM {}", reference.familiar());
                let origin = Origin { platform: platform.clone(), stage: None, span: name.span, title };
                Ok(Source::Step(self.graph.image(Image { reference, platform, image: base.image }, origin)))
            }
        }
    }

    /// Why an image cannot be had may be that a stage was meant.
    pub(crate) fn explain_image(
        &self,
        error: PlanError,
        name: &Spanned<Word>,
        index: usize,
    ) -> Box<PlanError> {
        let later = self.stages.next(name.as_str(), index);
        if let Some(stage) = later.map(|later| self.stages.get(later)) {
            return Box::new(
                error.label(stage.syntax.span, "this stage has the name, but is defined after its use"),
            );
        }
        let names = self.stages.names().chain(self.contexts.names());
        match nearest(name.as_str(), names) {
            Some(meant) => Box::new(error.help(format!("did you mean the stage `{meant}`?"))),
            None => Box::new(error),
        }
    }

    /// The error of a stage that needs itself or a later one.
    fn misplaced(&self, user: usize, needed: usize, span: Span) -> PlanError {
        let label = |index: usize| self.stages.get(index).label.to_string();
        let definition = self.stages.get(needed).syntax.span;
        if let Some(path) = self.path(needed, user) {
            let chain = std::iter::once(user).chain(path).map(label).collect();
            return Finding::new(ErrorKind::Cycle(chain), span)
                .help(format!("if an image `{}` is meant, give the stage another name", label(needed)));
        }
        let kind = ErrorKind::ForwardReference { stage: label(user), needed: label(needed) };
        Finding::new(kind, span).label(definition, "defined here").help(format!(
            "move stage `{}` before stage `{}`",
            label(needed),
            label(user)
        ))
    }

    /// The stages from one to another, along what each needs; both ends included.
    fn path(&self, from: usize, to: usize) -> Option<Vec<usize>> {
        let mut reached_by: HashMap<usize, usize> = HashMap::from([(from, from)]);
        let mut waiting = VecDeque::from([from]);
        while let Some(index) = waiting.pop_front() {
            if index == to {
                let step_back = |at: &usize| reached_by.get(at).copied().filter(|before| before != at);
                let mut path: Vec<_> = std::iter::successors(Some(to), step_back).collect();
                path.reverse();
                return Some(path);
            }
            for next in self.direct_needs(index) {
                reached_by.entry(next).or_insert_with(|| {
                    waiting.push_back(next);
                    index
                });
            }
        }
        None
    }
}

fn remote_error(error: RemoteError, span: Span) -> Box<PlanError> {
    let (help, notes) = (error.help.clone(), error.notes.clone());
    Box::new(Finding { help, notes, ..Finding::new(ErrorKind::Remote { error }, span) })
}

/// Each image and platform, and each remote source, is looked up once.
pub(crate) struct ImageTable<'i> {
    images: &'i mut dyn Images,
    found: HashMap<(Reference, Platform), Result<BaseImage, ImageError>>,
    fetched: HashMap<RemoteRequest, Result<RemoteContent, RemoteError>>,
}

impl<'i> ImageTable<'i> {
    pub(crate) fn new(images: &'i mut dyn Images) -> Self {
        Self { images, found: HashMap::new(), fetched: HashMap::new() }
    }

    pub(crate) fn fetch(&mut self, request: &RemoteRequest, span: Span) -> Fallible<RemoteContent> {
        let images = &mut self.images;
        let found = self.fetched.entry(request.clone()).or_insert_with(|| images.fetch(request));
        found.clone().map_err(|error| remote_error(error, span))
    }

    pub(crate) fn time(&mut self, source: &TimeSource, span: Span) -> Fallible<Option<i64>> {
        self.images.time(source).map_err(|error| remote_error(error, span))
    }

    pub(crate) fn find(
        &mut self,
        reference: &Reference,
        platform: &Platform,
        span: Span,
    ) -> Fallible<BaseImage> {
        let key = (reference.clone(), platform.clone());
        let images = &mut self.images;
        let found = self.found.entry(key).or_insert_with(|| images.resolve(reference, platform, span));
        found.clone().map_err(|source| {
            let help = source.help.clone();
            let kind = ErrorKind::Image { reference: reference.clone(), source };
            Box::new(Finding { help, ..Finding::new(kind, span) })
        })
    }
}
