//! One HTTP exchange, redirects included: the only place that opens connections.
//!
//! Redirects are followed here rather than in the HTTP library, because each hop has rules: credentials go to the origin they belong to and
//! to no other, nothing leads from https to http, and nothing leads inward (see [`crate::Reach`]). The last rule is kept by the resolver of
//! the agent that makes the hop, so that what was checked is what is connected to. An agent has its own connection pool, so an address
//! reached directly is not reused for a redirect that may not go there. Behind a proxy only the proxy knows addresses: what is left of the rule
//! is that nobody leads to an inner address by its number.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::{fmt, io, thread};

use ureq::config::Config;
use ureq::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, EXPECT, LOCATION, RANGE,
};
use ureq::http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, request};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, AsSendBody, SendBody};
use web::{Origin, Own, Proxies, Roots, Url};

use crate::body::Body;
use crate::client::Options;
use crate::error::{Failure, Phase, RedirectError, RequestError};
use crate::hosts::{Certificates, Hosts};
use crate::limits::Limits;
use crate::names::{Address, Names, Reach};
use crate::timing::Timing;

/// A value for `Authorization`, and where it may be sent.
#[derive(Clone)]
pub(crate) struct Authorization {
    pub(crate) origin: Origin,
    pub(crate) value: HeaderValue,
}

/// A request to be made.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) accept: &'a str,
    /// Asks for the bytes from here on.
    pub(crate) range_from: Option<u64>,
    pub(crate) authorization: Option<Authorization>,
    pub(crate) content: Option<Content<'a>>,
    /// Whose word the address is, if not the user's: see [`Reach::may_lead_to`].
    pub(crate) led_by: Option<Reach>,
    pub(crate) manner: Manner,
}

/// How the registry is spoken to that a request is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    /// Of the registry itself, with TLS. Whoever else it leads to has to prove who he is, unless he is insecure himself, and does not learn who we
    /// are.
    pub(crate) origin: Option<Origin>,
    pub(crate) is_insecure: bool,
    pub(crate) certificates: Option<Arc<Certificates>>,
}

/// What an agent is made for. There is one for all that need the same.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Needs {
    led_by: Option<Reach>,
    /// The proxy for addresses with TLS, or that for those without.
    via_proxy_for_https: Option<bool>,
    is_unverified: bool,
    /// The directory of the certificates.
    certificates: Option<PathBuf>,
    has_identity: bool,
}

/// A body that a request has, small enough to be held.
#[derive(Clone)]
pub(crate) struct Content<'a> {
    pub(crate) media_type: &'a str,
    pub(crate) bytes: Cow<'a, [u8]>,
}

/// A part of a blob on its way to a registry.
pub(crate) struct Part<'r> {
    pub(crate) bytes: &'r mut dyn Read,
    /// Unless it is known only at the end.
    pub(crate) length: Option<u64>,
    /// Where in the blob it begins.
    pub(crate) from: u64,
}

/// What came back after the last redirect. Any status.
pub(crate) struct Answer {
    /// Whom it is from: behind the last redirect.
    pub(crate) url: Url,
    pub(crate) origin: Origin,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    /// The mirror that was asked, as in a reference; `None` for a registry itself.
    pub(crate) mirror: Option<String>,
}

pub(crate) struct Transport {
    pub(crate) limits: Limits,
    pub(crate) hosts: Hosts,
    pub(crate) timing: Arc<dyn Timing>,
    proxies: Proxies,
    roots: Roots,
    user_agent: String,
    names: Arc<dyn Names>,
    agents: Mutex<HashMap<Needs, Agent>>,
    reaches: Arc<Reaches>,
    cancelled: AtomicBool,
}

/// The reach of each host looked up so far; the outermost, if its addresses differ or change.
#[derive(Debug, Default)]
struct Reaches(Mutex<HashMap<String, Reach>>);

impl<'a> Call<'a> {
    /// A GET, without anything of its own.
    pub(crate) fn get(url: Url, accept: &'a str) -> Self {
        let method = Method::GET;
        let (range_from, authorization, content, led_by) = (None, None, None, None);
        Self { method, url, accept, range_from, authorization, content, led_by, manner: Manner::default() }
    }
}

