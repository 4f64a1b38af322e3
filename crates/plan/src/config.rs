//! The fold: what instructions without a step do to the config, each returning its line of history.

use dockerfile::{CommandLine, Healthcheck, HealthcheckCommand};
use oci::{Config, EmptyObject};

use crate::history::{self, plain_list, quoted_list};

/// The shell of shell forms where no SHELL was given.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// A command's words: those of an exec form, or the shell's with the text behind them.
pub(crate) fn command_words(config: &Config, command: &CommandLine) -> Vec<String> {
    match command {
        CommandLine::Exec(words) => words.clone(),
        CommandLine::Shell(text) => with_shell(config, text),
    }
}

/// The shell's words with `text` behind them.
pub(crate) fn with_shell(config: &Config, text: &str) -> Vec<String> {
    let shell = &config.execution.shell;
    let mut words =
        if shell.is_empty() { DEFAULT_SHELL.map(ToOwned::to_owned).to_vec() } else { shell.clone() };
    words.push(text.to_owned());
    words
}

/// The program of the stage's shell, for a person at the keyboard. The words behind it are for scripts: with `-e` the first mistake would
/// end it.
pub(crate) fn shell_program(config: &Config) -> String {
    config.execution.shell.first().map_or(DEFAULT_SHELL[0], String::as_str).to_owned()
}

pub(crate) fn set_cmd(config: &mut Config, command: &CommandLine) -> String {
    let words = command_words(config, command);
    let line = format!("CMD {}", quoted_list(&words));
    config.execution.cmd = some_unless_empty(words);
    config.execution.args_escaped = true;
    line
}

/// An ENTRYPOINT makes the base's CMD void, which was meant for another program; one of this stage stays.
pub(crate) fn set_entrypoint(config: &mut Config, command: &CommandLine, has_own_cmd: bool) -> String {
    let words = command_words(config, command);
    let line = format!("ENTRYPOINT {}", quoted_list(&words));
    config.execution.entrypoint = some_unless_empty(words);
    if !has_own_cmd {
        config.execution.cmd = None;
    }
    line
}

pub(crate) fn set_healthcheck(config: &mut Config, check: &Healthcheck) -> String {
    let check = match check {
        Healthcheck::None => {
            oci::Healthcheck { test: vec!["NONE".to_owned()], ..oci::Healthcheck::default() }
        }
        Healthcheck::Command(command) => healthcheck(command),
    };
    let line = format!("HEALTHCHECK {}", history::healthcheck(&check));
    config.execution.healthcheck = Some(check);
    line
}

pub(crate) fn set_author(config: &mut Config, name: &str) -> String {
    name.clone_into(&mut config.author);
    format!("MAINTAINER {name}")
}

pub(crate) fn set_shell(config: &mut Config, words: &[String]) -> String {
    config.execution.shell = words.to_vec();
    format!("SHELL {}", plain_list(words))
}

pub(crate) fn add_volumes(config: &mut Config, paths: &[String]) -> String {
    config.execution.volumes.extend(paths.iter().map(|path| (path.clone(), EmptyObject)));
    format!("VOLUME {}", plain_list(paths))
}

/// `ENV a=1 b=2`: values as they are, without quotes.
pub(crate) fn pairs_line(keyword: &str, pairs: &[(String, String)]) -> String {
    let pairs: String = pairs.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    format!("{keyword}{pairs}")
}

/// Docker writes an empty list as if nothing had been set.
fn some_unless_empty(words: Vec<String>) -> Option<Vec<String>> {
    (!words.is_empty()).then_some(words)
}

fn healthcheck(command: &HealthcheckCommand) -> oci::Healthcheck {
    let nanoseconds = |duration: &Option<dockerfile::Spanned<std::time::Duration>>| {
        duration.as_ref().map_or(0, |duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    };
    let test = match &command.command.node {
        CommandLine::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
        CommandLine::Exec(words) => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
    };
    oci::Healthcheck {
        test,
        interval: nanoseconds(&command.interval),
        timeout: nanoseconds(&command.timeout),
        start_period: nanoseconds(&command.start_period),
        start_interval: nanoseconds(&command.start_interval),
        retries: command.retries.as_ref().map_or(0, |retries| i64::from(retries.node)),
    }
}
