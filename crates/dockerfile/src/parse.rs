//! The whole file: directives, then lines to instructions, instructions to stages.
//!
//! One pass, linear in the file's length. Nothing stops it: a broken line is reported and left out, and the next one is read as if
//! nothing had been, so that all problems come at once. What only follows from an earlier problem is not reported again: after a
//! broken `FROM` its instructions are still checked, but nobody complains that they have no stage.

use crate::ast::{Arg, File, GlobalArg, Instruction, Stage, StageName, Statement};
use crate::directive;
use crate::finding::{Code, Finding, Severity};
use crate::flags::Flags;
use crate::heredoc;
use crate::instruction::{self, Head};
use crate::keyword::Keyword;
use crate::lexis;
use crate::line::{self, Item, LogicalLine, PhysicalLines};
use crate::lint;
use crate::scope::Scope;
use crate::span::{MAX_SOURCE_BYTES, Source, Span, Spanned};

/// A file as far as it could be understood, and everything there is to say about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parsed {
    /// The syntax tree; complete if no finding is an error.
    pub file: File,
    /// The findings in the order of their places.
    pub findings: Vec<Finding>,
}

impl Parsed {
    /// Whether the file cannot be built.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// Reads a Dockerfile. Never fails and never panics, whatever the bytes.
///
/// All findings are there, whatever the file's own `# check=` says: [`crate::Policy`] tells which of them are to be reported.
pub fn parse(source: &Source) -> Parsed {
    let mut parser = Parser::new(source);
    parser.check_bytes();
    parser.file.directives = directive::read(&mut parser.lines, &mut parser.findings);
    while let Some(item) = line::next_item(&mut parser.lines, parser.file.escape()) {
        match item {
            Item::Comment("") => parser.comments.clear(),
            Item::Comment(text) => parser.comments.push(text),
            Item::Instruction(line) => parser.instruction(&line),
        }
    }
    parser.finish()
}

/// Where instructions go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// Before the first `FROM`.
    BeforeStages,
    /// Before the first `FROM`, and it has been said that they cannot stand there.
    Misplaced,
    /// Into the last stage.
    InStage,
    /// Behind a `FROM` that could not be understood.
    InBrokenStage,
}

struct Parser<'a> {
    source: &'a Source,
    lines: PhysicalLines<'a>,
    file: File,
    findings: Vec<Finding>,
    /// The comments right above the next instruction.
    comments: Vec<&'a str>,
    place: Place,
    casing: lint::Casing,
    instructions: usize,
}

impl<'a> Parser<'a> {
    fn new(source: &'a Source) -> Self {
        Self {
            source,
            lines: PhysicalLines::new(source.text()),
            file: File::default(),
            findings: Vec::new(),
            comments: Vec::new(),
            place: Place::BeforeStages,
            casing: lint::Casing::default(),
            instructions: 0,
        }
    }

    fn check_bytes(&mut self) {
        if self.source.dropped_bytes() > 0 {
            let end = self.source.text().len() as u32;
            let message = format!("the file is larger than {} MiB", MAX_SOURCE_BYTES >> 20);
            self.findings.push(Finding::new(Code::FileTooLarge, Span::new(end, end), message));
        }
        for &span in self.source.replaced() {
            let finding = Finding::new(Code::InvalidUtf8, span, "these bytes are not UTF-8");
            self.findings.push(finding.with_help("save the file as UTF-8; they were read as U+FFFD"));
        }
    }

    fn instruction(&mut self, line: &LogicalLine) {
        let escape = self.file.escape();
        let comments = std::mem::take(&mut self.comments);
        let head = Head::of(&line.text, escape.char());
        let mut scope = Scope { line, escape, findings: &mut self.findings };
        self.instructions += 1;
        lint::empty_continuation(line, &head, &mut scope);
        let mut heredocs = Vec::new();
        let body_start = self.lines.offset();
        if head.takes_heredocs(escape.char()) {
            heredocs = heredoc::read_bodies(&heredoc::markers(&line.text), &mut self.lines, &mut scope);
        }
        let mut span = scope.span(line.text.trim());
        if !heredocs.is_empty() {
            let bodies = self.lines.slice(Span::new(body_start, self.lines.offset()));
            span.end = body_start + bodies.trim_end_matches(['\r', '\n']).len() as u32;
        }
        self.file.checks.extend(directive::local_check(&comments).map(|check| Spanned::new(check, span)));
        let Some(keyword) = head.keyword else { return instruction::unknown(&head, &mut scope) };
        if keyword == Keyword::From {
            return self.from(head, line, &comments, span);
        }
        let (word, word_span) = (head.word, scope.span(head.word));
        let parsed = instruction::parse(head, keyword, heredocs, &mut scope);
        if !self.belongs_to_stage(keyword, word_span) {
            return self.global_arg(parsed, line, &comments, span);
        }
        self.casing.add(keyword, word, word_span);
        if let Some(mut instruction) = parsed {
            describe_arg(&mut instruction, &comments, &mut self.findings);
            self.push(Statement { instruction, span, text: line.text.trim().to_owned() });
        }
    }

    /// Whether an instruction goes into a stage; one that may not stand where it does is reported, once.
    fn belongs_to_stage(&mut self, keyword: Keyword, span: Span) -> bool {
        match self.place {
            Place::InStage | Place::InBrokenStage => true,
            Place::BeforeStages | Place::Misplaced if keyword == Keyword::Arg => false,
            Place::Misplaced => false,
            Place::BeforeStages => {
                self.place = Place::Misplaced;
                let message = format!("`{keyword}` stands before the first `FROM`");
                let finding = Finding::new(Code::InstructionBeforeFrom, span, message);
                self.findings
                    .push(finding.with_help("begin with `FROM image`; only `ARG` may stand before it"));
                false
            }
        }
    }

