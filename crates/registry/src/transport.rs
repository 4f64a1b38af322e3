//! One HTTP exchange, redirects included: the only place that opens connections.
//!
//! Redirects are followed here rather than in the HTTP library, because each hop has rules: credentials go to the origin they belong to and
//! to no other, nothing leads from https to http, and nothing leads inward (see [`crate::Reach`]). The last rule is kept by the resolver of
//! the agent that makes the hop, so that what was checked is what is connected to. An agent has its own connection pool, so an address
//! reached directly is not reused for a redirect that may not go there.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::{fmt, io, thread};

use ureq::config::Config;
use ureq::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, EXPECT, LOCATION, RANGE,
};
use ureq::http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, request};
use ureq::tls::RootCerts;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, AsSendBody, SendBody};
use web::{Origin, Url};

use crate::body::Body;
use crate::error::{Failure, Phase, RedirectError, RequestError};
use crate::limits::Limits;
use crate::names::{Address, Names, Reach};
use crate::timing::Timing;

/// Hosts that are spoken to without TLS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PlainHttp {
    /// `localhost`, `127.0.0.0/8` and `[::1]`, if they have no TLS.
    Loopback,
    /// These hosts too, written as in a reference: `registry.lan`, `registry.lan:5000`.
    LoopbackAnd(Vec<String>),
}

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
    pub(crate) length: u64,
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
}

pub(crate) struct Transport {
    pub(crate) limits: Limits,
    pub(crate) plain_http: PlainHttp,
    pub(crate) timing: Arc<dyn Timing>,
    /// For addresses that the user named.
    direct: Agent,
    /// For addresses that a server named, by the reach of that server.
    led: [Agent; Reach::ALL.len()],
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
        Self { method, url, accept, range_from: None, authorization: None, content: None, led_by: None }
    }
}

impl Transport {
    pub(crate) fn new(
        limits: Limits,
        plain_http: PlainHttp,
        roots: RootCerts,
        user_agent: &str,
        names: &Arc<dyn Names>,
        timing: Arc<dyn Timing>,
    ) -> Self {
        let reaches = Arc::<Reaches>::default();
        let config = agent_config(&limits, roots, user_agent);
        let agent = |led_by| {
            let guard = Guard { names: Arc::clone(names), led_by, reaches: Arc::clone(&reaches) };
            Agent::with_parts(config.clone(), DefaultConnector::new(), guard)
        };
        let (direct, led) = (agent(None), Reach::ALL.map(|reach| agent(Some(reach))));
        let cancelled = AtomicBool::new(false);
        Self { limits, plain_http, timing, direct, led, reaches, cancelled }
    }

    /// Ends all exchanges under way; further ones fail.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.direct.clone().shutdown();
        self.led.iter().cloned().for_each(Agent::shutdown);
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
            let response = self.exchange(call, &url, led_by).map_err(|error| blame(error, from))?;
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
        let agent = led_by.map_or(&self.direct, |reach| &self.led[reach as usize]);
        let request = head(call, url);
        let run = |request, body: Option<&[u8]>| match body {
            Some(body) if call.method == Method::PUT => self.run_patiently(agent, request, body),
            Some(body) => run(agent, request, body).map_err(|error| self.failure(error)),
            None => run(agent, request, ()).map_err(|error| self.failure(error)),
        };
        let result = match &call.content {
            Some(Content { media_type, bytes }) => {
                run(request.header(CONTENT_TYPE, *media_type), Some(&bytes[..]))
            }
            // A request that could have a body says that it has none.
            None if call.method != Method::GET && call.method != Method::HEAD => run(request, Some(&[][..])),
            None => run(request, None),
        };
        result.map_err(|failure| RequestError::new(origin, failure))
    }

    /// Makes a request whose body is a part of a blob. It cannot be made twice, so it follows no redirect.
    pub(crate) fn send_part(&self, call: &Call<'_>, part: Part<'_>) -> Result<Answer, RequestError> {
        let origin = call.url.origin();
        if self.is_cancelled() {
            return Err(RequestError::new(origin, Failure::Cancelled));
        }
        let Part { bytes, length, from } = part;
        tracing::debug!(method = %call.method, url = %call.url, from, length, "request");
        let agent = call.led_by.map_or(&self.direct, |reach| &self.led[reach as usize]);
        // Whoever refuses it need not be sent all of it first.
        let mut request = head(call, &call.url)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, length)
            .header(EXPECT, "100-continue");
        // Of what begins at the beginning, not every registry wants to know where it is.
        if from > 0 {
            request = request.header(CONTENT_RANGE, format!("{from}-{}", from + length - 1));
        }
        let response = self.run_patiently(agent, request, SendBody::from_reader(bytes));
        let response = response.map_err(|failure| RequestError::new(&origin, failure))?;
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
        Answer { url: url.clone(), origin, status: head.status.as_u16(), headers: head.headers, body }
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

    /// Whether a server that was asked with or without TLS may send us to `next`.
    pub(crate) fn check_protection(&self, from_https: bool, next: &Url) -> Result<(), RedirectError> {
        let origin = next.origin();
        if origin.https || (!from_https && self.plain_http.allows(&origin)) {
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
fn blame(error: RequestError, from: Option<Origin>) -> RequestError {
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

fn agent_config(limits: &Limits, roots: RootCerts, user_agent: &str) -> Config {
    let Limits { connect, first_byte, stall, header_bytes, .. } = *limits;
    // How long a body may take depends on its length: see [`Body`].
    web::config(&web::Bounds { connect, first_byte, stall, header_bytes, body: None }, roots, user_agent)
}

impl PlainHttp {
    pub(crate) fn allows(&self, origin: &Origin) -> bool {
        let address = origin.host.parse::<std::net::IpAddr>();
        let loopback = origin.host == "localhost" || address.is_ok_and(|a| Reach::of(a) == Reach::Loopback);
        let named = |hosts: &[String]| {
            let with_port = origin.to_string();
            hosts.iter().any(|host| *host == origin.host || *host == with_port)
        };
        loopback || matches!(self, Self::LoopbackAnd(hosts) if named(hosts))
    }
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
    reaches: Arc<Reaches>,
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
        let origin =
            Url::parse(&uri.to_string()).map_err(|error| ureq::Error::BadUri(error.to_string()))?.origin();
        let addresses = self.look_up(&origin, timeout)?;
        if let Some(from) = self.led_by
            && let Some(inner) = addresses.iter().find(|address| !from.may_lead_to(address.reach))
        {
            let error = RedirectError::Inward { host: origin.host, address: inner.socket.ip() };
            return Err(other(GuardError::Inward(error)));
        }
        self.reaches.note(&origin.host, &addresses);
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
