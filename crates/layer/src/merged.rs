//! A list of layers seen as the one filesystem that mounting it would show.

use std::collections::BTreeMap;
use std::ops::Bound;

use sys::RootfsPath;
use sys::root::Time;

use crate::{Entries, Entry, Kind};

/// How many symbolic links one look-up follows (path_resolution(7), `ELOOP`).
const MAX_LINKS: u32 = 40;

/// The merged view of a list of layers, lowest first. Cheap to clone and to extend.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    layers: Vec<Entries>,
}

/// An entry and the layer that provides it.
#[derive(Clone, Copy, Debug)]
pub struct Found<'m> {
    /// Index into the layer list.
    pub layer: usize,
    /// Never a whiteout.
    pub entry: &'m Entry,
}

/// Where a path leads once links are followed.
#[derive(Clone, Debug)]
pub struct Resolved<'m> {
    /// Free of links, except perhaps the last component if it was not to be followed.
    pub path: RootfsPath,
    /// What is there, if anything is.
    pub found: Option<Found<'m>>,
}

/// Why a path leads nowhere.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ResolveError {
    /// A component that is neither a directory nor a link to one.
    #[error("`{0}` is not a directory")]
    NotADirectory(RootfsPath),
    /// Over 40 links.
    #[error("`{0}` goes through too many symbolic links")]
    TooManyLinks(RootfsPath),
    /// A link target that is no path.
    #[error("symbolic link `{0}` has an impossible target")]
    BadTarget(RootfsPath, #[source] sys::PathError),
}

/// Whether the last component of a path is followed if it is a symbolic link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Follow {
    /// As stat(2).
    Last,
    /// As lstat(2).
    AllButLast,
}

impl Merged {
    /// The view of a list of layers, lowest first.
    #[must_use]
    pub fn new(layers: Vec<Entries>) -> Self {
        Self { layers }
    }

    /// The layers, lowest first.
    #[must_use]
    pub fn layers(&self) -> &[Entries] {
        &self.layers
    }

    /// The view with one more layer on top.
    #[must_use]
    pub fn with(&self, top: Entries) -> Self {
        let mut layers = self.layers.clone();
        layers.push(top);
        Self { layers }
    }

    /// What is at exactly this path; links on the way are not followed.
    #[must_use]
    pub fn lookup(&self, path: &RootfsPath) -> Option<Found<'_>> {
        for (layer, entries) in self.layers.iter().enumerate().rev() {
            match entries.find(path) {
                Some(Entry { kind: Kind::Whiteout, .. }) => return None,
                Some(entry) => return Some(Found { layer, entry }),
                None if hides_below(entries, path) => return None,
                None => {}
            }
        }
        None
    }

    /// The root directory's attributes: those of the topmost layer that has any, else 0755 owned by 0:0.
    #[must_use]
    pub fn root_entry(&self) -> Entry {
        let root = RootfsPath::root();
        self.lookup(&root)
            .map_or_else(|| Entry::directory(root, Time::default()), |found| found.entry.clone())
    }

    /// The file behind a hard link, or the entry itself: where content and size are.
    #[must_use]
    pub fn content_of<'m>(&'m self, found: Found<'m>) -> Found<'m> {
        let Kind::HardLink { target } = &found.entry.kind else { return found };
        let target = self.layers[found.layer].find(target);
        target.map_or(found, |entry| Found { layer: found.layer, entry })
    }

    /// Follows links below the root as the kernel would for a process in this rootfs.
    ///
    /// A path whose last components do not exist resolves to where they would be made.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn resolve(&self, path: &RootfsPath, follow: Follow) -> Result<Resolved<'_>, ResolveError> {
        let mut todo: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
        let mut at = RootfsPath::root();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                at = at.parent().unwrap_or_default();
                continue;
            }
            let next = at.join_name(&name).map_err(|e| ResolveError::BadTarget(at.clone(), e))?;
            let found = self.lookup(&next);
            match found.map(|f| &f.entry.kind) {
                Some(Kind::Symlink { target }) if follow == Follow::Last || !todo.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(ResolveError::TooManyLinks(path.clone()));
                    }
                    if target.starts_with(b"/") {
                        at = RootfsPath::root();
                    }
                    let parts = target.split(|&b| b == b'/').filter(|c| !matches!(*c, b"" | b"."));
                    todo.extend(parts.rev().map(<[u8]>::to_vec));
                }
                Some(Kind::Directory { .. }) | None => at = next,
                Some(_) if todo.is_empty() => at = next,
                Some(_) => return Err(ResolveError::NotADirectory(next)),
            }
        }
        let found = self.lookup(&at);
        Ok(Resolved { path: at, found })
    }

    /// Everything strictly below a directory, as it shows, by path.
    #[must_use]
    pub fn below(&self, directory: &RootfsPath) -> BTreeMap<&RootfsPath, Found<'_>> {
        let mut shown: BTreeMap<&RootfsPath, Found<'_>> = BTreeMap::new();
        for (layer, entries) in self.layers.iter().enumerate() {
            if hides_below_or_at(entries, directory) {
                shown.clear();
            }
            for entry in entries.below(directory) {
                let replaces_tree = match entry.kind {
                    Kind::Directory { opaque } => opaque,
                    _ => true,
                };
                if replaces_tree {
                    remove_below(&mut shown, &entry.path);
                }
                if entry.kind == Kind::Whiteout {
                    shown.remove(&entry.path);
                } else {
                    shown.insert(&entry.path, Found { layer, entry });
                }
            }
        }
        shown
    }
}

