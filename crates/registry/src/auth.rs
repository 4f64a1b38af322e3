//! Answering a registry's challenge (distribution's token specification; OAuth 2 form for refresh tokens).
//!
//! A request is first made as it is, or as the last one for the same repository succeeded. On 401 the challenge is answered once: with
//! name and password if it is Basic, else with a token from the realm it names. A second 401 stands. So an expired token needs no clock,
//! and a registry that never stops asking gets two requests.
//!
//! The scope is always our own, `repository:NAME:pull` or `:pull,push`, and `:pull` of the repository that a blob is to be taken over from,
//! whatever the challenge asks for. Credentials go to the realm because the registry
//! the user logged in to says so, as with every other client; but only over TLS, or where the registry itself has none and is the same host.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ureq::http::header::WWW_AUTHENTICATE;
use ureq::http::{HeaderValue, Method};

use crate::challenge::Challenge;
use crate::credentials::{Credential, Credentials};
use crate::error::{Failure, Login, RedirectError, RequestError, Says, TokenError};
use crate::retry::retrying;
use crate::secret::Secret;
use crate::transport::{Answer, Authorization, Call, Content, Manner, Part, Transport};
use crate::wire::TokenBody;
use web::{Origin, Url, form};

/// A repository, and where its registry answers.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// As in a reference: `docker.io`.
    pub(crate) registry: String,
    pub(crate) repository: String,
    /// `https://registry-1.docker.io/`
    pub(crate) base: Url,
    pub(crate) manner: Manner,
    pub(crate) access: Access,
}

/// What is to be done in a repository.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Access {
    /// Nothing but to be known.
    Login,
    /// To be told of all repositories.
    Catalog,
    Pull,
    Push {
        /// Another repository of the registry, of which a blob is to be taken over.
        from: Option<String>,
    },
}

type Place = (String, String);

pub(crate) struct Auth {
    credentials: Credentials,
    /// What was found in `credentials`, so that a helper is run once.
    found: Mutex<HashMap<Place, Credential>>,
    /// What the registry accepted last.
    granted: Mutex<HashMap<(Place, Access), Authorization>>,
    /// Pairs of registry and token server that the user has been told of.
    warned: Mutex<HashSet<Place>>,
}

impl Target {
    fn place(&self) -> Place {
        (self.registry.clone(), self.repository.clone())
    }

    fn scopes(&self) -> Vec<String> {
        let of = |repository: &str, actions: &str| format!("repository:{repository}:{actions}");
        match &self.access {
            Access::Login => Vec::new(),
            Access::Catalog => vec!["registry:catalog:*".to_owned()],
            Access::Pull => vec![of(&self.repository, "pull")],
            Access::Push { from } => {
                let from = from.iter().map(|from| of(from, "pull"));
                std::iter::once(of(&self.repository, "pull,push")).chain(from).collect()
            }
        }
    }
}

impl Auth {
    pub(crate) fn new(credentials: Credentials) -> Self {
        let (found, granted, warned) = Default::default();
        Self { credentials, found, granted, warned }
    }

    /// Makes a request with what authorisation it takes. The answer may still be a refusal.
    pub(crate) fn send(
        &self,
        transport: &Transport,
        target: &Target,
        call: &mut Call<'_>,
    ) -> Result<Answer, RequestError> {
        let key = (target.place(), target.access.clone());
        call.authorization = lock(&self.granted).get(&key).cloned();
        let answer = transport.send(call)?;
        if answer.status != 401 || answer.origin != target.base.origin() {
            return Ok(answer);
        }
        let Some(authorization) = self.respond(transport, target, &answer)? else { return Ok(answer) };
        call.authorization = Some(authorization.clone());
        let answer = transport.send(call)?;
        if answer.status == 401 {
            self.forget(&key, Some(&authorization));
        } else {
            lock(&self.granted).insert(key, authorization);
        }
        Ok(answer)
    }

    /// Forgets what the registry accepts no more, unless somebody has had it renewed meanwhile.
    fn forget(&self, key: &(Place, Access), refused: Option<&Authorization>) {
        let mut granted = lock(&self.granted);
        if granted.get(key).map(|known| &known.value) == refused.map(|refused| &refused.value) {
            granted.remove(key);
        }
    }

