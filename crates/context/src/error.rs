//! What can go wrong between a source argument and its files.

use std::io;
use std::path::PathBuf;

use sys::{PathError, RootfsPath};

use crate::ignore::Exclusion;
use crate::pattern::PatternError;

/// Why a context cannot give what was asked for. Each names the file, as seen from the context's root.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The directory itself.
    #[error("cannot open the build context `{}`", path.display())]
    Open {
        /// The directory as given.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },

    /// A source names something that is not there to be copied.
    #[error("`{name}` {why}")]
    Missing {
        /// The source, as a path below the context, or the link met on the way.
        name: String,
        /// Absent, hidden or unreachable.
        why: Missing,
    },

    /// A source's wildcards are not well formed.
    #[error("`{pattern}` is no valid pattern")]
    Pattern {
        /// The source as written.
        pattern: String,
        /// Why.
        #[source]
        source: PatternError,
    },

    /// A source is no path at all.
    #[error("a source is not a path")]
    Path(#[from] PathError),

    /// A file or directory cannot be read.
    #[error("cannot read `{path}` in the build context")]
    Read {
        /// Which.
        path: RootfsPath,
        /// Why.
        #[source]
        source: io::Error,
    },

    /// A file did not hold still: it changed each time it was read, or between the digest and the copy.
    #[error("`{path}` in the build context changed while it was read")]
    Changed {
        /// Which.
        path: RootfsPath,
    },

    /// [`crate::Context::cancel`] was called.
    #[error("cancelled")]
    Cancelled,

    /// The digests cannot be kept for the next build.
    #[error("cannot write the stat cache `{}`", path.display())]
    Save {
        /// The cache file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why a source that is named literally has nothing to copy.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Missing {
    /// It does not exist.
    #[error("is not in the build context")]
    Absent {
        /// What else there is: the names in the deepest directory of the path that exists, each with its path below the
        /// context, at most [`Missing::MOST_CANDIDATES`]. For "did you mean".
        candidates: Vec<RootfsPath>,
    },

    /// It exists, and an ignore file hides it.
    #[error("is excluded by {0}")]
    Excluded(Exclusion),

    /// A component before the last is not a directory.
    #[error("lies below `{file}`, which is not a directory")]
    BelowFile {
        /// That component.
        file: RootfsPath,
    },

    /// A symbolic link that leads to nothing in the context.
    #[error("is a symbolic link to `{target}`, which is not in the build context")]
    Dangling {
        /// What the link says.
        target: String,
    },

    /// Symbolic links that lead to one another.
    #[error("leads through more than 40 symbolic links")]
    Loop,
}

impl Missing {
    /// How many names are offered at most.
    pub const MOST_CANDIDATES: usize = 1000;
}
