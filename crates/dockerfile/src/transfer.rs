//! `ADD` and `COPY`.

use crate::ast::{Add, Copy, CopySource, Heredoc, Word};
use crate::finding::{Code, Finding};
use crate::flags::Flags;
use crate::instruction::not_only_strings;
use crate::keyword::Keyword;
use crate::lexis::{self, Json};
use crate::mount::no_variable;
use crate::scope::Scope;
use crate::span::Spanned;

pub(crate) fn add(
    flags: &mut Flags<'_>,
    arguments: &str,
    word: &str,
    heredocs: Vec<Heredoc>,
    scope: &mut Scope<'_>,
) -> Option<Add> {
    let chown = flags.word("chown", scope);
    let chmod = flags.word("chmod", scope);
    let link = flags.switch("link", scope);
    let exclude = flags.plain_words("exclude", scope);
    let checksum = flags.word("checksum", scope);
    let keep_git_dir = flags.switch("keep-git-dir", scope);
    let unpack = flags.switch("unpack", scope);
    let (sources, destination) = paths(Keyword::Add, arguments, word, heredocs, scope)?;
    Some(Add { chown, chmod, link, exclude, checksum, keep_git_dir, unpack, sources, destination })
}

pub(crate) fn copy(
    flags: &mut Flags<'_>,
    arguments: &str,
    word: &str,
    heredocs: Vec<Heredoc>,
    scope: &mut Scope<'_>,
) -> Option<Copy> {
    let from = flags.value("from", scope).filter(|value| !value.text.is_empty());
    let from = from.map(|value| no_variable(&value.text, value.span, scope));
    let chown = flags.word("chown", scope);
    let chmod = flags.word("chmod", scope);
    let link = flags.switch("link", scope);
    let parents = flags.switch("parents", scope);
    let exclude = flags.plain_words("exclude", scope);
    let (sources, destination) = paths(Keyword::Copy, arguments, word, heredocs, scope)?;
    Some(Copy { from, chown, chmod, link, parents, exclude, sources, destination })
}

/// Sources and destination: a JSON array, or words between blanks without quotes.
fn paths(
    keyword: Keyword,
    arguments: &str,
    word: &str,
    heredocs: Vec<Heredoc>,
    scope: &mut Scope<'_>,
) -> Option<(Vec<CopySource>, Spanned<Word>)> {
    let mut sources = match lexis::json(arguments) {
        Json::Strings(strings) => json_sources(strings, scope),
        Json::No => listed_sources(arguments, heredocs, scope),
        Json::Others => {
            not_only_strings(arguments, scope);
            return None;
        }
    };
    if sources.len() < 2 {
        let at = if arguments.is_empty() { word } else { arguments };
        scope.missing(keyword, at, "a source and a destination");
        return None;
    }
    match sources.pop()? {
        CopySource::Path(destination) => Some((sources, destination)),
        CopySource::Heredoc(heredoc) => {
            let message = format!("a heredoc cannot be the destination of `{keyword}`");
            let finding = Finding::new(Code::MisplacedHeredoc, heredoc.marker, message);
            scope.report(finding.with_help(format!("write `{keyword} <<{} /path`", heredoc.name)));
            None
        }
    }
}

fn json_sources(strings: Vec<(String, &str)>, scope: &mut Scope<'_>) -> Vec<CopySource> {
    let path = |(text, raw)| {
        let span = scope.span(raw);
        CopySource::Path(scope.decoded_word(text, span))
    };
    strings.into_iter().map(path).collect()
}

/// The words between blanks, each that is a heredoc's marker replaced by that heredoc. A marker may hold blanks itself (`<< EOF`).
fn listed_sources(arguments: &str, heredocs: Vec<Heredoc>, scope: &mut Scope<'_>) -> Vec<CopySource> {
    let mut heredocs = heredocs.into_iter().peekable();
    let mut sources = Vec::new();
    let mut covered = 0;
    for word in lexis::list(arguments) {
        let span = scope.span(word);
        if span.start < covered {
            continue;
        }
        // Markers among the flags are no sources.
        while heredocs.next_if(|heredoc| heredoc.marker.start < span.start).is_some() {}
        match heredocs.next_if(|heredoc| heredoc.marker.start == span.start) {
            Some(heredoc) => {
                covered = heredoc.marker.end;
                sources.push(CopySource::Heredoc(heredoc));
            }
            None => sources.push(CopySource::Path(scope.word(word))),
        }
    }
    sources
}
