//! Blobs and manifests into a registry (OCI distribution specification, "Pushing").
//!
//! A blob that the registry has is not sent, and one that it has in another repository is taken over from there. Any other goes into an upload
//! of its own: in one request if it is small, else as one long body, which is continued where the registry says that it broke off.
//! Nothing has a name before its manifest is put, and the registry checks every digest.

use std::io::{self, Read};

use oci::{Digest, Reference};
use ureq::http::header::{LOCATION, RANGE};
use ureq::http::{HeaderMap, Method};
use web::Url;

use crate::auth::Access;
use crate::client::{Client, Location, Question};
use crate::error::{Failure, RedirectError, RequestError};
use crate::manifest::DIGEST_HEADER;
use crate::retry::pause;
use crate::transport::{Answer, Content, Part};

/// Blobs of at most so many bytes go in one request.
const SMALL_BYTES: u64 = 64 << 10;

/// Bytes of a blob that is to be sent.
pub trait Source {
    /// Gives `consume` what begins `from` bytes into the blob, once.
    ///
    /// # Errors
    /// That of `consume`, or, if the bytes cannot be read, [`PushError::Source`].
    fn read(
        &self,
        from: u64,
        consume: &mut dyn FnMut(&mut dyn Read) -> Result<(), PushError>,
    ) -> Result<(), PushError>;
}

/// A blob that is to be in a repository.
pub struct Outgoing<'o> {
    /// What it must turn out to be.
    pub digest: &'o Digest,
    /// How long it is, in bytes.
    pub size: u64,
    /// Its bytes.
    pub source: &'o dyn Source,
    /// A repository of the same registry that may have it already.
    pub mount_from: Option<&'o str>,
    /// Told how many bytes have been handed over, again and again, and fewer after a break.
    pub progress: &'o dyn Fn(u64),
}

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Delivery {
    /// It was there.
    Existed,
    /// The registry took it over from another repository.
    Mounted,
    /// It was sent.
    Sent,
}

/// Why something could not be pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// A request failed, or broke off too often.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// What was to be sent cannot be read.
    #[error("what is to be sent cannot be read")]
    Source(#[source] io::Error),
    /// The registry began an upload and did not say where it is.
    #[error("`{host}` does not say where an upload goes on")]
    NoLocation {
        /// Who answered.
        host: String,
    },
    /// The registry took something and calls it something else.
    #[error("`{host}` was given {expected} and calls it {got}")]
    WrongDigest {
        /// Who answered.
        host: String,
        /// What was sent.
        expected: Digest,
        /// `Docker-Content-Digest`.
        got: String,
    },
}

impl Client {
    /// Whether a repository has a blob.
    ///
    /// # Errors
    /// [`RequestError`]; that it is not there is none.
    pub fn has_blob(&self, reference: &Reference, digest: &Digest) -> Result<bool, RequestError> {
        let question = Question {
            method: Method::HEAD,
            access: push(),
            statuses: &[404],
            ..Question::get(format!("blobs/{digest}"), format!("blob {digest}"), "*/*")
        };
        self.ask(reference, &question, |answer| Ok(answer.status == 200))
    }

    /// Sees to it that a repository has a blob.
    ///
    /// # Errors
    /// [`PushError`].
    pub fn push_blob(&self, reference: &Reference, blob: &Outgoing<'_>) -> Result<Delivery, PushError> {
        if self.has_blob(reference, blob.digest)? {
            return Ok(Delivery::Existed);
        }
        let upload = Upload { client: self, reference, blob };
        let Some(place) = upload.begin(blob.mount_from)? else { return Ok(Delivery::Mounted) };
        if blob.size <= SMALL_BYTES {
            upload.send_at_once(&place)?
        } else {
            upload.send(place)?
        }
        Ok(Delivery::Sent)
    }

