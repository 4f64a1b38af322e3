//! Small contexts and what they select, as text.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use context::{Attributes, Context, ContextError, Ignore, Kind, Parents, Selection, SelectionDigest, Source};
use tempfile::TempDir;

/// A directory to be a context, and one beside it for its stat cache.
pub(crate) struct World {
    pub(crate) top: TempDir,
    pub(crate) store: TempDir,
}

impl World {
    /// Files as `path`, which contain their path; `path/` is an empty directory, `path -> target` a link.
    pub(crate) fn new(files: &[&str]) -> Self {
        let world = Self { top: tempfile::tempdir().unwrap(), store: tempfile::tempdir().unwrap() };
        for file in files {
            world.add(file);
        }
        world
    }

    pub(crate) fn add(&self, file: &str) {
        let (name, target) =
            file.split_once(" -> ").map_or((file, None), |(name, target)| (name, Some(target)));
        let path = self.path(name);
        fs::create_dir_all(if name.ends_with('/') { &path } else { path.parent().unwrap() }).unwrap();
        match target {
            Some(target) => symlink(target, path).unwrap(),
            None if name.ends_with('/') => {}
            None => fs::write(path, name).unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.store.path().join("stat-cache")
    }

    /// Opens the context with its `.dockerignore`, if it has one, and its stat cache.
    pub(crate) fn context(&self) -> Context {
        let ignore = Ignore::find(self.top.path(), None).unwrap();
        Context::open(self.top.path(), ignore, Some(&self.cache())).unwrap()
    }

    pub(crate) fn digest(&self) -> SelectionDigest {
        select(&self.context(), ".").unwrap().digest(Attributes::ALL).unwrap()
    }

    /// A whole build's worth: digest, save, and how many files it had to read.
    pub(crate) fn build(&self) -> (SelectionDigest, usize) {
        let context = self.context();
        let selection = select(&context, ".").unwrap();
        let unread = selection.unread();
        let digest = selection.digest(Attributes::ALL).unwrap();
        context.save().unwrap();
        (digest, unread)
    }

    /// Builds until everything is old enough to be remembered: the clock of stamps ticks every few milliseconds.
    #[track_caller]
    pub(crate) fn settle(&self) {
        for _ in 0..10_000 {
            if self.build().1 == 0 {
                return;
            }
        }
        panic!("the stat cache remembers nothing");
    }
}

pub(crate) fn select(context: &Context, pattern: &str) -> Result<Selection, ContextError> {
    select_with(context, pattern, &[], Parents::Dropped)
}

pub(crate) fn select_with(
    context: &Context,
    pattern: &str,
    excludes: &[&str],
    parents: Parents,
) -> Result<Selection, ContextError> {
    let excludes = Ignore::from_flags(excludes.iter().map(|text| text.as_bytes())).unwrap();
    context.select(&Source { pattern: pattern.as_bytes(), excludes: &excludes, parents })
}

/// One line per entry: destination, type letter, path in the context where it differs.
pub(crate) fn shown(selection: Result<Selection, ContextError>) -> String {
    let selection = match selection {
        Ok(selection) => selection,
        Err(error) => return format!("{error}\n"),
    };
    if selection.is_empty() {
        return match selection.hidden_by() {
            Some(by) => format!("nothing: {by}\n"),
            None => "nothing\n".into(),
        };
    }
    let mut lines = String::new();
    for entry in selection.entries() {
        let path = entry.node.path();
        let from = if path == entry.destination { String::new() } else { format!("  from {path}") };
        lines += &format!("{} {}{from}\n", letter(entry.node.kind()), entry.destination);
    }
    lines
}

fn letter(kind: Kind<'_>) -> String {
    match kind {
        Kind::File { .. } => "f".into(),
        Kind::Directory => "d".into(),
        Kind::Symlink { target } => format!("l({})", String::from_utf8_lossy(target)),
        Kind::CharDevice { .. } => "c".into(),
        Kind::BlockDevice { .. } => "b".into(),
        Kind::Fifo => "p".into(),
        Kind::Socket => "s".into(),
    }
}

/// Writes other bytes of the same length and puts the modification time back.
pub(crate) fn edit_unnoticeably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let before = fs::metadata(path)?;
    assert_eq!(before.len(), bytes.len() as u64);
    fs::write(path, bytes)?;
    fs::File::options().write(true).open(path)?.set_modified(before.modified()?)
}
