//! The lexers of an instruction's line: its keyword, its flags, and the ways its arguments are split.
//!
//! Each takes a slice of a logical line and gives slices of it, so that every piece knows its place. None of them fails: a quote
//! that nothing closes reaches to the end of the line, as in BuildKit, and is reported when the word is checked.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till, take_till1, take_while, take_while1};
use nom::character::complete::{anychar, char, none_of};
use nom::combinator::{map, not, opt, peek, recognize, value, verify};
use nom::multi::{fold_many0, many0, many0_count, many1_count, separated_list1};
use nom::sequence::{delimited, pair, preceded, terminated};
use nom::{IResult, Parser};

use crate::cost;

/// The blanks that separate a keyword from its arguments, and the words of lists. Other Unicode blanks do not.
fn is_separator(c: char) -> bool {
    matches!(c, '\t' | '\u{B}' | '\u{C}' | '\r' | ' ')
}

/// A line's first word and what follows the blanks behind it.
pub(crate) fn keyword(line: &str) -> (&str, &str) {
    cost::spend(line.len());
    let line = line.trim();
    let split: IResult<&str, &str> =
        terminated(take_till(is_separator), take_while(is_separator)).parse(line);
    split.map_or((line, ""), |(rest, keyword)| (keyword, rest))
}

/// The words of a list: separated by blanks, without quotes.
pub(crate) fn list(arguments: &str) -> Vec<&str> {
    cost::spend(arguments.len());
    arguments.trim().split(is_separator).filter(|word| !word.is_empty()).collect()
}

/// The first word of `arguments` and the rest as it stands; `None` if there is no second word.
pub(crate) fn first_and_rest(arguments: &str) -> Option<(&str, &str)> {
    let split: IResult<&str, (&str, &str)> =
        pair(take_till(is_separator), take_while1(is_separator)).parse(arguments);
    let (rest, (first, _)) = split.ok()?;
    Some((first, rest))
}

/// The words of `ENV`, `LABEL` and `ARG`: separated by blanks that are neither quoted nor escaped. Quotes and escapes are kept.
pub(crate) fn quoted_words(arguments: &str, escape: char) -> Vec<&str> {
    cost::spend(arguments.len());
    let word = recognize(many1_count(|i| word_piece(i, escape)));
    let words: IResult<&str, Vec<&str>> =
        many0(preceded(take_while(char::is_whitespace), word)).parse(arguments);
    let mut words = words.map_or_else(|_| Vec::new(), |(_, words)| words);
    if let Some(last) = words.last_mut() {
        *last = without_final_escape(last, escape);
    }
    words.retain(|word| !word.is_empty());
    words
}

fn word_piece(input: &str, escape: char) -> IResult<&str, &str> {
    alt((
        recognize(pair(char(escape), opt(anychar))),
        recognize((char('\''), take_till(|c| c == '\''), opt(char('\'')))),
        recognize((char('"'), many0_count(|i| inside_double_quotes(i, escape)), opt(char('"')))),
        take_till1(|c: char| c.is_whitespace() || matches!(c, '\'' | '"') || c == escape),
    ))
    .parse(input)
}

fn inside_double_quotes(input: &str, escape: char) -> IResult<&str, &str> {
    alt((recognize(pair(char(escape), opt(anychar))), take_till1(|c| c == '"' || c == escape))).parse(input)
}

/// An escape character that escapes nothing, since the line ends, is dropped.
fn without_final_escape(word: &str, escape: char) -> &str {
    let escapes = word.chars().rev().take_while(|&c| c == escape).count();
    let dropped = if escapes % 2 == 1 { escape.len_utf8() } else { 0 };
    &word[..word.len() - dropped]
}

/// A flag as it stands before an instruction's arguments.
#[derive(Clone, Debug)]
pub(crate) struct RawFlag<'a> {
    /// The whole word, quotes included.
    pub raw: &'a str,
    /// Its name without `--`.
    pub name: String,
    /// What follows `=`, quotes removed.
    pub value: Option<RawValue<'a>>,
    /// The quote that nothing closes, if there is one.
    pub open_quote: Option<&'a str>,
}

/// A flag's value.
#[derive(Clone, Debug)]
pub(crate) struct RawValue<'a> {
    /// With quotes and escapes removed.
    pub text: String,
    /// As it stands.
    pub raw: &'a str,
}

/// The flags at the beginning of `arguments`, and the arguments behind them. A lone `--` ends the flags.
pub(crate) fn flags(mut arguments: &str, escape: char) -> (Vec<RawFlag<'_>>, &str) {
    let mut flags = Vec::new();
    loop {
        let rest = arguments.trim_start();
        let Ok((after, raw)) = flag_word(rest, escape) else { return (flags, rest.trim_end()) };
        if raw == "--" {
            return (flags, after.trim());
        }
        flags.push(raw_flag(raw, escape));
        arguments = after;
    }
}

fn flag_word(input: &str, escape: char) -> IResult<&str, &str> {
    preceded(peek(tag("--")), recognize(many1_count(|i| flag_piece(i, escape)))).parse(input)
}

