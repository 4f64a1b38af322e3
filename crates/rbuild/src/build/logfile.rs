//! `--logfile`: what goes to standard error goes to a file instead.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::unistd::dup2_stderr;

use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};

/// Standard error as it was, which comes back when this is dropped.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    before: OwnedFd,
}

impl LogFile {
    /// Opens the file, with what it has, and turns standard error to it.
    pub(super) fn begin(path: &Path) -> Result<Self, Failure> {
        let begin = || -> io::Result<Self> {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            let before = io::stderr().as_fd().try_clone_to_owned()?;
            dup2_stderr(&file)?;
            Ok(Self { path: path.to_owned(), file, before })
        };
        begin().map_err(|error| failed(path, &error))
    }

    /// Writes down why the build failed, which is said on standard error, too.
    pub(super) fn end(mut self, failure: &Failure) -> Result<(), Failure> {
        for diagnostic in &failure.diagnostics {
            writeln!(self.file, "{}", diagnostic.render(false))
                .map_err(|error| failed(&self.path, &error))?;
        }
        Ok(())
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        if let Err(error) = dup2_stderr(&self.before) {
            tracing::warn!(%error, "standard error stays turned to the log");
        }
    }
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    let title = format!("cannot write the log `{}`", path.display());
    Failure::new(Exit::Usage, Diagnostic::error("output", title).note(error.to_string()))
}
