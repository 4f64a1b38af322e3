//! Expansion: a word and the variables around it to text (spec of the forms: POSIX shell, section 2.6.2, as far as Dockerfiles have it).
//!
//! `dockerfile` takes words apart, this module puts values in. Three places expand in different ways:
//!
//! | function | used for | quotes | result |
//! | --- | --- | --- | --- |
//! | [`word`] | almost everything | removed | one text |
//! | [`words`] | EXPOSE | removed | split at blanks that are not quoted, those of values included |
//! | [`text`] | heredocs of COPY and ADD | kept | one text |
//!
//! An escaped character stands for itself, but in patterns and in the replacement of `${V/P/W}` the escape stays: `\*` is a literal
//! star of a pattern, and in a replacement both characters come out, as in the reference implementation.

use std::ops::Range;

use dockerfile::{
    Absence, Escape, Match, Occurrences, Operator, Part, Span, Spanned, Variable, Word, WordError,
    parse_text, parse_word,
};

use crate::PatternError;
use crate::env::Environment;
use crate::pattern::{Length, Pattern};

/// Longest result, intermediate ones included: nested defaults could double it at each level.
const MAX_RESULT_BYTES: usize = 1 << 20;

/// Longest total: a variable of [`MAX_RESULT_BYTES`] may stand in every line of a long file, or before every RUN of it.
const MAX_TOTAL_BYTES: usize = 64 << 20;

/// How much all texts of a file have come to so far.
#[derive(Debug, Default)]
pub(crate) struct Total(usize);

impl Total {
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), ExpandError> {
        self.0 = self.0.saturating_add(bytes);
        if self.0 > MAX_TOTAL_BYTES { Err(ExpandError::TooMuch) } else { Ok(()) }
    }
}

/// Why a word cannot be expanded.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ExpandError {
    /// Quotes or braces that do not fit.
    #[error(transparent)]
    Syntax(#[from] WordError),
    /// `${NAME:?message}` without a value.
    #[error("variable `{name}`: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What stands behind the `?`, or the default message.
        message: String,
    },
    /// A pattern that is none.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The result is over 1 MiB.
    #[error("the expanded text is longer than 1 MiB")]
    TooLong,
    /// The results of the whole file are over 64 MiB.
    #[error(
        "the file's texts are longer than 64 MiB together once they are expanded, the environment of each RUN included"
    )]
    TooMuch,
}

/// A text with values in place of variables.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Expanded<T> {
    /// The result.
    pub(crate) value: T,
    /// Variables that are not set and have no default, with their places as byte offsets into the raw text.
    pub(crate) missing: Vec<(String, Range<usize>)>,
}

/// Expands to one text; quotes are removed.
pub(crate) fn word(raw: &str, escape: Escape, env: &Environment) -> Result<Expanded<String>, ExpandError> {
    evaluate(&parse_word(raw, escape)?, escape, env)
}

/// Expands the body of a heredoc: quotes are text, and the escape character is always the backslash.
pub(crate) fn text(raw: &str, env: &Environment) -> Result<Expanded<String>, ExpandError> {
    evaluate(&parse_text(raw)?, Escape::Backslash, env)
}

/// Expands and splits at blanks that are neither quoted nor escaped. Empty words are dropped.
pub(crate) fn words(
    raw: &str,
    escape: Escape,
    env: &Environment,
) -> Result<Expanded<Vec<String>>, ExpandError> {
    let mut evaluator = Evaluator { env, escape: escape.char(), missing: Vec::new() };
    let mut words = vec![String::new()];
    for part in parse_word(raw, escape)? {
        let value = evaluator.parts(std::slice::from_ref(&part), Escapes::Removed)?;
        let splits = matches!(part, Part::Literal(_) | Part::Variable(_));
        let mut pieces =
            if splits { value.split(char::is_whitespace).collect() } else { vec![value.as_str()] }
                .into_iter();
        if let (Some(last), Some(first)) = (words.last_mut(), pieces.next()) {
            last.push_str(first);
        }
        words.extend(pieces.map(ToOwned::to_owned));
    }
    words.retain(|word| !word.is_empty());
    Ok(Expanded { value: words, missing: evaluator.missing })
}

