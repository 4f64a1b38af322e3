//! Repository chores: `cargo xtask COMMAND`.
//!
//! Each command is a module with a `run` of its own; this file only chooses.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a chore's report is its output")]

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};

mod apt;
mod bench;
mod ci;
mod command;
mod fixtures;
mod foreign;
mod fuzz;
mod peers;
mod quickstart;
mod test;

const USAGE: &str = "\
cargo xtask COMMAND

  quickstart               build rbuild, make a base image, build and run an image, build it again
  test                     install what the tests need, run all of them, say what was skipped
  ci                       formatting, lints, documentation and licences, with every warning an error
  fuzz TARGET              look for inputs that make a reader of texts panic or dawdle: dockerfile, ignore, reference or flags
                           (--minutes=N: not fifteen)
  fixtures                 make the base images of the tests below target/fixtures
  peers                    set up the reference builders (Debian sid in a private root) and say what is there
  bench [WORKLOAD]…        measure rbuild beside the reference builders, and record it in benches/results; all workloads, or those named
                           (--alone: without the others; --without=NAME: without one of them; --rounds=N: not five times; --rbuild=FILE: not the one of this tree)
  peers --record [CASE]…   record what BuildKit makes of fixtures/differential (all of it, or the named cases)
  peers --buildah [CASE]…  write down where buildah makes something else of it
  peers --record-probe     record what a process may do and sees under docker, in testdata/probe
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["quickstart"] => quickstart::run(),
        ["test"] => test::run(),
        ["ci"] => ci::run(),
        ["fuzz", words @ ..] => fuzz::run(words),
        ["fixtures"] => fixtures::run(),
        ["bench", words @ ..] => bench::run(words),
        ["peers"] => peers::report(),
        ["peers", "--record", cases @ ..] => peers::record(cases),
        ["peers", "--buildah", cases @ ..] => peers::compare_buildah(cases),
        ["peers", "--record-probe"] => peers::record_probe(),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => bail!("`{}` is not a command\n\n{USAGE}", words.join(" ")),
    }
}

/// The repository's top directory.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate lies at crates/xtask")
        .to_owned()
}
