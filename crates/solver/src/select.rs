//! Source arguments of a COPY in another step's filesystem: the same rules as in a context, over a merged view.

use layer::merged::{Follow, Found, Merged};
use plan::{Copy, Parents, SourcePath};
use sys::RootfsPath;

use context::wildcard::SourcePattern;
use context::{Ignore, Verdict};

use crate::StepError;

/// What one source argument stands for.
#[derive(Debug)]
pub(crate) struct Selected<'m> {
    /// One for a plain path, any number for a pattern.
    pub(crate) matches: Vec<SelectedMatch<'m>>,
}

/// One file or directory.
#[derive(Debug)]
pub(crate) struct SelectedMatch<'m> {
    /// As the source names it.
    pub(crate) name: RootfsPath,
    /// Whether its contents are copied rather than itself.
    pub(crate) is_directory: bool,
    /// In the order of their paths.
    pub(crate) items: Vec<SelectedItem<'m>>,
}

/// One entry to copy.
#[derive(Clone, Debug)]
pub(crate) struct SelectedItem<'m> {
    /// What it is, and in which layer.
    pub(crate) found: Found<'m>,
    /// Its name below the destination directory; empty for a copied directory itself.
    pub(crate) destination: RootfsPath,
}

/// Resolves a source argument. `place` names the step in errors.
pub(crate) fn select_in<'m>(
    merged: &'m Merged,
    source: &SourcePath,
    copy: &Copy,
    place: &str,
) -> Result<Selected<'m>, StepError> {
    let selector = Selector {
        merged,
        place,
        written: &source.written,
        excludes: Ignore::from_flags(copy.exclude.iter().map(String::as_bytes))?,
    };
    let matches = match copy.parents {
        Parents::Dropped => selector.plain(source)?,
        Parents::Kept => selector.with_parents(source)?,
    };
    Ok(Selected { matches })
}

struct Selector<'m, 's> {
    merged: &'m Merged,
    place: &'s str,
    written: &'s str,
    excludes: Ignore,
}

impl<'m> Selector<'m, '_> {
    fn plain(&self, source: &SourcePath) -> Result<Vec<SelectedMatch<'m>>, StepError> {
        let pattern = self.parse(source.pattern.as_bytes())?;
        if pattern.is_literal() {
            return Ok(vec![self.whole(pattern.literal)?]);
        }
        let base = self.merged.resolve(&pattern.literal, Follow::Last)?;
        let depth =
            SourcePattern::parse(source.pattern.as_bytes()).map_or(0, |_| source.pattern.split('/').count());
        let literal_depth = pattern.literal.components().count();
        let mut matches = Vec::new();
        for path in self.merged.below(&base.path).into_keys() {
            let Some(below) = path.below(&base.path) else { continue };
            let named = pattern.literal.join(&below)?;
            if below.components().count() + literal_depth == depth && pattern.matches(&named) {
                matches.push(self.whole(named)?);
            }
        }
        matches.retain(|matched| !matched.items.is_empty());
        Ok(matches)
    }

    /// A file, or a directory with all that is not excluded in it. Links to it are followed, links in it are not.
    fn whole(&self, name: RootfsPath) -> Result<SelectedMatch<'m>, StepError> {
        let resolved = self.merged.resolve(&name, Follow::Last)?;
        if resolved.path.is_root() {
            return Ok(SelectedMatch { name, is_directory: true, items: self.tree(&resolved.path, None) });
        }
        let found = self.merged.lookup(&resolved.path).ok_or_else(|| self.missing(&name))?;
        if found.entry.is_directory() {
            return Ok(SelectedMatch {
                name,
                is_directory: true,
                items: self.tree(&resolved.path, Some(found)),
            });
        }
        let destination = RootfsPath::parse(name.file_name().unwrap_or_default())?;
        // Exclusions filter what is in directories, never a file that is named itself.
        Ok(SelectedMatch { name, is_directory: false, items: vec![SelectedItem { found, destination }] })
    }

    fn tree(&self, directory: &RootfsPath, own: Option<Found<'m>>) -> Vec<SelectedItem<'m>> {
        let own = own.map(|found| SelectedItem { found, destination: RootfsPath::root() });
        let below =
            self.merged.below(directory).into_iter().filter_map(|(path, found)| {
                Some(SelectedItem { found, destination: path.below(directory)? })
            });
        let is_kept = |item: &SelectedItem<'m>| {
            item.destination.is_root() || self.excludes.matches(&item.destination) == Verdict::Included
        };
        keep_with_directories(own.into_iter().chain(below), is_kept)
    }

    /// `--parents`: what the pattern matches below the pivot, with the directories in between.
    fn with_parents(&self, source: &SourcePath) -> Result<Vec<SelectedMatch<'m>>, StepError> {
        let pivot = self.parse(source.pivot.as_bytes())?;
        let base = self.merged.resolve(&pivot.literal, Follow::Last)?.path;
        // An exclusion rule matches a path and everything below it, which is what a source pattern does, `**` included.
        let pattern = Ignore::from_flags([source.pattern.as_bytes()])?;
        let is_picked = |item: &SelectedItem<'m>| {
            let is_matched =
                source.pattern.is_empty() || pattern.matches(&item.destination) != Verdict::Included;
            is_matched && self.excludes.matches(&item.destination) == Verdict::Included
        };
        let below = self
            .merged
            .below(&base)
            .into_iter()
            .filter_map(|(path, found)| Some(SelectedItem { found, destination: path.below(&base)? }));
        let items = keep_with_directories(below, is_picked);
        if items.is_empty() && !source.is_wildcard() {
            return Err(self.missing(&RootfsPath::parse_clamped(&source.pattern)?));
        }
        Ok(vec![SelectedMatch { name: base, is_directory: true, items }])
    }

    fn parse(&self, pattern: &[u8]) -> Result<SourcePattern, StepError> {
        SourcePattern::parse(pattern)
            .map_err(|source| StepError::Pattern { pattern: self.written.to_owned(), source })
    }

    fn missing(&self, path: &RootfsPath) -> StepError {
        let parent = path.parent().unwrap_or_default();
        let near =
            self.merged.resolve(&parent, Follow::Last).map(|resolved| resolved.path).unwrap_or_default();
        let depth = near.components().count() + 1;
        let below = self.merged.below(&near);
        let candidates =
            below.into_keys().filter(|path| path.components().count() == depth).cloned().collect();
        StepError::MissingInStep { path: self.written.to_owned(), place: self.place.to_owned(), candidates }
    }
}

/// Keeps what is wanted, and of the other directories those that something wanted lies in.
fn keep_with_directories<'m>(
    items: impl Iterator<Item = SelectedItem<'m>>,
    is_wanted: impl Fn(&SelectedItem<'m>) -> bool,
) -> Vec<SelectedItem<'m>> {
    let mut kept = Vec::new();
    let mut waiting: Vec<SelectedItem<'m>> = Vec::new();
    for item in items {
        waiting.retain(|above| item.destination.is_at_or_below(&above.destination));
        if is_wanted(&item) {
            kept.append(&mut waiting);
            kept.push(item);
        } else if item.found.entry.is_directory() {
            waiting.push(item);
        }
    }
    kept
}
