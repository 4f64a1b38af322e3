//! Printing a tree: the lines of `tree.txt`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Times;
use super::tree::{Kind, Node, RootPath, Tree};

/// Seconds from 1970 to 2026: later times are those of the build.
const NOW: u64 = 1_767_225_600;

/// One line per path; files whose digest is in `known` are shown by that name.
pub(super) fn print(tree: &Tree, known: &BTreeMap<String, &'static str>, times: Times) -> String {
    let groups = hard_link_groups(tree);
    let mut text = String::new();
    for (path, node) in tree.nodes() {
        let group = groups.get(&node.inode).copied();
        write!(text, "{}", line(path, node, group, known)).expect("a String takes every write");
        // Whether `/` is in a layer at all is a matter of the builder.
        if let (Some(mtime), Times::Shown, [_, _, ..]) = (node.mtime, times, path.as_slice()) {
            match mtime {
                NOW.. => text.push_str(" mtime=now"),
                _ => write!(text, " mtime={mtime}").expect("a String takes every write"),
            }
        }
        text.push('\n');
    }
    text
}

/// The first path of every inode that has several.
fn hard_link_groups(tree: &Tree) -> BTreeMap<u64, &RootPath> {
    let mut paths: BTreeMap<u64, Vec<&RootPath>> = BTreeMap::new();
    for (path, node) in tree.nodes() {
        paths.entry(node.inode).or_default().push(path);
    }
    paths.into_iter().filter(|(_, paths)| paths.len() > 1).map(|(inode, paths)| (inode, paths[0])).collect()
}

fn line(
    path: &[u8],
    node: &Node,
    group: Option<&RootPath>,
    known: &BTreeMap<String, &'static str>,
) -> String {
    let mut fields = vec![escaped(path), kind_letter(&node.kind).to_owned()];
    // A symlink has no mode of its own on Linux, whatever its tar header says.
    let mode = if matches!(node.kind, Kind::Symlink { .. }) { 0o777 } else { node.mode };
    fields.push(format!("{mode:04o} {}:{}", node.uid, node.gid));
    match &node.kind {
        Kind::Directory | Kind::Fifo => {}
        Kind::File { size, digest, text } => fields.push(match (known.get(digest), text) {
            (Some(name), _) => format!("<{name}>"),
            (None, Some(text)) => format!("{size} {text:?}"),
            (None, None) => format!("{size} {digest}"),
        }),
        Kind::Symlink { target } => fields.push(format!("-> {}", escaped(target))),
        Kind::CharDevice(device) | Kind::BlockDevice(device) => {
            fields.push(format!("dev={}:{}", device.major, device.minor));
        }
    }
    fields.extend(group.map(|first| format!("hardlink={}", escaped(first))));
    fields.extend(node.xattrs.iter().map(|(name, value)| format!("xattr.{name}={}", escaped(value))));
    fields.join(" ")
}

fn kind_letter(kind: &Kind) -> &'static str {
    match kind {
        Kind::Directory => "d",
        Kind::File { .. } => "f",
        Kind::Symlink { .. } => "l",
        Kind::Fifo => "p",
        Kind::CharDevice(_) => "c",
        Kind::BlockDevice(_) => "b",
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'\\' | 0..=b' ' | 0x7f.. => write!(text, "\\x{byte:02x}").expect("a String takes every write"),
            byte => text.push(char::from(*byte)),
        }
    }
    text
}
