//! Dockerfile text to a syntax tree with spans.
//!
//! [`parse`](fn@parse) reads a [`Source`] in one pass and always gives both: the [`File`] as far as it could be understood, and every
//! [`Finding`] there is. It follows BuildKit: what BuildKit accepts is accepted and means the same. Where a rule differs, the module
//! that holds it says so and why.
//!
//! The way of a line:
//!
//! * `line`: bytes to physical lines to logical lines (comments, continuations), with the way back to the source;
//! * `directive`: the `# key=value` lines at the top;
//! * `lexis`: keyword, flags, words, JSON arrays, as slices of the line;
//! * `heredoc`: markers in the line, bodies below it;
//! * `instruction`, `command`, `transfer`, `flags`, `mount`, `duration`: slices to the typed [`Instruction`];
//! * `parse`: instructions to stages; `lint`: the rules that need no more than this, `improve` those of them that only who asks
//!   for a lint wants to hear; `rule` and `policy`: which rules there are in the whole program, and which are reported.
//!
//! Nothing is expanded here. A [`Word`] keeps its raw text, and [`parse_word`] takes it apart for whoever knows the variables.
//! Nothing is looked up either: no file, no image, no environment.
//!
//! ```
//! use dockerfile::{Instruction, Source};
//!
//! let source = Source::new("Dockerfile", b"FROM alpine AS base\nRUN apk add make\nCOYP . /src\n");
//! let parsed = dockerfile::parse(&source);
//!
//! let stage = &parsed.file.stages[0];
//! assert_eq!(stage.image.as_str(), "alpine");
//! assert!(matches!(stage.instructions[0].instruction, Instruction::Run(_)));
//!
//! let finding = &parsed.findings[0];
//! assert_eq!(finding.code.as_str(), "unknown-instruction");
//! assert_eq!(source.position(finding.span.start).to_string(), "3:1");
//! assert_eq!(finding.help.as_deref(), Some("did you mean `COPY`?"));
//! ```

#![forbid(unsafe_code)]

pub mod ast;
mod command;
mod cost;
mod directive;
mod duration;
mod finding;
mod flags;
mod heredoc;
mod improve;
mod instruction;
mod keyword;
mod lexis;
mod line;
mod lint;
mod mount;
mod parse;
mod policy;
mod print;
mod rule;
mod scope;
mod span;
mod transfer;
mod word;

pub use ast::{
    Add, Arg, ArgDeclaration, CacheSharing, Check, Cmd, CommandLine, Copy, CopySource, DeviceFlag,
    Directives, Entrypoint, Env, Escape, Expansion, Expose, File, GlobalArg, Healthcheck, HealthcheckCommand,
    Heredoc, Indentation, Instruction, KeyValue, KeyValueForm, Maintainer, MountField, MountFlag, MountKey,
    MountType, NetworkMode, Onbuild, RuleSet, Run, SecurityMode, Shell, Stage, StageName, Statement,
    StopSignal, Syntax, UnknownName, User, Volume, Word, Workdir,
};
pub use directive::CheckError;
pub use finding::{Code, Finding, Label, Severity};
pub use improve::improvements;
pub use parse::{Parsed, parse};
pub use policy::{Audience, Level, Policy, UnknownLevel};
pub use rule::{Origin, Reported, Rule, UnknownRule};
pub use span::{MAX_SOURCE_BYTES, Position, Source, Span, Spanned};
pub use word::{
    Absence, MAX_DEPTH, Match, Occurrences, Operator, Part, Variable, WordError, parse_text, parse_word,
};