impl Transport {
    /// From everything that a client is told but the credentials.
    pub(crate) fn new(options: Options) -> Self {
        let Options { limits, hosts, proxies, roots, user_agent, names, timing, credentials: _ } = options;
        let (agents, reaches, cancelled) = Default::default();
        Self { limits, hosts, timing, proxies, roots, user_agent, names, agents, reaches, cancelled }
    }

    /// Ends all exchanges under way; further ones fail.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.agents().values().cloned().for_each(Agent::shutdown);
    }

    fn agents(&self) -> MutexGuard<'_, HashMap<Needs, Agent>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent for one hop.
    fn agent(&self, call: &Call<'_>, origin: &Origin, led_by: Option<Reach>) -> Result<Agent, Failure> {
        let Manner { origin: own, is_insecure, certificates } = &call.manner;
        let is_own = own.as_ref() == Some(origin);
        let proxy = self.proxies.of(origin);
        if proxy.is_some() {
            check_number(origin, led_by).map_err(Failure::Redirect)?;
        }
        let identity = certificates.as_ref().filter(|_| is_own).and_then(|own| own.identity.as_ref());
        let needs = Needs {
            led_by,
            via_proxy_for_https: proxy.map(|_| origin.https),
            is_unverified: self.is_unverified(call, origin, *is_insecure),
            certificates: certificates.as_ref().map(|own| own.directory.clone()),
            has_identity: identity.is_some(),
        };
        let mut agents = self.agents();
        if let Some(agent) = agents.get(&needs) {
            return Ok(agent.clone());
        }
        let own = Own {
            authorities: certificates.as_ref().map_or(&[], |own| &own.authorities),
            identity: identity.map(|(certificates, key)| (&certificates[..], &key[..])),
            is_unverified: needs.is_unverified,
        };
        let directory = needs.certificates.clone();
        let tls = self.roots.tls(own).map_err(|source| Failure::Certificates { directory, source })?;
        let config = web::config(&self.bounds(), tls, proxy.cloned(), &self.user_agent);
        let guard = Guard {
            names: Arc::clone(&self.names),
            led_by,
            reaches: proxy.is_none().then(|| Arc::clone(&self.reaches)),
        };
        let agent = Agent::with_parts(config, DefaultConnector::new(), guard);
        agents.insert(needs, agent.clone());
        // Whoever cancels ends the agents that there are.
        if self.is_cancelled() {
            agent.clone().shutdown();
        }
        Ok(agent)
    }

    /// Whether an origin need not prove who it is: an insecure registry, what is on the same host, which may be its token server, and who is
    /// insecure himself.
    fn is_unverified(&self, call: &Call<'_>, origin: &Origin, is_insecure: bool) -> bool {
        let is_host = call.manner.origin.as_ref().is_some_and(|own| own.host == origin.host);
        (is_insecure && is_host) || self.hosts.never_verifies() || self.hosts.may_be_plain(origin)
    }

    fn bounds(&self) -> web::Bounds {
        let Limits { connect, first_byte, stall, header_bytes, .. } = self.limits;
        // How long a body may take depends on its length: see [`Body`].
        web::Bounds { connect, first_byte, stall, header_bytes, body: None }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// The reach of a host that has been connected to; what is unknown is treated as a stranger.
    pub(crate) fn reach(&self, origin: &Origin) -> Reach {
        self.reaches.get(&origin.host).unwrap_or(Reach::Public)
    }

    /// Makes a request and follows its redirects.
    pub(crate) fn send(&self, call: &Call<'_>) -> Result<Answer, RequestError> {
        let (mut url, mut led_by, mut from) = (call.url.clone(), call.led_by, None);
        for _ in 0..=self.limits.redirects {
            let response = self.exchange(call, &url, led_by).map_err(|error| blame_redirect(error, from))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(self.answer(&url, response));
            }
            let origin = url.origin();
            url = self
                .next_hop(call, &url, &response)
                .map_err(|error| RequestError::new(&origin, Failure::Redirect(error)))?;
            // A chain leads no further inward than its outermost part may.
            let reach = self.reach(&origin);
            led_by = Some(led_by.map_or(reach, |before| before.min(reach)));
            from = Some(origin);
        }
        let error = RedirectError::TooMany(self.limits.redirects);
        Err(RequestError::new(url.origin(), Failure::Redirect(error)))
    }

    fn exchange(
        &self,
        call: &Call<'_>,
        url: &Url,
        led_by: Option<Reach>,
    ) -> Result<Response<ureq::Body>, RequestError> {
        let origin = url.origin();
        if self.is_cancelled() {
            return Err(RequestError::new(origin, Failure::Cancelled));
        }
        tracing::debug!(method = %call.method, %url, range_from = call.range_from, "request");
        let agent =
            self.agent(call, &origin, led_by).map_err(|failure| RequestError::new(&origin, failure))?;
        let request = head(call, url);
        let run = |request, body: Option<&[u8]>| match body {
            Some(body) if call.method == Method::PUT => self.run_patiently(&agent, request, body),
            Some(body) => run(&agent, request, body).map_err(|error| self.failure(error)),
            None => run(&agent, request, ()).map_err(|error| self.failure(error)),
        };
        let result = match &call.content {
            Some(Content { media_type, bytes }) => {
                run(request.header(CONTENT_TYPE, *media_type), Some(&bytes[..]))
            }
            // A request that could have a body says that it has none.
            None if call.method != Method::GET && call.method != Method::HEAD => run(request, Some(&[][..])),
            None => run(request, None),
        };
        result.map_err(|failure| self.blame(&origin, failure))
    }

    /// Who failed: the host, or the proxy before it.
    fn blame(&self, origin: &Origin, failure: Failure) -> RequestError {
        let is_connecting = matches!(
            failure,
            Failure::Lookup(_)
                | Failure::Connect(_)
                | Failure::Tunnel(_)
                | Failure::Timeout { phase: Phase::Connect, .. }
        );
        let failure = match self.proxies.of(origin).filter(|_| is_connecting) {
            Some(proxy) => {
                let proxy = format!("{}:{}", proxy.host(), proxy.port());
                Failure::Proxy { proxy, failure: Box::new(failure) }
            }
            None => failure,
        };
        RequestError::new(origin, failure)
    }

    /// Makes a request whose body is a part of a blob. It cannot be made twice, so it follows no redirect.
    pub(crate) fn send_part(&self, call: &Call<'_>, part: Part<'_>) -> Result<Answer, RequestError> {
        let origin = call.url.origin();
        if self.is_cancelled() {
            return Err(RequestError::new(origin, Failure::Cancelled));
        }
        let Part { bytes, length, from } = part;
        tracing::debug!(method = %call.method, url = %call.url, from, ?length, "request");
        let agent = self.agent(call, &origin, call.led_by);
        let agent = agent.map_err(|failure| RequestError::new(&origin, failure))?;
        // Whoever refuses it need not be sent all of it first.
        let mut request = head(call, &call.url)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(EXPECT, "100-continue");
        if let Some(length) = length {
            request = request.header(CONTENT_LENGTH, length);
        }
        // Of what begins at the beginning, not every registry wants to know where it is.
        if let (1.., Some(length)) = (from, length) {
            request = request.header(CONTENT_RANGE, format!("{from}-{}", from + length - 1));
        }
        let response = self.run_patiently(&agent, request, SendBody::from_reader(bytes));
        let response = response.map_err(|failure| self.blame(&origin, failure))?;
        Ok(self.answer(&call.url, response))
    }

    /// For what a registry may have to do much for before it answers: to move and to digest gigabytes.
    fn run_patiently(
        &self,
        agent: &Agent,
        request: request::Builder,
        body: impl AsSendBody,
    ) -> Result<Response<ureq::Body>, Failure> {
        let limit = self.limits.taken;
        let run = |request: request::Builder| {
            let request = agent.configure_request(request.body(body)?);
            agent.run(request.timeout_recv_response(Some(limit)).timeout_per_read(Some(limit)).build())
        };
        run(request).map_err(|error| match error {
            ureq::Error::Timeout(ureq::Timeout::RecvResponse | ureq::Timeout::PerRead) => {
                Failure::Timeout { phase: Phase::Taking, limit }
            }
            error => self.failure(error),
        })
    }

    fn answer(&self, url: &Url, response: Response<ureq::Body>) -> Answer {
        let (head, body) = response.into_parts();
        let origin = url.origin();
        tracing::debug!(host = %origin, status = head.status.as_u16(), "answer");
        let body = Body::new(body.into_reader(), &origin, &self.limits, Arc::clone(&self.timing));
        Answer {
            url: url.clone(),
            origin,
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            mirror: None,
        }
    }

    fn next_hop<B>(&self, call: &Call<'_>, url: &Url, response: &Response<B>) -> Result<Url, RedirectError> {
        if call.method != Method::GET && call.method != Method::HEAD {
            return Err(RedirectError::NotRepeated);
        }
        let location = response.headers().get(LOCATION).ok_or(RedirectError::NoLocation)?;
        let next = url.join(&String::from_utf8_lossy(location.as_bytes()))?;
        self.check_protection(url.origin().https, &next)?;
        Ok(next)
    }

    /// Whether an origin may be spoken to without TLS: this machine, unless TLS was asked for, and what is configured so.
    pub(crate) fn may_be_plain(&self, origin: &Origin) -> bool {
        (is_loopback(origin) && !self.hosts.always_verifies()) || self.hosts.may_be_plain(origin)
    }

    /// Whether a server that was asked with or without TLS may send us to `next`.
    pub(crate) fn check_protection(&self, from_https: bool, next: &Url) -> Result<(), RedirectError> {
        let origin = next.origin();
        if origin.https || (!from_https && self.may_be_plain(&origin)) {
            return Ok(());
        }
        Err(RedirectError::Unprotected(next.to_string()))
    }

    fn failure(&self, error: ureq::Error) -> Failure {
        let timeout = |phase, limit| Failure::Timeout { phase, limit };
        match error {
            ureq::Error::Other(inner) => match inner.downcast::<GuardError>().map(|error| *error) {
                Ok(GuardError::Lookup(source)) => Failure::Lookup(source),
                Ok(GuardError::Inward(error)) => Failure::Redirect(error),
                Err(inner) => Failure::NotHttp(Box::new(ureq::Error::Other(inner))),
            },
            ureq::Error::HostNotFound => Failure::Lookup(io::ErrorKind::NotFound.into()),
            ureq::Error::ConnectionFailed => Failure::Connect(io::ErrorKind::NotConnected.into()),
            ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => {
                timeout(Phase::Connect, self.limits.connect)
            }
            ureq::Error::Timeout(ureq::Timeout::PerRead) => timeout(Phase::Answer, self.limits.stall),
            ureq::Error::Timeout(ureq::Timeout::PerWrite) => timeout(Phase::Sending, self.limits.stall),
            ureq::Error::Timeout(_) => timeout(Phase::Answer, self.limits.first_byte),
            ureq::Error::Io(source) => io_failure(source),
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::TlsRequired => {
                Failure::Tls(Box::new(error))
            }
            ureq::Error::ConnectProxyFailed(reason) => Failure::Tunnel(reason),
            other => Failure::NotHttp(Box::new(other)),
        }
    }
}

