//! The result of a step: a list of layers.

use cache::RecordedLayer;
use oci::{Digest, LayerId};

/// A filesystem as a list of layers, lowest first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filesystem {
    /// Layer, content, time of creation.
    pub layers: Vec<RecordedLayer>,
}

impl Filesystem {
    /// The layers' names in the store, lowest first.
    #[must_use]
    pub fn ids(&self) -> Vec<LayerId> {
        self.layers.iter().map(|layer| layer.id.clone()).collect()
    }

    /// What it contains, in one digest that leaves out mtimes.
    #[must_use]
    pub fn content(&self) -> Digest {
        cache::key::content_of(self.layers.iter().map(|layer| &layer.content))
    }

    /// The filesystem with one more layer on top.
    #[must_use]
    pub fn with(&self, layer: RecordedLayer) -> Self {
        let mut layers = self.layers.clone();
        layers.push(layer);
        Self { layers }
    }
}
