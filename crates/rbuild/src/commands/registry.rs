//! What a registry client is told: credentials, certificates, time and chance.

mod view;

use std::cell::OnceCell;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use registry::{Client, Credentials, CredentialsError, Limits, Options, PlainHttp, SystemNames};
use solver::{Cancel, Hook};
use web::RootsError;

use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::network::{RealTime, USER_AGENT, roots};

pub(crate) use view::{View, Way};

/// How many blobs are on their way at once: more than one, since a single connection seldom fills the line; few, since registries count requests.
pub(crate) const TRANSFERS: usize = 4;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// A file with credentials is there and cannot be used.
    #[error("cannot use the credentials in `{}`", path.display())]
    Credentials {
        path: PathBuf,
        #[source]
        source: CredentialsError,
    },
    /// A file with credentials is there and cannot be read.
    #[error("cannot read the credentials in `{}`", path.display())]
    CredentialsFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The certificates of this machine.
    #[error("no connection to registries can be made")]
    Roots(#[from] RootsError),
}

impl ClientError {
    pub(crate) fn into_failure(self) -> Failure {
        let diagnostic = Diagnostic::from_error("registry", &self);
        match self {
            Self::Roots(_) => Failure::new(Exit::Machine, diagnostic),
            Self::Credentials { .. } | Self::CredentialsFile { .. } => {
                Failure::new(Exit::Usage, diagnostic.help("log in again with `rbuild login`"))
            }
        }
    }
}

/// A client that is made when it is first asked for: most commands need none.
pub(crate) struct Connection<'c> {
    cancel: &'c Arc<Cancel>,
    environment: &'c Environment,
    client: OnceCell<Client>,
}

impl<'c> Connection<'c> {
    pub(crate) fn new(cancel: &'c Arc<Cancel>, environment: &'c Environment) -> Self {
        Self { cancel, environment, client: OnceCell::new() }
    }

    /// Whether everything ends.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// The client, which is cancelled with everything else as long as the hook lives.
    pub(crate) fn client(&self) -> Result<(&Client, Hook<'_>), ClientError> {
        let client = match self.client.get() {
            Some(client) => client,
            None => {
                let credentials = credentials(self.environment)?;
                let client = client_with(credentials, self.environment, Some(Arc::clone(self.cancel)))?;
                self.client.get_or_init(|| client)
            }
        };
        let hook = self.cancel.hook({
            let client = client.clone();
            move || client.cancel()
        });
        Ok((client, hook))
    }
}

/// A client with these credentials. Connects to nobody yet.
pub(crate) fn client_with(
    credentials: Credentials,
    environment: &Environment,
    cancel: Option<Arc<Cancel>>,
) -> Result<Client, ClientError> {
    Ok(Client::new(Options {
        credentials,
        limits: Limits::DEFAULT,
        plain_http: PlainHttp::Loopback,
        roots: roots(environment),
        user_agent: USER_AGENT.to_owned(),
        names: Arc::new(SystemNames),
        timing: Arc::new(RealTime::new(cancel)),
    })?)
}

/// Docker's file first, then those that podman and its kin write.
pub(crate) fn credentials(environment: &Environment) -> Result<Credentials, ClientError> {
    let mut all = Credentials::none();
    for path in environment.docker_config().into_iter().chain(environment.containers_auth()) {
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(ClientError::CredentialsFile { path, source }),
        };
        let read = Credentials::parse(&text).map_err(|source| ClientError::Credentials { path, source })?;
        all = all.or(read);
    }
    Ok(all.with_helpers_in(environment.program_directories()))
}
