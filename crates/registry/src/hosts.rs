//! What is configured about registries: where a reference leads, and how whoever is there is spoken to.
//!
//! | from | is taken |
//! | --- | --- |
//! | `registries.conf` (containers-registries.conf(5)) and its drop-ins | `prefix`, `location`, `insecure`, `blocked`, mirrors |
//! | Docker's `daemon.json` | `registry-mirrors`, which are mirrors of Docker Hub, and `insecure-registries` |
//! | `certs.d/HOST[:PORT]` (containers-certs.d(5)) | authorities (`*.crt`), and a certificate of ours with its key (`*.cert`, `*.key`) |
//!
//! Names stay what they are: one without a registry is Docker Hub's, so `unqualified-search-registries` and `aliases` are not looked at.
//!
//! An image is pulled from the first of its mirrors that gives it, and from its registry if none does; it is pushed to its registry.

mod conf;
mod daemon;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use oci::Reference;
use web::Origin;

/// Everything that is configured about registries. The files are parsed here, and read by whoever makes a client.
#[derive(Clone, Default)]
pub struct Hosts {
    rules: Vec<Rule>,
    hub_mirrors: Vec<Mirror>,
    insecure: Vec<Insecure>,
    certificates: Option<FindCertificates>,
    verify: Option<bool>,
}

/// Finds the certificates for a host, named as in a reference; asked when that host is about to be.
pub type FindCertificates = Arc<dyn Fn(&str) -> Result<Option<Arc<Certificates>>, Unusable> + Send + Sync>;

/// Why what is configured for a host cannot be used.
pub type Unusable = Box<dyn std::error::Error + Send + Sync>;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `{}`{}: {message}", path.display(), line.map_or_else(String::new, |line| format!(", line {line}")))]
pub struct HostsError {
    /// Which file.
    pub path: PathBuf,
    /// Where in it, from 1, if that is known.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

/// The certificates for a host.
#[derive(Clone)]
pub struct Certificates {
    /// The directory that they are in.
    pub directory: PathBuf,
    /// Authorities to trust beside those of the system, in PEM.
    pub authorities: Vec<u8>,
    /// Our certificates and the key to the first of them, in PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Where a reference leads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// Who is asked before the registry, in this order.
    pub mirrors: Vec<Endpoint>,
    /// The registry itself.
    pub registry: Endpoint,
}

/// A place that an image may be at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// What it is called there.
    pub reference: Reference,
    /// Whether TLS may be missing, or prove nothing.
    pub is_insecure: bool,
    /// Whether there is no TLS for certain.
    pub is_plain: bool,
    /// The files that say so; none if it is what the name says.
    pub because: Vec<PathBuf>,
}

/// What is to be done with an image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// Mirrors come first.
    Pull,
    /// Only the registry itself counts.
    Push,
    /// The registry that the name says counts, even if its images are elsewhere.
    LogIn,
}

/// Why a reference leads nowhere.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RouteError {
    /// `blocked = true`.
    #[error("is blocked by `{}`", .0.display())]
    Blocked(PathBuf),
    /// What a file puts in the place of a prefix makes no reference.
    #[error("would be `{name}` by `{}`, which is no name", path.display())]
    Name {
        /// What came out.
        name: String,
        /// Which file.
        path: PathBuf,
    },
}

/// A `[[registry]]`.
#[derive(Clone, Debug)]
struct Rule {
    prefix: String,
    location: Option<String>,
    is_insecure: bool,
    is_blocked: bool,
    mirrors: Vec<Mirror>,
    path: PathBuf,
}

#[derive(Clone, Debug)]
struct Mirror {
    location: String,
    is_insecure: bool,
    /// An address of `http:`.
    is_plain: bool,
    names: Names,
    path: PathBuf,
}

/// What a mirror is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Names {
    All,
    Digests,
    Tags,
}

/// An entry of `insecure-registries`.
#[derive(Clone, Debug)]
struct Insecure {
    whom: Whom,
    path: PathBuf,
}

#[derive(Clone, Debug)]
enum Whom {
    Host(String),
    Network(IpNet),
}

