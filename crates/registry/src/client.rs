//! The client: requests to a registry, authorised, judged and repeated.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oci::{Digest, Reference};
use ureq::http::Method;
use web::{Own, Proxies, Roots, RootsError, Url};

use crate::auth::{Access, Auth, Target};
use crate::credentials::Credentials;
use crate::error::{Failure, RedirectError, RequestError, Says};
use crate::hosts::{Endpoint, Hosts, Purpose, Route};
use crate::limits::Limits;
use crate::names::Names;
use crate::retry::{retry_after, retrying};
use crate::timing::Timing;
use crate::transport::{Answer, Call, Content, Manner, Part, Transport, is_loopback};

/// Where Docker Hub really answers.
pub(crate) const HUB_HOST: &str = "registry-1.docker.io";

/// Everything a [`Client`] is told. No field has a silent default.
#[derive(Debug)]
pub struct Options {
    /// Who the user is to registries.
    pub credentials: Credentials,
    /// Bounds; [`Limits::DEFAULT`] for real use.
    pub limits: Limits,
    /// Where names lead, and how whoever is there is spoken to.
    pub hosts: Hosts,
    /// Through whom to ask.
    pub proxies: Proxies,
    /// Whom to trust.
    pub roots: Roots,
    /// `User-Agent`.
    pub user_agent: String,
    /// Name look-up; [`crate::SystemNames`] for real use.
    pub names: Arc<dyn Names>,
    /// Clock, sleep and jitter.
    pub timing: Arc<dyn Timing>,
}

/// A client of any number of registries. Cheap to clone; clones share connections, tokens and cancellation, and may work in parallel.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    transport: Transport,
    auth: Auth,
    /// Which scheme hosts that may go without TLS were found to speak.
    bases: Mutex<HashMap<(String, bool), Url>>,
    /// Which mirrors gave blobs.
    served: Mutex<HashMap<Digest, String>>,
    /// Mirrors that are not asked any more.
    given_up: Mutex<HashSet<String>>,
}

/// What is asked of a repository.
pub(crate) struct Question<'a> {
    pub(crate) method: Method,
    pub(crate) place: Location,
    /// For messages: `tag latest`.
    pub(crate) what: String,
    pub(crate) accept: &'a str,
    pub(crate) range_from: Option<u64>,
    pub(crate) access: Access,
    pub(crate) content: Option<Content<'a>>,
    /// The answers besides 200 and 206 that the question is about.
    pub(crate) statuses: &'static [u16],
}

/// Where something is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Location {
    /// Below `/v2/NAME/`.
    Below(String),
    /// `/v2/` itself.
    Top,
    /// At the host, whatever the repository.
    Root(String),
    /// Where the registry said.
    At(Url),
}

impl<'a> Question<'a> {
    /// To be given what is at `path`, below `/v2/NAME/`.
    pub(crate) fn get(path: String, what: String, accept: &'a str) -> Self {
        let place = Location::Below(path);
        let (method, access) = (Method::GET, Access::Pull);
        Self { method, place, what, accept, range_from: None, access, content: None, statuses: &[] }
    }
}

impl Client {
    /// Makes a client; connects to nobody yet.
    ///
    /// # Errors
    /// [`RootsError`], about [`Options::roots`].
    pub fn new(mut options: Options) -> Result<Self, RootsError> {
        options.roots.tls(Own::default())?;
        let auth = Auth::new(std::mem::take(&mut options.credentials));
        let (bases, served, given_up) = Default::default();
        Ok(Self(Arc::new(Inner { transport: Transport::new(options), auth, bases, served, given_up })))
    }

    /// Ends everything this client and its clones are doing: requests under way fail at once, later ones at their start.
    pub fn cancel(&self) {
        self.0.transport.cancel();
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.0.transport
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.transport.limits
    }

