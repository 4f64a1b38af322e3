//! Sources from elsewhere, for one build: the client, the credentials among the build's secrets, and where it is all kept.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use oci::Digest;
use plan::{Remote, RemoteContent, RemoteError, RemoteErrorCause, RemoteRequest};
use solver::Secret;
use source::http::{Ask, Body, Client, HttpError, Limits, Options, Place};
use source::{Authorization, Url};
use store::SourceDir;

use crate::build::errors;
use crate::environment::Environment;
use crate::network;
use crate::session::Session;

/// Fetches for one build. Threads share it.
pub(crate) struct Fetcher<'f> {
    session: &'f Session,
    secrets: &'f BTreeMap<String, Secret>,
    environment: &'f Environment,
    /// Made when the first source asks for it: certificates take a while to read.
    client: OnceLock<Client>,
}

impl<'f> Fetcher<'f> {
    pub(crate) fn new(
        session: &'f Session,
        secrets: &'f BTreeMap<String, Secret>,
        environment: &'f Environment,
    ) -> Self {
        Self { session, secrets, environment, client: OnceLock::new() }
    }

    /// What a source is now.
    pub(crate) fn resolve(&self, request: &RemoteRequest) -> Result<RemoteContent, RemoteError> {
        let RemoteRequest::File { url, checksum } = request;
        let url = parse(url)?;
        let file_name = url.file_name();
        let digest = match checksum {
            // What its content is is known; whether the server agrees is found out when it is needed.
            Some(digest) => digest.clone(),
            None => self.file_digest(&url)?,
        };
        Ok(RemoteContent { digest, file_name })
    }

    /// Writes a source into an empty directory.
    pub(crate) fn write(
        &self,
        remote: &Remote,
        into: &Path,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<(), RemoteError> {
        let RemoteRequest::File { url, .. } = &remote.request;
        let url = parse(url)?;
        let (_held, body) = self.file(&url, &remote.content.digest, is_cancelled)?;
        let target = into.join(&remote.content.file_name);
        // Nobody writes to a kept body: a new one takes its place.
        fs::hard_link(&body.path, &target)
            .or_else(|_| copy(&body.path, &target))
            .map_err(|error| machine(&error))
    }

    fn file_digest(&self, url: &Url) -> Result<Digest, RemoteError> {
        let is_cancelled = || self.session.cancel.is_cancelled();
        let (_held, place) = self.place(url, &is_cancelled)?;
        let authorization = self.authorization(url)?;
        let ask =
            Ask { url, authorization: authorization.as_ref(), place: &place, is_cancelled: &is_cancelled };
        self.client().resolve(&ask).map_err(|error| of_http(&error))
    }

    /// The file with that digest, which stays as long as the directory is held.
    fn file(
        &self,
        url: &Url,
        digest: &Digest,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<(SourceDir, Body), RemoteError> {
        let (held, place) = self.place(url, is_cancelled)?;
        let authorization = self.authorization(url)?;
        let ask = Ask { url, authorization: authorization.as_ref(), place: &place, is_cancelled };
        let body = self.client().obtain(&ask, digest).map_err(|error| of_http(&error))?;
        Ok((held, body))
    }

    fn place(&self, url: &Url, is_cancelled: &dyn Fn() -> bool) -> Result<(SourceDir, Place), RemoteError> {
        let held =
            self.session.lease.source_dir(&url.full(), is_cancelled).map_err(|error| machine(&error))?;
        let held = held.ok_or_else(cancelled)?;
        let place = Place::new(held.path().to_owned());
        Ok((held, place))
    }

    /// The secret that is named after the host, as the reference builder has it.
    fn authorization(&self, url: &Url) -> Result<Option<Authorization>, RemoteError> {
        let host = url.host();
        let header = format!("HTTP_AUTH_HEADER_{host}");
        if let Some(secret) = self.secrets.get(&header) {
            return sendable(&header, Authorization::header(&secret.0)).map(Some);
        }
        let token = format!("HTTP_AUTH_TOKEN_{host}");
        match self.secrets.get(&token) {
            Some(secret) => sendable(&token, Authorization::bearer(&secret.0)).map(Some),
            None => Ok(None),
        }
    }

    fn client(&self) -> &Client {
        self.client.get_or_init(|| {
            Client::new(Options {
                limits: Limits::DEFAULT,
                roots: match network::roots(self.environment) {
                    registry::Roots::Compiled => source::http::Roots::Compiled,
                    registry::Roots::Pem(bundle) => source::http::Roots::Pem(bundle),
                },
                user_agent: network::USER_AGENT.to_owned(),
                pause: Box::new(|length| std::thread::sleep(network::jittered(length))),
            })
        })
    }
}

fn sendable(id: &str, read: Option<Authorization>) -> Result<Authorization, RemoteError> {
    let title = || format!("the secret `{id}` is nothing that can be sent in a header");
    read.ok_or_else(|| refused(title(), "a header is one line of text"))
}

fn parse(url: &str) -> Result<Url, RemoteError> {
    Url::parse(url).map_err(|error| {
        let help = match error {
            source::UrlError::UserInfo(_) => {
                "it would be in the image's history: give a secret with the id HTTP_AUTH_HEADER_HOST instead"
            }
            _ => "write it as https://HOST/PATH",
        };
        refused(error.to_string(), help)
    })
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    let modified = fs::metadata(from)?.modified()?;
    fs::File::options().write(true).open(to)?.set_modified(modified)
}

fn refused(message: String, help: &str) -> RemoteError {
    RemoteError { cause: RemoteErrorCause::Refused, message, notes: Vec::new(), help: Some(help.to_owned()) }
}

fn cancelled() -> RemoteError {
    RemoteError {
        cause: RemoteErrorCause::Cancelled,
        message: "cancelled".to_owned(),
        notes: Vec::new(),
        help: None,
    }
}

fn machine(error: &(dyn Error + 'static)) -> RemoteError {
    let help = errors::is_disk_full(error).then(|| {
        "`rbuild prune` frees what no image needs; `rbuild du` shows what takes the space".to_owned()
    });
    RemoteError { cause: RemoteErrorCause::Machine, message: error.to_string(), notes: causes(error), help }
}

fn of_http(error: &HttpError) -> RemoteError {
    let (cause, help) = match error {
        HttpError::Cancelled => return cancelled(),
        HttpError::Place { .. } => return machine(error),
        HttpError::WrongDigest { .. } => {
            let help = "if the file was meant to change, write its new digest; if not, do not trust it";
            (RemoteErrorCause::Checksum, Some(help))
        }
        HttpError::Status { status: 401 | 403, .. } => {
            let help = "give a token with `--secret id=HTTP_AUTH_TOKEN_HOST,…`, where HOST is the URL's";
            (RemoteErrorCause::Network, Some(help))
        }
        HttpError::Status { .. }
        | HttpError::Exchange { .. }
        | HttpError::Cut { .. }
        | HttpError::Redirect { .. }
        | HttpError::TooLarge { .. } => (RemoteErrorCause::Network, None),
    };
    let help = help.map(ToOwned::to_owned);
    RemoteError { cause, message: error.to_string(), notes: causes(error), help }
}

fn causes(error: &dyn Error) -> Vec<String> {
    std::iter::successors(error.source(), |error| (*error).source()).map(ToString::to_string).collect()
}
