//! The last step: becoming the command, or the init that starts it and looks after it.

use std::ffi::{CString, OsStr};
use std::io;

use std::os::unix::ffi::OsStrExt;

use sys::descriptor_socket::DescriptorSocket;
use sys::process::{Ending, SIGCHLD};
use sys::this_process;

use super::message::{At, Failure, errno};
use super::{Instructions, Never, Report, StdioInstruction, encode};
use crate::Stage;

/// Where programs are looked for when the environment does not say.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of a name or a path is told when nothing can be executed: it must fit a message, and a person's patience.
const SHOWN_BYTES: usize = 1024;

/// Executes the command. Returns only if that fails.
pub(super) fn become_command(
    socket: &DescriptorSocket,
    instructions: &Instructions,
    home: &[u8],
) -> Result<Never, Failure> {
    let text = encode(&Report::Executing).at(Stage::LastRites)?;
    let arguments = c_strings(instructions.args.iter().cloned()).at(Stage::LastRites)?;
    let variables =
        environment(instructions, home).into_iter().map(|(name, value)| [name, value].join(&b'='));
    let variables = c_strings(variables).at(Stage::LastRites)?;
    socket.send(&text, &[]).at(Stage::LastRites)?;
    execute_candidates(instructions, &arguments, &variables)
}

/// Starts the command as a child, passes signals on to it and reaps whatever is orphaned, until it ends.
pub(super) fn supervise(
    socket: DescriptorSocket,
    instructions: &Instructions,
    home: &[u8],
) -> Result<u8, (DescriptorSocket, Failure)> {
    // From here on nothing gets lost: what arrives before the child exists is passed on afterwards.
    let forked = this_process::block_all_signals().and_then(|()| {
        this_process::fork(|| {
            let Err(failure) = lead_session(instructions)
                .at(Stage::Session)
                .and_then(|()| become_command(&socket, instructions, home));
            super::report_failure(&socket, failure)
        })
    });
    match forked.at(Stage::LastRites) {
        Err(failure) => Err((socket, failure)),
        Ok(child) => {
            // The child's copy is closed when the command executes.
            drop(socket);
            Ok(match look_after(child) {
                Ok(Ending::Exited(code)) => code,
                Ok(Ending::Killed(signal)) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
                // Without a way to follow the command, the end of this process is the end of all.
                Err(_) => u8::MAX,
            })
        }
    }
}

/// Gives the command a process group of its own, the foreground one of its terminal, so that keys which send signals do not send them to
/// the init as well, which would pass them on a second time.
fn lead_session(instructions: &Instructions) -> io::Result<()> {
    this_process::new_process_group()?;
    if matches!(instructions.stdio, StdioInstruction::Terminal { .. }) {
        sys::terminal::take_foreground(io::stdin())?;
    }
    this_process::reset_signals()
}

fn look_after(child: u32) -> io::Result<Ending> {
    loop {
        let signal = this_process::next_signal()?;
        if signal == SIGCHLD {
            while let Some((pid, ending)) = this_process::reap_any()? {
                if pid == child {
                    return Ok(ending);
                }
            }
        } else {
            // Not yet reaped, so the number is still the child's own.
            this_process::signal_child(child, signal)?;
        }
    }
}

/// The environment with `HOME`, which is the user's unless it is set to something.
fn environment(instructions: &Instructions, home: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut variables = instructions.env.clone();
    if !variables.iter().any(|(name, value)| name == b"HOME" && !value.is_empty()) {
        variables.retain(|(name, _)| name != b"HOME");
        variables.push((b"HOME".to_vec(), home.to_vec()));
    }
    variables
}

fn c_strings(strings: impl Iterator<Item = Vec<u8>>) -> io::Result<Vec<CString>> {
    strings.map(|string| Ok(CString::new(string)?)).collect()
}

/// Executes each path that the command may mean, as a shell would, until one is not an error.
fn execute_candidates(
    instructions: &Instructions,
    arguments: &[CString],
    variables: &[CString],
) -> Result<Never, Failure> {
    let command = instructions.args.first().cloned().unwrap_or_default();
    let show = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]).into_owned();
    let path = instructions.env.iter().find(|(name, _)| name == b"PATH");
    let path = path.map_or(DEFAULT_PATH, |(_, value)| value.as_slice());
    // What to say if nothing can be executed: the first hint that is better than "not found".
    let mut hint = None;
    for program in candidates(&command, path) {
        let name = CString::new(program.clone()).map_err(io::Error::from).at(Stage::LastRites)?;
        let error = this_process::execute(&name, arguments, variables);
        let not_runnable = || Failure::NotRunnable { program: show(&program), errno: errno(&error) };
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                if std::fs::exists(OsStr::from_bytes(&program)).unwrap_or(false) {
                    hint.get_or_insert(Failure::MissingInterpreter { program: show(&program) });
                }
            }
            // Another directory of PATH may have one that may be executed.
            io::ErrorKind::PermissionDenied => {
                hint.get_or_insert_with(not_runnable);
            }
            _ => return Err(not_runnable()),
        }
    }
    let searched = (!command.contains(&b'/')).then(|| show(path));
    Err(hint.unwrap_or(Failure::CommandNotFound { command: show(&command), path: searched }))
}

fn candidates(command: &[u8], path: &[u8]) -> Vec<Vec<u8>> {
    if command.is_empty() {
        return Vec::new();
    }
    if command.contains(&b'/') {
        return vec![command.to_vec()];
    }
    let directories = path.split(|&b| b == b':');
    // An empty part means the working directory, as in every shell.
    directories
        .map(|directory| [if directory.is_empty() { b"." } else { directory }, command].join(&b'/'))
        .collect()
}
