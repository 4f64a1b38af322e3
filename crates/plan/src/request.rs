//! What lowering needs beside the Dockerfile, and the look-up of images that is passed in.

use std::collections::BTreeSet;

use dockerfile::Span;
use oci::{Config, Digest, ImageId, Platform, Reference};

use crate::{ContextName, ExtraHost, HostMount, NetworkMode};

/// What the person who builds asked for. Given in full: nothing is read from the environment.
#[derive(Clone, Debug)]
pub struct Request {
    /// `--target`: a stage's name or index; `None` is the last stage.
    pub target: Option<String>,
    /// `--build-arg`, in order; of several with one name the last counts.
    pub build_args: Vec<BuildArg>,
    /// `--platform`; `None` builds for `build_platform`.
    pub platform: Option<Platform>,
    /// The platform of this machine.
    pub build_platform: Platform,
    /// `--build-context`, in order; of several with one name the last counts.
    pub named_contexts: Vec<NamedContext>,
    /// `--from`: the image of the first FROM, whatever that says.
    pub first_base: Option<Reference>,
    /// `--label`: set last, over the labels of the Dockerfile.
    pub labels: Vec<(String, String)>,
    /// Whether labels of base images count.
    pub base_labels: BaseLabels,
    /// `--env`: variables of the image that no step sees.
    pub env: Vec<(String, String)>,
    /// `--unsetenv`: variables that the image is to be without.
    pub unset_env: Vec<String>,
    /// `--unsetlabel`: labels that the image is to be without, those of `labels` included.
    pub unset_labels: Vec<String>,
    /// `--network`: for each RUN that names none.
    pub network: NetworkMode,
    /// `--volume`: for each RUN.
    pub volumes: Vec<HostMount>,
    /// `--add-host`.
    pub extra_hosts: Vec<ExtraHost>,
    /// `--allow`: what the Dockerfile may ask for besides what every one may.
    pub allowed: BTreeSet<Entitlement>,
}

impl Request {
    /// Nothing special is asked for.
    #[must_use]
    pub fn plain(build_platform: Platform) -> Self {
        Self {
            target: None,
            build_args: Vec::new(),
            platform: None,
            build_platform,
            named_contexts: Vec::new(),
            first_base: None,
            labels: Vec::new(),
            base_labels: BaseLabels::Inherited,
            env: Vec::new(),
            unset_env: Vec::new(),
            unset_labels: Vec::new(),
            network: NetworkMode::Default,
            volumes: Vec::new(),
            extra_hosts: Vec::new(),
            allowed: BTreeSet::new(),
        }
    }
}

/// What becomes of the labels of a base image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BaseLabels {
    /// They are the image's, too.
    Inherited,
    /// They are left behind.
    Dropped,
}

/// Something that a Dockerfile gets only if the person who builds says so.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Entitlement {
    /// `RUN --network=host`.
    NetworkHost,
    /// `RUN --security=insecure`.
    SecurityInsecure,
}

impl Entitlement {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::NetworkHost, Self::SecurityInsecure];

    /// As `--allow` has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetworkHost => "network.host",
            Self::SecurityInsecure => "security.insecure",
        }
    }
}

/// `--build-arg NAME[=VALUE]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BuildArg {
    /// Its name.
    pub name: String,
    /// Its value; `None` if none was given and the person's environment has none: then it is as if it were not there.
    pub value: Option<String>,
}

/// `--build-context NAME=…`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedContext {
    /// A stage's or image's name, perhaps with `::os/arch` behind it.
    pub name: String,
    /// What it stands for.
    pub kind: ContextKind,
}

/// What a named context is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ContextKind {
    /// A directory of this machine; which one is the caller's business.
    Directory,
    /// `docker-image://REFERENCE`.
    Image(Reference),
}

/// Finds what a Dockerfile names and does not hold. Called once for each reference and platform, and for each remote source, that the
/// target needs, in a stable order.
pub trait Images {
    /// The image a name means now, for a platform. `span` is where the Dockerfile names it.
    ///
    /// # Errors
    /// [`ImageError`], when it cannot be had.
    fn resolve(
        &mut self,
        reference: &Reference,
        platform: &Platform,
        span: Span,
    ) -> Result<BaseImage, ImageError>;

