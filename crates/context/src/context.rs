//! An open context: what was looked at so far, shared by all steps and threads of a build.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use sys::RootfsPath;
use sys::directory::{self, Status};
use sys::root::Dir;

use crate::error::ContextError;
use crate::ignore::Ignore;
use crate::node::Node;
use crate::selection::{Selection, Source};
use crate::stat_cache::{LastDirectory, StatCache, Trust};
use crate::tree::Tree;
use crate::{contents, resolve, scan, stat_cache};

/// A build context. Cheap to clone: clones share what was scanned and read.
///
/// Its methods use rayon's threads and wait for them; call them from other threads than rayon's.
#[derive(Clone, Debug)]
pub struct Context {
    shared: Arc<Shared>,
}

/// A file opened for the copy.
#[derive(Debug)]
pub struct OpenedFile {
    /// Positioned at its beginning.
    pub file: File,
    /// How many bytes to copy: it may have grown since its digest was made.
    pub size_bytes: u64,
}

/// What all clones and selections of a context have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) root: Dir,
    pub(crate) ignore: Ignore,
    /// st_dev of the root.
    device: u64,
    stat_cache_path: Option<PathBuf>,
    stat_cache: OnceLock<StatCache>,
    last_directory: Mutex<LastDirectory>,
    memo: Mutex<Memo>,
    cancelled: AtomicBool,
}

/// What was looked at.
#[derive(Debug, Default)]
struct Memo {
    trees: Vec<(RootfsPath, Slot)>,
    files: HashMap<RootfsPath, Arc<Tree>>,
}

/// A scanned tree, once its scan has succeeded. Locked while it is scanned: who needs it too waits instead of scanning again.
type Slot = Arc<Mutex<Option<Arc<Tree>>>>;

/// Some neighbours in a scanned tree.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub(crate) tree: Arc<Tree>,
    pub(crate) range: Range<usize>,
}

impl Context {
    /// Opens a directory. Nothing is read yet. `stat_cache` is the file that keeps digests from one build to the next; without one,
    /// everything is read each time.
    ///
    /// # Errors
    /// [`ContextError::Open`].
    pub fn open(directory: &Path, ignore: Ignore, stat_cache: Option<&Path>) -> Result<Self, ContextError> {
        let failed = |source| ContextError::Open { path: directory.to_owned(), source };
        let root = Dir::open(directory).map_err(failed)?;
        let device = directory::status(&root).map_err(failed)?.device;
        let shared = Shared {
            root,
            ignore,
            device,
            stat_cache_path: stat_cache.map(Path::to_owned),
            stat_cache: OnceLock::new(),
            last_directory: Mutex::default(),
            memo: Mutex::default(),
            cancelled: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Resolves a source argument of a COPY to files. Reads names and attributes, no content.
    ///
    /// # Errors
    /// [`ContextError::Missing`] if a literal source is not there, and all the others but [`ContextError::Changed`].
    pub fn select(&self, source: &Source<'_>) -> Result<Selection, ContextError> {
        resolve::select(&self.shared, source)
    }

    /// Opens a regular file for the copy, after [`Selection::read`]. Its bytes are those of its digest unless it changes from now on;
    /// who hashes what it copies, as sealing a layer does, notices even that.
    ///
    /// # Errors
    /// [`ContextError::Changed`] if it has other content by now, [`ContextError::Read`].
    pub fn open_file(&self, node: &Node) -> Result<OpenedFile, ContextError> {
        let file = contents::open(&self.shared, node)?;
        Ok(OpenedFile { file, size_bytes: node.size_bytes() })
    }

    /// The rules that hide files.
    #[must_use]
    pub fn ignore(&self) -> &Ignore {
        &self.shared.ignore
    }

    /// Makes everything that is scanning or reading return [`ContextError::Cancelled`] soon, and everything after it.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
    }

    /// Writes the stat cache if anything was read that it does not know. Call it once, when the build is done with the context.
    ///
    /// # Errors
    /// [`ContextError::Save`]. Nothing depends on it but the speed of the next build.
    pub fn save(&self) -> Result<(), ContextError> {
        let Some(path) = &self.shared.stat_cache_path else { return Ok(()) };
        let memo = self.shared.memo();
        let trees: Vec<_> =
            memo.trees.iter().filter_map(|(top, slot)| Some((top, finished(slot)?))).collect();
        if trees.iter().map(|(_, tree)| tree).chain(memo.files.values()).all(|tree| tree.was_known()) {
            return Ok(());
        }
        let nodes =
            trees.iter().map(|(_, tree)| tree).chain(memo.files.values()).flat_map(|tree| tree.iter());
        let scanned: Vec<&RootfsPath> = trees.iter().map(|(top, _)| *top).collect();
        let Some(bytes) = self.shared.stat_cache().updated(nodes.collect(), &scanned) else { return Ok(()) };
        stat_cache::replace(path, &bytes).map_err(|source| ContextError::Save { path: path.clone(), source })
    }
}

impl Read for OpenedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.size_bytes).unwrap_or(buffer.len()).min(buffer.len());
        let got = self.file.read(&mut buffer[..most])?;
        self.size_bytes -= got as u64;
        Ok(got)
    }
}

