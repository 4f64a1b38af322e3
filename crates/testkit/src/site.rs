//! An in-process web server on a loopback port: files that say when they changed, and answer a conditional request.
//!
//! ```
//! let site = testkit::site::Site::start();
//! site.put("/a.txt", b"a");
//! assert!(site.url("/a.txt").starts_with("http://127.0.0.1:"));
//! assert_eq!(site.sent_bytes(), 0);
//! ```

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::registry::{Exchange, Registry, Seen, digest};

/// How a file is recognised.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Validators {
    /// By an `ETag`.
    Tag,
    /// By its `Last-Modified`.
    Date(&'static str),
    /// Not at all.
    None,
}

/// A running server.
pub struct Site {
    server: Registry,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    files: Mutex<HashMap<String, Page>>,
    sent_bytes: AtomicU64,
}

#[derive(Clone)]
enum Page {
    File { body: Vec<u8>, validators: Validators },
    Redirect(String),
    Guarded { authorization: String, body: Vec<u8> },
}

impl Site {
    /// Starts a server without any file.
    #[must_use]
    pub fn start() -> Self {
        let server = Registry::start();
        let shared = Arc::<Shared>::default();
        let handler = Arc::clone(&shared);
        server.on("/", move |seen, exchange| answer(&handler, seen, exchange));
        Self { server, shared }
    }

    /// `http://127.0.0.1:PORT` and the path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.host())
    }

    /// `http://localhost:PORT` and the path: the same server, and another origin.
    #[must_use]
    pub fn other_url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.server.port())
    }

    /// Serves a file with a tag, in place of what was there.
    pub fn put(&self, path: &str, body: &[u8]) {
        self.put_with(path, body, Validators::Tag);
    }

    /// Serves a file that is recognised in another way.
    pub fn put_with(&self, path: &str, body: &[u8], validators: Validators) {
        self.set(path, Page::File { body: body.to_vec(), validators });
    }

    /// Serves a file to whoever sends this `Authorization`.
    pub fn guard(&self, path: &str, authorization: &str, body: &[u8]) {
        let page = Page::Guarded { authorization: authorization.to_owned(), body: body.to_vec() };
        self.set(path, page);
    }

    /// Sends whoever asks elsewhere.
    pub fn redirect(&self, path: &str, location: &str) {
        self.set(path, Page::Redirect(location.to_owned()));
    }

    /// The server below, for answers of other kinds.
    #[must_use]
    pub fn server(&self) -> &Registry {
        &self.server
    }

    /// Bytes of bodies so far.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.shared.sent_bytes.load(Ordering::SeqCst)
    }

    /// Requests for a path so far.
    #[must_use]
    pub fn requests(&self, path: &str) -> Vec<Seen> {
        self.server.requests().into_iter().filter(|seen| seen.path == path).collect()
    }

    fn set(&self, path: &str, page: Page) {
        lock(&self.shared.files).insert(path.to_owned(), page);
    }
}

fn answer(shared: &Shared, seen: &Seen, exchange: &mut Exchange<'_>) -> io::Result<()> {
    let page = lock(&shared.files).get(&seen.path).cloned();
    let mut send = |headers: &[(&str, &str)], body: &[u8]| {
        shared.sent_bytes.fetch_add(body.len() as u64, Ordering::SeqCst);
        exchange.respond(200, headers, body)
    };
    match page {
        Some(Page::File { body, validators }) => {
            let (name, value, condition) = match validators {
                Validators::Tag => ("ETag", format!("\"{}\"", digest(&body)), "if-none-match"),
                Validators::Date(date) => ("Last-Modified", date.to_owned(), "if-modified-since"),
                Validators::None => return send(&[], &body),
            };
            if seen.header(condition) == Some(&value) {
                return exchange.respond(304, &[(name, &value)], b"");
            }
            send(&[(name, &value)], &body)
        }
        Some(Page::Guarded { authorization, body })
            if seen.header("authorization") == Some(&authorization) =>
        {
            send(&[], &body)
        }
        Some(Page::Guarded { .. }) => exchange.respond(401, &[], b""),
        Some(Page::Redirect(location)) => exchange.redirect(&location),
        None => exchange.respond(404, &[], b""),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
