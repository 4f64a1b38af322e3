//! The exchange: redirects, retries, bounds.

use std::fmt;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oci::{Digest, Hasher};
use ureq::Agent;
use ureq::config::Config;
use ureq::http::header::{
    AUTHORIZATION, ETAG, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION,
};
use ureq::http::{Request, Response, Uri};
use ureq::tls::TlsConfig;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use web::{Bounds, Origin, Own, Proxies, Roots, RootsError, Url};

use super::place::{About, failed};
use super::{Body, HttpError, Place, RedirectError};
use crate::Authorization;

const COPY_BYTES: usize = 128 << 10;

/// Bounds on waiting, on repeating and on bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Name look-up; then, again, TCP and TLS set-up.
    pub connect: Duration,
    /// From the request sent to the last byte of the response's header.
    pub first_byte: Duration,
    /// Silence within a body.
    pub stall: Duration,
    /// A whole body.
    pub body: Duration,
    /// How often a request is sent in all, when its failures may pass.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles with each further one.
    pub backoff: Duration,
    /// Redirects followed for one request.
    pub redirects: u32,
    /// Status line and header fields of one response.
    pub header_bytes: usize,
    /// The largest body.
    pub body_bytes: u64,
}

impl Limits {
    /// What `rbuild` uses.
    pub const DEFAULT: Self = Self {
        connect: Duration::from_secs(10),
        first_byte: Duration::from_secs(30),
        stall: Duration::from_secs(30),
        body: Duration::from_secs(4 * 3600),
        attempts: 4,
        backoff: Duration::from_millis(500),
        redirects: 10,
        header_bytes: 64 << 10,
        body_bytes: 64 << 30,
    };
}

/// Everything a [`Client`] is told. No field has a silent default.
pub struct Options {
    /// Bounds; [`Limits::DEFAULT`] for real use.
    pub limits: Limits,
    /// Whom to trust.
    pub roots: Roots,
    /// Through whom to ask. Behind a proxy only the proxy knows addresses, so there [`Options::leads`] is asked about numbers alone.
    pub proxies: Proxies,
    /// What the client calls itself.
    pub user_agent: String,
    /// Where redirects may lead: a server elsewhere must not have us ask one that only we can reach.
    pub leads: Leads,
    /// Waits about that long. Chance, and returning early from a cancelled wait, are the caller's.
    pub pause: Box<dyn Fn(Duration) + Send + Sync>,
}

/// Fetches files. May be shared by threads.
pub struct Client {
    tls: TlsConfig,
    bounds: Bounds,
    proxies: Proxies,
    user_agent: String,
    limits: Limits,
    leads: Leads,
    pause: Box<dyn Fn(Duration) + Send + Sync>,
}

/// Whether a server at the first address may send us to one at the second.
pub type Leads = fn(IpAddr, IpAddr) -> bool;

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// Where it is.
    pub url: &'a Url,
    /// Sent to the URL's own origin only.
    pub authorization: Option<&'a Authorization>,
    /// Where it is kept.
    pub place: &'a Place,
    /// Asked between two reads.
    pub is_cancelled: &'a dyn Fn() -> bool,
}

impl Client {
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// [`RootsError`], about [`Options::roots`].
    pub fn new(options: Options) -> Result<Self, RootsError> {
        let Options { limits, roots, proxies, user_agent, leads, pause } = options;
        let Limits { connect, first_byte, stall, header_bytes, .. } = limits;
        let bounds = Bounds { connect, first_byte, stall, header_bytes, body: Some(limits.body) };
        let tls = roots.tls(Own::default())?;
        Ok(Self { tls, bounds, proxies, user_agent, limits, leads, pause })
    }

    /// Which bytes a URL stands for now. Reads them only if they are not those that are kept.
    ///
    /// # Errors
    /// [`HttpError`].
    pub fn resolve(&self, ask: &Ask<'_>) -> Result<Digest, HttpError> {
        let kept = ask.place.about().filter(|_| ask.place.body().is_file());
        self.retrying(ask, || self.get(ask, kept.as_ref(), None)).map(|about| about.digest)
    }

