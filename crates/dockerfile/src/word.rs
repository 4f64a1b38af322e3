//! What a word is made of: literal text, quotes, escapes, variables.
//!
//! [`parse_word`] lexes the raw text of a [`crate::Word`], [`parse_text`] the body of a heredoc. Both only take apart;
//! `plan` knows the variables and puts together. The parts keep what the evaluation of patterns needs: an escaped character is
//! a part of its own, since `\*` is a star in a value and a literal star in the pattern of `${V#P}`.
//!
//! ```
//! use dockerfile::{Escape, Part, parse_word};
//! let parts = parse_word("a${B:-'c'}", Escape::Backslash).unwrap();
//! assert_eq!(parts[0], Part::Literal("a".to_owned()));
//! assert!(matches!(&parts[1], Part::Variable(variable) if variable.name == "B"));
//! ```
//!
//! Words nest (`${A:-${B:-…}}`); [`MAX_DEPTH`] bounds that, because reading and evaluating use the stack.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till1, take_while, take_while_m_n, take_while1};
use nom::character::complete::{anychar, char, satisfy};
use nom::combinator::{map, not, opt, peek, recognize, success, value, verify};
use nom::error::{ErrorKind, ParseError};
use nom::multi::{many0, many1_count};
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};

use crate::ast::Escape;
use crate::cost;
use crate::span::Span;

/// How deep quotes and substitutions may nest in one word.
pub const MAX_DEPTH: u32 = 128;

/// A piece of a word, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Part {
    /// Text that means itself.
    Literal(String),
    /// A character behind the escape character. In a value it stands for itself; in a pattern the escape counts.
    Escaped(char),
    /// `'…'`: text without any variable or escape.
    SingleQuoted(String),
    /// `"…"`: parts whose expansion is never split into words.
    DoubleQuoted(Vec<Part>),
    /// `$V` or `${V…}`.
    Variable(Variable),
}

/// A reference to a variable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Variable {
    /// Its name: letters, digits and `_`; or only digits; or one of `@ * # ? - $ !`.
    pub name: String,
    /// What is done with its value.
    pub operator: Operator,
    /// Its place, as byte offsets into the text that was lexed.
    pub span: Span,
}

/// What `${V…}` does with the value of `V`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Operator {
    /// `$V`, `${V}`: nothing.
    Value,
    /// `${V:-W}`, `${V-W}`: `W` where `V` is absent.
    Default(Absence, Vec<Part>),
    /// `${V:+W}`, `${V+W}`: `W` where `V` is there, else nothing.
    Alternate(Absence, Vec<Part>),
    /// `${V:?W}`, `${V?W}`: an error with the message `W` where `V` is absent.
    Require(Absence, Vec<Part>),
    /// `${V#P}`, `${V##P}`: without the prefix that matches `P`.
    StripPrefix(Match, Vec<Part>),
    /// `${V%P}`, `${V%%P}`: without the suffix that matches `P`.
    StripSuffix(Match, Vec<Part>),
    /// `${V/P/W}`, `${V//P/W}`: `W` in place of what matches `P`.
    Replace(Occurrences, Vec<Part>, Vec<Part>),
}

/// When a variable counts as absent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Absence {
    /// Without a colon: when it is not set.
    Unset,
    /// With a colon: when it is not set or empty.
    UnsetOrEmpty,
}

/// How much a stripped pattern takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Match {
    /// `#`, `%`: as little as possible.
    Shortest,
    /// `##`, `%%`: as much as possible.
    Longest,
}

/// Which matches are replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Occurrences {
    /// `/`: the first.
    First,
    /// `//`: every one.
    All,
}

/// Why a word has no parts. `at` is the byte offset of the culprit in the text that was lexed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WordError {
    /// A quote that nothing closes.
    #[error("the quote {quote} is never closed")]
    UnbalancedQuote {
        /// `'` or `"`.
        quote: char,
        /// Where it opens.
        at: usize,
    },
    /// `${` without `}`.
    #[error("`${{` is never closed by `}}`")]
    MissingBrace {
        /// Where `${` stands.
        at: usize,
    },
    /// `${}`, `${:x}`, `${{x}`: no name.
    #[error("a variable name must follow `${{`")]
    BadSubstitution {
        /// Where `${` stands.
        at: usize,
    },
    /// `${V^x}` and other forms that there are not.
    #[error("`{modifier}` cannot follow a variable name in `${{…}}`")]
    UnsupportedModifier {
        /// The characters after the name.
        modifier: String,
        /// Where they stand.
        at: usize,
    },
    /// `${V/P}`.
    #[error("`${{V/pattern/replacement}}` lacks its second `/`")]
    MissingSlash {
        /// Where `${` stands.
        at: usize,
    },
    /// More than [`MAX_DEPTH`] levels.
    #[error("quotes and substitutions nest more than {MAX_DEPTH} levels deep")]
    TooDeep {
        /// Where the limit is passed.
        at: usize,
    },
}

