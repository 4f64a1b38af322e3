//! `RUN --mount=type=ssh`: an ssh agent of the person who builds, as far as a RUN may use it.
//!
//! The RUN gets a socket of its own, with the owner and the mode it asks for. What comes through it is read request by request: keys may be
//! listed and used, and whatever would add, remove or lock keys is answered as an agent answers what it does not do
//! (draft-ietf-sshm-ssh-agent, "Protocol messages").

use std::fs::{File, Permissions};
use std::io::{self, PipeWriter, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// The longest message, as OpenSSH has it.
const MAX_MESSAGE_BYTES: usize = 256 << 10;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;

/// The name of the socket in its directory.
const NAME: &str = "agent";

/// Who may use the socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The socket, and the thread behind it. Dropping it ends all connections.
#[derive(Debug)]
pub(crate) struct AgentSocket {
    path: PathBuf,
    /// Closing it tells the thread to end.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl AgentSocket {
    /// Listens in an empty directory for what is to reach the agent at `agent`.
    pub(crate) fn open(directory: &Path, agent: &Path, access: Access) -> io::Result<Self> {
        let path = directory.join(NAME);
        // The address of a socket has room for a hundred bytes, and a store may lie deeper.
        let opened = File::open(directory)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{NAME}", opened.as_raw_fd()))?;
        chown(&path, Some(access.uid), Some(access.gid))?;
        std::fs::set_permissions(&path, Permissions::from_mode(access.mode))?;
        let (stopped, stop) = io::pipe()?;
        let agent = agent.to_owned();
        let thread = std::thread::Builder::new().name("ssh-agent".to_owned()).spawn(move || {
            if let Err(error) = serve(&listener, &agent, &stopped) {
                tracing::warn!(%error, "the ssh agent is out of reach");
            }
        })?;
        Ok(Self { path, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of an ssh agent panicked");
        }
    }
}

fn serve(listener: &UnixListener, agent: &Path, stopped: &impl AsFd) -> io::Result<()> {
    std::thread::scope(|scope| {
        let mut connections = Connections::default();
        loop {
            let readable = sys::poll::readable(&[listener.as_fd(), stopped.as_fd()], None)?;
            if readable[1] {
                return Ok(());
            }
            if !readable[0] {
                continue;
            }
            let (client, _) = listener.accept()?;
            let agent = match UnixStream::connect(agent) {
                Ok(agent) => agent,
                Err(error) => {
                    // The client finds its connection closed.
                    tracing::warn!(%error, "the ssh agent does not answer");
                    continue;
                }
            };
            connections.0.extend([client.try_clone()?, agent.try_clone()?]);
            scope.spawn(move || {
                if let Err(error) = relay(client, agent) {
                    tracing::debug!(%error, "a connection to the ssh agent ended");
                }
            });
        }
    })
}

/// Both ends of each connection; closed when the thread ends, so that nothing waits for an agent that asks a person.
#[derive(Default)]
struct Connections(Vec<UnixStream>);

impl Drop for Connections {
    fn drop(&mut self) {
        for stream in &self.0 {
            if let Err(error) = stream.shutdown(Shutdown::Both) {
                tracing::trace!(%error, "closed already");
            }
        }
    }
}

fn relay(mut client: UnixStream, mut agent: UnixStream) -> io::Result<()> {
    while let Some(request) = read_message(&mut client)? {
        let is_harmless = matches!(request.first(), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)));
        let answer = if is_harmless {
            write_message(&mut agent, &request)?;
            read_message(&mut agent)?.ok_or(io::ErrorKind::UnexpectedEof)?
        } else {
            vec![FAILURE]
        };
        write_message(&mut client, &answer)?;
    }
    Ok(())
}

/// The type and content of a message; `None` at the end of the stream.
fn read_message(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length == 0 || length > MAX_MESSAGE_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    from.read_exact(&mut message)?;
    Ok(Some(message))
}

fn write_message(to: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    to.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    const ADD_IDENTITY: u8 = 17;
    const IDENTITIES_ANSWER: u8 = 12;

    fn ask(client: &mut UnixStream, request: &[u8]) -> Vec<u8> {
        write_message(client, request).unwrap();
        read_message(client).unwrap().unwrap()
    }

    #[test]
    fn keys_can_be_listed_and_used_and_nothing_else_gets_through() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().join("real");
        let listener = UnixListener::bind(&real).unwrap();
        let seen = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = Vec::new();
            while let Some(request) = read_message(&mut stream).unwrap() {
                seen.push(request[0]);
                write_message(&mut stream, &[IDENTITIES_ANSWER, 0, 0, 0, 0]).unwrap();
            }
            seen
        });
        // Deeper than an address of a socket can say.
        let deep = directory.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let socket = AgentSocket::open(&deep, &real, Access { mode: 0o640, uid: 0, gid: 0 }).unwrap();
        assert_eq!(std::fs::metadata(socket.path()).unwrap().mode() & 0o777, 0o640);
        let opened = File::open(&deep).unwrap();
        let mut client = UnixStream::connect(format!("/proc/self/fd/{}/{NAME}", opened.as_raw_fd())).unwrap();
        assert_eq!(ask(&mut client, &[REQUEST_IDENTITIES])[0], IDENTITIES_ANSWER);
        assert_eq!(ask(&mut client, &[ADD_IDENTITY, 1, 2, 3]), [FAILURE]);
        assert_eq!(ask(&mut client, &[SIGN_REQUEST, 0])[0], IDENTITIES_ANSWER);
        // With the connection still open.
        drop(socket);
        assert_eq!(seen.join().unwrap(), [REQUEST_IDENTITIES, SIGN_REQUEST]);
    }
}
