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
    order: Vec<NodeIndex>,
    was_known: bool,
}

/// Where a node is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeIndex {
    pub(crate) chunk: u32,
    pub(crate) position: u32,
}

impl Tree {
    /// `order` names nodes of `chunks`, perhaps not all of them; `was_known` is whether the stat cache knew every one of them.
    pub(crate) fn new(chunks: Vec<Vec<Node>>, order: Vec<NodeIndex>, was_known: bool) -> Self {
        Self { chunks, order, was_known }
    }

    pub(crate) fn single(node: Node) -> Self {
        let was_known = node.contents().is_some();
        Self::new(vec![vec![node]], vec![NodeIndex { chunk: 0, position: 0 }], was_known)
    }

    /// Whether nothing in it was ever to be read, told without looking at the nodes.
    pub(crate) fn was_known(&self) -> bool {
        self.was_known
    }

    pub(crate) fn node(&self, position: usize) -> &Node {
        self.at(self.order[position])
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.order.iter().map(|&index| self.at(index))
    }

    /// The positions of a path and everything below it.
    pub(crate) fn range_of(&self, top: &RootfsPath) -> Range<usize> {
        let start = self.order.partition_point(|&index| self.at(index).path() < *top);
        let below = |&index: &NodeIndex| self.at(index).path().is_at_or_below(top);
        start..start + self.order[start..].partition_point(below)
    }

    fn at(&self, index: NodeIndex) -> &Node {
        &self.chunks[index.chunk as usize][index.position as usize]
    }
}