impl WordError {
    /// The byte offset of the culprit in the text that was lexed.
    pub fn at(&self) -> usize {
        match self {
            Self::UnbalancedQuote { at, .. }
            | Self::MissingBrace { at }
            | Self::BadSubstitution { at }
            | Self::UnsupportedModifier { at, .. }
            | Self::MissingSlash { at }
            | Self::TooDeep { at } => *at,
        }
    }
}

/// Takes a word apart: quotes, escapes and variables are special.
///
/// # Errors
/// A [`WordError`] for the first quote or substitution that is not well formed.
pub fn parse_word(text: &str, escape: Escape) -> Result<Vec<Part>, WordError> {
    lex(text, Mode { escape: escape.char(), quotes: Quotes::Special, depth: 0 })
}

/// Takes a heredoc's body apart: as [`parse_word`], but quotes are text and the escape character is always the backslash.
///
/// # Errors
/// A [`WordError`] for the first substitution that is not well formed.
pub fn parse_text(text: &str) -> Result<Vec<Part>, WordError> {
    lex(text, Mode { escape: '\\', quotes: Quotes::Text, depth: 0 })
}

/// The words of a line as a shell would split them, each as it stands; the escape character is the backslash.
pub(crate) fn shell_words(line: &str) -> Result<Vec<&str>, WordError> {
    cost::spend(line.len());
    let mode = Mode { escape: '\\', quotes: Quotes::Special, depth: 0 };
    let run = |i| map(take_till1(|c: char| c.is_whitespace() || mode.is_special(c)), |_| ()).parse(i);
    let special = |i| map(|i| part(i, mode, None), |_| ()).parse(i);
    let blanks = take_while(char::is_whitespace);
    let word = recognize(many1_count(preceded(not(satisfy(char::is_whitespace)), alt((run, special)))));
    match many0(preceded(blanks, word)).parse(line) {
        Ok((_, words)) => Ok(words),
        Err(nom::Err::Error(fault) | nom::Err::Failure(fault)) => Err(word_error(fault, line.len())),
        Err(nom::Err::Incomplete(_)) => Ok(Vec::new()),
    }
}

#[derive(Clone, Copy)]
struct Mode {
    escape: char,
    quotes: Quotes,
    depth: u32,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Quotes {
    Special,
    Text,
}

impl Mode {
    fn is_special(self, c: char) -> bool {
        c == '$' || c == self.escape || (self.quotes == Quotes::Special && matches!(c, '\'' | '"'))
    }

    fn deeper(self, input: &str) -> Result<Self, nom::Err<Fault>> {
        let depth = self.depth + 1;
        if depth > MAX_DEPTH { Err(fault(input, Kind::TooDeep)) } else { Ok(Self { depth, ..self }) }
    }
}

/// A problem while lexing, placed by how much input was left: nom's parsers see only the rest of the text.
#[derive(Debug)]
struct Fault {
    left: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// No alternative fits here; never leaves this module.
    NoMatch,
    UnbalancedQuote(char),
    MissingBrace,
    BadSubstitution,
    UnsupportedModifier(String),
    MissingSlash,
    TooDeep,
}

impl<'a> ParseError<&'a str> for Fault {
    fn from_error_kind(input: &'a str, _: ErrorKind) -> Self {
        Self { left: input.len(), kind: Kind::NoMatch }
    }

