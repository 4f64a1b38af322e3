//! Where everything lies below the store's root, and the format version.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use oci::{Digest, ImageId, LayerId, Reference};
use sys::durable::BootId;

use crate::manifest_list::LISTS;
use crate::object::random_name;
use crate::{Error, LogId, RecordKey, file_name, files};

/// What the format file of a store that this version reads and writes says.
const FORMAT: &str = "1";

/// The file that makes a directory a store. It is written last.
const FORMAT_FILE: &str = "format";

/// The file with the store's salt. Not there until somebody asks for it.
pub(crate) const SALT_FILE: &str = "salt";

/// Every directory of a store, parents first.
const DIRECTORIES: [&str; 16] = [
    "blobs",
    "blobs/sha256",
    "blobs/sha512",
    "layers",
    "images",
    "tags",
    "records",
    "cache-mounts",
    "sources",
    "logs",
    "contexts",
    "builds",
    "locks",
    "leases",
    "tmp",
    "damaged",
];

/// Paths of the store. Every one is the root joined with names made here, out of digests, random names and escaped text.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    boot: BootId,
}

impl Layout {
    /// Opens the store at `root`, making a new one of a missing or empty directory.
    pub(crate) fn open(root: &Path, boot: BootId) -> Result<Self, Error> {
        let format = root.join(FORMAT_FILE);
        match files::read_if_exists(&format)? {
            Some(found) => check_format(root, &found)?,
            None => initialise(root)?,
        }
        // Overlay mounts and started commands need it absolute; a link as root is followed once, here.
        let root = fs::canonicalize(root).map_err(Error::at("open", root))?;
        Ok(Self { root, boot })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn boot(&self) -> &BootId {
        &self.boot
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where a blob lies once it is synced.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join(format!("blobs/{}/{}", digest.algorithm().name(), digest.hex()))
    }

    /// The directory of the blobs that no sync has covered yet; of one run of the kernel, since they are worth nothing after it.
    pub(crate) fn unsynced_blobs(&self) -> PathBuf {
        self.root.join(format!("blobs/{UNSYNCED_BLOBS}{}", self.boot))
    }

    /// Where a blob lies before.
    pub(crate) fn unsynced_blob(&self, digest: &Digest) -> PathBuf {
        self.unsynced_blobs().join(format!("{}-{}", digest.algorithm().name(), digest.hex()))
    }

    pub(crate) fn layer(&self, id: &LayerId) -> PathBuf {
        self.root.join(format!("layers/{}", id.digest().hex()))
    }

    pub(crate) fn image(&self, id: &ImageId) -> PathBuf {
        self.root.join(format!("images/{}", id.digest().hex()))
    }

    pub(crate) fn tag(&self, reference: &Reference) -> PathBuf {
        self.root.join("tags").join(file_name::encode(&reference.to_string()))
    }

    /// Two levels, so that no directory gets so large that listing it is slow.
    pub(crate) fn record(&self, key: &RecordKey) -> PathBuf {
        let hex = key.digest().hex();
        self.root.join(format!("records/{}/{hex}", &hex[..2]))
    }

    pub(crate) fn cache_mount(&self, id: &str) -> PathBuf {
        self.root.join("cache-mounts").join(file_name::encode(id))
    }

    pub(crate) fn source(&self, name: &str) -> PathBuf {
        self.root.join("sources").join(file_name::encode(name))
    }

    pub(crate) fn log(&self, id: &LogId) -> PathBuf {
        self.root.join("logs").join(id.as_str())
    }

    pub(crate) fn context(&self, name: &str) -> PathBuf {
        self.root.join("contexts").join(file_name::encode(name))
    }

    pub(crate) fn build(&self, name: &str) -> PathBuf {
        self.root.join("builds").join(file_name::encode(name))
    }

    /// A file in `locks/`.
    pub(crate) fn lock(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(name)
    }

    pub(crate) fn step_lock(&self, key: &RecordKey) -> PathBuf {
        self.root.join(format!("locks/{STEP_LOCK}{}", key.digest().hex()))
    }

    pub(crate) fn lease(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join("leases").join(name)
    }

    /// What lies in the store and was not put there by it. Names the store made are digests, ids or escaped text; only where they have a
    /// form is a stray told from them.
    pub(crate) fn strays(&self) -> Result<Vec<PathBuf>, Error> {
        let is_digest = |name: &OsStr| digest_of_hex(name).is_some();
        let mut strays = self.others_in("", |name| is_ours(&name.to_string_lossy()))?;
        strays.extend(self.others_in("layers", is_digest)?);
        strays.extend(self.others_in("images", is_digest)?);
        strays.extend(self.others_in("blobs/sha256", is_digest)?);
        strays.extend(self.others_in("blobs/sha512", is_digest)?);
        strays.extend(self.others_in("logs", |name| name.to_str().is_some_and(is_log_id))?);
        strays.extend(self.others_in("blobs", |name| {
            let name = name.to_string_lossy();
            matches!(&*name, "sha256" | "sha512") || name.starts_with(UNSYNCED_BLOBS)
        })?);
        for shard in files::names(&self.dir("records"))? {
            strays.extend(self.others_in(Path::new("records").join(shard), is_digest)?);
        }
        Ok(strays)
    }

    fn others_in(
        &self,
        dir: impl AsRef<Path>,
        is_ours: impl Fn(&OsStr) -> bool,
    ) -> Result<Vec<PathBuf>, Error> {
        let dir = self.root.join(dir);
        let names = files::names(&dir)?;
        Ok(names.into_iter().filter(|name| !is_ours(name)).map(|name| dir.join(name)).collect())
    }

    pub(crate) fn area(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join("tmp").join(name)
    }
}

/// What the names of step locks begin with.
pub(crate) const STEP_LOCK: &str = "step-";

/// What the names of directories of unsynced blobs begin with; the boot id follows.
pub(crate) const UNSYNCED_BLOBS: &str = "unsynced-";

/// The digest whose hex digits a file is named by.
pub(crate) fn digest_of_hex(name: &OsStr) -> Option<Digest> {
    let hex = name.to_str()?;
    let algorithm = if hex.len() == 128 { "sha512" } else { "sha256" };
    format!("{algorithm}:{hex}").parse().ok()
}

/// The digest that the file of an unsynced blob is named by.
pub(crate) fn digest_of_unsynced(name: &OsStr) -> Option<Digest> {
    let (algorithm, hex) = name.to_str()?.split_once('-')?;
    format!("{algorithm}:{hex}").parse().ok()
}

fn is_log_id(name: &str) -> bool {
    name.parse::<LogId>().is_ok()
}

fn check_format(root: &Path, found: &[u8]) -> Result<(), Error> {
    let found = String::from_utf8_lossy(&found[..found.len().min(64)]).trim_end().to_owned();
    if found == FORMAT {
        return Ok(());
    }
    Err(Error::UnknownFormat { path: root.to_path_buf(), found, known: FORMAT })
}

/// Makes a store. Several processes may do so at once; the format file comes last, so one that dies half-way leaves a directory that
/// the next one completes.
fn initialise(root: &Path) -> Result<(), Error> {
    fs::create_dir_all(root).map_err(Error::at("create", root))?;
    if files::names(root)?.iter().any(|name| !is_ours(&name.to_string_lossy())) {
        return Err(Error::NotAStore { path: root.to_path_buf() });
    }
    fs::set_permissions(root, Permissions::from_mode(0o700)).map_err(Error::at("make private", root))?;
    for name in DIRECTORIES {
        files::create_dir(&root.join(name))?;
    }
    // Every process makes and removes many small files in its area. An ext4 without a journal walks over what was removed lately whenever it
    // makes a file in the same part of the disk, which made up a third of a build's time.
    if let Err(error) = sys::durable::spread_subdirectories(&root.join("tmp")) {
        tracing::debug!(%error, "areas stay together on the disk");
    }
    let temporary = root.join(format!("{FORMAT_FILE}.{}", random_name()?));
    let format = format!("{FORMAT}\n");
    files::replace_synced(&root.join(FORMAT_FILE), &temporary, format.as_bytes())?;
    files::sync_dir(root)
}

/// Whether a name may lie in the root of a store in the making. `lost+found` is where a store has a file system of its own.
fn is_ours(name: &str) -> bool {
    let is_file = [FORMAT_FILE, SALT_FILE].iter().any(|file| name.starts_with(file));
    is_file || DIRECTORIES.contains(&name) || name == LISTS || name == "lost+found"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn open(root: &Path) -> Result<Layout, Error> {
        Layout::open(root, BootId::current().unwrap())
    }

    #[test]
    fn a_missing_directory_becomes_a_private_store() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("var/store");
        open(&root).unwrap();
        for path in DIRECTORIES.map(|name| root.join(name)).iter().chain([&root]) {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700, "{}", path.display());
        }
        assert_eq!(fs::metadata(root.join("format")).unwrap().mode() & 0o777, 0o600);
        open(&root).unwrap();
    }

    #[test]
    fn a_store_of_another_format_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("format"), "2\n").unwrap();
        let error = open(dir.path()).unwrap_err();
        assert!(error.to_string().ends_with("has format `2`; this version reads and writes format `1`"));
        assert_eq!(files::names(dir.path()).unwrap(), ["format"]);
    }

    #[test]
    fn somebody_elses_directory_is_not_made_a_store() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        assert!(matches!(open(dir.path()), Err(Error::NotAStore { .. })));
        assert_eq!(files::names(dir.path()).unwrap(), ["thesis.tex"]);
    }

    #[test]
    fn a_store_whose_making_was_cut_short_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("blobs")).unwrap();
        fs::write(dir.path().join("format.1234"), "").unwrap();
        open(dir.path()).unwrap();
    }
}
