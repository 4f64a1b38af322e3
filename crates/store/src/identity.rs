//! What makes this store and its users distinguishable: the salt, and the names of leases.

use std::collections::BTreeSet;
use std::path::Path;

use sys::lock::LockMode;

use crate::layout::SALT_FILE;
use crate::object::random_name;
use crate::{Error, Lease, Store, files, lease};

impl Store {
    /// 32 random bytes that belong to this store and never leave it: digests keyed with them tell nothing to whoever has only those.
    ///
    /// # Errors
    /// What the file system says.
    pub fn salt(&self) -> Result<[u8; 32], Error> {
        let path = self.root().join(SALT_FILE);
        if let Some(salt) = read_salt(&path)? {
            return Ok(salt);
        }
        // One process makes it; the others find it when they get the lock.
        let _lock = self.lock(SALT_FILE, LockMode::Exclusive)?;
        if let Some(salt) = read_salt(&path)? {
            return Ok(salt);
        }
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(Error::Random)?;
        let temporary = self.root().join(format!("{SALT_FILE}.{}", random_name()?));
        files::replace_synced(&path, &temporary, &salt)?;
        files::sync_dir(self.root())?;
        Ok(salt)
    }

    /// The names of all leases whose process lives, by [`Lease::name`].
    ///
    /// # Errors
    /// What the file system says.
    pub fn live_leases(&self) -> Result<BTreeSet<String>, Error> {
        let mut live = BTreeSet::new();
        for name in files::names(&self.layout().dir("leases"))? {
            if lease::lock_if_dead(&self.layout().lease(&name))?.is_none() {
                live.extend(name.to_str().map(ToOwned::to_owned));
            }
        }
        Ok(live)
    }
}

/// A salt of another length is damaged; a new one costs cache misses, nothing else.
fn read_salt(path: &Path) -> Result<Option<[u8; 32]>, Error> {
    let bytes = files::read_if_exists(path)?;
    Ok(bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()))
}

impl Lease {
    /// The lease's name: random hex digits, unlike those of all others. What a process makes elsewhere on the machine in the name of its lease can
    /// be recognised as left behind when the lease is dead.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path().file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_salt_is_made_once_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let salt = store.salt().unwrap();
        assert_eq!(Store::open(dir.path()).unwrap().salt().unwrap(), salt);
        std::fs::write(dir.path().join(SALT_FILE), "torn").unwrap();
        assert_ne!(store.salt().unwrap(), salt);
    }

    #[test]
    fn only_leases_of_the_living_are_live() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (one, other) = (store.lease().unwrap(), store.lease().unwrap());
        let name = other.name().to_owned();
        assert_eq!(store.live_leases().unwrap().len(), 2);
        drop(other);
        assert!(!store.live_leases().unwrap().contains(&name));
        assert!(store.live_leases().unwrap().contains(one.name()));
    }
}
