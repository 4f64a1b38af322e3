//! `RUN --mount=type=ssh`: an ssh agent of the person who builds, as far as a RUN may use it.
//!
//! The RUN gets a socket of its own, with the owner and the mode it asks for. What comes through it is read request by request: keys may be
//! listed and used, and whatever would add, remove or lock keys is answered as an agent answers what it does not do
//! (draft-ietf-sshm-ssh-agent, "Protocol messages").

use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::io::{self, PipeWriter, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The longest message, as OpenSSH has it.
const MAX_MESSAGE_BYTES: usize = 256 << 10;

/// More than any RUN needs, and less than we have descriptors for.
const MAX_CONNECTIONS: usize = 64;

/// How long to wait after a connection failed: what is short for one is short for the next.
const PAUSE: Duration = Duration::from_millis(50);

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
    let connections = Connections::default();
    std::thread::scope(|scope| {
        // Before the scope waits for their threads.
        let _ended = EndAll(&connections);
        loop {
            let readable = sys::poll::readable(&[listener.as_fd(), stopped.as_fd()], None)?;
            if readable[1] {
                return Ok(());
            }
            if !readable[0] {
                continue;
            }
            let connected = listener.accept().and_then(|(client, _)| connections.open(client, agent));
            match connected {
                Ok(Some(connection)) => drop(scope.spawn(move || connection.serve())),
                Ok(None) => {
                    tracing::warn!("a RUN has {MAX_CONNECTIONS} connections to the ssh agent already")
                }
                // The client finds its connection closed.
                Err(error) => {
                    tracing::warn!(%error, "the ssh agent does not answer");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    })
}

/// Both ends of each open connection, by a number.
#[derive(Default)]
struct Connections(Mutex<HashMap<usize, [UnixStream; 2]>>);

/// One of them, as long as this lives.
struct Connection<'c> {
    all: &'c Connections,
    number: usize,
    client: UnixStream,
    agent: UnixStream,
}

impl Connections {
    /// `None` if there are too many.
    fn open(&self, client: UnixStream, agent: &Path) -> io::Result<Option<Connection<'_>>> {
        let mut open = self.lock();
        if open.len() == MAX_CONNECTIONS {
            return Ok(None);
        }
        let agent = UnixStream::connect(agent)?;
        // Below the limit, so one of the numbers is free.
        let number = (0..MAX_CONNECTIONS).find(|number| !open.contains_key(number)).unwrap_or_default();
        open.insert(number, [client.try_clone()?, agent.try_clone()?]);
        drop(open);
        Ok(Some(Connection { all: self, number, client, agent }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, [UnixStream; 2]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection<'_> {
    fn serve(mut self) {
        if let Err(error) = relay(&mut self.client, &mut self.agent) {
            tracing::debug!(%error, "a connection to the ssh agent ended");
        }
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.all.lock().remove(&self.number);
    }
}

/// Ends what is open, so that nothing waits for an agent that asks a person.
struct EndAll<'c>(&'c Connections);

impl Drop for EndAll<'_> {
    fn drop(&mut self) {
        for stream in self.0.lock().values().flatten() {
            if let Err(error) = stream.shutdown(Shutdown::Both) {
                tracing::trace!(%error, "closed already");
            }
        }
    }
}

fn relay(client: &mut UnixStream, agent: &mut UnixStream) -> io::Result<()> {
    while let Some(request) = read_message(client)? {
        let is_harmless = matches!(request.first(), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)));
        let answer = if is_harmless {
            write_message(agent, &request)?;
            read_message(agent)?.ok_or(io::ErrorKind::UnexpectedEof)?
        } else {
            vec![FAILURE]
        };
        write_message(client, &answer)?;
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

    #[test]
    fn connections_end_with_the_agent_and_make_room_for_others() {
        let directory = tempfile::tempdir().unwrap();
        let (real, ours) = (directory.path().join("real"), directory.path().join("ours"));
        let listener = UnixListener::bind(&real).unwrap();
        let hangs_up = std::thread::spawn(move || {
            for _ in 0..MAX_CONNECTIONS + 1 {
                let (mut stream, _) = listener.accept().unwrap();
                read_message(&mut stream).unwrap();
            }
        });
        std::fs::create_dir(&ours).unwrap();
        let socket = AgentSocket::open(&ours, &real, Access { mode: 0o600, uid: 0, gid: 0 }).unwrap();
        let mut ended = Vec::new();
        for _ in 0..MAX_CONNECTIONS + 1 {
            let mut client = UnixStream::connect(socket.path()).unwrap();
            write_message(&mut client, &[REQUEST_IDENTITIES]).unwrap();
            assert_eq!(read_message(&mut client).unwrap(), None);
            // Kept: it is the other end that must let go.
            ended.push(client);
        }
        hangs_up.join().unwrap();
    }
}
