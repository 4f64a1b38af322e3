//! A client whose waits are recorded instead of waited, and names that are what a test says.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use oci::{Platform, Reference};
use registry::{
    Address, BlobError, Client, Credentials, Hosts, Limits, Names, Options, Reach, Resolved, Timing,
};
use testkit::registry::Registry;
use web::{Proxies, Roots};

/// The real clock; pauses are noted and skipped.
#[derive(Debug)]
pub(crate) struct Skipping {
    start: Instant,
    pub(crate) pauses: Mutex<Vec<Duration>>,
}

impl Timing for Skipping {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration, _: &dyn Fn() -> bool) {
        self.pauses.lock().unwrap().push(duration);
    }

    fn jitter(&self) -> f64 {
        0.0
    }
}

/// Every name leads to 127.0.0.1; the reach of each is given. Each look-up takes the next of a name's reaches, the last one for ever.
#[derive(Debug, Default)]
pub(crate) struct Zone(pub(crate) Mutex<HashMap<String, Vec<Reach>>>);

impl Zone {
    pub(crate) fn new(names: &[(&str, &[Reach])]) -> Arc<Self> {
        let names = names.iter().map(|(name, reaches)| ((*name).to_owned(), reaches.to_vec()));
        Arc::new(Self(Mutex::new(names.collect())))
    }
}

impl Names for Zone {
    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<Address>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![Address { socket: SocketAddr::new(address, port), reach: Reach::of(address) }]);
        }
        let mut names = self.0.lock().unwrap();
        let reaches = names.get_mut(host).ok_or(io::ErrorKind::NotFound)?;
        let reach = if reaches.len() > 1 { reaches.remove(0) } else { reaches[0] };
        let socket = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        Ok(vec![Address { socket, reach }])
    }
}

/// What a test wants to be different.
pub(crate) struct Setup {
    pub(crate) credentials: Credentials,
    pub(crate) limits: Limits,
    pub(crate) roots: Roots,
    pub(crate) names: Arc<Zone>,
    pub(crate) hosts: Hosts,
    pub(crate) proxies: Proxies,
}

/// Three attempts, and time enough for the slowest of machines.
pub(crate) fn limits() -> Limits {
    Limits { attempts: 3, ..Limits::DEFAULT }
}

pub(crate) fn setup() -> Setup {
    let (names, roots) = (Zone::new(&[]), Roots::Compiled);
    let (hosts, proxies) = (Hosts::none(), Proxies::none());
    Setup { credentials: Credentials::none(), limits: limits(), roots, names, hosts, proxies }
}

impl Setup {
    pub(crate) fn client(self) -> (Client, Arc<Skipping>) {
        let timing = Arc::new(Skipping { start: Instant::now(), pauses: Mutex::default() });
        let mut hosts = self.hosts;
        hosts
            .add_registries_conf(
                Path::new("registries.conf"),
                "[[registry]]\nprefix = \"*.test\"\ninsecure = true",
            )
            .unwrap();
        let options = Options {
            credentials: self.credentials,
            limits: self.limits,
            hosts,
            proxies: self.proxies,
            roots: self.roots,
            user_agent: "rbuild-test".to_owned(),
            names: self.names,
            timing: Arc::<Skipping>::clone(&timing),
        };
        (Client::new(options).unwrap(), timing)
    }
}

pub(crate) fn client() -> Client {
    setup().client().0
}

/// A login in the form of Docker's file.
pub(crate) fn login(host: &str, user: &str, password: &str) -> Credentials {
    let file = format!(r#"{{"auths": {{"{host}": {{"username": "{user}", "password": "{password}"}}}}}}"#);
    Credentials::parse(file.as_bytes()).unwrap()
}

pub(crate) fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

pub(crate) fn reference(registry: &Registry, name: &str) -> Reference {
    Reference::parse(&registry.reference(name)).unwrap()
}

/// Everything a pull fetches: manifest, config and layers.
pub(crate) fn pull(client: &Client, reference: &Reference) -> Result<(Resolved, Vec<Vec<u8>>), String> {
    let resolved = client.resolve(reference, &amd64()).map_err(|error| chain(&error))?;
    let descriptors = std::iter::once(resolved.config()).chain(resolved.layers());
    let blobs: Result<_, String> =
        descriptors.map(|descriptor| blob(client, reference, descriptor)).collect();
    Ok((resolved.clone(), blobs?))
}

/// A whole blob. Whatever is returned has been verified.
pub(crate) fn blob(
    client: &Client,
    reference: &Reference,
    descriptor: &oci::Descriptor,
) -> Result<Vec<u8>, String> {
    let mut reader = client.blob(reference, descriptor).map_err(|error| chain(&error))?;
    let mut bytes = Vec::new();
    match reader.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(BlobError::of(error).map_or_else(|error| chain(&error), |error| chain(&error))),
    }
}

/// An error and its causes. Those of the system and the HTTP library are left out: which one it is may depend on who is faster.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        if cause.is::<io::Error>() || cause.is::<Box<ureq::Error>>() || cause.is::<ureq::Error>() {
            break;
        }
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
