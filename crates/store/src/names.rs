//! Directories whose names must be durable before anybody acts on them.
//!
//! A file that one process has renamed into `tags/` is seen by every other at once, and durable only when the directory is synced. A build
//! that finds its tag as it should be writes nothing and says that it is done; if the process that wrote the tag had been killed
//! between the two, a power cut would prove it wrong. So whoever changes names puts up a flag first, a file that holds this
//! boot's id in its name, and takes it down after the sync; whoever relies on a name and finds the flag syncs himself.

use std::path::PathBuf;

use oci::Algorithm;
use sys::lock::LockMode;

use crate::{Error, Store, files};

/// One such directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Names {
    Blobs(Algorithm),
    Images,
    Tags,
}

impl Names {
    fn lock(self) -> &'static str {
        match self {
            Self::Blobs(Algorithm::Sha256) => "blobs.sha256",
            Self::Blobs(Algorithm::Sha512) => "blobs.sha512",
            Self::Images => "images",
            Self::Tags => "tags",
        }
    }

    fn dir(self) -> &'static str {
        match self {
            Self::Blobs(Algorithm::Sha256) => "blobs/sha256",
            Self::Blobs(Algorithm::Sha512) => "blobs/sha512",
            Self::Images => "images",
            Self::Tags => "tags",
        }
    }
}

/// What the names of flags begin with.
pub(crate) const FLAG: &str = "unsynced.";

impl Store {
    /// Lets `change` add and remove names in a directory, one process at a time, and makes them durable.
    pub(crate) fn change_names<T>(
        &self,
        names: Names,
        change: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _lock = self.lock(names.lock(), LockMode::Exclusive)?;
        let flag = self.flag(names);
        files::touch(&flag)?;
        let changed = change()?;
        files::sync_dir(&self.layout().dir(names.dir()))?;
        files::remove_file(&flag)?;
        Ok(changed)
    }

    /// Makes sure that every name now in a directory is durable. Almost always that is one look for a flag.
    pub(crate) fn settle_names(&self, names: Names) -> Result<(), Error> {
        let flag = self.flag(names);
        if !files::exists(&flag)? {
            return Ok(());
        }
        let _lock = self.lock(names.lock(), LockMode::Exclusive)?;
        if files::exists(&flag)? {
            files::sync_dir(&self.layout().dir(names.dir()))?;
            files::remove_file(&flag)?;
        }
        Ok(())
    }

    fn flag(&self, names: Names) -> PathBuf {
        self.layout().lock(&format!("{FLAG}{}.{}", names.lock(), self.layout().boot()))
    }

    /// Flags of other runs of the kernel: what they spoke of has been settled by the power cut, one way or the other.
    pub(crate) fn old_flags(&self) -> Result<Vec<PathBuf>, Error> {
        let dir = self.layout().dir("locks");
        let own = format!(".{}", self.layout().boot());
        let is_old = |name: &str| name.starts_with(FLAG) && !name.ends_with(&own);
        let names = files::names(&dir)?;
        Ok(names.iter().filter(|name| name.to_str().is_some_and(is_old)).map(|name| dir.join(name)).collect())
    }
}
