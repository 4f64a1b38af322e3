//! Where a build takes its Dockerfile and its contexts from: a directory of this machine, standard input, a URL, or a
//! repository.
//!
//! What does not lie here is written into the lease's private area, and from there on is a directory like any other; it goes with the
//! lease.

pub(crate) mod archive;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use context::{Context, Ignore};
use plan::{BuildArg, GitDir, Remote, RemoteContent, RemoteKind, RemoteRequest};

use crate::build::dockerfile::Dockerfile;
use crate::build::errors;
use crate::build::fetch::Fetcher;
use crate::diagnostic::Diagnostic;
use crate::environment::{Environment, is_true};
use crate::failure::{Exit, Failure};
use crate::session::{Session, store_failure};

/// What the command line calls standard input, and what records of a Dockerfile from there go under.
pub(crate) const STDIN: &str = "-";

/// The build argument by which a repository that is the context keeps its `.git`.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

/// Bytes copied between two looks at whether to go on.
const COPY_BYTES: usize = 128 << 10;

/// A build's Dockerfile, and its main context.
pub(crate) struct Input {
    pub(crate) dockerfile: Dockerfile,
    pub(crate) context: ContextDir,
    /// What the context was unpacked from, if it came on standard input.
    pub(crate) archive: Option<PathBuf>,
}

/// What the command line names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'n> {
    /// The Dockerfile, unless it has one of the usual names.
    pub(crate) file: Option<&'n Path>,
    pub(crate) context: &'n Path,
    /// What is left out of the context, unless the file has one of the usual names.
    pub(crate) ignore_file: Option<&'n Path>,
}

/// Where a context comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// A directory of this machine.
    Directory(PathBuf),
    /// Standard input.
    Stdin,
    /// A file over HTTP.
    File(String),
    /// A git repository.
    Repository(String),
}

/// A directory of this machine that COPY takes files from.
#[derive(Clone, Debug)]
pub(crate) struct ContextDir {
    path: PathBuf,
    /// A Dockerfile beside which an ignore file may lie.
    dockerfile: Option<PathBuf>,
    /// The ignore file, if it is to be this one.
    ignore_file: Option<PathBuf>,
    lifetime: Lifetime,
}

/// How long a context stays where it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lifetime {
    /// It is the user's: what was read of it may be remembered.
    Lasting,
    /// It goes with the lease.
    OfThisBuild,
}

impl Input {
    /// Reads a Dockerfile and takes the directory that it is for, both of this machine.
    pub(crate) fn of_machine(names: Names<'_>) -> Result<Self, Failure> {
        let mut input = Self::of_directory_here(names.file, names.context)?;
        input.context.ignore_file = names.ignore_file.map(Path::to_owned);
        Ok(input)
    }

    fn of_directory_here(file: Option<&Path>, context: &Path) -> Result<Self, Failure> {
        let dockerfile = Dockerfile::read(file, context)?;
        let context = ContextDir::lasting(context, Some(dockerfile.path.clone()));
        Ok(Self { dockerfile, context, archive: None })
    }

    /// Reads what the command line names.
    pub(crate) fn read(
        names: Names<'_>,
        build_args: &[BuildArg],
        session: &Session,
        fetcher: &Fetcher<'_>,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let mut input = Self::find(names, git_dir(build_args), session, fetcher, environment)?;
        input.context.ignore_file = names.ignore_file.map(Path::to_owned);
        Ok(input)
    }

    fn find(
        names: Names<'_>,
        git_dir: GitDir,
        session: &Session,
        fetcher: &Fetcher<'_>,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let place = Place::of(names.context)?;
        let reads_dockerfile = names.file == Some(Path::new(STDIN));
        if reads_dockerfile && matches!(place, Place::Stdin) {
            return Err(Failure::usage(
                "the Dockerfile and the context cannot both come from standard input",
                "`rbuild build -` reads a Dockerfile, or an archive that has one",
            ));
        }
        let given = match reads_dockerfile {
            true => Some(read_all(&mut stdin(environment)?, session)?),
            false => None,
        };
        match place {
            Place::Stdin => {
                let path = scratch(session)?.join("stdin");
                let mut file = File::create_new(&path).map_err(|error| machine(&path, &error))?;
                copy(&mut stdin(environment)?, &mut file, session)?;
                let input = Self::of_file(&path, PathBuf::from(STDIN), None, names, session)?;
                Ok(Self { archive: Some(path), ..input })
            }
            Place::File(url) => {
                let path = fetch_file(&url, session, fetcher)?;
                Self::of_file(&path, PathBuf::from(url), given, names, session)
            }
            Place::Repository(url) => {
                let directory = fetch_repository(&url, git_dir, session, fetcher)?;
                Self::of_directory(directory, PathBuf::from(url), given, names)
            }
            Place::Directory(path) => match given {
                Some(text) => {
                    let dockerfile = Dockerfile::parse("Dockerfile", PathBuf::from(STDIN), &text);
                    Ok(Self { dockerfile, context: ContextDir::lasting(&path, None), archive: None })
                }
                None => Self::of_directory_here(names.file, &path),
            },
        }
    }

