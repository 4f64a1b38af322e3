//! Tags: one small file each, replaced in one synced step, so that a name means either what it meant or what it means now.
//!
//! The file holds the reference and the image's id, or one for each platform, a line each, and behind them what a registry has it under, if
//! it came from one: `pulled sha256:…`. Its name is the escaped reference. A tag is written only for images that are there, and after them.

use std::path::Path;

use oci::{Digest, ImageId, Reference};

use crate::error::Damage;
use crate::names::Names;
use crate::{Error, Lease, Store, files};

/// Stands before the digest that a registry has the name under.
const PULLED: &str = "pulled ";

/// A name and what it means.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Tag {
    /// The full reference.
    pub reference: Reference,
    /// The image it names: of several, the one to take where nobody says for which platform.
    pub image: ImageId,
    /// Those of other platforms, in order.
    pub others: Vec<ImageId>,
    /// Of the index or manifest that the name stood for when it was pulled; `None` for what did not come under this name.
    pub pulled: Option<Digest>,
}

impl Tag {
    /// A name for one image.
    #[must_use]
    pub fn new(reference: Reference, image: ImageId) -> Self {
        Self { reference, image, others: Vec::new(), pulled: None }
    }

    /// All images that it names.
    pub fn images(&self) -> impl Iterator<Item = &ImageId> {
        std::iter::once(&self.image).chain(&self.others)
    }

    /// Whether it names this image.
    #[must_use]
    pub fn has(&self, id: &ImageId) -> bool {
        self.images().any(|image| image == id)
    }

    fn to_text(&self) -> String {
        let ids: String = self.images().map(|id| format!("{id}\n")).collect();
        let pulled = self.pulled.iter().map(|digest| format!("{PULLED}{digest}\n")).collect::<String>();
        format!("{}\n{ids}{pulled}", self.reference)
    }
}

impl Store {
    /// What a reference means here; `None` if nothing.
    ///
    /// # Errors
    /// [`Error::Damaged`] if its file is not of the form the store writes.
    pub fn tag(&self, reference: &Reference) -> Result<Option<Tag>, Error> {
        let path = self.layout().tag(reference);
        let Some(tag) = read(&path)? else { return Ok(None) };
        if tag.reference == *reference {
            return Ok(Some(tag));
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
    pub fn remove_tag(&self, reference: &Reference) -> Result<Option<Tag>, Error> {
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
    /// Sets a tag and returns what it meant. Durable when it returns; the same meaning again writes nothing.
    ///
    /// # Errors
    /// [`Error::MissingImage`] if there is no such image.
    pub fn set_tag(&self, tag: &Tag) -> Result<Option<Tag>, Error> {
        let _gc = self.store().gc_shared()?;
        for image in tag.images() {
            if !files::exists(&self.store().layout().image(image))? {
                return Err(Error::MissingImage(image.clone()));
            }
        }
        self.store().settle_names(Names::Images)?;
        self.replace_tag(tag)
    }

    fn replace_tag(&self, tag: &Tag) -> Result<Option<Tag>, Error> {
        // A look first: a build that changes nothing takes no lock that others wait for.
        let old = self.store().tag(&tag.reference)?;
        if old.as_ref() == Some(tag) {
            self.store().settle_names(Names::Tags)?;
            return Ok(old);
        }
        self.store().change_names(Names::Tags, || {
            let old = self.store().tag(&tag.reference)?;
            let path = self.store().layout().tag(&tag.reference);
            files::replace_synced(&path, &self.temporary("tag")?, tag.to_text().as_bytes())?;
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
    let mut lines = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.split('\n');
    let (reference, image) = (Reference::parse(lines.next()?).ok()?, lines.next()?.parse().ok()?);
    let mut tag = Tag::new(reference, image);
    for line in lines {
        match line.strip_prefix(PULLED) {
            Some(digest) if tag.pulled.is_none() => tag.pulled = Some(digest.parse().ok()?),
            None if tag.pulled.is_none() => tag.others.push(line.parse().ok()?),
            _ => return None,
        }
    }
    Some(tag)
}
