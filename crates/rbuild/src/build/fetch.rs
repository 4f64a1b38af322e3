//! Sources from elsewhere, for one build: the programs and clients, the credentials among the build's secrets, and where it is all kept.

mod file;
mod repository;

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use oci::Digest;
use plan::{Remote, RemoteContent, RemoteError, RemoteErrorCause, RemoteRequest};
use solver::Secret;
use source::git::Commit;
use source::http::Client;
use source::{Access, Authorization};
use store::SourceDir;
use web::RootsError;

use crate::build::agents::Agents;
use crate::build::errors;
use crate::build::lock::Pins;
use crate::environment::Environment;
use crate::session::Session;

/// The agent that ADD uses, as a mount without an id does.
const DEFAULT_AGENT: &str = "default";

/// Whose keys fetch by ssh.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Keys {
    /// Those of the agent that the Dockerfile was given with `--ssh default`, if it was.
    OfAgent(Option<PathBuf>),
    /// The user's, who named the source himself.
    OfUser,
}

/// Fetches for one build. Threads share it.
pub(crate) struct Fetcher<'f> {
    session: &'f Session,
    secrets: &'f BTreeMap<String, Secret>,
    access: Access,
    /// What names are to mean.
    pins: &'f Pins,
    environment: &'f Environment,
    keys: Keys,
    /// Made when the first source asks for it: certificates take a while to read.
    client: OnceLock<Result<Client, RootsError>>,
    /// The commits that repositories were found at, by what the plan knows them as.
    commits: Mutex<HashMap<Digest, Commit>>,
}

impl<'f> Fetcher<'f> {
    pub(crate) fn new(
        session: &'f Session,
        secrets: &'f BTreeMap<String, Secret>,
        access: Access,
        environment: &'f Environment,
        agents: &Agents,
        pins: &'f Pins,
    ) -> Self {
        let keys = Keys::OfAgent(agents.sockets.get(DEFAULT_AGENT).cloned());
        let (client, commits) = (OnceLock::new(), Mutex::default());
        Self { session, secrets, access, pins, environment, keys, client, commits }
    }

    /// One for what the command line names.
    pub(crate) fn of_user(&self) -> Self {
        let Self { session, secrets, access, pins, environment, .. } = *self;
        let (keys, client, commits) = (Keys::OfUser, OnceLock::new(), Mutex::default());
        Self { session, secrets, access, pins, environment, keys, client, commits }
    }

    /// What a source is now.
    pub(crate) fn resolve(&self, request: &RemoteRequest) -> Result<RemoteContent, RemoteError> {
        match request {
            RemoteRequest::File { url, checksum } => {
                self.resolve_file(url, request.shown(), checksum.as_ref())
            }
            RemoteRequest::Repository { url, checksum, git_dir } => {
                self.resolve_repository(url, checksum.as_deref(), *git_dir)
            }
        }
    }

    /// When a source was last changed, in seconds since 1970: a repository's commit was made, and a file was modified, or the youngest file in
    /// an archive.
    pub(crate) fn time(&self, request: &RemoteRequest) -> Result<Option<i64>, RemoteError> {
        match request {
            RemoteRequest::File { url, checksum } => {
                self.time_of_file(url, request.shown(), checksum.as_ref())
            }
            RemoteRequest::Repository { url, checksum, git_dir } => {
                self.time_of_repository(url, checksum.as_deref(), *git_dir).map(Some)
            }
        }
    }

    /// Writes a source into an empty directory; gives the directory in it that is meant.
    pub(crate) fn write(
        &self,
        remote: &Remote,
        into: &Path,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<PathBuf, RemoteError> {
        let content = &remote.content;
        match &remote.request {
            RemoteRequest::File { url, .. } => self.write_file(url, content, into, is_cancelled),
            RemoteRequest::Repository { url, checksum, git_dir } => {
                self.write_repository(url, checksum.as_deref(), *git_dir, content, into, is_cancelled)
            }
        }
    }

    /// An empty directory of this build's.
    pub(crate) fn scratch(&self) -> Result<PathBuf, RemoteError> {
        self.session.lease.scratch_dir().map_err(|error| machine(&error))
    }

    /// Where things from a place are kept, held as long as the result lives.
    fn hold(&self, name: &str, is_cancelled: &dyn Fn() -> bool) -> Result<SourceDir, RemoteError> {
        let held = self.session.lease.source_dir(name, is_cancelled).map_err(|error| machine(&error))?;
        held.ok_or_else(cancelled)
    }

    /// The first secret of these names.
    fn authorization(&self, names: &[(String, Reading)]) -> Result<Option<Authorization>, RemoteError> {
        let found = names.iter().find_map(|(id, read)| Some((id, read, self.secrets.get(id)?)));
        let Some((id, read, secret)) = found else { return Ok(None) };
        let title = || format!("the secret `{id}` is nothing that can be sent in a header");
        match read(&secret.value) {
            Some(authorization) => Ok(Some(authorization)),
            None => Err(refused(title(), "a header is one line of text")),
        }
    }
}

/// What makes a header of a secret.
type Reading = fn(&[u8]) -> Option<Authorization>;

fn refused(message: String, help: &str) -> RemoteError {
    let help = Some(help.to_owned());
    RemoteError { cause: RemoteErrorCause::Refused, message, notes: Vec::new(), help }
}

/// What nobody may be asked for.
fn not_kept(message: String) -> RemoteError {
    let mut error = refused(message, "build once without `--offline`, which fetches it");
    error.notes.push("`--offline` takes only what is in the store".to_owned());
    error
}

fn cancelled() -> RemoteError {
    let message = "cancelled".to_owned();
    RemoteError { cause: RemoteErrorCause::Cancelled, message, notes: Vec::new(), help: None }
}

fn machine(error: &(dyn Error + 'static)) -> RemoteError {
    let help = errors::is_disk_full(error).then(|| {
        "`rbuild prune` frees what no image needs; `rbuild du` shows what takes the space".to_owned()
    });
    RemoteError { cause: RemoteErrorCause::Machine, message: error.to_string(), notes: causes(error), help }
}

fn told(cause: RemoteErrorCause, error: &dyn Error, help: Option<&str>) -> RemoteError {
    let help = help.map(ToOwned::to_owned);
    RemoteError { cause, message: error.to_string(), notes: causes(error), help }
}

fn causes(error: &dyn Error) -> Vec<String> {
    std::iter::successors(error.source(), |error| (*error).source()).map(ToString::to_string).collect()
}