    /// Puts a manifest or an index under the reference: its tag, or else its digest.
    ///
    /// # Errors
    /// [`PushError`].
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), PushError> {
        let digest = Digest::of(bytes);
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let question = Question {
            method: Method::PUT,
            access: push(),
            content: Some(Content { media_type, bytes: bytes.into() }),
            statuses: &[201],
            ..Question::get(format!("manifests/{name}"), format!("place for manifest {name}"), "*/*")
        };
        self.ask(reference, &question, Ok).map_err(PushError::from).and_then(|answer| check(&answer, &digest))
    }
}

fn push() -> Access {
    Access::Push { from: None }
}

/// A registry need not say what it took; if it does, it must be what was sent.
fn check(answer: &Answer, expected: &Digest) -> Result<(), PushError> {
    let Some(got) = answer.headers.get(DIGEST_HEADER).and_then(|value| value.to_str().ok()) else {
        return Ok(());
    };
    // Of another algorithm, it says nothing that we could compare.
    let differs =
        got.parse::<Digest>().is_ok_and(|got| got.algorithm() == expected.algorithm() && got != *expected);
    if !differs {
        return Ok(());
    }
    let (host, expected, got) = (answer.origin.to_string(), expected.clone(), got.to_owned());
    Err(PushError::WrongDigest { host, expected, got })
}

/// One blob on its way.
struct Upload<'u> {
    client: &'u Client,
    reference: &'u Reference,
    blob: &'u Outgoing<'u>,
}

