//! What shells and `man` read: `completions`, `man`. Both are made from the command line's own description, so they cannot fall behind it.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use clap::CommandFactory as _;

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};

/// Writes what a shell needs to complete a command line.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "rbuild", &mut script);
    io::stdout().write_all(&script).map_err(|error| cannot_write("standard output", &error))
}

/// Writes a page for rbuild and one for each of its commands into a directory, which is made if it is not there.
pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    let directory = &args.directory;
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .map_err(|error| cannot_write(&shown(directory), &error))
}

fn shown(path: &Path) -> String {
    format!("`{}`", path.display())
}

fn cannot_write(to: &str, error: &io::Error) -> Failure {
    let diagnostic = Diagnostic::error("write", format!("cannot write to {to}")).note(error.to_string());
    Failure::new(Exit::Machine, diagnostic)
}
