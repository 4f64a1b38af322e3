//! What a registry client is told: credentials, certificates, time and chance.

mod explain;
mod view;

use std::cell::OnceCell;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use image::Layers;
use registry::{Client, Credentials, CredentialsError, Limits, Options, RequestError, SystemNames};
use solver::{Cancel, Hook};
use web::{ProxyError, RootsError};

use crate::cli::RegistryArgs;
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::hosts::{self, ConfigError};
use crate::network::{RealTime, USER_AGENT, proxies, roots};

pub(crate) use explain::explain;
pub(crate) use view::{Shown, View, Way};

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
    /// What is configured about registries.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What is configured about proxies.
    #[error(transparent)]
    Proxies(#[from] ProxyError),
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
            Self::Config(_) => Failure::new(Exit::Usage, diagnostic.help("mend the file, or move it away")),
            Self::Proxies(_) => {
                Failure::new(Exit::Usage, diagnostic.help("write it as `http://HOST:PORT`, or unset it"))
            }
        }
    }
}

/// A client that is made when it is first asked for: most commands need none.
pub(crate) struct Connection<'c> {
    cancel: &'c Arc<Cancel>,
    environment: &'c Environment,
    args: RegistryArgs,
    client: OnceCell<Client>,
}

impl<'c> Connection<'c> {
    pub(crate) fn new(cancel: &'c Arc<Cancel>, environment: &'c Environment, args: &RegistryArgs) -> Self {
        Self { cancel, environment, args: args.clone(), client: OnceCell::new() }
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
                let cancel = Some(Arc::clone(self.cancel));
                let client = client_with(credentials, self.environment, &self.args, cancel)?;
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

/// What to do about a registry whose certificate is not believed.
pub(crate) fn way_to_trust(error: &RequestError) -> Option<String> {
    matches!(*error.failure, registry::Failure::Tls(_)).then(|| {
        format!(
            "if its authority is your own, give it with `--cert-dir DIR` or in `/etc/containers/certs.d/{}/ca.crt`; \
             `--tls-verify=false` believes anybody",
            error.host
        )
    })
}

/// What a command moves images with.
pub(crate) struct Mover<'m> {
    pub(super) layers: &'m Layers<'m>,
    pub(super) connection: Connection<'m>,
    pub(crate) view: View,
}

impl<'m> Mover<'m> {
    pub(crate) fn new(
        layers: &'m Layers<'m>,
        cancel: &'m Arc<Cancel>,
        environment: &'m Environment,
        args: &RegistryArgs,
        view: View,
    ) -> Self {
        Self { layers, connection: Connection::new(cancel, environment, args), view }
    }
}

/// A client with these credentials. Connects to nobody yet.
pub(crate) fn client_with(
    credentials: Credentials,
    environment: &Environment,
    args: &RegistryArgs,
    cancel: Option<Arc<Cancel>>,
) -> Result<Client, ClientError> {
    Ok(Client::new(Options {
        credentials,
        limits: Limits::DEFAULT,
        hosts: hosts::read(environment, args)?,
        proxies: proxies(environment)?,
        roots: roots(environment),
        user_agent: USER_AGENT.to_owned(),
        names: Arc::new(SystemNames),
        timing: Arc::new(RealTime::new(cancel)),
    })?)
}

/// Docker's file first, then those that podman and its kin write.
pub(crate) fn credentials(environment: &Environment) -> Result<Credentials, ClientError> {
    let files = credential_files(environment)?.into_iter();
    Ok(files.fold(Credentials::none(), |all, file| all.or(file.credentials)))
}

/// What one file knows.
struct FileCredentials {
    path: PathBuf,
    credentials: Credentials,
}

fn credential_files(environment: &Environment) -> Result<Vec<FileCredentials>, ClientError> {
    let mut files = Vec::new();
    for path in environment.docker_config().into_iter().chain(environment.containers_auth()) {
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(ClientError::CredentialsFile { path, source }),
        };
        match Credentials::parse(&text) {
            Ok(credentials) => {
                let credentials = credentials.with_helpers_in(environment.program_directories());
                files.push(FileCredentials { path, credentials });
            }
            Err(source) => return Err(ClientError::Credentials { path, source }),
        }
    }
    Ok(files)
}
