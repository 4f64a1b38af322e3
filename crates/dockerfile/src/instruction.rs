//! One logical line to one [`Instruction`].
//!
//! [`parse`] dispatches on the keyword; commands are in `command`, `ADD` and `COPY` in `transfer`, the others here. Each parser
//! reports what is wrong and gives `None` only if nothing meaningful is left.

use crate::ast::{
    Arg, ArgDeclaration, Env, Expose, Heredoc, Instruction, KeyValue, KeyValueForm, Label, Maintainer,
    Onbuild, StopSignal, User, Volume, Word, Workdir,
};
use crate::command;
use crate::finding::{Code, Finding};
use crate::flags::Flags;
use crate::keyword::Keyword;
use crate::lexis::{self, Json, RawFlag};
use crate::scope::Scope;
use crate::span::Spanned;
use crate::transfer;
use suggest::nearest;

/// A line's keyword, flags and arguments, not yet understood.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    /// The first word as it stands.
    pub word: &'a str,
    /// The instruction it names.
    pub keyword: Option<Keyword>,
    /// Everything behind the first word.
    pub rest: &'a str,
    /// The flags before the arguments.
    pub flags: Vec<RawFlag<'a>>,
    /// The arguments, blanks at both ends trimmed.
    pub arguments: &'a str,
}

impl<'a> Head<'a> {
    pub(crate) fn of(line: &'a str, escape: char) -> Self {
        let (word, rest) = lexis::keyword(line);
        let (flags, arguments) = lexis::flags(rest, escape);
        Self { word, keyword: Keyword::from_text(word), rest, flags, arguments }
    }

    /// Whether heredoc markers in this line mean heredocs. An `ONBUILD` asks the instruction it holds; in JSON they are text.
    pub(crate) fn takes_heredocs(&self, escape: char) -> bool {
        match self.keyword {
            Some(Keyword::Onbuild) => Head::of(self.rest, escape).holds_heredocs(),
            _ => self.holds_heredocs(),
        }
    }

    fn holds_heredocs(&self) -> bool {
        self.keyword.is_some_and(Keyword::takes_heredocs) && matches!(lexis::json(self.arguments), Json::No)
    }
}

/// Understands a line whose heredocs have been read.
pub(crate) fn parse(
    head: Head<'_>,
    keyword: Keyword,
    heredocs: Vec<Heredoc>,
    scope: &mut Scope<'_>,
) -> Option<Instruction> {
    let mut flags = Flags::new(keyword, head.flags, scope)?;
    let arguments = head.arguments;
    let instruction = match keyword {
        Keyword::Add => {
            transfer::add(&mut flags, arguments, head.word, heredocs, scope).map(Instruction::Add)
        }
        Keyword::Copy => {
            transfer::copy(&mut flags, arguments, head.word, heredocs, scope).map(Instruction::Copy)
        }
        Keyword::Run => command::run(&mut flags, arguments, heredocs, scope).map(Instruction::Run),
        Keyword::Cmd => command::cmd(arguments, scope).map(Instruction::Cmd),
        Keyword::Entrypoint => command::entrypoint(arguments, scope).map(Instruction::Entrypoint),
        Keyword::Healthcheck => {
            command::healthcheck(&mut flags, arguments, head.word, scope).map(Instruction::Healthcheck)
        }
        Keyword::Shell => command::shell(arguments, head.word, scope).map(Instruction::Shell),
        Keyword::Onbuild => onbuild(arguments, head.word, heredocs, scope).map(Instruction::Onbuild),
        Keyword::From => None,
        _ => metadata(keyword, arguments, head.word, scope),
    };
    flags.finish(scope);
    instruction
}

/// The instructions that only change the image's config.
fn metadata(keyword: Keyword, arguments: &str, word: &str, scope: &mut Scope<'_>) -> Option<Instruction> {
    if arguments.is_empty() {
        scope.missing(keyword, word, "an argument");
        return None;
    }
    Some(match keyword {
        Keyword::Arg => Instruction::Arg(arg(arguments, scope)?),
        Keyword::Env => {
            let (pairs, form) = pairs(keyword, arguments, word, scope)?;
            Instruction::Env(Env { pairs, form })
        }
        Keyword::Label => {
            let (pairs, form) = pairs(keyword, arguments, word, scope)?;
            Instruction::Label(Label { pairs, form })
        }
        Keyword::Expose => Instruction::Expose(expose(arguments, scope)),
        Keyword::Maintainer => Instruction::Maintainer(maintainer(arguments, word, scope)),
        Keyword::StopSignal => Instruction::StopSignal(StopSignal { signal: scope.word(arguments) }),
        Keyword::User => Instruction::User(User { user: scope.word(arguments) }),
        Keyword::Volume => Instruction::Volume(volume(arguments, scope)?),
        Keyword::Workdir => Instruction::Workdir(Workdir { path: scope.word(arguments) }),
        _ => return None,
    })
}

