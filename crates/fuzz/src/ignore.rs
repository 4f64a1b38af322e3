//! An ignore file, and the paths that it hides.

use std::hint::black_box;

use context::ignore::{FILE_NAME, Ignore};
use context::wildcard::SourcePattern;
use sys::RootfsPath;

/// What is asked of the file besides paths made of its own lines.
const PATHS: &[&str] =
    &["a", "a/b/c", "src/main.rs", ".git/objects/00/1", "node_modules/x/index.js", "x.log"];

/// Longest path that is asked about: the time of a match is the product of both lengths.
const PATH_BYTES: usize = 512;

/// How many lines become paths: with all of them, the honest work would be the square of the length.
const OWN_PATHS: usize = 4;

/// Compiles an ignore file, and asks whether it hides paths that are made of its own lines; reads the lines as sources of a COPY, too.
pub fn ignore(bytes: &[u8]) {
    let mut own = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n').take(OWN_PATHS) {
        own.extend(RootfsPath::parse_clamped(&line[..line.len().min(PATH_BYTES)]));
        if let Ok(source) = SourcePattern::parse(line) {
            for path in &own {
                black_box(source.matches(path));
            }
        }
    }
    let Ok(ignore) = Ignore::parse(bytes, FILE_NAME) else { return };
    own.extend(PATHS.iter().flat_map(RootfsPath::parse));
    for path in &own {
        black_box(ignore.matches(path));
    }
}
