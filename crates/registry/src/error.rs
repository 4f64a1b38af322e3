//! What can go wrong between us and a registry, each with the host that it went wrong at.
//!
//! One request fails with a [`RequestError`]: which host, after how many attempts, and the [`Failure`]. The operations have their own
//! errors on top: [`crate::ManifestError`], [`crate::ResolveError`], [`crate::BlobError`], [`crate::PushError`],
//! [`crate::TagsError`].

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{error, fmt, io};

use crate::credentials::CredentialsError;
use crate::hosts::{RouteError, Unusable};
use crate::limits::Limits;
use web::{RootsError, UrlError};

/// A request that did not get what it asked for.
#[derive(Debug)]
pub struct RequestError {
    /// The host that failed, with its port unless that goes without saying. After a redirect this is not the registry.
    pub host: String,
    /// How often it was tried.
    pub attempts: u32,
    /// What happened, the last time. Boxed, so that results stay small.
    pub failure: Box<Failure>,
}

/// What happened to a request. Displayed as what the host did: "`host` has no address".
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The name did not resolve.
    #[error("has no address")]
    Lookup(#[source] io::Error),
    /// No connection.
    #[error("cannot be reached")]
    Connect(#[source] io::Error),
    /// The certificate is not trusted, or no version or cipher is shared.
    #[error("offers no TLS connection that can be trusted")]
    Tls(#[source] Box<ureq::Error>),
    /// Time was up.
    #[error("{phase} within {limit:?}")]
    Timeout {
        /// What was waited for.
        phase: Phase,
        /// How long.
        limit: Duration,
    },
    /// Bytes came or were taken, but hardly any.
    #[error("moved less than {floor_bytes_per_second} bytes a second for {window:?}")]
    TooSlow {
        /// [`crate::Limits::floor_bytes_per_second`].
        floor_bytes_per_second: u64,
        /// [`crate::Limits::floor_window`].
        window: Duration,
    },
    /// The connection ended before the answer did.
    #[error("broke the connection")]
    Cut(#[source] io::Error),
    /// A malformed answer, or a header beyond all limits.
    #[error("did not answer in proper HTTP")]
    NotHttp(#[source] Box<ureq::Error>),
    /// An answer that is no success and has no variant of its own.
    #[error("answered with status {status}{says}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        says: Says,
        /// The pause it asked for.
        retry_after: Option<Duration>,
    },
    /// 401 or 403.
    #[error("refuses `{repository}` {login} (status {status}; it may also not exist){says}")]
    Denied {
        /// What was asked for, without its tag.
        repository: String,
        /// 401 or 403.
        status: u16,
        /// As whom we asked.
        login: Login,
        /// The server's own words.
        says: Says,
    },
    /// 404.
    #[error("has no {what} in `{repository}`, or does not show it {login}{says}")]
    NotFound {
        /// What was asked for, without its tag.
        repository: String,
        /// `tag ...`, `manifest sha256:...`, `blob sha256:...`, or the place or the upload of one of them.
        what: String,
        /// As whom we asked.
        login: Login,
        /// The server's own words.
        says: Says,
    },
    /// The server asks for a longer pause than we make.
    #[error("asks for a pause of {} s, which is more than {} s{says}", wait.as_secs(), limit.as_secs())]
    Throttled {
        /// The pause it asked for.
        wait: Duration,
        /// [`crate::Limits::retry_after`].
        limit: Duration,
        /// The server's own words.
        says: Says,
    },
    /// A redirect that was not followed.
    #[error("redirects to where it may not")]
    Redirect(#[source] RedirectError),
    /// No token could be had.
    #[error("asks for a token that cannot be had")]
    Token(#[source] Box<TokenError>),
    /// The configured credentials cannot be used.
    #[error("asks for credentials that cannot be read")]
    Credentials(#[source] CredentialsError),
    /// A body beyond its limit; reading stopped there.
    #[error("sent a {what} of more than {limit_bytes} bytes")]
    TooLarge {
        /// What the body was to be.
        what: &'static str,
        /// The limit.
        limit_bytes: u64,
    },
    /// The proxy did not connect us; its words.
    #[error("makes no tunnel: {0}")]
    Tunnel(String),
    /// It was not the host that failed, but the proxy before it.
    #[error("cannot be asked: the proxy `{proxy}` {failure}")]
    Proxy {
        /// `host:port`.
        proxy: String,
        /// What the proxy did.
        failure: Box<Failure>,
    },
    /// The configuration leads nowhere, see [`crate::Hosts`].
    #[error(transparent)]
    Route(RouteError),
    /// What is configured for it.
    #[error("cannot be asked: what is configured for it cannot be used")]
    Unusable(#[source] Unusable),
    /// The certificates that are configured for it.
    #[error("cannot be asked: its certificates{} cannot be used", in_directory(directory.as_deref()))]
    Certificates {
        /// Where they are; `None` if it is those of the system.
        directory: Option<PathBuf>,
        /// What is wrong.
        #[source]
        source: RootsError,
    },
    /// [`crate::Client::cancel`] was called.
    #[error("was not waited for: cancelled")]
    Cancelled,
}

/// A part of an exchange that has a time limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Look-up, TCP and TLS.
    Connect,
    /// The header of the response.
    Answer,
    /// The next bytes of a body.
    Body,
    /// That it takes more of what is sent.
    Sending,
    /// The word that it has stored what was sent.
    Taking,
}

/// As whom a request was made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Login {
    /// No credentials are configured for the repository.
    Anonymous,
    /// With the user's name and password.
    User(String),
    /// With a stored token.
    Token,
}

/// Why a redirect was not followed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RedirectError {
    /// A chain or a loop.
    #[error("there are more than {0} redirects")]
    TooMany(u32),
    /// 3xx without `Location`.
    #[error("the redirect has no location")]
    NoLocation,
    /// The location is no address we could ask.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// From https to http, or to http at a host that is not known to have no https.
    #[error("`{0}` is not protected by TLS")]
    Unprotected(String),
    /// From outside to inside, see [`crate::Reach`].
    #[error("`{host}` is the inner address {address}")]
    Inward {
        /// The host named by the redirect.
        host: String,
        /// What it resolved to.
        address: std::net::IpAddr,
    },
    /// A list that goes on at another host.
    #[error("`{0}` is another host's, and is no part of the answer")]
    Elsewhere(String),
    /// In answer to a request that changes something, or has credentials in its body.
    #[error("a request that is no GET is not repeated elsewhere")]
    NotRepeated,
}

/// Why a registry's challenge could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No `WWW-Authenticate`, or none that we know.
    #[error("its challenge `{0}` is neither Basic nor a Bearer challenge with a realm")]
    Challenge(String),
    /// The realm is not where credentials may go.
    #[error("its token realm may not be used")]
    Realm(#[source] RedirectError),
    /// The token server failed.
    #[error(transparent)]
    Request(RequestError),
    /// The token server's answer is not the JSON it should be.
    #[error("the answer of `{host}` is not a token")]
    Malformed {
        /// The token server.
        host: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// JSON, but no `token` and no `access_token`, or one that cannot stand in a header.
    #[error("the answer of `{host}` has no usable token in it")]
    NoToken {
        /// The token server.
        host: String,
    },
}

/// A server's own words on an error, made fit for a terminal. Displayed with a dash in front; nothing if there are none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Says(Option<String>);

fn in_directory(directory: Option<&Path>) -> String {
    directory.map_or_else(String::new, |directory| format!(" in `{}`", directory.display()))
}

impl Failure {
    fn is_transient(&self) -> bool {
        match self {
            Self::Lookup(_) | Self::Connect(_) | Self::Cut(_) => true,
            // That one was waited for long enough.
            Self::Timeout { phase, .. } => *phase != Phase::Taking,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::Proxy { failure, .. } => failure.is_transient(),
            _ => false,
        }
    }
}

impl RequestError {
    pub(crate) fn new(host: impl fmt::Display, failure: Failure) -> Self {
        Self { host: host.to_string(), attempts: 1, failure: Box::new(failure) }
    }

    /// Whether the same request may well succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        self.failure.is_transient()
    }

    /// The status, if there was an answer with one that means failure.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match &*self.failure {
            Failure::Status { status, .. } | Failure::Denied { status, .. } => Some(*status),
            Failure::NotFound { .. } => Some(404),
            Failure::Throttled { .. } => Some(429),
            _ => None,
        }
    }

    /// Whether an upload is not where it was thought to be: gone, or at another offset.
    pub(crate) fn is_about_place(&self) -> bool {
        matches!(self.status(), Some(404 | 416))
    }

    /// Whether TLS was tried, and could not be trusted or not be set up as configured.
    pub(crate) fn is_about_trust(&self) -> bool {
        matches!(*self.failure, Failure::Tls(_) | Failure::Certificates { .. } | Failure::Unusable(_))
    }

    /// Whether whoever asks has no right to.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(*self.failure, Failure::Denied { status: 401, .. })
    }

    /// The pause that the server asked for.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match *self.failure {
            Failure::Status { retry_after, .. } => retry_after,
            _ => None,
        }
    }
}

