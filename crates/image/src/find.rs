//! What a name means here: a tag, a digest, an image's id or the beginning of one.

use oci::{Config, Digest, ImageId, LayerId, Platform, Reference, ReferenceError};
use store::{Image, KnownManifest, Tag};

use crate::{Error, Layers};

/// An image of the store, pinned.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalImage {
    /// The digest of its config.
    pub id: ImageId,
    /// Its config, as stored.
    pub config: Config,
    /// Lowest first.
    pub layers: Vec<LayerId>,
    /// The manifests and indexes that are known to stand for it.
    pub manifests: Vec<KnownManifest>,
}

/// Why a name means no image here.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The store, or the image in it.
    #[error(transparent)]
    Image(Box<Error>),
    /// No tag and no id.
    #[error("there is no image `{name}`")]
    NotFound {
        /// As typed.
        name: String,
        /// The tag that is most like it, as a person would type it.
        similar: Option<String>,
    },
    /// The beginning of several ids.
    #[error("`{name}` is the beginning of several image ids: {}", list(candidates))]
    Ambiguous {
        /// As typed.
        name: String,
        /// In order.
        candidates: Vec<ImageId>,
    },
    /// Neither an id nor a name.
    #[error("`{name}` is no image name")]
    Malformed {
        /// As typed.
        name: String,
        /// Why.
        source: ReferenceError,
    },
}

impl From<Error> for FindError {
    fn from(error: Error) -> Self {
        Self::Image(Box::new(error))
    }
}

impl LocalImage {
    /// Looks an image up by its id and pins it; `None` if it is not here.
    ///
    /// # Errors
    /// [`Error::Config`], and those of the store.
    pub fn by_id(layers: &Layers<'_>, id: &ImageId) -> Result<Option<Self>, Error> {
        let Some(Image { id, layers: list, manifests }) = layers.lease().image(id)? else { return Ok(None) };
        let config = read_config(layers, &id)?;
        Ok(Some(Self { id, config, layers: list, manifests }))
    }
}

fn read_config(layers: &Layers<'_>, id: &ImageId) -> Result<Config, Error> {
    let missing = || store::Error::MissingBlob(id.digest().clone());
    let bytes = layers.lease().store().read_blob(id.digest())?.ok_or_else(missing)?;
    Config::from_json(&bytes).map_err(|source| Error::Config { image: id.clone(), source })
}

/// The image that a reference means here: by its tag, or by the digest of a manifest or index that is known for an image, or under which it was
/// named. Of several images of one index, the one that fits `platform` best.
///
/// A tag may mean an image of another platform; that is for the caller to see in its config.
///
/// # Errors
/// [`Error`].
pub fn local(
    layers: &Layers<'_>,
    reference: &Reference,
    platform: &Platform,
) -> Result<Option<LocalImage>, Error> {
    if let Some(digest) = reference.digest()
        && let Some(image) = best(with_manifest(layers, digest)?, platform)
    {
        return Ok(Some(image));
    }
    let tag = layers.lease().store().tag(reference)?;
    tag.map_or(Ok(None), |tag| of_tag(layers, &tag, platform))
}

/// Of the images that a tag names the one that fits a platform best, or else the first.
fn of_tag(layers: &Layers<'_>, tag: &Tag, platform: &Platform) -> Result<Option<LocalImage>, Error> {
    if tag.others.is_empty() {
        return LocalImage::by_id(layers, &tag.image);
    }
    let images = all_of_tag(layers, tag)?;
    let first = images.first().cloned();
    Ok(best(images, platform).or(first))
}

fn all_of_tag(layers: &Layers<'_>, tag: &Tag) -> Result<Vec<LocalImage>, Error> {
    let images: Result<Vec<_>, Error> = tag.images().map(|id| LocalImage::by_id(layers, id)).collect();
    Ok(images?.into_iter().flatten().collect())
}

fn best(images: Vec<LocalImage>, platform: &Platform) -> Option<LocalImage> {
    let fits = images.into_iter().filter_map(|image| Some((image.config.platform().fit(platform)?, image)));
    fits.min_by_key(|(fit, _)| *fit).map(|(_, image)| image)
}

/// The images for which a manifest or index is known.
fn with_manifest(layers: &Layers<'_>, digest: &Digest) -> Result<Vec<LocalImage>, Error> {
    let mut found = Vec::new();
    for id in layers.lease().store().image_ids()? {
        let image = layers.lease().store().image(&id)?;
        let is_known = |image: &Image| image.manifests.iter().any(|known| known.digest == *digest);
        if image.is_some_and(|image| is_known(&image)) {
            found.extend(LocalImage::by_id(layers, &id)?);
        }
    }
    Ok(found)
}

