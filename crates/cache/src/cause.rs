//! Why a step was not reused: its parts beside those of the nearest earlier run.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a step ran.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Nothing like it was ever recorded.
    FirstRun,
    /// The caller wants no cache for it.
    CacheOff,
    /// The caller wants no results as old as the one that there is.
    TooOld,
    /// Everything is as it was, but the result is no longer in the store.
    ResultGone,
    /// These differ from the nearest earlier run; never empty, the most telling first.
    Changed(Vec<Change>),
}

/// One difference.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// A part of the key.
    Part {
        /// Its name.
        name: String,
        /// What happened to it.
        how: How,
    },
    /// A file of a source.
    File {
        /// Relative to the source.
        path: String,
        /// What happened to it.
        how: FileHow,
    },
}

/// What happened to a part.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It was not there.
    Added,
    /// It was different.
    Changed,
    /// It is not there any more.
    Removed,
}

/// What happened to a file.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileHow {
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// An ignore file hides it by now.
    Ignored {
        /// The rule, as in "line 3 of .dockerignore".
        by: String,
    },
    /// It became a directory, a link or the like.
    Type,
    /// Its content, link target or extended attributes.
    Content,
    /// Its permissions only.
    Mode {
        /// What they were.
        from: u16,
        /// What they are.
        to: u16,
    },
}

/// One part of a key beside that of an earlier run.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PartVerdict {
    /// The part's name.
    pub name: String,
    /// What happened to it; `None` if it is the same.
    pub how: Option<How>,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "is new",
            Self::Changed => "changed",
            Self::Removed => "was removed",
        })
    }
}

impl fmt::Display for FileHow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added => f.write_str("is new"),
            Self::Removed => f.write_str("was removed"),
            Self::Ignored { by } => write!(f, "is excluded by {by}"),
            Self::Type => f.write_str("is of another type"),
            Self::Content => f.write_str("changed"),
            Self::Mode { from, to } => write!(f, "has mode {to:04o}, was {from:04o}"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part { name, how } => write!(f, "{name} {how}"),
            Self::File { path, how } => write!(f, "{path} {how}"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstRun => f.write_str("first run"),
            Self::CacheOff => f.write_str("the cache is off for it"),
            Self::TooOld => f.write_str("its result is older than wanted"),
            Self::ResultGone => f.write_str("its result is no longer in the store"),
            Self::Changed(changes) => {
                let Some(first) = changes.first() else { return Ok(()) };
                write!(f, "{first}")?;
                match changes.len() - 1 {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

/// Compares two lists of names with digests. A name may stand in a list several times: then all of its digests count.
pub(crate) fn compare<'n>(
    old: impl IntoIterator<Item = (&'n str, &'n str)>,
    new: impl IntoIterator<Item = (&'n str, &'n str)>,
) -> Vec<PartVerdict> {
    let (mut old, _) = by_name(old);
    let (new, order) = by_name(new);
    let mut verdicts: Vec<PartVerdict> = Vec::with_capacity(order.len());
    for name in order {
        let how = match old.remove(name) {
            None => Some(How::Added),
            Some(was) => (new.get(name) != Some(&was)).then_some(How::Changed),
        };
        verdicts.push(PartVerdict { name: name.to_owned(), how });
    }
    let removed = |name: &str| PartVerdict { name: name.to_owned(), how: Some(How::Removed) };
    verdicts.extend(old.into_keys().map(removed));
    verdicts
}

type ByName<'n> = BTreeMap<&'n str, Vec<&'n str>>;

/// The digests of each name, and the names in the order in which they come first.
fn by_name<'n>(list: impl IntoIterator<Item = (&'n str, &'n str)>) -> (ByName<'n>, Vec<&'n str>) {
    let mut digests = ByName::new();
    let mut order = Vec::new();
    for (name, digest) in list {
        let of_name = digests.entry(name).or_default();
        if of_name.is_empty() {
            order.push(name);
        }
        of_name.push(digest);
    }
    (digests, order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_changed_or_gone_is_told_apart() {
        let old = [("a", "1"), ("b", "1"), ("c", "1")];
        let verdicts = compare(old, [("a", "1"), ("b", "2"), ("d", "1")]);
        let shown: Vec<_> = verdicts.iter().map(|v| format!("{} {:?}", v.name, v.how)).collect();
        assert_eq!(shown, ["a None", "b Some(Changed)", "d Some(Added)", "c Some(Removed)"]);
    }

    #[test]
    fn several_parts_of_one_name_are_compared_as_one() {
        let two = [("files", "1"), ("files", "2")];
        let shown = |verdicts: Vec<PartVerdict>| {
            verdicts.iter().map(|v| format!("{} {:?}", v.name, v.how)).collect::<Vec<_>>()
        };
        assert_eq!(shown(compare(two, two)), ["files None"]);
        assert_eq!(shown(compare(two, [("files", "1"), ("files", "3")])), ["files Some(Changed)"]);
    }

    #[test]
    fn a_cause_fits_on_one_line() {
        let file = |path: &str, how| Change::File { path: path.to_owned(), how };
        let cause =
            Cause::Changed(vec![file("package-lock.json", FileHow::Content), file("x", FileHow::Added)]);
        assert_eq!(cause.to_string(), "package-lock.json changed and 1 more");
        assert_eq!(Cause::Changed(vec![file("x", FileHow::Removed)]).to_string(), "x was removed");
        let mode = FileHow::Mode { from: 0o644, to: 0o755 };
        assert_eq!(file("run.sh", mode).to_string(), "run.sh has mode 0755, was 0644");
    }
}
