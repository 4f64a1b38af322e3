//! The Dockerfile of a build, wherever it lies.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dockerfile::Source;
use sys::{Root, RootfsPath};

use crate::build::errors;
use crate::cli::BuildArgs;
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};

/// What a Dockerfile is called where `--file` names none; the first that is there.
const NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// A Dockerfile, parsed.
pub(crate) struct Dockerfile {
    /// What the build's records go under: the canonical path, or where else it came from.
    pub(crate) path: PathBuf,
    pub(crate) source: Arc<Source>,
    pub(crate) file: dockerfile::File,
    /// Warnings only: errors end the reading.
    pub(crate) findings: Vec<dockerfile::Finding>,
}

impl Dockerfile {
    /// Reads `--file`, else one of [`NAMES`] in the context.
    pub(crate) fn read(args: &BuildArgs) -> Result<Self, Failure> {
        let candidates = match &args.file {
            Some(file) => vec![file.clone()],
            None => NAMES.map(|name| args.context.join(name)).to_vec(),
        };
        let found = candidates.iter().find(|path| path.exists()).unwrap_or(&candidates[0]);
        let bytes = std::fs::read(found).map_err(|error| not_found(found, args, &error))?;
        let path = std::fs::canonicalize(found).unwrap_or_else(|_| found.clone());
        Self::parse(&name_of(found), path, &bytes)
    }

    /// Reads `--file`, else one of [`NAMES`], in a context that was unpacked. Its links lead to files of the context only. Also gives where
    /// in the context it lies.
    pub(crate) fn read_in(
        context: &Path,
        scope: PathBuf,
        args: &BuildArgs,
    ) -> Result<(Self, PathBuf), Failure> {
        let candidates = match &args.file {
            Some(file) => vec![file.clone()],
            None => NAMES.map(PathBuf::from).to_vec(),
        };
        let mut first = None;
        for name in candidates {
            match read_below(context, &name) {
                Ok(bytes) => return Ok((Self::parse(&name_of(&name), scope, &bytes)?, name)),
                Err(error) => drop(first.get_or_insert((name, error))),
            }
        }
        let (name, error) = first.expect("there is at least one candidate");
        Err(not_found(&name, args, &error))
    }

    /// Parses a Dockerfile; `name` is what messages call it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn parse(name: &str, path: PathBuf, bytes: &[u8]) -> Result<Self, Failure> {
        let source = Arc::new(Source::new(name, bytes));
        let parsed = dockerfile::parse(&source);
        if parsed.has_errors() {
            let diagnostics =
                parsed.findings.iter().map(|finding| errors::of_finding(finding, &source)).collect();
            return Err(Failure { exit: Exit::Build, diagnostics });
        }
        Ok(Self { path, source, file: parsed.file, findings: parsed.findings })
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| NAMES[0].to_owned(), |name| name.to_string_lossy().into_owned())
}

fn read_below(context: &Path, name: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    use std::os::unix::ffi::OsStrExt as _;
    let path = RootfsPath::parse_clamped(name.as_os_str().as_bytes())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
    let mut bytes = Vec::new();
    Root::open(context)?.open_file(&path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn not_found(path: &Path, args: &BuildArgs, error: &io::Error) -> Failure {
    let title = format!("cannot read the Dockerfile `{}`", path.display());
    let mut diagnostic = Diagnostic::error("no-dockerfile", title).note(error.to_string());
    diagnostic.help = Some(match &args.file {
        Some(_) if args.takes_context_from_elsewhere() => {
            "`--file` is relative to the root of a context that is not a directory here".to_owned()
        }
        Some(_) => "`--file` is relative to the directory you are in, not to the context".to_owned(),
        None => format!("name it with `--file`, or give another context than `{}`", args.context.display()),
    });
    Failure::new(Exit::Usage, diagnostic)
}
