//! Blobs and manifests into a registry (OCI distribution specification, "Pushing").
//!
//! A blob that the registry has is not sent, and one that it has in another repository is taken over from there. Any other goes into an upload
//! of its own: in one request if it is small, else as one long body, which is continued where the registry says that it broke off. An upload that
//! cannot be continued begins anew. A blob that is still being made goes as far as it is made, before anybody knows its name.
//! Nothing has a name before its manifest is put, and the registry checks every digest.

use std::cell::Cell;
use std::io::{self, Read};

use oci::{Digest, Reference};
use ureq::http::header::{LOCATION, RANGE};
use ureq::http::{HeaderMap, Method};
use web::Url;

use crate::auth::Access;
use crate::body::Pace;
use crate::client::{Client, Location, Question};
use crate::error::{Failure, RedirectError, RequestError};
use crate::manifest::DIGEST_HEADER;
use crate::retry::pause;
use crate::transport::{Answer, Content, Part};

/// Blobs of at most so many bytes go in one request.
const SMALL_BYTES: u64 = 64 << 10;

/// What is left of a blob that is worth a question whether it is there.
const WORTH_ASKING_BYTES: u64 = 1 << 20;

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

/// A blob that is sent while it is made.
pub struct Growing<'g> {
    /// Its bytes: it waits for those that are not made yet.
    pub source: &'g dyn Source,
    /// What it has turned out to be, and how long it is, in bytes; `None` until that is known.
    pub known: &'g dyn Fn() -> Option<(Digest, u64)>,
    /// Waits until it is known, or never will be.
    pub wait: &'g dyn Fn(),
    /// As that of [`Outgoing`].
    pub progress: &'g dyn Fn(u64),
}

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Delivery {
    /// It was there.
    Existed,
    /// The registry took it over from another repository.
    Mounted,
    /// It was sent, or somebody else sent it meanwhile.
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
        self.ask(reference, &presence(digest), |answer| Ok(answer.status == 200))
    }

    /// Sees to it that a repository has a blob.
    ///
    /// # Errors
    /// [`PushError`].
    pub fn push_blob(&self, reference: &Reference, blob: &Outgoing<'_>) -> Result<Delivery, PushError> {
        match self.has_blob(reference, blob.digest) {
            Ok(true) => return Ok(Delivery::Existed),
            Ok(false) => {}
            // Where blobs are fetched from need not be where they are sent to.
            Err(error) if self.is_of_another_host(reference, &error) => {
                tracing::debug!(%error, "nobody says whether the blob is there");
            }
            Err(error) => return Err(error.into()),
        }
        let upload = Upload { to: Uploads::of(self, reference, blob.digest), blob };
        let place = match blob.mount_from {
            Some(from) => upload.begin_or_mount(from)?,
            None => Some(upload.to.begin()?),
        };
        let Some(place) = place else { return Ok(Delivery::Mounted) };
        upload.deliver(place, None)?;
        Ok(Delivery::Sent)
    }

    /// Sees to it that a repository has a blob that is still being made. Whether it is there can be asked only when it is made; then it is,
    /// if much of it is left.
    ///
    /// # Errors
    /// [`PushError`]; [`PushError::Source`] if making it fails.
    pub fn push_growing(&self, reference: &Reference, blob: &Growing<'_>) -> Result<Delivery, PushError> {
        let Growing { source, known, wait, progress } = *blob;
        let to = Uploads { client: self, reference, blob: "a blob".to_owned() };
        let place = to.begin()?;
        let (was_asked, is_there) = (Cell::new(false), Cell::new(false));
        let is_unneeded = |sent: u64| {
            if let (false, Some((digest, size))) = (was_asked.get(), known()) {
                was_asked.set(true);
                let asks = size.saturating_sub(sent) >= WORTH_ASKING_BYTES;
                // Once, since the registry waits for more of the body meanwhile.
                let answer = || self.ask_once(reference, &presence(&digest)).ok();
                is_there.set(asks && answer().is_some_and(|answer| answer.status == 200));
            }
            is_there.get()
        };
        let first =
            to.send(&place, Stretch { source, from: 0, size: None, progress, is_unneeded: &is_unneeded });
        if is_there.get() {
            return Ok(Delivery::Existed);
        }
        match first {
            Ok(_) => {}
            Err(PushError::Request(ref error)) if may_go_on(error) => {}
            Err(error) => return Err(error),
        }
        // What broke off goes on when all of it is there.
        wait();
        let unknown = || PushError::Source(io::ErrorKind::UnexpectedEof.into());
        let (digest, size) = known().ok_or_else(unknown)?;
        let blob = &Outgoing { digest: &digest, size, source, mount_from: None, progress };
        match first {
            Err(PushError::Request(error)) if is_about_form(&error) => {
                tracing::debug!(%error, "a blob that was still being made was not taken");
                self.push_blob(reference, blob)
            }
            first => {
                Upload { to: Uploads::of(self, reference, &digest), blob }.deliver(place, Some(first))?;
                Ok(Delivery::Sent)
            }
        }
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
        self.put_manifest(reference, media_type, bytes).map(drop)
    }

    /// The same, and what the registry says of it in the header.
    pub(crate) fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<HeaderMap, PushError> {
        let digest = Digest::of(bytes);
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let question = Question {
            method: Method::PUT,
            access: push(),
            content: Some(Content { media_type, bytes: bytes.into() }),
            statuses: &[201, 202, 204],
            ..Question::get(format!("manifests/{name}"), format!("place for manifest {name}"), "*/*")
        };
        let answer = self.ask(reference, &question, Ok)?;
        check(&answer, &digest)?;
        Ok(answer.headers)
    }
}

