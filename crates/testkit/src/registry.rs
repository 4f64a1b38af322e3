//! An in-process registry on a loopback port: the distribution API without deletion, and every way to get it wrong.
//!
//! By default it serves what was put into it. [`Registry::on`] replaces the answer below a path by a closure, which may misbehave at will and may
//! fall back on the proper answer ([`Exchange::serve`]). Every request is recorded. Dropping the registry closes all its connections and
//! joins all its threads.
//!
//! ```
//! let registry = testkit::registry::Registry::start();
//! let image = registry.add_image("app", "latest", "linux/amd64", &[b"a layer's tar"]);
//! assert!(registry.reference("app:latest").ends_with("/app:latest"));
//! assert_eq!(registry.requests().len(), 0, "{image}");
//! ```

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The OCI image manifest's media type.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The OCI image index's media type.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A running registry.
pub struct Registry {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `GET`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Behind the `?`, as sent.
    pub query: String,
    /// With lower-case names.
    pub headers: Vec<(String, String)>,
    /// As far as it came.
    pub body: Vec<u8>,
    /// How many requests for this path came before.
    pub earlier: usize,
}

/// Who may read.
#[derive(Clone, Debug)]
pub enum Access {
    /// Everybody.
    Open,
    /// Whoever sends this name and password.
    Basic(&'static str, &'static str),
    /// Whoever brings a token for the repository from `/token`, which gives it to everybody (`None`) or for a name and password.
    Token(Option<(&'static str, &'static str)>),
}

/// Which certificate a registry with TLS shows.
#[derive(Clone, Copy, Debug)]
pub enum Identity {
    /// For `localhost` and 127.0.0.1, by [`authority_pem`].
    Trusted,
    /// For another name.
    WrongName,
    /// Ended in 2020.
    Expired,
    /// By nobody else.
    SelfSigned,
}

/// The bundle with the root that has issued the certificates of [`Identity`].
#[must_use]
pub fn authority_pem() -> &'static [u8] {
    include_bytes!("../tls/authority.pem")
}

/// The certificate and the key of a client that [`Registry::start_for_known_clients`] knows, in PEM.
#[must_use]
pub fn client_identity_pem() -> (&'static [u8], &'static [u8]) {
    (include_bytes!("../tls/client.pem"), include_bytes!("../tls/server-key.pem"))
}

/// `sha256:` and the digest of the bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

