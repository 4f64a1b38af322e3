//! Git repositories.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use oci::Digest;
use plan::{GitDir, RemoteContent, RemoteError, RemoteErrorCause};
use source::Authorization;
use source::git::{Commit, Errand, GitError, Program, Repository, RepositoryError, Ssh};

use super::{Fetcher, Keys, Reading, cancelled, machine, not_kept, refused, told};
use crate::network;

impl Fetcher<'_> {
    pub(super) fn resolve_repository(
        &self,
        url: &str,
        checksum: Option<&str>,
        git_dir: GitDir,
    ) -> Result<RemoteContent, RemoteError> {
        let repository = self.pinned(url, checksum, git_dir)?;
        let is_cancelled = || self.session.cancel.is_cancelled();
        let commit = self.running(&repository, &is_cancelled, |errand| errand.resolve())?;
        self.pins.found_commit(url, &commit);
        // The name of a branch is not part of it: only what it stands for decides.
        let digest = Digest::of(format!("git {commit} {}", repository.options()));
        self.commits().insert(digest.clone(), commit);
        Ok(RemoteContent { digest, file_name: None })
    }

    pub(super) fn time_of_repository(
        &self,
        url: &str,
        checksum: Option<&str>,
        git_dir: GitDir,
    ) -> Result<i64, RemoteError> {
        let repository = self.pinned(url, checksum, git_dir)?;
        let is_cancelled = || self.session.cancel.is_cancelled();
        let (commit, time) = self.running(&repository, &is_cancelled, |errand| {
            let commit = errand.resolve()?;
            errand.time(&commit).map(|time| (commit, time))
        })?;
        self.pins.found_commit(url, &commit);
        Ok(time)
    }

    pub(super) fn write_repository(
        &self,
        url: &str,
        checksum: Option<&str>,
        git_dir: GitDir,
        content: &RemoteContent,
        into: &Path,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<PathBuf, RemoteError> {
        let repository = parse(url, checksum, git_dir)?;
        let commit = self.commits().get(&content.digest).cloned();
        let commit = commit.expect("a repository is in the plan because its commit was found");
        self.running(&repository, is_cancelled, |errand| errand.write(&commit, into))
    }

    /// What a URL means, or the commit that is written down for it.
    fn pinned(&self, url: &str, checksum: Option<&str>, git_dir: GitDir) -> Result<Repository, RemoteError> {
        let repository = parse(url, checksum, git_dir)?;
        Ok(match self.pins.commit(url)? {
            Some(commit) => repository.at_commit(commit),
            None => repository,
        })
    }

    fn commits(&self) -> MutexGuard<'_, HashMap<Digest, Commit>> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has git do something with what is kept of a repository, which is held meanwhile.
    fn running<T>(
        &self,
        repository: &Repository,
        is_cancelled: &dyn Fn() -> bool,
        what: impl FnOnce(&Errand<'_>) -> Result<T, GitError>,
    ) -> Result<T, RemoteError> {
        let ssh = if repository.is_by_ssh() { Some(self.ssh(repository)?) } else { None };
        let program = Program::find(&self.environment.program_directories()).ok_or_else(no_program)?;
        let certificates = network::named_roots(self.environment);
        let proxies = network::proxies(self.environment).map_err(|error| machine(&error))?.variables();
        let program = Program { certificates, proxies, ssh, ..program };
        let held = self.hold(repository.remote(), is_cancelled)?;
        // Named as the reference builder has it.
        let host = repository.host();
        let names: [(String, Reading); 4] = [
            (format!("GIT_AUTH_HEADER.{host}"), Authorization::header),
            (format!("GIT_AUTH_TOKEN.{host}"), Authorization::git_token),
            ("GIT_AUTH_HEADER".to_owned(), Authorization::header),
            ("GIT_AUTH_TOKEN".to_owned(), Authorization::git_token),
        ];
        let authorization = self.authorization(&names)?;
        let errand = Errand {
            program: &program,
            repository,
            authorization: authorization.as_ref(),
            place: held.path(),
            access: self.access,
            is_cancelled,
        };
        what(&errand).map_err(|error| self.of_git(&error))
    }

    fn of_git(&self, error: &GitError) -> RemoteError {
        let mut told = of_git(error);
        if let GitError::NoReference { .. } | GitError::WrongCommit { .. } = error {
            told.help = self.pins.help().or(told.help);
        }
        told
    }
}

impl Fetcher<'_> {
    fn ssh(&self, repository: &Repository) -> Result<Ssh, RemoteError> {
        let variable = |name: &str| self.environment.variable(name).filter(|value| !value.is_empty());
        match &self.keys {
            Keys::OfAgent(Some(agent)) => Ok(Ssh::of_agent(agent.clone())),
            Keys::OfUser => Ok(Ssh::of_user(
                variable("GIT_SSH_COMMAND"),
                variable("SSH_AUTH_SOCK").map(PathBuf::from),
                variable("HOME").map(PathBuf::from),
            )),
            Keys::OfAgent(None) => Err(refused(
                format!(
                    "`{}` is fetched by ssh, and the Dockerfile has no agent for it",
                    repository.remote()
                ),
                "give it one with `--ssh default`, or fetch by https, with a secret GIT_AUTH_TOKEN if it is private",
            )),
        }
    }
}

