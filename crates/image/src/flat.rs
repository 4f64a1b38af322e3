//! A list of layers as one list of entries, each file with the place where its content is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};
use std::path::PathBuf;

use layer::Merged;
use layer::entries::{Entry, Kind};
use layer::merged::{Follow, Found, Resolved};
use layer::pack::{Contents, FileDigests, Form, PackError, Packed, pack};
use oci::LayerId;
use sys::RootfsPath;
use sys::directory::open_file_below;
use sys::root::{Dir, Time};

use crate::export::{ExportError, Part};
use crate::{Error, Layers};

/// Threads that read files ahead of the packer.
const READERS: usize = 4;

/// The layer that has a file's content, counted from the lowest, and the file's name there.
type Place = (usize, RootfsPath);

/// The files of a list of layers.
pub(crate) struct Flat {
    /// Sorted by path, the root first.
    pub(crate) list: Vec<Entry>,
    /// One for each entry; of anything but a file, `None`.
    places: Vec<Option<Place>>,
    /// The trees of the layers that have content to give.
    trees: HashMap<usize, Dir>,
}

impl Flat {
    /// Flattens layers, and makes the trees that are needed. With `modified`, all files were last modified then.
    pub(crate) fn of(layers: &Layers<'_>, ids: &[LayerId], modified: Option<Time>) -> Result<Self, Error> {
        let (mut list, places) = flatten(&layers.merged(ids)?);
        if let Some(modified) = modified {
            list.iter_mut().for_each(|entry| entry.mtime = modified);
        }
        let trees = trees(layers, ids, &list, &places)?;
        Ok(Self { list, places, trees })
    }

    /// What is at a path, links followed: a directory becomes the root, and a file is in it. `None` if nothing is there.
    pub(crate) fn part(
        layers: &Layers<'_>,
        ids: &[LayerId],
        path: &RootfsPath,
    ) -> Result<Option<Self>, ExportError> {
        let merged = layers.merged(ids)?;
        let resolved = merged.resolve(path, Follow::Last)?;
        let Some((mut list, places)) = part(&merged, &resolved) else { return Ok(None) };
        // A file goes by the name it was asked for by, although a link may have led to it.
        if let [_, file] = &mut list[..]
            && resolved.found.is_some_and(|found| !found.entry.is_directory())
        {
            file.path = RootfsPath::root().join_name(path.file_name().unwrap_or_default())?;
        }
        let trees = trees(layers, ids, &list, &places)?;
        Ok(Some(Self { list, places, trees }))
    }

    /// What the layers from the `base`-th on change of those below, as one layer would.
    pub(crate) fn above(layers: &Layers<'_>, ids: &[LayerId], base: usize) -> Result<Self, Error> {
        let (all, below) = (layers.merged(ids)?, layers.merged(&ids[..base])?);
        let (list, places) = changes(&all, &below, base);
        let trees = trees(layers, ids, &list, &places)?;
        Ok(Self { list, places, trees })
    }

    /// Several of them, each below a directory of its own.
    pub(crate) fn of_parts(
        layers: &Layers<'_>,
        parts: &[Part],
        modified: Option<Time>,
    ) -> Result<Self, ExportError> {
        if let [Part { below, layers: ids }] = parts
            && below.is_root()
        {
            return Ok(Self::of(layers, ids, modified)?);
        }
        let root = Entry::directory(RootfsPath::root(), modified.unwrap_or_default());
        let mut all = Self { list: vec![root], places: vec![None], trees: HashMap::new() };
        let mut sorted: Vec<&Part> = parts.iter().collect();
        sorted.sort_by(|a, b| a.below.cmp(&b.below));
        let mut layers_before = 0;
        for part in sorted {
            let Self { list, places, trees } = Self::of(layers, &part.layers, modified)?;
            for mut entry in list {
                entry.path = part.below.join(&entry.path)?;
                if let Kind::HardLink { target } = &mut entry.kind {
                    *target = part.below.join(target)?;
                }
                all.list.push(entry);
            }
            let moved =
                places.into_iter().map(|place| place.map(|(layer, path)| (layer + layers_before, path)));
            all.places.extend(moved);
            all.trees.extend(trees.into_iter().map(|(layer, tree)| (layer + layers_before, tree)));
            layers_before += part.layers.len();
        }
        Ok(all)
    }