type Handler = dyn Fn(&Seen, &mut Exchange<'_>) -> io::Result<()> + Send + Sync;

struct Shared {
    blobs: Mutex<HashMap<String, Vec<u8>>>,
    /// By `repository:tag`.
    tags: Mutex<HashMap<String, String>>,
    handlers: Mutex<Vec<(String, Arc<Handler>)>>,
    access: Mutex<Access>,
    seen: Mutex<Vec<Seen>>,
    /// What has come of each upload, by its path.
    uploads: Mutex<HashMap<String, Vec<u8>>>,
    /// How many uploads have begun.
    begun: AtomicUsize,
    /// `repository@digest`, of what was pushed.
    pushed: Mutex<HashSet<String>>,
    /// Below these paths, bodies are not waited for.
    unwanted: Mutex<Vec<String>>,
    connections: Mutex<Vec<(TcpStream, JoinHandle<()>)>>,
    speech: Speech,
    stopping: AtomicBool,
}

/// What a connection carries.
enum Speech {
    Plain,
    Tls(Arc<rustls::ServerConfig>),
    Raw(&'static [u8]),
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Registry {
    /// Starts an empty registry without TLS.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(Speech::Plain)
    }

    /// Starts an empty registry without TLS where `listener` listens.
    #[must_use]
    pub fn start_at(listener: TcpListener) -> Self {
        Self::start_speaking(listener, Speech::Plain)
    }

    /// Starts an empty registry with TLS.
    #[must_use]
    pub fn start_tls(identity: Identity) -> Self {
        Self::start_with(Speech::Tls(Arc::new(server_config(identity, Clients::Any))))
    }

    /// Starts an empty registry with TLS that speaks to nobody but the client of [`client_identity_pem`].
    #[must_use]
    pub fn start_for_known_clients() -> Self {
        Self::start_with(Speech::Tls(Arc::new(server_config(Identity::Trusted, Clients::Known))))
    }

    /// Starts what is no registry: it answers the first bytes of each connection with `bytes`.
    #[must_use]
    pub fn start_raw(bytes: &'static [u8]) -> Self {
        Self::start_with(Speech::Raw(bytes))
    }

    fn start_with(speech: Speech) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port is free");
        Self::start_speaking(listener, speech)
    }

    fn start_speaking(listener: TcpListener, speech: Speech) -> Self {
        let address = listener.local_addr().expect("a bound listener has an address");
        let listener = Arc::new(listener);
        let shared = Arc::new(Shared {
            blobs: Mutex::default(),
            tags: Mutex::default(),
            handlers: Mutex::default(),
            access: Mutex::new(Access::Open),
            seen: Mutex::default(),
            uploads: Mutex::default(),
            begun: AtomicUsize::new(0),
            pushed: Mutex::default(),
            unwanted: Mutex::default(),
            connections: Mutex::default(),
            speech,
            stopping: AtomicBool::new(false),
        });
        let acceptor = Some(thread::spawn({
            let (listener, shared) = (Arc::clone(&listener), Arc::clone(&shared));
            move || accept(&listener, &shared)
        }));
        Self { address, listener, shared, acceptor }
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The port alone.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `127.0.0.1:PORT/name`.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Stores bytes for all repositories; returns their digest. A manifest needs its `mediaType` inside.
    pub fn add_blob(&self, bytes: impl Into<Vec<u8>>) -> String {
        let bytes = bytes.into();
        let digest = digest(&bytes);
        lock(&self.shared.blobs).insert(digest.clone(), bytes);
        digest
    }

    /// Lets a tag stand for a document.
    pub fn tag(&self, repository: &str, tag: &str, digest: &str) {
        lock(&self.shared.tags).insert(format!("{repository}:{tag}"), digest.to_owned());
    }

    /// Stores an image of uncompressed layers and tags it; returns its manifest's digest.
    pub fn add_image(&self, repository: &str, tag: &str, platform: &str, layers: &[&[u8]]) -> String {
        let (os, architecture) = platform.split_once('/').expect("a platform is os/architecture");
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({
            "os": os, "architecture": architecture, "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let descriptor = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": self.add_blob(bytes), "size": bytes.len() });
        let layers: Vec<Value> =
            layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer)).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes()),
            "layers": layers,
        });
        let digest = self.add_blob(manifest.to_string());
        self.tag(repository, tag, &digest);
        digest
    }

    /// Stores an index of `(digest, platform)` entries and tags it; returns its digest. An empty platform is left out.
    pub fn add_index(&self, repository: &str, tag: &str, entries: &[(&str, &str)]) -> String {
        let entries: Vec<Value> =
            entries.iter().map(|(digest, platform)| self.index_entry(digest, platform)).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        let digest = self.add_blob(index.to_string());
        self.tag(repository, tag, &digest);
        digest
    }

    fn index_entry(&self, digest: &str, platform: &str) -> Value {
        let bytes = lock(&self.shared.blobs).get(digest).cloned().unwrap_or_default();
        let mut entry = json!({ "mediaType": media_type(&bytes), "digest": digest, "size": bytes.len() });
        let mut parts = platform.split('/');
        if let (Some(os), Some(architecture)) = (parts.next(), parts.next()) {
            entry["platform"] = json!({ "os": os, "architecture": architecture });
            if let Some(variant) = parts.next() {
                entry["platform"]["variant"] = json!(variant);
            }
        }
        entry
    }

    /// Serves the blobs of an OCI layout directory, and tags what its index names (`latest` where it has no name).
    pub fn serve_layout(&self, repository: &str, layout: &Path) -> io::Result<()> {
        for algorithm in std::fs::read_dir(layout.join("blobs"))? {
            for blob in std::fs::read_dir(algorithm?.path())? {
                self.add_blob(std::fs::read(blob?.path())?);
            }
        }
        let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json"))?)?;
        for entry in index["manifests"].as_array().into_iter().flatten() {
            let tag = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or("latest");
            let tag = tag.rsplit(':').next().unwrap_or(tag);
            self.tag(repository, tag, entry["digest"].as_str().unwrap_or_default());
        }
        Ok(())
    }

    /// Restricts who may read.
    pub fn set_access(&self, access: Access) {
        *lock(&self.shared.access) = access;
    }

    /// Answers requests whose path begins with `prefix` by `handler`; of several that fit, the last set.
    pub fn on(
        &self,
        prefix: &str,
        handler: impl Fn(&Seen, &mut Exchange<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) {
        lock(&self.shared.handlers).push((prefix.to_owned(), Arc::new(handler)));
    }

    /// Answers requests below a path before their bodies have come.
    pub fn answer_before_the_body(&self, prefix: &str) {
        lock(&self.shared.unwanted).push(prefix.to_owned());
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// Whether a repository has been given a blob, whole.
    #[must_use]
    pub fn has_taken(&self, repository: &str, digest: &str) -> bool {
        lock(&self.shared.pushed).contains(&format!("{repository}@{digest}"))
    }

    /// How many requests there were for paths that begin so.
    #[must_use]
    pub fn count(&self, prefix: &str) -> usize {
        lock(&self.shared.seen).iter().filter(|seen| seen.path.starts_with(prefix)).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor, in whatever network it listens; it may be gone already if the listener failed.
        rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both).ok();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("the acceptor does not panic");
        }
        for (stream, thread) in std::mem::take(&mut *lock(&self.shared.connections)) {
            // An error means that the peer was faster.
            drop(stream.shutdown(Shutdown::Both));
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "a handler of the test registry panicked");
        }
    }
}

