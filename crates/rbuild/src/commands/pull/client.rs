//! What a registry client is told: credentials, certificates, time and chance.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use registry::{Client, Credentials, Limits, Options, PlainHttp, Roots, SystemNames, Timing};

use crate::commands::pull::PullError;
use crate::environment::Environment;

/// Where distributions keep the certificates that the whole system trusts: Debian and Alpine, Fedora, openSUSE, and BSD's place.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A client for this user. Connects to nobody yet.
pub(super) fn connect(environment: &Environment) -> Result<Client, PullError> {
    Ok(Client::new(Options {
        credentials: credentials(environment)?,
        limits: Limits::DEFAULT,
        plain_http: PlainHttp::Loopback,
        roots: roots(environment),
        user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
        names: Arc::new(SystemNames),
        timing: Arc::new(RealTime { start: Instant::now() }),
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

/// The system's certificates, to which an organisation may have added its own; on a machine without any, those compiled in.
fn roots(environment: &Environment) -> Roots {
    let named = environment.variable("SSL_CERT_FILE").map(PathBuf::from);
    let places = named.into_iter().chain(BUNDLES.iter().map(|path| Path::new(path).to_path_buf()));
    let bundle = places.filter_map(|path| fs::read(path).ok()).find(|text| !text.is_empty());
    bundle.map_or(Roots::Compiled, Roots::Pem)
}

/// The machine's clock and chance.
#[derive(Debug)]
struct RealTime {
    start: Instant,
}

impl Timing for RealTime {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn jitter(&self) -> f64 {
        // Without chance, all clients come back at the same moment: no failure.
        let bits = getrandom::u32().unwrap_or(u32::MAX / 2);
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}
