//! Files over HTTP.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use oci::Digest;
use plan::{RemoteContent, RemoteError, RemoteErrorCause};
use registry::Reach;
use source::http::{self, Ask, Body, Client, HttpError, Limits, Options, Place};
use source::{Access, Authorization};
use web::{Url, UrlError};

use super::{Fetcher, Reading, cancelled, machine, not_kept, refused, told};
use crate::build::input::archive;
use crate::network;

impl Fetcher<'_> {
    pub(super) fn resolve_file(
        &self,
        url: &str,
        shown: &str,
        checksum: Option<&Digest>,
    ) -> Result<RemoteContent, RemoteError> {
        let url = parse(url)?;
        let file_name = Some(http::file_name(&url));
        let locked = self.pins.file(shown)?;
        let digest = match (checksum, locked.as_deref()) {
            // What its content is is known; whether the server agrees is found out when it is needed.
            (Some(digest), _) => digest.clone(),
            (None, Some([digest])) => Digest::clone(digest),
            (None, _) => self.current_file(&url)?,
        };
        if locked.is_some_and(|locked| !locked.contains(&&digest)) {
            return Err(self.pins.differs(shown, &digest));
        }
        self.pins.found_file(shown, &digest);
        Ok(RemoteContent { digest, file_name })
    }

    /// What a URL stands for now, or stood for when its server was last asked.
    fn current_file(&self, url: &Url) -> Result<Digest, RemoteError> {
        let is_cancelled = || self.session.cancel.is_cancelled();
        match self.access {
            Access::Network => self.asking(url, &is_cancelled, |client, ask| client.resolve(ask)),
            Access::KeptOnly => {
                let held = self.hold(&url.full(), &is_cancelled)?;
                let last = Place::new(held.path().to_owned()).last();
                last.ok_or_else(|| not_kept(format!("`{url}` is not in the store")))
            }
        }
    }

    pub(super) fn write_file(
        &self,
        url: &str,
        content: &RemoteContent,
        into: &Path,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<PathBuf, RemoteError> {
        let url = parse(url)?;
        let target = into.join(content.file_name.as_deref().unwrap_or_default());
        let write = |body: &Body| {
            // Nobody writes to a kept body: a new one takes its place.
            let linked = fs::hard_link(&body.path, &target).or_else(|_| copy(&body.path, &target));
            linked.map_err(|source| HttpError::Place { path: target.clone(), source })
        };
        if self.access == Access::KeptOnly {
            let held = self.hold(&url.full(), is_cancelled)?;
            let body = Place::new(held.path().to_owned()).holds(&content.digest, is_cancelled);
            let body = body.map_err(|error| self.of_http(&error))?;
            let missing =
                || not_kept(format!("`{url}` with the digest {} is not in the store", content.digest));
            write(&body.ok_or_else(missing)?).map_err(|error| self.of_http(&error))?;
        } else {
            self.asking(&url, is_cancelled, |client, ask| write(&client.obtain(ask, &content.digest)?))?;
        }
        Ok(into.to_owned())
    }

    pub(super) fn time_of_file(
        &self,
        url: &str,
        shown: &str,
        checksum: Option<&Digest>,
    ) -> Result<Option<i64>, RemoteError> {
        let content = self.resolve_file(url, shown, checksum)?;
        let into = self.scratch()?;
        let is_cancelled = || self.session.cancel.is_cancelled();
        self.write_file(url, &content, &into, &is_cancelled)?;
        let path = into.join(content.file_name.unwrap_or_default());
        let modified = fs::metadata(&path).map_err(|error| machine(&error))?.mtime();
        // Without a word of the server a body is as old as time.
        Ok(if modified == 0 { archive::youngest(&path) } else { Some(modified) })
    }

    /// Does something with a URL's place, which is held meanwhile.
    fn asking<T>(
        &self,
        url: &Url,
        is_cancelled: &dyn Fn() -> bool,
        what: impl FnOnce(&Client, &Ask<'_>) -> Result<T, HttpError>,
    ) -> Result<T, RemoteError> {
        let held = self.hold(&url.full(), is_cancelled)?;
        let place = Place::new(held.path().to_owned());
        // The secret is named after the host, as the reference builder has it.
        let host = url.host();
        let names: [(String, Reading); 2] = [
            (format!("HTTP_AUTH_HEADER_{host}"), Authorization::header),
            (format!("HTTP_AUTH_TOKEN_{host}"), Authorization::bearer),
        ];
        let authorization = self.authorization(&names)?;
        let ask = Ask { url, authorization: authorization.as_ref(), place: &place, is_cancelled };
        what(self.client()?, &ask).map_err(|error| self.of_http(&error))
    }

    fn client(&self) -> Result<&Client, RemoteError> {
        let proxies = network::proxies(self.environment).map_err(|error| machine(&error))?;
        let client = self.client.get_or_init(|| {
            Client::new(Options {
                limits: Limits::DEFAULT,
                roots: network::roots(self.environment),
                proxies,
                user_agent: network::USER_AGENT.to_owned(),
                leads: |from, to| Reach::of(from).may_lead_to(Reach::of(to)),
                pause: Box::new(|length| std::thread::sleep(network::jittered(length))),
            })
        });
        client.as_ref().map_err(|error| machine(error))
    }

    fn of_http(&self, error: &HttpError) -> RemoteError {
        let mut told = of_http(error);
        if let (RemoteErrorCause::Checksum, Some(help)) = (told.cause, self.pins.help()) {
            told.help = Some(format!("if the file was meant to change, {help}; if not, do not trust it"));
        }
        told
    }
}

fn parse(url: &str) -> Result<Url, RemoteError> {
    Url::parse(url).map_err(|error| {
        let help = match error {
            UrlError::UserInfo(_) => {
                "it would be in the image's history: give a secret with the id HTTP_AUTH_HEADER_HOST instead"
            }
            UrlError::Malformed(_) | UrlError::Scheme(_) => "write it as https://HOST/PATH",
        };
        refused(error.to_string(), help)
    })
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    let modified = fs::metadata(from)?.modified()?;
    fs::File::options().write(true).open(to)?.set_modified(modified)
}

fn of_http(error: &HttpError) -> RemoteError {
    match error {
        HttpError::Cancelled => cancelled(),
        HttpError::Place { .. } => machine(error),
        HttpError::WrongDigest { .. } => {
            let help = "if the file was meant to change, write its new digest; if not, do not trust it";
            told(RemoteErrorCause::Checksum, error, Some(help))
        }
        HttpError::Status { status: 401 | 403, .. } => {
            let help = "give a token with `--secret id=HTTP_AUTH_TOKEN_HOST,…`, where HOST is the URL's";
            told(RemoteErrorCause::Network, error, Some(help))
        }
        HttpError::Status { .. }
        | HttpError::Exchange { .. }
        | HttpError::Proxy { .. }
        | HttpError::Cut { .. }
        | HttpError::Redirect { .. }
        | HttpError::TooLarge { .. } => told(RemoteErrorCause::Network, error, None),
    }
}