    /// What a remote source is now. Who finds images only, finds none.
    ///
    /// # Errors
    /// [`RemoteError`], when it cannot be had.
    fn fetch(&mut self, request: &RemoteRequest) -> Result<RemoteContent, RemoteError> {
        Err(RemoteError {
            cause: RemoteErrorCause::Refused,
            message: format!("`{}` cannot be fetched here", request.url()),
            notes: Vec::new(),
            help: None,
        })
    }

    /// When a source was last changed, in seconds since 1970; `None` for one that does not know, such as a directory.
    ///
    /// # Errors
    /// [`RemoteError`], when it cannot be had.
    fn time(&mut self, _source: &TimeSource) -> Result<Option<i64>, RemoteError> {
        Ok(None)
    }
}

/// What a time is taken of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TimeSource {
    /// A context: that of its commit, of its file, or of the youngest file of an archive.
    Context(ContextName),
    /// What an ADD would fetch.
    Remote(RemoteRequest),
}

/// A source of an ADD that lies elsewhere.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum RemoteRequest {
    /// A file over HTTP.
    File {
        /// As written, expanded.
        url: String,
        /// `--checksum`: a sha256 digest.
        checksum: Option<Digest>,
    },
    /// A git repository.
    Repository {
        /// As written, expanded.
        url: String,
        /// `--checksum`: a commit's id or the beginning of one, expanded.
        checksum: Option<String>,
        /// Whether `.git` stays, if the URL does not say.
        git_dir: GitDir,
    },
}

/// `--keep-git-dir`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum GitDir {
    /// It goes.
    Dropped,
    /// It stays.
    Kept,
}

impl RemoteRequest {
    /// Where it lies, as written.
    #[must_use]
    pub fn url(&self) -> &str {
        match self {
            Self::File { url, .. } | Self::Repository { url, .. } => url,
        }
    }

    /// Where it lies, as far as it may be shown and recorded: what a file's query says may be a secret, such as a signature.
    #[must_use]
    pub fn shown(&self) -> &str {
        match self {
            Self::File { url, .. } => url.split_once('?').map_or(url, |(place, _)| place),
            Self::Repository { url, .. } => url,
        }
    }
}

/// What a remote source turned out to be.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RemoteContent {
    /// Of the file's bytes; for a repository, of the commit's id with all that decides what its files are like.
    pub digest: Digest,
    /// The file's name; `None` for a whole directory.
    pub file_name: Option<String>,
}

/// Why a remote source cannot be had.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct RemoteError {
    /// Which kind of trouble: decides the program's exit code.
    pub cause: RemoteErrorCause,
    /// What happened, in one line.
    pub message: String,
    /// The errors below, outermost first.
    pub notes: Vec<String>,
    /// The way out.
    pub help: Option<String>,
}

/// Which kind of trouble kept a remote source away.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RemoteErrorCause {
    /// The URL is none that is fetched.
    Refused,
    /// It has other content than `--checksum` says.
    Checksum,
    /// The network or the server failed.
    Network,
    /// The machine or the store failed.
    Machine,
    /// The build was cancelled.
    Cancelled,
}

/// What a look-up found.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseImage {
    /// The image's id.
    pub image: ImageId,
    /// Its whole config document.
    pub config: Config,
}

/// Why an image cannot be had.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ImageError {
    /// Which kind of trouble: decides the program's exit code.
    pub cause: ImageErrorCause,
    /// What happened, in one line.
    pub message: String,
    /// What was tried, and the errors below, outermost first.
    pub notes: Vec<String>,
    /// The way out.
    pub help: Option<String>,
}

/// Which kind of trouble kept an image away.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ImageErrorCause {
    /// Nobody has an image of that name.
    NotFound,
    /// There is one, but not for the platform.
    NoSuchPlatform,
    /// The network or the registry failed.
    Registry,
    /// The local store failed.
    Store,
}
