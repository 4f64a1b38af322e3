//! Files from elsewhere: over HTTP, and out of git repositories.
//!
//! Both have the same shape. What a source is *now* is found out with as little as it takes, a conditional request or a look at a
//! repository's refs, and named by something that cannot change: the digest of a body, a commit. What was fetched is kept in a directory that
//! the caller gives and locks, so that what is unchanged moves no content. Only when it is needed it is written out into another directory, which
//! then holds nothing else.
//!
//! Credentials go to the origin they are for and to no other. Nothing here reads the environment, and `git` is started in one of our own.

#![forbid(unsafe_code)]

mod access;
mod authorization;

pub mod git;
pub mod http;

pub use access::Access;
pub use authorization::Authorization;
