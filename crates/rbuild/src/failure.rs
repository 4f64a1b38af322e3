//! How a command fails: diagnostics for a person, an exit code for a program.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::listing::tell;

/// Exit codes of every command but `run` and `shell`, which give their process' own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The Dockerfile or one of its steps failed.
    Build = 1,
    /// The command line.
    Usage = 2,
    /// The network or a registry.
    Network = 3,
    /// The machine or the store.
    Machine = 4,
    /// rbuild itself is wrong.
    Bug = 70,
    /// `run` and `shell`: rbuild itself failed.
    RunFailed = 125,
    /// `run` and `shell`: the command cannot be executed.
    NotRunnable = 126,
    /// `run` and `shell`: there is no such command.
    NotFound = 127,
    /// Ctrl-C.
    Cancelled = 130,
}

/// Runs a command. A panic, whose message is out by then, is a bug of ours and has an exit code of its own.
pub(crate) fn or_bug<T>(command: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // Nothing that the command may have left half done is looked at again.
    catch_unwind(AssertUnwindSafe(command)).unwrap_or_else(|_| {
        let diagnostic = Diagnostic::error("bug", "rbuild has ended where it should not");
        Err(Failure::new(Exit::Bug, diagnostic.help("please report it, with what stands above")))
    })
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// In the order in which they are to be read; empty for a cancellation.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, diagnostic: Diagnostic) -> Self {
        Self { exit, diagnostics: vec![diagnostic] }
    }

    /// The command line is wrong, and this is the way out.
    pub(crate) fn usage(title: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Exit::Usage, Diagnostic::error("usage", title).help(help))
    }

    pub(crate) fn cancelled() -> Self {
        Self { exit: Exit::Cancelled, diagnostics: Vec::new() }
    }

    /// Prints the diagnostics, a blank line between two.
    pub(crate) fn report(&self, environment: &Environment) -> ExitCode {
        let shown = self.diagnostics.iter().map(|diagnostic| diagnostic.render(environment.has_colour()));
        let shown: Vec<String> = shown.collect();
        match self.exit {
            Exit::Cancelled => tell("cancelled"),
            _ => tell(format_args!("{}", shown.join("\n\n"))),
        }
        ExitCode::from(self.exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_bug_of_ours() {
        let failure = or_bug(|| -> Result<(), Failure> { panic!("as a test must") }).unwrap_err();
        assert_eq!(failure.exit as u8, 70);
        assert_eq!(or_bug(|| Ok(7)).unwrap(), 7);
    }
}
