//! The distribution client: images from registries (OCI distribution specification; Docker's token authentication).
//!
//! A [`Client`] does six things, each blocking, each safe to do from several threads:
//!
//! * [`Client::manifest`] fetches the document that a reference stands for;
//! * [`Client::resolve`] goes on from there, through indexes, to the image for a platform;
//! * [`Client::blob`] streams a config or a layer;
//! * [`Client::push_blob`] sees to it that a repository has a blob, sending as little as it can;
//! * [`Client::push_manifest`] then gives it a name;
//! * [`Client::tags`] lists the names that there are, [`Client::search`] the repositories for a word, and [`Client::referrers`] what
//!   refers to an image.
//!
//! ```no_run
//! use std::{io, sync::Arc};
//! # use std::time::{Duration, Instant};
//! # #[derive(Debug)]
//! # struct Real(Instant);
//! # impl registry::Timing for Real {
//! #     fn now(&self) -> Duration { self.0.elapsed() }
//! #     fn sleep(&self, duration: Duration, _: &dyn Fn() -> bool) { std::thread::sleep(duration) }
//! #     fn jitter(&self) -> f64 { 0.5 }
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let timing = Arc::new(Real(Instant::now()));
//! let client = registry::Client::new(registry::Options {
//!     credentials: registry::Credentials::none(),
//!     limits: registry::Limits::DEFAULT,
//!     hosts: registry::Hosts::none(),
//!     proxies: web::Proxies::none(),
//!     roots: web::Roots::Compiled,
//!     user_agent: "rbuild/0.1".to_owned(),
//!     names: Arc::new(registry::SystemNames),
//!     timing,
//! })?;
//! let reference = oci::Reference::parse("alpine:3.20")?;
//! let image = client.resolve(&reference, &oci::Platform::host())?;
//! for layer in image.layers() {
//!     io::copy(&mut client.blob(&reference, layer)?, &mut io::sink())?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What holds of everything that comes out
//!
//! * **Bytes are what was asked for.** A manifest has the digest asked for or announced; a blob its descriptor's size, then digest.
//! * **Waiting has an end** ([`Limits`]), and what may pass is tried again, at the place where it broke off, with jitter.
//! * **Credentials reach only whom they are for**: the origin that challenged us, and the token server it names, over TLS. They are
//!   asked for in a scope of the repository, to pull, and to push only when something is pushed; when a blob may be taken over from another
//!   repository, to pull from that.
//! * **Nobody sends us inward**: redirects and token realms cannot lead from the internet to this network or this machine ([`Reach`]).
//! * **An error says which host did what** ([`RequestError`]), in words fit for a terminal.
//!
//! Nothing here reads the environment, the clock or a random number: see [`Options`]. Nothing is kept beyond the client's life.
//!
//! # In the order of reading
//!
//! `client` makes requests and judges answers; `auth` answers challenges; `transport` is one exchange with its redirects; `retry` repeats it.
//! `manifest`, `resolve`, `blob`, `push` and `tags` are the operations on top. `hosts` says where a name leads.

#![forbid(unsafe_code)]

mod client;
mod hosts;
mod limits;
mod names;
mod timing;

mod blob;
mod manifest;
mod push;
mod referrers;
mod resolve;
mod search;
mod tags;

mod auth;
mod challenge;
mod credentials;
mod helper;
mod login;
mod secret;

mod body;
mod retry;
mod transport;

mod error;
mod wire;

pub use blob::{BlobError, BlobReader};
pub use client::{Client, Options};
pub use credentials::{Credential, Credentials, CredentialsError};
pub use error::{Failure, Login, Phase, RedirectError, RequestError, Says, TokenError};
pub use hosts::{
    Certificates, Endpoint, FindCertificates, Hosts, HostsError, Purpose, Route, RouteError, Unusable,
};
pub use limits::Limits;
pub use login::LoginFile;
pub use manifest::{Fetched, ManifestError};
pub use names::{Address, Names, Reach, SystemNames};
pub use push::{Delivery, Growing, Outgoing, PushError, Source};
pub use referrers::{PushReferrerError, ReferrersError};
pub use resolve::{ResolveError, Resolved};
pub use search::{Found, Search, SearchError};
pub use secret::Secret;
pub use tags::TagsError;
pub use timing::Timing;