/// Whether a body of unknown length may be what was refused: there are registries, and proxies before them, that take none.
fn is_about_form(error: &RequestError) -> bool {
    let is_of_place = error.is_transient() || error.is_about_place() || error.status() == Some(401);
    may_go_on(error) && !is_of_place
}

/// Whether an upload whose first body was not taken is worth another attempt.
fn may_go_on(error: &RequestError) -> bool {
    match &*error.failure {
        Failure::Denied { status, .. } => *status == 401,
        Failure::Status { .. } | Failure::NotFound { .. } | Failure::NotHttp(_) => true,
        _ => error.is_transient(),
    }
}

/// Whether a blob is there.
fn presence(digest: &Digest) -> Question<'static> {
    Question {
        method: Method::HEAD,
        access: push(),
        statuses: &[404],
        ..Question::get(format!("blobs/{digest}"), format!("blob {digest}"), "*/*")
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

/// Uploads of one blob.
struct Uploads<'u> {
    client: &'u Client,
    reference: &'u Reference,
    /// As messages call it.
    blob: String,
}

/// What is sent in one body.
#[derive(Clone, Copy)]
struct Stretch<'s> {
    source: &'s dyn Source,
    /// Where in the blob it begins.
    from: u64,
    /// How long the blob is, if that is known.
    size: Option<u64>,
    progress: &'s dyn Fn(u64),
    /// Asked before each read, with how many bytes of the blob have been sent, whether the rest need not be.
    is_unneeded: &'s dyn Fn(u64) -> bool,
}

impl<'u> Uploads<'u> {
    fn of(client: &'u Client, reference: &'u Reference, digest: &Digest) -> Self {
        Self { client, reference, blob: format!("blob {digest}") }
    }

    fn begin(&self) -> Result<Url, PushError> {
        let question = Question { statuses: &[202], ..self.beginning("blobs/uploads/".to_owned()) };
        self.location(&self.client.ask(self.reference, &question, Ok)?)
    }

    fn beginning(&self, path: String) -> Question<'static> {
        let what = format!("place for {}", self.blob);
        Question { method: Method::POST, access: push(), ..Question::get(path, what, "*/*") }
    }

    /// Where the upload goes on.
    fn location(&self, answer: &Answer) -> Result<Url, PushError> {
        let host = || answer.origin.to_string();
        let location = answer.headers.get(LOCATION).ok_or_else(|| PushError::NoLocation { host: host() })?;
        let refused = |error: RedirectError| RequestError::new(host(), Failure::Redirect(error));
        let location = String::from_utf8_lossy(location.as_bytes());
        Ok(answer.url.join(&location).map_err(|error| refused(error.into()))?)
    }

    /// The same, or, if nothing is said, where it was.
    fn next(&self, answer: &Answer, place: &Url) -> Result<Url, PushError> {
        if answer.headers.contains_key(LOCATION) { self.location(answer) } else { Ok(place.clone()) }
    }

    fn question(&self, method: Method, place: &Url, statuses: &'static [u16]) -> Question<'static> {
        let what = format!("upload of {}", self.blob);
        let place = Location::At(place.clone());
        Question { method, place, access: push(), statuses, ..Question::get(String::new(), what, "*/*") }
    }

    /// Sends one body to its end; gives where the upload is then.
    fn send(&self, place: &Url, stretch: Stretch<'_>) -> Result<Url, PushError> {
        let question = self.question(Method::PATCH, place, &[201, 202, 204]);
        let Stretch { source, from, size, progress, is_unneeded } = stretch;
        let mut next = None;
        source.read(from, &mut |reader| {
            let mut sending = Sending {
                reader,
                sent: from,
                size,
                progress,
                is_unneeded,
                pace: Pace::new(self.client.limits(), self.client.transport().timing.clone()),
                broke: None,
            };
            let part = Part { bytes: &mut sending, length: size.map(|size| size - from), from };
            let answer = self.client.send_part(self.reference, &question, part);
            match sending.broke.take() {
                // What broke here did not break there.
                Some(Broke::Source(error)) => return Err(PushError::Source(error)),
                Some(Broke::Pace(failure)) => return Err(RequestError::new(place.origin(), failure).into()),
                None => {}
            }
            next = Some(self.next(&answer?, place)?);
            Ok(())
        })?;
        next.ok_or_else(|| PushError::Source(io::ErrorKind::UnexpectedEof.into()))
    }
}

