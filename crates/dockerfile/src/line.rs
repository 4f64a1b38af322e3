//! Physical lines to logical lines: comments, continuations, and the way back to the source.
//!
//! The rules are BuildKit's, in its order. The byte order mark goes; `\r` and `\n` at a line's end go; the first line of an instruction
//! loses its leading blanks, the following ones keep theirs; a line that begins with `#` is nothing, also within an
//! instruction; an escape character at the end of a line, not behind another one, joins the next line without anything in between; blank
//! lines within an instruction are left out (and warned about). There is no limit on a line's length.

use nom::Offset;

use crate::ast::Escape;
use crate::cost;
use crate::span::Span;

const BYTE_ORDER_MARK: &str = "\u{FEFF}";

/// A line of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PhysicalLine<'a> {
    /// Its text without its end.
    pub text: &'a str,
    /// The offset of its first byte.
    pub start: u32,
}

impl PhysicalLine<'_> {
    pub(crate) fn span(&self) -> Span {
        Span::new(self.start, self.start + self.text.len() as u32)
    }
}

/// The physical lines from some place on.
#[derive(Clone, Debug)]
pub(crate) struct PhysicalLines<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> PhysicalLines<'a> {
    pub(crate) fn new(source: &'a str) -> Self {
        let at = if source.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        Self { source, at }
    }

    /// The offset at which the next line begins.
    pub(crate) fn offset(&self) -> u32 {
        self.at as u32
    }

    /// The source's text below a span.
    pub(crate) fn slice(&self, span: Span) -> &'a str {
        &self.source[span.range()]
    }
}

impl<'a> Iterator for PhysicalLines<'a> {
    type Item = PhysicalLine<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let full = self.source[self.at..].split_inclusive('\n').next()?;
        cost::spend(full.len());
        let start = self.at as u32;
        self.at += full.len();
        Some(PhysicalLine { text: full.trim_end_matches(['\r', '\n']), start })
    }
}

/// An instruction's lines joined into one text that knows where each byte came from.
#[derive(Debug, Default)]
pub(crate) struct LogicalLine {
    /// The joined text, blanks at its end kept.
    pub text: String,
    /// The blank lines within it.
    pub blank_lines: Vec<Span>,
    pieces: Vec<Piece>,
}

/// A run of bytes that stands in the source as it stands in the joined text.
#[derive(Debug)]
struct Piece {
    joined: usize,
    source: u32,
}

impl LogicalLine {
    fn push(&mut self, text: &str, source: u32) {
        self.pieces.push(Piece { joined: self.text.len(), source });
        cost::spend(text.len());
        self.text.push_str(text);
    }

    /// The place of a part of [`LogicalLine::text`]; the part must be a slice of it.
    pub(crate) fn span_of(&self, part: &str) -> Span {
        let start = self.text.offset(part);
        if part.is_empty() {
            let at = self.source_of(start);
            return Span::new(at, at);
        }
        // The end belongs to the piece of the last byte: the piece behind it may lie lines further down.
        Span::new(self.source_of(start), self.source_of(start + part.len() - 1) + 1)
    }

    fn source_of(&self, joined: usize) -> u32 {
        cost::spend(1);
        let index = self.pieces.partition_point(|piece| piece.joined <= joined);
        let piece = &self.pieces[index.saturating_sub(1)];
        piece.source + (joined - piece.joined) as u32
    }
}

/// What the lines of a file come to.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    /// A comment on a line of its own: its text without `#`, blanks trimmed.
    Comment(&'a str),
    /// An instruction's joined lines.
    Instruction(LogicalLine),
}

/// Reads the next comment or instruction; `None` at the end of the file.
pub(crate) fn next_item<'a>(lines: &mut PhysicalLines<'a>, escape: Escape) -> Option<Item<'a>> {
    loop {
        let first = lines.next()?;
        let text = first.text.trim_start();
        if let Some(comment) = text.strip_prefix('#') {
            return Some(Item::Comment(comment.trim()));
        }
        let line = join(lines, first, text, escape);
        if !line.text.trim().is_empty() {
            return Some(Item::Instruction(line));
        }
    }
}

fn join(lines: &mut PhysicalLines<'_>, first: PhysicalLine<'_>, text: &str, escape: Escape) -> LogicalLine {
    let mut line = LogicalLine::default();
    let start = first.start + (first.text.len() - text.len()) as u32;
    let mut continued = continuation(text, escape);
    line.push(continued.unwrap_or(text), start);
    while continued.is_some() {
        let Some(next) = lines.next() else { break };
        let unindented = next.text.trim_start();
        if unindented.starts_with('#') {
            continue;
        }
        if unindented.is_empty() {
            line.blank_lines.push(next.span());
            continue;
        }
        continued = continuation(next.text, escape);
        line.push(continued.unwrap_or(next.text), next.start);
    }
    line
}

/// The text of a line that the next one continues, without the escape character and the blanks behind it.
fn continuation(text: &str, escape: Escape) -> Option<&str> {
    let escape = escape.char();
    let continued = text.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!continued.ends_with(escape)).then_some(continued)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(text: &str) -> LogicalLine {
        match next_item(&mut PhysicalLines::new(text), Escape::Backslash) {
            Some(Item::Instruction(line)) => line,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_part_that_spans_a_continuation_leads_back_to_both_lines() {
        let line = instruction("  RUN a\\\n# note\n  b\n");
        assert_eq!(line.text, "RUN a  b");
        assert_eq!(line.span_of(&line.text), Span::new(2, 19));
        assert_eq!(line.span_of(&line.text[4..5]), Span::new(6, 7));
        assert_eq!(line.span_of(&line.text[7..]), Span::new(18, 19));
    }

    #[test]
    fn an_escaped_escape_does_not_continue() {
        assert_eq!(instruction("RUN a \\\\\nb").text, "RUN a \\\\");
        assert_eq!(instruction("RUN a \\ \t\nb").text, "RUN a b");
        assert_eq!(instruction("RUN a \\").text, "RUN a ");
    }
}
