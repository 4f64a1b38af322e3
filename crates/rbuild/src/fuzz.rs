//! The command line as a target of fuzzing: whatever is typed is understood or refused, and nothing more.

use std::collections::BTreeMap;

use clap::Parser as _;

use crate::build::Place;
use crate::build::request::Asked;
use crate::cli::{BuildArgs, Cli, Command, RunArgs, StepArgs};
use crate::commands::run::request::Request;
use crate::environment::Environment;

#[cfg(feature = "libfuzzer")]
libfuzzer_sys::fuzz_target!(|input: &[u8]| testkit::fuzz::run(input, &flags));

/// Reads a command line whose words stand apart by white space.
fn flags(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(cli) = Cli::try_parse_from(std::iter::once("rbuild").chain(text.split_whitespace())) else {
        return;
    };
    match cli.command {
        Command::Build(args) => build(&args),
        Command::Shell(args) => steps(&args.steps),
        Command::Run(args) => run(*args),
        _ => {}
    }
}

fn build(args: &BuildArgs) {
    args.call();
    drop(Place::of(&args.context));
    if reads_only_here(&args.steps) {
        drop(Asked::read(args, &environment()));
    }
}

fn steps(args: &StepArgs) {
    if reads_only_here(args) {
        drop(Asked::of_steps(args, &environment()));
    }
}

fn run(args: RunArgs) {
    // A volume that is not there is made.
    let args = RunArgs { volumes: Vec::new(), ..args };
    drop(Request::read(&args, &environment()));
}

/// Secrets are read from files: with no absolute path, only those of this directory, and no device without end.
fn reads_only_here(args: &StepArgs) -> bool {
    args.secrets.iter().all(|secret| !secret.contains('/'))
}

fn environment() -> Environment {
    Environment {
        variables: BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]),
        stderr_is_terminal: false,
        stdout_is_terminal: false,
        stdin_is_terminal: true,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn command_lines_are_read() {
        testkit::fuzz::smoke("flags", 1500, &super::flags);
    }
}
