//! Making trees from lines of text and showing them as such.

use std::path::Path;

use layer::entries::{Entries, Entry, Kind};
use layer::merged::Merged;
use layer::{Limits, foreign};
use sys::root::Dir;

/// Nobody cancels here.
pub(crate) fn never() -> bool {
    false
}

/// Whether the tests may make devices and change owners; says so if they skip.
pub(crate) fn is_root(test: &str) -> bool {
    testkit::can_run(test, &[testkit::Need::Root])
}

/// One line an entry: what a person checks a layer by.
pub(crate) fn show(entries: &Entries) -> String {
    entries.as_slice().iter().map(line).collect()
}

fn line(entry: &Entry) -> String {
    let what = match &entry.kind {
        Kind::Directory { opaque: false } => "dir".to_owned(),
        Kind::Directory { opaque: true } => "dir opaque".to_owned(),
        Kind::File { size, digest, .. } => format!("file {size} {}", &digest.to_digest().hex()[..6]),
        Kind::HardLink { target } => format!("hard link to {target}"),
        Kind::Symlink { target } => format!("-> {}", String::from_utf8_lossy(target)),
        Kind::CharDevice { major, minor } => format!("char {major},{minor}"),
        Kind::BlockDevice { major, minor } => format!("block {major},{minor}"),
        Kind::Fifo => "fifo".to_owned(),
        Kind::Whiteout => return format!("{} whiteout\n", entry.path),
    };
    let xattrs: String =
        entry.xattrs.iter().map(|x| format!(" {}", String::from_utf8_lossy(&x.name))).collect();
    let implied = if entry.implied { " implied" } else { "" };
    format!("{} {:o} {}:{} {what}{xattrs}{implied}\n", entry.path, entry.mode, entry.uid, entry.gid)
}

/// Opens a directory.
pub(crate) fn dir(path: &Path) -> Dir {
    Dir::open(path).unwrap()
}

/// Reads a layer's tar over nothing.
pub(crate) fn read_tar(bytes: &[u8]) -> foreign::Foreign {
    read_tar_over(bytes, &Merged::default()).unwrap()
}

/// Reads a layer's tar over layers.
pub(crate) fn read_tar_over(bytes: &[u8], lower: &Merged) -> Result<foreign::Foreign, foreign::ForeignError> {
    foreign::read(bytes, lower, foreign::Whiteouts::Honoured, &Limits::STANDARD)
}

/// A tar of members `(kind, path, link or content)`.
pub(crate) fn tar_of(members: &[(char, &str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, path, more) in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if *kind == 'd' { 0o755 } else { 0o644 });
        header.set_uid(3);
        header.set_gid(4);
        header.set_mtime(100);
        header.set_size(0);
        let name = path.as_bytes();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(match kind {
            'd' => tar::EntryType::Directory,
            'l' => tar::EntryType::Symlink,
            'h' => tar::EntryType::Link,
            'c' => tar::EntryType::Char,
            _ => tar::EntryType::Regular,
        });
        if matches!(kind, 'l' | 'h') {
            header.as_old_mut().linkname[..more.len()].copy_from_slice(more.as_bytes());
        }
        if *kind == 'c' {
            header.set_device_major(more.parse().unwrap()).unwrap();
            header.set_device_minor(0).unwrap();
        }
        let content = if *kind == 'f' { more.as_bytes() } else { b"" };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}