/// Everything but the body.
fn head(call: &Call<'_>, url: &Url) -> request::Builder {
    let mut request =
        Request::builder().method(&call.method).uri(url.uri().clone()).header(ACCEPT, call.accept);
    if let Some(from) = call.range_from {
        request = request.header(RANGE, format!("bytes={from}-"));
    }
    if let Some(authorization) = call.authorization.as_ref().filter(|a| a.origin == url.origin()) {
        request = request.header(AUTHORIZATION, authorization.value.clone());
    }
    request
}

fn run(
    agent: &Agent,
    request: request::Builder,
    body: impl AsSendBody,
) -> Result<Response<ureq::Body>, ureq::Error> {
    agent.run(request.body(body)?)
}

/// A host that may not be asked has done nothing: the one that redirected to it has.
fn blame_redirect(error: RequestError, from: Option<Origin>) -> RequestError {
    match (&*error.failure, from) {
        (Failure::Redirect(_), Some(from)) => RequestError { host: from.to_string(), ..error },
        _ => error,
    }
}

fn io_failure(source: io::Error) -> Failure {
    use io::ErrorKind as Kind;
    match source.kind() {
        // So rustls reports everything that is wrong with a handshake or a record.
        Kind::InvalidData => Failure::Tls(Box::new(ureq::Error::Io(source))),
        Kind::ConnectionRefused
        | Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::NetworkDown
        | Kind::AddrNotAvailable
        | Kind::PermissionDenied => Failure::Connect(source),
        _ => Failure::Cut(source),
    }
}

