//! Where a build takes its Dockerfile and its contexts from: directories of this machine, or standard input.
//!
//! What comes as a stream is written into the lease's private area, and from there on is a directory like any other; it goes with the
//! lease.

mod archive;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use context::{Context, Ignore};

use crate::build::dockerfile::Dockerfile;
use crate::build::errors;
use crate::cli::BuildArgs;
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::session::{Session, store_failure};

/// What the command line calls standard input, and what records of a Dockerfile from there go under.
pub(crate) const STDIN: &str = "-";

/// Bytes copied between two looks at whether to go on.
const COPY_BYTES: usize = 128 << 10;

/// A build's Dockerfile, and its main context.
pub(crate) struct Input {
    pub(crate) dockerfile: Dockerfile,
    pub(crate) context: ContextDir,
}

/// A directory of this machine that COPY takes files from.
#[derive(Clone, Debug)]
pub(crate) struct ContextDir {
    path: PathBuf,
    /// A Dockerfile beside which an ignore file may lie.
    dockerfile: Option<PathBuf>,
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
    /// Reads what the command line names.
    pub(crate) fn read(
        args: &BuildArgs,
        session: &Session,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let file_is_stdin = args.file.as_deref() == Some(Path::new(STDIN));
        match (args.context == Path::new(STDIN), file_is_stdin) {
            (true, true) => Err(usage(
                "the Dockerfile and the context cannot both come from standard input",
                "`rbuild build -` reads a Dockerfile, or an archive that has one",
            )),
            (true, false) => Self::from_stdin(args, session, environment),
            (false, true) => {
                let text = read_all(&mut stdin(environment)?, session)?;
                let dockerfile = Dockerfile::parse("Dockerfile", PathBuf::from(STDIN), &text)?;
                Ok(Self { dockerfile, context: ContextDir::lasting(&args.context, None) })
            }
            (false, false) => {
                let dockerfile = Dockerfile::read(args)?;
                let context = ContextDir::lasting(&args.context, Some(dockerfile.path.clone()));
                Ok(Self { dockerfile, context })
            }
        }
    }

    /// An archive is the context; anything else is the Dockerfile of a build without one.
    fn from_stdin(args: &BuildArgs, session: &Session, environment: &Environment) -> Result<Self, Failure> {
        let scratch = scratch(session)?;
        let path = scratch.join("stdin");
        let mut file = File::create_new(&path).map_err(|error| machine(&path, &error))?;
        copy(&mut stdin(environment)?, &mut file, session)?;
        Self::of_file(&path, PathBuf::from(STDIN), args, session)
    }

    /// Takes a file that came from elsewhere for what it is; `origin` is where from.
    fn of_file(path: &Path, origin: PathBuf, args: &BuildArgs, session: &Session) -> Result<Self, Failure> {
        let directory = scratch(session)?;
        let failed = |error: io::Error| machine(path, &error);
        if archive::is_one(path).map_err(failed)? {
            archive::unpack(path, &directory, &origin)?;
            let (dockerfile, name) = Dockerfile::read_in(&directory, origin, args)?;
            let beside = directory.join(name);
            let context =
                ContextDir { path: directory, dockerfile: Some(beside), lifetime: Lifetime::OfThisBuild };
            return Ok(Self { dockerfile, context });
        }
        if let Some(file) = &args.file {
            return Err(usage(
                &format!("both `--file {}` and `{}` are a Dockerfile", file.display(), origin.display()),
                "leave out `--file`, or give an archive that has the file in it",
            ));
        }
        let mut text = Vec::new();
        File::open(path).and_then(|mut file| file.read_to_end(&mut text)).map_err(failed)?;
        let dockerfile = Dockerfile::parse("Dockerfile", origin, &text)?;
        let context = ContextDir { path: directory, dockerfile: None, lifetime: Lifetime::OfThisBuild };
        Ok(Self { dockerfile, context })
    }
}

impl ContextDir {
    /// A directory of the user's.
    pub(crate) fn lasting(path: &Path, dockerfile: Option<PathBuf>) -> Self {
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        Self { path, dockerfile, lifetime: Lifetime::Lasting }
    }

    /// Reads its ignore file and opens it.
    pub(crate) fn open(&self, session: &Session) -> Result<Context, Failure> {
        let ignore = Ignore::find(&self.path, self.dockerfile.as_deref());
        let ignore = ignore.map_err(|error| errors::of_ignore(&error))?;
        let cache = session.store().context_path(&self.path.to_string_lossy());
        let cache = (self.lifetime == Lifetime::Lasting).then_some(cache);
        Context::open(&self.path, ignore, cache.as_deref()).map_err(|error| errors::of_context(&error))
    }
}

fn scratch(session: &Session) -> Result<PathBuf, Failure> {
    session.lease.scratch_dir().map_err(|error| store_failure(&error))
}

/// Standard input, unless nobody has directed anything there.
fn stdin(environment: &Environment) -> Result<io::StdinLock<'static>, Failure> {
    if environment.stdin_is_terminal {
        return Err(usage(
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

fn usage(title: &str, help: &str) -> Failure {
    Failure::new(Exit::Usage, Diagnostic::error("usage", title).help(help))
}

fn machine(path: &Path, error: &io::Error) -> Failure {
    let diagnostic = match errors::is_disk_full(error) {
        true => errors::no_space(error),
        false => Diagnostic::error("machine", format!("cannot read `{}`", path.display())),
    };
    Failure::new(Exit::Machine, diagnostic.note(error.to_string()))
}