/// Reports a first word that names no instruction.
pub(crate) fn unknown(head: &Head<'_>, scope: &mut Scope<'_>) {
    let message = format!("there is no instruction `{}`", shortened(head.word));
    let finding = Finding::new(Code::UnknownInstruction, scope.span(head.word), message);
    scope.report(match nearest(head.word, Keyword::names()) {
        Some(name) => finding.with_help(format!("did you mean `{name}`?")),
        None => finding.with_help(
            "if it belongs to the instruction above, end the line before it with the escape character",
        ),
    });
}

/// A word short enough for a message.
fn shortened(word: &str) -> String {
    const LONGEST: usize = 40;
    match word.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &word[..end]),
        None => word.to_owned(),
    }
}

fn arg(arguments: &str, scope: &mut Scope<'_>) -> Option<Arg> {
    let mut declarations = Vec::new();
    for word in lexis::quoted_words(arguments, scope.escape.char()) {
        let (name, default) =
            word.split_once('=').map_or((word, None), |(name, default)| (name, Some(default)));
        if name.is_empty() {
            scope.report(Finding::new(Code::EmptyName, scope.span(word), "an `ARG` needs a name before `=`"));
            continue;
        }
        let default = default.map(|default| scope.word(default));
        declarations.push(ArgDeclaration { name: scope.word(name), default, doc: None });
    }
    (!declarations.is_empty()).then_some(Arg { declarations })
}

/// The pairs of `ENV` and `LABEL`. Whether the first word holds `=` decides between the two forms.
fn pairs(
    keyword: Keyword,
    arguments: &str,
    word: &str,
    scope: &mut Scope<'_>,
) -> Option<(Vec<KeyValue>, KeyValueForm)> {
    let words = lexis::quoted_words(arguments, scope.escape.char());
    if !words.first().is_some_and(|first| first.contains('=')) {
        let pair = legacy_pair(keyword, arguments, word, scope)?;
        return Some((vec![pair], KeyValueForm::Legacy));
    }
    let pairs: Vec<KeyValue> = words.into_iter().filter_map(|word| pair(keyword, word, scope)).collect();
    (!pairs.is_empty()).then_some((pairs, KeyValueForm::Equals))
}

fn pair(keyword: Keyword, word: &str, scope: &mut Scope<'_>) -> Option<KeyValue> {
    let Some((key, value)) = word.split_once('=') else {
        let finding =
            Finding::new(Code::MissingEquals, scope.span(word), format!("`{}` lacks `=`", shortened(word)));
        scope.report(finding.with_help(format!(
            "write `{keyword} NAME=value`; a value with blanks must stand in quotes: `NAME=\"two words\"`"
        )));
        return None;
    };
    if key.is_empty() {
        scope.report(Finding::new(
            Code::EmptyName,
            scope.span(word),
            format!("`{keyword}` needs a name before `=`"),
        ));
        return None;
    }
    Some(KeyValue { key: scope.word(key), value: scope.word(value) })
}

fn legacy_pair(keyword: Keyword, arguments: &str, word: &str, scope: &mut Scope<'_>) -> Option<KeyValue> {
    let Some((key, value)) = lexis::first_and_rest(arguments) else {
        let message = format!("`{keyword} {}` lacks a value", shortened(arguments));
        let finding = Finding::new(Code::MissingArgument, scope.span(arguments), message);
        scope.report(finding.with_help(format!("write `{keyword} {}=value`", shortened(arguments))));
        return None;
    };
    let message = format!("`{keyword} NAME value` is the old form");
    let finding = Finding::new(Code::LegacyKeyValueFormat, scope.span(word), message);
    scope.report(finding.with_help(format!("write `{keyword} {}=…`", shortened(key))));
    Some(KeyValue { key: scope.word(key), value: scope.word(value) })
}

