//! Limits of single processes (setrlimit(2)), by the names that Docker gives them.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sys::this_process::{Resource, set_resource_limit};

/// The names, and what they are for the kernel.
const NAMES: [(&str, Resource); 16] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// What is limited.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct UlimitName(u8);

impl UlimitName {
    /// All there are.
    pub fn all() -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().map(|(name, _)| name)
    }
}

impl fmt::Display for UlimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.get(usize::from(self.0)).map_or("", |(name, _)| name))
    }
}

/// A limit for every process of a sandbox.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Ulimit {
    /// Of what.
    pub name: UlimitName,
    /// What counts; `None` is no limit.
    pub soft: Option<u64>,
    /// How far a process may raise it; lowered to our own hard limit where raising that is not permitted.
    pub hard: Option<u64>,
}

/// Why a text is no [`Ulimit`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UlimitError {
    /// It has no `=`.
    #[error("it has no value")]
    NoValue,
    /// Nothing of that name can be limited.
    #[error("there is no limit called `{0}`")]
    Name(String),
    /// Neither a number nor -1.
    #[error("`{0}` is no number")]
    Number(String),
    /// More than what it could be raised to.
    #[error("the soft limit is above the hard one")]
    SoftAboveHard,
}

impl FromStr for Ulimit {
    type Err = UlimitError;

    /// Reads `NAME=SOFT[:HARD]`; -1 and `unlimited` are no limit. Without a hard limit, that is the soft one.
    fn from_str(text: &str) -> Result<Self, UlimitError> {
        let (name, values) = text.split_once('=').ok_or(UlimitError::NoValue)?;
        let position = NAMES.iter().position(|(known, _)| *known == name);
        let name = position.ok_or_else(|| UlimitError::Name(name.to_owned()))?;
        let name = UlimitName(u8::try_from(name).expect("there are fewer than 256"));
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (number(soft)?, number(hard)?);
        if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
            return Err(UlimitError::SoftAboveHard);
        }
        Ok(Self { name, soft, hard })
    }
}

fn number(text: &str) -> Result<Option<u64>, UlimitError> {
    if matches!(text, "-1" | "unlimited") {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| UlimitError::Number(text.to_owned()))
}

impl Ulimit {
    /// Sets it for the calling process and those it starts.
    pub(crate) fn apply(self) -> io::Result<()> {
        let (_, resource) =
            NAMES.get(usize::from(self.name.0)).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        set_resource_limit(*resource, self.soft, self.hard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(&str, Option<u64>, Option<u64>), UlimitError>) {
        let parsed = text.parse::<Ulimit>().map(|limit| (limit.name.to_string(), limit.soft, limit.hard));
        assert_eq!(parsed, expected.map(|(name, soft, hard)| (name.to_owned(), soft, hard)), "{text}");
    }

    #[test]
    fn limits_are_read_as_docker_reads_them() {
        check("nofile=1024:4096", Ok(("nofile", Some(1024), Some(4096))));
        check("core=0", Ok(("core", Some(0), Some(0))));
        check("memlock=-1:-1", Ok(("memlock", None, None)));
        check("stack=8388608:unlimited", Ok(("stack", Some(8_388_608), None)));
        check("nofile", Err(UlimitError::NoValue));
        check("files=1", Err(UlimitError::Name("files".to_owned())));
        check("nofile=many", Err(UlimitError::Number("many".to_owned())));
        check("nofile=2:1", Err(UlimitError::SoftAboveHard));
        check("nofile=-1:1", Err(UlimitError::SoftAboveHard));
    }

    #[test]
    fn names_are_sorted_for_the_reader() {
        assert!(UlimitName::all().is_sorted());
    }
}
