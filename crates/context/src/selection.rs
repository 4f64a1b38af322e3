//! What one source argument of a COPY stands for: an ordered list of files and where each goes below the destination.

use std::sync::Arc;

use sys::RootfsPath;

use crate::context::Shared;
use crate::digest::{Attributes, SelectionDigest};
use crate::error::ContextError;
use crate::file_digests::FileDigests;
use crate::ignore::{Exclusion, Ignore};
use crate::node::Node;
use crate::tree::Tree;

/// A source argument with the flags that decide what it selects.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The path or pattern as the Dockerfile has it, after expansion.
    pub pattern: &'a [u8],
    /// `--exclude`: what to leave out, relative to the directory copied.
    pub excludes: &'a Ignore,
    /// `--parents`.
    pub parents: Parents,
}

/// Whether the directories a source names before its last component become part of the destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parents {
    /// They do not: `COPY a/b/c /d/` makes `/d/c`.
    Dropped,
    /// They do, from the pivot `/./` on if there is one: `COPY --parents a/./b/c /d/` makes `/d/b/c`.
    Kept,
}

/// The files a source stands for. Cheap to clone; made by [`crate::Context::select`].
#[derive(Clone, Debug)]
pub struct Selection {
    pub(crate) context: Arc<Shared>,
    pub(crate) matches: Arc<[Match]>,
    pub(crate) hidden_by: Option<Exclusion>,
}

/// One file or directory a source stands for: exactly one for a literal source, any number for a pattern.
#[derive(Debug)]
pub struct Match {
    /// Where it is in the context as the source names it, links not followed; for messages and for a file's base name.
    pub name: RootfsPath,
    /// Whether it is a directory, so that its contents are copied, or a single file.
    pub is_directory: bool,
    pub(crate) destination: Destination,
    pub(crate) picked: Vec<Picked>,
}

/// One file to be copied.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// The file.
    pub node: &'a Node,
    /// Its name below the COPY's destination directory; the empty path for a copied directory itself.
    pub destination: RootfsPath,
}

/// Nodes of one tree that belong to a match, in order.
#[derive(Debug)]
pub(crate) struct Picked {
    pub(crate) tree: Arc<Tree>,
    pub(crate) indexes: Vec<u32>,
}

/// How a node's place below the destination follows from its path.
#[derive(Debug)]
pub(crate) enum Destination {
    /// What is left of it below a directory of the context.
    Below(RootfsPath),
    /// This name: a single file, perhaps found through a link of another name.
    Named(Box<[u8]>),
}

impl Selection {
    /// What the source matched, in order of path. Empty only for a pattern: a literal source that is missing is an error.
    #[must_use]
    pub fn matches(&self) -> &[Match] {
        &self.matches
    }

    /// Whether nothing is to be copied: a pattern without a match, or everything excluded by `--exclude`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.matches.iter().all(|found| found.picked.iter().all(|picked| picked.indexes.is_empty()))
    }

    /// If a pattern matched nothing: the line of the ignore file that hides the first file it would have matched.
    #[must_use]
    pub fn hidden_by(&self) -> Option<&Exclusion> {
        self.hidden_by.as_ref()
    }

    /// All files in the order of copying: match by match, each directory before its contents.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.matches.iter().flat_map(Match::entries)
    }

    /// How many files, directories included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.matches.iter().flat_map(|found| &found.picked).map(|picked| picked.indexes.len()).sum()
    }

    /// Sum of the regular files' lengths.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.matches.iter().flat_map(Match::nodes).map(Node::size_bytes).sum()
    }

    /// How many files [`Selection::read`] would read, because neither this build nor the stat cache knows them.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.matches.iter().flat_map(Match::nodes).filter(|node| node.contents().is_none()).count()
    }

    /// Makes every file's content digest and extended attributes known, reading in parallel what the stat cache does not hold.
    ///
    /// # Errors
    /// [`ContextError::Read`] and [`ContextError::Changed`], naming the file.
    pub fn read(&self) -> Result<(), ContextError> {
        if self.matches.iter().all(Match::was_known) {
            return Ok(());
        }
        self.context.read(self.matches.iter().flat_map(Match::nodes))
    }

    /// One digest over everything that can affect the result of copying this selection. Calls [`Selection::read`].
    ///
    /// # Errors
    /// As [`Selection::read`].
    pub fn digest(&self, counted: Attributes) -> Result<SelectionDigest, ContextError> {
        self.read()?;
        Ok(SelectionDigest::of(&self.matches, counted))
    }

    /// What is in [`Selection::digest`], file by file and in short form: kept beside a record, it tells later which file changed.
    /// Calls [`Selection::read`].
    ///
    /// # Errors
    /// As [`Selection::read`].
    pub fn file_digests(&self, counted: Attributes) -> Result<FileDigests, ContextError> {
        self.read()?;
        Ok(FileDigests::of(&self.matches, counted))
    }
}

impl Match {
    /// The files of this match in the order of copying.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.nodes().map(|node| Entry { node, destination: self.destination_of(node) })
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> + Clone {
        self.picked
            .iter()
            .flat_map(|picked| picked.indexes.iter().map(|&index| picked.tree.node(index as usize)))
    }

    fn was_known(&self) -> bool {
        self.picked.iter().all(|picked| picked.tree.was_known())
    }

    fn destination_of(&self, node: &Node) -> RootfsPath {
        let (directory, name) = self.destination_parts(node);
        let destination = RootfsPath::parse(directory).and_then(|directory| directory.join_name(name));
        destination.expect("a rest of a path is a path")
    }

    /// [`Entry::destination`] as a directory, perhaps the empty path, and a name in it, without an allocation. Both are empty for a copied
    /// directory itself.
    pub(crate) fn destination_parts<'a>(&'a self, node: &'a Node) -> (&'a [u8], &'a [u8]) {
        let (directory, name) = (node.place().directory().as_bytes(), node.place().name());
        match &self.destination {
            Destination::Named(name) => (b"", name),
            Destination::Below(base) if base.is_root() => (directory, name),
            Destination::Below(base) => match directory.get(base.as_bytes().len()..) {
                Some(rest) => (rest.strip_prefix(b"/").unwrap_or(rest), name),
                // The directory is above the base: the node is the base.
                None => (b"", b""),
            },
        }
    }
}
