//! The client: requests to a registry, authorised, judged and repeated.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use oci::Reference;
use ureq::http::Method;
use web::{Roots, RootsError, Url};

use crate::auth::{Access, Auth, Target};
use crate::credentials::Credentials;
use crate::error::{Failure, RedirectError, RequestError, Says};
use crate::limits::Limits;
use crate::names::Names;
use crate::retry::{retry_after, retrying};
use crate::timing::Timing;
use crate::transport::{Answer, Call, Content, Part, PlainHttp, Transport};

/// Where Docker Hub really answers.
pub(crate) const HUB_HOST: &str = "registry-1.docker.io";

/// Everything a [`Client`] is told. No field has a silent default.
#[derive(Debug)]
pub struct Options {
    /// Who the user is to registries.
    pub credentials: Credentials,
    /// Bounds; [`Limits::DEFAULT`] for real use.
    pub limits: Limits,
    /// Which hosts may go without TLS.
    pub plain_http: PlainHttp,
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
    bases: Mutex<HashMap<String, Url>>,
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
    pub fn new(options: Options) -> Result<Self, RootsError> {
        let transport = Transport::new(
            options.limits,
            options.plain_http,
            options.roots.certificates()?,
            &options.user_agent,
            &options.names,
            options.timing,
        );
        let bases = Mutex::default();
        Ok(Self(Arc::new(Inner { transport, auth: Auth::new(options.credentials), bases })))
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
    /// request's.
    pub(crate) fn ask<T>(
        &self,
        reference: &Reference,
        question: &Question<'_>,
        mut finish: impl FnMut(Answer) -> Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        retrying(self.transport(), || finish(self.ask_once(reference, question)?))
    }

    /// The same without asking again.
    pub(crate) fn ask_once(
        &self,
        reference: &Reference,
        question: &Question<'_>,
    ) -> Result<Answer, RequestError> {
        let target = self.target(reference, &question.access)?;
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
        let target = self.target(reference, &question.access)?;
        let mut call = self.call(&target, question)?;
        let answer = self.0.auth.send_part(self.transport(), &target, &mut call, part)?;
        self.judge(&target, question, answer)
    }

    fn call<'q>(&self, target: &Target, question: &Question<'q>) -> Result<Call<'q>, RequestError> {
        let failed = |error: RedirectError| RequestError::new(&target.registry, Failure::Redirect(error));
        let (url, led_by) = match &question.place {
            Location::Below(path) => {
                let path = format!("/v2/{}/{path}", target.repository);
                (target.base.join(&path).map_err(|error| failed(error.into()))?, None)
            }
            Location::Top => (target.base.join("/v2/").map_err(|error| failed(error.into()))?, None),
            Location::At(url) => {
                let (own, origin) = (target.base.origin(), url.origin());
                self.transport().check_protection(own.https, url).map_err(failed)?;
                (url.clone(), (origin != own).then(|| self.transport().reach(&own)))
            }
        };
        let Question { method, accept, range_from, content, .. } = question;
        let (method, range_from, content) = (method.clone(), *range_from, content.clone());
        Ok(Call { method, range_from, content, led_by, ..Call::get(url, accept) })
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

    fn target(&self, reference: &Reference, access: &Access) -> Result<Target, RequestError> {
        let registry = reference.registry().to_owned();
        let host = if registry == "docker.io" { HUB_HOST } else { &registry };
        let base = self.base(host)?;
        let (repository, access) = (reference.repository().to_owned(), access.clone());
        Ok(Target { registry, repository, base, access })
    }

    /// The address of a registry. One that may go without TLS is asked which it speaks, the first time.
    fn base(&self, host: &str) -> Result<Url, RequestError> {
        let parse = |scheme: &str| {
            Url::parse(&format!("{scheme}://{host}/"))
                .map_err(|error| RequestError::new(host, Failure::Redirect(error.into())))
        };
        let (plain, protected) = (parse("http")?, parse("https")?);
        if !self.transport().plain_http.allows(&plain.origin()) {
            return Ok(protected);
        }
        if let Some(base) = self.bases().get(host) {
            return Ok(base.clone());
        }
        let base = self.probe(plain, protected)?;
        self.bases().insert(host.to_owned(), base.clone());
        Ok(base)
    }

    /// A server that expects TLS answers a plain request with 400, or with bytes that are no HTTP. The question is the anonymous one
    /// about the API's version, so nothing is shown to a listener.
    fn probe(&self, plain: Url, protected: Url) -> Result<Url, RequestError> {
        let speaks = |base: &Url| {
            let url = base
                .join("/v2/")
                .map_err(|e| RequestError::new(base.origin(), Failure::Redirect(e.into())))?;
            self.transport().send(&Call::get(url, "application/json")).map(|answer| answer.status)
        };
        let error = match speaks(&plain) {
            Ok(400) => None,
            Ok(_) => return Ok(plain),
            Err(error) if matches!(*error.failure, Failure::NotHttp(_) | Failure::Cut(_)) => Some(error),
            Err(error) => return Err(error),
        };
        match (speaks(&protected), error) {
            (Ok(_), _) => Ok(protected),
            // It is no TLS server either; what it did to the plain request says more.
            (Err(protected), Some(plain)) if !matches!(*protected.failure, Failure::Tls(_)) => Err(plain),
            (Err(protected), _) => Err(protected),
        }
    }

    fn bases(&self) -> std::sync::MutexGuard<'_, HashMap<String, Url>> {
        self.0.bases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.transport).finish()
    }
}
