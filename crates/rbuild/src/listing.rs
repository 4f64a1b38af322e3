//! Listings: columns for a person, JSON for a program.

use serde::Serialize;

use crate::cli::Format;
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};

/// Writes rows as a table under `headings`, or `document` as JSON.
pub(crate) fn print(
    format: Format,
    headings: &[&str],
    rows: &[Vec<String>],
    document: &impl Serialize,
) -> Result<(), Failure> {
    match format {
        Format::Table => {
            print!("{}", table(headings, rows));
            Ok(())
        }
        Format::Json => print_json(document),
    }
}

/// Writes one JSON document.
pub(crate) fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::new(Exit::Machine, Diagnostic::from_error("json", &error)))?;
    println!("{text}");
    Ok(())
}

/// Left-aligned columns, two spaces apart, headings in capitals.
fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
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
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["cccc".to_owned(), "d".to_owned()]];
        assert_eq!(table(&["X", "Y"], &rows), "X     Y\na     bb\ncccc  d\n");
    }
}
