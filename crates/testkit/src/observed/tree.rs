//! A root filesystem in memory, made by applying layer tars (OCI image spec, "Image Layer Filesystem Changeset").

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use tar::EntryType;

use super::digest_of;

/// Absolute path as bytes, without a trailing slash; `/` is the root.
pub(super) type RootPath = Vec<u8>;

/// Text files up to this size are listed by their content: a reviewer can read it, and a difference shows what differs.
const SHORT: usize = 240;

/// What a path holds. Hard links are equal nodes with an equal `inode`.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// `None` if no layer has an entry for it.
    pub(super) mtime: Option<u64>,
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
    pub(super) inode: u64,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Directory,
    File { size: u64, digest: String, text: Option<String> },
    Symlink { target: Vec<u8> },
    Fifo,
    CharDevice(Device),
    BlockDevice(Device),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Device {
    pub(super) major: u32,
    pub(super) minor: u32,
}

/// The tree; it always has a root.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<RootPath, Node>,
    next_inode: u64,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: BTreeMap::from([(b"/".to_vec(), implied_directory(0))]), next_inode: 1 }
    }
}

impl Tree {
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&RootPath, &Node)> {
        self.nodes.iter()
    }

    /// Applies one uncompressed layer.
    pub(super) fn apply(&mut self, layer: impl Read) -> Result<()> {
        let mut own = BTreeSet::new();
        for entry in tar::Archive::new(layer).entries()? {
            let mut entry = entry?;
            let name = entry.path_bytes().into_owned();
            self.apply_entry(&mut entry, &mut own)
                .with_context(|| format!("layer entry `{}`", String::from_utf8_lossy(&name)))?;
        }
        Ok(())
    }

    /// `own` holds the paths of this layer: a whiteout hides what lies below the layer, never its own entries.
    fn apply_entry(&mut self, entry: &mut tar::Entry<impl Read>, own: &mut BTreeSet<RootPath>) -> Result<()> {
        let (parent, name) = split(&entry.path_bytes())?;
        let parent = self.resolve(&parent)?;
        match name.strip_prefix(b".wh.") {
            Some(b".wh..opq") => self.remove_below(&parent, own),
            Some(hidden) => self.remove(&join(&parent, hidden), own),
            None => {
                let path = join(&parent, &name);
                self.imply_parents(&parent);
                let node = self.read_node(entry)?;
                self.insert(&path, node);
                own.insert(path);
            }
        }
        Ok(())
    }

    fn read_node(&mut self, entry: &mut tar::Entry<impl Read>) -> Result<Node> {
        if entry.header().entry_type() == EntryType::Link {
            let (parent, name) = split(&entry.link_name_bytes().context("a hard link without target")?)?;
            let target = join(&self.resolve(&parent)?, &name);
            return self.nodes.get(&target).cloned().context("the target of a hard link is missing");
        }
        self.next_inode += 1;
        Ok(Node {
            kind: read_kind(entry)?,
            mode: entry.header().mode()? & 0o7777,
            uid: entry.header().uid()?,
            gid: entry.header().gid()?,
            mtime: Some(entry.header().mtime()?),
            xattrs: read_xattrs(entry)?,
            inode: self.next_inode,
        })
    }

    /// Puts `node` at `path`. Only a directory over a directory keeps what is below it.
    fn insert(&mut self, path: &[u8], node: Node) {
        let merges = node.kind == Kind::Directory
            && self.nodes.get(path).is_some_and(|old| old.kind == Kind::Directory);
        if !merges {
            self.remove(path, &BTreeSet::new());
        }
        self.nodes.insert(path.to_vec(), node);
    }

    fn imply_parents(&mut self, directory: &[u8]) {
        for end in (1..directory.len()).filter(|end| directory[*end] == b'/').chain([directory.len()]) {
            let inode = self.next_inode + 1;
            let entry = self.nodes.entry(directory[..end].to_vec());
            entry.or_insert_with(|| implied_directory(inode));
            self.next_inode = inode;
        }
    }

    fn remove(&mut self, path: &[u8], kept: &BTreeSet<RootPath>) {
        self.remove_below(path, kept);
        if !kept.contains(path) {
            self.nodes.remove(path);
        }
    }

    fn remove_below(&mut self, path: &[u8], kept: &BTreeSet<RootPath>) {
        let prefix = join(path, b"");
        self.nodes.retain(|node, _| node == b"/" || !node.starts_with(&prefix) || kept.contains(node));
    }

    /// Follows the symlinks of a directory path within the root, as an unpacker must. Missing parts stay as they are.
    fn resolve(&self, path: &[u8]) -> Result<RootPath> {
        let mut pending: Vec<Vec<u8>> = components(path).rev().collect();
        let mut resolved = b"/".to_vec();
        let mut followed = 0;
        while let Some(component) = pending.pop() {
            if component == b".." {
                resolved = split(&resolved)?.0;
                continue;
            }
            let next = join(&resolved, &component);
            match self.nodes.get(&next).map(|node| &node.kind) {
                Some(Kind::Symlink { target }) => {
                    followed += 1;
                    ensure!(followed <= 40, "too many symlinks");
                    if target.starts_with(b"/") {
                        resolved = b"/".to_vec();
                    }
                    pending.extend(components(target).rev());
                }
                _ => resolved = next,
            }
        }
        Ok(resolved)
    }
}

fn implied_directory(inode: u64) -> Node {
    Node { kind: Kind::Directory, mode: 0o755, uid: 0, gid: 0, mtime: None, xattrs: BTreeMap::new(), inode }
}

