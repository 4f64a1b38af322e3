//! What a registry client is told: credentials, certificates, time and chance.

use std::fs;
use std::io;
use std::sync::Arc;

use registry::{Client, Credentials, Limits, Options, PlainHttp, SystemNames};

use crate::commands::pull::PullError;
use crate::environment::Environment;
use crate::network::{RealTime, USER_AGENT, roots};

/// A client for this user. Connects to nobody yet.
pub(super) fn connect(environment: &Environment) -> Result<Client, PullError> {
    Ok(Client::new(Options {
        credentials: credentials(environment)?,
        limits: Limits::DEFAULT,
        plain_http: PlainHttp::Loopback,
        roots: roots(environment),
        user_agent: USER_AGENT.to_owned(),
        names: Arc::new(SystemNames),
        timing: Arc::new(RealTime::new()),
    })?)
}

/// Docker's file first, then those that podman and its kin write.
fn credentials(environment: &Environment) -> Result<Credentials, PullError> {
    let mut all = Credentials::none();
    for path in environment.docker_config().into_iter().chain(environment.containers_auth()) {
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(PullError::CredentialsFile { path, source }),
        };
        let read = Credentials::parse(&text).map_err(|source| PullError::Credentials { path, source })?;
        all = all.or(read);
    }
    Ok(all.with_helpers_in(environment.program_directories()))
}
