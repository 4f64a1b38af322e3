//! Listings: columns for a person, JSON for a program.

use std::fmt;
use std::io::{self, Write as _};

use jiff::Timestamp;
use serde::Serialize;

use crate::cli::Format;
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};
use crate::terminal::one_line;

/// Writes rows as a table under `headings`, or `document` as JSON.
pub(crate) fn print(
    format: Format,
    headings: &[&str],
    rows: &[Vec<String>],
    document: &impl Serialize,
) -> Result<(), Failure> {
    match format {
        Format::Table => write_out(&table(headings, rows)),
        Format::Json => print_json(document),
    }
}

/// Writes facts, each behind its name, or `document` as JSON.
pub(crate) fn print_facts(
    format: Format,
    facts: &[(&str, String)],
    document: &impl Serialize,
) -> Result<(), Failure> {
    match format {
        Format::Table => {
            let lines = facts.iter().map(|(name, fact)| format!("{name}: {fact}\n"));
            write_out(&lines.collect::<String>())
        }
        Format::Json => print_json(document),
    }
}

/// Writes one JSON document.
pub(crate) fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::new(Exit::Machine, Diagnostic::from_error("json", &error)))?;
    write_out(&format!("{text}\n"))
}

/// Writes one line to standard output.
pub(crate) fn write_line(line: impl fmt::Display) -> Result<(), Failure> {
    write_out(&format!("{line}\n"))
}

/// Writes to standard output. Whoever reads no further, as `head` does, has seen enough.
pub(crate) fn write_out(text: &str) -> Result<(), Failure> {
    write_bytes(text.as_bytes())
}

/// The same of bytes.
pub(crate) fn write_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let diagnostic = Diagnostic::error("output", "cannot write to standard output");
            Err(Failure::new(Exit::Machine, diagnostic.note(error.to_string())))
        }
        _ => Ok(()),
    }
}

/// Tells a person something, on standard error. That nobody may be there to read it is no reason to stop.
pub(crate) fn tell(text: impl fmt::Display) {
    // In one piece: other programs write there, too.
    drop(io::stderr().lock().write_all(format!("{text}\n").as_bytes()));
}

/// Left-aligned columns, two spaces apart, headings in capitals.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}  "));
        let line: String = padded.collect();
        format!("{}\n", line.trim_end())
    };
    let mut text = line(&mut headings.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Bytes as a person says them: `12.3 MB`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1_000_000 && unit + 1 < UNITS.len() {
        value /= 1000;
        unit += 1;
    }
    let tenths = value.div_euclid(100);
    if tenths >= 1000 {
        format!("{} {}", tenths / 10, UNITS[unit])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

/// How long ago something was, as a person says it: `3 hours ago`. A time that is none is shown as it is.
pub(crate) fn human_age(time: &str, now: Timestamp) -> String {
    const UNITS: [(i64, &str); 6] = [
        (365 * 24 * 3600, "year"),
        (30 * 24 * 3600, "month"),
        (7 * 24 * 3600, "week"),
        (24 * 3600, "day"),
        (3600, "hour"),
        (60, "minute"),
    ];
    let Ok(then) = time.parse::<Timestamp>() else { return one_line(time) };
    let seconds = now.as_second() - then.as_second();
    let unit = UNITS.into_iter().find(|(length, _)| seconds >= *length);
    match unit.map(|(length, name)| (seconds / length, name)) {
        None if seconds < 0 => "in the future".to_owned(),
        None => "less than a minute ago".to_owned(),
        Some((1, name)) => format!("1 {name} ago"),
        Some((count, name)) => format!("{count} {name}s ago"),
    }
}

/// A duration as a person says it: `8 ms`, `1.2 s`, `3m12s`.
pub(crate) fn human_duration(duration: std::time::Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..60_000 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        _ => format!("{}m{:02}s", millis / 60_000, millis % 60_000 / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn amounts_are_short_and_have_units() {
        let shown: Vec<_> = [0, 999, 1000, 1234, 123_456, 1_234_567, 5_000_000_000].map(human_bytes).into();
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "1.2 kB", "123 kB", "1.2 MB", "5.0 GB"]);
        let shown: Vec<_> = [7, 1234, 192_000].map(|ms| human_duration(Duration::from_millis(ms))).into();
        assert_eq!(shown, ["7 ms", "1.2 s", "3m12s"]);
    }

    #[test]
    fn ages_are_told_in_the_largest_unit_that_fits() {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let cases = [
            ("2026-11-22T11:59:30Z", "less than a minute ago"),
            ("2026-11-22T10:59:59Z", "1 hour ago"),
            ("2026-11-19T12:00:00.5Z", "3 days ago"),
            ("2024-11-21T12:00:00+02:00", "2 years ago"),
            ("2026-11-22T12:00:01Z", "in the future"),
            ("yesterday\u{1b}[2J", "yesterday␛[2J"),
        ];
        for (time, expected) in cases {
            assert_eq!(human_age(time, now), expected, "{time}");
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["cccc".to_owned(), "d".to_owned()]];
        assert_eq!(table(&["X", "Y"], &rows), "X     Y\na     bb\ncccc  d\n");
    }
}
