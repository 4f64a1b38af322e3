//! Scanned nodes in order of path.

use std::ops::Range;

use sys::RootfsPath;

use crate::node::Node;

/// Nodes in the order of [`RootfsPath`], in which a directory comes right before everything below it.
///
/// They stay in the lists that the scan's threads filled, and an index gives the order: moving ten megabytes of nodes into one list would
/// cost as much as comparing them with the stat cache.
#[derive(Debug)]
pub(crate) struct Tree {
    chunks: Vec<Vec<Node>>,
    order: Vec<At>,
    was_known: bool,
}

/// Where a node is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) chunk: u32,
    pub(crate) index: u32,
}

impl Tree {
    /// `order` names nodes of `chunks`, perhaps not all of them; `was_known` is whether the stat cache knew every one of them.
    pub(crate) fn new(chunks: Vec<Vec<Node>>, order: Vec<At>, was_known: bool) -> Self {
        Self { chunks, order, was_known }
    }

    pub(crate) fn single(node: Node) -> Self {
        let was_known = node.contents().is_some();
        Self::new(vec![vec![node]], vec![At { chunk: 0, index: 0 }], was_known)
    }

    /// Whether nothing in it was ever to be read, told without looking at the nodes.
    pub(crate) fn was_known(&self) -> bool {
        self.was_known
    }

    pub(crate) fn node(&self, position: usize) -> &Node {
        self.at(self.order[position])
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.order.iter().map(|&place| self.at(place))
    }

    /// The positions of a path and everything below it.
    pub(crate) fn range_of(&self, top: &RootfsPath) -> Range<usize> {
        let start = self.order.partition_point(|&place| self.at(place).path() < *top);
        let below = |&place: &At| is_at_or_below(&self.at(place).path(), top);
        start..start + self.order[start..].partition_point(below)
    }

    fn at(&self, place: At) -> &Node {
        &self.chunks[place.chunk as usize][place.index as usize]
    }
}

fn is_at_or_below(path: &RootfsPath, top: &RootfsPath) -> bool {
    let rest = path.as_bytes().strip_prefix(top.as_bytes());
    top.is_root() || rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}
