//! Reading files: for their digests, and again for the copy.
//!
//! What a digest says must be what is copied, also while somebody writes. So a file is asked for its attributes before and after it
//! is read, and read again if they differ; the attributes of that reading replace the scan's. When it is opened for the copy and its
//! attributes have changed once more, its content decides: a log that only grew still begins with the bytes of the digest.
//!
//! Memory does not depend on the files: each thread has one buffer.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};
use sys::RootfsPath;
use sys::directory::{self, Kind, Status};
use sys::xattr;

use crate::context::Shared;
use crate::error::ContextError;
use crate::node::{Contents, FileDigest, Node, Origin, Stamp, Xattr};
use crate::stat_cache::Trust;

const BUFFER_BYTES: usize = 128 * 1024;

/// How often a file may change while it is read before that is an error.
const ATTEMPTS: usize = 3;

/// Reads what is not known yet of these nodes.
pub(crate) fn read_all<'a>(
    shared: &Shared,
    nodes: impl Iterator<Item = &'a Node> + Clone,
) -> Result<(), ContextError> {
    let unread: Vec<&Node> = nodes.clone().filter(|node| node.contents().is_none()).collect();
    if unread.is_empty() {
        return Ok(());
    }
    // Before the first byte is read: what is written later must bear a later time.
    let trust = shared.trust(nodes);
    tracing::debug!(files = unread.len(), ?trust, "reading files that the stat cache does not know");
    unread.par_iter().try_for_each_init(
        || vec![0; BUFFER_BYTES],
        |buffer, node| {
            shared.check_cancelled()?;
            node.learn(read(shared, node, trust, buffer)?);
            Ok(())
        },
    )
}

fn read(shared: &Shared, node: &Node, trust: Trust, buffer: &mut [u8]) -> Result<Contents, ContextError> {
    let path = &node.path();
    match node.stamp().kind {
        Kind::File => read_file(shared, node, trust, buffer),
        Kind::Directory => {
            let dir = directory::open_dir_below(&shared.root, path).map_err(|error| failed(path, error))?;
            let xattrs = travelling(xattr::list(&dir), |name| xattr::get(&dir, name));
            without_bytes(node, trust, xattrs.map_err(|error| failed(path, error))?)
        }
        _ => {
            let xattrs = named_xattrs(shared, path).map_err(|error| failed(path, error))?;
            without_bytes(node, trust, xattrs)
        }
    }
}

fn without_bytes(node: &Node, trust: Trust, xattrs: Box<[Xattr]>) -> Result<Contents, ContextError> {
    let origin = Origin::Read { storable: trust.covers(node.stamp()) };
    Ok(Contents::new(FileDigest([0; 32]), origin, xattrs, None))
}

/// A file that is gone, or is something else now, has changed; whatever else is wrong is told as it is.
fn failed(path: &RootfsPath, error: io::Error) -> ContextError {
    if directory::is_absence(&error) {
        return ContextError::Changed { path: path.clone() };
    }
    ContextError::Read { path: path.clone(), source: error }
}

fn read_file(
    shared: &Shared,
    node: &Node,
    trust: Trust,
    buffer: &mut [u8],
) -> Result<Contents, ContextError> {
    let path = &node.path();
    for _ in 0..ATTEMPTS {
        // Opened anew each time: editors replace a file by a new one of the same name.
        let mut file = directory::open_file_below(&shared.root, path).map_err(|error| failed(path, error))?;
        let before = directory::status(&file).map_err(|error| failed(path, error))?;
        if before.kind != Kind::File {
            break;
        }
        let digest = hash(shared, path, &mut file, before.size_bytes, buffer)?;
        let xattrs = travelling(xattr::list(&file), |name| xattr::get(&file, name));
        let xattrs = xattrs.map_err(|error| failed(path, error))?;
        let after = directory::status(&file).map_err(|error| failed(path, error))?;
        let Some(digest) = digest.filter(|_| before == after) else { continue };
        let stamp = Stamp::new(&after, node.stamp().cacheable);
        let origin = Origin::Read { storable: trust.covers(&stamp) };
        let reread = (stamp != *node.stamp()).then_some(stamp);
        return Ok(Contents::new(digest, origin, xattrs, reread));
    }
    Err(ContextError::Changed { path: path.clone() })
}

/// The digest of a file's first bytes; `None` if it ends before.
fn hash(
    shared: &Shared,
    path: &RootfsPath,
    file: &mut File,
    size_bytes: u64,
    buffer: &mut [u8],
) -> Result<Option<FileDigest>, ContextError> {
    let mut hasher = Sha256::new();
    let mut left = size_bytes;
    while left > 0 {
        shared.check_cancelled()?;
        let most = usize::try_from(left).unwrap_or(buffer.len()).min(buffer.len());
        let got = match file.read(&mut buffer[..most]) {
            Ok(0) => return Ok(None),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(path, error)),
        };
        hasher.update(&buffer[..got]);
        left -= got as u64;
    }
    Ok(Some(FileDigest(hasher.finalize().into())))
}

/// Opens a file for the copy: its first [`Node::size_bytes`] bytes are those of its digest.
pub(crate) fn open(shared: &Shared, node: &Node) -> Result<File, ContextError> {
    let path = &node.path();
    let mut file = directory::open_file_below(&shared.root, path).map_err(|error| failed(path, error))?;
    let now: Status = directory::status(&file).map_err(|error| failed(path, error))?;
    if node.stamp().is_same_content(&now) {
        return Ok(file);
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    let known = node.digest().filter(|_| now.kind == Kind::File);
    let found = hash(shared, path, &mut file, node.size_bytes(), &mut buffer)?;
    if known.is_none() || known != found {
        return Err(ContextError::Changed { path: path.clone() });
    }
    file.rewind().map_err(|error| failed(path, error))?;
    Ok(file)
}

fn named_xattrs(shared: &Shared, path: &RootfsPath) -> io::Result<Box<[Xattr]>> {
    let parent = directory::open_dir_below(&shared.root, &path.parent().unwrap_or_default())?;
    let name = OsStr::from_bytes(path.file_name().unwrap_or_default());
    let parent = parent.as_fd();
    travelling(xattr::list_at(parent, name), |attribute| xattr::get_at(parent, name, attribute))
}

/// The attributes that go with a file into an image, sorted by name.
fn travelling(
    names: io::Result<Vec<std::ffi::OsString>>,
    get: impl Fn(&OsStr) -> io::Result<Option<Vec<u8>>>,
) -> io::Result<Box<[Xattr]>> {
    let mut xattrs = Vec::new();
    for name in names?.into_iter().filter(|name| travels(name.as_bytes())) {
        // Removed since the list was read: then it is none.
        if let Some(value) = get(&name)? {
            xattrs.push(Xattr { name: name.as_bytes().into(), value: value.into() });
        }
    }
    xattrs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(xattrs.into())
}

fn travels(name: &[u8]) -> bool {
    const HOST_ONLY: [&[u8]; 4] = [b"security.", b"system.", b"trusted.overlay.", b"user.overlay."];
    name == b"security.capability" || !HOST_ONLY.iter().any(|prefix| name.starts_with(prefix))
}
