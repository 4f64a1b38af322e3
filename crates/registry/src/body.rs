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
    floor_bytes_per_second: u64,
    floor_window: Duration,
    /// Time spent waiting and bytes received in the current window.
    waited: Duration,
    received: u64,
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
            timing,
            stall: limits.stall,
            floor_bytes_per_second: limits.floor_bytes_per_second,
            floor_window: limits.floor_window,
            waited: Duration::ZERO,
            received: 0,
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

    /// Judges each window of waiting by itself: a fast start does not excuse a crawl.
    fn check_floor(&mut self) -> Result<(), Failure> {
        if self.waited < self.floor_window {
            return Ok(());
        }
        let (waited, received) = (self.waited, self.received);
        (self.waited, self.received) = (Duration::ZERO, 0);
        if received as f64 >= self.floor_bytes_per_second as f64 * waited.as_secs_f64() {
            return Ok(());
        }
        let (floor_bytes_per_second, window) = (self.floor_bytes_per_second, self.floor_window);
        Err(Failure::TooSlow { floor_bytes_per_second, window })
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let before = self.timing.now();
        let result = self.reader.read(buffer);
        self.waited += self.timing.now().saturating_sub(before);
        let checked = match result {
            Ok(0) => return Ok(0),
            Ok(read) => {
                self.received += read as u64;
                self.check_floor().map(|()| read)
            }
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
