//! The tags of a repository (OCI distribution specification, "Listing Tags").

use oci::{Reference, ReferenceError};
use serde::Deserialize;
use ureq::http::HeaderMap;
use ureq::http::header::LINK;
use web::Url;

use crate::client::{Client, Location, Question};
use crate::error::{Failure, RedirectError, RequestError};

/// Tags asked for at once.
const PAGE: &str = "1000";

/// Why the tags of a repository are not known.
#[derive(Debug, thiserror::Error)]
pub enum TagsError {
    /// A request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Not JSON, or not of a list's shape.
    #[error("`{host}` does not answer with a list of tags")]
    Malformed {
        /// Who answered.
        host: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Something that no image can be called.
    #[error("`{host}` lists a tag that is none")]
    Tag {
        /// Who answered.
        host: String,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// A list without end.
    #[error("`{host}` lists more than {limit} tags")]
    TooMany {
        /// Who answered.
        host: String,
        /// [`crate::Limits::tags`].
        limit: usize,
    },
}

/// One page; a repository whose last tag was deleted has `null`.
#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

impl Client {
    /// All tags of the reference's repository, as references, in the order in which the registry lists them.
    ///
    /// # Errors
    /// [`TagsError`].
    pub fn tags(&self, reference: &Reference) -> Result<Vec<Reference>, TagsError> {
        let (host, limit) = (reference.registry().to_owned(), self.limits().tags);
        let mut found = Vec::new();
        let mut place = Location::Below(format!("tags/list?{}", web::form(&[("n", PAGE)])));
        loop {
            let question =
                Question { place, ..Question::get(String::new(), "tags".to_owned(), "application/json") };
            let (url, headers, bytes) = self.ask_registry(reference, &question, |answer| {
                Ok((answer.url, answer.headers, answer.body.read_all("list", self.limits().manifest_bytes)?))
            })?;
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|source| TagsError::Malformed { host: host.clone(), source })?;
            let tags = page.tags.unwrap_or_default();
            let is_last = tags.is_empty();
            for tag in tags {
                if found.len() == limit {
                    return Err(TagsError::TooMany { host, limit });
                }
                let named = reference.with_tag(&tag);
                found.push(named.map_err(|source| TagsError::Tag { host: host.clone(), source })?);
            }
            match next_page(&headers, &url)? {
                Some(next) if !is_last && next.full() != url.full() => place = Location::At(next),
                _ => return Ok(found),
            }
        }
    }
}

/// Where the next page is: `<…>; rel="next"` (RFC 8288), which must be at the same registry.
pub(crate) fn next_page(headers: &HeaderMap, url: &Url) -> Result<Option<Url>, RequestError> {
    let values = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    // A comma within an address is escaped by every registry that there is.
    let mut links = values.flat_map(|value| value.split(','));
    let target = links.find_map(|link| {
        let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
        rest.replace(['"', ' '], "").contains("rel=next").then_some(target)
    });
    let Some(target) = target else { return Ok(None) };
    let failed = |error| RequestError::new(url.origin(), Failure::Redirect(error));
    let next = url.join(target).map_err(|error| failed(error.into()))?;
    if next.origin() == url.origin() {
        Ok(Some(next))
    } else {
        Err(failed(RedirectError::Elsewhere(next.to_string())))
    }
}
