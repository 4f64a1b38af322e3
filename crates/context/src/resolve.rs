//! From a source argument to the files it stands for.
//!
//! Links are resolved here rather than by the kernel, with the context as their root: each step looks at one path without following
//! anything, so that the result is the real path, by which ignore rules and scans know the file. What is ignored does not exist
//! for a source: a link into an ignored directory dangles.

use std::collections::VecDeque;
use std::sync::Arc;

use sys::RootfsPath;
use sys::directory::{self, Kind, Status};

use crate::context::{Shared, Slice};
use crate::error::{ContextError, Missing};
use crate::ignore::{Exclusion, Ignore, Verdict};
use crate::pattern::{Dialect, Pattern};
use crate::selection::{Destination, Match, Parents, Picked, Selection, Source};
use crate::wildcard::{SourceError, SourcePattern, normal_components};
use crate::{node::Node, scan};

/// As many links as the kernel follows in one path.
const MOST_LINKS: usize = 40;

/// Resolves a source argument.
pub(crate) fn select(shared: &Arc<Shared>, source: &Source<'_>) -> Result<Selection, ContextError> {
    let mut resolver = Resolver { shared, excludes: source.excludes, hidden_by: None };
    let matches = match source.parents {
        Parents::Dropped => resolver.plain(source.pattern)?,
        Parents::Kept => resolver.with_parents(source.pattern)?,
    };
    let hidden_by = resolver.hidden_by.filter(|_| matches.is_empty());
    Ok(Selection { context: Arc::clone(shared), matches: matches.into(), hidden_by })
}

struct Resolver<'a> {
    shared: &'a Shared,
    excludes: &'a Ignore,
    /// The first rule that kept a pattern from matching.
    hidden_by: Option<Exclusion>,
}

/// A path without links, and what is there.
#[derive(Debug)]
struct Found {
    path: RootfsPath,
    status: Status,
}

