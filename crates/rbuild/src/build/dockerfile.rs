//! The Dockerfile of a build, wherever it lies.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dockerfile::Source;
use sys::{Root, RootfsPath};

use crate::build::Place;
use crate::build::input::Names;
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};
use crate::lint::{self, Judge};

/// What a Dockerfile is called where `--file` names none; the first that is there.
pub(crate) const NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// A Dockerfile, parsed.
pub(crate) struct Dockerfile {
    /// What the build's records go under: the canonical path, or where else it came from.
    pub(crate) path: PathBuf,
    pub(crate) source: Arc<Source>,
    /// The tree, perhaps with errors, and every finding of the parser.
    pub(crate) parsed: dockerfile::Parsed,
}

impl Dockerfile {
    /// Reads `file`, else one of [`NAMES`] in the context.
    pub(crate) fn read(file: Option<&Path>, context: &Path) -> Result<Self, Failure> {
        let found = &Self::find(file, context);
        // Named pipes too: a shell gives one for `-f <(…)`.
        let bytes = std::fs::File::open(found)
            .and_then(read_bounded)
            .map_err(|error| not_found(found, file, context, &error))?;
        let path = std::fs::canonicalize(found).unwrap_or_else(|_| found.clone());
        Ok(Self::parse(&name_of(found), path, &bytes))
    }

    /// `file`, else the one of [`NAMES`] that is in the context; the first if none is.
    pub(crate) fn find(file: Option<&Path>, context: &Path) -> PathBuf {
        let candidates = || NAMES.iter().map(|name| context.join(name));
        let found = || candidates().find(|path| path.exists()).unwrap_or_else(|| context.join(NAMES[0]));
        file.map_or_else(found, Path::to_owned)
    }

    /// Reads `file`, else one of [`NAMES`], in a context that was unpacked. Its links lead to files of the context only. Also gives where
    /// in the context it lies.
    pub(crate) fn read_in(
        context: &Path,
        scope: PathBuf,
        names: Names<'_>,
    ) -> Result<(Self, PathBuf), Failure> {
        let file = names.file;
        let candidates = match file {
            Some(file) => vec![file.to_owned()],
            None => NAMES.map(PathBuf::from).to_vec(),
        };
        let mut failed: Option<(PathBuf, io::Error)> = None;
        for name in candidates {
            // `/x` and `../x` are `x`: there is nothing above such a context.
            let path = RootfsPath::parse_clamped(name.as_os_str().as_bytes())
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename));
            match path.and_then(|path| Ok((read_below(context, &path)?, path))) {
                Ok((bytes, path)) => {
                    return Ok((Self::parse(&name_of(&name), scope, &bytes), path.as_relative().into()));
                }
                // One that is there and cannot be read says more than one that is not.
                Err(error) => match &failed {
                    Some((_, before))
                        if before.kind() != io::ErrorKind::NotFound
                            || error.kind() == io::ErrorKind::NotFound => {}
                    _ => failed = Some((name, error)),
                },
            }
        }
        let (name, error) = failed.expect("there is at least one candidate");
        Err(not_found(&name, file, names.context, &error))
    }

    /// Parses a Dockerfile; `name` is what messages call it.
    pub(crate) fn parse(name: &str, path: PathBuf, bytes: &[u8]) -> Self {
        let source = Arc::new(Source::new(name, bytes));
        let parsed = dockerfile::parse(&source);
        Self { path, source, parsed }
    }

    /// Fails, telling everything that was found, if the tree is not complete.
    pub(crate) fn must_be_whole(&self, judge: &Judge) -> Result<(), Failure> {
        if self.parsed.has_errors() {
            return Err(Failure { exit: Exit::Build, diagnostics: lint::of_broken(self, judge) });
        }
        Ok(())
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| NAMES[0].to_owned(), |name| name.to_string_lossy().into_owned())
}

fn read_below(context: &Path, name: &RootfsPath) -> io::Result<Vec<u8>> {
    let file = Root::open(context)?.open_file(name)?;
    // What an archive makes a device may be one of ours.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    read_bounded(file)
}

/// No more than the parser needs to see that it is too much.
pub(crate) fn read_bounded(file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(dockerfile::MAX_SOURCE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn not_found(path: &Path, file: Option<&Path>, context: &Path, error: &io::Error) -> Failure {
    let title = format!("cannot read the Dockerfile `{}`", path.display());
    let mut diagnostic = Diagnostic::error("no-dockerfile", title).note(error.to_string());
    diagnostic.help = Some(match file {
        Some(_) if Place::of(context).is_ok_and(|place| place.is_elsewhere()) => {
            "`--file` is relative to the root of a context that is not a directory here".to_owned()
        }
        Some(_) => "`--file` is relative to the directory you are in, not to the context".to_owned(),
        None => format!("name it with `--file`, or give another context than `{}`", context.display()),
    });
    Failure::new(Exit::Usage, diagnostic)
}
