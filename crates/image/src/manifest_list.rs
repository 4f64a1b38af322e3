//! Manifest lists that are put together by hand: images that are in registries, under one name.

use std::io::Read as _;

use oci::{
    Config, Descriptor, Digest, ImageIndex, ImageManifest, ManifestKind, MediaType, Platform, Reference,
};
use registry::{BlobError, Client, Fetched};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::copy::{self, Copied, CopyError, CopyOptions, Documents, FromError};

/// The largest config that is read, in bytes.
const MOST_CONFIG_BYTES: u64 = 8 << 20;

/// A list before it is pushed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ManifestList {
    entries: Vec<Entry>,
}

/// One image of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// Where it is, with its digest.
    from: String,
    /// As whom it was added: what `annotate` goes by.
    named: String,
    /// As it will stand in the list; of an index, with all that this one says of it.
    descriptor: Value,
}

/// What is said of an image of a list.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Annotation {
    /// `linux`
    pub os: Option<String>,
    /// `arm64`
    pub architecture: Option<String>,
    /// `v8`
    pub variant: Option<String>,
    /// Windows: `10.0.14393.1066`.
    pub os_version: Option<String>,
    /// Windows: `win32k`.
    pub os_features: Vec<String>,
    /// Annotations of the entry.
    pub annotations: Vec<(String, String)>,
}

/// Why an image cannot be in a list.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// It cannot be had.
    #[error("cannot add `{reference}`")]
    From {
        /// Which.
        reference: Box<Reference>,
        /// Why.
        #[source]
        source: Box<FromError>,
    },
    /// Its config, which says for which platform it is.
    #[error("cannot read for which platform `{reference}` is")]
    Config {
        /// Which.
        reference: Box<Reference>,
        /// Why.
        #[source]
        source: Box<ConfigFailure>,
    },
}

/// Why a config says nothing.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFailure {
    /// It cannot be had.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// It breaks off, or is not what its digest says.
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    /// It is no config.
    #[error(transparent)]
    Config(#[from] oci::ConfigError),
}

/// Why nothing was said of an image of a list.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AnnotateError {
    /// Nothing goes by that name.
    #[error("`{0}` is not in the list")]
    NotThere(String),
    /// All that an index had were added by that name.
    #[error("several images in the list are of `{name}`: {}", digests.join(", "))]
    Several {
        /// The name.
        name: String,
        /// Theirs.
        digests: Vec<String>,
    },
}

/// Why a list could not be pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushListError {
    /// Something of it could not be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// Somebody changed the list by hand.
    #[error("the list says something that is no reference")]
    Reference(#[from] oci::ReferenceError),
    /// The list is empty.
    #[error("there is nothing in the list")]
    Empty,
}

impl ManifestList {
    /// Adds an image that is in a registry, or all that an index there has. One that is there already takes the place of itself.
    ///
    /// # Errors
    /// [`AddError`]; then nothing is added.
    pub fn add(&mut self, client: &Client, reference: &Reference) -> Result<(), AddError> {
        let failed = |source: FromError| AddError::From {
            reference: Box::new(reference.clone()),
            source: Box::new(source),
        };
        let fetched = client.manifest(reference).map_err(|error| failed(error.into()))?;
        let entries = match fetched.kind {
            ManifestKind::Manifest => vec![single(client, reference, &fetched)?],
            ManifestKind::Index => of_index(reference, &fetched).map_err(failed)?,
        };
        for entry in entries {
            self.entries.retain(|known| known.descriptor["digest"] != entry.descriptor["digest"]);
            self.entries.push(entry);
        }
        Ok(())
    }

    /// Says for what an image of the list is. It goes by the name that it was added by, or by its digest.
    ///
    /// # Errors
    /// [`AnnotateError`]; then nothing has changed.
    pub fn annotate(&mut self, reference: &Reference, annotation: &Annotation) -> Result<(), AnnotateError> {
        let is_meant = |entry: &Entry| match reference.digest() {
            Some(digest) => entry.descriptor["digest"] == digest.to_string(),
            None => entry.named == reference.to_string(),
        };
        let mut meant: Vec<&mut Entry> = self.entries.iter_mut().filter(|entry| is_meant(entry)).collect();
        match &mut meant[..] {
            [] => Err(AnnotateError::NotThere(reference.familiar())),
            [entry] => {
                annotation.apply(&mut entry.descriptor);
                Ok(())
            }
            several => {
                let digests =
                    several.iter().map(|entry| entry.descriptor["digest"].as_str().unwrap_or_default());
                Err(AnnotateError::Several {
                    name: reference.familiar(),
                    digests: digests.map(ToOwned::to_owned).collect(),
                })
            }
        }
    }

