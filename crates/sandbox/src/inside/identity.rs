//! Who the process becomes: user, groups, capabilities, the system call filter, and where it stands.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use sys::capability::{self, Capabilities};
use sys::seccomp::Instruction;
use sys::{Root, RootfsPath, this_process};

use super::message::{At, Failure, errno};
use super::{Instructions, StdioInstruction};
use crate::user::{Credentials, User};
use crate::{Posture, Stage};

/// How much of `/etc/passwd` and `/etc/group` is read. An image may bring any file there.
const MAX_ACCOUNTS_BYTES: u64 = 16 * 1024 * 1024;

/// Docker's default capabilities. Without `SETFCAP`, package scripts would fall back to set-user-ID files and make another image.
fn capabilities() -> Capabilities {
    Capabilities::CHOWN
        | Capabilities::DAC_OVERRIDE
        | Capabilities::FSETID
        | Capabilities::FOWNER
        | Capabilities::MKNOD
        | Capabilities::NET_RAW
        | Capabilities::SETGID
        | Capabilities::SETUID
        | Capabilities::SETFCAP
        | Capabilities::SETPCAP
        | Capabilities::NET_BIND_SERVICE
        | Capabilities::SYS_CHROOT
        | Capabilities::KILL
        | Capabilities::AUDIT_WRITE
}

/// Looks the user up in the root's own files.
pub(super) fn resolve(user: &User) -> Result<Credentials, Failure> {
    let root = Root::open(Path::new("/")).at(Stage::Accounts)?;
    let passwd = read_accounts(&root, "etc/passwd").at(Stage::Accounts)?;
    let group = read_accounts(&root, "etc/group").at(Stage::Accounts)?;
    user.resolve(&passwd, &group).map_err(Failure::User)
}

/// Reads a file; one that is absent, or no file, says nothing.
fn read_accounts(root: &Root, path: &str) -> io::Result<Vec<u8>> {
    let path = RootfsPath::parse(path).map_err(io::Error::other)?;
    let file = match root.open_file(&path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    let mut text = Vec::new();
    if file.metadata()?.is_file() {
        file.take(MAX_ACCOUNTS_BYTES).read_to_end(&mut text)?;
    }
    Ok(text)
}

/// Lets the user open `/dev/stdout` and the like: what we made for the process becomes its own, what was lent does not.
pub(super) fn give_stdio(stdio: &StdioInstruction, uid: u32) -> io::Result<()> {
    let numbers = match stdio {
        StdioInstruction::Captured { .. } => 1..=2,
        StdioInstruction::Piped { .. } => 0..=2,
        StdioInstruction::Terminal { .. } => 0..=0,
        StdioInstruction::Inherited => return Ok(()),
    };
    for number in numbers {
        this_process::give_standard(number, uid)?;
    }
    Ok(())
}

/// Enters the working directory, still as root: the user may not be allowed to look it up.
pub(super) fn enter_cwd(instructions: &Instructions) -> Result<(), Failure> {
    let entered = || {
        let path = RootfsPath::parse(&instructions.cwd).map_err(io::Error::other)?;
        let root = Root::open(Path::new("/"))?;
        let directory = match root.open_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && instructions.create_cwd => {
                create_directories(&root, &path)?;
                root.open_dir(&path)?
            }
            other => other?,
        };
        // A descriptor that leads out of the root would show here (CVE-2024-21626).
        match this_process::enter_directory(directory.as_fd())?.as_bytes().first() {
            Some(b'/') => Ok(()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    };
    entered().map_err(|error| Failure::Cwd { path: instructions.cwd.clone(), errno: errno(&error) })
}

fn create_directories(root: &Root, path: &RootfsPath) -> io::Result<()> {
    for part in path.ancestors().skip(1).chain([path.clone()]) {
        let Some((parent, name)) = root.parent_of(&part)? else { continue };
        match parent.create_dir(name) {
            Ok(()) => parent.set_mode(name, 0o755)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives up everything that the command must not have. The order matters at every step.
pub(super) fn assume(instructions: &Instructions, credentials: &Credentials) -> Result<(), Failure> {
    let capabilities = match instructions.posture {
        Posture::Confined => capabilities(),
        Posture::Insecure => capability::effective().at(Stage::Credentials)?,
    };
    // Kernels without keyrings have nothing to leak.
    this_process::new_session_keyring().or_else(ignore_missing).at(Stage::Credentials)?;
    capability::bound(capabilities).at(Stage::Credentials)?;
    this_process::set_groups(credentials.gid, &credentials.groups).at(Stage::Credentials)?;
    if instructions.no_new_privileges {
        this_process::forbid_new_privileges().at(Stage::Credentials)?;
    }
    // Without `no_new_privs`, installing a filter needs CAP_SYS_ADMIN, which the next steps give up.
    if !instructions.filter.is_empty() {
        let filter: Vec<Instruction> = instructions.filter.iter().map(instruction).collect();
        sys::seccomp::install(&filter).at(Stage::Seccomp)?;
    }
    this_process::set_user(credentials.uid).at(Stage::Credentials)?;
    // Another user than root has lost all by now, as execve would take them.
    let kept = if credentials.uid == 0 { capabilities } else { Capabilities::empty() };
    capability::set(kept).at(Stage::Credentials)
}

fn instruction(&(code, jump_true, jump_false, operand): &(u16, u8, u8, u32)) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Unsupported { Ok(()) } else { Err(error) }
}
