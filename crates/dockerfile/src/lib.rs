//! Dockerfile text to a syntax tree with spans.
#![forbid(unsafe_code)]

pub mod ast;
mod finding;
mod heredoc;
mod span;
mod word;

pub use ast::*;
pub use finding::{Code, Finding, Label, Severity};
pub use span::{MAX_SOURCE_BYTES, Position, Source, Span, Spanned};
pub use word::{
    Absence, MAX_DEPTH, Match, Occurrences, Operator, Part, Variable, WordError, parse_text, parse_word,
};