    /// The document that would be pushed.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let entries: Vec<&Value> = self.entries.iter().map(|entry| &entry.descriptor).collect();
        let document =
            json!({ "schemaVersion": 2, "mediaType": self.media_type().to_string(), "manifests": entries });
        serde_json::to_vec_pretty(&document).unwrap_or_default()
    }

    /// Docker's, if all images are Docker's; registries of a certain age take no mixture.
    fn media_type(&self) -> MediaType {
        let is_dockers = |entry: &Entry| {
            entry.descriptor["mediaType"].as_str().is_some_and(|media_type| media_type.contains(".docker."))
        };
        match !self.entries.is_empty() && self.entries.iter().all(is_dockers) {
            true => MediaType::from("application/vnd.docker.distribution.manifest.list.v2+json"),
            false => MediaType::ImageIndex,
        }
    }

    /// Pushes the list, and before it all that the repository does not have of its images.
    ///
    /// # Errors
    /// [`PushListError`]; then the name means what it meant before.
    pub fn push(
        &self,
        client: &Client,
        to: &Reference,
        options: CopyOptions<'_>,
    ) -> Result<Copied, PushListError> {
        if self.entries.is_empty() {
            return Err(PushListError::Empty);
        }
        let mut sent_bytes = 0;
        for entry in &self.entries {
            let from = Reference::parse(&entry.from)?;
            let digest = from.digest().cloned();
            let place = digest.map_or_else(|| to.clone(), |digest| to.at_digest(digest));
            sent_bytes += copy::copy(client, &from, &place, options)?.sent_bytes;
        }
        let bytes = self.to_json();
        let top = Fetched {
            digest: Digest::of(&bytes),
            bytes,
            media_type: self.media_type(),
            kind: ManifestKind::Index,
        };
        let documents = Documents { top, below: Vec::new(), blobs: Vec::new() };
        let copied = copy::put(client, to, to, &documents, options)?;
        Ok(Copied { sent_bytes, ..copied })
    }
}

impl Annotation {
    fn apply(&self, descriptor: &mut Value) {
        let platform = &mut descriptor["platform"];
        let texts = [
            ("os", &self.os),
            ("architecture", &self.architecture),
            ("variant", &self.variant),
            ("os.version", &self.os_version),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                platform[name] = json!(text);
            }
        }
        if !self.os_features.is_empty() {
            platform["os.features"] = json!(self.os_features);
        }
        for (name, value) in &self.annotations {
            descriptor["annotations"][name] = json!(value);
        }
    }
}

fn of_index(reference: &Reference, fetched: &Fetched) -> Result<Vec<Entry>, FromError> {
    let malformed = |source| FromError::Malformed { digest: fetched.digest.clone(), source };
    let index: ImageIndex = serde_json::from_slice(&fetched.bytes).map_err(malformed)?;
    let document: Value = serde_json::from_slice(&fetched.bytes).map_err(malformed)?;
    let entry = |(number, descriptor): (usize, &Descriptor)| {
        let from = reference.at_digest(Digest::try_from(descriptor.digest())?).to_string();
        let descriptor = document["manifests"][number].clone();
        Ok(Entry { from, named: reference.to_string(), descriptor })
    };
    index.manifests().iter().enumerate().map(entry).collect()
}

/// A manifest does not say for what it is; its config does.
fn single(client: &Client, reference: &Reference, fetched: &Fetched) -> Result<Entry, AddError> {
    let failed = |source: ConfigFailure| AddError::Config {
        reference: Box::new(reference.clone()),
        source: Box::new(source),
    };
    let malformed = |source| AddError::From {
        reference: Box::new(reference.clone()),
        source: Box::new(FromError::Malformed { digest: fetched.digest.clone(), source }),
    };
    let manifest: ImageManifest = serde_json::from_slice(&fetched.bytes).map_err(malformed)?;
    let reader = client.blob(reference, manifest.config()).map_err(|error| failed(error.into()))?;
    let mut bytes = Vec::new();
    reader
        .take(MOST_CONFIG_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(ConfigFailure::Read(error)))?;
    let platform = Config::from_json(&bytes).map_err(|error| failed(error.into()))?.platform();
    let descriptor = json!({
        "mediaType": fetched.media_type.to_string(),
        "digest": fetched.digest.to_string(),
        "size": fetched.bytes.len(),
        "platform": platform_of(&platform),
    });
    let from = reference.at_digest(fetched.digest.clone()).to_string();
    Ok(Entry { from, named: reference.to_string(), descriptor })
}

fn platform_of(platform: &Platform) -> Value {
    let mut document = json!({ "architecture": platform.architecture, "os": platform.os });
    if let Some(variant) = &platform.variant {
        document["variant"] = json!(variant);
    }
    document
}
