//! Why a file could not be fetched.

use std::io;
use std::path::PathBuf;

use oci::Digest;

use web::{Url, UrlError};

/// Why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The server says no.
    #[error("`{url}` cannot be fetched: the server answers with status {status}")]
    Status {
        /// What was asked for.
        url: Url,
        /// The last answer's status.
        status: u16,
    },
    /// There was no answer.
    #[error("`{url}` cannot be fetched")]
    Exchange {
        /// What was asked for.
        url: Url,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// There was no answer from behind the proxy, or from that itself.
    #[error("`{url}` cannot be fetched through the proxy `{proxy}`")]
    Proxy {
        /// What was asked for.
        url: Url,
        /// `host:port`.
        proxy: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The body did not come to its end.
    #[error("`{url}` breaks off")]
    Cut {
        /// What was asked for.
        url: Url,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server sends us where we do not go.
    #[error("`{url}` redirects to where nothing can be fetched from")]
    Redirect {
        /// What was asked for.
        url: Url,
        /// Why.
        #[source]
        source: RedirectError,
    },
    /// More than is taken.
    #[error("`{url}` is larger than {limit_bytes} bytes")]
    TooLarge {
        /// What was asked for.
        url: Url,
        /// The bound.
        limit_bytes: u64,
    },
    /// Other bytes than those asked for.
    #[error("`{url}` has the digest {got}, not {expected}")]
    WrongDigest {
        /// What was asked for.
        url: Url,
        /// Of what should be there.
        expected: Digest,
        /// Of what is there.
        got: Digest,
    },
    /// The place where bodies are kept.
    #[error("cannot use `{}`", path.display())]
    Place {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// Why a redirect is not followed.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// It says not where to.
    #[error("it names no address")]
    NoLocation,
    /// It says so in a way that means nothing.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// From https to http.
    #[error("`{0}` is not protected by TLS, as the first address was")]
    Unprotected(Url),
    /// To an address that the server could not reach itself.
    #[error("`{host}` is {address}, further in than where the redirect comes from")]
    Inward {
        /// The host that it names.
        host: String,
        /// Where that is.
        address: std::net::IpAddr,
    },
    /// One after the other.
    #[error("there are more than {0} redirects")]
    TooMany(u32),
}

impl HttpError {
    /// Whether it may be otherwise in a moment.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            Self::Exchange { source, .. } | Self::Proxy { source, .. } => !matches!(
                **source,
                ureq::Error::HostNotFound
                    | ureq::Error::ConnectProxyFailed(_)
                    | ureq::Error::Tls(_)
                    | ureq::Error::Rustls(_)
                    | ureq::Error::BadUri(_)
            ),
            Self::Cut { .. } => true,
            _ => false,
        }
    }
}
