//! A directory with the last body of one URL.
//!
//! `body` has the bytes, mode 0600, its modification time that of `Last-Modified`. `about` says what they are, in lines of a name and a value;
//! it is written after the body, and a pair that does not belong together is noticed by the digest.

use std::fs::{self, File, FileTimes};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oci::{Digest, Hasher};

use super::HttpError;

const COPY_BYTES: usize = 128 << 10;

/// Where one URL's body is kept. Whoever uses it holds it alone.
#[derive(Clone, Debug)]
pub struct Place(PathBuf);

/// A body that is here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Body {
    /// Its file: mode 0600, and modified when the server says, else in 1970.
    pub path: PathBuf,
    /// Of its bytes.
    pub digest: Digest,
}

/// What a server says of a body, and what it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct About {
    pub(super) digest: Digest,
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
}

impl Place {
    /// A directory that exists. What else lies in it is nobody's business.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Which bytes the URL stood for when its server was last asked, if they are here. They are read, and believed, only by
    /// [`holds`](Self::holds).
    #[must_use]
    pub fn last(&self) -> Option<Digest> {
        self.about().filter(|_| self.body().is_file()).map(|about| about.digest)
    }

    pub(super) fn body(&self) -> PathBuf {
        self.0.join("body")
    }

    /// Where a body is written before it is one.
    pub(super) fn draft(&self) -> PathBuf {
        self.0.join("body.part")
    }

    /// What is here; `None` if nothing is, or nothing that can be read.
    pub(super) fn about(&self) -> Option<About> {
        About::parse(&fs::read_to_string(self.0.join("about")).ok()?)
    }

    /// Makes the draft the body.
    pub(super) fn keep(&self, about: &About) -> Result<(), HttpError> {
        let (draft, body) = (self.draft(), self.body());
        let file = File::options().write(true).open(&draft).map_err(failed(&draft))?;
        file.set_times(FileTimes::new().set_modified(about.modified())).map_err(failed(&draft))?;
        fs::rename(&draft, &body).map_err(failed(&body))?;
        let (next, path) = (self.0.join("about.part"), self.0.join("about"));
        fs::write(&next, about.to_text()).map_err(failed(&next))?;
        fs::rename(&next, &path).map_err(failed(&path))
    }

    /// The body, if it is the one of that digest, whatever is said about it. All of it is read.
    ///
    /// # Errors
    /// [`HttpError::Place`], [`HttpError::Cancelled`].
    pub fn holds(&self, digest: &Digest, is_cancelled: &dyn Fn() -> bool) -> Result<Option<Body>, HttpError> {
        let path = self.body();
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path)(error)),
        };
        let (mut hasher, mut buffer) = (Hasher::new(digest.algorithm()), vec![0; COPY_BYTES]);
        loop {
            if is_cancelled() {
                return Err(HttpError::Cancelled);
            }
            match file.read(&mut buffer).map_err(failed(&path))? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        Ok((hasher.finish() == *digest).then(|| Body { path, digest: digest.clone() }))
    }
}

impl About {
    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            found.map(ToOwned::to_owned)
        };
        // The last line tells a whole file from a torn one.
        text.ends_with("end\n").then_some(())?;
        Some(Self {
            digest: value("digest")?.parse().ok()?,
            etag: value("etag"),
            last_modified: value("last-modified"),
        })
    }

    fn to_text(&self) -> String {
        let mut text = format!("digest {}\n", self.digest);
        for (name, value) in [("etag", &self.etag), ("last-modified", &self.last_modified)] {
            if let Some(value) = value {
                text.push_str(&format!("{name} {value}\n"));
            }
        }
        text.push_str("end\n");
        text
    }

    /// An HTTP date in its preferred form (RFC 9110, section 5.6.7); 1970 if there is none, or one before that.
    fn modified(&self) -> SystemTime {
        let date = self.last_modified.as_deref().and_then(|text| jiff::fmt::rfc2822::parse(text.trim()).ok());
        let seconds = date.map_or(0, |date| date.timestamp().as_second());
        UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }
}

pub(super) fn failed(path: &Path) -> impl FnOnce(io::Error) -> HttpError + '_ {
    move |source| HttpError::Place { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            digest: Digest::of(b"a"),
            etag: Some("\"a b\"".to_owned()),
            last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
        }
    }

    #[test]
    fn what_is_written_can_be_read_and_what_is_torn_is_nothing() {
        let text = about().to_text();
        assert_eq!(About::parse(&text), Some(about()));
        assert_eq!(About::parse(&text[..text.len() - 1]), None);
        assert_eq!(About::parse(""), None);
        assert_eq!(About::parse("digest sha256:x\nend\n"), None);
    }

    #[test]
    fn a_body_is_as_old_as_the_server_says() {
        let seconds = |text: Option<&str>| {
            let about = About { last_modified: text.map(ToOwned::to_owned), ..about() };
            about.modified().duration_since(UNIX_EPOCH).unwrap().as_secs()
        };
        assert_eq!(seconds(Some("Sun, 06 Nov 1994 08:49:37 GMT")), 784_111_777);
        assert_eq!(seconds(Some("yesterday")), 0);
        assert_eq!(seconds(Some("Sun, 06 Nov 1904 08:49:37 GMT")), 0);
        assert_eq!(seconds(None), 0);
    }
}
