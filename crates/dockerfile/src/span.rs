//! Places in a Dockerfile: [`Source`], [`Span`], [`Spanned`].
//!
//! Everything the parser makes points back into the file by byte offsets. Offsets are 32 bits wide: half the size of two
//! `usize`s in every node; [`Source::new`] keeps no more than [`MAX_SOURCE_BYTES`], and the parser reports a longer file.

use std::fmt;
use std::ops::Deref;

/// The largest Dockerfile that is read, in bytes: 16 MiB. What lies beyond is dropped with an error finding.
pub const MAX_SOURCE_BYTES: usize = 16 << 20;

/// A half-open range of byte offsets into [`Source::text`].
///
/// An instruction that was continued over several lines has one span, from its first byte to its last, heredoc bodies
/// included; the comments and line breaks between its lines are inside it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset of the first byte after the range.
    pub end: u32,
}

impl Span {
    /// The span from `start` to `end`, both byte offsets.
    pub fn new(start: u32, end: u32) -> Self {
        Self { start, end }
    }

    /// The smallest span that covers both.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The range as `usize`, for slicing the text.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Whether the span covers no byte.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// A value and the place it was read from.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Spanned<T> {
    /// The value.
    pub node: T,
    /// Where it stands in the source.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// Joins a value and its place.
    pub fn new(node: T, span: Span) -> Self {
        Self { node, span }
    }

    /// The same place with the value made into another one.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Spanned<U> {
        Spanned { node: make(self.node), span: self.span }
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.node
    }
}

/// A line and a column, both counted from 1; columns count characters, not bytes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A Dockerfile as it was received: its name for messages, its text, and where its lines begin.
///
/// Bytes that are not UTF-8 are kept as U+FFFD, as BuildKit keeps them; [`Source::replaced`] tells where, so that
/// the parser can report them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    name: String,
    text: String,
    line_starts: Vec<u32>,
    replaced: Vec<Span>,
    dropped_bytes: usize,
}

impl Source {
    /// Takes the bytes of the file that messages shall call `name`.
    pub fn new(name: impl Into<String>, bytes: &[u8]) -> Self {
        let kept = &bytes[..bytes.len().min(MAX_SOURCE_BYTES)];
        let (text, replaced) = decode(kept);
        let line_starts = line_starts(&text);
        Self { name: name.into(), text, line_starts, replaced, dropped_bytes: bytes.len() - kept.len() }
    }

    /// The name for messages, usually the path as the user wrote it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text, line ends and byte order mark included.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text below a span; empty if the span does not fit the text.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.range()).unwrap_or_default()
    }

    /// Line and column of a byte offset. Takes the time of a binary search and of one line's length.
    pub fn position(&self, offset: u32) -> Position {
        let line = self.line_starts.partition_point(|&start| start <= offset).max(1);
        let start = self.line_starts[line - 1] as usize;
        let end = (offset as usize).min(self.text.len());
        let before = self.text.as_bytes().get(start..end).unwrap_or_default();
        // Counted in bytes that begin a character, so that an offset inside of one is no error.
        let column = before.iter().filter(|&&byte| byte & 0xC0 != 0x80).count();
        Position { line: line as u32, column: column as u32 + 1 }
    }

    /// The span of the line (counted from 1) without its line end; `None` past the last line.
    pub fn line(&self, line: u32) -> Option<Span> {
        let index = (line as usize).checked_sub(1)?;
        let start = *self.line_starts.get(index)?;
        let end = self.line_starts.get(index + 1).copied().unwrap_or(self.text.len() as u32);
        let text = &self.text[start as usize..end as usize];
        Some(Span::new(start, start + text.trim_end_matches(['\r', '\n']).len() as u32))
    }

    /// How many lines there are; an empty file has one, as has one without a line end.
    pub fn line_count(&self) -> u32 {
        self.line_starts.len() as u32
    }

    /// Where bytes that are not UTF-8 were replaced by U+FFFD; adjoining ones form one span.
    pub fn replaced(&self) -> &[Span] {
        &self.replaced
    }

    /// How many bytes beyond [`MAX_SOURCE_BYTES`] were left out.
    pub fn dropped_bytes(&self) -> usize {
        self.dropped_bytes
    }
}

fn decode(bytes: &[u8]) -> (String, Vec<Span>) {
    let mut text = String::with_capacity(bytes.len());
    let mut replaced: Vec<Span> = Vec::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            let start = text.len() as u32;
            text.push(char::REPLACEMENT_CHARACTER);
            let end = text.len() as u32;
            match replaced.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => replaced.push(Span::new(start, end)),
            }
        }
    }
    (text, replaced)
}

fn line_starts(text: &str) -> Vec<u32> {
    let after_breaks = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
    std::iter::once(0).chain(after_breaks.map(|(at, _)| at as u32 + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_and_survive_any_offset() {
        let source = Source::new("Dockerfile", "ä b\nc".as_bytes());
        assert_eq!(source.position(0).to_string(), "1:1");
        assert_eq!(source.position(2).to_string(), "1:2");
        assert_eq!(source.position(4).to_string(), "1:4");
        assert_eq!(source.position(5).to_string(), "2:1");
        assert_eq!(source.position(999).to_string(), "2:2");
        assert_eq!(source.line(1), Some(Span::new(0, 4)));
        assert_eq!(source.line(2), Some(Span::new(5, 6)));
        assert_eq!(source.line(3), None);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_kept_as_replacement_characters() {
        let source = Source::new("Dockerfile", b"RUN \xFF\xFE x\xFF");
        assert_eq!(source.text(), "RUN \u{FFFD}\u{FFFD} x\u{FFFD}");
        assert_eq!(source.replaced(), [Span::new(4, 10), Span::new(12, 15)]);
    }
}
