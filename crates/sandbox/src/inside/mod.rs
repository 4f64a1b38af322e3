//! What happens between the birth of a sandbox's first process and its command.
//!
//! The launcher executes this program once, through a read-only mount, and it gets here before anything else of `main`
//! ([`fork_server`]). Each sandbox begins as a copy of that process: alone in new mount, pid, uts and ipc namespaces, with one socket to its
//! starter and the pantry as its working directory (see [`crate::launcher`]). It makes what is the same for all, waits for its
//! instructions, sets up the rest in the order of [`Stage`], and becomes the command.
//!
//! Everything of the machine comes as a descriptor; every path is one of the sandbox, resolved below its root.

mod command;
mod filesystems;
mod fork_server;
mod identity;
mod message;
mod targets;

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::descriptor_socket::DescriptorSocket;
use sys::this_process::{self, Namespace};

use crate::{Network, Stage};
pub(crate) use filesystems::DEVICES;
use message::{At, Failure};
pub(crate) use message::{
    CgroupView, Handle, Instructions, MountInstruction, Order, Outcome, Report, Shown, StdioInstruction,
    decode, encode,
};

/// The name that the helper is started by.
pub(crate) const HELPER_NAME: &str = "rbuild: setting up sandboxes";

/// Does what the helper has to do if this process was started as one, and never returns then; else returns at once.
///
/// This is the first call of `main` in every program that is a [`crate::HelperProgram`]. (It looks at the program's own arguments, the one
/// thing that it cannot be given as parameters.)
pub fn helper_main() {
    let mut arguments = std::env::args_os();
    if arguments.next().as_deref() != Some(OsStr::new(HELPER_NAME)) {
        return;
    }
    let handed = arguments.next().and_then(|number| number.to_str()?.parse().ok());
    let socket = handed.and_then(|number| this_process::take_handed(number).ok());
    // Without one it was started by hand, by somebody who guessed the name.
    std::process::exit(socket.map_or(NOT_STARTED, |socket| fork_server::serve(socket.into())))
}

/// The code that `docker run` gives when it could not start the command.
const NOT_STARTED: i32 = 125;

/// Tells the starter why no command executes, and gives our own exit code.
fn report_failure(socket: &DescriptorSocket, failure: Failure) -> i32 {
    let told = encode(&Report::Failed(failure)).and_then(|text| socket.send(&text, &[]));
    // If nobody listens any more, there is nobody to tell; the code differs for whoever traces us.
    NOT_STARTED + i32::from(told.is_err())
}

/// The descriptors that came with the instructions.
struct Received(Vec<OwnedFd>);

impl Received {
    fn get(&self, handle: Handle) -> io::Result<BorrowedFd<'_>> {
        self.0.get(handle.0).map(AsFd::as_fd).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

/// Sets up and becomes the command, or its init, whose code it gives.
fn enter(socket: DescriptorSocket, order: Order) -> Result<u8, (DescriptorSocket, Failure)> {
    match set_up(&socket, order) {
        Err(failure) => Err((socket, failure)),
        Ok((instructions, home)) if instructions.init => command::supervise(socket, &instructions, &home),
        Ok((instructions, home)) => {
            let Err(failure) = command::become_command(&socket, &instructions, &home);
            Err((socket, failure))
        }
    }
}

/// All but the command itself; gives the user's home directory beside the instructions.
fn set_up(socket: &DescriptorSocket, order: Order) -> Result<(Instructions, Vec<u8>), Failure> {
    this_process::set_umask(0);
    if order.network == Network::None {
        this_process::unshare(Namespace::Network)
            .and_then(|()| this_process::bring_up_loopback())
            .at(Stage::Network)?;
    }
    filesystems::prepare(order)?;
    let (instructions, received) = listen(socket).at(Stage::Instructions)?;
    join_cgroups(&instructions, &received).at(Stage::Cgroups)?;
    this_process::set_hostname(&instructions.hostname).at(Stage::Hostname)?;
    let terminal = filesystems::set_up(&instructions, &received)?;
    if let Some(terminal) = &terminal {
        let text = encode(&Report::Terminal).at(Stage::Terminal)?;
        socket.send(&text, &[terminal.controller.as_fd()]).at(Stage::Terminal)?;
    }
    start_session(&instructions, &received, terminal.map(|pair| pair.terminal)).at(Stage::Session)?;
    instructions.ulimits.iter().try_for_each(|limit| limit.apply()).at(Stage::Limits)?;
    let credentials = identity::resolve(&instructions.user)?;
    identity::give_stdio(&instructions.stdio, credentials.uid).at(Stage::Credentials)?;
    identity::enter_cwd(&instructions)?;
    if instructions.seal_root {
        filesystems::seal_root().at(Stage::Root)?;
    }
    identity::assume(&instructions, &credentials)?;
    last_rites(socket).at(Stage::LastRites)?;
    Ok((instructions, credentials.home))
}

/// Receives the instructions: the first descriptor is a memory file that holds them, the others are theirs.
fn listen(socket: &DescriptorSocket) -> io::Result<(Instructions, Received)> {
    let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut descriptors = Vec::new();
    loop {
        let message = socket.receive()?.ok_or_else(gone)?;
        descriptors.extend(message.descriptors);
        if message.bytes != [1] {
            break;
        }
    }
    let mut text = Vec::new();
    let mut descriptors = descriptors.into_iter();
    File::from(descriptors.next().ok_or_else(gone)?).read_to_end(&mut text)?;
    Ok((decode(&text)?, Received(descriptors.collect())))
}

fn join_cgroups(instructions: &Instructions, received: &Received) -> io::Result<()> {
    for join in &instructions.joins {
        // Zero means the writer.
        io::Write::write_all(&mut File::from(received.get(*join)?.try_clone_to_owned()?), b"0")?;
    }
    // After joining, so that the groups become the roots of what the sandbox sees.
    this_process::unshare(Namespace::Cgroup)
}

/// A session of its own, standard descriptors, ordinary signals and umask.
fn start_session(instructions: &Instructions, received: &Received, terminal: Option<File>) -> io::Result<()> {
    this_process::new_session()?;
    match &instructions.stdio {
        StdioInstruction::Captured { stdout, stderr } => {
            this_process::set_standard(0, File::open("/dev/null")?.as_fd())?;
            this_process::set_standard(1, received.get(*stdout)?)?;
            this_process::set_standard(2, received.get(*stderr)?)?;
        }
        StdioInstruction::Piped { stdin, stdout, stderr } => {
            this_process::set_standard(0, received.get(*stdin)?)?;
            this_process::set_standard(1, received.get(*stdout)?)?;
            this_process::set_standard(2, received.get(*stderr)?)?;
        }
        StdioInstruction::Terminal { .. } => {
            let terminal = terminal.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            sys::terminal::make_controlling(&terminal)?;
            (0..=2).try_for_each(|number| this_process::set_standard(number, terminal.as_fd()))?;
        }
        StdioInstruction::Inherited => {}
    }
    this_process::set_umask(0o022);
    this_process::reset_signals()
}

/// The last that happens with our own program: from here on, the death of our starter is ours.
fn last_rites(socket: &DescriptorSocket) -> io::Result<()> {
    this_process::close_on_exec_from_3()?;
    this_process::die_with_parent()?;
    // A starter that died before that call cannot have killed us.
    if socket.is_closed()? {
        return Err(io::Error::from(io::ErrorKind::BrokenPipe));
    }
    Ok(())
}

/// `Infallible` for a function that only returns to say why it failed.
type Never = Infallible;