impl Failure {
    /// An answer that is no success, and means the same whatever was asked for.
    pub(crate) fn of_status(status: u16, retry_after: Option<Duration>, limits: &Limits, says: Says) -> Self {
        match retry_after {
            Some(wait) if matches!(status, 429 | 503) && wait > limits.retry_after => {
                Self::Throttled { wait, limit: limits.retry_after, says }
            }
            _ => Self::Status {
                status,
                says,
                retry_after: retry_after.filter(|wait| *wait <= limits.retry_after),
            },
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.host, self.failure)?;
        if self.attempts > 1 { write!(f, " (tried {} times)", self.attempts) } else { Ok(()) }
    }
}

impl error::Error for RequestError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.failure.source()
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "could not be connected to",
            Self::Answer => "did not answer",
            Self::Body => "sent nothing further",
            Self::Sending => "took nothing further",
            Self::Taking => "did not say that it took what was sent",
        })
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("without a login"),
            Self::User(name) => write!(f, "to `{name}`"),
            Self::Token => f.write_str("with the stored token"),
        }
    }
}

impl Says {
    /// Reads the errors of a distribution API answer, or the variants that token servers give.
    pub(crate) fn from_body(body: &[u8]) -> Self {
        let Ok(answer) = serde_json::from_slice::<crate::wire::ErrorBody>(body) else { return Self(None) };
        let listed = answer.errors.into_iter().map(|error| match error.message {
            Some(message) if !message.is_empty() => format!("{}: {message}", error.code),
            _ => error.code,
        });
        let single = [answer.error, answer.error_description, answer.details].into_iter().flatten();
        let text: Vec<String> = listed.chain(single).filter(|text| !text.is_empty()).collect();
        Self((!text.is_empty()).then(|| for_terminal(&text.join(", "))))
    }

    /// The words, if there are any.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl fmt::Display for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |text| write!(f, " — {text}"))
    }
}

/// Control characters would move the cursor or colour the screen of whoever reads the message.
fn for_terminal(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(body: &str, expected: Expect) {
        expected.assert_eq(&Says::from_body(body.as_bytes()).to_string());
    }

    #[test]
    fn a_servers_words_are_quoted_without_control_characters() {
        check(
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
            expect![" — MANIFEST_UNKNOWN: manifest unknown"],
        );
        check(
            r#"{"errors":[{"code":"DENIED"},{"code":"UNKNOWN","message":""}]}"#,
            expect![" — DENIED, UNKNOWN"],
        );
        check(
            r#"{"details":"incorrect username or password"}"#,
            expect![" — incorrect username or password"],
        );
        check(
            r#"{"error":"invalid_grant","error_description":"\u001b[2J expired"}"#,
            expect![" — invalid_grant, �[2J expired"],
        );
        check("<html>", expect![""]);
        check("{}", expect![""]);
    }
}
