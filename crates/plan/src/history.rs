//! The texts of `docker history`: BuildKit's `created_by` strings, which print values as Go does.

use std::fmt::Write as _;

use oci::Healthcheck;

/// `%q` of a list: `["a" "b"]`.
pub(crate) fn quoted_list<S: AsRef<str>>(items: &[S]) -> String {
    let quoted: Vec<_> = items.iter().map(|item| quoted(item.as_ref())).collect();
    format!("[{}]", quoted.join(" "))
}

/// `%v` of a list: `[a b]`.
pub(crate) fn plain_list<S: AsRef<str>>(items: &[S]) -> String {
    let items: Vec<_> = items.iter().map(AsRef::as_ref).collect();
    format!("[{}]", items.join(" "))
}

/// `%q` of a pointer to the health check, whose fields have a fixed order. The retries are an integer, which that verb shows as the
/// character of that number.
pub(crate) fn healthcheck(check: &Healthcheck) -> String {
    format!(
        "&{{{} {} {} {} {} {}}}",
        quoted_list(&check.test),
        quoted(&duration(check.interval)),
        quoted(&duration(check.timeout)),
        quoted(&duration(check.start_period)),
        quoted(&duration(check.start_interval)),
        quoted_number(check.retries),
    )
}

/// `%q` of an integer: Go's character literal.
fn quoted_number(number: i64) -> String {
    let c = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    let mut result = String::from("'");
    match c {
        '\'' => result.push_str("\\'"),
        '"' => result.push(c),
        _ => push_escaped(&mut result, c),
    }
    result.push('\'');
    result
}

/// `%q`: Go's string literal.
fn quoted(text: &str) -> String {
    let mut result = String::with_capacity(text.len() + 2);
    result.push('"');
    for c in text.chars() {
        push_escaped(&mut result, c);
    }
    result.push('"');
    result
}

fn push_escaped(result: &mut String, c: char) {
    let short = match c {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\u{c}' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\u{b}' => "\\v",
        _ => "",
    };
    if !short.is_empty() {
        return result.push_str(short);
    }
    let code = u32::from(c);
    let written = match code {
        _ if is_printable(c) => {
            result.push(c);
            Ok(())
        }
        0..0x20 | 0x7f => write!(result, "\\x{code:02x}"),
        0x80..0x1_0000 => write!(result, "\\u{code:04x}"),
        _ => write!(result, "\\U{code:08x}"),
    };
    written.expect("writing to a string cannot fail");
}

/// Whether Go prints the character as itself. The standard library's debug format makes the same choice, except that it
/// escapes combining marks at the start of a text; hence the letter before it.
fn is_printable(c: char) -> bool {
    matches!(c, '\'' | '"' | '\\') || format!("a{c}").escape_debug().nth(1) == Some(c)
}

/// A duration in nanoseconds as Go prints it: `1m30s`, `1.5s`, `100ms`, `0s`.
fn duration(nanoseconds: i64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let text = match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{total}ns"),
        1_000..1_000_000 => fraction(total, 1_000) + "µs",
        1_000_000..SECOND => fraction(total, 1_000_000) + "ms",
        _ => {
            let (hours, minutes) = (total / (3600 * SECOND), total / (60 * SECOND) % 60);
            let seconds = fraction(total % (60 * SECOND), SECOND);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, _) => format!("{minutes}m{seconds}s"),
                _ => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}

/// `value / unit` in decimal, without trailing zeros.
fn fraction(value: u64, unit: u64) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_quoted_like_go() {
        assert_eq!(
            quoted_list(&["/bin/sh", "-c", "echo \"hi\" \\ $X"]),
            r#"["/bin/sh" "-c" "echo \"hi\" \\ $X"]"#
        );
        assert_eq!(
            quoted_list(&["a\tb\nc\u{1b}\u{7f}", "é'\u{301}", "\u{a0}\u{200b}", "\u{10ffff}"]),
            "[\"a\\tb\\nc\\x1b\\x7f\" \"é'\u{301}\" \"\\u00a0\\u200b\" \"\\U0010ffff\"]"
        );
        assert_eq!(quoted_list::<&str>(&[]), "[]");
        assert_eq!(plain_list(&["/a", "/b c"]), "[/a /b c]");
    }

    #[test]
    fn durations_are_printed_like_go() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (1_000_000_000, "1s"),
            (1_050_000_000, "1.05s"),
            (90_000_000_000, "1m30s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_723_400_000_000, "1h2m3.4s"),
            (-5_000_000_000, "-5s"),
        ] {
            assert_eq!(duration(nanoseconds), expected);
        }
    }

    #[test]
    fn health_checks_are_printed_field_by_field() {
        let test = vec!["CMD-SHELL".to_owned(), "a \"b\"".to_owned()];
        let check = Healthcheck { test, interval: 5_000_000_000, retries: 3, ..Healthcheck::default() };
        assert_eq!(healthcheck(&check), r#"&{["CMD-SHELL" "a \"b\""] "5s" "0s" "0s" "0s" '\x03'}"#);
        assert_eq!(healthcheck(&Healthcheck::default()), r#"&{[] "0s" "0s" "0s" "0s" '\x00'}"#);
        let quoted: Vec<_> = [9, 39, 34, 65, 92, 1 << 40].into_iter().map(quoted_number).collect();
        assert_eq!(quoted, [r"'\t'", r"'\''", "'\"'", "'A'", r"'\\'", "'\u{fffd}'"]);
    }
}
