//! rbuild: turns Dockerfiles into OCI images and runs them.
//!
//! This crate wires the libraries for a person: arguments ([`cli`]), words and colours ([`diagnostic`], [`progress`]), exit codes
//! ([`failure`]). It adds no behaviour of its own: whatever a command does, a library function does.

#![forbid(unsafe_code)]
#![cfg_attr(feature = "libfuzzer", no_main)]
#![cfg_attr(
    feature = "libfuzzer",
    expect(dead_code, reason = "what reads the command line is all that is fuzzed")
)]

mod build;
mod cli;
mod diagnostic;
mod environment;
mod failure;

mod fields;
#[cfg(any(test, feature = "libfuzzer"))]
mod fuzz;
mod hosts;
mod limits;
mod lint;
mod listing;
mod network;
mod progress;
mod session;
mod signals;
mod terminal;

mod commands;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command, RegistryCommand};
use crate::environment::Environment;
use crate::failure::Failure;

fn main() -> ExitCode {
    sandbox::helper_main();
    let environment = Environment::read();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::report_usage(&error),
    };
    tell_of_trouble(&cli.global);
    match failure::or_bug(|| run(&cli, &environment)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(&environment),
    }
}

/// What the libraries warn of reaches the person in any case; what they decide, and why, with `--debug`.
fn tell_of_trouble(global: &cli::Global) {
    let subscriber = tracing_subscriber::fmt().with_writer(std::io::stderr);
    if global.debug {
        subscriber.with_max_level(tracing::Level::DEBUG).init();
    } else {
        subscriber.with_max_level(tracing::Level::WARN).without_time().with_target(false).init();
    }
}

/// Runs one command; gives the exit code of a process that it ran, or of a check that found something, else 0.
fn run(cli: &Cli, environment: &Environment) -> Result<u8, Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Build(args) => build::build(args, global, environment),
        Command::Lint(args) => commands::lint::lint(args, global, environment),
        Command::Explain(args) => commands::explain::explain(args, global).map(|()| 0),
        Command::Run(args) => commands::run::run(args, global, environment),
        Command::Shell(args) => build::shell(args, global, environment),
        Command::Diff(args) => commands::diff::diff(args, global),
        Command::Import(args) => commands::transfer::import(args, global, environment).map(|()| 0),
        Command::Load(args) => commands::transfer::load(args, global, environment).map(|()| 0),
        Command::Save(args) => commands::transfer::save(args, global, environment).map(|()| 0),
        Command::Pull(args) => commands::pull::pull(args, global, environment).map(|()| 0),
        Command::Login(args) => commands::login::login(args, environment).map(|()| 0),
        Command::Logout(args) => commands::login::logout(args, environment).map(|()| 0),
        Command::Push(args) => commands::push::push(args, global, environment).map(|()| 0),
        Command::Copy(args) => commands::copy::copy(args, environment).map(|()| 0),
        Command::Manifest(command) => commands::manifest::run(command, global, environment).map(|()| 0),
        Command::Search(args) => commands::search::search(args, environment).map(|()| 0),
        Command::Registry(RegistryCommand::Explain(args)) => {
            commands::registry::explain(args, environment).map(|()| 0)
        }
        Command::Images(args) => commands::images::images(args, global).map(|()| 0),
        Command::Rmi(args) => commands::images::rmi(args, global).map(|()| 0),
        Command::Tag(args) => commands::images::tag(args, global).map(|()| 0),
        Command::History(args) => commands::images::history(args, global, environment).map(|()| 0),
        Command::Inspect(args) => commands::images::inspect(args, global).map(|()| 0),
        Command::Completions(args) => commands::help_files::completions(args).map(|()| 0),
        Command::Man(args) => commands::help_files::man(args).map(|()| 0),
        Command::Version(args) => commands::machine::version(args).map(|()| 0),
        Command::Info(args) => commands::machine::info(args, global).map(|()| 0),
        Command::Du(args) => commands::upkeep::du(args, global).map(|()| 0),
        Command::Prune(args) => commands::upkeep::prune(args, global).map(|()| 0),
        Command::Fsck(args) => commands::upkeep::fsck(args, global),
    }
}