impl Resolver<'_> {
    fn plain(&mut self, pattern: &[u8]) -> Result<Vec<Match>, ContextError> {
        let source = parse(pattern)?;
        if source.is_literal() {
            let found = self.follow(&source.literal)?;
            return Ok(vec![self.whole(source.literal, found)?]);
        }
        let mut matches = Vec::new();
        for name in self.expand(&source)? {
            let found = self.follow(&name)?;
            let matched = self.whole(name, found)?;
            if matched.nodes().next().is_some() {
                matches.push(matched);
            }
        }
        Ok(matches)
    }

    /// A file, or a directory with all that is not excluded in it.
    fn whole(&self, name: RootfsPath, found: Found) -> Result<Match, ContextError> {
        if found.status.kind != Kind::Directory {
            let slice = self.shared.file(&found.path, &found.status)?;
            let base_name: Box<[u8]> = name.file_name().unwrap_or_default().into();
            // Exclusions filter what is in directories, never a file that is named itself.
            let picked = vec![Picked::of(slice, |_| Fate::Kept)];
            return Ok(Match {
                name,
                is_directory: false,
                destination: Destination::Named(base_name),
                picked,
            });
        }
        let slice = self.shared.tree(&found.path)?;
        let picked = Picked::of(slice, |node| self.fate_by_excludes(node, &found.path));
        Ok(Match {
            name,
            is_directory: true,
            destination: Destination::Below(found.path),
            picked: vec![picked],
        })
    }

    fn fate_by_excludes(&self, node: &Node, base: &RootfsPath) -> Fate {
        if self.excludes.is_empty() {
            return Fate::Kept;
        }
        let below = node.path().below(base).unwrap_or_default();
        Fate::of(self.excludes.matches(&below) == Verdict::Included, node)
    }

    /// The paths a pattern matches, in order. Directories named by a wildcard before the last component are not followed through links.
    fn expand(&mut self, source: &SourcePattern) -> Result<Vec<RootfsPath>, ContextError> {
        let start = match self.follow(&source.literal) {
            Ok(start) => start,
            // Nothing there: nothing matches.
            Err(ContextError::Missing { why, .. }) => {
                if let Missing::Excluded(by) = why {
                    self.hidden_by = Some(by);
                }
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let mut matched = if start.status.kind == Kind::Directory { vec![start.path] } else { Vec::new() };
        for (depth, pattern) in source.wild.iter().enumerate() {
            let is_last = depth + 1 == source.wild.len();
            let mut next = Vec::new();
            for directory in matched {
                self.expand_in(&directory, pattern, is_last, &mut next)?;
            }
            matched = next;
        }
        Ok(matched)
    }

    fn expand_in(
        &mut self,
        directory: &RootfsPath,
        pattern: &Pattern,
        is_last: bool,
        matched: &mut Vec<RootfsPath>,
    ) -> Result<(), ContextError> {
        let names = match pattern.as_literal() {
            Some(name) => vec![name.to_vec()],
            None => scan::names_in(self.shared, directory)?,
        };
        for name in names.iter().filter(|name| pattern.matches(name)) {
            let path = directory.join_name(name)?;
            let Some(status) = self.status(&path)? else { continue };
            let is_directory = status.kind == Kind::Directory;
            if is_last {
                match self.visibility(&path, &status)? {
                    Visibility::Visible => matched.push(path),
                    Visibility::Hidden(by) => {
                        self.hidden_by.get_or_insert(by);
                    }
                }
            } else if is_directory {
                matched.push(path);
            }
        }
        Ok(())
    }

    /// `--parents`: everything the pattern matches below the pivot, with the directories in between.
    fn with_parents(&mut self, pattern: &[u8]) -> Result<Vec<Match>, ContextError> {
        let (base, pattern) = split_at_pivot(pattern);
        let base = self.follow(&parse(base)?.literal)?;
        let components = normal_components(pattern);
        let literal: Vec<Vec<u8>> =
            components.iter().map_while(|component| literal_component(component)).collect();
        let is_literal = literal.len() == components.len();
        let top = base.path.join(&RootfsPath::parse(literal.join(&b'/'))?)?;
        let whole =
            Pattern::parse(&components.join(&b'/'), Dialect::Ignore).map_err(|e| bad_pattern(pattern, e))?;
        let Some(status) = self.existing(&top, is_literal)? else { return Ok(Vec::new()) };

        let fate = |node: &Node| {
            let below = node.path().below(&base.path).unwrap_or_default();
            let included = is_literal || matches_or_is_below(&whole, &below);
            Fate::of(included && self.excludes.matches(&below) == Verdict::Included, node)
        };
        let slice = match status.kind {
            Kind::Directory => self.shared.tree(&top)?,
            _ => self.shared.file(&top, &status)?,
        };
        let found = Picked::of(slice, fate);
        if found.indexes.is_empty() {
            return Ok(Vec::new());
        }
        let mut picked = self.directories_between(&base.path, &top)?;
        picked.push(found);
        let destination = Destination::Below(base.path.clone());
        Ok(vec![Match { name: base.path, is_directory: true, destination, picked }])
    }

    /// What is at the literal start of a `--parents` pattern. If all of it is literal it must be there.
    fn existing(&self, top: &RootfsPath, is_literal: bool) -> Result<Option<Status>, ContextError> {
        let seen = match self.status(top)? {
            Some(status) => self.visibility(top, &status)?.or_missing().map(|()| status),
            None => Err(self.absent(top)?),
        };
        match seen {
            Ok(status) => Ok(Some(status)),
            Err(_) if !is_literal => Ok(None),
            Err(why) => Err(missing(top, why)),
        }
    }

    /// The directories from the base, itself included, down to the one that holds `top`.
    fn directories_between(&self, base: &RootfsPath, top: &RootfsPath) -> Result<Vec<Picked>, ContextError> {
        let between = top.ancestors().filter(|above| above.is_at_or_below(base));
        between
            .map(|path| {
                let Some(status) = self.status(&path)? else { return Err(ContextError::Changed { path }) };
                let mut slice = self.shared.file(&path, &status)?;
                slice.range.end = slice.range.start + 1;
                Ok(Picked::of(slice, |_| Fate::Kept))
            })
            .collect()
    }

    /// Resolves a path, following links with the context as their root, to something that is not ignored.
    fn follow(&self, path: &RootfsPath) -> Result<Found, ContextError> {
        // The usual case: no link anywhere.
        if let Some(status) = self.status(path)?
            && status.kind != Kind::Symlink
        {
            self.visibility(path, &status)?.or_missing().map_err(|why| missing(path, why))?;
            return Ok(Found { path: path.clone(), status });
        }
        Walk { resolver: self, source: path, real: RootfsPath::root(), links: 0, last_link: None }.finish()
    }

    /// What is at a path of which no component but the last may be a link; `None` if nothing is, or not by this path.
    fn status(&self, path: &RootfsPath) -> Result<Option<Status>, ContextError> {
        match directory::status_below(&self.shared.root, path) {
            Ok(status) => Ok(Some(status)),
            Err(error) if directory::is_absence(&error) => Ok(None),
            Err(source) => Err(ContextError::Read { path: path.clone(), source }),
        }
    }

    /// Whether the context shows a file: no rule excludes it, or it is a directory with something in it that is brought back.
    fn visibility(&self, path: &RootfsPath, status: &Status) -> Result<Visibility, ContextError> {
        let Verdict::Excluded(by) = self.shared.ignore.matches(path) else { return Ok(Visibility::Visible) };
        let is_directory = status.kind == Kind::Directory;
        if is_directory && self.shared.ignore.has_exceptions() && !self.shared.tree(path)?.range.is_empty() {
            return Ok(Visibility::Visible);
        }
        Ok(Visibility::Hidden(by.clone()))
    }

    /// The answer to "what else is there?" for a path that is not.
    fn absent(&self, path: &RootfsPath) -> Result<Missing, ContextError> {
        for directory in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            match self.status(&directory)?.map(|status| status.kind) {
                None => {}
                Some(Kind::Directory) => return self.candidates_in(&directory),
                Some(_) => return Ok(Missing::BelowFile { file: directory }),
            }
        }
        Ok(Missing::Absent { candidates: Vec::new() })
    }

    fn candidates_in(&self, directory: &RootfsPath) -> Result<Missing, ContextError> {
        let names = scan::names_in(self.shared, directory)?;
        let paths = names.iter().filter_map(|name| directory.join_name(name).ok());
        let shown = paths.filter(|path| self.shared.ignore.matches(path) == Verdict::Included);
        Ok(Missing::Absent { candidates: shown.take(Missing::MOST_CANDIDATES).collect() })
    }
}

