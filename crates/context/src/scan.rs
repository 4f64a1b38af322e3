//! Scanning a directory of the context: every file below it that is not ignored, with its attributes.
//!
//! One task per directory on rayon's threads: names by getdents64, sorted, then one statx each, then a merge with the stat
//! cache's records of the same directory, which are sorted the same way. A task opens its directory by its path below the root and closes
//! it before its subdirectories begin: descriptors in use are as many as threads, and the stack is flat, whatever the tree's depth.
//! Each thread fills one list of nodes and keeps its buffers, since many small blocks are what its allocator is slow at.

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use rayon::Scope;
use sys::RootfsPath;
use sys::directory::{self, Kind, Status};
use sys::root::Dir;

use crate::context::Shared;
use crate::error::ContextError;
use crate::ignore::{Above, Verdict};
use crate::node::{Node, Stamp};
use crate::stat_cache::Records;
use crate::tree::{Place, Tree};

/// Scans a directory, which exists and is not a link: it, then everything below, in the order of [`RootfsPath`]. Directories that are
/// themselves ignored appear only if something below them is not.
pub(crate) fn scan(shared: &Shared, top: &RootfsPath) -> Result<Tree, ContextError> {
    let (node, is_hidden, above) = look_at(shared, top)?;
    let scanner = Scanner::new(shared);
    let task = Task { path: top.clone(), above, cacheable: node.stamp().cacheable };
    rayon::scope(|scope| scanner.visit(scope, task));
    scanner.finish(node, is_hidden)
}

/// A directory to be read.
struct Task {
    path: RootfsPath,
    /// What its ignore rules have decided for everything in it.
    above: Above,
    cacheable: bool,
}

struct Scanner<'a> {
    shared: &'a Shared,
    /// One for each of rayon's threads, and so never waited for.
    workers: Vec<Mutex<Worker>>,
    found: Mutex<Found>,
}

/// What one thread keeps.
#[derive(Default)]
struct Worker {
    nodes: Vec<Node>,
    names: Names,
    path: Vec<u8>,
}

/// What the threads tell each other.
#[derive(Default)]
struct Found {
    /// Where the nodes of each directory are, which are sorted by name.
    listings: HashMap<RootfsPath, Listing>,
    /// Directories that an ignore rule excludes, read only for what may be brought back below them.
    hidden: HashSet<RootfsPath>,
    /// The first failure; the tasks left then do nothing.
    failure: Option<ContextError>,
}

#[derive(Clone)]
struct Listing {
    worker: usize,
    nodes: Range<usize>,
}

impl<'a> Scanner<'a> {
    fn new(shared: &'a Shared) -> Self {
        let workers = (0..rayon::current_num_threads()).map(|_| Mutex::default()).collect();
        Self { shared, workers, found: Mutex::default() }
    }

    fn visit<'s>(&'s self, scope: &Scope<'s>, task: Task) {
        if self.found().failure.is_some() {
            return;
        }
        let mut subdirectories = Vec::new();
        match self.shared.check_cancelled().and_then(|()| self.read(&task, &mut subdirectories)) {
            Ok(listing) => {
                self.found().listings.insert(task.path, listing);
                for below in subdirectories {
                    scope.spawn(move |scope| self.visit(scope, below));
                }
            }
            Err(error) => {
                self.found().failure.get_or_insert(error);
            }
        }
    }

    fn read(&self, task: &Task, subdirectories: &mut Vec<Task>) -> Result<Listing, ContextError> {
        let worker = rayon::current_thread_index().expect("tasks of a rayon scope run on rayon's threads");
        let mut own = self.workers[worker].lock().expect("no task panics with the lock");
        let start = own.nodes.len();
        let Worker { nodes, names, path } = &mut *own;
        let opened = directory::open_dir_below(&self.shared.root, &task.path);
        let dir = match opened.and_then(|dir| names.read(&dir).map(|()| dir)) {
            Ok(dir) => dir,
            // Removed since its parent was read: as empty as if it had been removed a moment later.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Listing { worker, nodes: start..start });
            }
            Err(source) => return Err(ContextError::Read { path: task.path.clone(), source }),
        };
        let mut records = self.shared.stat_cache().directory(task.path.as_bytes());
        let stem = start_path(path, &task.path);
        for name in names.iter() {
            path.truncate(stem);
            path.extend_from_slice(name.to_bytes());
            if let Some(node) = self.look(task, &dir, name, path, &mut records)? {
                subdirectories.extend(self.task_for(&node, task));
                nodes.push(node);
            }
        }
        Ok(Listing { worker, nodes: start..nodes.len() })
    }

    /// Looks at one name; `None` if it does not belong to the context.
    fn look(
        &self,
        task: &Task,
        dir: &Dir,
        name: &CStr,
        path: &[u8],
        records: &mut Records<'_>,
    ) -> Result<Option<Node>, ContextError> {
        let (shared, ignore) = (self.shared, &self.shared.ignore);
        let is_hidden = ignore.decide(&task.above, path) != Verdict::Included;
        if is_hidden && !ignore.may_bring_back_below(&task.above, path) {
            return Ok(None);
        }
        let status = match directory::status_at(dir, name) {
            Ok(status) => status,
            // Removed since the names were read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ContextError::Read { path: RootfsPath::parse(path)?, source }),
        };
        let path = RootfsPath::parse(path)?;
        if is_hidden {
            if status.kind != Kind::Directory {
                return Ok(None);
            }
            self.found().hidden.insert(path.clone());
        }
        let cacheable = task.cacheable && (!status.is_mount_root || shared.is_on_own_file_system(&status));
        make_node(shared, path, Stamp::new(&status, cacheable), name.to_bytes(), records).map(Some)
    }

    fn task_for(&self, node: &Node, parent: &Task) -> Option<Task> {
        node.is_directory().then(|| Task {
            path: node.path().clone(),
            above: self.shared.ignore.enter(&parent.above, node.path().as_bytes()),
            cacheable: node.stamp().cacheable,
        })
    }

    fn finish(self, top: Node, is_hidden: bool) -> Result<Tree, ContextError> {
        let mut found = self.found.into_inner().expect("no task panics with the lock");
        if let Some(failure) = found.failure {
            return Err(failure);
        }
        if is_hidden {
            found.hidden.insert(top.path().clone());
        }
        let workers = self.workers.into_iter();
        let nodes_of =
            |worker: Mutex<Worker>| worker.into_inner().expect("no task panics with the lock").nodes;
        let mut chunks: Vec<Vec<Node>> = workers.map(nodes_of).collect();
        let top_place = Place { chunk: narrow(chunks.len()), index: 0 };
        chunks.push(vec![top]);
        let mut order = Vec::with_capacity(chunks.iter().map(Vec::len).sum());
        Ordering { chunks: &chunks, found: &found, order: &mut order }.emit(top_place);
        Ok(Tree::new(chunks, order))
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().expect("no task panics with the lock")
    }
}

