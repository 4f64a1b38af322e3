//! Absolute `http` and `https` addresses, and the origin to which credentials are bound.

use std::fmt;

use ureq::http::Uri;
use ureq::http::uri::Scheme;

/// An absolute URL with a host and without user information. Displayed without its query, which may carry a signature.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Url(Uri);

/// Scheme, host and port: what credentials are bound to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Origin {
    /// Whether it is spoken to with TLS.
    pub https: bool,
    /// Its name in small letters, or its address, without brackets.
    pub host: String,
    /// The scheme's own, if the address has none.
    pub port: u16,
}

/// Why a text is not a [`Url`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UrlError {
    /// Not an absolute address.
    #[error("`{0}` is not an address")]
    Malformed(String),
    /// `file:`, `gopher:` and the like.
    #[error("`{0}` is neither https nor http")]
    Scheme(String),
    /// `https://user@host/`: it would choose the credentials that we send, and end in messages and the image's history.
    #[error("`{0}` has a user name in it")]
    UserInfo(String),
}

impl Url {
    /// Parses an address. A fragment is dropped: it is nothing for a server.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.split('#').next().unwrap_or_default();
        let shown = || printable(text);
        if scheme(text).is_some_and(|s| !s.eq_ignore_ascii_case("http") && !s.eq_ignore_ascii_case("https")) {
            return Err(UrlError::Scheme(shown()));
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed(shown()))?;
        let (Some(_), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(UrlError::Malformed(shown()));
        };
        if authority.as_str().contains('@') {
            let bare = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
            return Err(UrlError::UserInfo(format!("…@{}", printable(bare))));
        }
        // `http::Uri` accepts a port it cannot represent, and answers as if there were none.
        let port = authority.as_str().rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        if authority.host().is_empty() || port.is_some_and(|_| authority.port_u16().is_none()) {
            return Err(UrlError::Malformed(shown()));
        }
        Ok(Self(uri))
    }

    /// The host's name or address, without a port; an address of IPv6 in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }

    /// The whole address, its query included: what the same file goes under.
    #[must_use]
    pub fn full(&self) -> String {
        self.0.to_string()
    }

    /// The address that `location`, found in an answer from `self`, stands for (RFC 3986, section 5).
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn join(&self, location: &str) -> Result<Self, UrlError> {
        if scheme(location).is_some() {
            return Self::parse(location);
        }
        let scheme = self.0.scheme_str().unwrap_or("https");
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        let path = self.0.path();
        let absolute = match location.as_bytes() {
            [b'/', b'/', ..] => format!("{scheme}:{location}"),
            [b'/', ..] => format!("{scheme}://{authority}{location}"),
            [b'?', ..] => format!("{scheme}://{authority}{path}{location}"),
            _ => {
                let directory = path.rfind('/').map_or("/", |slash| &path[..=slash]);
                format!("{scheme}://{authority}{directory}{location}")
            }
        };
        Self::parse(&absolute)
    }

    /// The same address with `pairs` added to its query.
    ///
    /// # Errors
    /// [`UrlError`], if it becomes too long.
    pub fn with_query(&self, pairs: &[(&str, &str)]) -> Result<Self, UrlError> {
        let text = self.0.to_string();
        let joint = match text.split_once('?') {
            None => "?",
            Some((_, "")) => "",
            Some(_) => "&",
        };
        Self::parse(&format!("{text}{joint}{}", form(pairs)))
    }

    /// What credentials for this address are bound to.
    #[must_use]
    pub fn origin(&self) -> Origin {
        let https = self.0.scheme() == Some(&Scheme::HTTPS);
        let port = self.0.port_u16().unwrap_or(if https { 443 } else { 80 });
        let host = self.host().trim_start_matches('[').trim_end_matches(']');
        Origin { https, host: host.to_ascii_lowercase(), port }
    }

    /// For a request.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.0
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        write!(f, "{}://{authority}{}", self.0.scheme_str().unwrap_or("https"), self.0.path())
    }
}

impl fmt::Display for Origin {
    /// The host, with its port unless that goes without saying.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}", self.host)?;
        if self.port == if self.https { 443 } else { 80 } { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// `application/x-www-form-urlencoded`, everything but unreserved characters escaped.
#[must_use]
pub fn form(pairs: &[(&str, &str)]) -> String {
    let encoded: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    encoded.join("&")
}

fn escape(text: &str) -> String {
    use fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("writing to a String does not fail");
        }
        escaped
    })
}

/// What stands before the first colon, if it looks like a scheme.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let looks = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    looks.then_some(scheme)
}

/// A stranger's text made fit for a message: no control characters, no query, at most 200 characters.
fn printable(text: &str) -> String {
    let bare = text.split('?').next().unwrap_or_default();
    bare.chars()
        .take(200)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let got = Url::parse(text).map_or_else(|error| error.to_string(), |url| url.full());
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn addresses_are_absolute_and_nobodys() {
        check("https://example.com/a/b?c=d#e", "https://example.com/a/b?c=d");
        check("HTTP://Example.com", "http://Example.com/");
        check("gopher://example.com/", "`gopher://example.com/` is neither https nor http");
        check("https://me:secret@example.com/a", "`…@example.com/a` has a user name in it");
        check("https://example.com:99999/a", "`https://example.com:99999/a` is not an address");
        check("https:///a", "`https:///a` is not an address");
        check("example.com/a", "`example.com/a` is not an address");
        check("https://h.test/\u{1b}[2J", r"`https://h.test/\u{1b}[2J` is not an address");
    }

    #[test]
    fn a_location_is_relative_to_the_address_it_came_from() {
        let base = Url::parse("https://host.test:5000/v2/a/blobs/x?sig=1").unwrap();
        for (location, expected) in [
            ("https://cdn.test/x?y=1", "https://cdn.test/x?y=1"),
            ("http://cdn.test/", "http://cdn.test/"),
            ("//cdn.test/x", "https://cdn.test/x"),
            ("/v2/?e", "https://host.test:5000/v2/?e"),
            ("y", "https://host.test:5000/v2/a/blobs/y"),
            ("?y", "https://host.test:5000/v2/a/blobs/x?y"),
        ] {
            assert_eq!(base.join(location).unwrap().full(), expected);
        }
        assert!(base.join("file:///etc/passwd").is_err());
    }

    #[test]
    fn queries_are_added_and_escaped() {
        let with =
            |url: &str| Url::parse(url).unwrap().with_query(&[("scope", "a:b/c"), ("n", "é\r\n")]).unwrap();
        assert_eq!(with("https://h.test/t").full(), "https://h.test/t?scope=a%3Ab%2Fc&n=%C3%A9%0D%0A");
        assert_eq!(
            with("https://h.test/t?x=1").full(),
            "https://h.test/t?x=1&scope=a%3Ab%2Fc&n=%C3%A9%0D%0A"
        );
        assert_eq!(with("https://h.test/t?x=1").to_string(), "https://h.test/t");
    }

    #[test]
    fn origins_name_the_default_port() {
        let origin = |url: &str| Url::parse(url).unwrap().origin();
        assert_eq!(origin("https://h.test"), origin("https://H.test:443/x"));
        assert_ne!(origin("https://h.test"), origin("http://h.test"));
        assert_eq!(origin("http://[::1]:5000/").to_string(), "[::1]:5000");
        assert_eq!(origin("http://[::1]:5000/").host, "::1");
    }
}