    /// Packs it into a tar or a tree.
    pub(crate) fn pack(
        &self,
        form: Form<'_>,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Packed, PackError> {
        pack(self.list.clone(), self, FileDigests::Known, form, READERS, cancelled)
    }
}

impl Contents for Flat {
    fn open(&self, index: usize, entry: &Entry) -> io::Result<Box<dyn Read + '_>> {
        if entry.size() == 0 {
            return Ok(Box::new(io::empty()));
        }
        let place = self.places.get(index).and_then(Option::as_ref);
        let (layer, path) = place.ok_or(io::ErrorKind::NotFound)?;
        let tree = self.trees.get(layer).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(open_file_below(tree, path)?))
    }
}

/// The trees of the layers that have content to give.
fn trees(
    layers: &Layers<'_>,
    ids: &[LayerId],
    list: &[Entry],
    places: &[Option<Place>],
) -> Result<HashMap<usize, Dir>, Error> {
    let with_content = list.iter().zip(places).filter(|(entry, _)| entry.size() > 0);
    let needed: BTreeSet<usize> =
        with_content.filter_map(|(_, place)| place.as_ref().map(|(layer, _)| *layer)).collect();
    let paths = layers.trees(&needed.iter().map(|&layer| ids[layer].clone()).collect::<Vec<_>>())?;
    let open = |(layer, path): (usize, &PathBuf)| match Dir::open(path) {
        Ok(dir) => Ok((layer, dir)),
        Err(error) => Err(Error::at("open", path)(error)),
    };
    needed.into_iter().zip(&paths).map(open).collect()
}

/// What the layers from the `base`-th on show that those below do not, and whiteouts for what is gone.
fn changes(all: &Merged, below: &Merged, base: usize) -> (Vec<Entry>, Vec<Option<Place>>) {
    let (shown, hidden) = (all.below(&RootfsPath::root()), below.below(&RootfsPath::root()));
    let mut names = FirstNames::default();
    let mut changed: BTreeMap<RootfsPath, (Entry, Option<Place>)> = BTreeMap::new();
    if all.root_entry() != below.root_entry() {
        changed.insert(RootfsPath::root(), (all.root_entry(), None));
    }
    for (path, found) in shown.iter().filter(|(_, found)| found.layer >= base) {
        let (entry, place) = names.file(all, path, *found);
        // A directory is only on the way to something if it is below as it is here.
        let is_as_below = || below.lookup(path).is_some_and(|below| shown_entry(below.entry) == entry);
        let implied = found.entry.is_directory() && is_as_below();
        changed.insert((*path).clone(), (Entry { implied, ..entry }, place));
    }
    let is_left =
        |path: &RootfsPath| path.is_root() || shown.get(path).is_some_and(|found| found.entry.is_directory());
    for path in hidden.keys().filter(|path| !shown.contains_key(*path)) {
        // What was below something that is gone needs no word.
        if is_left(&path.parent().unwrap_or_default()) {
            changed.insert((*path).clone(), (Entry::whiteout((*path).clone()), None));
        }
    }
    changed.into_values().unzip()
}

