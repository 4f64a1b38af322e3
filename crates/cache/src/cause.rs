//! Why a step was not reused: its parts beside those of the nearest earlier run.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a step ran.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Cause {
    /// Nothing like it was ever recorded.
    FirstRun,
    /// The caller wants no cache for it.
    CacheOff,
    /// Everything is as it was, but the result is no longer in the store.
    ResultGone,
    /// These differ from the nearest earlier run; never empty, the most telling first.
    Changed(Vec<Change>),
}

/// One difference.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
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
        how: How,
    },
    /// The outcome of a step before it. Whoever shows it shows that step's own cause instead.
    Input {
        /// Which part of the key stands for that step.
        name: String,
    },
}

/// What happened to something.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum How {
    /// It was not there.
    Added,
    /// It was different.
    Changed,
    /// It is not there any more.
    Removed,
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

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part { name, how } => write!(f, "{name} {how}"),
            Self::File { path, how } => write!(f, "{path} {how}"),
            Self::Input { name } => write!(f, "{name} changed"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstRun => f.write_str("first run"),
            Self::CacheOff => f.write_str("the cache is off for it"),
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

/// Compares two sorted lists of names with digests.
pub(crate) fn compare<'n, D: Eq>(
    old: impl IntoIterator<Item = (&'n str, D)>,
    new: impl IntoIterator<Item = (&'n str, D)>,
) -> Vec<PartVerdict> {
    let mut old: BTreeMap<&str, D> = old.into_iter().collect();
    let mut verdicts: Vec<PartVerdict> = new
        .into_iter()
        .map(|(name, digest)| {
            let how = match old.remove(name) {
                None => Some(How::Added),
                Some(was) => (was != digest).then_some(How::Changed),
            };
            PartVerdict { name: name.to_owned(), how }
        })
        .collect();
    let removed = |name: &str| PartVerdict { name: name.to_owned(), how: Some(How::Removed) };
    verdicts.extend(old.into_keys().map(removed));
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_changed_or_gone_is_told_apart() {
        let verdicts = compare([("a", 1), ("b", 1), ("c", 1)], [("a", 1), ("b", 2), ("d", 1)]);
        let shown: Vec<_> = verdicts.iter().map(|v| format!("{} {:?}", v.name, v.how)).collect();
        assert_eq!(shown, ["a None", "b Some(Changed)", "d Some(Added)", "c Some(Removed)"]);
    }

    #[test]
    fn a_cause_fits_on_one_line() {
        let file = |path: &str, how| Change::File { path: path.to_owned(), how };
        let cause = Cause::Changed(vec![file("package-lock.json", How::Changed), file("x", How::Added)]);
        assert_eq!(cause.to_string(), "package-lock.json changed and 1 more");
        assert_eq!(Cause::Changed(vec![file("x", How::Removed)]).to_string(), "x was removed");
    }
}
