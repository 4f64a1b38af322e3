//! Durations as Go writes them: `30s`, `1m30s`, `1.5h`, `0`.

use std::time::Duration;

use nom::branch::alt;
use nom::bytes::complete::tag;
use nom::character::complete::{char, digit0};
use nom::combinator::{all_consuming, map_opt, opt, value, verify};
use nom::multi::fold_many1;
use nom::sequence::preceded;
use nom::{IResult, Parser};

/// Reads a duration that is not negative; `None` for anything else, and for more than Go's 292 years.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" || text == "-0" {
        return Some(Duration::ZERO);
    }
    let terms = fold_many1(term, || Some(0u64), |sum: Option<u64>, term| sum?.checked_add(term));
    let parsed: IResult<&str, Option<u64>> = all_consuming(terms).parse(text);
    let nanoseconds = parsed.ok()?.1?;
    (nanoseconds <= i64::MAX as u64).then_some(Duration::from_nanos(nanoseconds))
}

/// One number with its unit, in nanoseconds.
fn term(input: &str) -> IResult<&str, u64> {
    let fraction = opt(preceded(char('.'), digit0));
    let number = verify((digit0, fraction), |(whole, fraction): &(&str, Option<&str>)| {
        !whole.is_empty() || fraction.is_some_and(|digits| !digits.is_empty())
    });
    map_opt((number, unit), |((whole, fraction), unit)| nanoseconds(whole, fraction.unwrap_or(""), unit))
        .parse(input)
}

fn nanoseconds(whole: &str, fraction: &str, unit: u64) -> Option<u64> {
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Digits beyond the 15th are below a nanosecond, whatever the unit.
    let digits = &fraction[..fraction.len().min(15)];
    let part = if digits.is_empty() { 0 } else { digits.parse::<u128>().ok()? };
    let part = part * u128::from(unit) / 10u128.pow(digits.len() as u32);
    whole.checked_mul(unit)?.checked_add(u64::try_from(part).ok()?)
}

fn unit(input: &str) -> IResult<&str, u64> {
    alt((
        value(1, tag("ns")),
        value(1_000, alt((tag("us"), tag("µs"), tag("μs")))),
        value(1_000_000, tag("ms")),
        value(1_000_000_000, tag("s")),
        value(60_000_000_000, tag("m")),
        value(3_600_000_000_000, tag("h")),
    ))
    .parse(input)
}

/// Writes a duration so that [`parse`] reads it again.
pub(crate) fn print(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let units = [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
    ];
    match units.iter().find(|&&(_, unit)| nanoseconds != 0 && nanoseconds.is_multiple_of(unit)) {
        Some((name, unit)) => format!("{}{name}", nanoseconds / unit),
        None => format!("{nanoseconds}ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let milliseconds = |text| parse(text).map(|duration| duration.as_millis());
        assert_eq!(milliseconds("1h2m3.5s"), Some(3_723_500));
        assert_eq!(milliseconds(".5s"), Some(500));
        assert_eq!(milliseconds("1.s"), Some(1000));
        assert_eq!(milliseconds("0"), Some(0));
        assert_eq!(parse("1us"), Some(Duration::from_micros(1)));
        for wrong in ["", "1", "s", ".s", "-1s", "1 s", "1d", "9999999h", "99999999999999999999s"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_printed_reads_the_same() {
        for text in ["0ns", "1ns", "1500ms", "90s", "1h", "61m", "1001us"] {
            let duration = parse(text).unwrap();
            assert_eq!(parse(&print(duration)), Some(duration), "{text}");
        }
    }
}
