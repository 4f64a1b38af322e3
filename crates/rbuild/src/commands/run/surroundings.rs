//! What a container finds around the image's files: its name, and the files of `/etc` that are about the network.

use std::fs;

use sandbox::{Content, Mount, MountKind, Network};
use sys::RootfsPath;

use crate::commands::run::request::Request;
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};

/// Name and files.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) hostname: String,
    pub(crate) mounts: Vec<Mount>,
}

/// `/etc/hosts` where nothing but the loopback interface is there.
const LOOPBACK_HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
                              ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

impl Surroundings {
    /// As with Docker: whoever is in the machine's network has its name and a copy of its files, all others a name of their own.
    pub(crate) fn of(request: &Request) -> Result<Self, Failure> {
        let (hostname, hosts) = match request.network {
            Network::Host => (machine_file("/proc/sys/kernel/hostname"), machine_file("/etc/hosts")),
            Network::None => (random_name()?, LOOPBACK_HOSTS.to_owned()),
        };
        let hostname = hostname.trim().to_owned();
        let files = [
            ("etc/hostname", format!("{hostname}\n")),
            ("etc/hosts", hosts),
            ("etc/resolv.conf", machine_file("/etc/resolv.conf")),
        ];
        let mounts = files.into_iter().map(|(path, text)| file(path, text)).collect();
        Ok(Self { hostname, mounts })
    }
}

/// A file of this machine; empty if it has none.
fn machine_file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn file(path: &str, text: String) -> Mount {
    let kind = MountKind::File { content: Content(text.into_bytes()), mode: 0o644, uid: 0, gid: 0 };
    Mount { target: RootfsPath::parse(path).unwrap_or_default(), kind }
}

/// 12 hex digits, as Docker names a container.
fn random_name() -> Result<String, Failure> {
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(Exit::RunFailed, Diagnostic::from_error("random", &error)))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