    fn append(_: &'a str, _: ErrorKind, other: Self) -> Self {
        other
    }
}

type Lexed<'a, T> = IResult<&'a str, T, Fault>;

/// A failure that no other alternative may hide.
fn fault(input: &str, kind: Kind) -> nom::Err<Fault> {
    nom::Err::Failure(Fault { left: input.len(), kind })
}

fn lex(text: &str, mode: Mode) -> Result<Vec<Part>, WordError> {
    cost::spend(text.len());
    match parts(text, mode, None) {
        Ok((_, parts)) => Ok(place(parts, text.len())),
        Err(nom::Err::Error(fault) | nom::Err::Failure(fault)) => Err(word_error(fault, text.len())),
        // Only streaming parsers ask for more; all of these are complete ones.
        Err(nom::Err::Incomplete(_)) => Ok(Vec::new()),
    }
}

fn word_error(fault: Fault, len: usize) -> WordError {
    let at = len - fault.left;
    match fault.kind {
        Kind::NoMatch | Kind::BadSubstitution => WordError::BadSubstitution { at },
        Kind::UnbalancedQuote(quote) => WordError::UnbalancedQuote { quote, at },
        Kind::MissingBrace => WordError::MissingBrace { at },
        Kind::UnsupportedModifier(modifier) => WordError::UnsupportedModifier { modifier, at },
        Kind::MissingSlash => WordError::MissingSlash { at },
        Kind::TooDeep => WordError::TooDeep { at },
    }
}

/// Turns the spans of variables, which the parsers count from the end of the text, into offsets from its start.
fn place(mut parts: Vec<Part>, len: usize) -> Vec<Part> {
    cost::spend(parts.len());
    for part in &mut parts {
        match part {
            Part::Literal(_) | Part::Escaped(_) | Part::SingleQuoted(_) => {}
            Part::DoubleQuoted(inner) => *inner = place(std::mem::take(inner), len),
            Part::Variable(variable) => place_variable(variable, len),
        }
    }
    parts
}

fn place_variable(variable: &mut Variable, len: usize) {
    let len32 = len as u32;
    variable.span = Span::new(len32 - variable.span.start, len32 - variable.span.end);
    match &mut variable.operator {
        Operator::Value => {}
        Operator::Default(_, word)
        | Operator::Alternate(_, word)
        | Operator::Require(_, word)
        | Operator::StripPrefix(_, word)
        | Operator::StripSuffix(_, word) => *word = place(std::mem::take(word), len),
        Operator::Replace(_, pattern, word) => {
            *pattern = place(std::mem::take(pattern), len);
            *word = place(std::mem::take(word), len);
        }
    }
}

/// Parts up to `stop`, which is left, or to the end of the text.
fn parts(mut input: &str, mode: Mode, stop: Option<char>) -> Lexed<'_, Vec<Part>> {
    let mut parts = Vec::new();
    while !input.is_empty() && !stop.is_some_and(|stop| input.starts_with(stop)) {
        let (rest, part) = part(input, mode, stop)?;
        parts.extend(part);
        input = rest;
    }
    Ok((input, parts))
}

/// One part; `None` for an escape character at the very end, which is dropped.
///
/// Here and below, what recurses is called directly: nom's combinators nest so many frames that [`MAX_DEPTH`] levels of them
/// would not fit a thread's stack.
fn part(input: &str, mode: Mode, stop: Option<char>) -> Lexed<'_, Option<Part>> {
    cost::spend(1);
    let some = |(rest, part)| (rest, Some(part));
    match input.chars().next() {
        Some('$') => dollar(input, mode).map(some),
        Some(c) if c == mode.escape => escaped(input, mode),
        Some('\'') if mode.quotes == Quotes::Special => single_quoted(input).map(some),
        Some('"') if mode.quotes == Quotes::Special => double_quoted(input, mode).map(some),
        _ => literal(input, mode, stop).map(some),
    }
}

fn literal(input: &str, mode: Mode, stop: Option<char>) -> Lexed<'_, Part> {
    map(take_till1(|c| mode.is_special(c) || Some(c) == stop), |text: &str| Part::Literal(text.to_owned()))
        .parse(input)
}

fn escaped(input: &str, mode: Mode) -> Lexed<'_, Option<Part>> {
    preceded(char(mode.escape), opt(map(anychar, Part::Escaped))).parse(input)
}

fn single_quoted(input: &str) -> Lexed<'_, Part> {
    let (inside, _) = char('\'').parse(input)?;
    let (end, text) = take_while(|c| c != '\'').parse(inside)?;
    let (rest, _) =
        char('\'').parse(end).map_err(|_: nom::Err<Fault>| fault(input, Kind::UnbalancedQuote('\'')))?;
    Ok((rest, Part::SingleQuoted(text.to_owned())))
}

fn double_quoted(input: &str, mode: Mode) -> Lexed<'_, Part> {
    let (mut left, _) = char('"').parse(input)?;
    let mode = mode.deeper(input)?;
    let mut parts = Vec::new();
    loop {
        if left.is_empty() {
            return Err(fault(input, Kind::UnbalancedQuote('"')));
        }
        if let Some(rest) = left.strip_prefix('"') {
            return Ok((rest, Part::DoubleQuoted(parts)));
        }
        let (rest, part) = match left.chars().next() {
            Some('$') => dollar(left, mode)?,
            Some(c) if c == mode.escape => escaped_in_quotes(left, mode)?,
            _ => literal(left, Mode { quotes: Quotes::Text, ..mode }, Some('"'))?,
        };
        parts.push(part);
        left = rest;
    }
}

/// Within double quotes only `"`, `$` and the escape character can be escaped; before another one the escape is itself text,
/// which is the same as if it had been escaped.
fn escaped_in_quotes(input: &str, mode: Mode) -> Lexed<'_, Part> {
    let escapable = verify(anychar, |&c| matches!(c, '"' | '$') || c == mode.escape);
    preceded(char(mode.escape), map(alt((escapable, success(mode.escape))), Part::Escaped)).parse(input)
}

