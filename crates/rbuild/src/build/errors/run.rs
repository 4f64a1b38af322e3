//! What a RUN fails with: its process, its sandbox, its user, its secrets.

use oci::Platform;
use sandbox::{Ending, SandboxError, UserError};
use signal_hook::low_level::signal_name;
use solver::RunFailure;

use super::Place;
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};
use crate::terminal::{cut, log_line, one_line};

/// Columns of a command in a title; the excerpt shows all of it.
const COMMAND_COLUMNS: usize = 72;

/// What a shell adds to the number of the signal that ended its command.
const SHELL_SIGNAL_BASE: u8 = 128;

/// What a status means that a shell gives in the name of its command.
fn meaning_of(ending: Ending) -> Option<String> {
    let Ending::Exited(status) = ending else { return None };
    match status {
        126 => Some("a shell gives status 126 for a command that it cannot execute".to_owned()),
        127 => Some("a shell gives status 127 for a command that it does not find".to_owned()),
        _ => {
            let name = signal_name(status.checked_sub(SHELL_SIGNAL_BASE)?.into())?;
            Some(format!("a shell gives status {status} for a command that {name} killed"))
        }
    }
}

fn way_out(failure: &RunFailure) -> Option<&'static str> {
    if failure.out_of_memory {
        return Some("give the machine more memory, or let fewer steps work at once with `--jobs 1`");
    }
    let is_disk_full = failure.last_lines.iter().any(|line| line.contains("No space left on device"));
    is_disk_full.then_some("`rbuild prune` frees what no image needs; `rbuild du` shows what takes the space")
}

fn signal_text(signal: i32) -> String {
    match signal_name(signal) {
        Some(name) => format!("signal {signal} ({name})"),
        None => format!("signal {signal}"),
    }
}

/// A name that the image does not know.
pub(super) fn of_user(error: &UserError) -> Diagnostic {
    let diagnostic = Diagnostic::from_error("unknown-user", error);
    match error {
        UserError::UnknownUser(name) => {
            diagnostic.help(format!("add the user in a step before it (`adduser {name}`), or give a number"))
        }
        UserError::UnknownGroup(name) => diagnostic
            .help(format!("add the group in a step before it (`addgroup {name}`), or give a number")),
        UserError::TooLarge(_) | UserError::Malformed(_) => diagnostic,
    }
}

/// A secret that a mount requires.
pub(super) fn of_missing_secret(id: &str) -> Diagnostic {
    Diagnostic::error("missing-secret", format!("secret `{id}` is required and was not given"))
        .help(format!("give it with `--secret id={id},src=FILE` or `--secret id={id},env=VARIABLE`"))
}

pub(super) fn of_missing_agent(id: &str) -> Diagnostic {
    let help = match id {
        "default" => "start an ssh-agent and give it with `--ssh default`".to_owned(),
        id => format!("give it with `--ssh {id}=SOCKET`, or `--ssh {id}=KEYFILE`"),
    };
    Diagnostic::error("missing-agent", format!("ssh agent `{id}` is required and was not given")).help(help)
}

impl Place<'_> {
    /// The process ended badly.
    pub(super) fn of_failure(&self, failure: &RunFailure) -> Diagnostic {
        let command = cut(&one_line(&failure.command), COMMAND_COLUMNS);
        let mut diagnostic = match failure.ending {
            _ if failure.out_of_memory => {
                Diagnostic::error("out-of-memory", format!("`{command}` ran out of memory"))
            }
            Ending::Exited(status) => {
                Diagnostic::error("run-failed", format!("`{command}` exited with status {status}"))
            }
            Ending::Killed(signal) => {
                Diagnostic::error("run-killed", format!("`{command}` was killed by {}", signal_text(signal)))
            }
        };
        if !failure.last_lines.is_empty() {
            let lines: Vec<String> =
                failure.last_lines.iter().map(|line| log_line(line.as_bytes())).collect();
            diagnostic = diagnostic.note(format!("last lines:\n{}", lines.join("\n")));
        }
        diagnostic.notes.extend(meaning_of(failure.ending).filter(|_| !failure.out_of_memory));
        diagnostic = diagnostic.note(format!("all it wrote is in {}", failure.log.display()));
        diagnostic.help = way_out(failure).map(ToOwned::to_owned).or_else(|| (self.shell)(self.step));
        diagnostic
    }

    /// The process could not be started.
    pub(super) fn of_sandbox(&self, error: &SandboxError) -> Failure {
        let of = |code| Diagnostic::from_error(code, error);
        let build = |diagnostic| self.fails(Exit::Build, diagnostic);
        let machine = |diagnostic| self.fails(Exit::Machine, diagnostic);
        match error {
            SandboxError::NotRunnable { .. } | SandboxError::MissingInterpreter { .. }
                if is_foreign(&self.step.platform) =>
            {
                build(of("foreign-platform").note(foreign(&self.step.platform)).help(EMULATOR_HELP))
            }
            SandboxError::CommandNotFound { command, .. } => {
                build(of("command-not-found").help(missing_command_help(command)))
            }
            SandboxError::MissingInterpreter { .. } => build(of("missing-interpreter").help(
                "install what the first line of the script names; for a program, the C library it was made for",
            )),
            SandboxError::NotRunnable { .. } => build(of("not-runnable").help(
                "make it executable (`COPY --chmod=755`); a script needs a first line like `#!/bin/sh`, a program the machine's architecture",
            )),
            SandboxError::User(error) => build(of_user(error)),
            SandboxError::Cwd { .. } => build(of("bad-workdir")),
            SandboxError::LayersPath { .. } => build(of("missing-source")),
            SandboxError::TargetKind { .. } => build(of("mount-conflict")),
            SandboxError::NeedsRoot => {
                Failure::new(Exit::Machine, of("needs-root").help("run rbuild as root"))
            }
            SandboxError::Unsupported { .. } | SandboxError::CannotLimit { .. } => {
                machine(of("unsupported-machine").help("`rbuild info` shows what the machine allows"))
            }
            SandboxError::Prepare { .. }
            | SandboxError::Layer { .. }
            | SandboxError::Overlay { .. }
            | SandboxError::BindSource { .. }
            | SandboxError::Mount { .. }
            | SandboxError::Setup { .. }
            | SandboxError::Cgroup { .. } => {
                machine(of("sandbox").help("`rbuild info` shows what the machine allows"))
            }
            SandboxError::MissingTarget { .. } | SandboxError::Vanished | SandboxError::OwnerName(_) => {
                self.fails(Exit::Bug, of("bug"))
            }
        }
    }
}

/// How to run what another processor is made for (kernel documentation, "Kernel Support for miscellaneous Binary Formats").
pub(crate) const EMULATOR_HELP: &str = "register an emulator for it with binfmt_misc, with the flag F so that it is found from every root: Debian's qemu-user-static does";

/// Whether a platform's programs are not this machine's own.
pub(crate) fn is_foreign(platform: &Platform) -> bool {
    platform.fit(&Platform::host()).is_none()
}

pub(crate) fn foreign(platform: &Platform) -> String {
    format!("it is for {platform}, and this machine is {}", Platform::host())
}

fn missing_command_help(command: &str) -> &'static str {
    match command {
        "/bin/sh" => "an image without a shell needs the exec form: RUN [\"/path/to/program\", \"argument\"]",
        _ => "install it in a step before this one, or correct its path",
    }
}