/// A path on its way through links.
struct Walk<'a> {
    resolver: &'a Resolver<'a>,
    /// The path as asked for.
    source: &'a RootfsPath,
    /// What is resolved: no component is a link.
    real: RootfsPath,
    links: usize,
    /// The link followed last and what it says.
    last_link: Option<(RootfsPath, String)>,
}

impl Walk<'_> {
    fn finish(mut self) -> Result<Found, ContextError> {
        let mut ahead: VecDeque<Vec<u8>> = self.source.components().map(<[u8]>::to_vec).collect();
        let mut status = self.look(&RootfsPath::root())?;
        while let Some(name) = ahead.pop_front() {
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    self.real = self.real.parent().unwrap_or_default();
                    status = self.look(&self.real.clone())?;
                    continue;
                }
                _ => {}
            }
            if status.kind != Kind::Directory {
                return Err(missing(self.source, Missing::BelowFile { file: self.real }));
            }
            let next = self.real.join_name(&name)?;
            status = self.look(&next)?;
            if status.kind == Kind::Symlink {
                let target = self.follow_link(next)?;
                for component in target.split(|&byte| byte == b'/').rev() {
                    ahead.push_front(component.to_vec());
                }
                status = self.look(&self.real.clone())?;
            } else {
                self.real = next;
            }
        }
        self.resolver
            .visibility(&self.real, &status)?
            .or_missing()
            .map_err(|why| self.blame(&self.real, why))?;
        Ok(Found { path: self.real, status })
    }

    /// Takes a link's target in place of its name.
    fn follow_link(&mut self, link: RootfsPath) -> Result<Vec<u8>, ContextError> {
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(missing(self.source, Missing::Loop));
        }
        if let Verdict::Excluded(by) = self.resolver.shared.ignore.matches(&link) {
            return Err(missing(&link, Missing::Excluded(by.clone())));
        }
        let target = directory::read_link_below(&self.resolver.shared.root, &link)
            .map_err(|source| ContextError::Read { path: link.clone(), source })?;
        if target.starts_with(b"/") {
            self.real = RootfsPath::root();
        }
        self.last_link = Some((link, String::from_utf8_lossy(&target).into_owned()));
        Ok(target)
    }

    fn look(&self, path: &RootfsPath) -> Result<Status, ContextError> {
        match self.resolver.status(path)? {
            Some(status) => Ok(status),
            None => Err(self.blame(path, self.resolver.absent(path)?)),
        }
    }

    /// The error about a path at which the walk ends: if a link led there, it is the link that dangles, unless a rule is the reason.
    fn blame(&self, path: &RootfsPath, why: Missing) -> ContextError {
        match (&self.last_link, why) {
            (Some((link, target)), Missing::Absent { .. }) => {
                missing(link, Missing::Dangling { target: target.clone() })
            }
            (None, why @ Missing::Absent { .. }) => missing(self.source, why),
            (_, why) => missing(path, why),
        }
    }
}

