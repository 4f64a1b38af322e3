//! Why a repository could not be had.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use super::Commit;

/// Why a repository could not be had.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The program could not be run.
    #[error("`git` cannot be run")]
    Start(#[source] io::Error),
    /// It did not do what was asked.
    #[error("`git {task}` of `{remote}` failed: {message}")]
    Failed {
        /// What it was to do: `fetch`.
        task: &'static str,
        /// With what.
        remote: String,
        /// The line of what it wrote that says most.
        message: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// Nothing of that name.
    #[error("`{remote}` has no branch, tag or commit `{reference}`")]
    NoReference {
        /// Where.
        remote: String,
        /// What was asked for.
        reference: String,
    },
    /// Another commit than the one asked for.
    #[error("`{remote}` has the commit {got}, not {expected}")]
    WrongCommit {
        /// Where.
        remote: String,
        /// What should be there.
        expected: String,
        /// What is there.
        got: Commit,
    },
    /// A directory that is not in the commit.
    #[error("commit {commit} of `{remote}` has no directory `{subdirectory}`")]
    NoDirectory {
        /// Where.
        remote: String,
        /// Of what.
        commit: Commit,
        /// What was asked for.
        subdirectory: String,
    },
    /// What is not kept, and nobody may be asked.
    #[error("{what} of `{remote}` is not kept here")]
    NotKept {
        /// Where it would be.
        remote: String,
        /// What of it: `commit …`.
        what: String,
    },
    /// Submodules are fetched each time, so there are none without a network.
    #[error("the content of submodules of `{0}` is never kept here")]
    Submodules(String),
    /// Files of the machine.
    #[error("cannot use `{}`", path.display())]
    Files {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}
