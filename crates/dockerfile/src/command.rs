//! Instructions that hold a command: `RUN`, `CMD`, `ENTRYPOINT`, `HEALTHCHECK`, and `SHELL`.

use std::time::Duration;

use crate::ast::{
    Cmd, CommandLine, Entrypoint, Healthcheck, HealthcheckCommand, Heredoc, NetworkMode, Run, SecurityMode,
    Shell,
};
use crate::duration;
use crate::finding::{Code, Finding};
use crate::flags::Flags;
use crate::instruction::not_only_strings;
use crate::keyword::Keyword;
use crate::lexis::{self, Json};
use crate::mount;
use crate::scope::Scope;
use crate::span::Spanned;
use suggest::nearest;

pub(crate) fn run(
    flags: &mut Flags<'_>,
    arguments: &str,
    heredocs: Vec<Heredoc>,
    scope: &mut Scope<'_>,
) -> Option<Run> {
    let mounts = flags.values("mount", scope);
    let mounts = mounts.iter().filter_map(|value| mount::mount(value, scope)).collect();
    let networks =
        [("default", NetworkMode::Default), ("none", NetworkMode::None), ("host", NetworkMode::Host)];
    let network = choice(flags, "network", &networks, scope);
    let securities = [("sandbox", SecurityMode::Sandbox), ("insecure", SecurityMode::Insecure)];
    let security = choice(flags, "security", &securities, scope);
    let devices = flags.values("device", scope);
    let devices = devices.iter().filter_map(|value| mount::device(value, scope)).collect();
    let command = command_line(arguments, scope)?;
    Some(Run { mounts, network, security, devices, command, heredocs })
}

/// The value of a flag that has few.
fn choice<T: Copy>(
    flags: &mut Flags<'_>,
    name: &'static str,
    choices: &[(&str, T)],
    scope: &mut Scope<'_>,
) -> Option<Spanned<T>> {
    let value = flags.value(name, scope)?;
    if let Some(&(_, choice)) = choices.iter().find(|(text, _)| *text == value.text) {
        return Some(Spanned::new(choice, value.span));
    }
    let names: Vec<&str> = choices.iter().map(|&(text, _)| text).collect();
    let finding =
        Finding::new(Code::InvalidFlagValue, value.span, format!("`--{name}` cannot be `{}`", value.text));
    scope.report(match nearest(&value.text, names.iter().copied()) {
        Some(near) => finding.with_help(format!("did you mean `{near}`?")),
        None => finding.with_help(format!("it is one of `{}`", names.join("`, `"))),
    });
    None
}

pub(crate) fn cmd(arguments: &str, scope: &mut Scope<'_>) -> Option<Cmd> {
    command_line(arguments, scope).map(|command| Cmd { command })
}

pub(crate) fn entrypoint(arguments: &str, scope: &mut Scope<'_>) -> Option<Entrypoint> {
    command_line(arguments, scope).map(|command| Entrypoint { command })
}

/// A JSON array of strings is the exec form, one of other things an error, and everything else text for the shell.
fn command_line(arguments: &str, scope: &mut Scope<'_>) -> Option<Spanned<CommandLine>> {
    let span = scope.span(arguments);
    let command = match lexis::json(arguments) {
        Json::Strings(strings) => CommandLine::Exec(strings.into_iter().map(|(text, _)| text).collect()),
        Json::No => {
            warn_of_broken_exec_form(arguments, scope);
            CommandLine::Shell(arguments.to_owned())
        }
        Json::Others => {
            not_only_strings(arguments, scope);
            return None;
        }
    };
    Some(Spanned::new(command, span))
}

/// `['a', 'b']` and `["C:\dir"]` become shell commands, which nobody means. `[ -f x ] && …` and `[[ … ]]` are meant.
fn warn_of_broken_exec_form(arguments: &str, scope: &mut Scope<'_>) {
    let inside = arguments.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).map(str::trim);
    if !inside.is_some_and(|inside| inside.starts_with(['"', '\''])) {
        return;
    }
    let message = "this looks like the exec form but is no JSON, so the shell gets it as text";
    let finding = Finding::new(Code::ExecFormIsText, scope.span(arguments), message);
    scope.report(finding.with_help(
        "put every element in double quotes, with `\\\\` for a backslash and no comma at the end",
    ));
}