/// One blob on its way.
struct Upload<'u> {
    to: Uploads<'u>,
    blob: &'u Outgoing<'u>,
}

/// What went wrong so far with one blob.
#[derive(Debug, Default)]
struct Trouble {
    /// Failures since the registry last had more than ever before.
    failures: u32,
    /// The most that the registry has had of it.
    best: u64,
    /// Whether an upload was continued, so that the registry may have put it together wrongly.
    was_resumed: bool,
}

impl Upload<'_> {
    fn client(&self) -> &Client {
        self.to.client
    }

    /// Begins an upload; `None` if the blob was taken over from `from`.
    fn begin_or_mount(&self, from: &str) -> Result<Option<Url>, PushError> {
        let digest = self.blob.digest;
        let pairs = [("mount", &*digest.to_string()), ("from", from)];
        let access = Access::Push { from: Some(from.to_owned()) };
        let question = Question {
            access,
            statuses: &[201, 202],
            ..self.to.beginning(format!("blobs/uploads/?{}", web::form(&pairs)))
        };
        match self.client().ask(self.to.reference, &question, Ok) {
            Ok(answer) if answer.status == 201 => check(&answer, digest).map(|()| None),
            Ok(answer) => self.to.location(&answer).map(Some),
            Err(error) if matches!(*error.failure, Failure::Cancelled) => Err(error.into()),
            // Instead of just beginning an upload, some refuse whoever may not see the other repository.
            Err(error) => {
                tracing::debug!(%error, from, "the blob cannot be taken over");
                self.to.begin().map(Some)
            }
        }
    }

    /// Sends the blob, in as many uploads as it takes. With `first`, its body went to the first of them already: what came of that.
    fn deliver(&self, mut place: Url, mut first: Option<Result<Url, PushError>>) -> Result<(), PushError> {
        let mut trouble = Trouble::default();
        loop {
            let finished = match first.take() {
                None if self.blob.size <= SMALL_BYTES => self.send_at_once(&place)?,
                None => {
                    let sent = self.send_from(&place, 0);
                    self.send(place, sent, &mut trouble)?
                }
                Some(sent) => self.send(place, sent, &mut trouble)?,
            };
            let error = match finished {
                Ok(answer) => return check(&answer, self.blob.digest),
                Err(error) => error,
            };
            // The answer to what succeeded may have been lost.
            if self.client().has_blob(self.to.reference, self.blob.digest).unwrap_or(false) {
                return Ok(());
            }
            self.wait(error, &mut trouble)?;
            place = self.to.begin()?;
        }
    }

    /// Sends all of it with the question to make a blob of it, and gives the answer to that.
    fn send_at_once(&self, place: &Url) -> Result<Result<Answer, RequestError>, PushError> {
        let mut bytes = Vec::new();
        self.blob
            .source
            .read(0, &mut |reader| reader.read_to_end(&mut bytes).map(drop).map_err(PushError::Source))?;
        let length = bytes.len() as u64;
        let content = Content { media_type: "application/octet-stream", bytes: bytes.into() };
        (self.blob.progress)(length);
        self.finish(place, Some(content))
    }

    /// Sends what is missing after a first body, until nothing is; gives the answer to the question to make a blob of it.
    fn send(
        &self,
        mut place: Url,
        mut sent: Result<Url, PushError>,
        trouble: &mut Trouble,
    ) -> Result<Result<Answer, RequestError>, PushError> {
        loop {
            let error = match sent {
                Ok(next) => return self.finish(&next, None),
                Err(PushError::Request(error)) => error,
                Err(error) => return Err(error),
            };
            self.wait(error, trouble)?;
            let offset;
            (place, offset) = match self.status(&place)? {
                Some(found) => found,
                None => (self.to.begin()?, 0),
            };
            trouble.was_resumed |= offset > 0;
            if offset >= trouble.best.saturating_add(self.client().limits().progress_bytes) {
                (trouble.best, trouble.failures) = (offset, 0);
            }
            sent = self.send_from(&place, offset);
        }
    }

    /// Sends everything from an offset on; gives where the upload is then.
    fn send_from(&self, place: &Url, from: u64) -> Result<Url, PushError> {
        let Outgoing { source, size, progress, .. } = *self.blob;
        self.to.send(place, Stretch { source, from, size: Some(size), progress, is_unneeded: &|_| false })
    }

    /// Asks the registry to make a blob of what it has. It cannot be asked twice.
    fn finish(
        &self,
        place: &Url,
        content: Option<Content<'_>>,
    ) -> Result<Result<Answer, RequestError>, PushError> {
        let digest = self.blob.digest.to_string();
        let place = place
            .with_query(&[("digest", &digest)])
            .map_err(|error| RequestError::new(place.origin(), Failure::Redirect(error.into())))?;
        let question = Question { content, ..self.to.question(Method::PUT, &place, &[201, 204]) };
        Ok(self.client().ask_once(self.to.reference, &question))
    }

    /// Waits after a failure that may pass.
    fn wait(&self, mut error: RequestError, trouble: &mut Trouble) -> Result<(), RequestError> {
        let transport = self.client().transport();
        if transport.is_cancelled() {
            return Err(RequestError { failure: Box::new(Failure::Cancelled), ..error });
        }
        trouble.failures += 1;
        // A token that has run out is asked for anew with the next request.
        let is_first_denial = trouble.failures == 1 && error.is_denied();
        let is_ill_joined = trouble.was_resumed && error.status() == Some(400);
        let may_pass = error.is_transient() || error.is_about_place() || is_first_denial || is_ill_joined;
        error.attempts = trouble.failures;
        if !may_pass || trouble.failures >= self.client().limits().attempts {
            return Err(error);
        }
        pause(transport, trouble.failures, &error);
        Ok(())
    }

    /// Where an upload is that broke off, and how much of it is there; `None` if it cannot be continued.
    fn status(&self, place: &Url) -> Result<Option<(Url, u64)>, PushError> {
        let question = self.to.question(Method::GET, place, &[202, 204]);
        match self.client().ask(self.to.reference, &question, Ok) {
            Ok(answer) => match received(&answer.headers).filter(|received| *received < self.blob.size) {
                Some(received) => Ok(Some((self.to.next(&answer, place)?, received))),
                None => Ok(None),
            },
            Err(error) if error.status().is_some_and(|status| status != 401) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// How many bytes of an upload a registry has: `0-99` means 100 of them. `0-0` means one or, from most registries, none.
fn received(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let last: u64 = range.strip_prefix("0-")?.parse().ok()?;
    (last > 0).then(|| last.saturating_add(1))
}

/// A blob that is being sent. Tells how far it was read, and keeps what goes wrong here apart from what goes wrong there.
struct Sending<'s> {
    reader: &'s mut dyn Read,
    sent: u64,
    size: Option<u64>,
    progress: &'s dyn Fn(u64),
    is_unneeded: &'s dyn Fn(u64) -> bool,
    pace: Pace,
    broke: Option<Broke>,
}

enum Broke {
    /// The bytes cannot be read.
    Source(io::Error),
    /// The registry takes hardly any.
    Pace(Failure),
}

impl Read for Sending<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // What was read before has been sent by now.
        if let Err(failure) = self.pace.waited() {
            self.broke = Some(Broke::Pace(failure));
            return Err(io::ErrorKind::Other.into());
        }
        if (self.is_unneeded)(self.sent) {
            self.broke = Some(Broke::Source(io::ErrorKind::BrokenPipe.into()));
            return Err(io::ErrorKind::Other.into());
        }
        let result = self.reader.read(buffer);
        let result = match result {
            // Whoever sends would wait for the rest for ever.
            Ok(0) if self.size.is_some_and(|size| self.sent < size) && !buffer.is_empty() => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            result => result,
        };
        match result {
            Ok(read) => {
                self.sent += read as u64;
                self.pace.moved(read);
                (self.progress)(self.sent);
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.broke = Some(Broke::Source(error));
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
        assert_eq!(["0-99", "bytes=0-99"].map(of), [Some(100); 2]);
        assert_eq!(["0-0", "", "5-9", "0-x"].map(of), [None; 4]);
        assert_eq!(received(&HeaderMap::new()), None);
    }
}
