//! An in-process proxy on a loopback port: tunnels (CONNECT, RFC 9110, section 9.3.6), all of them to this machine.
//!
//! ```
//! let proxy = testkit::proxy::Proxy::start();
//! assert!(proxy.address().starts_with("127.0.0.1:"));
//! assert!(proxy.tunnels().is_empty());
//! ```

use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// A running proxy. Whatever host is asked for, the tunnel leads to that port of 127.0.0.1, so that names need not exist.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// A tunnel that was asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tunnel {
    /// `host:port`.
    pub to: String,
    /// `Proxy-Authorization`.
    pub authorization: Option<String>,
}

#[derive(Default)]
struct Shared {
    tunnels: Mutex<Vec<Tunnel>>,
    stopping: AtomicBool,
}

impl Proxy {
    /// Starts a proxy.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::<Shared>::default();
        let of_acceptor = Arc::clone(&shared);
        let acceptor = Some(thread::spawn(move || accept(&listener, &of_acceptor)));
        Self { address, shared, acceptor }
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// What was asked for so far.
    #[must_use]
    pub fn tunnels(&self) -> Vec<Tunnel> {
        self.shared.tunnels.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

/// A tunnel's thread ends with its connection, which belongs to a client of the same test.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in listener.incoming().map_while(Result::ok) {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let shared = Arc::clone(shared);
        thread::spawn(move || tunnel(connection, &shared));
    }
}

fn tunnel(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let request = lines.first().and_then(|line| line.strip_prefix("CONNECT ")?.split(' ').next());
    let port = request.and_then(|to| to.rsplit_once(':')?.1.parse::<u16>().ok());
    let (Some(to), Some(port)) = (request, port) else {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n");
    };
    let authorization = lines.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| value.trim().to_owned())
    });
    let tunnel = Tunnel { to: to.to_owned(), authorization };
    shared.tunnels.lock().unwrap_or_else(PoisonError::into_inner).push(tunnel);
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
    };
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut from_server, to_client) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || pump(&mut from_server, to_client));
    // A client waits for the answer before it says more, so nothing of it is in the buffer of the lines.
    pump(&mut client, server);
    drop(back.join());
    Ok(())
}

/// Copies until one side ends, and ends the other.
fn pump(from: &mut TcpStream, mut to: TcpStream) {
    drop(io::copy(from, &mut to));
    drop(to.shutdown(Shutdown::Write));
}