/// Whether a proxy may be asked for an address that somebody led to: of one that is a number we know where it is.
fn check_number(origin: &Origin, led_by: Option<Reach>) -> Result<(), RedirectError> {
    match (led_by, origin.host.parse()) {
        (Some(from), Ok(address)) if !from.may_lead_to(Reach::of(address)) => {
            Err(RedirectError::Inward { host: origin.host.clone(), address })
        }
        _ => Ok(()),
    }
}

/// `localhost`, `127.0.0.0/8` and `::1`.
pub(crate) fn is_loopback(origin: &Origin) -> bool {
    let address = origin.host.parse();
    origin.host == "localhost" || address.is_ok_and(|address| Reach::of(address) == Reach::Loopback)
}

impl Reaches {
    fn get(&self, host: &str) -> Option<Reach> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied()
    }

    fn note(&self, host: &str, addresses: &[Address]) {
        if let Some(outermost) = addresses.iter().map(|address| address.reach).min() {
            let mut reaches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // For good: a name that turns inward later must not be trusted with more.
            let reach = reaches.entry(host.to_owned()).or_insert(outermost);
            *reach = outermost.min(*reach);
        }
    }
}

/// A resolver that refuses hosts with any address that may not be led to.
#[derive(Debug)]
struct Guard {
    names: Arc<dyn Names>,
    led_by: Option<Reach>,
    /// Where to note what is found; nowhere, if it is only the proxy that is looked up.
    reaches: Option<Arc<Reaches>>,
}