impl Shared {
    /// A directory of the context and everything below it.
    pub(crate) fn tree(&self, top: &RootfsPath) -> Result<Slice, ContextError> {
        loop {
            let (root, slot) = self.slot_for(top);
            let mut scanned = slot.lock().expect("a scan does not panic");
            let tree = match &*scanned {
                Some(tree) => Arc::clone(tree),
                None => match scan::scan(self, &root) {
                    Ok(tree) => Arc::clone(scanned.insert(Arc::new(tree))),
                    Err(error) => {
                        self.memo().trees.retain(|(_, other)| !Arc::ptr_eq(other, &slot));
                        if root == *top {
                            return Err(error);
                        }
                        // The larger tree has a fault that may lie elsewhere.
                        continue;
                    }
                },
            };
            return Ok(Slice { range: tree.range_of(top), tree });
        }
    }

    /// One file or directory of the context by itself, from a scanned tree if one holds it, else looked at here.
    pub(crate) fn file(&self, path: &RootfsPath, status: &Status) -> Result<Slice, ContextError> {
        let mut memo = self.memo();
        let scanned = memo.trees.iter().filter(|(top, _)| path.is_at_or_below(top));
        for tree in scanned.filter_map(|(_, slot)| finished(slot)) {
            let range = tree.range_of(path);
            if !range.is_empty() {
                return Ok(Slice { range: range.start..range.start + 1, tree });
            }
        }
        if let Some(tree) = memo.files.get(path) {
            return Ok(Slice { tree: Arc::clone(tree), range: 0..1 });
        }
        let tree = Arc::new(Tree::single(scan::single(self, path, status)?));
        memo.files.insert(path.clone(), Arc::clone(&tree));
        Ok(Slice { tree, range: 0..1 })
    }

    pub(crate) fn read<'a>(&self, nodes: impl Iterator<Item = &'a Node> + Clone) -> Result<(), ContextError> {
        contents::read_all(self, nodes)
    }

    pub(crate) fn check_cancelled(&self) -> Result<(), ContextError> {
        if self.cancelled.load(Ordering::Relaxed) { Err(ContextError::Cancelled) } else { Ok(()) }
    }

    /// What earlier builds knew. Loaded when first needed; one that cannot be read is empty.
    pub(crate) fn stat_cache(&self) -> &StatCache {
        self.stat_cache
            .get_or_init(|| self.stat_cache_path.as_deref().map(StatCache::load).unwrap_or_default())
    }

    /// What the stat cache has of the directory that was asked for last, for who looks at single files.
    pub(crate) fn last_directory(&self) -> MutexGuard<'_, LastDirectory> {
        self.last_directory.lock().expect("nothing panics with the directory locked")
    }

    /// Which of the files about to be read the stat cache may keep.
    pub(crate) fn trust<'a>(&self, nodes: impl Iterator<Item = &'a Node>) -> Trust {
        match self.stat_cache_path.as_deref().and_then(Path::parent) {
            Some(directory) => {
                let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
                Trust::now(&self.root, self.device, directory, nodes)
            }
            None => Trust::Nothing,
        }
    }

    /// Whether the clock that stamps the context's root stamps this file too, as far as the file alone tells. overlayfs gives files
    /// other device numbers than directories, so that below a scanned directory only a mount point says otherwise.
    pub(crate) fn is_on_own_file_system(&self, status: &Status) -> bool {
        status.device == self.device
    }

    /// The slot of the tree that holds a directory, and that tree's top.
    fn slot_for(&self, top: &RootfsPath) -> (RootfsPath, Slot) {
        let mut memo = self.memo();
        if let Some(found) = memo.trees.iter().find(|(root, _)| top.is_at_or_below(root)) {
            return found.clone();
        }
        let new = (top.clone(), Slot::default());
        memo.trees.push(new.clone());
        new
    }

    fn memo(&self) -> MutexGuard<'_, Memo> {
        self.memo.lock().expect("nothing panics with the memo locked")
    }
}

/// A tree if its scan is done.
fn finished(slot: &Slot) -> Option<Arc<Tree>> {
    slot.try_lock().ok().and_then(|scanned| scanned.clone())
}
