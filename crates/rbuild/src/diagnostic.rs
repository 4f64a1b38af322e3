//! What a person is told when something is wrong: code, place, cause, way out.

use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Element, Group, Level, Renderer, Snippet};
use dockerfile::{Source, Span};

use crate::terminal::{visible, visible_in_place};

/// Lines of a place that are shown; of a longer one only the first line.
const SHOWN_LINES: u32 = 12;

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
    /// Stable and greppable: `run-failed`. Lint rules have BuildKit's names.
    pub(crate) code: &'static str,
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
    pub(crate) fn error(code: &'static str, title: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            title: title.into(),
            source: None,
            labels: Vec::new(),
            notes: Vec::new(),
            help: None,
        }
    }

    pub(crate) fn warning(code: &'static str, title: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, title) }
    }

    /// An error told by a library error: its own message, and those of its sources as notes.
    pub(crate) fn from_error(code: &'static str, error: &dyn std::error::Error) -> Self {
        let mut diagnostic = Self::error(code, error.to_string());
        let causes = std::iter::successors(error.source(), |error| error.source());
        diagnostic.notes.extend(causes.map(ToString::to_string));
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

    /// As text, the way rustc does it. Whatever came from outside has no control characters in it.
    pub(crate) fn render(&self, colour: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = visible(&self.title);
        let notes: Vec<_> = self.notes.iter().map(|note| visible(note)).collect();
        let help = self.help.as_deref().map(visible);
        let mut group =
            level.primary_title(title.as_ref()).id(self.code).elements(std::iter::empty::<Element<'_>>());
        group = self.with_excerpt(group);
        for note in &notes {
            group = group.element(Level::NOTE.message(note.as_ref()));
        }
        if let Some(help) = &help {
            group = group.element(Level::HELP.message(help.as_ref()));
        }
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }

    fn with_excerpt<'d>(&'d self, group: Group<'d>) -> Group<'d> {
        let Some(source) = self.source.as_ref().filter(|_| !self.labels.is_empty()) else { return group };
        let shown = shown_lines(source, &self.labels);
        let first = source.position(shown.start).line as usize;
        let mut snippet = Snippet::source(visible_in_place(source.slice(shown)))
            .line_start(first)
            .path(visible(source.name()));
        for (number, (span, text)) in self.labels.iter().enumerate() {
            let kind = if number == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            let part = shown_part(source, *span);
            let annotation = kind.span(Span::new(part.start - shown.start, part.end - shown.start).range());
            let text = visible(text);
            snippet = snippet.annotation(if text.is_empty() { annotation } else { annotation.label(text) });
        }
        group.element(snippet)
    }
}

/// The lines from the first label to the last: of a long file with many errors, each is drawn without a look at the rest.
fn shown_lines(source: &Source, labels: &[(Span, String)]) -> Span {
    let start = labels.iter().map(|(span, _)| span.start).min().unwrap_or_default();
    let end = labels.iter().map(|(span, _)| shown_part(source, *span).end).max().unwrap_or_default();
    let first = source.line(source.position(start).line).unwrap_or_default().start;
    let behind = source.line(source.position(end).line + 1);
    let text_end = || u32::try_from(source.text().len()).unwrap_or(u32::MAX);
    Span::new(first, behind.map_or_else(text_end, |line| line.start))
}

/// The part of a place that is drawn: all of it if it is short, else its first line. Line ends at its end are left out.
fn shown_part(source: &Source, span: Span) -> Span {
    let text = source.slice(span);
    let lines = source.position(span.end).line.saturating_sub(source.position(span.start).line);
    let text = if lines < SHOWN_LINES { text } else { text.lines().next().unwrap_or_default() };
    let length = u32::try_from(text.trim_end().len()).unwrap_or(u32::MAX);
    Span::new(span.start, span.start.saturating_add(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn source(text: &str) -> Arc<Source> {
        Arc::new(Source::new("Dockerfile", text.as_bytes()))
    }

    #[test]
    fn a_place_of_many_lines_shows_its_first() {
        let text = format!("FROM a\nRUN <<E\n{}E\n", "echo\n".repeat(300));
        let end = u32::try_from(text.len()).unwrap();
        let shown = Diagnostic::error("x", "y").at(&source(&text), Span::new(7, end), "here").render(false);
        expect![[r#"
            error[x]: y
             --> Dockerfile:2:1
              |
            2 | RUN <<E
              | ^^^^^^^ here"#]]
        .assert_eq(&shown);
    }

    #[test]
    fn only_the_lines_between_the_labels_are_looked_at() {
        let text = "FROM a\nRUN b\n\nRUN c\nRUN d\nRUN e";
        let shown = |labels: &[(u32, u32)]| {
            let labels: Vec<_> =
                labels.iter().map(|(start, end)| (Span::new(*start, *end), String::new())).collect();
            let source = source(text);
            source.slice(shown_lines(&source, &labels)).to_owned()
        };
        assert_eq!(shown(&[(7, 10)]), "RUN b\n");
        assert_eq!(shown(&[(15, 18), (7, 10)]), "RUN b\n\nRUN c\n");
        assert_eq!(shown(&[(13, 13)]), "\n");
        assert_eq!(shown(&[(27, 32)]), "RUN e");
        assert_eq!(shown(&[(32, 32)]), "RUN e");
    }

    #[test]
    fn nothing_from_outside_reaches_the_terminal_raw() {
        let evil = "\u{1b}]0;evil\u{7}\u{9b}2J";
        let source = source(&format!("FROM {evil}\n"));
        let diagnostic =
            Diagnostic::error("x", evil).at(&source, Span::new(0, 4), evil).note(evil).help(evil);
        let shown = diagnostic.render(false);
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    }

    #[test]
    fn colours_come_only_when_they_are_asked_for() {
        let diagnostic = Diagnostic::error("x", "y").note("z");
        assert!(!diagnostic.render(false).contains('\u{1b}'));
        assert!(diagnostic.render(true).contains('\u{1b}'));
    }
}