    /// The bytes of a digest, kept or fetched.
    ///
    /// # Errors
    /// [`HttpError::WrongDigest`] if the URL stands for others, and all the rest.
    pub fn obtain(&self, ask: &Ask<'_>, digest: &Digest) -> Result<Body, HttpError> {
        if let Some(body) = ask.place.holds(digest, ask.is_cancelled)? {
            return Ok(body);
        }
        self.retrying(ask, || self.get(ask, None, Some(digest)))?;
        Ok(Body { path: ask.place.body(), digest: digest.clone() })
    }

    fn retrying<T>(
        &self,
        ask: &Ask<'_>,
        mut attempt: impl FnMut() -> Result<T, HttpError>,
    ) -> Result<T, HttpError> {
        for failures in 1.. {
            if (ask.is_cancelled)() {
                return Err(HttpError::Cancelled);
            }
            match attempt() {
                Err(error) if error.is_transient() && failures < self.limits.attempts => {
                    tracing::info!(%error, "trying again");
                    (self.pause)(self.limits.backoff.saturating_mul(1 << (failures - 1).min(16)));
                }
                result => return result,
            }
        }
        Err(HttpError::Cancelled)
    }

    /// One attempt. With `kept`, a body that is still that one is not read.
    fn get(
        &self,
        ask: &Ask<'_>,
        kept: Option<&About>,
        expected: Option<&Digest>,
    ) -> Result<About, HttpError> {
        let response = self.follow(ask, kept)?;
        let header = |name: HeaderName| {
            let text = response.headers().get(name).and_then(|value| value.to_str().ok());
            text.map(ToOwned::to_owned)
        };
        let (etag, last_modified) = (header(ETAG), header(LAST_MODIFIED));
        match (response.status().as_u16(), kept) {
            (304, Some(kept)) => return Ok(kept.clone()),
            // There are servers that give tags and do not compare them.
            (200, Some(kept)) if etag.is_some() && etag == kept.etag => return Ok(kept.clone()),
            (200..=299, _) => {}
            (status, _) => return Err(HttpError::Status { url: ask.url.clone(), status }),
        }
        let digest = self.read(ask, response, expected)?;
        let about = About { digest, etag, last_modified };
        ask.place.keep(&about)?;
        Ok(about)
    }

    /// Sends the request, and sends it where redirects lead.
    fn follow(&self, ask: &Ask<'_>, kept: Option<&About>) -> Result<Response<ureq::Body>, HttpError> {
        let own = ask.url.origin();
        let mut url = ask.url.clone();
        let refused = |source| HttpError::Redirect { url: ask.url.clone(), source };
        let reached = Arc::<Mutex<Vec<IpAddr>>>::default();
        for _ in 0..=self.limits.redirects {
            // All servers on the way count, not the last alone: a stranger gains nothing by a detour over somebody nearer.
            let from = reached.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let (resolver, leads) = (DefaultResolver::default(), self.leads);
            let mut guard = Guard { resolver, from, leads, reached: Arc::clone(&reached) };
            let proxy = self.proxies.of(&url.origin()).cloned();
            if proxy.is_some() {
                guard.check_number(&url).map_err(refused)?;
                reached.lock().unwrap_or_else(PoisonError::into_inner).push(STRANGER);
                // The proxy is where the user says.
                guard = Guard { from: Vec::new(), reached: Arc::default(), ..guard };
            }
            let via = proxy.as_ref().map(|proxy| format!("{}:{}", proxy.host(), proxy.port()));
            let config = web::config(&self.bounds, self.tls.clone(), proxy, &self.user_agent);
            let agent = Agent::with_parts(config, DefaultConnector::new(), guard);
            let response = self.send(ask, &agent, &url, &own, kept);
            let response = response.map_err(|error| through(error, via))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location =
                response.headers().get(LOCATION).ok_or_else(|| refused(RedirectError::NoLocation))?;
            let next = url.join(&String::from_utf8_lossy(location.as_bytes()));
            let next = next.map_err(|error| refused(error.into()))?;
            if url.origin().https && !next.origin().https {
                return Err(refused(RedirectError::Unprotected(next)));
            }
            url = next;
        }
        Err(refused(RedirectError::TooMany(self.limits.redirects)))
    }