impl Seen {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The start of the range asked for.
    #[must_use]
    pub fn range_from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// One request's connection, for the handler to answer on.
pub struct Exchange<'a> {
    seen: &'a Seen,
    shared: &'a Shared,
    stream: &'a mut BufReader<Box<dyn Stream>>,
    keep: bool,
}

impl Exchange<'_> {
    /// A proper answer with a `Content-Length`; the connection stays open.
    pub fn respond(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n", body.len());
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        self.send(format!("{head}\r\n").as_bytes())?;
        if self.seen.method != "HEAD" {
            self.send(body)?;
        }
        self.keep = true;
        Ok(())
    }

    /// Takes what came of a part of an upload, but for all behind its first `bytes`, and breaks the connection.
    pub fn break_off_after(&mut self, bytes: usize) {
        let kept = &self.seen.body[..bytes.min(self.seen.body.len())];
        lock(&self.shared.uploads).entry(self.seen.path.clone()).or_default().extend_from_slice(kept);
        self.keep = false;
    }

    /// Takes what an upload has come to as a blob, and breaks the connection instead of saying so.
    pub fn take_silently(&mut self) {
        let before = lock(&self.shared.uploads).remove(&self.seen.path).unwrap_or_default();
        let bytes = [before, self.seen.body.clone()].concat();
        self.take(&digest(&bytes), bytes);
        self.keep = false;
    }

    /// Takes a part of an upload wherever it belongs to.
    pub fn append(&mut self) -> io::Result<()> {
        lock(&self.shared.uploads)
            .entry(self.seen.path.clone())
            .or_default()
            .extend_from_slice(&self.seen.body);
        self.respond(202, &[("Location", &self.seen.path)], b"")
    }

    /// A redirect.
    pub fn redirect(&mut self, location: &str) -> io::Result<()> {
        self.respond(307, &[("Location", location)], b"")
    }

    /// Bytes as they are. The connection is closed when the handler returns.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// Says nothing until the client goes away.
    pub fn hold(&mut self) {
        let mut rest = Vec::new();
        // However it goes away, it is away.
        drop(self.stream.read_to_end(&mut rest));
    }

    /// One byte every `pause`, until `bytes` or the client's patience ends.
    pub fn drip(&mut self, bytes: &[u8], pause: Duration) -> io::Result<()> {
        for byte in bytes {
            self.send(std::slice::from_ref(byte))?;
            // The slowness is the behaviour under test, not a wait for anything.
            thread::sleep(pause);
        }
        Ok(())
    }

    /// The proper answer.
    pub fn serve(&mut self) -> io::Result<()> {
        self.serve_as(&self.seen.path)
    }

    /// The proper answer to a request for another path.
    pub fn serve_as(&mut self, path: &str) -> io::Result<()> {
        let (shared, seen) = (self.shared, self.seen);
        if seen.path == "/token" {
            return self.serve_token();
        }
        if !self.is_allowed() {
            return self.challenge();
        }
        if seen.path == "/v2/" {
            return self.respond(200, &[], b"{}");
        }
        if path.ends_with("/tags/list") {
            return self.serve_tags();
        }
        if path.contains("/blobs/uploads/") {
            return self.serve_upload();
        }
        if seen.method == "PUT" {
            return self.take_manifest();
        }
        // A repository has what was pushed into it; what tests put there is in all of them.
        let found = find(shared, path).filter(|(digest, _)| {
            let pushed = lock(&shared.pushed);
            let of = |name: &String| name.ends_with(&format!("@{digest}"));
            !pushed.iter().any(of) || pushed.contains(&format!("{}@{digest}", self.repository()))
        });
        match found {
            Some((digest, bytes)) if seen.path.contains("/manifests/") => {
                let media_type = media_type(&bytes);
                self.respond(
                    200,
                    &[("Content-Type", &media_type), ("Docker-Content-Digest", &digest)],
                    &bytes,
                )
            }
            Some((_, bytes)) => self.serve_blob(&bytes),
            None => {
                let code = if seen.path.contains("/blobs/") { "BLOB_UNKNOWN" } else { "MANIFEST_UNKNOWN" };
                let body = json!({ "errors": [{ "code": code, "message": "unknown to the test registry" }] });
                self.respond(404, &[("Content-Type", "application/json")], body.to_string().as_bytes())
            }
        }
    }

    /// In pages, two tags at a time.
    fn serve_tags(&mut self) -> io::Result<()> {
        const PAGE: usize = 2;
        let repository = self.seen.path.trim_start_matches("/v2/").trim_end_matches("/tags/list");
        let prefix = format!("{repository}:");
        let mut tags: Vec<String> = {
            let all = lock(&self.shared.tags);
            all.keys().filter_map(|name| name.strip_prefix(&prefix)).map(ToOwned::to_owned).collect()
        };
        tags.sort();
        let last = self.seen.query.split('&').find_map(|pair| pair.strip_prefix("last="));
        let rest: Vec<String> =
            tags.into_iter().filter(|tag| last.is_none_or(|last| **tag > *last)).collect();
        let page = &rest[..rest.len().min(PAGE)];
        let body = json!({ "name": repository, "tags": page }).to_string();
        match page.last().filter(|_| rest.len() > PAGE) {
            Some(last) => {
                let link = format!("</v2/{repository}/tags/list?last={last}&n={PAGE}>; rel=\"next\"");
                self.respond(200, &[("Link", &link)], body.as_bytes())
            }
            None => self.respond(200, &[], body.as_bytes()),
        }
    }

    fn serve_upload(&mut self) -> io::Result<()> {
        let (shared, seen) = (self.shared, self.seen);
        let pair = |name: &str| {
            let mut pairs = seen.query.split('&').filter_map(|pair| pair.split_once('='));
            let value = pairs.find(|(key, _)| *key == name).map(|(_, value)| value);
            value.map(|value| value.replace("%3A", ":").replace("%2F", "/"))
        };
        if seen.method == "POST" {
            if let (Some(digest), Some(from)) = (pair("mount"), pair("from"))
                && lock(&shared.pushed).contains(&format!("{from}@{digest}"))
            {
                lock(&shared.pushed).insert(format!("{}@{digest}", self.repository()));
                return self.respond(201, &[], b"");
            }
            let number = shared.begun.fetch_add(1, Ordering::SeqCst);
            let path = format!("/v2/{}/blobs/uploads/{number}", self.repository());
            lock(&shared.uploads).insert(path.clone(), Vec::new());
            return self.respond(202, &[("Location", &path), ("Range", "0-0")], b"");
        }
        let mut uploads = lock(&shared.uploads);
        let Some(upload) = uploads.get_mut(&seen.path) else {
            drop(uploads);
            return self.respond(404, &[], br#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#);
        };
        let begins = seen.header("content-range").and_then(|range| range.split('-').next()?.parse().ok());
        if begins.unwrap_or(0) != upload.len() && !seen.body.is_empty() {
            drop(uploads);
            return self.respond(416, &[], b"");
        }
        upload.extend_from_slice(&seen.body);
        let range = format!("0-{}", upload.len().saturating_sub(1));
        if seen.method != "PUT" {
            drop(uploads);
            let status = if seen.method == "GET" { 204 } else { 202 };
            return self.respond(status, &[("Location", &seen.path), ("Range", &range)], b"");
        }
        let bytes = upload.clone();
        uploads.remove(&seen.path);
        drop(uploads);
        let digest = digest(&bytes);
        if pair("digest").as_deref() != Some(&*digest) {
            return self.respond(400, &[], br#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
        }
        self.take(&digest, bytes);
        self.respond(201, &[("Docker-Content-Digest", &digest)], b"")
    }

    fn take_manifest(&mut self) -> io::Result<()> {
        let (digest, name) = (digest(&self.seen.body), self.seen.path.rsplit('/').next().unwrap_or_default());
        if !name.starts_with("sha256:") {
            let tag = format!("{}:{name}", self.repository());
            lock(&self.shared.tags).insert(tag, digest.clone());
        }
        self.take(&digest, self.seen.body.clone());
        self.respond(201, &[("Docker-Content-Digest", &digest)], b"")
    }

    fn take(&self, digest: &str, bytes: Vec<u8>) {
        lock(&self.shared.blobs).insert(digest.to_owned(), bytes);
        lock(&self.shared.pushed).insert(format!("{}@{digest}", self.repository()));
    }

    fn serve_blob(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.seen.range_from() {
            None => self.respond(200, &[("Content-Type", "application/octet-stream")], bytes),
            Some(from) if from < bytes.len() => {
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                self.respond(206, &[("Content-Range", &range)], &bytes[from..])
            }
            Some(_) => self.respond(416, &[], b""),
        }
    }

    /// The repository in `/v2/NAME/manifests/…`.
    fn repository(&self) -> &str {
        let path = self.seen.path.strip_prefix("/v2/").unwrap_or_default();
        let mut ends = ["/manifests/", "/blobs/", "/tags/"].into_iter().filter_map(|part| path.find(part));
        let end = ends.next().unwrap_or(0);
        &path[..end]
    }

    fn is_allowed(&self) -> bool {
        let authorization = self.seen.header("authorization");
        match *lock(&self.shared.access) {
            Access::Open => true,
            Access::Basic(user, password) => authorization == Some(&basic(user, password)),
            Access::Token(_) => {
                let repository = self.repository();
                let is_write = self.seen.method != "GET" || self.seen.path.contains("/uploads/");
                let actions = if is_write { "pull,push" } else { "pull" };
                let mut scope = format!("repository:{repository}:{actions}");
                if let Some((_, from)) = self.seen.query.split_once("from=") {
                    scope.push_str(&format!(" repository:{}:pull", from.replace("%2F", "/")));
                }
                let expected = format!("Bearer {}", token(&scope));
                self.seen.path == "/v2/" || authorization == Some(&expected)
            }
        }
    }

    fn challenge(&mut self) -> io::Result<()> {
        let host = self.seen.header("host").unwrap_or_default();
        let challenge = match *lock(&self.shared.access) {
            Access::Token(_) => format!("Bearer realm=\"http://{host}/token\",service=\"testkit\""),
            _ => "Basic realm=\"testkit\"".to_owned(),
        };
        let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        self.respond(401, &[("WWW-Authenticate", &challenge)], body)
    }

    fn serve_token(&mut self) -> io::Result<()> {
        let allowed = match *lock(&self.shared.access) {
            Access::Token(Some((user, password))) => {
                self.seen.header("authorization") == Some(&basic(user, password))
            }
            _ => true,
        };
        if !allowed {
            return self.respond(401, &[], br#"{"details":"incorrect username or password"}"#);
        }
        let pairs = self.seen.query.split('&').filter_map(|pair| pair.split_once('='));
        let scopes: Vec<&str> = pairs.filter(|(name, _)| *name == "scope").map(|(_, value)| value).collect();
        let scope = scopes.join(" ").replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
        let body = json!({ "token": token(&scope), "expires_in": 300 }).to_string();
        self.respond(200, &[("Content-Type", "application/json")], body.as_bytes())
    }
}

/// What `/token` gives for a scope.
fn token(scope: &str) -> String {
    digest(scope.as_bytes()).replace(':', ".")
}

/// The `Authorization` of a name and password.
#[must_use]
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let value =
            chunk.iter().fold(0u32, |value, byte| value << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(value >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

fn find(shared: &Shared, path: &str) -> Option<(String, Vec<u8>)> {
    let path = path.strip_prefix("/v2/")?;
    let (repository, name) = path.split_once("/manifests/").or_else(|| path.split_once("/blobs/"))?;
    let digest = lock(&shared.tags).get(&format!("{repository}:{name}")).cloned().unwrap_or(name.to_owned());
    let bytes = lock(&shared.blobs).get(&digest)?.clone();
    Some((digest, bytes))
}

fn media_type(document: &[u8]) -> String {
    let value: Value = serde_json::from_slice(document).unwrap_or_default();
    value["mediaType"].as_str().unwrap_or(MANIFEST).to_owned()
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(own) = stream.try_clone() else { return };
        let thread = thread::spawn({
            let shared = Arc::clone(shared);
            move || {
                // A client that goes away in the middle is part of many tests. The connection has a second descriptor, for
                // the registry's end, so it must be closed by name.
                drop(stream.try_clone().and_then(|stream| converse(stream, &shared)));
                drop(stream.shutdown(Shutdown::Both));
            }
        });
        lock(&shared.connections).push((own, thread));
    }
}

fn converse(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream: Box<dyn Stream> = match &shared.speech {
        Speech::Plain => Box::new(stream),
        Speech::Raw(bytes) => {
            let mut stream = stream;
            let first = stream.read(&mut [0; 4096])?;
            return if first == 0 { Ok(()) } else { stream.write_all(bytes) };
        }
        Speech::Tls(config) => {
            let connection = rustls::ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            Box::new(rustls::StreamOwned::new(connection, stream))
        }
    };
    let mut stream = BufReader::new(stream);
    while let Some(seen) = read_request(&mut stream, shared)? {
        let handler = {
            let handlers = lock(&shared.handlers);
            handlers
                .iter()
                .rev()
                .find(|(prefix, _)| seen.path.starts_with(prefix))
                .map(|(_, h)| Arc::clone(h))
        };
        let mut exchange = Exchange { seen: &seen, shared, stream: &mut stream, keep: false };
        match handler {
            Some(handler) => handler(&seen, &mut exchange)?,
            None => exchange.serve()?,
        }
        if !exchange.keep {
            return Ok(());
        }
    }
    Ok(())
}

fn read_request(stream: &mut BufReader<Box<dyn Stream>>, shared: &Shared) -> io::Result<Option<Seen>> {
    let mut line = String::new();
    stream.take(64 << 10).read_line(&mut line)?;
    let mut words = line.split_ascii_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.take(64 << 10).read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let (method, path, query) = (method.to_owned(), path.to_owned(), query.to_owned());
    let mut seen = Seen { method, path, query, headers, body: Vec::new(), earlier: 0 };
    let length = seen.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let is_unwanted = lock(&shared.unwanted).iter().any(|prefix| seen.path.starts_with(prefix));
    if !is_unwanted {
        if seen.header("expect").is_some() {
            stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        match seen.header("transfer-encoding") {
            Some("chunked") => read_chunks(stream, &mut seen.body)?,
            _ => drop(stream.take(length).read_to_end(&mut seen.body)?),
        }
    }
    let mut all = lock(&shared.seen);
    seen.earlier = all.iter().filter(|earlier| earlier.path == seen.path).count();
    all.push(seen.clone());
    Ok(Some(seen))
}

/// A body of unknown length (RFC 9112, 7.1), as far as it comes.
fn read_chunks(stream: &mut BufReader<Box<dyn Stream>>, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        stream.take(1 << 10).read_line(&mut line)?;
        let Ok(length) = u64::from_str_radix(line.trim_end(), 16) else { return Ok(()) };
        stream.take(length).read_to_end(body)?;
        stream.take(2).read_line(&mut line)?;
        if length == 0 {
            return Ok(());
        }
    }
}

/// Who may connect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Clients {
    Any,
    Known,
}

fn server_config(identity: Identity, clients: Clients) -> rustls::ServerConfig {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::server::WebPkiClientVerifier;
    let read = |pem: &[u8]| CertificateDer::from_pem_slice(pem).expect("the certificate is PEM");
    let certificate = read(match identity {
        Identity::Trusted => include_bytes!("../tls/trusted.pem"),
        Identity::WrongName => include_bytes!("../tls/wrong-name.pem"),
        Identity::Expired => include_bytes!("../tls/expired.pem"),
        Identity::SelfSigned => include_bytes!("../tls/self-signed.pem"),
    });
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../tls/server-key.pem")).expect("the key is PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = (clients == Clients::Known).then(|| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(read(include_bytes!("../tls/client-authority.pem"))).expect("the root is one");
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()
    });
    let builder = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions");
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier.expect("there is a root")),
        None => builder.with_no_client_auth(),
    };
    builder.with_single_cert(vec![certificate], key).expect("the key belongs to the certificate")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
