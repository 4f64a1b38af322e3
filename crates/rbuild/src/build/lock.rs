//! `--lock` and `--locked`: what each name meant, written down, and taken as written.
//!
//! A name is an image's, a URL's, or that of a repository's branch or tag, wherever it stands: in the Dockerfile, in an ONBUILD of an
//! image, on the command line. The file lies beside the Dockerfile, since that is what has the names.

mod file;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dockerfile::Source;
use oci::{Digest, Platform, Reference};
use plan::{ImageError, ImageErrorCause, RemoteError, RemoteErrorCause};
use source::git::Commit;

use self::file::Lock;
pub(crate) use self::file::LockedImage;
use crate::build::dockerfile::{Dockerfile, NAMES, read_bounded};
use crate::build::input::{Names, Place, STDIN};
use crate::build::output::write_file;
use crate::cli::{PullPolicy, StepArgs};
use crate::commands::pull;
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};

/// The file of a Dockerfile that has one of the usual names, and what stands behind any other name.
const FILE: &str = "rbuild.lock";

/// What names mean: what a lock file says, or what is found out and may be written to one.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    locked: Option<Locked>,
    found: Mutex<Lock>,
}

/// A lock file that is gone by.
#[derive(Debug)]
struct Locked {
    path: PathBuf,
    lock: Lock,
    /// How to write it anew.
    update: String,
}

impl Pins {
    /// Reads the file of `--locked`, if that is given.
    pub(crate) fn of(args: &StepArgs, context: &Path) -> Result<Self, Failure> {
        let Some(given) = &args.locked else { return Ok(Self::default()) };
        let path = place("--locked", given.as_deref(), args.names(context))?;
        let lock = read(&path, given.is_some())?;
        let update =
            given.as_ref().map_or_else(|| "--lock".to_owned(), |_| format!("--lock={}", path.display()));
        Ok(Self { locked: Some(Locked { path, lock, update }), found: Mutex::default() })
    }