fn dollar(input: &str, mode: Mode) -> Lexed<'_, Part> {
    let (after, _) = char('$').parse(input)?;
    if after.starts_with('{') {
        return braced(after, input, mode);
    }
    let text = map(success(()), |()| Part::Literal("$".to_owned()));
    alt((map(|i| plain(i, input), Part::Variable), text)).parse(after)
}

fn plain<'a>(after: &'a str, start: &'a str) -> Lexed<'a, Variable> {
    let (rest, name) = name(after)?;
    Ok((rest, variable(start, rest, name, Operator::Value)))
}

fn braced<'a>(after: &'a str, start: &'a str, mode: Mode) -> Lexed<'a, Part> {
    let (inside, _) = char('{').parse(after)?;
    let mode = mode.deeper(start)?;
    if inside.is_empty() {
        return Err(fault(start, Kind::MissingBrace));
    }
    let (behind_name, name) = name(inside).map_err(|_| fault(start, Kind::BadSubstitution))?;
    if behind_name.is_empty() {
        return Err(fault(start, Kind::MissingBrace));
    }
    let (end, operator) = operator(behind_name, start, mode)?;
    let (rest, _) = char('}').parse(end).map_err(|_: nom::Err<Fault>| fault(start, Kind::MissingBrace))?;
    Ok((rest, Part::Variable(variable(start, rest, name, operator))))
}

fn variable(start: &str, rest: &str, name: &str, operator: Operator) -> Variable {
    // Counted from the end for now, see `place`.
    Variable { name: name.to_owned(), operator, span: Span::new(start.len() as u32, rest.len() as u32) }
}

/// Only digits, or letters, digits and `_`, or one special character.
fn name(input: &str) -> Lexed<'_, &str> {
    alt((
        take_while1(|c: char| c.is_ascii_digit()),
        take_while1(|c: char| c.is_alphabetic() || c.is_ascii_digit() || c == '_'),
        take_while_m_n(1, 1, |c| matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!')),
    ))
    .parse(input)
}

/// What follows a variable's name.
#[derive(Clone, Copy)]
enum Sign {
    Close,
    Default(Absence),
    Alternate(Absence),
    Require(Absence),
    StripPrefix(Match),
    StripSuffix(Match),
    Replace(Occurrences),
}

fn sign(input: &str) -> Lexed<'_, Sign> {
    alt((
        value(Sign::Close, peek(char('}'))),
        map(terminated(absence, char('-')), Sign::Default),
        map(terminated(absence, char('+')), Sign::Alternate),
        map(terminated(absence, char('?')), Sign::Require),
        value(Sign::StripPrefix(Match::Longest), tag("##")),
        value(Sign::StripPrefix(Match::Shortest), tag("#")),
        value(Sign::StripSuffix(Match::Longest), tag("%%")),
        value(Sign::StripSuffix(Match::Shortest), tag("%")),
        value(Sign::Replace(Occurrences::All), tag("//")),
        value(Sign::Replace(Occurrences::First), tag("/")),
        unsupported,
    ))
    .parse(input)
}

/// The sign behind the name and the words it takes, up to the closing brace.
fn operator<'a>(input: &'a str, start: &'a str, mode: Mode) -> Lexed<'a, Operator> {
    if input.starts_with(['"', '\'']) {
        // `"${A"`: the brace was forgotten, no modifier was meant.
        return Err(fault(start, Kind::MissingBrace));
    }
    let (mut input, sign) = sign(input)?;
    let mut pattern = Vec::new();
    if let Sign::Replace(_) = sign {
        let (end, parts) = parts(input, mode, Some('/'))?;
        let slash: Lexed<'_, char> = char('/').parse(end);
        (input, _) = slash.map_err(|_| fault(start, Kind::MissingSlash))?;
        pattern = parts;
    }
    let (rest, word) = parts(input, mode, Some('}'))?;
    let operator = match sign {
        Sign::Close => Operator::Value,
        Sign::Default(absence) => Operator::Default(absence, word),
        Sign::Alternate(absence) => Operator::Alternate(absence, word),
        Sign::Require(absence) => Operator::Require(absence, word),
        Sign::StripPrefix(length) => Operator::StripPrefix(length, word),
        Sign::StripSuffix(length) => Operator::StripSuffix(length, word),
        Sign::Replace(which) => Operator::Replace(which, pattern, word),
    };
    Ok((rest, operator))
}

fn absence(input: &str) -> Lexed<'_, Absence> {
    map(opt(char(':')), |colon| if colon.is_some() { Absence::UnsetOrEmpty } else { Absence::Unset })
        .parse(input)
}

fn unsupported(input: &str) -> Lexed<'_, Sign> {
    let (_, (colon, c)) = (opt(char(':')), opt(anychar)).parse(input)?;
    let modifier = colon.into_iter().chain(c).collect();
    Err(fault(input, Kind::UnsupportedModifier(modifier)))
}
