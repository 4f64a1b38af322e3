//! The last step: becoming the command, or the init that starts it and looks after it.

use std::ffi::{CString, OsStr};
use std::io;

use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use sys::descriptor_socket::DescriptorSocket;
use sys::process::{self, Ending};

use super::message::{At, Failure, errno};
use super::{Instructions, Never, Report, encode};
use crate::Stage;

/// Where programs are looked for when the environment does not say.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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
    try_candidates(instructions, |program| {
        let program = CString::new(program)?;
        Err(process::execute(&program, &arguments, &variables))
    })
}

/// Starts the command as a child, passes signals on to it and reaps whatever is orphaned, until it ends.
pub(super) fn supervise(
    socket: DescriptorSocket,
    instructions: &Instructions,
    home: &[u8],
) -> Result<u8, (DescriptorSocket, Failure)> {
    match start_child(instructions, home) {
        Err(failure) => Err((socket, failure)),
        Ok(child) => {
            let told = encode(&Report::Executing).and_then(|text| socket.send(&text, &[]));
            // Closing it says that the command executes.
            drop(socket);
            match told.and_then(|()| look_after(child)) {
                Ok(Ending::Exited(code)) => Ok(code),
                Ok(Ending::Killed(signal)) => Ok(u8::try_from(128 + signal).unwrap_or(u8::MAX)),
                // Nobody listens any more; the end of this process is the end of all.
                Err(_) => Ok(u8::MAX),
            }
        }
    }
}

fn start_child(instructions: &Instructions, home: &[u8]) -> Result<u32, Failure> {
    let variables = environment(instructions, home);
    let child = try_candidates(instructions, |program| {
        let mut command = Command::new(OsStr::from_bytes(program));
        command.env_clear().process_group(0);
        command
            .envs(variables.iter().map(|(name, value)| (OsStr::from_bytes(name), OsStr::from_bytes(value))));
        if let Some((name, rest)) = instructions.args.split_first() {
            command.arg0(OsStr::from_bytes(name)).args(rest.iter().map(|arg| OsStr::from_bytes(arg)));
        }
        command.spawn()
    })?;
    Ok(child.id())
}

fn look_after(child: u32) -> io::Result<Ending> {
    loop {
        let signal = process::next_signal()?;
        if signal != process::SIGCHLD {
            // A child that has just ended cannot be signalled, and will be reaped with the SIGCHLD that follows.
            if let Err(error) = process::signal_child(child, signal)
                && error.raw_os_error() != Some(process::ESRCH)
            {
                return Err(error);
            }
            continue;
        }
        while let Some((pid, ending)) = process::reap_any()? {
            if pid == child {
                return Ok(ending);
            }
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

/// Calls `execute` with each path that the command may mean, as a shell would, until one is not an error.
fn try_candidates<T>(
    instructions: &Instructions,
    mut execute: impl FnMut(&[u8]) -> io::Result<T>,
) -> Result<T, Failure> {
    let command = instructions.args.first().cloned().unwrap_or_default();
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let path = instructions.env.iter().find(|(name, _)| name == b"PATH");
    let path = path.map_or(DEFAULT_PATH, |(_, value)| value.as_slice());
    let searched = (!command.contains(&b'/')).then(|| show(path));
    // What to say if nothing can be executed: the first hint that is better than "not found".
    let mut hint = None;
    for program in candidates(&command, path) {
        match execute(&program) {
            Ok(value) => return Ok(value),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                if std::fs::exists(OsStr::from_bytes(&program)).unwrap_or(false) {
                    hint.get_or_insert(Failure::MissingInterpreter { program: show(&program) });
                }
            }
            Err(error) => {
                let failure = Failure::NotRunnable { program: show(&program), errno: errno(&error) };
                if error.kind() != io::ErrorKind::PermissionDenied {
                    return Err(failure);
                }
                hint.get_or_insert(failure);
            }
        }
    }
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
