//! The typed flags of an instruction: taken one by one by name, what is left over is unknown.

use crate::ast::Word;
use crate::cost;
use crate::finding::{Code, Finding};
use crate::keyword::Keyword;
use crate::lexis::{RawFlag, RawValue};
use crate::scope::Scope;
use crate::span::{Span, Spanned};
use suggest::nearest;

/// A flag's value with the places of its parts.
#[derive(Debug)]
pub(crate) struct FlagValue<'a> {
    /// With quotes and escapes removed.
    pub text: String,
    /// Its place, quotes included.
    pub span: Span,
    raw: &'a str,
}

impl FlagValue<'_> {
    /// The place of a slice of `text`: exact unless quotes or escapes were removed, then that of the whole value.
    pub(crate) fn span_of(&self, part: &str, scope: &Scope<'_>) -> Span {
        if self.text != self.raw {
            return self.span;
        }
        let start = nom::Offset::offset(self.text.as_str(), part);
        scope.span(&self.raw[start..start + part.len()])
    }
}

pub(crate) struct Flags<'a> {
    keyword: Keyword,
    given: Vec<RawFlag<'a>>,
    known: Vec<&'static str>,
}

impl<'a> Flags<'a> {
    /// `None` if a quote among the flags is never closed: it has swallowed the rest of the line, arguments included.
    pub(crate) fn new(keyword: Keyword, given: Vec<RawFlag<'a>>, scope: &mut Scope<'_>) -> Option<Self> {
        if let Some(quote) = given.iter().find_map(|flag| flag.open_quote) {
            let message = format!("the quote {quote} is never closed");
            let finding = Finding::new(Code::UnbalancedQuote, scope.span(quote), message);
            scope.report(finding.with_help(format!("close it with another {quote}")));
            return None;
        }
        Some(Self { keyword, given, known: Vec::new() })
    }

    /// Every flag called `name`.
    fn take(&mut self, name: &'static str) -> Vec<RawFlag<'a>> {
        cost::spend(self.given.len());
        self.known.push(name);
        let (taken, left) = std::mem::take(&mut self.given).into_iter().partition(|flag| flag.name == name);
        self.given = left;
        taken
    }

    /// The flag called `name`, which may be given once.
    fn take_one(&mut self, name: &'static str, scope: &mut Scope<'_>) -> Option<RawFlag<'a>> {
        let mut taken = self.take(name).into_iter();
        let first = taken.next()?;
        for again in taken {
            let message = format!("`--{name}` can be given only once");
            let finding = Finding::new(Code::DuplicateFlag, scope.span(again.raw), message);
            scope.report(finding.with_label(scope.span(first.raw), "first given here"));
        }
        Some(first)
    }

    /// The value of a flag that may be given once and needs one.
    pub(crate) fn value(&mut self, name: &'static str, scope: &mut Scope<'_>) -> Option<FlagValue<'a>> {
        let flag = self.take_one(name, scope)?;
        needed_value(flag, scope)
    }

    /// The values of a flag that may be repeated.
    pub(crate) fn values(&mut self, name: &'static str, scope: &mut Scope<'_>) -> Vec<FlagValue<'a>> {
        self.take(name).into_iter().filter_map(|flag| needed_value(flag, scope)).collect()
    }

    /// The value of a flag as a word that the builder expands; an empty one is as good as none.
    pub(crate) fn word(&mut self, name: &'static str, scope: &mut Scope<'_>) -> Option<Spanned<Word>> {
        let value = self.value(name, scope).filter(|value| !value.text.is_empty())?;
        Some(scope.decoded_word(value.text, value.span))
    }

    /// The values of a flag as words that are never expanded.
    pub(crate) fn plain_words(&mut self, name: &'static str, scope: &mut Scope<'_>) -> Vec<Spanned<Word>> {
        let values = self.values(name, scope);
        values.into_iter().map(|value| Spanned::new(Word::new(value.text), value.span)).collect()
    }

    /// A flag that stands alone for true, or has `=true` or `=false`.
    pub(crate) fn switch(&mut self, name: &'static str, scope: &mut Scope<'_>) -> Option<Spanned<bool>> {
        let flag = self.take_one(name, scope)?;
        let Some(RawValue { text, raw }) = flag.value else {
            return Some(Spanned::new(true, scope.span(flag.raw)));
        };
        match text.to_lowercase().as_str() {
            "true" => Some(Spanned::new(true, scope.span(flag.raw))),
            "false" => Some(Spanned::new(false, scope.span(flag.raw))),
            _ => {
                let message = format!("`--{name}` is `true` or `false`, not `{text}`");
                let span = scope.span(if raw.is_empty() { flag.raw } else { raw });
                scope.report(Finding::new(Code::InvalidFlagValue, span, message));
                None
            }
        }
    }

    /// Reports the flags that nobody took.
    pub(crate) fn finish(self, scope: &mut Scope<'_>) {
        for flag in &self.given {
            let message = format!("`{}` has no flag `--{}`", self.keyword, flag.name);
            let finding = Finding::new(Code::UnknownFlag, scope.span(flag.raw), message);
            scope.report(finding.with_help(self.help(&flag.name)));
        }
    }

    fn help(&self, name: &str) -> String {
        match (nearest(name, self.known.iter().copied()), self.known.as_slice()) {
            (Some(near), _) => format!("did you mean `--{near}`?"),
            (None, []) => format!("if it belongs to the argument, write `{} -- --{name}`", self.keyword),
            (None, known) => format!("its flags are `--{}`", known.join("`, `--")),
        }
    }
}

fn needed_value<'a>(flag: RawFlag<'a>, scope: &mut Scope<'_>) -> Option<FlagValue<'a>> {
    let Some(RawValue { text, raw }) = flag.value else {
        let message = format!("`--{}` needs a value", flag.name);
        let finding = Finding::new(Code::MissingFlagValue, scope.span(flag.raw), message);
        scope.report(finding.with_help(format!("write `--{}=VALUE`, without blanks around `=`", flag.name)));
        return None;
    };
    let span = scope.span(raw);
    Some(FlagValue { text, span, raw })
}