impl Hosts {
    /// Nothing is configured: every name leads to its registry.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds what a `registries.conf` or one of its drop-ins says. A rule takes the place of an earlier one of the same prefix.
    ///
    /// # Errors
    /// [`HostsError`]: not TOML, or not of the right shape.
    pub fn add_registries_conf(&mut self, path: &Path, text: &str) -> Result<(), HostsError> {
        for rule in conf::parse(path, text)? {
            self.rules.retain(|known| known.prefix != rule.prefix);
            self.rules.push(rule);
        }
        Ok(())
    }

    /// Adds what Docker's `daemon.json` says.
    ///
    /// # Errors
    /// [`HostsError`]: not JSON, or not of the right shape.
    pub fn add_daemon_json(&mut self, path: &Path, text: &[u8]) -> Result<(), HostsError> {
        let (mirrors, insecure) = daemon::parse(path, text)?;
        self.hub_mirrors.extend(mirrors);
        self.insecure.extend(insecure);
        Ok(())
    }

    /// Believes whoever answers for a registry, as an entry of `insecure-registries` does; not those that it leads to.
    pub fn add_insecure(&mut self, registry: &str, because: &Path) {
        self.insecure.push(Insecure { whom: Whom::Host(registry.to_owned()), path: because.to_owned() });
    }

    /// Says how the certificates for a host are found.
    pub fn set_certificates(&mut self, find: FindCertificates) {
        self.certificates = Some(find);
    }

    /// Says of all registries whether TLS must be there and prove who they are, whatever the files say.
    pub fn set_verify(&mut self, verify: bool) {
        self.verify = Some(verify);
    }

    /// Whether TLS was asked for of everybody.
    pub(crate) fn always_verifies(&self) -> bool {
        self.verify == Some(true)
    }

    /// Where a reference leads.
    ///
    /// # Errors
    /// [`RouteError`].
    pub fn route(&self, reference: &Reference, purpose: Purpose) -> Result<Route, RouteError> {
        let rule = self.rule(reference);
        if let Some(rule) = rule.filter(|rule| rule.is_blocked) {
            return Err(RouteError::Blocked(rule.path.clone()));
        }
        let hub: &[_] = if reference.registry() == "docker.io" { &self.hub_mirrors } else { &[] };
        let own = rule.map_or(&[][..], |rule| &rule.mirrors);
        let mirrors = if own.is_empty() { hub } else { own };
        let prefix = rule.map_or(reference.registry(), |rule| &rule.prefix);
        let fitting =
            mirrors.iter().filter(|mirror| purpose == Purpose::Pull && mirror.names.cover(reference));
        let mirrors =
            fitting.filter_map(|mirror| match moved(reference, prefix, &mirror.location, &mirror.path) {
                Ok(moved) => Some(Endpoint {
                    is_plain: mirror.is_plain,
                    ..self.endpoint(moved, mirror.is_insecure, Some(&mirror.path))
                }),
                Err(error) => {
                    tracing::warn!(%reference, "a mirror is not asked: the name there {error}");
                    None
                }
            });
        let mirrors = mirrors.collect();
        let elsewhere = rule.filter(|_| purpose != Purpose::LogIn);
        let (moved, because) = match elsewhere.and_then(|rule| Some((rule, rule.location.as_ref()?))) {
            Some((rule, location)) => (moved(reference, prefix, location, &rule.path)?, Some(&rule.path)),
            None => (reference.clone(), None),
        };
        let is_insecure = rule.is_some_and(|rule| rule.is_insecure);
        let because = because.or(rule.filter(|_| is_insecure).map(|rule| &rule.path));
        Ok(Route { mirrors, registry: self.endpoint(moved, is_insecure, because) })
    }

    /// The rule whose prefix is the longest that fits.
    fn rule(&self, reference: &Reference) -> Option<&Rule> {
        let name = reference.to_string();
        let fitting = self.rules.iter().filter(|rule| prefix_of(&rule.prefix, &name).is_some());
        fitting.max_by_key(|rule| rule.prefix.len())
    }