enum Visibility {
    Visible,
    Hidden(Exclusion),
}

impl Visibility {
    fn or_missing(self) -> Result<(), Missing> {
        match self {
            Self::Visible => Ok(()),
            Self::Hidden(by) => Err(Missing::Excluded(by)),
        }
    }
}

/// What becomes of a node of a tree that is copied in part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Kept,
    /// A directory that is left out unless something below it is kept.
    IfNeeded,
    LeftOut,
}

impl Fate {
    fn of(is_included: bool, node: &Node) -> Self {
        match (is_included, node.is_directory()) {
            (true, _) => Self::Kept,
            (false, true) => Self::IfNeeded,
            (false, false) => Self::LeftOut,
        }
    }
}

impl Picked {
    /// Picks nodes of a slice, which is in order: a directory that is only needed by what is kept below it comes before that.
    fn of(slice: Slice, fate: impl Fn(&Node) -> Fate) -> Self {
        let mut indexes = Vec::with_capacity(slice.range.len());
        let mut waiting: Vec<(usize, RootfsPath)> = Vec::new();
        for index in slice.range {
            let node = slice.tree.node(index);
            if !waiting.is_empty() {
                let path = node.path();
                waiting.retain(|(_, above)| path.is_at_or_below(above));
            }
            match fate(node) {
                Fate::Kept => {
                    indexes.extend(waiting.drain(..).map(|(above, _)| narrow(above)));
                    indexes.push(narrow(index));
                }
                Fate::IfNeeded => waiting.push((index, node.path())),
                Fate::LeftOut => {}
            }
        }
        Self { tree: slice.tree, indexes }
    }
}

fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("a context has fewer than four billion files")
}

fn parse(pattern: &[u8]) -> Result<SourcePattern, ContextError> {
    SourcePattern::parse(pattern).map_err(|error| match error {
        SourceError::Pattern(source) => bad_pattern(pattern, source),
        SourceError::Path(source) => ContextError::Path(source),
    })
}

fn bad_pattern(pattern: &[u8], source: crate::PatternError) -> ContextError {
    ContextError::Pattern { pattern: String::from_utf8_lossy(pattern).into_owned(), source }
}

/// `a/./b` is `b` below `a`; without a pivot everything is below the root.
fn split_at_pivot(pattern: &[u8]) -> (&[u8], &[u8]) {
    match pattern.windows(3).position(|window| window == b"/./") {
        Some(at) => (&pattern[..at], &pattern[at + 3..]),
        None => (b"", pattern),
    }
}

fn literal_component(component: &[u8]) -> Option<Vec<u8>> {
    let pattern = Pattern::parse(component, Dialect::Ignore).ok()?;
    pattern.as_literal().map(<[u8]>::to_vec)
}

/// Whether a pattern matches a path or a directory above it.
fn matches_or_is_below(pattern: &Pattern, path: &RootfsPath) -> bool {
    !path.is_root() && pattern.matches_or_above(path.as_bytes())
}

fn missing(path: &RootfsPath, why: Missing) -> ContextError {
    let name = String::from_utf8_lossy(path.as_bytes()).into_owned();
    ContextError::Missing { name: if name.is_empty() { ".".into() } else { name }, why }
}