    /// Asks until there is an answer to use: a success, or 416 to a range. `finish` may read from it; its failures count as the
    /// request's. Mirrors are asked once each, before the registry.
    pub(crate) fn ask<T>(
        &self,
        reference: &Reference,
        question: &Question<'_>,
        mut finish: impl FnMut(Answer) -> Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        let Route { mirrors, registry } = self.route(reference, &question.access)?;
        for mirror in mirrors.iter().filter(|mirror| !self.has_given_up(mirror)) {
            let name = mirror.reference.registry();
            let answer = self
                .ask_at(mirror, question)
                .map(|answer| Answer { mirror: Some(name.to_owned()), ..answer });
            match answer.and_then(&mut finish) {
                Ok(value) => return Ok(value),
                Err(error) if self.transport().is_cancelled() => return Err(error),
                Err(error) => self.pass_over(mirror, &error),
            }
        }
        retrying(self.transport(), || finish(self.ask_at(&registry, question)?))
    }

    /// The same of the registry itself: mirrors may not know all that there is.
    pub(crate) fn ask_registry<T>(
        &self,
        reference: &Reference,
        question: &Question<'_>,
        mut finish: impl FnMut(Answer) -> Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        let registry = self.route(reference, &question.access)?.registry;
        retrying(self.transport(), || finish(self.ask_at(&registry, question)?))
    }

    /// Asks the registry itself, and does not ask again.
    pub(crate) fn ask_once(
        &self,
        reference: &Reference,
        question: &Question<'_>,
    ) -> Result<Answer, RequestError> {
        self.ask_at(&self.route(reference, &question.access)?.registry, question)
    }

    fn ask_at(&self, endpoint: &Endpoint, question: &Question<'_>) -> Result<Answer, RequestError> {
        let target = self.target(endpoint, &question.access)?;
        let mut call = self.call(&target, question)?;
        let answer = self.0.auth.send(self.transport(), &target, &mut call)?;
        self.judge(&target, question, answer)
    }

    /// Asks once, with a part of a blob as the body.
    pub(crate) fn send_part(
        &self,
        reference: &Reference,
        question: &Question<'_>,
        part: Part<'_>,
    ) -> Result<Answer, RequestError> {
        let registry = self.route(reference, &question.access)?.registry;
        let target = self.target(&registry, &question.access)?;
        let mut call = self.call(&target, question)?;
        let answer = self.0.auth.send_part(self.transport(), &target, &mut call, part)?;
        self.judge(&target, question, answer)
    }

    fn route(&self, reference: &Reference, access: &Access) -> Result<Route, RequestError> {
        let purpose = match access {
            Access::Login | Access::Catalog => Purpose::LogIn,
            Access::Pull => Purpose::Pull,
            Access::Push { .. } => Purpose::Push,
        };
        let route = self.transport().hosts.route(reference, purpose);
        route.map_err(|error| RequestError::new(reference.familiar_repository(), Failure::Route(error)))
    }

    /// Goes on without a mirror: for good, if it is not there to be asked.
    fn pass_over(&self, mirror: &Endpoint, error: &RequestError) {
        tracing::info!(%error, "the mirror is passed over");
        if error.status().is_none() && self.give_up(mirror.reference.registry()) {
            tracing::warn!(%error, mirror = mirror.reference.registry(), "the mirror is not asked any more");
        }
    }

    fn has_given_up(&self, mirror: &Endpoint) -> bool {
        lock(&self.0.given_up).contains(mirror.reference.registry())
    }

    fn give_up(&self, mirror: &str) -> bool {
        lock(&self.0.given_up).insert(mirror.to_owned())
    }

    /// Asks a mirror no more; says whether it was asked until now, so that somebody else can be instead.
    pub(crate) fn distrust(&self, mirror: Option<&str>, why: &str) -> bool {
        let Some(mirror) = mirror.filter(|mirror| self.give_up(mirror)) else { return false };
        tracing::warn!(mirror, why, "the mirror is not asked any more");
        true
    }