/// Whether this layer hides what lower layers have at `path`, although it has no entry there: something above it is a whiteout, opaque, or
/// no directory.
fn hides_below(entries: &Entries, path: &RootfsPath) -> bool {
    path.ancestors().filter_map(|above| entries.find(&above)).any(hides_lower)
}

fn hides_below_or_at(entries: &Entries, directory: &RootfsPath) -> bool {
    entries.find(directory).is_some_and(hides_lower) || hides_below(entries, directory)
}

fn hides_lower(entry: &Entry) -> bool {
    !matches!(entry.kind, Kind::Directory { opaque: false })
}

fn remove_below<'m>(shown: &mut BTreeMap<&'m RootfsPath, Found<'m>>, directory: &'m RootfsPath) {
    let doomed: Vec<_> = shown
        .range::<RootfsPath, _>((Bound::Excluded(directory), Bound::Unbounded))
        .map(|(path, _)| *path)
        .take_while(|path| path.is_at_or_below(directory))
        .collect();
    for path in doomed {
        shown.remove(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileDigest;

    fn path(text: &str) -> RootfsPath {
        RootfsPath::parse(text).unwrap()
    }

    /// `d/` directory, `d!/` opaque directory, `-x` whiteout, `a>b` symlink, else a file of one byte.
    fn layer(lines: &[&str]) -> Entries {
        let entry = |line: &&str| {
            let time = Time::default();
            if let Some(gone) = line.strip_prefix('-') {
                return Entry::whiteout(path(gone));
            }
            if let Some((name, target)) = line.split_once('>') {
                let kind = Kind::Symlink { target: target.as_bytes().into() };
                return Entry { kind, ..Entry::directory(path(name), time) };
            }
            let base = Entry::directory(path(line.trim_end_matches(['/', '!'])), time);
            let kind = match *line {
                line if line.ends_with("!/") => Kind::Directory { opaque: true },
                line if line.ends_with('/') => Kind::Directory { opaque: false },
                _ => Kind::File { size: 1, digest: FileDigest([0; 32]), member: 0 },
            };
            Entry { kind, ..base }
        };
        lines.iter().map(entry).collect()
    }

    fn merged(layers: &[&[&str]]) -> Merged {
        Merged::new(layers.iter().map(|lines| layer(lines)).collect())
    }

    #[track_caller]
    fn check_shown(layers: &[&[&str]], expected: &[&str]) {
        let merged = merged(layers);
        let shown: Vec<_> = merged.below(&RootfsPath::root()).keys().map(ToString::to_string).collect();
        assert_eq!(shown, expected);
        for name in merged.layers().iter().flat_map(|l| l.as_slice()).map(|e| &e.path) {
            let listed = shown.contains(&name.to_string());
            assert_eq!(merged.lookup(name).is_some(), listed, "lookup and listing differ for {name}");
        }
    }

    #[test]
    fn upper_layers_add_replace_and_hide() {
        check_shown(&[&["a/", "a/x", "b"], &["a/", "a/y"]], &["/a", "/a/x", "/a/y", "/b"]);
        check_shown(&[&["a/", "a/x"], &["-a"]], &[]);
        check_shown(&[&["a/", "a/x"], &["a/", "-a/x"]], &["/a"]);
        check_shown(&[&["a/", "a/x"], &["a!/", "a/y"]], &["/a", "/a/y"]);
        check_shown(&[&["a/", "a/x"], &["a"]], &["/a"]);
        check_shown(&[&["a/", "a/x"], &["-a"], &["a/", "a/z"]], &["/a", "/a/z"]);
    }

    #[test]
    fn listing_below_a_directory_that_an_upper_layer_hides_is_empty() {
        let merged = merged(&[&["a/", "a/b/", "a/b/x"], &["a!/"]]);
        assert!(merged.below(&path("a/b")).is_empty());
    }

    #[track_caller]
    fn check_resolve(merged: &Merged, from: &str, follow: Follow, expected: &str) {
        let got = merged.resolve(&path(from), follow).map_or_else(
            |e| e.to_string(),
            |r| format!("{}{}", r.path, if r.found.is_some() { "" } else { " (absent)" }),
        );
        assert_eq!(got, expected);
    }

    #[test]
    fn links_are_followed_inside_the_rootfs() {
        let merged = merged(&[&[
            "usr/",
            "usr/lib/",
            "usr/lib/x",
            "lib>usr/lib",
            "abs>/usr",
            "up>../../usr",
            "loop>loop",
            "f",
        ]]);
        check_resolve(&merged, "lib/x", Follow::AllButLast, "/usr/lib/x");
        check_resolve(&merged, "lib", Follow::AllButLast, "/lib");
        check_resolve(&merged, "lib", Follow::Last, "/usr/lib");
        check_resolve(&merged, "abs/lib/x", Follow::Last, "/usr/lib/x");
        check_resolve(&merged, "up/lib/new/deep", Follow::Last, "/usr/lib/new/deep (absent)");
        check_resolve(&merged, "loop", Follow::Last, "`/loop` goes through too many symbolic links");
        check_resolve(&merged, "f/x", Follow::Last, "`/f` is not a directory");
    }
}
