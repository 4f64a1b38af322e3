//! Every number that bounds what a registry can make us do.

use std::time::Duration;

/// Bounds on waiting, on repeating and on bytes held in memory. Blobs are streamed: their bound is the size their descriptor declares.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Name look-up; then, again, TCP and TLS set-up.
    pub connect: Duration,
    /// From the request sent to the last byte of the response's header.
    pub first_byte: Duration,
    /// The same after something was sent that a registry has to store and to digest.
    pub taken: Duration,
    /// Silence within a body.
    pub stall: Duration,
    /// The slowest body that is waited for, in bytes a second…
    pub floor_bytes_per_second: u64,
    /// …measured over this time. Only time spent waiting for the network counts, not what the consumer takes.
    pub floor_window: Duration,
    /// How often one request is sent in all, when its failures may pass.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles with each further one. Jitter takes away up to half of a pause.
    pub backoff: Duration,
    /// The longest pause of our own choosing.
    pub backoff_max: Duration,
    /// The longest `Retry-After` that is obeyed; a registry that asks for more gets no further request.
    pub retry_after: Duration,
    /// A connection that was lost after at least so many bytes of a blob does not count as a failed attempt.
    pub progress_bytes: u64,
    /// Redirects followed for one request.
    pub redirects: u32,
    /// Status line and header fields of one response.
    pub header_bytes: usize,
    /// A manifest or an index.
    pub manifest_bytes: u64,
    /// A token server's answer.
    pub token_bytes: u64,
    /// The part of an error's body that is read for its message.
    pub error_bytes: u64,
    /// What a credential helper may print.
    pub helper_bytes: u64,
    /// How long a credential helper may take; it may have to ask a person.
    pub helper: Duration,
    /// Indexes within indexes.
    pub index_depth: u32,
    /// Tags of one repository.
    pub tags: usize,
    /// Layers of one image; overlayfs mounts no more.
    pub layers: usize,
}

impl Limits {
    /// What `rbuild` uses.
    pub const DEFAULT: Self = Self {
        connect: Duration::from_secs(10),
        first_byte: Duration::from_secs(30),
        taken: Duration::from_secs(600),
        stall: Duration::from_secs(30),
        floor_bytes_per_second: 1024,
        floor_window: Duration::from_secs(60),
        attempts: 5,
        backoff: Duration::from_millis(500),
        backoff_max: Duration::from_secs(10),
        retry_after: Duration::from_secs(60),
        progress_bytes: 64 << 10,
        redirects: 10,
        header_bytes: 64 << 10,
        manifest_bytes: 4 << 20,
        token_bytes: 64 << 10,
        error_bytes: 64 << 10,
        helper_bytes: 64 << 10,
        helper: Duration::from_secs(60),
        index_depth: 4,
        tags: 100_000,
        layers: 500,
    };
}