    fn send(
        &self,
        ask: &Ask<'_>,
        agent: &Agent,
        url: &Url,
        own: &Origin,
        kept: Option<&About>,
    ) -> Result<Response<ureq::Body>, HttpError> {
        tracing::debug!(%url, is_conditional = kept.is_some(), "request");
        let mut request = Request::builder().uri(url.uri().clone());
        match kept.map(|kept| (&kept.etag, &kept.last_modified)) {
            Some((Some(etag), _)) => request = request.header(IF_NONE_MATCH, etag),
            Some((None, Some(date))) => request = request.header(IF_MODIFIED_SINCE, date),
            _ => {}
        }
        if let Some(authorization) = ask.authorization.filter(|_| url.origin() == *own) {
            request = request.header(AUTHORIZATION, authorization.reveal());
        }
        let result = request.body(()).map_err(ureq::Error::from).and_then(|request| agent.run(request));
        result.map_err(|error| failure(error, ask.url))
    }

    /// Writes a body down as the place's draft.
    fn read(
        &self,
        ask: &Ask<'_>,
        response: Response<ureq::Body>,
        expected: Option<&Digest>,
    ) -> Result<Digest, HttpError> {
        let draft = ask.place.draft();
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .map_err(failed(&draft))?;
        let mut body = response.into_body().into_reader();
        let mut hasher = expected.map_or_else(Hasher::sha256, |digest| Hasher::new(digest.algorithm()));
        let (mut buffer, mut total) = (vec![0; COPY_BYTES], 0);
        loop {
            if (ask.is_cancelled)() {
                return Err(HttpError::Cancelled);
            }
            let read = body.read(&mut buffer);
            let read = read.map_err(|source| HttpError::Cut { url: ask.url.clone(), source })?;
            if read == 0 {
                break;
            }
            total += read as u64;
            if total > self.limits.body_bytes {
                let limit_bytes = self.limits.body_bytes;
                return Err(HttpError::TooLarge { url: ask.url.clone(), limit_bytes });
            }
            hasher.update(&buffer[..read]);
            file.write_all(&buffer[..read]).map_err(failed(&draft))?;
        }
        let got = hasher.finish();
        match expected {
            Some(expected) if *expected != got => {
                Err(HttpError::WrongDigest { url: ask.url.clone(), expected: expected.clone(), got })
            }
            _ => Ok(got),
        }
    }
}

/// Tells a redirect that is not followed from what else can go wrong.
fn failure(error: ureq::Error, url: &Url) -> HttpError {
    let url = url.clone();
    let source = match error {
        ureq::Error::Other(inner) => match inner.downcast::<RedirectError>() {
            Ok(source) => return HttpError::Redirect { url, source: *source },
            Err(inner) => ureq::Error::Other(inner),
        },
        error => error,
    };
    HttpError::Exchange { url, source: Box::new(source) }
}

/// Names the proxy that was asked.
fn through(error: HttpError, proxy: Option<String>) -> HttpError {
    match (error, proxy) {
        (HttpError::Exchange { url, source }, Some(proxy)) => HttpError::Proxy { url, proxy, source },
        (error, _) => error,
    }
}

/// Looks names up, and refuses those with an address that may not be led to: what was checked is what is connected to.
#[derive(Debug)]
struct Guard {
    resolver: DefaultResolver,
    /// The addresses of all servers before.
    from: Vec<IpAddr>,
    leads: Leads,
    reached: Arc<Mutex<Vec<IpAddr>>>,
}

/// Whoever is behind a proxy (RFC 5737: nobody's address).
const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));

impl Guard {
    fn check_number(&self, url: &Url) -> Result<(), RedirectError> {
        let host = url.origin().host;
        match host.parse() {
            Ok(address) if !self.from.iter().all(|from| (self.leads)(*from, address)) => {
                Err(RedirectError::Inward { host, address })
            }
            _ => Ok(()),
        }
    }
}

impl Resolver for Guard {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.resolver.resolve(uri, config, timeout)?;
        let addresses = || found.iter().map(std::net::SocketAddr::ip);
        let may_lead = |to: &IpAddr| self.from.iter().all(|from| (self.leads)(*from, *to));
        if let Some(address) = addresses().find(|to| !may_lead(to)) {
            let host = uri.host().unwrap_or_default().to_owned();
            return Err(ureq::Error::Other(Box::new(RedirectError::Inward { host, address })));
        }
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).extend(addresses());
        Ok(found)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("limits", &self.limits).finish_non_exhaustive()
    }
}
