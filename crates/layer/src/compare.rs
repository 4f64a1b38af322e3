//! What differs between two filesystems, as their entry lists tell it: no file is opened, however large the two are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::discriminant;

use sys::RootfsPath;

use crate::{Entry, Found, Kind, Merged};

/// A path that is not the same in both.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Difference {
    /// Which.
    pub path: RootfsPath,
    /// What is there in the first one. Of a hard link, the file.
    pub old: Option<Entry>,
    /// What is there in the second one.
    pub new: Option<Entry>,
    /// In what the two differ; empty if there are not two.
    pub aspects: Vec<Aspect>,
}

/// In what two entries differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Aspect {
    /// One is a file, for example, and the other a directory. Nothing else is compared then.
    Kind,
    /// The bytes of a file.
    Content,
    /// Where a symbolic link leads.
    Target,
    /// The numbers of a device.
    Device,
    /// Permission bits; symbolic links have none.
    Mode,
    /// User or group.
    Owner,
    /// Extended attributes.
    Xattrs,
    /// Which other names a file has.
    Names,
    /// The time of modification.
    Mtime,
}

/// Whether times of modification count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Times {
    /// They do not.
    Ignored,
    /// They do.
    Compared,
}

/// Everything that differs, by path.
#[must_use]
pub fn compare(old: &Merged, new: &Merged, times: Times) -> Vec<Difference> {
    let root = RootfsPath::root();
    let aspects = aspects(&old.root_entry(), &new.root_entry(), times);
    let of_root =
        Difference { path: root, old: Some(old.root_entry()), new: Some(new.root_entry()), aspects };
    let (old, new) = (Shown::of(old), Shown::of(new));
    let paths: BTreeSet<&RootfsPath> = old.entries.keys().chain(new.entries.keys()).copied().collect();
    let below = paths.into_iter().filter_map(|path| difference(path, &old, &new, times));
    Some(of_root).filter(|root| !root.aspects.is_empty()).into_iter().chain(below).collect()
}

fn difference(path: &RootfsPath, old: &Shown<'_>, new: &Shown<'_>, times: Times) -> Option<Difference> {
    let (before, after) = (old.entry(path), new.entry(path));
    let mut differing = Vec::new();
    if let (Some(before), Some(after)) = (before, after) {
        differing = aspects(before, after, times);
        let is_file = matches!((&before.kind, &after.kind), (Kind::File { .. }, Kind::File { .. }));
        if is_file && old.first_name(path) != new.first_name(path) {
            differing.push(Aspect::Names);
        }
        if differing.is_empty() {
            return None;
        }
    }
    let (old, new) = (before.cloned(), after.cloned());
    Some(Difference { path: path.clone(), old, new, aspects: differing })
}

fn aspects(old: &Entry, new: &Entry, times: Times) -> Vec<Aspect> {
    if discriminant(&old.kind) != discriminant(&new.kind) {
        return vec![Aspect::Kind];
    }
    let is_link = matches!(old.kind, Kind::Symlink { .. });
    let differs = [
        (Aspect::Mode, old.mode != new.mode && !is_link),
        (Aspect::Owner, (old.uid, old.gid) != (new.uid, new.gid)),
        (Aspect::Xattrs, old.xattrs != new.xattrs),
        (Aspect::Mtime, old.mtime != new.mtime && times == Times::Compared),
    ];
    let differing = differs.into_iter().filter(|(_, differs)| *differs).map(|(aspect, _)| aspect);
    of_kind(&old.kind, &new.kind).into_iter().chain(differing).collect()
}

/// What differs between two entries of one kind that others do not have.
fn of_kind(old: &Kind, new: &Kind) -> Option<Aspect> {
    match (old, new) {
        (Kind::File { size, digest, .. }, Kind::File { size: new_size, digest: new_digest, .. }) => {
            ((size, digest) != (new_size, new_digest)).then_some(Aspect::Content)
        }
        (Kind::Symlink { target }, Kind::Symlink { target: new_target }) => {
            (target != new_target).then_some(Aspect::Target)
        }
        // What is opaque differs between layers, not between what they show.
        (Kind::Directory { .. }, Kind::Directory { .. }) => None,
        (old, new) => (old != new).then_some(Aspect::Device),
    }
}

/// What a layer list shows.
struct Shown<'m> {
    /// Of a hard link, the file, under each of its names.
    entries: BTreeMap<&'m RootfsPath, Found<'m>>,
    /// The first name that each file shows under, by its place in its layer.
    first_names: HashMap<(usize, &'m RootfsPath), &'m RootfsPath>,
}

