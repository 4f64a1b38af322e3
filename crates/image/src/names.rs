//! Giving images names and taking them away: `tag` and `rmi`.

use oci::{ImageId, Reference, ReferenceError};
use store::Tag;

use crate::find::{self, FindError, Meaning};
use crate::{Error, Layers};

/// Why a name could not be given or taken.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// The name that is there means nothing.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The store.
    #[error(transparent)]
    Image(Box<Error>),
    /// The new name is none.
    #[error("`{name}` cannot be the name of an image")]
    Malformed {
        /// As typed.
        name: String,
        /// Why.
        source: ReferenceError,
    },
    /// The new name has a digest, which only pulling can give.
    #[error("`{0}` has a digest, and names that one image for ever")]
    Pinned(Reference),
    /// An id was given, and the image has several names.
    #[error("image {image} has {} names: {}", names.len(), list(names))]
    SeveralNames {
        /// The image.
        image: ImageId,
        /// All of them.
        names: Vec<Reference>,
    },
}

impl From<Error> for NameError {
    fn from(error: Error) -> Self {
        Self::Image(Box::new(error))
    }
}

impl From<store::Error> for NameError {
    fn from(error: store::Error) -> Self {
        Error::from(error).into()
    }
}

fn list(names: &[Reference]) -> String {
    names.iter().map(Reference::familiar).collect::<Vec<_>>().join(", ")
}

/// What became of an image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Removed {
    /// A name was taken from it.
    Untagged(Reference),
    /// It is no longer listed. Its layers stay until they are collected.
    Deleted(ImageId),
}

/// Whether an image goes although it has several names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RemoveMode {
    /// It does not.
    Careful,
    /// It does, with all of them.
    Force,
}

/// Gives the image that `source` means (a tag, a digest, an id) the name `target`; gives what that meant before.
///
/// # Errors
/// [`NameError`].
pub fn tag(layers: &Layers<'_>, source: &str, target: &str) -> Result<Option<Tag>, NameError> {
    let malformed = |source| NameError::Malformed { name: target.to_owned(), source };
    let target = Reference::parse(target).map_err(malformed)?;
    if target.digest().is_some() {
        return Err(NameError::Pinned(target));
    }
    let tag = match find::resolve(layers, source)? {
        Meaning::Tag(tag) => Tag { reference: target, pulled: None, ..tag },
        Meaning::Image(image) => Tag::new(target, image),
    };
    Ok(layers.lease().set_tag(&tag)?)
}

/// Lets names mean images that are here, one for each platform; the first where nobody says for which.
///
/// # Errors
/// Those of the store.
pub fn name(layers: &Layers<'_>, images: &[ImageId], names: &[Reference]) -> Result<(), Error> {
    let [image, others @ ..] = images else { return Ok(()) };
    for reference in names {
        let (image, others) = (image.clone(), others.to_vec());
        layers.lease().set_tag(&Tag { reference: reference.clone(), image, others, pulled: None })?;
    }
    Ok(())
}

/// Takes away a name, and the image, too, if that was its last; by an id, the image with its only name.
///
/// # Errors
/// [`NameError`].
pub fn remove(layers: &Layers<'_>, name: &str, mode: RemoveMode) -> Result<Vec<Removed>, NameError> {
    let (images, doomed) = match find::resolve(layers, name)? {
        Meaning::Tag(tag) => (tag.images().cloned().collect(), vec![tag.reference]),
        Meaning::Image(image) => {
            let names = names_of(layers, &image)?;
            if names.len() > 1 && mode == RemoveMode::Careful {
                return Err(NameError::SeveralNames { image, names });
            }
            (vec![image], names)
        }
    };
    let store = layers.lease().store();
    let mut removed = Vec::new();
    for reference in doomed {
        if store.remove_tag(&reference)?.is_some() {
            removed.push(Removed::Untagged(reference));
        }
    }
    for image in images {
        if store.remove_image(&image)? {
            removed.push(Removed::Deleted(image));
        }
    }
    Ok(removed)
}

fn names_of(layers: &Layers<'_>, image: &ImageId) -> Result<Vec<Reference>, Error> {
    let tags = layers.lease().store().tags()?;
    Ok(tags.into_iter().filter(|tag| tag.has(image)).map(|tag| tag.reference).collect())
}
