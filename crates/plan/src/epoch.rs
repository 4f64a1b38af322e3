//! `SOURCE_DATE_EPOCH`: the time that what this build makes is given (<https://reproducible-builds.org/specs/source-date-epoch/>).
//!
//! A number is meant as it is. Other words name what the time is taken of: `context`, a named context, or a stage that fetches one thing and
//! does nothing else. Only `--build-arg` and an ARG before the first FROM say it; an ARG in a stage reads it.

use dockerfile::{CopySource, Escape, Instruction, Span};

use crate::args::BuildArgs;
use crate::contexts::NamedContexts;
use crate::copy::{RemoteKind, file_checksum};
use crate::env::Environment;
use crate::finding::{ErrorKind, Fallible, Finding};
use crate::lower::{Purpose, declare_globals};
use crate::request::{RemoteRequest, TimeSource};
use crate::source::ImageTable;
use crate::stages::{Base, Stage, Stages};
use crate::{ContextKind, ContextName, GitDir, VariableOrigin, expand};

/// The variable.
pub(crate) const NAME: &str = "SOURCE_DATE_EPOCH";

/// The last second of the year 9999, up to which times can be written down (RFC 3339).
const LAST: i64 = 253_402_300_799;

/// Where a file says it, if it does.
pub(crate) fn span(file: &dockerfile::File) -> Span {
    let mut declared = file.global_args.iter().flat_map(|global| &global.arg.declarations);
    let declaration = declared.find(|declaration| declaration.name.as_str() == NAME);
    declaration.map(|declaration| declaration.name.span).unwrap_or_default()
}

/// What the time depends on.
pub(crate) struct Scope<'s, 'f> {
    pub(crate) purpose: Purpose,
    pub(crate) stages: &'s Stages<'f>,
    pub(crate) contexts: &'s NamedContexts,
    pub(crate) escape: Escape,
    /// Where a value that is wrong is shown.
    pub(crate) span: Span,
}

/// The time in seconds since 1970, if the build has one. From here on the variable is that number, or is not set.
pub(crate) fn resolve(
    scope: &Scope<'_, '_>,
    images: &mut ImageTable<'_>,
    args: &mut BuildArgs,
    globals: &mut Environment,
) -> Fallible<Option<i64>> {
    let written = args.get(NAME).or_else(|| globals.get(NAME)).unwrap_or_default().to_owned();
    if let Ok(number) = written.parse::<i64>() {
        let is_time = (0..=LAST).contains(&number);
        return if is_time { Ok(Some(number)) } else { Err(invalid(written, scope.span)) };
    }
    if written.is_empty() {
        return Ok(None);
    }
    let source = scope.source(&written, args, globals)?;
    // Nothing is fetched to be looked at.
    let time = match (source, scope.purpose) {
        (Some(source), Purpose::Build) => images.time(&source, scope.span)?,
        _ => None,
    };
    args.replace(NAME, time.map(|time| time.to_string()));
    match time {
        Some(time) => globals.set(NAME, time.to_string(), VariableOrigin::Arg),
        None => globals.remove(NAME),
    }
    Ok(time)
}

impl Scope<'_, '_> {
    /// What a word stands for; `None` for an image, which has no such time.
    fn source(&self, written: &str, args: &BuildArgs, globals: &Environment) -> Fallible<Option<TimeSource>> {
        if written == "context" {
            return Ok(Some(TimeSource::Context(ContextName::Main)));
        }
        if let Some(context) = self.contexts.of_name(written) {
            return Ok(match context.kind {
                ContextKind::Directory => Some(TimeSource::Context(ContextName::Named(context.name.clone()))),
                ContextKind::Image(_) => None,
            });
        }
        match self.stages.of_name(&written.to_lowercase()) {
            [index, ..] => {
                let request = self.fetched_by(self.stages.get(*index), args, globals)?;
                Ok(Some(TimeSource::Remote(request)))
            }
            [] => Err(invalid(written.to_owned(), self.span)),
        }
    }

    /// The only thing that a stage fetches.
    fn fetched_by(
        &self,
        stage: &Stage<'_>,
        args: &BuildArgs,
        globals: &Environment,
    ) -> Fallible<RemoteRequest> {
        let not_one = |span: Span| {
            let error = Finding::new(ErrorKind::EpochStage(stage.label.to_string()), span);
            Box::new(error.help("let it be `FROM scratch`, ARGs, and one ADD of a URL or a repository"))
        };
        if !matches!(stage.base, Base::Scratch) {
            return Err(not_one(stage.syntax.image.span));
        }
        let mut env = globals.clone();
        env.remove(NAME);
        let mut request = None;
        for statement in &stage.syntax.instructions {
            match &statement.instruction {
                Instruction::Arg(arg) => declare_globals(arg, self.escape, args, &mut env)?,
                Instruction::Add(add) if request.is_none() => {
                    request = Some(self.of_add(add, &env)?.ok_or_else(|| not_one(statement.span))?);
                }
                _ => return Err(not_one(statement.span)),
            }
        }
        request.ok_or_else(|| not_one(stage.syntax.span))
    }

    fn of_add(&self, add: &dockerfile::Add, env: &Environment) -> Fallible<Option<RemoteRequest>> {
        let [CopySource::Path(word)] = &add.sources[..] else { return Ok(None) };
        let expanded = |word: &dockerfile::Spanned<dockerfile::Word>| {
            let expanded = expand::word(word.as_str(), self.escape, env);
            expanded.map_err(|error| Box::new(Finding::new(ErrorKind::Expand(error), word.span)))
        };
        let url = expanded(word)?.value;
        let checksum = match &add.checksum {
            Some(word) => Some(dockerfile::Spanned::new(expanded(word)?.value, word.span)),
            None => None,
        };
        Ok(match RemoteKind::of(&url) {
            Some(RemoteKind::File) => Some(RemoteRequest::File { url, checksum: file_checksum(checksum)? }),
            Some(RemoteKind::Repository) => {
                let checksum = checksum.map(|checksum| checksum.node);
                Some(RemoteRequest::Repository { url, checksum, git_dir: GitDir::Dropped })
            }
            None => None,
        })
    }
}

fn invalid(written: String, span: Span) -> Box<Finding<ErrorKind>> {
    let error = Finding::new(ErrorKind::Epoch(written), span);
    Box::new(error.help("write seconds since 1970, `context`, or the name of a context or stage"))
}