#[derive(Debug, thiserror::Error)]
enum GuardError {
    #[error("no address")]
    Lookup(#[source] io::Error),
    #[error(transparent)]
    Inward(RedirectError),
}

impl Resolver for Guard {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let other = |error: GuardError| ureq::Error::Other(Box::new(error));
        // Of a proxy, the address may have a password in it.
        let bad = || ureq::Error::BadUri(uri.host().unwrap_or_default().to_owned());
        let authority = uri.authority().ok_or_else(bad)?.as_str();
        let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        let scheme = uri.scheme_str().unwrap_or("http");
        let origin = Url::parse(&format!("{scheme}://{place}/")).map_err(|_| bad())?.origin();
        let addresses = self.look_up(&origin, timeout)?;
        if let (Some(from), Some(_)) = (self.led_by, &self.reaches)
            && let Some(inner) = addresses.iter().find(|address| !from.may_lead_to(address.reach))
        {
            let error = RedirectError::Inward { host: origin.host, address: inner.socket.ip() };
            return Err(other(GuardError::Inward(error)));
        }
        if let Some(reaches) = &self.reaches {
            reaches.note(&origin.host, &addresses);
        }
        let mut found = self.empty();
        addresses.iter().take(16).for_each(|address| found.push(address.socket));
        if found.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(found) }
    }
}

impl Guard {
    /// On a thread of its own, since the system's resolver cannot be told to stop.
    fn look_up(&self, origin: &Origin, timeout: NextTimeout) -> Result<Vec<Address>, ureq::Error> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let (names, host, port) = (Arc::clone(&self.names), origin.host.clone(), origin.port);
        thread::spawn(move || {
            if sender.send(names.addresses(&host, port)).is_err() {
                tracing::debug!(host, "the name was looked up too late");
            }
        });
        match receiver.recv_timeout(*timeout.after) {
            Ok(found) => found.map_err(|error| ureq::Error::Other(Box::new(GuardError::Lookup(error)))),
            Err(_) => Err(ureq::Error::Timeout(ureq::Timeout::Resolve)),
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("limits", &self.limits).finish_non_exhaustive()
    }
}
