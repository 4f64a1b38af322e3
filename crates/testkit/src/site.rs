//! An in-process web server on a loopback port: files that say when they changed, and answer a conditional request.
//!
//! ```
//! let site = testkit::site::Site::start();
//! site.put("/a.txt", b"a");
//! assert!(site.url("/a.txt").starts_with("http://127.0.0.1:"));
//! assert_eq!(site.sent_bytes(), 0);
//! ```

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use walkdir::WalkDir;

use crate::registry::{Exchange, Registry, Seen, digest};

/// How a file is recognised.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Validators {
    /// By an `ETag`.
    Tag,
    /// By its `Last-Modified`.
    Date(String),
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
        Self::start_with(Registry::start())
    }

    /// The same where `listener` listens.
    #[must_use]
    pub fn start_at(listener: TcpListener) -> Self {
        Self::start_with(Registry::start_at(listener))
    }

    fn start_with(server: Registry) -> Self {
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

    /// Serves what is in a directory: files with their times (but for 1970, which is none), repositories `NAME.git` as
    /// `/git/NAME.git`, and in place of a symbolic link, a redirect to where it leads. An `index.html` is what its directory is, too.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn serve_directory(&self, root: &Path) -> io::Result<()> {
        let is_repository = |entry: &walkdir::DirEntry| entry.file_name().as_bytes().ends_with(b".git");
        for entry in WalkDir::new(root).into_iter().filter_entry(|entry| !is_repository(entry)) {
            let entry = entry?;
            let below = entry.path().strip_prefix(root).map_err(io::Error::other)?;
            let path = format!("/{}", below.display());
            if entry.path_is_symlink() {
                self.redirect(&path, &fs::read_link(entry.path())?.to_string_lossy());
            } else if entry.file_type().is_file() {
                let validators = match entry.metadata()?.mtime() {
                    0 => Validators::None,
                    seconds => Validators::Date(http_date(seconds.unsigned_abs())),
                };
                let body = fs::read(entry.path())?;
                if let Some(directory) = path.strip_suffix("index.html") {
                    self.put_with(directory, &body, validators.clone());
                }
                self.put_with(&path, &body, validators);
            }
        }
        self.serve_repositories(root, None);
        Ok(())
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

    /// Serves the bare repositories of a directory below `/git/`, by `git http-backend`; only to whoever sends `authorization`, if there is
    /// one. Below `/old-git/`, they are served as before there was version 2 of the protocol.
    pub fn serve_repositories(&self, root: &Path, authorization: Option<&str>) {
        for prefix in ["/git", "/old-git"] {
            self.serve_repositories_at(prefix, root, authorization);
        }
    }

    fn serve_repositories_at(&self, prefix: &'static str, root: &Path, authorization: Option<&str>) {
        let (root, authorization) = (root.to_owned(), authorization.map(ToOwned::to_owned));
        let shared = Arc::clone(&self.shared);
        self.server.on(&format!("{prefix}/"), move |seen, exchange| {
            if authorization.as_deref().is_some_and(|wanted| seen.header("authorization") != Some(wanted)) {
                return exchange.respond(401, &[("WWW-Authenticate", "Basic realm=\"git\"")], b"");
            }
            let answer = git_backend(&root, prefix, seen)?;
            shared.sent_bytes.fetch_add(answer.body.len() as u64, Ordering::SeqCst);
            let headers: Vec<(&str, &str)> =
                answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            exchange.respond(answer.status, &headers, &answer.body)
        });
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
                Validators::Date(date) => ("Last-Modified", date, "if-modified-since"),
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

/// Seconds since 1970 as HTTP writes them (RFC 9110, "IMF-fixdate").
fn http_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [(&str, u64); 12] = [
        ("Jan", 31),
        ("Feb", 28),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
        ("Dec", 31),
    ];
    let (day, time) = (seconds / 86400, seconds % 86400);
    let weekday = DAYS[usize::try_from(day % 7).expect("seven fit")];
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut rest) = (1970, day);
    while rest >= 365 + u64::from(is_leap(year)) {
        rest -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut months = MONTHS.into_iter();
    let month = loop {
        let (name, days) = months.next().expect("the year has an end");
        let days = days + u64::from(name == "Feb" && is_leap(year));
        if rest < days {
            break name;
        }
        rest -= days;
    };
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{weekday}, {:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT", rest + 1)
}

/// What a CGI program answers.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Runs `git http-backend` for one request (RFC 3875).
fn git_backend(root: &Path, prefix: &str, seen: &Seen) -> io::Result<Answer> {
    let header = |name: &str| seen.header(name).unwrap_or_default().to_owned();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_PROTOCOL", if prefix == "/git" { header("git-protocol") } else { String::new() })
        .env("PATH_INFO", seen.path.trim_start_matches(prefix))
        .env("QUERY_STRING", &seen.query)
        .env("REQUEST_METHOD", &seen.method)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", seen.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    stdin.write_all(&seen.body)?;
    drop(stdin);
    let output = child.wait_with_output()?.stdout;
    let end = output.windows(4).position(|four| four == b"\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    let mut headers: Vec<(String, String)> =
        headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let status = headers.iter().position(|(name, _)| name == "Status").map(|at| headers.remove(at).1);
    let status = status.and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(200);
    Ok(Answer { status, headers, body: output[end + 4..].to_vec() })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_http_writes_them() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(951_782_399), "Mon, 28 Feb 2000 23:59:59 GMT");
        assert_eq!(http_date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(http_date(1_767_225_599), "Wed, 31 Dec 2025 23:59:59 GMT");
    }
}
