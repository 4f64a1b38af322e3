//! Scanning a directory of the context: every file below it that is not ignored, with its attributes.
//!
//! One task per directory on rayon's threads: names by getdents64, sorted, then one statx each, then a merge with the stat
//! cache's records of the same directory, which are sorted the same way. A task opens its directory by its path below the root and closes
//! it before its subdirectories begin: descriptors in use are as many as threads, and the stack is flat, whatever the tree's depth.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::ops::Range;
use std::sync::Mutex;

use rayon::Scope;
use sys::RootfsPath;
use sys::directory::{self, Kind, Status};
use sys::root::Dir;

use crate::context::Shared;
use crate::error::ContextError;
use crate::ignore::{Above, Verdict};
use crate::node::{Node, Stamp};
use crate::stat_cache::Records;

/// Scans a directory, which exists and is not a link: it, then everything below, in the order of [`RootfsPath`]. Directories that are
/// themselves ignored appear only if something below them is not.
pub(crate) fn scan(shared: &Shared, top: &RootfsPath) -> Result<Vec<Node>, ContextError> {
    let seen = look_at(shared, top)?;
    let Some(below) = seen.descend.clone() else { return Ok(Vec::new()) };
    let scanner = Scanner { shared, parts: Mutex::default(), failure: Mutex::default() };
    let task = Task { path: top.clone(), above: below, cacheable: seen.node.stamp().cacheable };
    rayon::scope(|scope| scanner.visit(scope, task));
    if let Some(failure) = scanner.failure.into_inner().expect("no task panics with the lock") {
        return Err(failure);
    }
    let mut parts = scanner.parts.into_inner().expect("no task panics with the lock");
    let mut nodes = Vec::with_capacity(1 + parts.values().map(Vec::len).sum::<usize>());
    emit(seen, &mut parts, &mut nodes);
    Ok(nodes)
}

/// One file as a scan sees it.
struct Seen {
    node: Node,
    /// Whether an ignore rule excludes the file itself.
    hidden: bool,
    /// For a directory that is to be read: what its ignore rules have decided for everything in it.
    descend: Option<Above>,
}

struct Scanner<'a> {
    shared: &'a Shared,
    /// What was seen in each directory, sorted by name.
    parts: Mutex<HashMap<RootfsPath, Vec<Seen>>>,
    /// The first failure; the tasks left then do nothing.
    failure: Mutex<Option<ContextError>>,
}

struct Task {
    path: RootfsPath,
    above: Above,
    cacheable: bool,
}

impl<'a> Scanner<'a> {
    fn visit<'s>(&'s self, scope: &Scope<'s>, task: Task) {
        if self.failure.lock().expect("no task panics with the lock").is_some() {
            return;
        }
        match self.shared.check_cancelled().and_then(|()| read_directory(self.shared, &task)) {
            Ok(seen) => {
                for child in &seen {
                    if let Some(above) = child.descend.clone() {
                        let cacheable = child.node.stamp().cacheable;
                        let below = Task { path: child.node.path().clone(), above, cacheable };
                        scope.spawn(move |scope| self.visit(scope, below));
                    }
                }
                self.parts.lock().expect("no task panics with the lock").insert(task.path, seen);
            }
            Err(error) => {
                self.failure.lock().expect("no task panics with the lock").get_or_insert(error);
            }
        }
    }
}