/// Parent and name of a path in a tar. The root is the nameless child of itself.
fn split(path: &[u8]) -> Result<(RootPath, Vec<u8>)> {
    let mut parts: Vec<Vec<u8>> = components(path).collect();
    ensure!(!parts.iter().any(|part| part == b".."), "a path with `..`");
    let name = parts.pop().unwrap_or_default();
    let parent = parts.iter().fold(b"/".to_vec(), |parent, part| join(&parent, part));
    Ok((parent, name))
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec)
}

fn join(parent: &[u8], name: &[u8]) -> RootPath {
    let parent = parent.strip_suffix(b"/").unwrap_or(parent);
    if name.is_empty() && parent.is_empty() { b"/".to_vec() } else { [parent, b"/", name].concat() }
}

fn read_kind(entry: &mut tar::Entry<impl Read>) -> Result<Kind> {
    Ok(match entry.header().entry_type() {
        EntryType::Directory => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => read_file(entry)?,
        EntryType::Symlink => Kind::Symlink {
            target: entry.link_name_bytes().context("a symlink without target")?.into_owned(),
        },
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char => Kind::CharDevice(read_device(entry.header())?),
        EntryType::Block => Kind::BlockDevice(read_device(entry.header())?),
        other => bail!("entry type {other:?} is not expected in a layer"),
    })
}

/// Only devices fill these fields; in other entries they may be blank, which is no number.
fn read_device(header: &tar::Header) -> Result<Device> {
    let major = header.device_major()?.context("a device without major number")?;
    let minor = header.device_minor()?.context("a device without minor number")?;
    Ok(Device { major, minor })
}

fn read_file(entry: &mut impl Read) -> Result<Kind> {
    let mut bytes = Vec::new();
    let size = entry.read_to_end(&mut bytes)?.try_into()?;
    let digest = digest_of(&bytes);
    let text = if bytes.len() <= SHORT { String::from_utf8(bytes).ok() } else { None };
    Ok(Kind::File { size, digest, text })
}

fn read_xattrs(entry: &mut tar::Entry<impl Read>) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut xattrs = BTreeMap::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        if let Some(name) = extension.key()?.strip_prefix("SCHILY.xattr.") {
            xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
        }
    }
    Ok(xattrs)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::manifest::Manifest;
    use crate::observed::{Times, listing};

    /// Applies layers stated as archive members and lists the paths that result.
    #[track_caller]
    fn check(layers: &[&str], expected: &[&str]) {
        let directory = tempfile::tempdir().unwrap();
        let mut tree = Tree::default();
        for members in layers {
            let text = format!("tar layer.tar\n  {}", members.replace('\n', "\n  "));
            Manifest::parse(&text).unwrap().materialise(directory.path()).unwrap();
            tree.apply(std::fs::File::open(directory.path().join("layer.tar")).unwrap()).unwrap();
        }
        let text = listing::print(&tree, &BTreeMap::new(), Times::LeftOut);
        let without_content = |line: &str| {
            let words: Vec<&str> = line.split(' ').filter(|word| !word.starts_with('"')).collect();
            words.join(" ")
        };
        assert_eq!(text.lines().map(without_content).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_whiteout_removes_what_lower_layers_brought() {
        check(
            &["dir d\nfile d/a\nfile d/b", "file d/.wh.a\nfile d/c"],
            &["/ d 0755 0:0", "/d d 0755 0:0", "/d/b f 0644 0:0 0", "/d/c f 0644 0:0 0"],
        );
    }

    #[test]
    fn an_opaque_directory_keeps_only_its_own_layer() {
        check(
            &["dir d\nfile d/a\ndir d/e\nfile d/e/x", "dir d mode=0700\nfile d/new\nfile d/.wh..wh..opq"],
            &["/ d 0755 0:0", "/d d 0700 0:0", "/d/new f 0644 0:0 0"],
        );
    }

    #[test]
    fn a_file_replaces_a_directory_and_a_directory_merges_into_one() {
        check(
            &["dir a\nfile a/x\ndir b mode=0700\nfile b/y", "file a\ndir b mode=0711 owner=3:4\nfile b/z"],
            &["/ d 0755 0:0", "/a f 0644 0:0 0", "/b d 0711 3:4", "/b/y f 0644 0:0 0", "/b/z f 0644 0:0 0"],
        );
    }

    #[test]
    fn entries_go_through_lower_symlinks_within_the_root() {
        check(
            &["dir usr/lib\nsymlink lib to=usr/lib\nsymlink esc to=../../../etc", "file lib/x\nfile esc/y"],
            &[
                "/ d 0755 0:0",
                "/esc l 0777 0:0 -> ../../../etc",
                "/etc d 0755 0:0",
                "/etc/y f 0644 0:0 0",
                "/lib l 0777 0:0 -> usr/lib",
                "/usr d 0755 0:0",
                "/usr/lib d 0755 0:0",
                "/usr/lib/x f 0644 0:0 0",
            ],
        );
    }

    #[test]
    fn hard_links_are_a_group_until_one_is_replaced() {
        let group = "file a content=1\nhardlink b to=a\nhardlink c to=a";
        check(
            &[group, "file c content=2"],
            &[
                "/ d 0755 0:0",
                "/a f 0644 0:0 1 hardlink=/a",
                "/b f 0644 0:0 1 hardlink=/a",
                "/c f 0644 0:0 1",
            ],
        );
    }
}