/// The place of a part of a word. A word that was continued over lines has no such places, only one as a whole.
pub(crate) fn place(word: &Spanned<Word>, range: &Range<usize>) -> Span {
    if word.span.range().len() != word.as_str().len() {
        return word.span;
    }
    let offset = |at: usize| u32::try_from(at).map_or(word.span.end, |at| word.span.start + at);
    Span::new(offset(range.start), offset(range.end))
}

/// Whether there is anything to put a value in.
pub(crate) fn has_variable(parts: &[Part]) -> bool {
    parts.iter().any(|part| match part {
        Part::Variable(_) => true,
        Part::DoubleQuoted(inner) => has_variable(inner),
        Part::Literal(_) | Part::Escaped(_) | Part::SingleQuoted(_) => false,
    })
}

fn evaluate(parts: &[Part], escape: Escape, env: &Environment) -> Result<Expanded<String>, ExpandError> {
    let mut evaluator = Evaluator { env, escape: escape.char(), missing: Vec::new() };
    let value = evaluator.parts(parts, Escapes::Removed)?;
    Ok(Expanded { value, missing: evaluator.missing })
}

struct Evaluator<'e> {
    env: &'e Environment,
    escape: char,
    missing: Vec<(String, Range<usize>)>,
}

/// What becomes of the escape character before an escaped one.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Escapes {
    Removed,
    Kept,
    /// Written as a backslash whatever the file's escape character is, since patterns know no other.
    Backslash,
}

impl Evaluator<'_> {
    /// Recurses as deep as the word nests, which `dockerfile::MAX_DEPTH` bounds.
    fn parts(&mut self, parts: &[Part], escapes: Escapes) -> Result<String, ExpandError> {
        let mut result = String::new();
        for part in parts {
            match part {
                Part::Literal(text) | Part::SingleQuoted(text) => result.push_str(text),
                Part::Escaped(c) => {
                    match escapes {
                        Escapes::Removed => {}
                        Escapes::Kept => result.push(self.escape),
                        Escapes::Backslash => result.push('\\'),
                    }
                    result.push(*c);
                }
                Part::DoubleQuoted(inner) => result.push_str(&self.parts(inner, escapes)?),
                Part::Variable(variable) => result.push_str(&self.variable(variable)?),
            }
            if result.len() > MAX_RESULT_BYTES {
                return Err(ExpandError::TooLong);
            }
        }
        Ok(result)
    }

    fn variable(&mut self, variable: &Variable) -> Result<String, ExpandError> {
        let value = self.env.get(&variable.name);
        match &variable.operator {
            Operator::Value => Ok(self.value_or_missing(variable).to_owned()),
            Operator::Default(when, word) => match present(value, *when) {
                Some(value) => Ok(value.to_owned()),
                None => self.parts(word, Escapes::Removed),
            },
            Operator::Alternate(when, word) => match present(value, *when) {
                Some(_) => self.parts(word, Escapes::Removed),
                None => Ok(String::new()),
            },
            Operator::Require(when, word) => match present(value, *when) {
                Some(value) => Ok(value.to_owned()),
                None => Err(self.required(variable, word)),
            },
            Operator::StripPrefix(length, pattern) => {
                let pattern = self.pattern(pattern)?;
                Ok(pattern.strip_prefix(self.value_or_missing(variable), (*length).into()).to_owned())
            }
            Operator::StripSuffix(length, pattern) => {
                let pattern = self.pattern(pattern)?;
                Ok(pattern.strip_suffix(self.value_or_missing(variable), (*length).into()).to_owned())
            }
            Operator::Replace(occurrences, pattern, word) => {
                let pattern = self.pattern(pattern)?;
                let replacement = self.parts(word, Escapes::Kept)?;
                let value = self.value_or_missing(variable);
                match occurrences {
                    Occurrences::First => Ok(pattern.replace_first(value, &replacement)),
                    Occurrences::All => {
                        pattern.replace_all(value, &replacement, MAX_RESULT_BYTES).ok_or(ExpandError::TooLong)
                    }
                }
            }
        }
    }

    fn pattern(&mut self, parts: &[Part]) -> Result<Pattern, ExpandError> {
        Ok(Pattern::parse(&self.parts(parts, Escapes::Backslash)?)?)
    }

    fn required(&mut self, variable: &Variable, word: &[Part]) -> ExpandError {
        let message = match self.parts(word, Escapes::Removed) {
            Ok(message) => message,
            Err(error) => return error,
        };
        let default = match self.env.get(&variable.name) {
            Some(_) => "is not allowed to be empty",
            None => "is not allowed to be unset",
        };
        let message = if message.is_empty() { default.to_owned() } else { message };
        ExpandError::Required { name: variable.name.clone(), message }
    }

    fn value_or_missing(&mut self, variable: &Variable) -> &str {
        let value = self.env.get(&variable.name);
        if value.is_none() {
            self.missing.push((variable.name.clone(), variable.span.range()));
        }
        value.unwrap_or_default()
    }
}