/// Puts the nodes in order.
struct Ordering<'a> {
    chunks: &'a [Vec<Node>],
    found: &'a Found,
    order: &'a mut Vec<Place>,
}

impl Ordering<'_> {
    /// Appends a file and what was found below it. Recursion is bounded by the components of a path, 2,048.
    fn emit(&mut self, place: Place) {
        let at = self.order.len();
        self.order.push(place);
        let node = &self.chunks[place.chunk as usize][place.index as usize];
        if !node.is_directory() {
            return;
        }
        if let Some(Listing { worker, nodes }) = self.found.listings.get(node.path()) {
            for index in nodes.clone() {
                self.emit(Place { chunk: narrow(*worker), index: narrow(index) });
            }
        }
        if self.order.len() == at + 1 && self.found.hidden.contains(node.path()) {
            self.order.truncate(at);
        }
    }
}

fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("a context has fewer than four billion files")
}

/// Puts a directory's path into a buffer, so that only names have to be appended; gives the length to cut back to.
fn start_path(path: &mut Vec<u8>, directory: &RootfsPath) -> usize {
    path.clear();
    path.extend_from_slice(directory.as_bytes());
    if !path.is_empty() {
        path.push(b'/');
    }
    path.len()
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

/// The node of a directory to be scanned, whether a rule excludes it, and what its rules have decided for everything in it.
fn look_at(shared: &Shared, path: &RootfsPath) -> Result<(Node, bool, Above), ContextError> {
    let status = directory::status_below(&shared.root, path)
        .map_err(|source| ContextError::Read { path: path.clone(), source })?;
    let node = single(shared, path, &status)?;
    let ignore = &shared.ignore;
    let enter = |above, ancestor: RootfsPath| ignore.enter(&above, ancestor.as_bytes());
    let above = path.ancestors().skip(1).fold(ignore.above_root(), enter);
    let is_hidden = ignore.decide(&above, path.as_bytes()) != Verdict::Included;
    let above = if path.is_root() { above } else { enter(above, path.clone()) };
    Ok((node, is_hidden, above))
}

/// The names in a directory, sorted, in one buffer.
#[derive(Default)]
struct Names {
    /// Each ends in a NUL.
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl Names {
    fn read(&mut self, dir: &Dir) -> io::Result<()> {
        let Self { bytes, ranges } = self;
        bytes.clear();
        ranges.clear();
        directory::for_each_entry(dir, |entry| {
            let start = bytes.len();
            bytes.extend_from_slice(entry.name.to_bytes_with_nul());
            ranges.push(start..bytes.len());
            Ok::<(), io::Error>(())
        })?;
        ranges.sort_unstable_by(|a, b| bytes[a.clone()].cmp(&bytes[b.clone()]));
        Ok(())
    }

    fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.ranges.iter().filter_map(|range| CStr::from_bytes_with_nul(&self.bytes[range.clone()]).ok())
    }
}

/// The names in a directory, ignored ones too, sorted.
pub(crate) fn names_in(shared: &Shared, path: &RootfsPath) -> Result<Vec<Vec<u8>>, ContextError> {
    let failed = |source| ContextError::Read { path: path.clone(), source };
    let dir = directory::open_dir_below(&shared.root, path).map_err(failed)?;
    let mut names = Names::default();
    names.read(&dir).map_err(failed)?;
    Ok(names.iter().map(|name| name.to_bytes().to_vec()).collect())
}
