//! Repositories, by way of the `git` program.
//!
//! [`Repository`] is what a URL says. [`Errand::resolve`] asks the server which commit that is now, which moves no content, and
//! [`Errand::write`] writes a commit's files out. What was fetched stays in a bare repository, of which only missing objects are ever fetched.
//!
//! `git` runs without the configuration, hooks and prompts of anybody, and with no credentials but those it is given ([`Authorization`](crate::Authorization),
//! [`Ssh`]): in an environment of our own, with the few transports that a URL may name, in submodules too. Nothing that came from a Dockerfile is ever where it could be an option.

mod errand;
mod error;
mod memory;
mod program;
mod repository;

pub use errand::{Commit, Errand};
pub use error::GitError;
pub use program::{Program, Ssh};
pub use repository::{Repository, RepositoryError, Submodules, Times};
