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
use crate::node::{Node, Place, Siblings, Stamp};
use crate::stat_cache::Record;
use crate::tree::{NodeIndex, Tree};

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
    /// Whether the stat cache does not know one of them, directories aside: they may be left out in the end.
    has_unknown: bool,
    names: Names,
    path: Vec<u8>,
    records: Vec<u8>,
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

struct Listing {
    worker: usize,
    nodes: Range<usize>,
    /// Which of them are directories, in ascending order: putting nodes in order looks at no others.
    directories: Vec<usize>,
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
        let Worker { nodes, has_unknown, names, path, records } = &mut *own;
        let opened = directory::open_dir_below(&self.shared.root, &task.path);
        let dir = match opened.and_then(|dir| names.read(&dir).map(|()| dir)) {
            Ok(dir) => dir,
            // Removed since its parent was read: as empty as if it had been removed a moment later.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Listing { worker, nodes: start..start, directories: Vec::new() });
            }
            Err(source) => return Err(ContextError::Read { path: task.path.clone(), source }),
        };
        let mut records = self.shared.stat_cache().directory(task.path.as_bytes(), records);
        let siblings = Siblings::new(task.path.clone(), &names.bytes);
        let (stem, mut directories) = (start_path(path, &task.path), Vec::new());
        for (name, range) in names.iter() {
            path.truncate(stem);
            path.extend_from_slice(name.to_bytes());
            let Some(stamp) = self.look(task, &dir, name, path)? else { continue };
            let place = Place::among(&siblings, range);
            let node = make_node(self.shared, place, stamp, records.find(name.to_bytes()))?;
            if node.is_directory() {
                directories.push(nodes.len());
                subdirectories.push(self.task_for(&node, task));
            } else {
                *has_unknown |= node.contents().is_none();
            }
            nodes.push(node);
        }
        Ok(Listing { worker, nodes: start..nodes.len(), directories })
    }

    /// Looks at one name; `None` if it does not belong to the context.
    fn look(&self, task: &Task, dir: &Dir, name: &CStr, path: &[u8]) -> Result<Option<Stamp>, ContextError> {
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
        if is_hidden && status.kind != Kind::Directory {
            return Ok(None);
        }
        if !task.path.takes_name(name.to_bytes()) {
            // Too long: the error names it.
            RootfsPath::parse(path)?;
        }
        if is_hidden {
            self.found().hidden.insert(RootfsPath::parse(path)?);
        }
        let cacheable = task.cacheable && (!status.is_mount_root || shared.is_on_own_file_system(&status));
        Ok(Some(Stamp::new(&status, cacheable)))
    }

    fn task_for(&self, directory: &Node, parent: &Task) -> Task {
        let path = directory.path();
        let above = self.shared.ignore.enter(&parent.above, path.as_bytes());
        Task { path, above, cacheable: directory.stamp().cacheable }
    }

    fn finish(self, top: Node, is_hidden: bool) -> Result<Tree, ContextError> {
        let mut found = self.found.into_inner().expect("no task panics with the lock");
        if let Some(failure) = found.failure {
            return Err(failure);
        }
        if is_hidden {
            found.hidden.insert(top.path());
        }
        let mut was_known = true;
        let mut chunks = Vec::with_capacity(self.workers.len() + 1);
        for worker in self.workers {
            let worker = worker.into_inner().expect("no task panics with the lock");
            was_known &= !worker.has_unknown;
            chunks.push(worker.nodes);
        }
        let top_index = NodeIndex { chunk: narrow(chunks.len()), position: 0 };
        chunks.push(vec![top]);
        let order = Vec::with_capacity(chunks.iter().map(Vec::len).sum());
        let mut ordering = Ordering { chunks: &chunks, found: &found, order, was_known };
        ordering.emit(top_index);
        let Ordering { order, was_known, .. } = ordering;
        Ok(Tree::new(chunks, order, was_known))
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().expect("no task panics with the lock")
    }
}

/// Puts the nodes in order.
struct Ordering<'a> {
    chunks: &'a [Vec<Node>],
    found: &'a Found,
    order: Vec<NodeIndex>,
    was_known: bool,
}

