//! The body of an answer: read at a bearable speed or not at all.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Failure, Phase, RequestError};
use crate::limits::Limits;
use crate::timing::Timing;
use web::Origin;

/// Streams a body. Its errors hold a [`RequestError`], see [`request_error`].
pub(crate) struct Body {
    reader: ureq::BodyReader<'static>,
    host: String,
    timing: Arc<dyn Timing>,
    stall: Duration,
    pace: Pace,
}

/// How fast bytes move. Each window of waiting is judged by itself: a fast start does not excuse a crawl.
pub(crate) struct Pace {
    timing: Arc<dyn Timing>,
    floor_bytes_per_second: u64,
    floor_window: Duration,
    /// Time spent waiting and bytes moved in the current window.
    spent: Duration,
    bytes: u64,
    /// Since when the bytes moved last are on their way.
    since: Option<Duration>,
}

impl Pace {
    pub(crate) fn new(limits: &Limits, timing: Arc<dyn Timing>) -> Self {
        let Limits { floor_bytes_per_second, floor_window, .. } = *limits;
        Self { timing, floor_bytes_per_second, floor_window, spent: Duration::ZERO, bytes: 0, since: None }
    }

    /// So many bytes are handed over; what passes until [`Pace::waited`] is the network's time.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.since = Some(self.timing.now());
    }

    /// Whether what was moved last went fast enough.
    pub(crate) fn waited(&mut self) -> Result<(), Failure> {
        match self.since.take() {
            Some(since) => self.spend(self.timing.now().saturating_sub(since), 0),
            None => Ok(()),
        }
    }

    /// So much time was spent waiting for so many bytes.
    fn spend(&mut self, time: Duration, bytes: usize) -> Result<(), Failure> {
        self.spent += time;
        self.bytes += bytes as u64;
        if self.spent < self.floor_window {
            return Ok(());
        }
        let (spent, bytes) = (self.spent, self.bytes);
        (self.spent, self.bytes) = (Duration::ZERO, 0);
        if bytes as f64 >= self.floor_bytes_per_second as f64 * spent.as_secs_f64() {
            return Ok(());
        }
        let (floor_bytes_per_second, window) = (self.floor_bytes_per_second, self.floor_window);
        Err(Failure::TooSlow { floor_bytes_per_second, window })
    }
}

impl Body {
    pub(crate) fn new(
        reader: ureq::BodyReader<'static>,
        origin: &Origin,
        limits: &Limits,
        timing: Arc<dyn Timing>,
    ) -> Self {
        Self {
            reader,
            host: origin.to_string(),
            pace: Pace::new(limits, Arc::clone(&timing)),
            timing,
            stall: limits.stall,
        }
    }

    /// The whole body, if it is not longer than `limit_bytes`.
    pub(crate) fn read_all(mut self, what: &'static str, limit_bytes: u64) -> Result<Vec<u8>, RequestError> {
        let mut bytes = Vec::new();
        let result = (&mut self).take(limit_bytes + 1).read_to_end(&mut bytes);
        result.map_err(|error| request_error(error, &self.host))?;
        if bytes.len() as u64 > limit_bytes {
            return Err(RequestError::new(&self.host, Failure::TooLarge { what, limit_bytes }));
        }
        Ok(bytes)
    }

    /// As much of the body as can be had within `limit_bytes`, to quote an error from.
    pub(crate) fn read_some(self, limit_bytes: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.take(limit_bytes).read_to_end(&mut bytes) {
            Ok(_) => bytes,
            // The status is the news; a message that cannot be read is none.
            Err(error) => {
                tracing::debug!(%error, "the message of an error could not be read");
                bytes
            }
        }
    }

    fn failure(&self, error: io::Error) -> Failure {
        let timed_out = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<ureq::Error>())
            .is_some_and(|inner| matches!(inner, ureq::Error::Timeout(_)));
        if timed_out {
            Failure::Timeout { phase: Phase::Body, limit: self.stall }
        } else {
            Failure::Cut(error)
        }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let before = self.timing.now();
        let result = self.reader.read(buffer);
        let time = self.timing.now().saturating_sub(before);
        let checked = match result {
            Ok(0) => return Ok(0),
            Ok(read) => self.pace.spend(time, read).map(|()| read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => Err(self.failure(error)),
        };
        checked.map_err(|failure| io::Error::other(RequestError::new(&self.host, failure)))
    }
}

/// The [`RequestError`] that a [`Body`] put into an `io::Error`.
pub(crate) fn request_error(error: io::Error, host: &str) -> RequestError {
    match error.downcast::<RequestError>() {
        Ok(error) => error,
        Err(error) => RequestError::new(host, Failure::Cut(error)),
    }
}
