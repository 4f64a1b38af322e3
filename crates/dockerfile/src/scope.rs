//! What the parsers of one instruction share: its line, the escape character, the findings.

use crate::ast::{Escape, Word};
use crate::finding::{Code, Finding};
use crate::keyword::Keyword;
use crate::line::LogicalLine;
use crate::span::{Span, Spanned};
use crate::word::{WordError, parse_word};

pub(crate) struct Scope<'a> {
    pub line: &'a LogicalLine,
    pub escape: Escape,
    pub findings: &'a mut Vec<Finding>,
}

impl Scope<'_> {
    /// The place of a slice of the line.
    pub(crate) fn span(&self, part: &str) -> Span {
        self.line.span_of(part)
    }

    pub(crate) fn report(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Reports that the instruction lacks an argument, with its usage as help.
    pub(crate) fn missing(&mut self, keyword: Keyword, at: &str, what: &str) {
        let message = format!("`{keyword}` needs {what}");
        let finding = Finding::new(Code::MissingArgument, self.span(at), message);
        self.report(finding.with_help(format!("write `{}`", keyword.usage())));
    }

    /// A word that the builder will expand: a slice of the line, whose quotes and substitutions are checked.
    pub(crate) fn word(&mut self, raw: &str) -> Spanned<Word> {
        if let Err(error) = parse_word(raw, self.escape) {
            let culprit = &raw[error.at()..];
            let length = culprit.chars().next().map_or(0, char::len_utf8);
            let span = self.span(&culprit[..length]);
            self.report(word_finding(&error, span));
        }
        self.plain_word(raw)
    }

    /// A word that is a slice of the line and never expanded.
    pub(crate) fn plain_word(&self, raw: &str) -> Spanned<Word> {
        Spanned::new(Word::new(raw), self.span(raw))
    }

    /// A word whose text is not as it stands in the line (a JSON string, a flag's value): checked as a whole.
    pub(crate) fn decoded_word(&mut self, text: String, span: Span) -> Spanned<Word> {
        if let Err(error) = parse_word(&text, self.escape) {
            self.report(word_finding(&error, span));
        }
        Spanned::new(Word::new(text), span)
    }
}

fn word_finding(error: &WordError, span: Span) -> Finding {
    let code = match error {
        WordError::UnbalancedQuote { .. } => Code::UnbalancedQuote,
        _ => Code::InvalidSubstitution,
    };
    Finding::new(code, span, error.to_string()).with_help(match error {
        WordError::UnbalancedQuote { quote, .. } => {
            format!(
                "close it with another {quote} within the same word, or write the escape character before it"
            )
        }
        WordError::MissingBrace { .. } => {
            "write `${NAME}`; a default with blanks must stand in quotes".to_owned()
        }
        WordError::BadSubstitution { .. } => "write `${NAME}`, or `\\$` for a dollar sign".to_owned(),
        WordError::UnsupportedModifier { .. } => {
            "forms are `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` `//`".to_owned()
        }
        WordError::MissingSlash { .. } => "write `${NAME/pattern/}` to remove what matches".to_owned(),
        WordError::TooDeep { .. } => "split the value over several ARG instructions".to_owned(),
    })
}
