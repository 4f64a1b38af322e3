//! ONBUILD: instructions that run at the beginning of whatever is built upon an image or stage.

use std::borrow::Cow;

use dockerfile::{Escape, Instruction, Severity, Source, Span};

use crate::finding::{ErrorKind, Fallible, Finding};

/// An instruction that a base hands down.
#[derive(Clone, Debug)]
pub(crate) struct Trigger<'f> {
    pub(crate) instruction: Cow<'f, Instruction>,
    /// Its first line.
    pub(crate) text: String,
    pub(crate) origin: TriggerOrigin,
}

/// Where a trigger was written.
#[derive(Clone, Debug)]
pub(crate) enum TriggerOrigin {
    /// In a stage of the same file, at this place.
    Stage(Span),
    /// In the Dockerfile of this image, which we do not have.
    Image(String),
}

impl<'f> Trigger<'f> {
    /// The triggers that a stage of the file hands down.
    pub(crate) fn of_stage(stage: &'f dockerfile::Stage) -> Vec<Self> {
        let trigger = |statement: &'f dockerfile::Statement| match &statement.instruction {
            Instruction::Onbuild(onbuild) => Some(Self {
                instruction: Cow::Borrowed(&onbuild.instruction.node),
                text: first_line(&onbuild.trigger),
                origin: TriggerOrigin::Stage(statement.span),
            }),
            _ => None,
        };
        stage.instructions.iter().filter_map(trigger).collect()
    }

    /// Parses a trigger of an image's config. `span` is the FROM that names the image.
    pub(crate) fn of_image(text: &str, image: &str, span: Span) -> Fallible<Self> {
        // A Dockerfile of its own, so that a trigger means the same as the line it was written in.
        let source = Source::new("trigger", format!("FROM scratch\n{text}\n").as_bytes());
        let parsed = dockerfile::parse(&source);
        let wrong = |message: &str| {
            let kind = ErrorKind::Trigger { trigger: first_line(text), message: message.to_owned() };
            Box::new(Finding::new(kind, span).note(format!("the trigger is part of image `{image}`")))
        };
        if let Some(finding) = parsed.findings.iter().find(|finding| finding.severity == Severity::Error) {
            return Err(wrong(&finding.message));
        }
        let mut statements = parsed.file.stages.into_iter().flat_map(|stage| stage.instructions);
        let (Some(statement), None) = (statements.next(), statements.next()) else {
            return Err(wrong("it is not exactly one instruction"));
        };
        Ok(Self {
            instruction: Cow::Owned(statement.instruction),
            text: statement.text,
            origin: TriggerOrigin::Image(image.to_owned()),
        })
    }

    /// The escape character it was written with. Images keep triggers without the directives of their files, so for those it is the
    /// backslash.
    pub(crate) fn escape(&self, file: Escape) -> Escape {
        match self.origin {
            TriggerOrigin::Stage(_) => file,
            TriggerOrigin::Image(_) => Escape::Backslash,
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
