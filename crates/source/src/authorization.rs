//! What proves to a server who asks.

use std::fmt;

/// The value of an `Authorization` header. It cannot be displayed, and `Debug` shows `***`.
#[derive(Clone, Eq, PartialEq)]
pub struct Authorization(String);

impl Authorization {
    /// A header's whole value, such as `Bearer abc`. White space around it, as files have it at their end, is dropped; `None` if it
    /// cannot stand in a header.
    #[must_use]
    pub fn header(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.trim();
        let is_sound = !text.is_empty() && text.chars().all(|c| !c.is_control());
        is_sound.then(|| Self(text.to_owned()))
    }

    /// A bearer token (RFC 6750), as HTTP servers take it.
    #[must_use]
    pub fn bearer(token: &[u8]) -> Option<Self> {
        Self::header(token).map(|token| Self(format!("Bearer {}", token.0)))
    }

    /// A token in the place of a password, as git servers take it.
    #[must_use]
    pub fn git_token(token: &[u8]) -> Option<Self> {
        use base64::Engine as _;
        let token = Self::header(token)?;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{}", token.0));
        Some(Self(format!("basic {pair}")))
    }

    /// The text, for the request that needs it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_become_headers_and_are_not_shown() {
        let bearer = Authorization::bearer(b"abc\n").unwrap();
        assert_eq!(bearer.reveal(), "Bearer abc");
        assert_eq!(format!("{bearer:?}"), "***");
        assert_eq!(Authorization::git_token(b"abc").unwrap().reveal(), "basic eC1hY2Nlc3MtdG9rZW46YWJj");
        assert_eq!(Authorization::header(b"a\r\nHost: b"), None);
        assert_eq!(Authorization::header(b" \n"), None);
    }
}
