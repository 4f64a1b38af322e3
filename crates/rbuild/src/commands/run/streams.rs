//! Bytes between our standard descriptors and those of the process.

use std::fs::File;
use std::io::{self, Read, Write};

use sandbox::{Exit, Output, Process};
use sys::terminal::{RawMode, WindowSize};

use crate::commands::run::request::Input;
use crate::diagnostic::Diagnostic;
use crate::failure::{self, Failure};
use crate::listing::tell;

/// The size of our own terminal, if we have one.
pub(crate) fn terminal_size() -> Option<WindowSize> {
    sys::terminal::window_size(io::stdout()).or_else(|_| sys::terminal::window_size(io::stdin())).ok()
}

/// Carries input and output until the process has ended and all it wrote has come.
pub(crate) fn carry(process: Process, output: Output, input: Input) -> Result<Exit, Failure> {
    let _raw = match input {
        Input::Keyboard => {
            Some(RawMode::enter(io::stdin()).map_err(|error| failed("set up the terminal", &error))?)
        }
        Input::Closed | Input::Ours => None,
    };
    if let (Output::Terminal(terminal), Input::Keyboard) = (&output, input) {
        carry_input(terminal.try_clone().map_err(|error| failed("copy a descriptor", &error))?);
    }
    let exit = std::thread::scope(|scope| {
        match output {
            Output::Captured { stdout, stderr } => {
                scope.spawn(|| carry_output(stdout, io::stdout()));
                scope.spawn(|| carry_output(stderr, io::stderr()));
            }
            Output::Piped { stdin, stdout, stderr } => {
                carry_input(stdin);
                scope.spawn(|| carry_output(stdout, io::stdout()));
                scope.spawn(|| carry_output(stderr, io::stderr()));
            }
            Output::Terminal(terminal) => {
                scope.spawn(|| carry_terminal(terminal));
            }
            Output::Inherited => {}
        }
        process.wait()
    });
    let exit = exit.map_err(|error| failed("wait for the process", &error))?;
    if exit.oom_killed {
        tell("the kernel killed the process for want of memory");
    }
    Ok(exit)
}

fn failed(what: &str, error: &dyn std::error::Error) -> Failure {
    let diagnostic = Diagnostic::from_error("run", error);
    let title = format!("cannot {what}");
    Failure::new(failure::Exit::RunFailed, Diagnostic { title, ..diagnostic }.note(error.to_string()))
}

/// On a thread of its own that nobody waits for, since a read from the keyboard cannot be called off: it ends with the program.
fn carry_input(to: File) {
    std::thread::spawn(move || copy(io::stdin().lock(), to));
}

/// When nobody wants our output any more, the process hears of it the way it would without us: its end of the pipe is closed.
fn carry_output(from: File, to: impl Write) {
    copy(from, to);
}

/// The other end of a terminal is closed with the process only, which would wait for ever to write if nobody read.
fn carry_terminal(mut terminal: File) {
    copy(&mut terminal, io::stdout());
    copy(terminal, io::sink());
}

fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // What a terminal says when all have closed the other end is EIO.
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        if to.write_all(&buffer[..read]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}