fn flag_piece(input: &str, escape: char) -> IResult<&str, &str> {
    alt((
        recognize(pair(char(escape), opt(anychar))),
        recognize((char('\''), many0_count(|i| in_flag_quotes(i, '\'', escape)), opt(char('\'')))),
        recognize((char('"'), many0_count(|i| in_flag_quotes(i, '"', escape)), opt(char('"')))),
        take_till1(|c: char| c.is_whitespace() || matches!(c, '\'' | '"') || c == escape),
    ))
    .parse(input)
}

fn in_flag_quotes(input: &str, quote: char, escape: char) -> IResult<&str, &str> {
    alt((recognize(pair(char(escape), opt(anychar))), take_till1(|c| c == quote || c == escape))).parse(input)
}

fn raw_flag(raw: &str, escape: char) -> RawFlag<'_> {
    cost::spend(raw.len());
    let body = &raw[2..];
    let (name, value) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
    let (name, name_quote) = unquote(name, escape);
    let (value, value_quote) = match value {
        Some(raw) => {
            let (text, quote) = unquote(raw, escape);
            (Some(RawValue { text, raw }), quote)
        }
        None => (None, None),
    };
    RawFlag { raw, name, value, open_quote: name_quote.or(value_quote) }
}

/// Removes quotes and escapes as flags have them, where the escape counts in both kinds of quotes. The second value is the
/// quote that nothing closes.
fn unquote(raw: &str, escape: char) -> (String, Option<&str>) {
    let mut text = String::with_capacity(raw.len());
    let mut open: Option<(char, usize)> = None;
    let mut chars = raw.char_indices();
    while let Some((at, c)) = chars.next() {
        match open {
            _ if c == escape => text.extend(chars.next().map(|(_, escaped)| escaped)),
            None if matches!(c, '\'' | '"') => open = Some((c, at)),
            Some((quote, _)) if c == quote => open = None,
            _ => text.push(c),
        }
    }
    (text, open.map(|(_, at)| &raw[at..=at]))
}

/// A list of comma-separated fields, each perhaps in double quotes with `""` for a quote; `None` if it is not well formed. The second
/// value is the field's place in `text`.
pub(crate) fn comma_fields(text: &str) -> Option<Vec<(String, &str)>> {
    cost::spend(text.len());
    let fields: IResult<&str, Vec<(String, &str)>> = separated_list1(char(','), comma_field).parse(text);
    let (rest, fields) = fields.ok()?;
    (rest.is_empty() && !text.is_empty()).then_some(fields)
}

fn comma_field(input: &str) -> IResult<&str, (String, &str)> {
    let quoted = delimited(
        char('"'),
        fold_many0(alt((value('"', tag("\"\"")), none_of("\""))), String::new, |mut text, c| {
            text.push(c);
            text
        }),
        char('"'),
    );
    let plain = map(take_till(|c| matches!(c, ',' | '"')), str::to_owned);
    let end = peek(not(none_of(",")));
    let (rest, text) = terminated(alt((quoted, plain)), end).parse(input)?;
    Ok((rest, (text, &input[..input.len() - rest.len()])))
}

/// What an argument that may be a JSON array is.
#[derive(Debug)]
pub(crate) enum Json<'a> {
    /// No JSON array.
    No,
    /// An array of strings: each decoded, and as it stands.
    Strings(Vec<(String, &'a str)>),
    /// An array with something else in it.
    Others,
}

/// Reads a JSON array. Decoding is serde_json's; nom finds where each string stands.
pub(crate) fn json(arguments: &str) -> Json<'_> {
    let arguments = arguments.trim();
    cost::spend(arguments.len());
    if !arguments.starts_with('[') {
        return Json::No;
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(arguments) else { return Json::No };
    let places: IResult<&str, Vec<&str>> =
        many0(preceded(take_till(|c| c == '"'), json_string)).parse(arguments);
    let places = places.map_or_else(|_| Vec::new(), |(_, places)| places);
    let mut strings = Vec::with_capacity(values.len());
    for (value, place) in values.into_iter().zip(places.into_iter().chain(std::iter::repeat(arguments))) {
        let serde_json::Value::String(text) = value else { return Json::Others };
        strings.push((text, place));
    }
    Json::Strings(strings)
}

fn json_string(input: &str) -> IResult<&str, &str> {
    let piece = alt((recognize(pair(char('\\'), anychar)), take_till1(|c| matches!(c, '"' | '\\'))));
    recognize(delimited(char('"'), many0_count(piece), char('"'))).parse(input)
}

/// Whether a part of a text is one of only word characters: what a heredoc's word usually is.
pub(crate) fn is_plain_word(text: &str) -> bool {
    let word: IResult<&str, &str> =
        verify(take_while1(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')), |word: &str| {
            !word.bytes().all(|byte| byte.is_ascii_digit())
        })
        .parse(text);
    word.is_ok_and(|(rest, _)| rest.is_empty())
}