/// The image that a person means by `name`: a tag (completed as Docker does), `name@digest`, an image id, or the beginning of
/// one, with or without `sha256:`. Of a name for several platforms, the image for this machine's.
///
/// # Errors
/// [`FindError`].
pub fn find(layers: &Layers<'_>, name: &str) -> Result<LocalImage, FindError> {
    find_for(layers, name, &Platform::host())
}

/// As [`find`], of a name for several platforms the image that fits `platform` best.
///
/// # Errors
/// [`FindError`].
pub fn find_for(layers: &Layers<'_>, name: &str, platform: &Platform) -> Result<LocalImage, FindError> {
    let found = match resolve(layers, name)? {
        Meaning::Tag(tag) => of_tag(layers, &tag, platform)?,
        Meaning::Image(id) => LocalImage::by_id(layers, &id)?,
    };
    found.ok_or_else(|| FindError::NotFound { name: name.to_owned(), similar: None })
}

/// As [`find`], all images of a name for several platforms.
///
/// # Errors
/// [`FindError`].
pub fn find_all(layers: &Layers<'_>, name: &str) -> Result<Vec<LocalImage>, FindError> {
    let found = match resolve(layers, name)? {
        Meaning::Tag(tag) => all_of_tag(layers, &tag)?,
        Meaning::Image(id) => LocalImage::by_id(layers, &id)?.into_iter().collect(),
    };
    if found.is_empty() {
        return Err(FindError::NotFound { name: name.to_owned(), similar: None });
    }
    Ok(found)
}

/// What a name was taken for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Meaning {
    /// A tag.
    Tag(Tag),
    /// An image, however it was named.
    Image(ImageId),
}

/// A whole id goes before a tag, a tag before the beginning of an id.
pub(crate) fn resolve(layers: &Layers<'_>, name: &str) -> Result<Meaning, FindError> {
    let store = layers.lease().store();
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    let ids = ids_that_begin(store.image_ids().map_err(Error::from)?, hex);
    if let [id] = &ids[..]
        && id.digest().hex() == hex
    {
        return Ok(Meaning::Image(id.clone()));
    }
    let reference = Reference::parse(name);
    if let Ok(reference) = &reference {
        if let Some(tag) = store.tag(reference).map_err(Error::from)? {
            return Ok(Meaning::Tag(tag));
        }
        if reference.digest().is_some()
            && let Some(image) = local(layers, reference, &Platform::host())?
        {
            return Ok(Meaning::Image(image.id));
        }
    }
    match (&ids[..], reference) {
        ([id], _) => Ok(Meaning::Image(id.clone())),
        ([], Ok(_) | Err(ReferenceError::LooksLikeId(_))) => {
            let similar = similar_tag(&store.tags().map_err(Error::from)?, name);
            Err(FindError::NotFound { name: name.to_owned(), similar })
        }
        ([], Err(source)) => Err(FindError::Malformed { name: name.to_owned(), source }),
        _ => Err(FindError::Ambiguous { name: name.to_owned(), candidates: ids }),
    }
}

fn ids_that_begin(mut ids: Vec<ImageId>, hex: &str) -> Vec<ImageId> {
    let is_hex = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
    ids.retain(|id| is_hex && id.digest().hex().starts_with(hex));
    ids.sort();
    ids
}

/// The tag that a misspelt name probably meant.
fn similar_tag(tags: &[Tag], name: &str) -> Option<String> {
    let familiar = |tag: &Tag| {
        let full = tag.reference.familiar();
        full.strip_suffix(":latest").map_or(full.clone(), ToOwned::to_owned)
    };
    let names: Vec<String> = tags.iter().map(familiar).collect();
    suggest::nearest(name, names.iter().map(String::as_str)).map(ToOwned::to_owned)
}

fn list(ids: &[ImageId]) -> String {
    ids.iter().map(|id| id.digest().short()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(name: &str) -> Tag {
        let image = ImageId::new(Digest::of(name));
        Tag::new(Reference::parse(name).unwrap(), image)
    }

    #[test]
    fn a_misspelt_name_finds_the_tag_that_was_meant() {
        let tags = [tag("debian:12"), tag("app"), tag("localhost:5000/x:1")];
        let similar = |name: &str| similar_tag(&tags, name);
        assert_eq!(similar("debain:12").as_deref(), Some("debian:12"));
        assert_eq!(similar("apq").as_deref(), Some("app"));
        assert_eq!(similar("nginx"), None);
        assert_eq!(similar_tag(&[], "x"), None);
    }

    #[test]
    fn only_hexadecimal_text_begins_an_id() {
        let ids: Vec<ImageId> = ["a", "b", "c"].map(|text| ImageId::new(Digest::of(text))).to_vec();
        let first = ids[0].digest().hex();
        assert_eq!(ids_that_begin(ids.clone(), &first[..6]), [ids[0].clone()]);
        assert!(ids_that_begin(ids.clone(), "").is_empty());
        assert!(ids_that_begin(ids, "app").is_empty());
    }
}
