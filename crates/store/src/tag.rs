//! Tags: one small file each, replaced in one synced step, so that a name means either what it meant or what it means now.
//!
//! The file holds the reference and the image id; its name is the escaped reference. A tag is written only for an image that is
//! there, and after it.

use std::path::Path;

use oci::{ImageId, Reference};

use crate::error::Damage;
use crate::names::Names;
use crate::{Error, Lease, Store, files};

/// A name and what it means.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Tag {
    /// The full reference.
    pub reference: Reference,
    /// The image it names.
    pub image: ImageId,
}

impl Store {
    /// What a reference means here; `None` if nothing.
    ///
    /// # Errors
    /// [`Error::Damaged`] if its file is not of the form the store writes.
    pub fn tag(&self, reference: &Reference) -> Result<Option<ImageId>, Error> {
        let path = self.layout().tag(reference);
        let Some(tag) = read(&path)? else { return Ok(None) };
        if tag.reference == *reference {
            return Ok(Some(tag.image));
        }
        Err(Error::Damaged { path, reason: Damage::WrongName })
    }

    /// All tags, in order of their references.
    ///
    /// # Errors
    /// As [`Store::tag`].
    pub fn tags(&self) -> Result<Vec<Tag>, Error> {
        let dir = self.layout().dir("tags");
        let mut tags = Vec::new();
        for name in files::names(&dir)? {
            tags.extend(read(&dir.join(name))?);
        }
        tags.sort_unstable();
        Ok(tags)
    }

    /// Removes a tag and says what it meant. The image stays until it is collected.
    ///
    /// # Errors
    /// As [`Store::tag`].
    pub fn remove_tag(&self, reference: &Reference) -> Result<Option<ImageId>, Error> {
        if self.tag(reference)?.is_none() {
            return Ok(None);
        }
        self.change_names(Names::Tags, || {
            let old = self.tag(reference)?;
            files::remove_file(&self.layout().tag(reference))?;
            Ok(old)
        })
    }
}

impl Lease {
    /// Makes `reference` mean `image` and returns what it meant. Durable when it returns; the same meaning again writes nothing.
    ///
    /// # Errors
    /// [`Error::MissingImage`] if there is no such image.
    pub fn set_tag(&self, reference: &Reference, image: &ImageId) -> Result<Option<ImageId>, Error> {
        let _gc = self.store().gc_shared()?;
        if !files::exists(&self.store().layout().image(image))? {
            return Err(Error::MissingImage(image.clone()));
        }
        self.store().settle_names(Names::Images)?;
        self.replace_tag(reference, image)
    }

    fn replace_tag(&self, reference: &Reference, image: &ImageId) -> Result<Option<ImageId>, Error> {
        // A look first: a build that changes nothing takes no lock that others wait for.
        if self.store().tag(reference)?.as_ref() == Some(image) {
            self.store().settle_names(Names::Tags)?;
            return Ok(Some(image.clone()));
        }
        self.store().change_names(Names::Tags, || {
            let old = self.store().tag(reference)?;
            let text = format!("{reference}\n{image}\n");
            let path = self.store().layout().tag(reference);
            files::replace_synced(&path, &self.temporary("tag")?, text.as_bytes())?;
            Ok(old)
        })
    }
}

/// Reads one tag file; `None` if it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<Tag>, Error> {
    let Some(bytes) = files::read_if_exists(path)? else { return Ok(None) };
    parse(&bytes).map(Some).ok_or_else(|| Error::malformed(path))
}

fn parse(bytes: &[u8]) -> Option<Tag> {
    let (reference, image) = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.split_once('\n')?;
    Some(Tag { reference: Reference::parse(reference).ok()?, image: image.parse().ok()? })
}
