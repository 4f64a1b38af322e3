//! Through whom to ask: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, as curl(1) and the programs of Go read them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use ureq::{Proxy, ProxyProtocol};

use crate::{Origin, Url};

/// The proxies of an environment. Hosts of this machine are asked directly.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For addresses without TLS.
    plain: Option<Via>,
    /// For addresses with TLS.
    protected: Option<Via>,
    direct: Vec<Direct>,
}

/// A proxy. Its text may hold a password, so it is not shown.
#[derive(Clone)]
struct Via {
    /// As the variable has it.
    text: String,
    proxy: Proxy,
}

/// Who is asked directly.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Direct {
    Everybody,
    /// A host, with or without all below it.
    Host {
        name: String,
        is_suffix: bool,
        port: Option<u16>,
    },
    Network(IpNet),
}

/// Why a proxy cannot be used. No message shows its address, which may have a password in it.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Not an address.
    #[error("`{0}` is not the address of a proxy")]
    Address(&'static str),
    /// Not over HTTP.
    #[error("`{0}` names a proxy that is asked neither by http nor by https")]
    Scheme(&'static str),
}

impl Proxies {
    /// Everybody is asked directly.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// What the variables say. Small letters count for more, as with curl; `HTTP_PROXY` is not read where a `REQUEST_METHOD` says that a server
    /// runs us, which may have taken it from a request (<https://httpoxy.org>).
    ///
    /// # Errors
    /// [`ProxyError`].
    pub fn from_variables<'v>(get: impl Fn(&str) -> Option<&'v str>) -> Result<Self, ProxyError> {
        let first = |names: &[&'static str]| {
            let set = names.iter().filter_map(|name| Some((*name, get(name)?.trim())));
            set.into_iter().find(|(_, value)| !value.is_empty())
        };
        let is_gateway = get("REQUEST_METHOD").is_some();
        let plain: &[_] = if is_gateway { &["http_proxy"] } else { &["http_proxy", "HTTP_PROXY"] };
        let any = first(&["all_proxy", "ALL_PROXY"]);
        let via = |names: &[&'static str]| {
            first(names).or(any).map(|(name, value)| Via::parse(name, value)).transpose()
        };
        let exceptions = first(&["no_proxy", "NO_PROXY"]).map_or("", |(_, value)| value);
        Ok(Self {
            plain: via(plain)?,
            protected: via(&["https_proxy", "HTTPS_PROXY"])?,
            direct: exceptions.split(',').filter_map(Direct::parse).collect(),
        })
    }

    /// Through whom an origin is asked.
    #[must_use]
    pub fn of(&self, origin: &Origin) -> Option<&Proxy> {
        let via = if origin.https { &self.protected } else { &self.plain };
        let via = via.as_ref()?;
        let is_direct =
            is_this_machine(&origin.host) || self.direct.iter().any(|direct| direct.covers(origin));
        (!is_direct).then_some(&via.proxy)
    }

    /// The variables that programs which we start need, to do the same.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let via = |name, via: &Option<Via>| via.as_ref().map(|via| (name, via.text.clone()));
        let exceptions: Vec<String> = self.direct.iter().map(ToString::to_string).collect();
        let exceptions = (!exceptions.is_empty()).then(|| ("no_proxy", exceptions.join(",")));
        let all = [via("http_proxy", &self.plain), via("https_proxy", &self.protected), exceptions];
        all.into_iter().flatten().collect()
    }
}

impl Via {
    fn parse(variable: &'static str, text: &str) -> Result<Self, ProxyError> {
        // Without a scheme it is one of http, as everywhere.
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let (_, rest) = full.split_once("://").unwrap_or_default();
        // A password is no part of an address, and what is wrong with one must not be hidden by it.
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        Url::parse(&format!("http://{place}")).map_err(|_| ProxyError::Address(variable))?;
        let proxy = Proxy::new(&full).map_err(|_| ProxyError::Address(variable))?;
        match proxy.protocol() {
            ProxyProtocol::Http | ProxyProtocol::Https => Ok(Self { text: text.to_owned(), proxy }),
            _ => Err(ProxyError::Scheme(variable)),
        }
    }
}

