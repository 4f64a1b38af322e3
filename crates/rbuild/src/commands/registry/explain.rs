//! `rbuild registry explain`: which file decides what about a name.

use oci::Reference;
use registry::{Credential, Endpoint, Hosts, Limits, Purpose, RouteError};
use serde::Serialize;
use web::{Origin, Proxies};

use super::{ClientError, FileCredentials, credential_files};
use crate::cli::{Format, RegistryExplainArgs};
use crate::commands::names;
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::hosts;
use crate::listing::{print_json, write_out};
use crate::network;

/// Everything that is configured about a name.
#[derive(Debug, Serialize)]
struct Explanation {
    reference: String,
    /// Who is asked for the image, in this order.
    pulled_from: Vec<Place>,
    pushed_to: Place,
}

/// A place that an image may be at.
#[derive(Debug, Eq, PartialEq, Serialize)]
struct Place {
    reference: String,
    /// The files that lead there; none if it is what the name says.
    because: Vec<String>,
    /// Whether TLS may be missing, or prove nothing.
    insecure: bool,
    /// Whether there is no TLS for certain.
    plain: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificates: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<Login>,
    /// `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<String>,
}

#[derive(Debug, Eq, PartialEq, Serialize)]
struct Login {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    file: String,
}

/// Says where a name leads, and why.
pub(crate) fn explain(args: &RegistryExplainArgs, environment: &Environment) -> Result<(), Failure> {
    let reference = names::name(&args.reference)?;
    let failed = |error: ClientError| error.into_failure();
    let knowledge = Knowledge {
        hosts: hosts::read(environment, &args.registry).map_err(|error| failed(error.into()))?,
        proxies: network::proxies(environment).map_err(|error| failed(error.into()))?,
        credentials: credential_files(environment).map_err(failed)?,
    };
    let explanation = knowledge.explain(&reference)?;
    match args.format.format {
        Format::Table => write_out(&explanation.to_text()),
        Format::Json => print_json(&explanation),
    }
}

struct Knowledge {
    hosts: Hosts,
    proxies: Proxies,
    credentials: Vec<FileCredentials>,
}

impl Knowledge {
    fn explain(&self, reference: &Reference) -> Result<Explanation, Failure> {
        let route =
            |purpose| self.hosts.route(reference, purpose).map_err(|error| blocked(reference, &error));
        let (pull, push) = (route(Purpose::Pull)?, route(Purpose::Push)?);
        let pulled_from = pull.mirrors.iter().chain([&pull.registry]);
        Ok(Explanation {
            reference: reference.to_string(),
            pulled_from: pulled_from.map(|endpoint| self.place(endpoint)).collect::<Result<_, _>>()?,
            pushed_to: self.place(&push.registry)?,
        })
    }

    fn place(&self, endpoint: &Endpoint) -> Result<Place, Failure> {
        let Endpoint { reference, is_insecure, is_plain, because } = endpoint;
        let host = reference.registry();
        let certificates = self.hosts.certificates(host).map_err(|error| {
            let title = format!("what is configured for `{host}` cannot be used");
            Failure::new(Exit::Usage, Diagnostic::error("registry", title).note(error.to_string()))
        })?;
        Ok(Place {
            reference: reference.to_string(),
            because: because.iter().map(|path| path.display().to_string()).collect(),
            insecure: *is_insecure,
            plain: *is_plain,
            certificates: certificates.map(|certificates| certificates.directory.display().to_string()),
            login: self.login(reference)?,
            proxy: self.proxy(host, *is_plain),
        })
    }

    /// May run a helper, as a pull would.
    fn login(&self, reference: &Reference) -> Result<Option<Login>, Failure> {
        for FileCredentials { path, credentials } in &self.credentials {
            let found = credentials.find(reference.registry(), reference.repository(), &Limits::DEFAULT);
            let user = match found {
                Ok(Credential::Anonymous) => continue,
                Ok(Credential::Basic { username, .. }) => Some(username),
                Ok(Credential::IdentityToken(_) | Credential::RegistryToken(_)) => None,
                Err(source) => {
                    return Err(ClientError::Credentials { path: path.clone(), source }.into_failure());
                }
            };
            return Ok(Some(Login { user, file: path.display().to_string() }));
        }
        Ok(None)
    }

    fn proxy(&self, host: &str, is_plain: bool) -> Option<String> {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().ok()?),
            None => (host, if is_plain { 80 } else { 443 }),
        };
        let host = name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let proxy = self.proxies.of(&Origin { https: !is_plain, host, port })?;
        Some(format!("{}:{}", proxy.host(), proxy.port()))
    }
}

fn blocked(reference: &Reference, error: &RouteError) -> Failure {
    let diagnostic = Diagnostic::error("registry", format!("`{}` {error}", reference.familiar()));
    Failure::new(Exit::Usage, diagnostic)
}

impl Explanation {
    fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.reference);
        for (number, place) in self.pulled_from.iter().enumerate() {
            let heading = if number == 0 { "pulled from" } else { "else from" };
            let is_all = *place == self.pushed_to;
            text += &place.to_text(&format!("{heading}{}", if is_all { " and pushed to" } else { "" }));
        }
        if !self.pulled_from.contains(&self.pushed_to) {
            text += &self.pushed_to.to_text("pushed to");
        }
        text
    }
}

impl Place {
    fn to_text(&self, heading: &str) -> String {
        let mut text = format!("{heading} {}\n", self.reference);
        let mut fact = |name: &str, value: &str| text += &format!("  {name}: {value}\n");
        self.because.iter().for_each(|path| fact("because of", path));
        match (self.plain, self.insecure) {
            (true, _) => fact("insecure", "no TLS"),
            (false, true) => fact("insecure", "TLS may be missing, or prove nothing"),
            (false, false) => {}
        }
        if let Some(directory) = &self.certificates {
            fact("certificates", directory);
        }
        match &self.login {
            Some(Login { user: Some(user), file }) => fact("login", &format!("`{user}` of {file}")),
            Some(Login { user: None, file }) => fact("login", &format!("a token of {file}")),
            None => fact("login", "none"),
        }
        if let Some(proxy) = &self.proxy {
            fact("proxy", proxy);
        }
        text
    }
}
