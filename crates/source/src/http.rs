//! One file over HTTP.
//!
//! A [`Place`] keeps the last body of a URL with what the server said to recognise it by. [`Client::resolve`] asks whether it is still that,
//! and reads a body only if it is not; [`Client::obtain`] gives the file of a digest that is known, and asks nobody if it is here. Bytes are hashed
//! as they arrive, and again before a kept file is given out: nothing is trusted by its name.

mod client;
mod error;
mod file_name;
mod place;

pub use client::{Ask, Client, Leads, Limits, Options};
pub use error::{HttpError, RedirectError};
pub use file_name::file_name;
pub use place::{Body, Place};
