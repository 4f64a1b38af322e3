//! A context that comes as a tar, packed or not.

use std::error::Error;
use std::fs::File;
use std::io;
use std::path::Path;

use layer::compress::{self, Packing};
use layer::entries::Kind;
use layer::foreign::{self, Whiteouts};
use layer::tar_read::Members;
use layer::{Limits, Merged};
use sys::root::Dir;

use crate::build::errors;
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};

/// Whether a file is an archive: packed in any of the known ways, or a tar.
pub(super) fn is_one(path: &Path) -> io::Result<bool> {
    use std::io::Read as _;
    let mut start = Vec::new();
    File::open(path)?.take(8).read_to_end(&mut start)?;
    if Packing::sniff(&start) != Packing::Plain {
        return Ok(true);
    }
    let first = Members::new(File::open(path)?, &Limits::STANDARD).next_member();
    Ok(first.is_ok_and(|member| member.is_some()))
}

/// When the youngest file in an archive was modified, in seconds since 1970; `None` for what is no archive, or has no file in it.
pub(crate) fn youngest(path: &Path) -> Option<i64> {
    let tar = compress::unpacked(File::open(path).ok()?, &Limits::STANDARD).ok()?;
    let entries = foreign::read(tar, &Merged::default(), Whiteouts::Refused, &Limits::STANDARD).ok()?.entries;
    let files = entries.as_slice().iter().filter(|entry| matches!(entry.kind, Kind::File { .. }));
    files.map(|entry| entry.mtime.seconds).max()
}

/// Unpacks an archive into an empty directory, by the rules that hold for layers and ADD: no member leaves the directory.
pub(super) fn unpack(archive: &Path, into: &Path, origin: &Path) -> Result<(), Failure> {
    let open = || File::open(archive);
    let machine = |error: io::Error| failed(&error, origin);
    let file = open().map_err(machine)?;
    let read = foreign::read(file, &Merged::default(), Whiteouts::Refused, &Limits::STANDARD);
    let entries = read.map_err(|error| failed(&error, origin))?.entries;
    let dir = Dir::open(into).map_err(machine)?;
    let file = open().map_err(machine)?;
    let tar = compress::unpacked(file, &Limits::STANDARD).map_err(machine)?;
    layer::unpack::unpack(tar, &entries, &dir).map_err(|error| failed(&error, origin))
}

fn failed(error: &(dyn Error + 'static), origin: &Path) -> Failure {
    if errors::is_disk_full(error) {
        return Failure::new(Exit::Machine, errors::no_space(error));
    }
    let title = format!("the context from `{}` cannot be unpacked", origin.display());
    let causes = std::iter::successors(Some(error), |error| (*error).source()).map(ToString::to_string);
    let mut diagnostic = Diagnostic::error("bad-context", title);
    diagnostic.notes.extend(causes);
    Failure::new(
        Exit::Build,
        diagnostic.help("a context is a tar, as it is or packed with gzip, bzip2, xz or zstd"),
    )
}
