//! Executes a [`plan::Plan`]: what to reuse, what to run, in which order, and the layers that come of it.
//!
//! [`solve`] works in two passes. The first ([`lookup`]) needs no process and no mount: it derives every step's definition key and asks
//! the cache from the target downwards, so that a build of which nothing changed ends after one record. The second ([`schedule`]) takes
//! what is left, starts each step as soon as its inputs are done, and asks the cache once more by content, since a step before it may have
//! run again with the same outcome.
//!
//! A step's result is a *layer list* ([`Filesystem`]), never a directory. Reusing a result takes the whole recorded list, the layers below
//! it included: they are the ones it was made on; [`adoption`] keeps the results of one build in step with each other.
//!
//! [`enter`](fn@enter) does the same for all that a plan's last step needs, and hands over the sandbox in which it would run.
//!
//! What the store has no record of may be recorded elsewhere ([`Import`]).
//!
//! Of a build that failed, [`remains`](fn@remains) gives what there is.
//!
//! What a step does is in [`run`], [`copy`], [`remote`] and [`workdir`]; what it says while it does so is an [`Event`]. Nothing here prints, reads the
//! environment or asks for the time: [`Services`] carries all of it.

#![forbid(unsafe_code)]

mod error;
mod event;
mod filesystem;
mod services;

mod adoption;
mod import;
mod lookup;
mod schedule;

mod agent;
mod causes;
mod copy;
mod enter;
mod inputs;
mod owner;
mod remains;
mod remote;
mod run;
mod select;
mod step_log;
mod workdir;

pub use enter::{BrokenBelow, Entry, enter};
pub use error::{RunFailure, SolveError, StepError};
pub use event::{Event, Origin, Outcome, Reuse, Stream, Until, Verdict};
pub use filesystem::Filesystem;
pub use import::{Import, Sought};
pub use lookup::definition_keys;
pub use remains::remains;
pub use schedule::{Solved, StepReport, solve};
pub use services::{CacheMode, Cancel, Fetch, FillCache, Hook, Now, Secret, SecretInKey, Services};