impl Upload<'_> {
    /// Begins an upload; `None` if the blob was taken over from elsewhere.
    fn begin(&self, from: Option<&str>) -> Result<Option<Url>, PushError> {
        let digest = self.blob.digest;
        let path = match from {
            None => "blobs/uploads/".to_owned(),
            Some(from) => {
                let pairs = [("mount", &*digest.to_string()), ("from", from)];
                format!("blobs/uploads/?{}", web::form(&pairs))
            }
        };
        let question = Question {
            method: Method::POST,
            access: Access::Push { from: from.map(ToOwned::to_owned) },
            statuses: &[201, 202],
            ..Question::get(path, format!("place for blob {digest}"), "*/*")
        };
        let answer = self.client.ask(self.reference, &question, Ok)?;
        if answer.status == 201 {
            return Ok(None);
        }
        self.location(&answer).map(Some)
    }

    /// Where the upload goes on.
    fn location(&self, answer: &Answer) -> Result<Url, PushError> {
        let host = || answer.origin.to_string();
        let location = answer.headers.get(LOCATION).ok_or_else(|| PushError::NoLocation { host: host() })?;
        let refused = |error: RedirectError| RequestError::new(host(), Failure::Redirect(error));
        let location = String::from_utf8_lossy(location.as_bytes());
        Ok(answer.url.join(&location).map_err(|error| refused(error.into()))?)
    }

    fn question(&self, method: Method, place: &Url, statuses: &'static [u16]) -> Question<'static> {
        let what = format!("upload of blob {}", self.blob.digest);
        let place = Location::At(place.clone());
        Question { method, place, access: push(), statuses, ..Question::get(String::new(), what, "*/*") }
    }

    fn finish<'q>(&self, place: &Url, content: Option<Content<'q>>) -> Result<Question<'q>, PushError> {
        let digest = self.blob.digest.to_string();
        let place = place
            .with_query(&[("digest", &digest)])
            .map_err(|error| RequestError::new(place.origin(), Failure::Redirect(error.into())))?;
        Ok(Question { content, ..self.question(Method::PUT, &place, &[201, 204]) })
    }

    fn send_at_once(&self, place: &Url) -> Result<(), PushError> {
        let mut bytes = Vec::new();
        self.blob
            .source
            .read(0, &mut |reader| reader.read_to_end(&mut bytes).map(drop).map_err(PushError::Source))?;
        let length = bytes.len() as u64;
        let content = Content { media_type: "application/octet-stream", bytes: bytes.into() };
        let answer = self.client.ask(self.reference, &self.finish(place, Some(content))?, Ok)?;
        (self.blob.progress)(length);
        check(&answer, self.blob.digest)
    }

    /// Sends what is missing, until nothing is.
    fn send(&self, mut place: Url) -> Result<(), PushError> {
        let (mut offset, mut failures) = (0, 0);
        while offset < self.blob.size {
            let error = match self.send_from(&place, offset) {
                Ok(next) => {
                    place = next;
                    break;
                }
                Err(PushError::Request(error)) => error,
                Err(error) => return Err(error),
            };
            failures += 1;
            self.wait(error, failures)?;
            let limits = self.client.limits();
            let before = offset;
            (place, offset) = match self.status(&place)? {
                Some(found) => found,
                None => match self.begin(None)? {
                    Some(place) => (place, 0),
                    None => return Ok(()),
                },
            };
            if offset >= before + limits.progress_bytes {
                failures = 0;
            }
        }
        let answer = self.client.ask(self.reference, &self.finish(&place, None)?, Ok);
        match answer {
            Ok(answer) => check(&answer, self.blob.digest),
            // The answer to an earlier attempt may have been lost.
            Err(_) if self.client.has_blob(self.reference, self.blob.digest).unwrap_or(false) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits after a failure that may pass.
    fn wait(&self, mut error: RequestError, failures: u32) -> Result<(), RequestError> {
        let transport = self.client.transport();
        if transport.is_cancelled() {
            return Err(RequestError { failure: Box::new(Failure::Cancelled), ..error });
        }
        // A token that has run out is asked for anew with the next request.
        let may_pass = error.is_transient() || error.is_about_place() || (error.is_denied() && failures == 1);
        error.attempts = failures;
        if !may_pass || failures >= self.client.limits().attempts {
            return Err(error);
        }
        pause(transport, failures, &error);
        Ok(())
    }

    /// Sends everything from an offset on; gives where the upload is then.
    fn send_from(&self, place: &Url, offset: u64) -> Result<Url, PushError> {
        let question = self.question(Method::PATCH, place, &[201, 202, 204]);
        let mut next = None;
        self.blob.source.read(offset, &mut |reader| {
            let mut counted = Counted { reader, sent: offset, progress: self.blob.progress, broke: None };
            let part = Part { bytes: &mut counted, length: self.blob.size - offset, from: offset };
            let answer = self.client.send_part(self.reference, &question, part);
            // What broke here did not break there.
            if let Some(error) = counted.broke.take() {
                return Err(PushError::Source(error));
            }
            next = Some(self.location(&answer?)?);
            Ok(())
        })?;
        next.ok_or_else(|| PushError::Source(io::ErrorKind::UnexpectedEof.into()))
    }

    /// Where an upload is that broke off, and how much of it is there; `None` if it is gone.
    fn status(&self, place: &Url) -> Result<Option<(Url, u64)>, PushError> {
        let answer =
            self.client.ask(self.reference, &self.question(Method::GET, place, &[202, 204, 404]), Ok)?;
        if answer.status == 404 {
            return Ok(None);
        }
        let place =
            if answer.headers.contains_key(LOCATION) { self.location(&answer)? } else { place.clone() };
        Ok(Some((place, received(&answer.headers).min(self.blob.size))))
    }
}

/// How many bytes of an upload a registry has: `0-99` means 100 of them. One says `0-0` of none, so one byte may be sent twice.
fn received(headers: &HeaderMap) -> u64 {
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let last: Option<u64> = range.strip_prefix("0-").and_then(|last| last.parse().ok());
    last.filter(|last| *last > 0).map_or(0, |last| last.saturating_add(1))
}

/// Tells how far it was read, and keeps an error of its own apart from those of the connection.
struct Counted<'c> {
    reader: &'c mut dyn Read,
    sent: u64,
    progress: &'c dyn Fn(u64),
    broke: Option<io::Error>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.reader.read(buffer) {
            Ok(read) => {
                self.sent += read as u64;
                (self.progress)(self.sent);
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.broke = Some(error);
                Err(io::ErrorKind::Other.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_says_how_much_it_has() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            received(&headers)
        };
        assert_eq!(["0-99", "bytes=0-99", "0-0", "", "5-9", "0-x"].map(of), [100, 100, 0, 0, 0, 0]);
        assert_eq!(received(&HeaderMap::new()), 0);
    }
}