fn expose(arguments: &str, scope: &mut Scope<'_>) -> Expose {
    Expose { ports: lexis::list(arguments).into_iter().map(|port| scope.word(port)).collect() }
}

fn maintainer(arguments: &str, word: &str, scope: &mut Scope<'_>) -> Maintainer {
    let finding = Finding::new(Code::MaintainerDeprecated, scope.span(word), "`MAINTAINER` is deprecated");
    scope.report(finding.with_help("write `LABEL org.opencontainers.image.authors=…`"));
    Maintainer { name: Spanned::new(arguments.to_owned(), scope.span(arguments)) }
}

fn volume(arguments: &str, scope: &mut Scope<'_>) -> Option<Volume> {
    let paths = words_or_json(arguments, scope)?;
    let empty = paths.iter().find(|path| path.as_str().trim().is_empty()).map(|path| path.span);
    if paths.is_empty() || empty.is_some() {
        let span = empty.unwrap_or_else(|| scope.span(arguments));
        let finding = Finding::new(Code::MissingArgument, span, "`VOLUME` needs a path that is not empty");
        scope.report(finding.with_help(format!("write `{}`", Keyword::Volume.usage())));
        return None;
    }
    let paths = paths.into_iter().map(|path| path.map(|path| Word::new(path.as_str().trim()))).collect();
    Some(Volume { paths })
}

/// The words of a JSON array of strings, else those between blanks; `None` for a JSON array of other things.
pub(crate) fn words_or_json(arguments: &str, scope: &mut Scope<'_>) -> Option<Vec<Spanned<Word>>> {
    match lexis::json(arguments) {
        Json::Strings(strings) => {
            let word = |(text, raw)| {
                let span = scope.span(raw);
                scope.decoded_word(text, span)
            };
            Some(strings.into_iter().map(word).collect())
        }
        Json::No => Some(lexis::list(arguments).into_iter().map(|word| scope.word(word)).collect()),
        Json::Others => {
            not_only_strings(arguments, scope);
            None
        }
    }
}

/// Reports a JSON array with something else than strings in it.
pub(crate) fn not_only_strings(arguments: &str, scope: &mut Scope<'_>) {
    let finding =
        Finding::new(Code::InvalidExecForm, scope.span(arguments), "a JSON array here may hold only strings");
    scope.report(finding.with_help("put every element in double quotes"));
}

/// `ONBUILD`, whose argument is an instruction of its own.
fn onbuild(arguments: &str, word: &str, heredocs: Vec<Heredoc>, scope: &mut Scope<'_>) -> Option<Onbuild> {
    if arguments.is_empty() {
        scope.missing(Keyword::Onbuild, word, "an instruction");
        return None;
    }
    let head = Head::of(arguments, scope.escape.char());
    let Some(keyword) = head.keyword else {
        unknown(&head, scope);
        return None;
    };
    if matches!(keyword, Keyword::Onbuild | Keyword::From | Keyword::Maintainer) {
        let message = format!("`{keyword}` cannot be a trigger");
        let finding = Finding::new(Code::InvalidTrigger, scope.span(head.word), message);
        scope.report(finding.with_help(match keyword {
            Keyword::Maintainer => "write `ONBUILD LABEL org.opencontainers.image.authors=…`",
            Keyword::From => "a trigger runs within a stage; begin stages in the Dockerfile that is built",
            _ => "write the instruction itself: triggers do not reach further than one build",
        }));
        return None;
    }
    let trigger = trigger_text(arguments, &heredocs, scope);
    let span = scope.span(arguments);
    let instruction = parse(head, keyword, heredocs, scope)?;
    Some(Onbuild { trigger, instruction: Spanned::new(Box::new(instruction), span) })
}

/// The trigger as BuildKit stores it: blanks at the line's end are kept, bodies and end words follow on lines of their own.
fn trigger_text(arguments: &str, heredocs: &[Heredoc], scope: &Scope<'_>) -> String {
    let line = scope.line.text.as_str();
    let mut text = line[nom::Offset::offset(line, arguments)..].to_owned();
    for heredoc in heredocs {
        text.extend(["\n", &heredoc.content, &heredoc.name]);
    }
    text
}