fn present(value: Option<&str>, when: Absence) -> Option<&str> {
    match when {
        Absence::Unset => value,
        Absence::UnsetOrEmpty => value.filter(|value| !value.is_empty()),
    }
}

impl From<Match> for Length {
    fn from(length: Match) -> Self {
        match length {
            Match::Shortest => Self::Shortest,
            Match::Longest => Self::Longest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VariableOrigin;
    use expect_test::{Expect, expect};

    fn env() -> Environment {
        let mut env = Environment::default();
        let pairs = [
            ("v", "foobarbaz"),
            ("empty", ""),
            ("ports", "80 443/tcp"),
            ("star", "*"),
            ("path", "/a/b.tar.gz"),
            ("nested", "$v"),
            ("ünï", "unicode"),
            ("1", "one"),
            ("lines", "a\nb"),
        ];
        for (name, value) in pairs {
            env.set(name, value, VariableOrigin::Env);
        }
        env
    }

    #[track_caller]
    fn check(raw: &str, expected: Expect) {
        check_escape(raw, Escape::Backslash, expected);
    }

    #[track_caller]
    fn check_escape(raw: &str, escape: Escape, expected: Expect) {
        let actual = match word(raw, escape, &env()) {
            Ok(expanded) if expanded.missing.is_empty() => expanded.value,
            Ok(expanded) => {
                let missing: Vec<_> = expanded.missing.iter().map(|(name, _)| name.as_str()).collect();
                format!("{} (missing {})", expanded.value, missing.join(" "))
            }
            Err(error) => format!("error: {error}"),
        };
        expected.assert_eq(&actual);
    }

    #[track_caller]
    fn check_words(raw: &str, expected: Expect) {
        expected.assert_eq(&format!("{:?}", words(raw, Escape::Backslash, &env()).unwrap().value));
    }

    #[track_caller]
    fn check_text(raw: &str, expected: Expect) {
        expected.assert_eq(&text(raw, &env()).unwrap().value);
    }

    #[test]
    fn plain_forms_take_the_value_or_nothing() {
        check("$v", expect!["foobarbaz"]);
        check("${v}x", expect!["foobarbazx"]);
        check("a$v.b", expect!["afoobarbaz.b"]);
        check("$nope", expect![" (missing nope)"]);
        check("$vx ${v}x", expect![" foobarbazx (missing vx)"]);
        check("$ünï", expect!["unicode"]);
        check("$nested", expect!["$v"]);
    }

    #[test]
    fn digits_and_special_characters_are_names_of_their_own() {
        check("$1x", expect!["onex"]);
        check("$12x", expect!["x (missing 12)"]);
        check("$@|$*|$$|$?", expect!["||| (missing @ * $ ?)"]);
        check("$. $ $", expect!["$. $ $"]);
    }

    #[test]
    fn defaults_and_alternates() {
        check("${empty:-d}|${empty-d}|${nope:-d}|${nope-d}|${v:-d}", expect!["d||d|d|foobarbaz"]);
        check("${empty:+a}|${empty+a}|${nope:+a}|${nope+a}|${v:+a}", expect!["|a|||a"]);
        check("${nope:-${nope:-${v}}}", expect!["foobarbaz"]);
        check("${nope:-'a b'\"$v\"}", expect!["a bfoobarbaz"]);
        check("${nope:-}", expect![]);
        check("${v:-$nope}", expect!["foobarbaz"]);
    }

    #[test]
    fn required_values_say_what_is_missing() {
        check("${v:?m}|${v?}", expect!["foobarbaz|foobarbaz"]);
        check("${empty?m}", expect![]);
        check("${nope:?need $v}", expect!["error: variable `nope`: need foobarbaz"]);
        check("${nope?}", expect!["error: variable `nope`: is not allowed to be unset"]);
        check("${empty:?}", expect!["error: variable `empty`: is not allowed to be empty"]);
    }

    #[test]
    fn patterns_strip_and_replace() {
        check("${v#f*b}|${v##f*b}|${v%b*}|${v%%b*}", expect!["arbaz|az|foobar|foo"]);
        check("${v/ba/fo}|${v//ba/fo}|${v/ba/}|${v/x/y}", expect!["fooforbaz|fooforfoz|foorbaz|foobarbaz"]);
        check("${path##*/}|${path%.*}|${path%%.*}", expect!["b.tar.gz|/a/b.tar|/a/b"]);
        check(r"${path//\//-}", expect!["-a-b.tar.gz"]);
        check("${v/$star/x}|${v#$nope}", expect!["x|foobarbaz (missing nope)"]);
        check(r"${star/\*/s}|${v/\*/s}", expect!["s|foobarbaz"]);
        check("${v//a/$1}", expect!["foobonerbonez"]);
        check("${v//a/'}'}", expect!["foob}rb}z"]);
        check(r"${v/b/\}}", expect![[r#"foo\}arbaz"#]]);
        check(
            r"${v#\d}",
            expect![[r#"error: pattern `\d` has `\d`, but only `*`, `?`, `\`, `/` and `}` can be escaped"#]],
        );
        check("${nope#x}", expect![" (missing nope)"]);
        check(
            "${lines#*}|${lines##*}",
            expect![[r#"
            a
            b|
            b"#]],
        );
    }

    #[test]
    fn quotes_are_removed_and_single_ones_keep_everything() {
        check(r#"'$v'|"$v"|"'$v'"|'"'"#, expect![[r#"$v|foobarbaz|'foobarbaz'|""#]]);
        check(r#"\$v|"\$v"|"\""|"\n"|\n"#, expect![[r#"$v|$v|"|\n|n"#]]);
        check(r#"a\ b|"a\\b"|x\"#, expect![[r#"a b|a\b|x"#]]);
        check("'open", expect!["error: the quote ' is never closed"]);
        check("\"open", expect![[r#"error: the quote " is never closed"#]]);
    }

    #[test]
    fn a_backtick_can_be_the_escape() {
        check_escape(r"`$v|\$v|c:\x", Escape::Backtick, expect![[r#"$v|\foobarbaz|c:\x"#]]);
        check_escape("${star/`*/s}", Escape::Backtick, expect!["s"]);
    }

    #[test]
    fn malformed_forms_are_errors() {
        check("${", expect!["error: `${` is never closed by `}`"]);
        check("${}", expect!["error: a variable name must follow `${`"]);
        check("${v", expect!["error: `${` is never closed by `}`"]);
        check("${:x}", expect!["error: a variable name must follow `${`"]);
        check("${v^x}", expect!["error: `^` cannot follow a variable name in `${…}`"]);
        check("${v:x}", expect!["error: `:x` cannot follow a variable name in `${…}`"]);
        check("${v/x}", expect!["error: `${V/pattern/replacement}` lacks its second `/`"]);
    }

    #[test]
    fn words_split_at_blanks_of_values_but_not_of_quotes() {
        check_words("$ports", expect![[r#"["80", "443/tcp"]"#]]);
        check_words("a${ports}b", expect![[r#"["a80", "443/tcpb"]"#]]);
        check_words(r#""$ports" 'x y' z\ z"#, expect![[r#"["80 443/tcp", "x y", "z z"]"#]]);
        check_words("$empty", expect!["[]"]);
    }

    #[test]
    fn heredocs_keep_quotes() {
        check_text(
            "\"$v\" 'it''s $v' \\$v\n",
            expect![[r#"
            "foobarbaz" 'it''s foobarbaz' $v
        "#]],
        );
    }

    #[test]
    fn results_are_bounded() {
        let mut env = Environment::default();
        env.set("a", "x".repeat(1 << 16), VariableOrigin::Env);
        let raw = "${a}".repeat(17);
        assert_eq!(word(&raw, Escape::Backslash, &env), Err(ExpandError::TooLong));
        let bomb = format!("${{a//x/{}}}", "y".repeat(1 << 10));
        assert_eq!(word(&bomb, Escape::Backslash, &env), Err(ExpandError::TooLong));
    }
}