/// What is at a path; names of one file outside of it do not count.
fn part(merged: &Merged, at: &Resolved<'_>) -> Option<(Vec<Entry>, Vec<Option<Place>>)> {
    let root = match at.found {
        Some(found) if found.entry.is_directory() => shown_entry(found.entry),
        None if !at.path.is_root() => return None,
        _ => shown_entry(&merged.root_entry()),
    };
    let (base, below) = match at.found {
        Some(found) if !found.entry.is_directory() => {
            (at.path.parent().unwrap_or_default(), BTreeMap::from([(&at.path, found)]))
        }
        _ => (at.path.clone(), merged.below(&at.path)),
    };
    let mut names = FirstNames::default();
    let (mut list, mut places) = (vec![Entry { path: RootfsPath::root(), ..root }], vec![None]);
    for (path, found) in below {
        let (mut entry, place) = names.file(merged, path, found);
        entry.path = path.below(&base)?;
        if let Kind::HardLink { target } = &mut entry.kind {
            *target = target.below(&base)?;
        }
        list.push(entry);
        places.push(place);
    }
    Some((list, places))
}

/// What a mount of the layers would show. Names of one file that survive become hard links to the first of them.
fn flatten(merged: &Merged) -> (Vec<Entry>, Vec<Option<Place>>) {
    let mut list = vec![shown_entry(&merged.root_entry())];
    let mut places = vec![None];
    let mut names = FirstNames::default();
    for (path, found) in merged.below(&RootfsPath::root()) {
        let (entry, place) = names.file(merged, path, found);
        list.push(entry);
        places.push(place);
    }
    (list, places)
}

/// Under which name each file was met first.
#[derive(Default)]
struct FirstNames(HashMap<Place, RootfsPath>);

impl FirstNames {
    /// The entry at a path, and where its content is; a further name of a file is a hard link to the first.
    fn file(&mut self, merged: &Merged, path: &RootfsPath, found: Found<'_>) -> (Entry, Option<Place>) {
        let content = merged.content_of(found);
        let mut entry = shown_entry(found.entry);
        if !matches!(content.entry.kind, Kind::File { .. }) {
            return (entry, None);
        }
        let at = (content.layer, content.entry.path.clone());
        if let Some(first) = self.0.get(&at) {
            entry.kind = Kind::HardLink { target: first.clone() };
            return (entry, None);
        }
        entry.kind = content.entry.kind.clone();
        self.0.insert(at.clone(), path.clone());
        (entry, Some(at))
    }
}

/// An entry without what only layers have.
fn shown_entry(entry: &Entry) -> Entry {
    let mut entry = Entry { implied: false, ..entry.clone() };
    if let Kind::Directory { opaque } = &mut entry.kind {
        *opaque = false;
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use layer::{Entries, FileDigest};

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry { kind, ..Entry::directory(RootfsPath::parse(path).unwrap(), Time::default()) }
    }

    fn file(path: &str, size: u64) -> Entry {
        entry(path, Kind::File { size, digest: FileDigest([0; 32]), member: 0 })
    }

    fn link(path: &str, target: &str) -> Entry {
        entry(path, Kind::HardLink { target: RootfsPath::parse(target).unwrap() })
    }

    #[test]
    fn a_hard_link_whose_first_name_is_hidden_becomes_the_file() {
        let lower = Entries::new(vec![file("a", 1), link("b", "a"), link("c", "a")]);
        let upper = Entries::new(vec![Entry::whiteout(RootfsPath::parse("a").unwrap())]);
        let (list, places) = flatten(&Merged::new(vec![lower, upper]));
        let kinds: Vec<String> = list.iter().map(|e| format!("{} {:?}", e.path, e.kind)).collect();
        assert_eq!(list.len(), 3, "{kinds:?}");
        assert_eq!((list[1].size(), &list[2].kind), (1, &link("c", "b").kind));
        assert_eq!(places[1], Some((0, RootfsPath::parse("a").unwrap())));
    }

    #[test]
    fn names_that_an_upper_layer_replaced_are_no_links_any_more() {
        let lower = Entries::new(vec![file("a", 1), link("b", "a")]);
        let upper = Entries::new(vec![file("a", 2)]);
        let (list, places) = flatten(&Merged::new(vec![lower, upper]));
        assert_eq!((list[1].size(), list[2].size()), (2, 1));
        assert_eq!(places[2], Some((0, RootfsPath::parse("a").unwrap())));
    }
}