pub(crate) fn shell(arguments: &str, word: &str, scope: &mut Scope<'_>) -> Option<Shell> {
    match lexis::json(arguments) {
        Json::Strings(strings) if !strings.is_empty() => {
            let words = strings.into_iter().map(|(text, _)| text).collect();
            return Some(Shell { words: Spanned::new(words, scope.span(arguments)) });
        }
        Json::Others => not_only_strings(arguments, scope),
        Json::No if !arguments.is_empty() => {
            let finding = Finding::new(
                Code::ShellNotJson,
                scope.span(arguments),
                "`SHELL` must be a JSON array of strings",
            );
            scope.report(finding.with_help("write for example `SHELL [\"/bin/bash\", \"-c\"]`"));
        }
        Json::Strings(_) | Json::No => scope.missing(Keyword::Shell, word, "at least one element"),
    }
    None
}

pub(crate) fn healthcheck(
    flags: &mut Flags<'_>,
    arguments: &str,
    word: &str,
    scope: &mut Scope<'_>,
) -> Option<Healthcheck> {
    let interval = interval(flags, "interval", scope);
    let timeout = self::interval(flags, "timeout", scope);
    let start_period = self::interval(flags, "start-period", scope);
    let start_interval = self::interval(flags, "start-interval", scope);
    let retries = retries(flags, scope);
    let (kind, rest) = arguments.split_once(char::is_whitespace).unwrap_or((arguments, ""));
    let rest = rest.trim_start();
    match kind.to_ascii_uppercase().as_str() {
        "" => scope.missing(Keyword::Healthcheck, word, "`CMD` or `NONE`"),
        "NONE" if rest.is_empty() => return Some(Healthcheck::None),
        "NONE" => {
            let finding = Finding::new(
                Code::TooManyArguments,
                scope.span(rest),
                "`HEALTHCHECK NONE` takes no arguments",
            );
            scope.report(finding);
        }
        "CMD" => {
            let command = health_command(rest, kind, scope)?;
            let check =
                HealthcheckCommand { interval, timeout, start_period, start_interval, retries, command };
            return Some(Healthcheck::Command(check));
        }
        _ => unknown_check(kind, scope),
    }
    None
}

fn health_command(arguments: &str, kind: &str, scope: &mut Scope<'_>) -> Option<Spanned<CommandLine>> {
    let command = if arguments.is_empty() { None } else { Some(command_line(arguments, scope)?) };
    match command {
        Some(command) if command.node != CommandLine::Exec(Vec::new()) => Some(command),
        _ => {
            scope.missing(Keyword::Healthcheck, kind, "a command behind `CMD`");
            None
        }
    }
}

fn unknown_check(kind: &str, scope: &mut Scope<'_>) {
    let message = "`HEALTHCHECK` needs `CMD` or `NONE` before the command";
    let finding = Finding::new(Code::InvalidHealthcheck, scope.span(kind), message);
    scope.report(match nearest(kind, ["CMD", "NONE"]) {
        Some(near) => finding.with_help(format!("did you mean `{near}`?")),
        None => finding.with_help("write `HEALTHCHECK CMD command`; options stand before `CMD`"),
    });
}

fn interval(flags: &mut Flags<'_>, name: &'static str, scope: &mut Scope<'_>) -> Option<Spanned<Duration>> {
    const SHORTEST: Duration = Duration::from_millis(1);
    let value = flags.value(name, scope)?;
    if value.text.is_empty() {
        return None;
    }
    match duration::parse(&value.text) {
        Some(duration) if duration.is_zero() || duration >= SHORTEST => {
            Some(Spanned::new(duration, value.span))
        }
        parsed => {
            let message = match parsed {
                Some(_) => format!("`--{name}` cannot be shorter than 1ms"),
                None => format!("`{}` is not a duration", value.text),
            };
            let finding = Finding::new(Code::InvalidFlagValue, value.span, message);
            scope.report(finding.with_help("write for example `30s`, `1m30s` or `500ms`"));
            None
        }
    }
}

fn retries(flags: &mut Flags<'_>, scope: &mut Scope<'_>) -> Option<Spanned<u32>> {
    let value = flags.value("retries", scope)?;
    if value.text.is_empty() {
        return None;
    }
    match value.text.parse::<i32>().ok().and_then(|retries| u32::try_from(retries).ok()) {
        Some(retries) => Some(Spanned::new(retries, value.span)),
        None => {
            let message = format!("`--retries` is a number from 0, not `{}`", value.text);
            scope.report(Finding::new(Code::InvalidFlagValue, value.span, message));
            None
        }
    }
}