    fn endpoint(&self, reference: Reference, is_insecure: bool, because: Option<&PathBuf>) -> Endpoint {
        let listed = self.insecure.iter().find(|insecure| insecure.whom.is(reference.registry()));
        let mut because: Vec<PathBuf> = because.into_iter().cloned().collect();
        because.extend(listed.map(|insecure| insecure.path.clone()).filter(|path| !because.contains(path)));
        let is_insecure = self.verify.map_or(is_insecure || listed.is_some(), |verify| !verify);
        Endpoint { reference, is_insecure, is_plain: false, because }
    }

    /// The certificates for a host, named as in a reference.
    ///
    /// # Errors
    /// They are there, and cannot be used.
    pub fn certificates(&self, host: &str) -> Result<Option<Arc<Certificates>>, Unusable> {
        self.certificates.as_ref().map_or(Ok(None), |find| find(host))
    }

    /// Whether nobody has to prove who he is.
    pub(crate) fn never_verifies(&self) -> bool {
        self.verify == Some(false)
    }

    /// Whether an origin may be spoken to without TLS when something without it leads there.
    pub(crate) fn may_be_plain(&self, origin: &Origin) -> bool {
        let host = origin.to_string();
        let is_of = |place: &str| prefix_of(place.split('/').next().unwrap_or_default(), &host).is_some();
        let by_mirror = |mirror: &Mirror| mirror.is_insecure && is_of(&mirror.location);
        let by_rule = |rule: &Rule| {
            let place = rule.location.as_ref().unwrap_or(&rule.prefix);
            (rule.is_insecure && is_of(place)) || rule.mirrors.iter().any(by_mirror)
        };
        let listed = self.insecure.iter().any(|insecure| insecure.whom.is(&host));
        let configured =
            || listed || self.hub_mirrors.iter().any(by_mirror) || self.rules.iter().any(by_rule);
        self.verify.map_or_else(configured, |verify| !verify)
    }
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosts")
            .field("rules", &self.rules)
            .field("verify", &self.verify)
            .finish_non_exhaustive()
    }
}

impl Names {
    fn cover(self, reference: &Reference) -> bool {
        match self {
            Self::All => true,
            Self::Digests => reference.digest().is_some(),
            Self::Tags => reference.digest().is_none(),
        }
    }
}

impl Whom {
    fn is(&self, host: &str) -> bool {
        match self {
            Self::Host(known) => known == host,
            Self::Network(network) => {
                let address = host
                    .parse()
                    .ok()
                    .or_else(|| host.parse().ok().map(|socket: std::net::SocketAddr| socket.ip()));
                address.is_some_and(|address: std::net::IpAddr| network.contains(&address))
            }
        }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// How long the part of a name is that a prefix stands for: the prefix itself, or, of `*.example.com`, a host below it.
fn prefix_of(prefix: &str, name: &str) -> Option<usize> {
    let host = name.split('/').next().unwrap_or_default();
    let length = match prefix.strip_prefix('*') {
        // Of a host with a port, the name alone.
        Some(suffix) => {
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
            name.ends_with(suffix).then_some(host.len())
        }
        None => name.starts_with(prefix).then_some(prefix.len()),
    }?;
    let rest = &name[length..];
    // A colon behind a host begins a port, which makes it another host.
    let is_whole =
        rest.is_empty() || rest.starts_with(['/', '@']) || (length > host.len() && rest.starts_with(':'));
    is_whole.then_some(length)
}

/// The reference with another beginning.
fn moved(reference: &Reference, prefix: &str, location: &str, path: &Path) -> Result<Reference, RouteError> {
    let name = format!("{}/{}", reference.registry(), reference.repository());
    // A prefix may have a tag in it.
    let rest =
        prefix_of(prefix, &reference.to_string()).and_then(|length| name.get(length..)).unwrap_or_default();
    let moved = format!("{location}{rest}");
    let (host, repository) = moved.split_once('/').unwrap_or((&moved, ""));
    let relocated = reference.relocated(host, repository);
    relocated.map_err(|_| RouteError::Name { name: moved.clone(), path: path.to_owned() })
}

#[cfg(test)]
mod tests;