    /// Takes a file that came from elsewhere for what it is: an archive is the context, and anything else the Dockerfile of a build
    /// without one. `given` is a Dockerfile that came in another way.
    fn of_file(
        path: &Path,
        origin: PathBuf,
        given: Option<Vec<u8>>,
        names: Names<'_>,
        session: &Session,
    ) -> Result<Self, Failure> {
        let directory = scratch(session)?;
        let failed = |error: io::Error| machine(path, &error);
        if archive::is_one(path).map_err(failed)? {
            archive::unpack(path, &directory, &origin)?;
            return Self::of_directory(directory, origin, given, names);
        }
        if let Some(file) = names.file {
            return Err(Failure::usage(
                format!("both `--file {}` and `{}` are a Dockerfile", file.display(), origin.display()),
                "leave out `--file`, or give an archive that has the file in it",
            ));
        }
        let text = std::fs::read(path).map_err(failed)?;
        let dockerfile = Dockerfile::parse("Dockerfile", origin, &text);
        Ok(Self { dockerfile, context: ContextDir::passing(directory, None), archive: None })
    }

    /// A context that was written out here, with its Dockerfile in it unless that is `given`.
    fn of_directory(
        directory: PathBuf,
        origin: PathBuf,
        given: Option<Vec<u8>>,
        names: Names<'_>,
    ) -> Result<Self, Failure> {
        if let Some(text) = given {
            let dockerfile = Dockerfile::parse("Dockerfile", PathBuf::from(STDIN), &text);
            return Ok(Self { dockerfile, context: ContextDir::passing(directory, None), archive: None });
        }
        let (dockerfile, name) = Dockerfile::read_in(&directory, origin, names)?;
        let beside = directory.join(name);
        Ok(Self { dockerfile, context: ContextDir::passing(directory, Some(beside)), archive: None })
    }
}

impl Place {
    /// What a context is called on the command line.
    pub(crate) fn of(path: &Path) -> Result<Self, Failure> {
        let text = path.to_string_lossy();
        // Docker takes it without a scheme, too. A directory of that name is what the user sees.
        let is_short = text.starts_with("github.com/") && !path.exists();
        let text = if is_short { on_github(&text) } else { text.into_owned() };
        if text == STDIN {
            return Ok(Self::Stdin);
        }
        match RemoteKind::of(&text) {
            Some(RemoteKind::Repository) => Ok(Self::Repository(text)),
            Some(RemoteKind::File) => Ok(Self::File(text)),
            None if text.contains("://") && !path.exists() => Err(Failure::usage(
                format!("`{text}` is no context of a known kind"),
                "a context is a directory, `-`, an http or https URL, or a git repository by https, http, git or ssh",
            )),
            None => Ok(Self::Directory(path.to_owned())),
        }
    }

    /// Whether it is none of the user's directories.
    pub(crate) fn is_elsewhere(&self) -> bool {
        !matches!(self, Self::Directory(_))
    }

    /// Writes a context that is to be fetched, or gives the directory that it is.
    pub(crate) fn named(&self, session: &Session, fetcher: &Fetcher<'_>) -> Result<ContextDir, Failure> {
        match self {
            Self::Directory(path) => Ok(ContextDir::lasting(path, None)),
            Self::Repository(url) => {
                let directory = fetch_repository(url, GitDir::Dropped, session, fetcher)?;
                Ok(ContextDir::passing(directory, None))
            }
            // As it is, under a name of its own: so the reference builder has it.
            Self::File(url) => {
                let file = fetch_file(url, session, fetcher)?;
                let directory = scratch(session)?;
                let target = directory.join("context");
                std::fs::rename(&file, &target).map_err(|error| machine(&target, &error))?;
                Ok(ContextDir::passing(directory, None))
            }
            Self::Stdin => Err(Failure::usage(
                "a named context cannot come from standard input",
                "give a directory, a URL or a git repository",
            )),
        }
    }
}

/// `github.com/o/r#ref` as a URL of a repository.
fn on_github(text: &str) -> String {
    let (path, rest) = text.find(['#', '?']).map_or((text, ""), |at| text.split_at(at));
    format!("https://{}.git{rest}", path.trim_end_matches('/').trim_end_matches(".git"))
}

