//! One manifest or index, as bytes that are what they were asked for.

use oci::{Digest, Hasher, ManifestKind, MediaType, MediaTypeError, Reference};
use ureq::http::header::CONTENT_TYPE;

use crate::client::{Client, Question};
use crate::error::RequestError;
use crate::transport::Answer;
use crate::wire::ManifestShape;

/// The header with which a registry says what a tag stands for.
pub(crate) const DIGEST_HEADER: &str = "Docker-Content-Digest";

/// A manifest or index as received. Its digest is that of `bytes`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fetched {
    /// As received; never written anew.
    pub bytes: Vec<u8>,
    /// Of header and document, which agree.
    pub media_type: MediaType,
    /// What `media_type` says it is.
    pub kind: ManifestKind,
    /// Of `bytes`; by the algorithm of the reference's digest, if it had one.
    pub digest: Digest,
}

/// Why a manifest could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Something else under a manifest's address.
    #[error("`{host}` does not answer with a manifest")]
    MediaType {
        /// Who answered.
        host: String,
        /// What it answered with.
        #[source]
        source: MediaTypeError,
    },
    /// Header and document disagree on what the document is.
    #[error("`{host}` announces `{header}`, but the document says it is `{document}`")]
    Contradiction {
        /// Who answered.
        host: String,
        /// `Content-Type`.
        header: String,
        /// `mediaType`.
        document: String,
    },
    /// An index and a manifest in one, so that its meaning would depend on the reader (CVE-2021-41190); or neither.
    #[error(
        "the document from `{host}` is no clear `{media_type}`: it has the fields of both a manifest and an index, or of neither"
    )]
    Ambiguous {
        /// Who answered.
        host: String,
        /// What it claims to be.
        media_type: MediaType,
    },
    /// Not JSON, or not of a manifest's shape.
    #[error("the manifest {digest} from `{host}` cannot be read")]
    Malformed {
        /// Who answered.
        host: String,
        /// Of the bytes received.
        digest: Digest,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Asked for by digest, and it is something else.
    #[error("`{host}` was asked for {expected} and gave {got}")]
    WrongDigest {
        /// Who answered.
        host: String,
        /// Asked for.
        expected: Digest,
        /// Of the bytes received.
        got: Digest,
    },
    /// Asked for by tag, and header and bytes disagree.
    #[error("`{host}` announces `{header}` and gave {got}")]
    HeaderDisagrees {
        /// Who answered.
        host: String,
        /// `Docker-Content-Digest`.
        header: String,
        /// Of the bytes received.
        got: Digest,
    },
}

/// Who is asked for a manifest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Whom {
    MirrorsToo,
    Registry,
}

impl Client {
    /// Fetches what a reference stands for: by its digest if it has one, else by its tag.
    ///
    /// # Errors
    /// [`ManifestError`]; every byte is checked against the digest asked for, or against the one the registry announces.
    pub fn manifest(&self, reference: &Reference) -> Result<Fetched, ManifestError> {
        loop {
            let mut mirror = None;
            match self.ask_for_manifest(reference, Whom::MirrorsToo, &mut mirror) {
                // A mirror that gives something else is no reason to give up.
                Err(error)
                    if !matches!(error, ManifestError::Request(_))
                        && self.distrust(mirror.as_deref(), &error.to_string()) => {}
                asked => return asked,
            }
        }
    }

    /// The same from the registry itself: what a mirror has may be older.
    pub(crate) fn newest_manifest(&self, reference: &Reference) -> Result<Fetched, ManifestError> {
        self.ask_for_manifest(reference, Whom::Registry, &mut None)
    }

    fn ask_for_manifest(
        &self,
        reference: &Reference,
        whom: Whom,
        mirror: &mut Option<String>,
    ) -> Result<Fetched, ManifestError> {
        let wanted = reference.digest();
        let (path, what) = match (wanted, reference.tag()) {
            (Some(digest), _) => (format!("manifests/{digest}"), format!("manifest {digest}")),
            (None, tag) => {
                let tag = tag.unwrap_or("latest");
                (format!("manifests/{tag}"), format!("tag `{tag}`"))
            }
        };
        let accept = ManifestKind::ACCEPTED.join(", ");
        let question = Question::get(path, what, &accept);
        let read = |answer| {
            let Answer { origin, headers, body, .. } = answer;
            *mirror = answer.mirror;
            Ok((origin.to_string(), headers, body.read_all("manifest", self.limits().manifest_bytes)?))
        };
        let (host, headers, bytes) = match whom {
            Whom::MirrorsToo => self.ask(reference, &question, read)?,
            Whom::Registry => self.ask_registry(reference, &question, read)?,
        };
        let text =
            |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let digest = match wanted {
            Some(expected) => check_digest(&host, expected, &bytes)?,
            None => check_announced(&host, text(DIGEST_HEADER), &bytes)?,
        };
        let (kind, media_type) = classify(&host, text(CONTENT_TYPE.as_str()), &digest, &bytes)?;
        Ok(Fetched { bytes, media_type, kind, digest })
    }
}

fn check_digest(host: &str, expected: &Digest, bytes: &[u8]) -> Result<Digest, ManifestError> {
    let mut hasher = Hasher::new(expected.algorithm());
    hasher.update(bytes);
    let got = hasher.finish();
    if got == *expected {
        return Ok(got);
    }
    Err(ManifestError::WrongDigest { host: host.to_owned(), expected: expected.clone(), got })
}

/// The announced digest may be of another algorithm than ours; the manifest's name here is always sha256.
fn check_announced(host: &str, header: Option<String>, bytes: &[u8]) -> Result<Digest, ManifestError> {
    let got = Digest::of(bytes);
    let Some(header) = header else { return Ok(got) };
    let agrees =
        header.trim().parse::<Digest>().is_ok_and(|announced| check_digest(host, &announced, bytes).is_ok());
    if agrees { Ok(got) } else { Err(ManifestError::HeaderDisagrees { host: host.to_owned(), header, got }) }
}

/// What the document is: by its `Content-Type`, by its `mediaType` if there is no header, and never against its own fields.
fn classify(
    host: &str,
    header: Option<String>,
    digest: &Digest,
    bytes: &[u8],
) -> Result<(ManifestKind, MediaType), ManifestError> {
    let not_a_manifest = |source| ManifestError::MediaType { host: host.to_owned(), source };
    let header = header.map(|value| value.split(';').next().unwrap_or_default().trim().to_owned());
    // A web page is reported as one, not as broken JSON.
    header.as_deref().map(ManifestKind::of).transpose().map_err(not_a_manifest)?;
    let shape: ManifestShape = serde_json::from_slice(bytes).map_err(|source| ManifestError::Malformed {
        host: host.to_owned(),
        digest: digest.clone(),
        source,
    })?;
    if let (Some(header), Some(document)) = (&header, &shape.media_type)
        && header != document
    {
        let (header, document) = (header.clone(), document.clone());
        return Err(ManifestError::Contradiction { host: host.to_owned(), header, document });
    }
    let name = header.or(shape.media_type).unwrap_or_default();
    let kind = ManifestKind::of(&name).map_err(not_a_manifest)?;
    let media_type = MediaType::from(name.as_str());
    let (is_index, is_manifest) =
        (shape.manifests.is_some(), shape.config.is_some() || shape.layers.is_some());
    if (is_index, is_manifest) == (kind == ManifestKind::Index, kind == ManifestKind::Manifest) {
        return Ok((kind, media_type));
    }
    Err(ManifestError::Ambiguous { host: host.to_owned(), media_type })
}