fn read_directory(shared: &Shared, task: &Task) -> Result<Vec<Seen>, ContextError> {
    let failed = |source| ContextError::Read { path: task.path.clone(), source };
    let dir = match directory::open_dir_below(&shared.root, &task.path) {
        Ok(dir) => dir,
        // Removed since its parent was read: as empty as if it had been removed a moment later.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let names = Names::read(&dir).map_err(failed)?;
    let mut records = shared.stat_cache().directory(task.path.as_bytes());
    let mut path = PathBuffer::below(&task.path);
    let mut seen = Vec::with_capacity(names.ranges.len());
    for name in names.iter() {
        let verdict = shared.ignore.decide(&task.above, path.with(name.to_bytes()));
        let hidden = verdict != Verdict::Included;
        if hidden && !shared.ignore.may_bring_back_below(&task.above, &path.bytes) {
            continue;
        }
        let status = match directory::status_at(&dir, name) {
            Ok(status) => status,
            // Removed since the names were read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        let is_directory = status.kind == Kind::Directory;
        if hidden && !is_directory {
            continue;
        }
        let descend = is_directory.then(|| shared.ignore.enter(&task.above, &path.bytes));
        let stamp = Stamp::new(
            &status,
            task.cacheable && (!status.is_mount_root || shared.is_on_own_file_system(&status)),
        );
        let node = make_node(shared, RootfsPath::parse(&path.bytes)?, stamp, name.to_bytes(), &mut records)?;
        seen.push(Seen { node, hidden, descend });
    }
    Ok(seen)
}

/// Makes the node of one path, which may be ignored or not.
pub(crate) fn single(shared: &Shared, path: &RootfsPath, status: &Status) -> Result<Node, ContextError> {
    let (parent, name) = split(path.as_bytes());
    let mut records = shared.stat_cache().directory(parent);
    let cacheable = shared.is_on_own_file_system(status);
    make_node(shared, path.clone(), Stamp::new(status, cacheable), name, &mut records)
}

/// A path's directory and name; both empty for the root.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn make_node(
    shared: &Shared,
    path: RootfsPath,
    stamp: Stamp,
    name: &[u8],
    records: &mut Records<'_>,
) -> Result<Node, ContextError> {
    let known = records.find(name).filter(|record| stamp.cacheable && record.is_of(&stamp));
    let target = match (&known, stamp.kind) {
        (Some(record), _) => record.target.into(),
        (None, Kind::Symlink) => directory::read_link_below(&shared.root, &path)
            .map_err(|source| ContextError::Read { path: path.clone(), source })?
            .into(),
        (None, _) => Box::default(),
    };
    let node = Node::new(path, stamp, target);
    if let Some(record) = known {
        node.learn(record.contents());
    }
    Ok(node)
}

fn look_at(shared: &Shared, path: &RootfsPath) -> Result<Seen, ContextError> {
    let status = directory::status_below(&shared.root, path)
        .map_err(|source| ContextError::Read { path: path.clone(), source })?;
    let node = single(shared, path, &status)?;
    let above = path
        .ancestors()
        .skip(1)
        .fold(shared.ignore.above_root(), |above, ancestor| shared.ignore.enter(&above, ancestor.as_bytes()));
    let hidden = shared.ignore.decide(&above, path.as_bytes()) != Verdict::Included;
    let below = if path.is_root() { above } else { shared.ignore.enter(&above, path.as_bytes()) };
    Ok(Seen { node, hidden, descend: (status.kind == Kind::Directory).then_some(below) })
}

/// Appends a file and what was seen below it. Recursion is bounded by the components of a path, 2,048.
fn emit(seen: Seen, parts: &mut HashMap<RootfsPath, Vec<Seen>>, nodes: &mut Vec<Node>) {
    let at = nodes.len();
    let below = seen.descend.as_ref().and_then(|_| parts.remove(seen.node.path()));
    nodes.push(seen.node);
    for child in below.into_iter().flatten() {
        emit(child, parts, nodes);
    }
    if seen.hidden && nodes.len() == at + 1 {
        nodes.truncate(at);
    }
}

/// The names in a directory, sorted, in one allocation.
struct Names {
    /// Each ends in a NUL.
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl Names {
    fn read(dir: &Dir) -> io::Result<Self> {
        let mut names = Self { bytes: Vec::new(), ranges: Vec::new() };
        directory::for_each_entry(dir, |entry| {
            let start = names.bytes.len();
            names.bytes.extend_from_slice(entry.name.to_bytes_with_nul());
            names.ranges.push(start..names.bytes.len());
            Ok::<(), io::Error>(())
        })?;
        let Self { bytes, ranges } = &mut names;
        ranges.sort_unstable_by(|a, b| bytes[a.clone()].cmp(&bytes[b.clone()]));
        Ok(names)
    }

    fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.ranges.iter().filter_map(|range| CStr::from_bytes_with_nul(&self.bytes[range.clone()]).ok())
    }
}

/// The names in a directory, ignored ones too, sorted.
pub(crate) fn names_in(shared: &Shared, path: &RootfsPath) -> Result<Vec<Vec<u8>>, ContextError> {
    let failed = |source| ContextError::Read { path: path.clone(), source };
    let dir = directory::open_dir_below(&shared.root, path).map_err(failed)?;
    Ok(Names::read(&dir).map_err(failed)?.iter().map(|name| name.to_bytes().to_vec()).collect())
}

/// A path whose last component is exchanged again and again.
struct PathBuffer {
    bytes: Vec<u8>,
    stem: usize,
}

impl PathBuffer {
    fn below(directory: &RootfsPath) -> Self {
        let mut bytes = directory.as_bytes().to_vec();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        Self { stem: bytes.len(), bytes }
    }

    fn with(&mut self, name: &[u8]) -> &[u8] {
        self.bytes.truncate(self.stem);
        self.bytes.extend_from_slice(name);
        &self.bytes
    }
}
