//! What the micro benches share.

/// The first where figures are wanted (`cargo bench`), the second where it only has to work (`cargo test`).
#[must_use]
pub fn scaled<T>(measured: T, tested: T) -> T {
    // Cargo tells the two apart for us by this argument.
    if std::env::args().any(|argument| argument == "--bench") { measured } else { tested }
}
