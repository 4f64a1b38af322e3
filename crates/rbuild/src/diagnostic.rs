//! What a person is told when something is wrong: code, place, cause, way out.

use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use dockerfile::{Source, Span};

/// How bad it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Severity {
    Error,
    Warning,
}

/// One thing to tell.
#[derive(Clone, Debug)]
pub(crate) struct Diagnostic {
    pub(crate) severity: Severity,
    /// Stable and greppable: `run-failed`.
    pub(crate) code: String,
    /// One line, names in backticks.
    pub(crate) title: String,
    /// The file that the labels point into.
    pub(crate) source: Option<Arc<Source>>,
    /// The first is the primary one.
    pub(crate) labels: Vec<(Span, String)>,
    pub(crate) notes: Vec<String>,
    pub(crate) help: Option<String>,
}

impl Diagnostic {
    /// An error without a place in a file.
    pub(crate) fn error(code: &str, title: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code: code.to_owned(),
            title: title.into(),
            source: None,
            labels: Vec::new(),
            notes: Vec::new(),
            help: None,
        }
    }

    /// An error told by a library error: its own message, and those of its sources as notes.
    pub(crate) fn from_error(code: &str, error: &dyn std::error::Error) -> Self {
        let mut diagnostic = Self::error(code, error.to_string());
        let mut source = error.source();
        while let Some(error) = source {
            diagnostic.notes.push(error.to_string());
            source = error.source();
        }
        diagnostic
    }

    #[must_use]
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub(crate) fn at(mut self, source: &Arc<Source>, span: Span, text: impl Into<String>) -> Self {
        self.source = Some(Arc::clone(source));
        self.labels.push((span, text.into()));
        self
    }

    /// As text, the way rustc does it.
    pub(crate) fn render(&self, colour: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = level
            .primary_title(self.title.as_str())
            .id(self.code.as_str())
            .elements(std::iter::empty::<annotate_snippets::Element<'_>>());
        if let (Some(source), false) = (&self.source, self.labels.is_empty()) {
            let mut snippet = Snippet::source(source.text()).path(source.name());
            for (number, (span, text)) in self.labels.iter().enumerate() {
                let kind = if number == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
                let annotation = kind.span(span.range());
                snippet = snippet.annotation(if text.is_empty() {
                    annotation
                } else {
                    annotation.label(text.as_str())
                });
            }
            group = group.element(snippet);
        }
        for note in &self.notes {
            group = group.element(Level::NOTE.message(note.as_str()));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}
