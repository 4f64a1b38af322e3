//! Parser directives: `# syntax=`, `# escape=`, `# check=` at the top of the file.
//!
//! The first line that is not a known directive ends them for good: a blank line, an ordinary comment, an unknown key, an
//! instruction. A first line that begins with `#!` is skipped, but then only `syntax` and `check` are looked for, because BuildKit's line
//! reader, which alone knows `escape`, takes it for a comment.

use std::str::FromStr;

use nom::bytes::complete::{tag, take_while};
use nom::character::complete::{char, satisfy};
use nom::combinator::{recognize, rest, verify};
use nom::sequence::{delimited, preceded, separated_pair};
use nom::{IResult, Parser};

use crate::ast::{Check, Directives, Escape, RuleSet, Syntax};
use crate::finding::{Code, Finding};
use crate::line::{PhysicalLine, PhysicalLines};
use crate::span::{Span, Spanned};
use suggest::nearest;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Key {
    Syntax,
    Escape,
    Check,
}

impl Key {
    fn from_text(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "syntax" => Some(Self::Syntax),
            "escape" => Some(Self::Escape),
            "check" => Some(Self::Check),
            _ => None,
        }
    }
}

/// Reads the directives at the beginning of `lines`, leaving `lines` on the first line that is none.
pub(crate) fn read(lines: &mut PhysicalLines<'_>, findings: &mut Vec<Finding>) -> Directives {
    let mut directives = Directives::default();
    let mut seen: Vec<(Key, Span)> = Vec::new();
    let shebang = lines.clone().next().is_some_and(|line| line.text.starts_with("#!"));
    if shebang {
        lines.next();
    }
    while let Some((line, key, value)) = lines.clone().next().and_then(directive) {
        lines.next();
        if let Some((_, first)) = seen.iter().find(|(other, _)| *other == key) {
            let message = "only one directive of each kind can be used";
            findings.push(
                Finding::new(Code::DuplicateDirective, line.span(), message)
                    .with_label(*first, "first given here"),
            );
            continue;
        }
        seen.push((key, line.span()));
        let start = line.start + (value.as_ptr() as usize - line.text.as_ptr() as usize) as u32;
        let span = Span::new(start, start + value.len() as u32);
        match key {
            Key::Syntax => directives.syntax = Some(Spanned::new(syntax(value), span)),
            Key::Escape if shebang => {}
            Key::Escape => directives.escape = escape(value, span, findings),
            Key::Check => directives.check = Some(Spanned::new(check(value, span, findings), span)),
        }
    }
    directives
}

/// `#`, blanks, key, `=`, value; `None` if the line is anything else.
fn directive(line: PhysicalLine<'_>) -> Option<(PhysicalLine<'_>, Key, &str)> {
    let parsed: IResult<&str, (&str, &str)> =
        preceded((blanks, tag("#"), blanks), separated_pair(key, (blanks, char('='), blanks), value))
            .parse(line.text);
    let (_, (key, value)) = parsed.ok()?;
    Some((line, Key::from_text(key)?, value.trim_end()))
}

fn key(input: &str) -> IResult<&str, &str> {
    recognize((satisfy(|c| c.is_ascii_alphabetic()), take_while(|c: char| c.is_ascii_alphanumeric())))
        .parse(input)
}

fn value(input: &str) -> IResult<&str, &str> {
    verify(rest, |value: &str| !value.trim().is_empty()).parse(input)
}

fn blanks(input: &str) -> IResult<&str, &str> {
    take_while(char::is_whitespace).parse(input)
}

fn syntax(value: &str) -> Syntax {
    let (frontend, arguments) = value.split_once(' ').unwrap_or((value, ""));
    Syntax { frontend: frontend.to_owned(), arguments: arguments.trim().to_owned() }
}