impl<'m> Shown<'m> {
    fn of(merged: &'m Merged) -> Self {
        let mut entries = merged.below(&RootfsPath::root());
        let mut first_names = HashMap::with_capacity(entries.len());
        for (path, found) in &mut entries {
            *found = merged.content_of(*found);
            first_names.entry((found.layer, &found.entry.path)).or_insert(*path);
        }
        Self { entries, first_names }
    }

    fn entry(&self, path: &RootfsPath) -> Option<&'m Entry> {
        self.entries.get(path).map(|found| found.entry)
    }

    fn first_name(&self, path: &RootfsPath) -> Option<&'m RootfsPath> {
        let found = self.entries.get(path)?;
        self.first_names.get(&(found.layer, &found.entry.path)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entries, FileDigest};
    use sys::root::Time;

    fn path(text: &str) -> RootfsPath {
        RootfsPath::parse(text).unwrap()
    }

    /// `d/` directory, `a>b` symlink, `a=b` hard link, `-x` whiteout, else a file whose content is behind a colon.
    fn entry(line: &str) -> Entry {
        let of = |name: &str, kind| Entry { kind, ..Entry::directory(path(name), Time::default()) };
        if let Some(gone) = line.strip_prefix('-') {
            return Entry::whiteout(path(gone));
        }
        if let Some((name, target)) = line.split_once('>') {
            return of(name, Kind::Symlink { target: target.as_bytes().into() });
        }
        if let Some((name, target)) = line.split_once('=') {
            return of(name, Kind::HardLink { target: path(target) });
        }
        let (name, text) = line.split_once(':').unwrap_or((line, ""));
        let digest = FileDigest([text.len() as u8; 32]);
        let file = Kind::File { size: text.len() as u64, digest, member: 0 };
        of(
            name.trim_end_matches('/'),
            if line.ends_with('/') { Kind::Directory { opaque: false } } else { file },
        )
    }

    fn merged(layers: &[&[&str]]) -> Merged {
        let layer = |lines: &&[&str]| lines.iter().map(|line| entry(line)).collect::<Entries>();
        Merged::new(layers.iter().map(layer).collect())
    }

    #[track_caller]
    fn check(old: &[&[&str]], new: &[&[&str]], expected: &[&str]) {
        let found = compare(&merged(old), &merged(new), Times::Compared);
        let line = |difference: &Difference| match (&difference.old, &difference.new) {
            (None, _) => format!("A {}", difference.path),
            (_, None) => format!("D {}", difference.path),
            _ => format!("C {} {:?}", difference.path, difference.aspects),
        };
        assert_eq!(found.iter().map(line).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_shows_is_compared_and_not_how_it_came_about() {
        check(&[&["d/", "d/a:x"]], &[&["d/", "d/b"], &["d/", "d/a:x", "-d/b"]], &[]);
        check(&[&["d/", "d/a:x"]], &[&["d/", "d/a:xy", "e"]], &["C /d/a [Content]", "A /e"]);
        check(&[&["d/", "d/a"], &["-d"]], &[&["d"]], &["A /d"]);
        check(&[&["d/", "d/a"]], &[&["d"]], &["C /d [Kind]", "D /d/a"]);
        check(&[&["l>a"]], &[&["l>b"]], &["C /l [Target]"]);
    }

    #[test]
    fn hard_links_differ_by_the_names_they_join() {
        check(&[&["a:x", "b=a", "c=a"]], &[&["b:x", "a=b", "c=b"]], &[]);
        check(&[&["a:x", "b=a"]], &[&["a:x", "b:x"]], &["C /b [Names]"]);
        // Without its first name, a file is what its second name shows.
        check(&[&["a:x", "b=a"], &["-a"]], &[&["b:x"]], &[]);
    }

    #[test]
    fn attributes_are_told_one_by_one() {
        let with = |change: fn(&mut Entry)| {
            let mut changed = entry("a:x");
            change(&mut changed);
            Merged::new(vec![[changed].into_iter().collect()])
        };
        let aspects = |change, times| {
            let found = compare(&merged(&[&["a:x"]]), &with(change), times);
            found.into_iter().flat_map(|difference| difference.aspects).collect::<Vec<_>>()
        };
        assert_eq!(aspects(|entry| entry.mode = 0o600, Times::Ignored), [Aspect::Mode]);
        assert_eq!(aspects(|entry| entry.gid = 7, Times::Ignored), [Aspect::Owner]);
        assert_eq!(aspects(|entry| entry.mtime.seconds = 7, Times::Ignored), []);
        assert_eq!(aspects(|entry| entry.mtime.seconds = 7, Times::Compared), [Aspect::Mtime]);
        assert_eq!(aspects(|entry| entry.implied = true, Times::Compared), []);
    }
}
