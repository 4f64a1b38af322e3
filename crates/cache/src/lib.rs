//! What a step's key is made of; records of what steps made; why a step was not reused.
//!
//! A step has two keys ([`key`]). Its *definition key* is known before anything runs: the step, its context files by digest, and the definition
//! keys of its inputs. Its *content key* takes its inputs by what they turned out to contain, so that a step is reused although one before
//! it had to run again with the same outcome. A record under either key ([`record`]) says which layers the step's result consists of, *including
//! those below it*: whoever reuses a result takes the layers it was really made on, whose times it may have recorded.
//!
//! Every part of a key is stored under its name, its value as a digest keyed with the store's salt ([`trace`]), so that a miss can say what changed
//! ([`cause`]) while no record tells the value of a variable.
//!
//! The records of a build can leave the store, and come into another one ([`portable`]): keys are the same everywhere, but for those of steps with a
//! secret that counts.

#![forbid(unsafe_code)]

pub mod cause;
pub mod key;
pub mod portable;
pub mod record;
pub mod trace;

pub use cause::{Cause, Change, FileHow, How, PartVerdict};
pub use key::{Keys, PartName, Parts};
pub use portable::{Portable, PortableError, PortableLayer, PortableMount, PortableRecord};
pub use record::{Cache, RecordedLayer, Salt, StepRecord, short_key};
pub use trace::Trace;