    /// What an image's name is to mean, if that is written down.
    pub(crate) fn image(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<&LockedImage>, ImageError> {
        let Some(locked) = &self.locked else { return Ok(None) };
        let key = image_key(reference, platform);
        locked.lock.images.get(&key).map(Some).ok_or_else(|| {
            let (name, platform) = &key;
            let message = format!("`{name}` for {platform} is not in `{}`", locked.path.display());
            let notes = std::iter::once(message.clone()).chain(locked.other_platforms(name)).collect();
            ImageError { cause: ImageErrorCause::NotFound, message, notes, help: Some(locked.help()) }
        })
    }

    /// Which of these contents a URL is to have, if that is written down; `shown` is the URL without its query.
    pub(crate) fn file(&self, shown: &str) -> Result<Option<Vec<&Digest>>, RemoteError> {
        let Some(locked) = &self.locked else { return Ok(None) };
        let found = locked.lock.files.get(&url_key(shown));
        found.map(|digests| Some(digests.iter().collect())).ok_or_else(|| locked.lacks(shown))
    }

    /// Which commit a repository's URL is to mean, if that is written down.
    pub(crate) fn commit(&self, url: &str) -> Result<Option<&Commit>, RemoteError> {
        let Some(locked) = &self.locked else { return Ok(None) };
        locked.lock.commits.get(&url_key(url)).map(Some).ok_or_else(|| locked.lacks(url))
    }

    /// How to let the file say what is so now; `None` if no file is gone by.
    pub(crate) fn help(&self) -> Option<String> {
        self.locked.as_ref().map(Locked::help)
    }

    /// That a URL stands for something else than is written down.
    pub(crate) fn differs(&self, shown: &str, got: &Digest) -> RemoteError {
        let path = self.locked.as_ref().map_or_else(|| Path::new(FILE), |locked| &locked.path);
        RemoteError {
            cause: RemoteErrorCause::Checksum,
            message: format!("`{shown}` has the digest {got}, which is not in `{}`", path.display()),
            notes: Vec::new(),
            help: self.help(),
        }
    }

    pub(crate) fn found_image(&self, reference: &Reference, platform: &Platform, found: LockedImage) {
        self.found().images.insert(image_key(reference, platform), found);
    }

    pub(crate) fn found_file(&self, shown: &str, digest: &Digest) {
        self.found().files.entry(url_key(shown)).or_default().insert(digest.clone());
    }

    pub(crate) fn found_commit(&self, url: &str, commit: &Commit) {
        self.found().commits.insert(url_key(url), commit.clone());
    }

    /// Writes all that was found; a file that says that already stays as it is. Gives how many names it has.
    pub(crate) fn write(&self, path: &Path) -> Result<usize, Failure> {
        let lock = self.found().clone();
        let text = lock.to_text();
        if !fs::read(path).is_ok_and(|before| before == text.as_bytes()) {
            write_file(path, text.as_bytes())?;
        }
        Ok(lock.images.len() + lock.commits.len() + lock.files.len())
    }

    fn found(&self) -> MutexGuard<'_, Lock> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Locked {
    fn help(&self) -> String {
        format!("the same build with `{}` in place of `--locked` writes what is so now", self.update)
    }

    fn other_platforms(&self, name: &str) -> Option<String> {
        let images = self.lock.images.keys().filter(|(other, _)| other == name);
        let platforms: Vec<&str> = images.map(|(_, platform)| platform.as_str()).collect();
        (!platforms.is_empty()).then(|| format!("it is there for {}", platforms.join(", ")))
    }

    fn lacks(&self, name: &str) -> RemoteError {
        RemoteError {
            cause: RemoteErrorCause::Refused,
            message: format!("`{name}` is not in `{}`", self.path.display()),
            notes: Vec::new(),
            help: Some(self.help()),
        }
    }
}

/// When a registry is asked. Somebody who insists on asking cannot mean `--locked`.
pub(crate) fn pull_policy(args: &StepArgs) -> Result<PullPolicy, Failure> {
    match pull::policy(args.pull, args.offline)? {
        PullPolicy::Always | PullPolicy::Newer if args.locked.is_some() => {
            let title = "`--pull` asks what names mean now, and `--locked` takes what they meant";
            let help = "leave out one of the two; `--pull --lock` writes down what they mean now";
            Err(Failure::usage(title, help))
        }
        policy => Ok(policy),
    }
}

/// Where the lock file of a build is: where it is said to be, or else beside the Dockerfile, as `rbuild.lock`, or `NAME.rbuild.lock` for one
/// with a name of its own, so that several in one directory do not overwrite each other's.
pub(crate) fn place(option: &str, given: Option<&Path>, names: Names<'_>) -> Result<PathBuf, Failure> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let is_here = matches!(Place::of(names.context)?, Place::Directory(_));
    let is_stdin = names.file == Some(Path::new(STDIN));
    let dockerfile = Dockerfile::find(names.file, names.context);
    // A pipe of the shell's lies nowhere.
    let is_file = !fs::metadata(&dockerfile).is_ok_and(|found| !found.is_file());
    if is_stdin || !is_here || !is_file {
        let title =
            format!("`{option}` needs the name of a file, since the Dockerfile is no file of this machine");
        let help = format!("write it as `{option}=FILE`");
        return Err(Failure::usage(title, help));
    }
    let name = dockerfile.file_name().unwrap_or_default().to_string_lossy();
    let is_usual = NAMES.contains(&name.as_ref());
    let path = dockerfile.with_file_name(if is_usual { FILE.to_owned() } else { format!("{name}.{FILE}") });
    // As a person writes it.
    Ok(path.strip_prefix(".").map_or_else(|_| path.clone(), Path::to_owned))
}

fn read(path: &Path, is_named: bool) -> Result<Lock, Failure> {
    let shown = path.display();
    let bytes = fs::File::open(path).and_then(read_bounded).map_err(|error| {
        let diagnostic = Diagnostic::error("no-lock", format!("cannot read the lock file `{shown}`"));
        let option = if is_named { format!("--lock={shown}") } else { "--lock".to_owned() };
        let help = match error.kind() {
            io::ErrorKind::NotFound => {
                format!("the same build with `{option}` in place of `--locked` writes one")
            }
            _ => "it must be a file that can be read".to_owned(),
        };
        Failure::new(Exit::Usage, diagnostic.note(error.to_string()).help(help))
    })?;
    let source = Arc::new(Source::new(shown.to_string(), &bytes));
    let fails = |diagnostic: Diagnostic| {
        let help = "take the version before, or write it anew with `--lock` in place of `--locked`";
        Failure::new(Exit::Build, diagnostic.help(help))
    };
    if source.dropped_bytes() > 0 {
        let title = format!("`{shown}` is larger than {} bytes", dockerfile::MAX_SOURCE_BYTES);
        return Err(fails(Diagnostic::error("bad-lock", title)));
    }
    Lock::parse(&source).map_err(|wrong| {
        let title = format!("`{shown}` is no lock file that can be used");
        fails(Diagnostic::error("bad-lock", title).at(&source, wrong.span, wrong.what))
    })
}

fn image_key(reference: &Reference, platform: &Platform) -> (String, String) {
    (reference.familiar(), platform.to_string())
}

/// A URL as it stands on a line.
fn url_key(url: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    url.chars().map(escaped).collect()
}