/// Whether the main context keeps its `.git`; what is not understood means no, as it does to BuildKit.
fn git_dir(build_args: &[BuildArg]) -> GitDir {
    let mut given = build_args.iter().rev().filter(|arg| arg.name == KEEP_GIT_DIR);
    match given.find_map(|arg| arg.value.as_deref()) {
        Some(value) if is_true(value) => GitDir::Kept,
        _ => GitDir::Dropped,
    }
}

/// The file behind a URL.
fn fetch_file(url: &str, session: &Session, fetcher: &Fetcher<'_>) -> Result<PathBuf, Failure> {
    let request = RemoteRequest::File { url: url.to_owned(), checksum: None };
    let (directory, content) = fetch(request, session, fetcher)?;
    Ok(directory.join(content.file_name.unwrap_or_default()))
}

/// A directory with what a URL means of a repository.
fn fetch_repository(
    url: &str,
    git_dir: GitDir,
    session: &Session,
    fetcher: &Fetcher<'_>,
) -> Result<PathBuf, Failure> {
    let request = RemoteRequest::Repository { url: url.to_owned(), checksum: None, git_dir };
    fetch(request, session, fetcher).map(|(directory, _)| directory)
}

fn fetch(
    request: RemoteRequest,
    session: &Session,
    fetcher: &Fetcher<'_>,
) -> Result<(PathBuf, RemoteContent), Failure> {
    let is_cancelled = || session.cancel.is_cancelled();
    let fetcher = fetcher.of_user();
    let fetched = fetcher.resolve(&request).and_then(|content| {
        let remote = Remote { request, content };
        let into = fetcher.scratch()?;
        let directory = fetcher.write(&remote, &into, &is_cancelled)?;
        Ok((directory, remote.content))
    });
    fetched.map_err(|error| errors::of_remote(&error))
}

impl ContextDir {
    /// A directory that was written for this build.
    fn passing(path: PathBuf, dockerfile: Option<PathBuf>) -> Self {
        Self { path, dockerfile, ignore_file: None, lifetime: Lifetime::OfThisBuild }
    }

    /// A directory of the user's.
    pub(crate) fn lasting(path: &Path, dockerfile: Option<PathBuf>) -> Self {
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        Self { path, dockerfile, ignore_file: None, lifetime: Lifetime::Lasting }
    }

    /// Reads its ignore file and opens it for a build.
    pub(crate) fn open(&self, session: &Session) -> Result<Context, Failure> {
        let cache = session.store().context_path(&self.path.to_string_lossy());
        let cache = (self.lifetime == Lifetime::Lasting).then_some(cache);
        self.open_with(cache.as_deref())
    }

    /// The same for somebody who looks at names only, and needs no memory of what was read.
    pub(crate) fn open_briefly(&self) -> Result<Context, Failure> {
        self.open_with(None)
    }

    fn open_with(&self, stat_cache: Option<&Path>) -> Result<Context, Failure> {
        let ignore = match &self.ignore_file {
            None => Ignore::find(&self.path, self.dockerfile.as_deref()),
            Some(file) => match Ignore::read(&self.path, file) {
                Ok(None) => {
                    let title = format!("there is no ignore file `{}`", file.display());
                    return Err(Failure::usage(&title, "check the path behind `--ignorefile`"));
                }
                found => found.map(Option::unwrap_or_default),
            },
        };
        let ignore = ignore.map_err(|error| errors::of_ignore(&error))?;
        Context::open(&self.path, ignore, stat_cache).map_err(|error| errors::of_context(&error))
    }
}

fn scratch(session: &Session) -> Result<PathBuf, Failure> {
    session.lease.scratch_dir().map_err(|error| store_failure(&error))
}

/// Standard input, unless nobody has directed anything there.
fn stdin(environment: &Environment) -> Result<io::StdinLock<'static>, Failure> {
    if environment.stdin_is_terminal {
        return Err(Failure::usage(
            "standard input is a terminal, neither a Dockerfile nor an archive",
            "direct a file there: `rbuild build - < Dockerfile`",
        ));
    }
    Ok(io::stdin().lock())
}

fn read_all(from: &mut impl Read, session: &Session) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    copy(from, &mut bytes, session)?;
    Ok(bytes)
}

/// Copies to the end, unless the build is cancelled.
fn copy(from: &mut impl Read, to: &mut impl Write, session: &Session) -> Result<(), Failure> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        if session.cancel.is_cancelled() {
            return Err(Failure::cancelled());
        }
        let moved = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        };
        moved.map_err(|error| machine(Path::new("standard input"), &error))?;
    }
}

fn machine(path: &Path, error: &io::Error) -> Failure {
    let diagnostic = match errors::is_disk_full(error) {
        true => errors::no_space(error),
        false => Diagnostic::error("machine", format!("cannot read `{}`", path.display())),
    };
    Failure::new(Exit::Machine, diagnostic.note(error.to_string()))
}