impl Ordering<'_> {
    /// Appends a directory and what was found below it. Recursion is bounded by the components of a path, 2,048.
    fn emit(&mut self, directory: NodeIndex) {
        let at = self.order.len();
        self.order.push(directory);
        let node = &self.chunks[directory.chunk as usize][directory.position as usize];
        let path = node.path();
        if let Some(Listing { worker, nodes, directories }) = self.found.listings.get(&path) {
            let index = |position| NodeIndex { chunk: narrow(*worker), position: narrow(position) };
            let mut next = nodes.start;
            for &below in directories {
                self.order.extend((next..below).map(index));
                self.emit(index(below));
                next = below + 1;
            }
            self.order.extend((next..nodes.end).map(index));
        }
        if self.order.len() == at + 1 && self.found.hidden.contains(&path) {
            self.order.truncate(at);
        } else {
            self.was_known &= node.contents().is_some();
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
    let place = Place::alone(path);
    let cacheable = shared.is_on_own_file_system(status);
    let mut records = shared.last_directory();
    let record = records.find(shared.stat_cache(), &place);
    make_node(shared, place, Stamp::new(status, cacheable), record)
}

fn make_node(
    shared: &Shared,
    place: Place,
    stamp: Stamp,
    record: Option<Record<'_>>,
) -> Result<Node, ContextError> {
    let known = record.filter(|record| stamp.cacheable && record.is_of(&stamp));
    let target = (stamp.kind == Kind::Symlink).then(|| match &known {
        Some(record) => Ok(record.target.into()),
        None => read_link(shared, place.path()),
    });
    Ok(Node::new(place, stamp, target.transpose()?, known.map(|record| record.contents())))
}

fn read_link(shared: &Shared, path: RootfsPath) -> Result<Box<[u8]>, ContextError> {
    match directory::read_link_below(&shared.root, &path) {
        Ok(target) => Ok(target.into()),
        Err(source) => Err(ContextError::Read { path, source }),
    }
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
    sorted: Vec<Name>,
}

struct Name {
    /// The first eight bytes as a number, which mostly settles the order without a look at the name.
    start: u64,
    range: Range<usize>,
}

impl Names {
    fn read(&mut self, dir: &Dir) -> io::Result<()> {
        let Self { bytes, sorted } = self;
        bytes.clear();
        sorted.clear();
        directory::for_each_entry(dir, |entry| {
            let name = entry.name.to_bytes_with_nul();
            sorted.push(Name { start: start_of(name), range: bytes.len()..bytes.len() + name.len() });
            bytes.extend_from_slice(name);
            Ok::<(), io::Error>(())
        })?;
        let name = |of: &Name| &bytes[of.range.clone()];
        sorted.sort_unstable_by(|a, b| a.start.cmp(&b.start).then_with(|| name(a).cmp(name(b))));
        Ok(())
    }

    /// Each with where it is among the bytes, less its NUL.
    fn iter(&self) -> impl Iterator<Item = (&CStr, Range<usize>)> {
        self.sorted.iter().filter_map(|Name { range, .. }| {
            let name = CStr::from_bytes_with_nul(&self.bytes[range.clone()]).ok()?;
            Some((name, range.start..range.end - 1))
        })
    }
}

/// Numbers in the order of the names they begin. What is missing of a short name counts as its NUL.
fn start_of(name: &[u8]) -> u64 {
    let mut start = [0; 8];
    let length = name.len().min(start.len());
    start[..length].copy_from_slice(&name[..length]);
    u64::from_be_bytes(start)
}

/// The names in a directory, ignored ones too, sorted.
pub(crate) fn names_in(shared: &Shared, path: &RootfsPath) -> Result<Vec<Vec<u8>>, ContextError> {
    let failed = |source| ContextError::Read { path: path.clone(), source };
    let dir = directory::open_dir_below(&shared.root, path).map_err(failed)?;
    let mut names = Names::default();
    names.read(&dir).map_err(failed)?;
    Ok(names.iter().map(|(name, _)| name.to_bytes().to_vec()).collect())
}
