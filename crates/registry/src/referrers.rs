//! What refers to an image: signatures, lists of contents (OCI distribution specification, "Listing Referrers").
//!
//! A registry that does not keep such lists has them under a tag that is made of the subject's digest, which whoever pushes looks after.

use oci::{Descriptor, Digest, ImageIndex, Reference};
use serde_json::{Value, json};
use ureq::http::HeaderMap;

use crate::client::{Client, Location, Question};
use crate::error::RequestError;
use crate::manifest::ManifestError;
use crate::push::PushError;
use crate::tags::next_page;

/// By which a registry says that it keeps the list itself.
const SUBJECT_HEADER: &str = "oci-subject";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Why it is not known what refers to an image.
#[derive(Debug, thiserror::Error)]
pub enum ReferrersError {
    /// A request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// What is under the tag.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Not JSON, or not of an index' shape.
    #[error("`{host}` does not answer with a list of referrers")]
    Malformed {
        /// Who answered.
        host: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A list without end.
    #[error("`{host}` lists more than {limit} referrers")]
    TooMany {
        /// Who answered.
        host: String,
        /// [`crate::Limits::tags`].
        limit: usize,
    },
}

/// Why something that refers to an image could not be pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushReferrerError {
    /// It, or the list.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The list cannot be had, so it cannot be added to.
    #[error(transparent)]
    List(#[from] ReferrersError),
}

impl Client {
    /// What a repository has that refers to a digest. Nothing, if it does not have the digest either.
    ///
    /// # Errors
    /// [`ReferrersError`].
    pub fn referrers(
        &self,
        repository: &Reference,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, ReferrersError> {
        match self.listed_referrers(repository, subject) {
            Err(ReferrersError::Request(error)) if matches!(error.status(), Some(400 | 404 | 405)) => {
                let list = self.list_under_tag(repository, subject)?;
                Ok(list.map(|list| list.manifests().clone()).unwrap_or_default())
            }
            listed => listed,
        }
    }

    fn listed_referrers(
        &self,
        repository: &Reference,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, ReferrersError> {
        let limit = self.limits().tags;
        let mut found = Vec::new();
        let mut place = Location::Below(format!("referrers/{subject}"));
        loop {
            let question = Question { place, ..Question::get(String::new(), "referrers".to_owned(), INDEX) };
            let (url, headers, bytes) = self.ask_registry(repository, &question, |answer| {
                Ok((answer.url, answer.headers, answer.body.read_all("list", self.limits().manifest_bytes)?))
            })?;
            let host = url.origin().to_string();
            let page: ImageIndex = serde_json::from_slice(&bytes)
                .map_err(|source| ReferrersError::Malformed { host: host.clone(), source })?;
            let is_last = page.manifests().is_empty();
            found.extend(page.manifests().iter().cloned());
            if found.len() > limit {
                return Err(ReferrersError::TooMany { host, limit });
            }
            match next_page(&headers, &url)? {
                Some(next) if !is_last && next.full() != url.full() => place = Location::At(next),
                _ => return Ok(found),
            }
        }
    }

    fn list_under_tag(
        &self,
        repository: &Reference,
        subject: &Digest,
    ) -> Result<Option<ImageIndex>, ReferrersError> {
        let Some(tag) = tag_of(repository, subject) else { return Ok(None) };
        let fetched = match self.newest_manifest(&tag) {
            Ok(fetched) => fetched,
            Err(ManifestError::Request(error)) if error.status() == Some(404) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let list = serde_json::from_slice(&fetched.bytes);
        list.map(Some).map_err(|source| ReferrersError::Malformed { host: tag.registry().to_owned(), source })
    }

    /// Puts a manifest that refers to `subject` under its digest, and sees to it that it is found as one.
    ///
    /// # Errors
    /// [`PushReferrerError`]; the manifest may be there then, and not be listed.
    pub fn push_referrer(
        &self,
        repository: &Reference,
        subject: &Digest,
        descriptor: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), PushReferrerError> {
        let place = repository.at_digest(Digest::of(bytes));
        let headers = self.put_manifest(&place, descriptor.media_type().as_ref(), bytes)?;
        if is_kept_by_registry(&headers) {
            return Ok(());
        }
        let Some(tag) = tag_of(repository, subject) else { return Ok(()) };
        let known = self.list_under_tag(repository, subject)?;
        let mut entries = known.map(|list| list.manifests().clone()).unwrap_or_default();
        if entries.iter().any(|entry| entry.digest() == descriptor.digest()) {
            return Ok(());
        }
        entries.push(descriptor.clone());
        let list: Value = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        self.push_manifest(&tag, INDEX, list.to_string().as_bytes())?;
        Ok(())
    }
}

fn is_kept_by_registry(headers: &HeaderMap) -> bool {
    headers.contains_key(SUBJECT_HEADER)
}

/// `sha256-…`; a longer digest is cut to what a tag may have.
fn tag_of(repository: &Reference, subject: &Digest) -> Option<Reference> {
    let hex = &subject.hex()[..subject.hex().len().min(64)];
    repository.with_tag(&format!("{}-{hex}", subject.algorithm().name())).ok()
}
