//! Text that somebody else wrote, made fit for a terminal.
//!
//! Dockerfiles, images, registries and processes may contain bytes that move the cursor, retitle the window or hide what follows. Everything
//! of theirs that is shown passes through here; the log files keep the bytes as they were.

use std::borrow::Cow;

/// Text with each control character made visible, so that a person sees that there is one: ESC as `␛`. Line ends stay.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c == '\n' || !(c.is_control() || is_invisible(c));
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| match c {
        '\n' => '\n',
        '\t' => ' ',
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\u{7f}' => '\u{2421}',
        c if c.is_control() || is_invisible(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// As [`visible`], but every character keeps its length in bytes, so that places in the text stay where they are. One-byte control
/// characters are left to whoever draws an excerpt.
pub(crate) fn visible_in_place(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii() || !(c.is_control() || is_invisible(c));
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| match c {
        c if is_plain(c) => c,
        c if is_invisible(c) => char::REPLACEMENT_CHARACTER,
        _ => '\u{bf}',
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// As [`visible`], on one line.
pub(crate) fn one_line(text: &str) -> String {
    visible(text).replace('\n', " ")
}

/// One line of a process' output without what only a terminal would understand: colours and cursor movements are left out, and of a
/// line that was written over several times, the last version is shown.
pub(crate) fn log_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = without_sequences(text.trim_end_matches(['\n', '\r', ' ']));
    let last_version = text.rsplit('\r').find(|version| !version.trim().is_empty()).unwrap_or_default();
    visible(&last_version.replace('\t', "    ")).into_owned()
}

/// The first `width` columns, with `…` where something is missing.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if console::measure_text_width(text) <= width {
        return text.to_owned();
    }
    console::truncate_str(text, width, "…").into_owned()
}

/// Marks that change the direction of text around them, so that it reads as something else than it is; and line separators.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Where the reader of an escape sequence is (ECMA-48, section 5.4; strings end with BEL or ESC `\`).
enum State {
    Text,
    Escape,
    Control,
    String,
    StringEscape,
}

fn without_sequences(text: &str) -> String {
    let mut state = State::Text;
    let mut kept = String::with_capacity(text.len());
    for c in text.chars() {
        state = match (state, c) {
            (State::Text | State::Control | State::Escape, '\u{1b}') => State::Escape,
            (State::Text, '\u{9b}') | (State::Escape, '[') => State::Control,
            (State::Escape, ']' | 'P' | 'X' | '^' | '_') => State::String,
            // Character set selections and the like: one or more intermediate characters, then a final one.
            (State::Escape, ' '..='/') => State::Escape,
            (State::Escape, _) | (State::Control, '@'..='~') => State::Text,
            (State::Control, _) => State::Control,
            (State::String | State::StringEscape, '\u{7}') | (State::StringEscape, '\\') => State::Text,
            (State::String, '\u{1b}') => State::StringEscape,
            (State::String | State::StringEscape, _) => State::String,
            (State::Text, c) => {
                kept.push(c);
                State::Text
            }
        };
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        for (text, expected) in [
            ("plain ünïcode", "plain ünïcode"),
            ("\u{1b}[31mred\u{7}", "␛[31mred␇"),
            ("a\u{9b}2Jb", "a\u{fffd}2Jb"),
            ("admin\u{202e}txt.exe", "admin\u{fffd}txt.exe"),
            ("two\nlines\tand", "two\nlines and"),
        ] {
            assert_eq!(visible(text), expected);
        }
        assert_eq!(one_line("a\nb"), "a b");
    }

    #[test]
    fn places_stay_where_they_are() {
        for text in ["plain", "a\u{9b}b", "a\u{202e}b\u{2028}c", "\u{80}\u{9f}ü日"] {
            let shown = visible_in_place(text);
            assert_eq!(shown.len(), text.len(), "{text:?}");
            assert_eq!(visible(&shown), shown, "{text:?}");
        }
    }

    #[test]
    fn a_log_line_loses_its_escape_sequences() {
        for (line, expected) in [
            ("\u{1b}[1;32mok\u{1b}[0m\r\n", "ok"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}(Bset", "set"),
            ("10%\r50%\r100%\r", "100%"),
            ("cleared\r\u{1b}[K", "cleared"),
            ("a\tb", "a    b"),
            ("bell\u{7}", "bell␇"),
            ("\u{1b}[", ""),
        ] {
            assert_eq!(log_line(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn cut_text_fits_its_columns() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("日本語", 5), "日本…");
    }
}