fn escape(value: &str, span: Span, findings: &mut Vec<Finding>) -> Option<Spanned<Escape>> {
    match value {
        "\\" => Some(Spanned::new(Escape::Backslash, span)),
        "`" => Some(Spanned::new(Escape::Backtick, span)),
        other => {
            let message = format!("the escape character cannot be `{other}`");
            let finding = Finding::new(Code::InvalidDirective, span, message);
            findings.push(finding.with_help("write `# escape=\\` (the default) or ``# escape=` ``"));
            None
        }
    }
}

fn check(value: &str, span: Span, findings: &mut Vec<Finding>) -> Check {
    let (check, errors) = options(value);
    findings.extend(errors.iter().map(|error| bad_check(error, span)));
    check
}

/// What may be set by `# check=`.
const OPTIONS: [&str; 3] = ["skip", "error", "experimental"];

/// Why a text is not what may follow `# check=`.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CheckError {
    /// An option that there is not.
    #[error("`# check` has no option `{0}`")]
    UnknownOption(String),
    /// An option without `=`.
    #[error("`{0}` of `# check` has no value")]
    NoValue(String),
    /// `error=` with something else than a truth value.
    #[error("`error` of `# check` is `true` or `false`, not `{0}`")]
    NotBool(String),
}

impl FromStr for Check {
    type Err = CheckError;

    /// Reads what follows `# check=`.
    fn from_str(value: &str) -> Result<Self, CheckError> {
        let (check, errors) = options(value);
        errors.into_iter().next().map_or(Ok(check), Err)
    }
}

/// What a comment above an instruction asks for, if it is a well-formed `check=…`. Only its first word counts, so that a reason may
/// follow. Anything else is an ordinary comment, as it is to BuildKit.
pub(crate) fn local_check(comments: &[&str]) -> Option<Check> {
    let value = comments.iter().find_map(|comment| {
        let setting: IResult<&str, (&str, &str)> =
            separated_pair(key, (blanks, char('='), blanks), value).parse(comment);
        setting
            .ok()
            .filter(|(_, (key, _))| Key::from_text(key) == Some(Key::Check))
            .map(|(_, (_, value))| value)
    })?;
    value.split_whitespace().next()?.parse().ok()
}

/// Options joined by `;`, and what is wrong with them.
fn options(value: &str) -> (Check, Vec<CheckError>) {
    let mut check = Check::default();
    let mut errors = Vec::new();
    for option in value.split(';').map(str::trim).filter(|option| !option.is_empty()) {
        let setting: IResult<&str, (&str, &str)> =
            separated_pair(key, delimited(blanks, char('='), blanks), rest).parse(option);
        match setting {
            Ok((_, ("skip", rules))) => check.skip = rule_set(rules),
            Ok((_, ("experimental", rules))) => check.experimental = rule_set(rules),
            Ok((_, ("error", text))) => match text.parse() {
                Ok(is_error) => check.error = Some(is_error),
                Err(_) => errors.push(CheckError::NotBool(text.to_owned())),
            },
            Ok((_, (key, _))) => errors.push(CheckError::UnknownOption(key.to_owned())),
            Err(_) if OPTIONS.contains(&option) => errors.push(CheckError::NoValue(option.to_owned())),
            Err(_) => errors.push(CheckError::UnknownOption(option.to_owned())),
        }
    }
    (check, errors)
}

fn rule_set(text: &str) -> RuleSet {
    if text.trim().eq_ignore_ascii_case("all") {
        return RuleSet::All;
    }
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    RuleSet::Named(names.map(str::to_owned).collect())
}

fn bad_check(error: &CheckError, span: Span) -> Finding {
    let finding = Finding::new(Code::InvalidDirective, span, error.to_string());
    let CheckError::UnknownOption(key) = error else { return finding };
    match nearest(key, OPTIONS) {
        Some(name) => finding.with_help(format!("did you mean `{name}`?")),
        None => finding
            .with_help("options are `skip=RULE,…`, `error=true` and `experimental=RULE,…`, joined by `;`"),
    }
}
