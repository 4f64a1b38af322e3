//! Heredocs: the markers in an instruction's line (`<<EOF`, `<<-'EOF'`, `3<< EOF`) and the bodies below it.
//!
//! A marker is a word of its own in the line, split as a shell would split it: blanks end a word unless quoted or escaped,
//! always with the backslash. A line that cannot be split so (an unbalanced quote) has no heredocs. Quotes around the marker
//! itself make it text; quotes within its word only say that the body is not expanded.
//!
//! One rule is not BuildKit's: blanks between `<<` and the word are allowed only before something that looks like a word, so that
//! `$((1 << n))` is not taken for a heredoc that never ends.

use nom::bytes::complete::tag;
use nom::character::complete::{char, digit0};
use nom::combinator::{map, opt};
use nom::sequence::preceded;
use nom::{IResult, Offset, Parser};

use crate::ast::{Escape, Expansion, Heredoc, Indentation};
use crate::finding::{Code, Finding};
use crate::lexis::is_plain_word;
use crate::line::PhysicalLines;
use crate::scope::Scope;
use crate::span::Span;
use crate::word::{Part, parse_word, shell_words};

/// A heredoc's marker in a line.
#[derive(Clone, Debug)]
pub(crate) struct Marker<'a> {
    /// The marker as it stands.
    pub raw: &'a str,
    name: String,
    fd: u32,
    expansion: Expansion,
    indentation: Indentation,
}

/// The markers of a line, in order.
pub(crate) fn markers(line: &str) -> Vec<Marker<'_>> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let mut markers = Vec::new();
    let mut words = shell_words(line).unwrap_or_default().into_iter().peekable();
    while let Some(word) = words.next() {
        let Ok((rest, operator)) = operator(word) else { continue };
        if !rest.is_empty() {
            markers.extend(marker(word, operator, rest));
        } else if let Some(next) = words.next_if(|next| is_plain_word(next.trim_matches(['\'', '"']))) {
            let raw = &line[line.offset(word)..line.offset(next) + next.len()];
            markers.extend(marker(raw, operator, next));
        }
    }
    markers
}

/// Whether `text` is nothing but one heredoc marker.
pub(crate) fn is_marker(text: &str) -> bool {
    let text = text.trim();
    matches!(markers(text).as_slice(), [only] if only.raw == text)
}

/// The descriptor and the kind of indentation in `N<<-`.
fn operator(word: &str) -> IResult<&str, (u32, Indentation)> {
    let indentation = map(opt(char('-')), |dash| match dash {
        Some(_) => Indentation::TabsStripped,
        None => Indentation::Kept,
    });
    (map(digit0, |digits: &str| digits.parse().unwrap_or(0)), preceded(tag("<<"), indentation)).parse(word)
}

fn marker<'a>(raw: &'a str, (fd, indentation): (u32, Indentation), word: &str) -> Option<Marker<'a>> {
    // `<<<` is the shell's here-string.
    let parts = if word.contains('<') { Vec::new() } else { parse_word(word, Escape::Backslash).ok()? };
    let quoted = parts.iter().any(|part| matches!(part, Part::SingleQuoted(_) | Part::DoubleQuoted(_)));
    let expansion = if quoted { Expansion::Verbatim } else { Expansion::Variables };
    let name = word_text(&parts, word);
    (!name.is_empty()).then_some(Marker { raw, name, fd, expansion, indentation })
}

/// The word without quotes and escapes; variables stay as they stand.
fn word_text(parts: &[Part], word: &str) -> String {
    let piece = |part: &Part| match part {
        Part::Literal(text) | Part::SingleQuoted(text) => text.clone(),
        Part::Escaped(c) => c.to_string(),
        Part::DoubleQuoted(inner) => word_text(inner, word),
        Part::Variable(variable) => word[variable.span.range()].to_owned(),
    };
    parts.iter().map(piece).collect()
}

/// Reads the bodies of `markers` from the lines below the instruction.
pub(crate) fn read_bodies(
    markers: &[Marker<'_>],
    lines: &mut PhysicalLines<'_>,
    scope: &mut Scope<'_>,
) -> Vec<Heredoc> {
    markers.iter().map(|marker| read_body(marker, lines, scope)).collect()
}

fn read_body(marker: &Marker<'_>, lines: &mut PhysicalLines<'_>, scope: &mut Scope<'_>) -> Heredoc {
    let start = lines.offset();
    let mut near_miss = None;
    for line in lines.by_ref() {
        if ends(marker, line.text) {
            return heredoc(marker, lines, Span::new(start, line.start), scope);
        }
        if near_miss.is_none() && line.text.trim() == marker.name {
            near_miss = Some(line.span());
        }
    }
    let message = format!("the heredoc `{}` is never ended", marker.name);
    let mut finding = Finding::new(Code::UnterminatedHeredoc, scope.span(marker.raw), message)
        .with_help(format!("end it with a line that is exactly `{}`", marker.name));
    if let Some(span) = near_miss {
        finding = finding.with_label(span, "this line does not end it because of the blanks");
    }
    scope.report(finding);
    heredoc(marker, lines, Span::new(start, lines.offset()), scope)
}

fn ends(marker: &Marker<'_>, line: &str) -> bool {
    match marker.indentation {
        Indentation::Kept => line == marker.name,
        Indentation::TabsStripped => line.trim_start_matches('\t') == marker.name,
    }
}

fn heredoc(marker: &Marker<'_>, lines: &PhysicalLines<'_>, body: Span, scope: &Scope<'_>) -> Heredoc {
    Heredoc {
        name: marker.name.clone(),
        fd: marker.fd,
        expansion: marker.expansion,
        indentation: marker.indentation,
        content: lines.slice(body).to_owned(),
        marker: scope.span(marker.raw),
        span: body,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Expect) {
        let show = |m: &Marker<'_>| {
            format!("{} fd={} {:?} {:?} `{}`\n", m.name, m.fd, m.expansion, m.indentation, m.raw)
        };
        expected.assert_eq(&markers(line).iter().map(show).collect::<String>());
    }

    #[test]
    fn markers_are_words_of_their_own() {
        check(
            "RUN <<EOF",
            expect![[r#"
            EOF fd=0 Variables Kept `<<EOF`
        "#]],
        );
        check(
            "RUN 4<<-EOF cat <<'b c'",
            expect![[r#"
            EOF fd=4 Variables TabsStripped `4<<-EOF`
            b c fd=0 Verbatim Kept `<<'b c'`
        "#]],
        );
        check(
            "RUN <<eo\\'f <<eo'f' <<$X",
            expect![[r#"
            eo'f fd=0 Variables Kept `<<eo\'f`
            eof fd=0 Verbatim Kept `<<eo'f'`
            $X fd=0 Variables Kept `<<$X`
        "#]],
        );
        check("RUN '<<EOF' \"<<EOF\" cat<<EOF <<<EOF <<", expect![""]);
    }

    #[test]
    fn blanks_before_the_word_are_allowed_where_it_looks_like_one() {
        check(
            "RUN <<  EOF > x <<- 'B' << -C",
            expect![[r#"
            EOF fd=0 Variables Kept `<<  EOF`
            B fd=0 Verbatim TabsStripped `<<- 'B'`
            -C fd=0 Variables Kept `<< -C`
        "#]],
        );
        check("RUN echo $((1 << n)) $(( 1 << 4 ))", expect![""]);
    }

    #[test]
    fn a_line_with_an_unbalanced_quote_has_no_heredocs() {
        check("RUN echo it's <<EOF", expect![""]);
    }
}
