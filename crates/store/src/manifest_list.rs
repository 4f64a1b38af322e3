//! Manifest lists between `manifest create` and `manifest push`: texts of somebody else's, by name.

use crate::{Error, Lease, Store, file_name, files};

/// Where they lie; made when the first one comes.
pub(crate) const LISTS: &str = "manifest-lists";

impl Store {
    /// The list of a name, as it was put.
    ///
    /// # Errors
    /// What the file system says.
    pub fn manifest_list(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        files::read_if_exists(&self.layout().dir(LISTS).join(file_name::encode(name)))
    }

    /// Removes the list of a name. Whether there was one.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove_manifest_list(&self, name: &str) -> Result<bool, Error> {
        files::remove_file(&self.layout().dir(LISTS).join(file_name::encode(name)))
    }
}

impl Lease {
    /// Keeps a list under a name, in place of the one before.
    ///
    /// # Errors
    /// What the file system says.
    pub fn put_manifest_list(&self, name: &str, text: &[u8]) -> Result<(), Error> {
        let directory = self.store().layout().dir(LISTS);
        files::create_dir(&directory)?;
        files::replace(&directory.join(file_name::encode(name)), &self.temporary("list")?, text)
    }
}