    /// Makes a request that cannot be made twice, with what the registry accepted last. What it accepted is forgotten if it does so no more.
    pub(crate) fn send_part(
        &self,
        transport: &Transport,
        target: &Target,
        call: &mut Call<'_>,
        part: Part<'_>,
    ) -> Result<Answer, RequestError> {
        let key = (target.place(), target.access.clone());
        call.authorization = lock(&self.granted).get(&key).cloned();
        let answer = transport.send_part(call, part)?;
        if answer.status == 401 && answer.origin == target.base.origin() {
            self.forget(&key, call.authorization.as_ref());
        }
        Ok(answer)
    }

    /// As whom requests for the repository are made, for messages.
    pub(crate) fn login(&self, target: &Target) -> Login {
        match lock(&self.found).get(&target.place()) {
            None | Some(Credential::Anonymous) => Login::Anonymous,
            Some(Credential::Basic { username, .. }) => Login::User(username.clone()),
            Some(Credential::IdentityToken(_) | Credential::RegistryToken(_)) => Login::Token,
        }
    }

    fn respond(
        &self,
        transport: &Transport,
        target: &Target,
        answer: &Answer,
    ) -> Result<Option<Authorization>, RequestError> {
        let origin = target.base.origin();
        let token_error = |error| RequestError::new(&origin, Failure::Token(Box::new(error)));
        let credential = self
            .credential(transport, target)
            .map_err(|error| RequestError::new(&origin, Failure::Credentials(error)))?;
        let headers = answer.headers.get_all(WWW_AUTHENTICATE);
        let challenge = Challenge::choose(headers.iter().filter_map(|value| value.to_str().ok()));
        let value = match (challenge, credential) {
            (Some(Challenge::Basic), Credential::Basic { username, password }) => basic(&username, &password),
            (Some(Challenge::Basic), _) => return Ok(None),
            (Some(Challenge::Bearer { .. }), Credential::RegistryToken(token)) => {
                bearer(&token).ok_or_else(|| token_error(TokenError::NoToken { host: origin.to_string() }))?
            }
            (Some(Challenge::Bearer { realm, service }), credential) => {
                self.token(transport, target, &realm, service.as_deref(), &credential).map_err(token_error)?
            }
            (None, _) => {
                let shown = headers.iter().next().map(|value| String::from_utf8_lossy(value.as_bytes()));
                let shown = shown.unwrap_or_default().chars().take(100).collect();
                return Err(token_error(TokenError::Challenge(shown)));
            }
        };
        Ok(Some(Authorization { origin, value }))
    }

    fn credential(
        &self,
        transport: &Transport,
        target: &Target,
    ) -> Result<Credential, crate::credentials::CredentialsError> {
        if let Some(credential) = lock(&self.found).get(&target.place()) {
            return Ok(credential.clone());
        }
        // Not under the lock: a helper may be asking a person.
        let credential = self.credentials.find(&target.registry, &target.repository, &transport.limits)?;
        lock(&self.found).insert(target.place(), credential.clone());
        Ok(credential)
    }

    fn token(
        &self,
        transport: &Transport,
        target: &Target,
        realm: &str,
        service: Option<&str>,
        credential: &Credential,
    ) -> Result<HeaderValue, TokenError> {
        let registry = target.base.origin();
        let realm = Url::parse(realm).map_err(|error| TokenError::Realm(error.into()))?;
        check_realm(transport, &registry, &realm).map_err(TokenError::Realm)?;
        if *credential != Credential::Anonymous {
            self.warn_of_strange_realm(&registry, &realm.origin());
        }
        // The user named the registry's host, so its token server there is not a place a stranger leads us to.
        let same_host = realm.origin().host == registry.host;
        let led_by = (!same_host).then(|| transport.reach(&registry));
        let answer = retrying(transport, || {
            let call = token_call(&realm, target, service, credential, led_by)?;
            let answer = accept_token(transport, target, credential, transport.send(&call)?)?;
            Ok((answer.origin.to_string(), answer.body.read_all("token", transport.limits.token_bytes)?))
        });
        let (host, bytes) = answer.map_err(|error| token_error(error, &realm))?;
        let body: TokenBody = serde_json::from_slice(&bytes)
            .map_err(|source| TokenError::Malformed { host: host.clone(), source })?;
        let token = body.token.filter(|token| !token.reveal().is_empty()).or(body.access_token);
        token.as_ref().and_then(bearer).ok_or(TokenError::NoToken { host })
    }

