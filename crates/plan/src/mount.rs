//! `RUN --mount`: typed, with every default filled in.

use std::path::PathBuf;

use crate::{ImagePath, Source};

/// One `--mount` of a RUN. None of them leaves a trace in the layer.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Mount {
    /// Files of a context, a stage or an image.
    Bind(BindMount),
    /// A directory that outlives the build.
    Cache(CacheMount),
    /// A directory in memory.
    Tmpfs(TmpfsMount),
    /// A file or variable that never reaches a layer, a key or a record.
    Secret(SecretMount),
    /// A socket that leads to an ssh agent of the person who builds.
    Ssh(SshMount),
    /// A directory or file of the machine, which the person who builds shows to every RUN.
    Host(HostMount),
}

/// `build --volume`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct HostMount {
    /// Where it appears.
    pub target: ImagePath,
    /// Of the machine.
    pub source: PathBuf,
    /// Whether the RUN may write to it, and what it writes stays.
    pub access: Access,
}

/// `type=bind`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct BindMount {
    /// Where it appears.
    pub target: ImagePath,
    /// Whose files.
    pub from: Source,
    /// Which of them; must exist.
    pub path: ImagePath,
    /// With [`Access::ReadWrite`], writes are dropped afterwards.
    pub access: Access,
}

/// `type=cache`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct CacheMount {
    /// Where it appears.
    pub target: ImagePath,
    /// Which cache.
    pub id: CacheId,
    /// What a new cache begins with; `None` is an empty directory.
    pub from: Option<Source>,
    /// The part of the cache that is mounted; usually `/`.
    pub path: ImagePath,
    /// What several RUNs do that want it at once.
    pub sharing: Sharing,
    /// Mode of the directory of a new cache.
    pub mode: u32,
    /// Owner of the directory of a new cache.
    pub uid: u32,
    /// Group of the directory of a new cache.
    pub gid: u32,
    /// Whether the RUN may write.
    pub access: Access,
}

/// Names a cache: the `id` key or else the target as written, cleaned, below `BUILDKIT_CACHE_MOUNT_NS` if that is set.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CacheId(pub(crate) String);

impl CacheId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `type=tmpfs`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct TmpfsMount {
    /// Where it appears.
    pub target: ImagePath,
    /// Limit in bytes.
    pub size_bytes: Option<u64>,
    /// Whether the RUN may write.
    pub access: Access,
}

/// `type=secret`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SecretMount {
    /// Which secret of the request.
    pub id: String,
    /// The file, if one was asked for or no variable was.
    pub target: Option<ImagePath>,
    /// The variable, if one was asked for.
    pub env: Option<String>,
    /// Mode of the file.
    pub mode: u32,
    /// Owner of the file.
    pub uid: u32,
    /// Group of the file.
    pub gid: u32,
    /// What happens if the request has no such secret.
    pub presence: Presence,
}

/// `type=ssh`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SshMount {
    /// Which agent of the request.
    pub id: String,
    /// The socket.
    pub target: ImagePath,
    /// Mode of the socket.
    pub mode: u32,
    /// Owner of the socket.
    pub uid: u32,
    /// Group of the socket.
    pub gid: u32,
    /// What happens if the request has no such agent.
    pub presence: Presence,
}

/// Whether a mount may be written to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Access {
    /// `ro`.
    ReadOnly,
    /// `rw`.
    ReadWrite,
}

/// What several RUNs do that want one cache at once.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Sharing {
    /// All use it at once.
    Shared,
    /// Each further one gets a cache of its own.
    Private,
    /// Each waits for the one before.
    Locked,
}

/// What a missing secret or agent means.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Presence {
    /// The file, variable or socket is absent.
    Optional,
    /// The step fails.
    Required,
}

impl Mount {
    /// Whose files it shows, if it shows any.
    #[must_use]
    pub fn source(&self) -> Option<&Source> {
        match self {
            Self::Bind(bind) => Some(&bind.from),
            Self::Cache(cache) => cache.from.as_ref(),
            Self::Tmpfs(_) | Self::Secret(_) | Self::Ssh(_) | Self::Host(_) => None,
        }
    }

    pub(crate) fn source_mut(&mut self) -> Option<&mut Source> {
        match self {
            Self::Bind(bind) => Some(&mut bind.from),
            Self::Cache(cache) => cache.from.as_mut(),
            Self::Tmpfs(_) | Self::Secret(_) | Self::Ssh(_) | Self::Host(_) => None,
        }
    }

    /// Where it appears, if it is a file or directory.
    #[must_use]
    pub fn target(&self) -> Option<&ImagePath> {
        match self {
            Self::Bind(bind) => Some(&bind.target),
            Self::Cache(cache) => Some(&cache.target),
            Self::Tmpfs(tmpfs) => Some(&tmpfs.target),
            Self::Secret(secret) => secret.target.as_ref(),
            Self::Ssh(ssh) => Some(&ssh.target),
            Self::Host(host) => Some(&host.target),
        }
    }
}
