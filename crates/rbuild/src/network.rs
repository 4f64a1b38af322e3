//! What everything that speaks to servers is told of this machine: whom to trust, time and chance.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use registry::Timing;
use solver::Cancel;
use web::{Proxies, ProxyError, Roots};

use crate::environment::Environment;

/// What we call ourselves.
pub(crate) const USER_AGENT: &str = concat!("rbuild/", env!("CARGO_PKG_VERSION"));

/// Where distributions keep the certificates that the whole system trusts: Debian and Alpine, Fedora, openSUSE, and BSD's place.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The system's certificates, to which an organisation may have added its own; on a machine without any, those compiled in.
pub(crate) fn roots(environment: &Environment) -> Roots {
    let places =
        named_roots(environment).into_iter().chain(BUNDLES.iter().map(|path| Path::new(path).to_path_buf()));
    let bundle = places.filter_map(|path| fs::read(path).ok()).find(|text| !text.is_empty());
    bundle.map_or(Roots::Compiled, Roots::Pem)
}

/// The file of certificates that `SSL_CERT_FILE` names.
pub(crate) fn named_roots(environment: &Environment) -> Option<PathBuf> {
    environment.variable("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Through whom to ask.
pub(crate) fn proxies(environment: &Environment) -> Result<Proxies, ProxyError> {
    Proxies::from_variables(|name| environment.variable(name))
}

/// What Docker's `config.json` says of the proxies that processes in containers are told of, as variables: `proxies.default`
/// (<https://docs.docker.com/engine/cli/proxy/>). A file that cannot be read is told of; it decides about registries elsewhere.
pub(crate) fn proxies_of_containers(environment: &Environment) -> Vec<(String, String)> {
    const KEYS: [(&str, &str); 5] = [
        ("httpProxy", "HTTP_PROXY"),
        ("httpsProxy", "HTTPS_PROXY"),
        ("ftpProxy", "FTP_PROXY"),
        ("noProxy", "NO_PROXY"),
        ("allProxy", "ALL_PROXY"),
    ];
    let Some(path) = environment.docker_config() else { return Vec::new() };
    let Ok(text) = fs::read(&path) else { return Vec::new() };
    let document = serde_json::from_slice::<serde_json::Value>(&text).unwrap_or_else(|_| {
        tracing::warn!(path = %path.display(), "the file is no JSON, so no proxies are taken from it");
        serde_json::Value::Null
    });
    let configured = &document["proxies"]["default"];
    let set = KEYS.iter().filter_map(|(key, name)| Some((*name, configured[*key].as_str()?)));
    let both = set.filter(|(_, value)| !value.is_empty()).flat_map(|(name, value)| {
        [name.to_owned(), name.to_ascii_lowercase()].map(|name| (name, value.to_owned()))
    });
    both.collect()
}

/// How long at most until somebody who waits notices that everything ends.
const CANCEL_LATENCY: Duration = Duration::from_millis(100);

/// The machine's clock and chance.
pub(crate) struct RealTime {
    start: Instant,
    cancel: Option<Arc<Cancel>>,
}

impl RealTime {
    /// Waiting ends when `cancel` says so.
    pub(crate) fn new(cancel: Option<Arc<Cancel>>) -> Self {
        Self { start: Instant::now(), cancel }
    }
}

impl fmt::Debug for RealTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealTime").field("start", &self.start).finish_non_exhaustive()
    }
}

impl Timing for RealTime {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration, is_over: &dyn Fn() -> bool) {
        let end = Instant::now() + duration;
        let is_over = || is_over() || self.cancel.as_ref().is_some_and(|cancel| cancel.is_cancelled());
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || is_over() {
                return;
            }
            std::thread::sleep(left.min(CANCEL_LATENCY));
        }
    }

    fn jitter(&self) -> f64 {
        chance()
    }
}

/// A pause of that length, less up to half of it, so that many clients of one server do not come back together.
pub(crate) fn jittered(length: Duration) -> Duration {
    length.mul_f64(1.0 - chance() / 2.0)
}

/// At least 0 and below 1.
fn chance() -> f64 {
    // Without chance, all clients come back at the same moment: no failure.
    let bits = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}
