//! What everybody who speaks HTTP here has in common: [`Url`] and the [`Origin`] that credentials are bound to, [`Roots`], [`Proxies`], and
//! the configuration of an agent that does nothing on its own.
//!
//! Requests, retries and the rules of redirects are each client's: a registry and a file server are not asked alike.

#![forbid(unsafe_code)]

mod agent;
mod proxies;
mod roots;
mod url;

pub use agent::{Bounds, config};
pub use proxies::{Proxies, ProxyError};
pub use roots::{Own, Roots, RootsError};
pub use url::{Origin, Url, UrlError, form};
