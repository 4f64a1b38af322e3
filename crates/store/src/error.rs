//! What can go wrong in the store, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use oci::{ContentDigest, Digest, ImageId, LayerId, VerifyError};

/// What the store's operations fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a file of the store.
    #[error("cannot {action} `{path}`")]
    Io {
        /// A verb.
        action: &'static str,
        /// The file it was about.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The disk or the quota is full.
    #[error("no space left to {action} `{path}`")]
    NoSpace {
        /// A verb.
        action: &'static str,
        /// The file it was about.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory holds something, and it is not a store.
    #[error("`{path}` is not empty and is not a store")]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// The store was written by another version of the program.
    #[error("the store `{path}` has format `{found}`; this version reads and writes format `{known}`")]
    UnknownFormat {
        /// The store's directory.
        path: PathBuf,
        /// What its format file says.
        found: String,
        /// The only one known here.
        known: &'static str,
    },
    /// Bytes that should have become a blob are not those that were announced.
    #[error("the bytes are not those of the blob")]
    Blob(#[from] VerifyError),
    /// A layer that something needs is not in the store.
    #[error("layer {0} is not in the store")]
    MissingLayer(LayerId),
    /// A blob that something needs is not in the store.
    #[error("blob {0} is not in the store")]
    MissingBlob(Digest),
    /// An image that something needs is not in the store.
    #[error("image {0} is not in the store")]
    MissingImage(ImageId),
    /// A log that something needs is not in the store.
    #[error("log {0} is not in the store")]
    MissingLog(crate::LogId),
    /// A layer was published under the id of another one.
    #[error("layer {id} has content {recorded} in the store and was to be published with content {given}")]
    LayerConflict {
        /// The id of both.
        id: LayerId,
        /// The content digest of the one in the store.
        recorded: ContentDigest,
        /// The content digest of the other.
        given: ContentDigest,
    },
    /// A draft was published before its entry list was written.
    #[error("the draft of layer {0} has no entry list")]
    NoEntries(LayerId),
    /// A file of the store does not hold what the store writes there.
    #[error("`{path}` is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: Damage,
    },
    /// No random bytes for a name.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
}

/// What is wrong with a file of the store.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Damage {
    /// Neither text nor JSON of the expected shape.
    #[error("it is not of the form the store writes")]
    Malformed,
    /// It names something else than its file name says.
    #[error("its name belongs to something else than its contents")]
    WrongName,
}

/// What a person can do about an [`Error`]; the words are the program's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Remedy {
    /// Free space on the disk: prune the store, or put it on a larger disk.
    FreeSpace,
    /// Choose another directory for the store.
    OtherRoot,
    /// Run as a user that may write the store.
    Permission,
    /// Make the file system writable.
    RemountWritable,
    /// Raise the limit of open files.
    RaiseFileLimit,
    /// Use the version of the program that wrote the store, or another directory.
    OtherVersion,
    /// Check and repair the store.
    Fsck,
}

impl Error {
    /// What a person can do about it, where the store knows.
    #[must_use]
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::NoSpace { .. } => Some(Remedy::FreeSpace),
            Self::NotAStore { .. } => Some(Remedy::OtherRoot),
            Self::UnknownFormat { .. } => Some(Remedy::OtherVersion),
            Self::Damaged { .. } | Self::LayerConflict { .. } => Some(Remedy::Fsck),
            Self::Io { source, .. } => remedy_of(source),
            _ => None,
        }
    }

    /// Says what was being done to `path` when the system call failed.
    pub(crate) fn at(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.as_ref().to_path_buf();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Self::NoSpace { action, path, source }
                }
                _ => Self::Io { action, path, source },
            }
        }
    }

    /// A file that is not as the store writes it.
    pub(crate) fn malformed(path: impl Into<PathBuf>) -> Self {
        Self::Damaged { path: path.into(), reason: Damage::Malformed }
    }
}

impl From<Error> for io::Error {
    /// For writers that must speak `io::Error`: the kind is that of the cause, the [`Error`] is inside.
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Io { source, .. } | Error::NoSpace { source, .. } => source.kind(),
            Error::Blob(_) => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

fn remedy_of(error: &io::Error) -> Option<Remedy> {
    /// errno of "too many open files", for this process and for the machine; the standard library has no kind for them.
    const TOO_MANY_FILES: [i32; 2] = [24, 23];
    match error.kind() {
        io::ErrorKind::PermissionDenied => Some(Remedy::Permission),
        io::ErrorKind::ReadOnlyFilesystem => Some(Remedy::RemountWritable),
        _ if error.raw_os_error().is_some_and(|e| TOO_MANY_FILES.contains(&e)) => {
            Some(Remedy::RaiseFileLimit)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_full_quota_say_where_and_how_to_go_on() {
        for errno in [28, 122] {
            let error = Error::at("write", "/s/blobs/x")(io::Error::from_raw_os_error(errno));
            assert_eq!(error.to_string(), "no space left to write `/s/blobs/x`");
            assert_eq!(error.remedy(), Some(Remedy::FreeSpace));
        }
        let error = Error::at("open", "/s/x")(io::Error::from_raw_os_error(24));
        assert_eq!(error.remedy(), Some(Remedy::RaiseFileLimit));
    }
}