    fn push(&mut self, statement: Statement) {
        if self.place == Place::InStage
            && let Some(stage) = self.file.stages.last_mut()
        {
            stage.instructions.push(statement);
        }
    }

    fn global_arg(&mut self, parsed: Option<Instruction>, line: &LogicalLine, comments: &[&str], span: Span) {
        let Some(mut instruction) = parsed else { return };
        describe_arg(&mut instruction, comments, &mut self.findings);
        if let Instruction::Arg(arg) = instruction {
            let text = line.text.trim().to_owned();
            self.file.global_args.push(GlobalArg { arg, span, text });
        }
    }

    fn from(&mut self, head: Head<'_>, line: &LogicalLine, comments: &[&str], span: Span) {
        let mut scope = Scope { line, escape: self.file.escape(), findings: &mut self.findings };
        self.casing.add(Keyword::From, head.word, scope.span(head.word));
        let stage = from(head, comments, span, &mut scope);
        self.place = if stage.is_some() { Place::InStage } else { Place::InBrokenStage };
        self.file.stages.extend(stage);
    }

    fn finish(mut self) -> Parsed {
        self.check_contents();
        self.casing.check(&mut self.findings);
        lint::stages(&self.file, &mut self.findings);
        self.findings.sort_by_key(|finding| finding.span);
        Parsed { file: self.file, findings: self.findings }
    }

    /// Reports a file without anything to build.
    fn check_contents(&mut self) {
        let end = self.source.text().trim_end().len() as u32;
        let (code, message) = if self.source.text().is_empty() {
            (Code::EmptyFile, "the file is empty")
        } else if self.instructions == 0 {
            (Code::NoInstructions, "the file has no instructions")
        } else if self.place == Place::BeforeStages
            && self.findings.iter().all(|f| f.severity != Severity::Error)
        {
            (Code::NoStage, "the file has no `FROM`, so there is nothing to build")
        } else {
            return;
        };
        let finding = Finding::new(code, Span::new(end, end), message);
        self.findings.push(finding.with_help("begin with `FROM image`"));
    }
}

/// `FROM [--platform=…] image [AS name]`
fn from(head: Head<'_>, comments: &[&str], span: Span, scope: &mut Scope<'_>) -> Option<Stage> {
    let words = lexis::list(head.arguments);
    let mut flags = Flags::new(Keyword::From, head.flags, scope)?;
    let platform = flags.word("platform", scope);
    flags.finish(scope);
    let name = match words.as_slice() {
        [] => {
            scope.missing(Keyword::From, head.word, "an image");
            return None;
        }
        [_] => None,
        [_, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            lint::stage_casing(head.word, keyword, name, scope);
            stage_name(name, scope)
        }
        [_, others @ ..] => {
            too_many_words(others, head.arguments, scope);
            None
        }
    };
    let doc = name.as_ref().and_then(|name| description(comments, name.as_str()));
    if let Some(name) = &name {
        lint::description("FROM", &[name.as_str()], comments, name.span, scope.findings);
    }
    let text = scope.line.text.trim().to_owned();
    let image = scope.word(words[0]);
    Some(Stage { image, platform, name, doc, span, text, instructions: Vec::new() })
}

fn stage_name(name: &str, scope: &mut Scope<'_>) -> Option<Spanned<StageName>> {
    let span = scope.span(name);
    let parsed = StageName::new(name);
    if parsed.is_none() {
        let finding =
            Finding::new(Code::InvalidStageName, span, format!("`{name}` cannot be the name of a stage"));
        scope.report(
            finding.with_help("a name begins with a letter; letters, digits, `-`, `_` and `.` follow"),
        );
    }
    Some(Spanned::new(parsed?, span))
}

fn too_many_words(others: &[&str], arguments: &str, scope: &mut Scope<'_>) {
    let at = &arguments[nom::Offset::offset(arguments, others[0])..];
    let finding = Finding::new(
        Code::InvalidFrom,
        scope.span(at),
        "`FROM` takes an image, or an image, `AS` and a name",
    );
    scope.report(match others {
        [word, ..] if word.starts_with('#') => finding.with_help("put the comment on a line of its own"),
        [word] if word.eq_ignore_ascii_case("as") => finding.with_help("write the stage's name behind `AS`"),
        [name] => finding.with_help(format!("did you mean `AS {name}`?")),
        [word, name] => finding.with_help(format!("write `AS {name}` in place of `{word} {name}`")),
        [_, _, ..] if others.iter().any(|word| word.starts_with('#')) => {
            finding.with_help("put the comment on a line of its own")
        }
        _ => finding.with_help(format!("write `{}`", Keyword::From.usage())),
    });
}

fn describe_arg(instruction: &mut Instruction, comments: &[&str], findings: &mut Vec<Finding>) {
    if let Instruction::Arg(Arg { declarations }) = instruction {
        let names: Vec<&str> = declarations.iter().map(|declaration| declaration.name.as_str()).collect();
        if let Some(first) = declarations.first() {
            lint::description("ARG", &names, comments, first.name.span, findings);
        }
        for declaration in declarations {
            declaration.doc = description(comments, declaration.name.as_str());
        }
    }
}

/// The rest of the comment above that begins with `name` and a blank.
fn description(comments: &[&str], name: &str) -> Option<String> {
    let text = comments.iter().find_map(|comment| comment.strip_prefix(name)?.strip_prefix(' '))?;
    Some(text.to_owned())
}
