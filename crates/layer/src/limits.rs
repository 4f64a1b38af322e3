//! Bounds on what a layer may contain.

/// The most this program accepts of one layer from outside. Everything beyond is an error that names the limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Entries in one layer.
    pub entries: usize,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all files of one layer.
    pub layer_bytes: u64,
    /// Bytes of PAX records and long names of one entry.
    pub extension_bytes: u64,
    /// Bytes of one extended attribute's value (the kernel's own limit).
    pub xattr_bytes: usize,
    /// How many times larger than its compressed form a layer may become, once it is over [`Limits::ratio_from_bytes`].
    pub ratio: u64,
    /// Uncompressed size in bytes from which [`Limits::ratio`] holds.
    pub ratio_from_bytes: u64,
    /// Largest window in bytes, as a power of two, that a zstd stream may ask for.
    pub zstd_window_log: u32,
}

impl Limits {
    /// What is used everywhere outside tests.
    pub const STANDARD: Self = Self {
        entries: 10_000_000,
        file_bytes: 1 << 40,
        layer_bytes: 1 << 42,
        extension_bytes: 1 << 20,
        xattr_bytes: 64 << 10,
        ratio: 1000,
        ratio_from_bytes: 1 << 30,
        zstd_window_log: 27,
    };
}