    fn warn_of_strange_realm(&self, registry: &Origin, realm: &Origin) {
        let related = registrable(&registry.host) == registrable(&realm.host);
        let pair = (registry.to_string(), realm.to_string());
        if !related && lock(&self.warned).insert(pair) {
            tracing::warn!(%registry, %realm, "credentials go to the token server that the registry names");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every update is one call on a map: a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A realm that may not be asked is the registry's doing, not the token server's.
fn token_error(error: RequestError, realm: &Url) -> TokenError {
    match *error.failure {
        Failure::Redirect(RedirectError::Inward { host, address }) if host == realm.origin().host => {
            TokenError::Realm(RedirectError::Inward { host, address })
        }
        failure => TokenError::Request(RequestError { failure: Box::new(failure), ..error }),
    }
}

fn check_realm(transport: &Transport, registry: &Origin, realm: &Url) -> Result<(), RedirectError> {
    let same_host = realm.origin().host == registry.host;
    transport.check_protection(registry.https || !same_host, realm)
}

/// GET with name and password, or POST with a refresh token: the two forms token servers know.
fn token_call<'a>(
    realm: &Url,
    target: &Target,
    service: Option<&str>,
    credential: &Credential,
    led_by: Option<crate::Reach>,
) -> Result<Call<'a>, RequestError> {
    let scopes = target.scopes();
    let mut pairs = Vec::new();
    pairs.extend(service.map(|service| ("service", service)));
    let is_form = matches!(credential, Credential::IdentityToken(_));
    // The form has one scope parameter for all, the query one for each.
    let joined = if is_form { vec![scopes.join(" ")] } else { scopes };
    pairs.extend(joined.iter().map(|scope| ("scope", scope.as_str())));
    let (url, body, authorization) = match credential {
        Credential::IdentityToken(token) => {
            pairs.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "rbuild"),
                ("refresh_token", token.reveal()),
            ]);
            (Ok(realm.clone()), Some(form(&pairs)), None)
        }
        Credential::Basic { username, password } => {
            pairs.push(("account", username));
            let value = basic(username, password);
            let authorization = Authorization { origin: realm.origin(), value };
            (realm.with_query(&pairs), None, Some(authorization))
        }
        Credential::Anonymous | Credential::RegistryToken(_) => (realm.with_query(&pairs), None, None),
    };
    let url = url.map_err(|error| RequestError::new(realm.origin(), Failure::Redirect(error.into())))?;
    let content = body.map(|body: String| Content {
        media_type: "application/x-www-form-urlencoded",
        bytes: body.into_bytes().into(),
    });
    let method = if content.is_some() { Method::POST } else { Method::GET };
    let manner = target.manner.clone();
    Ok(Call { method, authorization, content, led_by, manner, ..Call::get(url, "application/json") })
}

fn accept_token(
    transport: &Transport,
    target: &Target,
    credential: &Credential,
    answer: Answer,
) -> Result<Answer, RequestError> {
    let (status, origin) = (answer.status, answer.origin.clone());
    if status == 200 {
        return Ok(answer);
    }
    let retry_after = crate::retry::retry_after(&answer.headers);
    let says = Says::from_body(&answer.body.read_some(transport.limits.error_bytes));
    let login = match credential {
        Credential::Basic { username, .. } => Login::User(username.clone()),
        Credential::IdentityToken(_) | Credential::RegistryToken(_) => Login::Token,
        Credential::Anonymous => Login::Anonymous,
    };
    let failure = match status {
        401 | 403 => Failure::Denied { repository: target.repository.clone(), status, login, says },
        _ => Failure::of_status(status, retry_after, &transport.limits, says),
    };
    Err(RequestError::new(origin, failure))
}

fn basic(username: &str, password: &Secret) -> HeaderValue {
    let encoded = BASE64.encode(format!("{username}:{}", password.reveal()));
    sensitive(&format!("Basic {encoded}")).expect("base64 has no characters that a header may not have")
}

/// `None` if the token has characters that no token has.
fn bearer(token: &Secret) -> Option<HeaderValue> {
    let token = token.reveal();
    let usable = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    usable.then(|| sensitive(&format!("Bearer {token}"))).flatten()
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The last two labels of a host name. Too coarse for names below `co.uk`, but this decides about a warning only.
fn registrable(host: &str) -> &str {
    host.rmatch_indices('.').nth(1).map_or(host, |(dot, _)| &host[dot + 1..])
}
