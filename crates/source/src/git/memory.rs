//! Which commit each name of a repository stood for when its server was last asked, kept beside what was fetched.
//!
//! A line for each, the commit before the name. The file is replaced whole.

use std::fs;
use std::path::Path;

use super::program::files;
use super::{Commit, GitError};

const NAMES: &str = "names";

/// What a name stood for; `None` if nobody was asked yet.
pub(super) fn recall(place: &Path, name: &str) -> Option<Commit> {
    let text = fs::read_to_string(place.join(NAMES)).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(_, known)| *known == name).and_then(|(commit, _)| Commit::parse(commit))
}

/// Remembers what a name stands for. Whoever calls holds the place alone.
pub(super) fn remember(place: &Path, name: &str, commit: &Commit) -> Result<(), GitError> {
    if recall(place, name).as_ref() == Some(commit) {
        return Ok(());
    }
    let path = place.join(NAMES);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let is_other = |line: &&str| line.split_once(' ').is_some_and(|(_, known)| known != name);
    let own = format!("{commit} {name}");
    let lines = text.lines().filter(is_other).chain([own.as_str()]);
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    let next = place.join("names.part");
    fs::write(&next, text).map_err(files(&next))?;
    fs::rename(&next, &path).map_err(files(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_keeps_what_it_last_stood_for() {
        let place = tempfile::tempdir().unwrap();
        let commit = |digit: &str| Commit::parse(&digit.repeat(40)).unwrap();
        assert_eq!(recall(place.path(), "HEAD"), None);
        for (name, digit) in [("HEAD", "1"), ("refs/tags/v1", "2"), ("HEAD", "3")] {
            remember(place.path(), name, &commit(digit)).unwrap();
        }
        assert_eq!(recall(place.path(), "HEAD"), Some(commit("3")));
        assert_eq!(recall(place.path(), "refs/tags/v1"), Some(commit("2")));
        assert_eq!(recall(place.path(), "refs/tags/v"), None);
        fs::write(place.path().join(NAMES), "torn HEAD\n").unwrap();
        assert_eq!(recall(place.path(), "HEAD"), None);
    }
}
