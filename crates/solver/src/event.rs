//! What happens during a build, as one typed stream.

use std::time::Duration;

use cache::Cause;
use plan::StepId;

use crate::filesystem::Filesystem;

/// What a step waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Until {
    /// Another process has run the very same step; its log lines follow as if they were ours.
    SameStepIsDone,
    /// A step, of this build or another, gives a locked cache back.
    CacheIsFree,
}

/// Something that happened. Events of one step come in order; steps interleave.
#[derive(Clone, Debug)]
pub enum Event {
    /// A step began to work.
    Started {
        /// Which.
        step: StepId,
        /// Why it could not be reused.
        cause: Cause,
        /// Where that cause lies.
        origin: Origin,
    },
    /// A step waits for somebody else.
    Waiting {
        /// Which.
        step: StepId,
        /// What for.
        until: Until,
    },
    /// A process wrote.
    Log {
        /// Whose.
        step: StepId,
        /// Where to.
        stream: Stream,
        /// Any bytes, not cut at lines.
        bytes: Vec<u8>,
    },
    /// A step that moves bytes has moved more.
    Progress {
        /// Which.
        step: StepId,
        /// Moved so far.
        bytes: u64,
        /// In all.
        total_bytes: u64,
    },
    /// Something the user should know, which stops nothing.
    Warning {
        /// At which step.
        step: StepId,
        /// One sentence.
        message: String,
    },
    /// A step is done, reused or made; a failed one has no such event.
    Finished {
        /// Which.
        step: StepId,
        /// How.
        outcome: Outcome,
        /// What came of it; empty if nothing of it is needed.
        filesystem: Filesystem,
    },
}

/// One of the two outputs of a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a step ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Reused or run, and why.
    pub verdict: Verdict,
    /// Wall-clock time it took in this build.
    pub took: Duration,
    /// The most memory its processes used at once, if it ran any and the machine counts it.
    pub peak_memory_bytes: Option<u64>,
}

/// Whether a step's work was done.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// An earlier result was taken.
    Reused {
        /// Which rule allowed it.
        by: Reuse,
        /// How long the step took when it ran.
        saved: Duration,
    },
    /// It ran.
    Ran {
        /// Why.
        cause: Cause,
        /// Where that cause lies.
        origin: Origin,
    },
}

/// Why an earlier result could be taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reuse {
    /// The step and everything before it is defined as before.
    Definition,
    /// Its inputs came out with the same content as before.
    Content,
    /// Another process ran the same step at the same time.
    OtherBuild,
    /// A cache elsewhere had it, and the store had not.
    Imported,
    /// Nothing of its result is needed, since a later step was reused.
    NotNeeded,
}

/// The step whose own change is the cause; it may be one far below.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Origin(pub StepId);