fn parse(url: &str, checksum: Option<&str>, git_dir: GitDir) -> Result<Repository, RemoteError> {
    let mut repository = Repository::parse(url).map_err(|error| of_url(&error))?;
    if let Some(checksum) = checksum {
        repository.set_checksum(checksum).map_err(|error| of_url(&error))?;
    }
    Ok(repository.keeping_git_dir(git_dir == GitDir::Kept))
}

const URL_HELP: &str = "write it as https://HOST/PATH.git#BRANCH-OR-TAG:DIRECTORY";

fn of_url(error: &RepositoryError) -> RemoteError {
    let help = match error {
        RepositoryError::UserInfo(_) => {
            "it would be in the image's history: give a secret with the id GIT_AUTH_TOKEN instead"
        }
        RepositoryError::Checksum(_) => "write a commit's id, or at least seven digits of its beginning",
        RepositoryError::Query { .. } => {
            "there are ref, tag, branch, subdir, checksum, keep-git-dir, submodules, fetch-by-commit and mtime=checkout|commit"
        }
        RepositoryError::Malformed(_)
        | RepositoryError::Reference(_)
        | RepositoryError::Directory(_)
        | RepositoryError::Conflict(..) => URL_HELP,
    };
    refused(error.to_string(), help)
}

fn no_program() -> RemoteError {
    let message = "there is no program `git`, which repositories are fetched with".to_owned();
    let help = Some("install git, or fetch an archive of the repository by https".to_owned());
    RemoteError { cause: RemoteErrorCause::Machine, message, notes: Vec::new(), help }
}

fn of_git(error: &GitError) -> RemoteError {
    match error {
        GitError::Cancelled => cancelled(),
        GitError::Start(_) | GitError::Files { .. } => machine(error),
        GitError::WrongCommit { .. } => {
            let help = "if the repository was meant to change, write its new commit; if not, do not trust it";
            told(RemoteErrorCause::Checksum, error, Some(help))
        }
        GitError::NotKept { .. } => not_kept(error.to_string()),
        GitError::Submodules(_) => refused(
            error.to_string(),
            "leave them out with `?submodules=false`, or build without `--offline`",
        ),
        GitError::NoReference { .. } | GitError::NoDirectory { .. } => {
            told(RemoteErrorCause::Refused, error, None)
        }
        GitError::Failed { message, .. } if message.contains("ey verification failed") => {
            let help = "if you trust the host, add its key to your known hosts: `ssh-keyscan HOST >> ~/.ssh/known_hosts`";
            told(RemoteErrorCause::Network, error, Some(help))
        }
        GitError::Failed { message, .. } if message.contains("Permission denied") => {
            let help = "`ssh-add -l` lists the keys of the agent; one of them must be known to the host";
            told(RemoteErrorCause::Network, error, Some(help))
        }
        GitError::Failed { .. } => {
            let help = "for a private repository, give a token with `--secret id=GIT_AUTH_TOKEN,…`";
            told(RemoteErrorCause::Network, error, Some(help))
        }
    }
}
