//! An ssh agent without keys.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

/// The answer to everything: a list of no identities (SSH2_AGENT_IDENTITIES_ANSWER).
const NO_KEYS: [u8; 9] = [0, 0, 0, 5, 12, 0, 0, 0, 0];

/// Listens until the process ends.
pub struct Agent(PathBuf);

impl Agent {
    /// Starts an agent whose socket is `path`.
    ///
    /// # Errors
    /// There is something, or the path is longer than the kernel allows.
    pub fn start(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        thread::spawn(move || listener.incoming().flatten().for_each(answer));
        Ok(Self(path.to_owned()))
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.0
    }
}

fn answer(mut stream: UnixStream) {
    let mut request = [0; 5];
    while stream.read_exact(&mut request).and_then(|()| stream.write_all(&NO_KEYS)).is_ok() {}
}
