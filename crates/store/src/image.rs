//! Images: which layers a config stands for here, and which manifests are known for it.
//!
//! One small JSON file per image, named by the config's digest; the config itself is a blob. The file exists only after everything it
//! names is durable, so whoever finds it can rely on all of it.

use oci::{Compression, Digest, ImageId, LayerId};
use serde::{Deserialize, Serialize};

use crate::{Error, Lease, Object, Store, files, layout};

/// An image in the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Image {
    /// The digest of its config.
    pub id: ImageId,
    /// Its layers, lowest first, as many as the config has diff ids.
    pub layers: Vec<LayerId>,
    /// Every manifest that is known to describe it, each for one compression of its layers.
    pub manifests: Vec<KnownManifest>,
}

/// A manifest of an image, with what it refers to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KnownManifest {
    /// The digest of its bytes, which are a blob.
    pub digest: Digest,
    /// How its layers are compressed; of mixed ones, the lowest layer's.
    pub compression: Compression,
    /// Its layers' blobs, lowest first. They may be absent: a manifest is kept for its digest, too.
    pub layers: Vec<Digest>,
}

impl Image {
    /// The config's digest.
    #[must_use]
    pub fn config(&self) -> &Digest {
        self.id.digest()
    }

    /// Everything that must stay as long as the image does.
    #[must_use]
    pub fn needs(&self) -> Vec<Object> {
        let manifests = self.manifests.iter().map(|manifest| Object::Blob(manifest.digest.clone()));
        let layers = self.layers.iter().cloned().map(Object::Layer);
        std::iter::once(Object::Blob(self.config().clone())).chain(manifests).chain(layers).collect()
    }

    /// The same image, also knowing the manifests of `other`.
    pub(crate) fn with_manifests_of(mut self, other: Self) -> Self {
        let is_new = |known: &KnownManifest| self.manifests.iter().all(|own| own.digest != known.digest);
        let more: Vec<_> = other.manifests.into_iter().filter(is_new).collect();
        self.manifests.extend(more);
        self
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let file = ImageFile {
            layers: self.layers.clone(),
            manifests: self.manifests.iter().map(ManifestEntry::from).collect(),
        };
        serde_json::to_vec(&file).expect("lists of digests always serialise")
    }

    fn from_json(id: &ImageId, bytes: &[u8]) -> Option<Self> {
        let file: ImageFile = serde_json::from_slice(bytes).ok()?;
        let manifests: Option<_> = file.manifests.into_iter().map(ManifestEntry::into_known).collect();
        Some(Self { id: id.clone(), layers: file.layers, manifests: manifests? })
    }
}

impl Store {
    /// Looks an image up; `None` if it is not there. To rely on it, pin it ([`Lease::image`]).
    ///
    /// # Errors
    /// [`Error::Damaged`] if its file is not of the form the store writes.
    pub fn image(&self, id: &ImageId) -> Result<Option<Image>, Error> {
        let path = self.layout().image(id);
        let Some(bytes) = files::read_if_exists(&path)? else { return Ok(None) };
        Image::from_json(id, &bytes).map(Some).ok_or_else(|| Error::malformed(path))
    }

    /// The ids of all images, tagged or not.
    ///
    /// # Errors
    /// What the file system says.
    pub fn image_ids(&self) -> Result<Vec<ImageId>, Error> {
        let names = files::names(&self.layout().dir("images"))?;
        Ok(names.iter().filter_map(|name| layout::digest_of_hex(name)).map(ImageId::new).collect())
    }

    /// Forgets an image that no tag names; `false` if there is none, or if a tag names it. Its layers and blobs stay until collected.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a tag cannot be read, or what the file system says.
    pub fn remove_image(&self, id: &ImageId) -> Result<bool, Error> {
        // A tag is set under the shared lock from the look at its image to the write: none can come between the two looks here.
        let _gc = self.gc_exclusive()?;
        if self.tags()?.iter().any(|tag| tag.has(id)) {
            return Ok(false);
        }
        files::remove_file(&self.layout().image(id))
    }
}

impl Lease {
    /// Looks an image up and pins it with all it needs.
    ///
    /// # Errors
    /// As [`Store::image`].
    pub fn image(&self, id: &ImageId) -> Result<Option<Image>, Error> {
        let gc = self.store().gc_shared()?;
        let Some(image) = self.store().image(id)? else { return Ok(None) };
        self.pin_under(&gc, &[Object::Image(id.clone())])?;
        Ok(Some(image))
    }
}

/// The JSON of an image file.
#[derive(Serialize, Deserialize)]
struct ImageFile {
    layers: Vec<LayerId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    manifests: Vec<ManifestEntry>,
}

#[derive(Serialize, Deserialize)]
struct ManifestEntry {
    digest: Digest,
    compression: String,
    layers: Vec<Digest>,
}

impl From<&KnownManifest> for ManifestEntry {
    fn from(known: &KnownManifest) -> Self {
        let KnownManifest { digest, compression, layers } = known.clone();
        Self { digest, compression: compression.to_string(), layers }
    }
}

impl ManifestEntry {
    fn into_known(self) -> Option<KnownManifest> {
        let compression = self.compression.parse().ok()?;
        Some(KnownManifest { digest: self.digest, compression, layers: self.layers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        let digest = Digest::of("x");
        Image {
            id: ImageId::new(digest.clone()),
            layers: vec![LayerId::new(digest.clone())],
            manifests: vec![KnownManifest {
                digest: digest.clone(),
                compression: Compression::Zstd,
                layers: vec![digest],
            }],
        }
    }

    #[test]
    fn images_survive_their_file_and_torn_files_are_noticed() {
        let (image, json) = (image(), image().to_json());
        assert_eq!(Image::from_json(&image.id, &json), Some(image.clone()));
        for end in 0..json.len() {
            assert_eq!(Image::from_json(&image.id, &json[..end]), None);
        }
    }

    #[test]
    fn manifests_are_joined_by_digest() {
        let mut other = image();
        other.manifests[0].digest = Digest::of("other");
        assert_eq!(image().with_manifests_of(image()).manifests.len(), 1);
        assert_eq!(image().with_manifests_of(other).manifests.len(), 2);
    }
}