impl Direct {
    /// One entry of `NO_PROXY`: `*`, `host`, `host:port`, `.domain`, `*.domain`, an address or a network. A host stands for what is below it too.
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_ascii_lowercase();
        if entry.is_empty() {
            return None;
        }
        if entry == "*" {
            return Some(Self::Everybody);
        }
        let bare = entry.trim_start_matches('[').trim_end_matches(']');
        if let Some(network) = bare.parse().ok().or_else(|| bare.parse::<IpAddr>().ok().map(IpNet::from)) {
            return Some(Self::Network(network));
        }
        let with_port = entry.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?)));
        let (name, port) = with_port.map_or((entry.as_str(), None), |(name, port)| (name, Some(port)));
        let bare = name.strip_prefix('*').unwrap_or(name);
        let is_suffix = bare.starts_with('.');
        Some(Self::Host { name: bare.trim_start_matches('.').to_owned(), is_suffix, port })
    }

    fn covers(&self, origin: &Origin) -> bool {
        match self {
            Self::Everybody => true,
            Self::Network(network) => {
                origin.host.parse::<IpAddr>().is_ok_and(|address| network.contains(&address))
            }
            Self::Host { name, is_suffix, port } => {
                let below = origin.host.strip_suffix(name.as_str());
                let is_named =
                    below.is_some_and(|below| (below.is_empty() && !is_suffix) || below.ends_with('.'));
                is_named && port.is_none_or(|port| port == origin.port)
            }
        }
    }
}

impl fmt::Display for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("*"),
            Self::Network(network) => network.fmt(f),
            Self::Host { name, is_suffix, port } => {
                f.write_str(if *is_suffix { "." } else { "" })?;
                f.write_str(name)?;
                port.map_or(Ok(()), |port| write!(f, ":{port}"))
            }
        }
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").field("direct", &self.direct).finish_non_exhaustive()
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &'static str)]) -> Result<Proxies, ProxyError> {
        Proxies::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
        })
    }

    /// Through which proxy an address is asked, as `host:port`.
    #[track_caller]
    fn via(variables: &[(&str, &'static str)], url: &str) -> String {
        let proxies = proxies(variables).unwrap();
        let proxy = proxies.of(&Url::parse(url).unwrap().origin());
        proxy.map_or_else(|| "direct".to_owned(), |proxy| format!("{}:{}", proxy.host(), proxy.port()))
    }

    #[test]
    fn a_proxy_is_for_a_scheme() {
        let both = [("HTTP_PROXY", "http://plain:3128"), ("https_proxy", "tls:8080")];
        assert_eq!(via(&both, "http://a.test/"), "plain:3128");
        assert_eq!(via(&both, "https://a.test/"), "tls:8080");
        assert_eq!(via(&[("ALL_PROXY", "all:1"), ("http_proxy", "")], "http://a.test/"), "all:1");
        assert_eq!(via(&[("HTTP_PROXY", "big:1"), ("http_proxy", "small:1")], "http://a.test/"), "small:1");
        assert_eq!(via(&[("HTTP_PROXY", "evil:1"), ("REQUEST_METHOD", "GET")], "http://a.test/"), "direct");
    }

    #[test]
    fn some_are_asked_directly() {
        let check = |exceptions: &'static str, url: &str, expected: &str| {
            let variables = [("https_proxy", "p:1"), ("no_proxy", exceptions)];
            assert_eq!(via(&variables, url), expected, "{exceptions} for {url}");
        };
        check("", "https://localhost/", "direct");
        check("", "https://127.0.0.2:5000/", "direct");
        check("", "https://[::1]/", "direct");
        check("*", "https://a.test/", "direct");
        check("a.test", "https://a.test:5000/", "direct");
        check("a.test", "https://x.a.test/", "direct");
        check("a.test", "https://xa.test/", "p:1");
        check(".a.test", "https://x.a.test/", "direct");
        check(".a.test", "https://a.test/", "p:1");
        check("*.a.test", "https://x.a.test/", "direct");
        check("a.test:5000", "https://a.test:5000/", "direct");
        check("a.test:5000", "https://a.test/", "p:1");
        check("other, 10.0.0.0/8", "https://10.1.2.3/", "direct");
        check("10.0.0.0/8", "https://11.1.2.3/", "p:1");
        check("10.1.2.3", "https://10.1.2.3/", "direct");
        check("fd00::/8", "https://[fd00::1]/", "direct");
    }

    #[test]
    fn what_is_no_proxy_is_named_without_its_password() {
        let error = |value| proxies(&[("https_proxy", value)]).unwrap_err().to_string();
        assert_eq!(error("http://me:secret@:x"), "`https_proxy` is not the address of a proxy");
        let other = "`https_proxy` names a proxy that is asked neither by http nor by https";
        assert_eq!(error("socks5://me:secret@p:1080"), other);
        let shown = format!("{:?}", proxies(&[("https_proxy", "http://me:secret@p:1")]).unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn programs_are_told_the_same() {
        let variables = [("ALL_PROXY", "p:1"), ("NO_PROXY", "a.test, .b.test:8,10.0.0.0/8,*")];
        let told = proxies(&variables).unwrap().variables();
        let expected =
            [("http_proxy", "p:1"), ("https_proxy", "p:1"), ("no_proxy", "a.test,.b.test:8,10.0.0.0/8,*")];
        assert_eq!(told, expected.map(|(name, value)| (name, value.to_owned())));
    }
}