    /// Notes which mirror gave a blob.
    pub(crate) fn note_served(&self, digest: &Digest, mirror: Option<&String>) {
        match mirror {
            Some(mirror) => lock(&self.0.served).insert(digest.clone(), mirror.clone()),
            None => lock(&self.0.served).remove(digest),
        };
    }

    /// Asks the mirror that gave a blob no more, since it cannot be used; says whether the blob may be had elsewhere.
    #[must_use]
    pub fn doubt(&self, digest: &Digest) -> bool {
        let mirror = lock(&self.0.served).remove(digest);
        mirror.is_some() && !self.transport().is_cancelled() && {
            // Another blob may have made it untrusted before.
            self.distrust(mirror.as_deref(), "what it gave cannot be used");
            true
        }
    }

    /// Whether it is a redirect, or who it led to, that failed.
    pub(crate) fn is_of_another_host(&self, reference: &Reference, error: &RequestError) -> bool {
        let registry = self.route(reference, &Access::Push { from: None }).map(|route| route.registry);
        let is_own = registry.is_ok_and(|registry| is_host_of(&registry.reference, &error.host));
        matches!(*error.failure, Failure::Redirect(_)) || (error.status().is_some() && !is_own)
    }

    fn call<'q>(&self, target: &Target, question: &Question<'q>) -> Result<Call<'q>, RequestError> {
        let failed = |error: RedirectError| RequestError::new(&target.registry, Failure::Redirect(error));
        let (url, led_by) = match &question.place {
            Location::Below(path) => {
                let path = format!("/v2/{}/{path}", target.repository);
                (target.base.join(&path).map_err(|error| failed(error.into()))?, None)
            }
            Location::Top => (target.base.join("/v2/").map_err(|error| failed(error.into()))?, None),
            Location::Root(path) => (target.base.join(path).map_err(|error| failed(error.into()))?, None),
            Location::At(url) => {
                let (own, origin) = (target.base.origin(), url.origin());
                self.transport().check_protection(own.https, url).map_err(failed)?;
                (url.clone(), (origin != own).then(|| self.transport().reach(&own)))
            }
        };
        let Question { method, accept, range_from, content, .. } = question;
        let (method, range_from, content) = (method.clone(), *range_from, content.clone());
        let manner = target.manner.clone();
        Ok(Call { method, range_from, content, led_by, manner, ..Call::get(url, accept) })
    }

    fn judge(
        &self,
        target: &Target,
        question: &Question<'_>,
        answer: Answer,
    ) -> Result<Answer, RequestError> {
        let status = answer.status;
        let is_end_of_range = status == 416 && question.range_from.is_some();
        if matches!(status, 200 | 206) || is_end_of_range || question.statuses.contains(&status) {
            return Ok(answer);
        }
        let retry_after = retry_after(&answer.headers);
        let origin = answer.origin.clone();
        let says = Says::from_body(&answer.body.read_some(self.limits().error_bytes));
        let (repository, login) = (target.repository.clone(), self.0.auth.login(target));
        // Behind a redirect these say nothing about the repository, only about that host.
        let failure = match status {
            401 | 403 if origin == target.base.origin() => {
                Failure::Denied { repository, status, login, says }
            }
            404 if origin == target.base.origin() => {
                Failure::NotFound { repository, what: question.what.clone(), login, says }
            }
            _ => Failure::of_status(status, retry_after, self.limits(), says),
        };
        Err(RequestError::new(origin, failure))
    }

    fn target(&self, endpoint: &Endpoint, access: &Access) -> Result<Target, RequestError> {
        let registry = endpoint.reference.registry().to_owned();
        let certificates = self.transport().hosts.certificates(&registry);
        let certificates =
            certificates.map_err(|error| RequestError::new(&registry, Failure::Unusable(error)))?;
        let mut manner = Manner { origin: None, is_insecure: endpoint.is_insecure, certificates };
        let base = self.base(endpoint, &mut manner)?;
        let (repository, access) = (endpoint.reference.repository().to_owned(), access.clone());
        Ok(Target { registry, repository, base, manner, access })
    }

    /// The address of a registry. One that may go without TLS is asked which it speaks, the first time.
    fn base(&self, endpoint: &Endpoint, manner: &mut Manner) -> Result<Url, RequestError> {
        let host = host_of(&endpoint.reference);
        let parse = |scheme: &str| {
            Url::parse(&format!("{scheme}://{host}/"))
                .map_err(|error| RequestError::new(host, Failure::Redirect(error.into())))
        };
        let (plain, protected) = (parse("http")?, parse("https")?);
        manner.origin = Some(protected.origin());
        if endpoint.is_plain {
            return Ok(plain);
        }
        let is_here = is_loopback(&plain.origin()) && !self.transport().hosts.always_verifies();
        if !manner.is_insecure && !is_here {
            return Ok(protected);
        }
        let key = (host.to_owned(), manner.is_insecure);
        if let Some(base) = lock(&self.0.bases).get(&key) {
            return Ok(base.clone());
        }
        let base = match is_here {
            true => self.probe_plain_first(plain, protected, manner)?,
            false => self.probe_protected_first(plain, protected, manner)?,
        };
        lock(&self.0.bases).insert(key, base.clone());
        Ok(base)
    }

    /// The question is the anonymous one about the API's version, so nothing is shown to a listener.
    fn probe(&self, base: &Url, manner: &Manner) -> Result<u16, RequestError> {
        let url = base.join("/v2/");
        let url = url.map_err(|error| RequestError::new(base.origin(), Failure::Redirect(error.into())))?;
        let call = Call { manner: manner.clone(), ..Call::get(url, "application/json") };
        self.transport().send(&call).map(|answer| answer.status)
    }

    /// A server that expects TLS answers a plain request with 400, or with bytes that are no HTTP.
    fn probe_plain_first(&self, plain: Url, protected: Url, manner: &Manner) -> Result<Url, RequestError> {
        let error = match self.probe(&plain, manner) {
            Ok(400) => None,
            Ok(_) => return Ok(plain),
            Err(error) if matches!(*error.failure, Failure::NotHttp(_) | Failure::Cut(_)) => Some(error),
            Err(error) => return Err(error),
        };
        match (self.probe(&protected, manner), error) {
            (Ok(_), _) => Ok(protected),
            // It is no TLS server either; what it did to the plain request says more.
            (Err(protected), Some(plain)) if !protected.is_about_trust() => Err(plain),
            (Err(protected), _) => Err(protected),
        }
    }

    /// On the net, a server that speaks plainly often only does so to send everybody to where it has TLS.
    fn probe_protected_first(
        &self,
        plain: Url,
        protected: Url,
        manner: &Manner,
    ) -> Result<Url, RequestError> {
        let Err(error) = self.probe(&protected, manner) else { return Ok(protected) };
        if matches!(*error.failure, Failure::Cancelled | Failure::Certificates { .. }) {
            return Err(error);
        }
        match self.probe(&plain, manner) {
            Ok(_) => Ok(plain),
            // With TLS, the proxy may have let us through to nobody.
            Err(plain) if matches!(*plain.failure, Failure::Proxy { .. }) => Err(plain),
            Err(_) => Err(error),
        }
    }
}

/// Where the registry of a reference answers.
fn host_of(reference: &Reference) -> &str {
    if reference.registry() == "docker.io" { HUB_HOST } else { reference.registry() }
}

/// Whether an error or an answer that names `host` is of the registry of a reference.
fn is_host_of(reference: &Reference, host: &str) -> bool {
    let registry = host_of(reference);
    host == registry || format!("{host}:443") == registry || format!("{host}:80") == registry
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every update is one call on a collection: a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.transport).finish()
    }
}
