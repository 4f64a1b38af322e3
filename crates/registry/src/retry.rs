//! When to try again, and after how long.

use std::time::Duration;

use ureq::http::HeaderMap;
use ureq::http::header::{DATE, RETRY_AFTER};

use crate::error::{Failure, RequestError};
use crate::limits::Limits;
use crate::transport::Transport;

/// Does something until it works, fails for good, or has failed [`Limits::attempts`] times.
pub(crate) fn retrying<T>(
    transport: &Transport,
    mut attempt: impl FnMut() -> Result<T, RequestError>,
) -> Result<T, RequestError> {
    let mut attempts = 1;
    loop {
        let mut error = match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if transport.is_cancelled() {
            return Err(RequestError { failure: Box::new(Failure::Cancelled), ..error });
        }
        error.attempts = attempts;
        if !error.is_transient() || attempts >= transport.limits.attempts {
            return Err(error);
        }
        pause(transport, attempts, &error);
        attempts += 1;
    }
}

/// Waits before the next attempt, after `failures` failed ones.
pub(crate) fn pause(transport: &Transport, failures: u32, error: &RequestError) {
    let length = pause_length(&transport.limits, failures, error.retry_after(), transport.timing.jitter());
    tracing::info!(%error, ?length, "trying again");
    transport.timing.sleep(length, &|| transport.is_cancelled());
}

/// Doubles with each failure, less up to half by chance, so that many clients of one registry do not come back together; never
/// less than what the registry asked for.
fn pause_length(limits: &Limits, failures: u32, asked: Option<Duration>, jitter: f64) -> Duration {
    let doubled = limits.backoff.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let own = doubled.min(limits.backoff_max).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
    own.max(asked.unwrap_or_default())
}

/// `Retry-After` in seconds or as a date. A date is taken relative to the same answer's `Date`: our own clock may be wrong.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let now = http_date(headers.get(DATE)?.to_str().ok()?)?;
    let then = http_date(text)?;
    Some(Duration::from_secs(u64::try_from(then - now).unwrap_or(0)))
}

/// Seconds since 1970 of an HTTP date in its preferred form (RFC 9110, section 5.6.7).
fn http_date(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::parse(text.trim()).ok().map(|date| date.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound() {
        let limits = Limits {
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_secs(10),
            ..Limits::DEFAULT
        };
        let seconds = |failures, asked, jitter| {
            pause_length(&limits, failures, Option::map(asked, Duration::from_secs), jitter).as_secs_f64()
        };
        assert_eq!([1, 2, 3, 4, 5, 40].map(|n| seconds(n, None, 0.0)), [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]);
        assert!((seconds(3, None, 0.999) - 2.0).abs() < 0.01);
        assert_eq!(seconds(1, Some(7), 0.5), 7.0);
        assert_eq!(seconds(5, Some(7), 0.0), 10.0);
    }

    #[track_caller]
    fn check(retry_after_value: &str, expected: Option<u64>) {
        let mut headers = HeaderMap::new();
        headers.insert(DATE, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        headers.insert(RETRY_AFTER, retry_after_value.parse().unwrap());
        assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{retry_after_value}");
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        check("120", Some(120));
        check("1000000000", Some(1_000_000_000));
        check("99999999999999999999999", Some(u64::MAX));
        check("Sun, 06 Nov 1994 08:50:07 GMT", Some(30));
        check("Sun, 06 Nov 1983 08:49:37 GMT", Some(0));
        check("soon", None);
        check("", None);
        check("-1", None);
    }
}
