//! The flags of `RUN` that have fields: `--mount` and `--device`.

use std::fmt;
use std::str::FromStr;

use crate::ast::Word;
use crate::span::Spanned;

/// `--device=name[,required]` of a `RUN`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceFlag {
    /// The CDI device name.
    pub name: String,
    /// Whether the build fails without it.
    pub required: Option<bool>,
}

/// `--mount=` of a `RUN`: its fields in the order written, keys typed, values raw.
///
/// Values may hold variables (`target=$X`, `type=$T`), so which mount it is, and whether its fields fit that, is known only
/// after expansion. The parser checks what holds no variable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MountFlag {
    /// The comma-separated fields.
    pub fields: Vec<MountField>,
}

impl MountFlag {
    /// The last value given for `key`; `None` if it is not there or stands without `=`.
    pub fn value(&self, key: MountKey) -> Option<&Spanned<Word>> {
        self.fields.iter().rev().find(|field| field.key.node == key)?.value.as_ref()
    }
}

/// One field of a `--mount`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MountField {
    /// The key.
    pub key: Spanned<MountKey>,
    /// What follows `=`; `None` without it, which only [`MountKey::may_stand_alone`] keys allow.
    pub value: Option<Spanned<Word>>,
}

/// A key of a `--mount` field; synonyms are one key.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum MountKey {
    /// `type`
    Type,
    /// `target`, `dst`, `destination`
    Target,
    /// `source`, `src`
    Source,
    /// `from`: never expanded.
    From,
    /// `readonly`, `ro`
    ReadOnly,
    /// `readwrite`, `rw`
    ReadWrite,
    /// `id`
    Id,
    /// `sharing`
    Sharing,
    /// `mode`
    Mode,
    /// `uid`
    Uid,
    /// `gid`
    Gid,
    /// `required`
    Required,
    /// `env`
    Env,
    /// `size`
    Size,
}

/// `type=` of a `--mount`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum MountType {
    /// Files of a context, stage or image; the type when none is given.
    #[default]
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret given to the build.
    Secret,
    /// A socket to the client's ssh agent.
    Ssh,
}

/// `sharing=` of a cache mount.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum CacheSharing {
    /// Several steps at once; the mode when none is given.
    #[default]
    Shared,
    /// Each step that runs at the same time gets its own.
    Private,
    /// One step at a time.
    Locked,
}

impl MountKey {
    /// Every name a key can have.
    pub const NAMES: [(&'static str, Self); 19] = [
        ("type", Self::Type),
        ("target", Self::Target),
        ("destination", Self::Target),
        ("dst", Self::Target),
        ("source", Self::Source),
        ("src", Self::Source),
        ("from", Self::From),
        ("readonly", Self::ReadOnly),
        ("ro", Self::ReadOnly),
        ("readwrite", Self::ReadWrite),
        ("rw", Self::ReadWrite),
        ("id", Self::Id),
        ("sharing", Self::Sharing),
        ("mode", Self::Mode),
        ("uid", Self::Uid),
        ("gid", Self::Gid),
        ("required", Self::Required),
        ("env", Self::Env),
        ("size", Self::Size),
    ];

    /// Whether the key may stand without `=value`, which then is true.
    pub fn may_stand_alone(self) -> bool {
        matches!(self, Self::ReadOnly | Self::ReadWrite | Self::Required)
    }

    /// Its name; of several, the long one.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|&&(_, key)| key == self).map_or("", |&(name, _)| name)
    }
}

impl FromStr for MountKey {
    type Err = UnknownName;

    /// Reads any of a key's names without regard to case.
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let named = Self::NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        named.map(|&(_, key)| key).ok_or(UnknownName)
    }
}

impl fmt::Display for MountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error of `from_str` of [`MountKey`], [`MountType`] and [`CacheSharing`]: there is no such name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there is no such name")]
pub struct UnknownName;

impl MountType {
    /// Every type.
    pub const ALL: [Self; 5] = [Self::Bind, Self::Cache, Self::Tmpfs, Self::Secret, Self::Ssh];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }

    /// Whether a mount of this type may have `key`: BuildKit rejects the others, except those it ignores.
    pub fn allows(self, key: MountKey) -> bool {
        match key {
            MountKey::Type | MountKey::Target | MountKey::ReadOnly | MountKey::ReadWrite | MountKey::Id => {
                true
            }
            MountKey::Source => self != Self::Ssh,
            MountKey::From => self != Self::Secret,
            MountKey::Sharing => self == Self::Cache,
            MountKey::Mode | MountKey::Uid | MountKey::Gid => !matches!(self, Self::Bind | Self::Tmpfs),
            MountKey::Required => matches!(self, Self::Secret | Self::Ssh),
            MountKey::Env => self == Self::Secret,
            MountKey::Size => self == Self::Tmpfs,
        }
    }
}

impl fmt::Display for MountType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MountType {
    type Err = UnknownName;

    /// Reads a type's name without regard to case.
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text)).ok_or(UnknownName)
    }
}

impl CacheSharing {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Shared, Self::Private, Self::Locked];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Private => "private",
            Self::Locked => "locked",
        }
    }
}

impl FromStr for CacheSharing {
    type Err = UnknownName;

    /// Reads a mode's name without regard to case.
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|mode| mode.as_str().eq_ignore_ascii_case(text)).ok_or(UnknownName)
    }
}
