//! `RUN --mount`: fields to a typed [`Mount`].

use dockerfile::{MountField, MountFlag, MountKey, MountType, Spanned};

use crate::finding::{ErrorKind, Fallible, Finding, MountError, key_name};
use crate::instruction::{Item, StageLowering};
use crate::meant::nearest;
use crate::state::BaseKnowledge;
use crate::{
    Access, BindMount, CacheId, CacheMount, ContextName, ImagePath, Mount, Presence, SecretMount, Sharing,
    Source, SshMount, TmpfsMount,
};

const TYPES: [(&str, MountType); 5] = [
    ("bind", MountType::Bind),
    ("cache", MountType::Cache),
    ("tmpfs", MountType::Tmpfs),
    ("secret", MountType::Secret),
    ("ssh", MountType::Ssh),
];

/// The fields of one `--mount`, expanded; of several with one key the last counts.
#[derive(Default)]
struct Fields<'a> {
    list: Vec<(&'a MountField, Option<String>)>,
}

impl StageLowering<'_, '_> {
    /// `sockets` is how many agents the mounts before this one show.
    pub(crate) fn mount(
        &mut self,
        flag: &Spanned<MountFlag>,
        item: &Item<'_>,
        sockets: usize,
    ) -> Fallible<Mount> {
        let fields = self.fields(flag, item)?;
        let kind = fields.kind()?;
        fields.check_keys(kind)?;
        match kind {
            MountType::Bind => self.bind(&fields, flag),
            MountType::Cache => self.cache(&fields, flag),
            MountType::Tmpfs => self.tmpfs(&fields, flag),
            MountType::Secret => self.secret(&fields, flag),
            MountType::Ssh => self.ssh(&fields, flag, sockets),
        }
    }

    fn fields<'f>(&mut self, flag: &'f Spanned<MountFlag>, item: &Item<'_>) -> Fallible<Fields<'f>> {
        let mut fields = Fields::default();
        for field in &flag.fields {
            let value = match &field.value {
                // The name of a stage is needed before there are any variables.
                Some(word) if field.key.node == MountKey::From => Some(word.as_str().to_owned()),
                Some(word) => Some(self.expand(word, item)?),
                None => None,
            };
            fields.list.push((field, value));
        }
        Ok(fields)
    }

    fn bind(&mut self, fields: &Fields<'_>, flag: &Spanned<MountFlag>) -> Fallible<Mount> {
        let from = self.mount_source(fields)?.unwrap_or(Source::Context(ContextName::Main));
        Ok(Mount::Bind(BindMount {
            target: self.target(fields, flag)?,
            from,
            path: ImagePath::rooted(fields.text(MountKey::Source).unwrap_or_default()),
            access: fields.access(Access::ReadOnly)?,
        }))
    }

    fn cache(&mut self, fields: &Fields<'_>, flag: &Spanned<MountFlag>) -> Fallible<Mount> {
        let target = self.target(fields, flag)?;
        let written = fields.text(MountKey::Target).unwrap_or_default();
        let id = match fields.text(MountKey::Id).filter(|id| !id.is_empty()) {
            Some(id) => id.to_owned(),
            None => cleaned(written),
        };
        self.shared.outline.cache(&id, flag.span);
        let namespace = self.shared.args.cache_namespace();
        Ok(Mount::Cache(CacheMount {
            target,
            id: CacheId(namespace.map_or(id.clone(), |namespace| format!("{namespace}/{id}"))),
            from: self.mount_source(fields)?,
            path: ImagePath::rooted(fields.text(MountKey::Source).unwrap_or_default()),
            sharing: fields.sharing()?,
            mode: fields.mode()?.unwrap_or(0o755),
            uid: fields.id(MountKey::Uid)?.unwrap_or(0),
            gid: fields.id(MountKey::Gid)?.unwrap_or(0),
            access: fields.access(Access::ReadWrite)?,
        }))
    }

    fn tmpfs(&mut self, fields: &Fields<'_>, flag: &Spanned<MountFlag>) -> Fallible<Mount> {
        Ok(Mount::Tmpfs(TmpfsMount {
            target: self.target(fields, flag)?,
            size_bytes: fields.parsed(MountKey::Size, parse_size)?,
            access: fields.access(Access::ReadWrite)?,
        }))
    }

    fn secret(&mut self, fields: &Fields<'_>, flag: &Spanned<MountFlag>) -> Fallible<Mount> {
        let text = |key| fields.text(key).filter(|text| !text.is_empty());
        let target = text(MountKey::Target);
        let id = match (text(MountKey::Id), text(MountKey::Source), target) {
            (Some(_), Some(_), _) => return Err(mount_error(MountError::TwoSecrets, flag)),
            (Some(id), None, _) | (None, Some(id), _) => id,
            (None, None, Some(target)) => file_name(target),
            (None, None, None) => {
                let error = Finding::new(ErrorKind::Mount(MountError::NoSecret), flag.span);
                return Err(Box::new(error.help("write `--mount=type=secret,id=NAME`")));
            }
        };
        self.shared.outline.secret(id, fields.presence()?, flag.span);
        let env = text(MountKey::Env);
        let target = match (target, env) {
            (Some(target), _) => Some(self.checked_target(target, fields, flag)?),
            (None, Some(_)) => None,
            (None, None) => Some(ImagePath::rooted("/run/secrets").join(file_name(id))),
        };
        Ok(Mount::Secret(SecretMount {
            id: id.to_owned(),
            target,
            env: env.map(ToOwned::to_owned),
            mode: fields.mode()?.unwrap_or(0o400),
            uid: fields.id(MountKey::Uid)?.unwrap_or(0),
            gid: fields.id(MountKey::Gid)?.unwrap_or(0),
            presence: fields.presence()?,
        }))
    }

    fn ssh(&mut self, fields: &Fields<'_>, flag: &Spanned<MountFlag>, sockets: usize) -> Fallible<Mount> {
        let text = |key| fields.text(key).filter(|text| !text.is_empty());
        let target = match text(MountKey::Target) {
            Some(target) => self.checked_target(target, fields, flag)?,
            None => ImagePath::rooted(&format!("/run/buildkit/ssh_agent.{sockets}")),
        };
        let id = text(MountKey::Id).unwrap_or("default");
        self.shared.outline.ssh(id, fields.presence()?, flag.span);
        Ok(Mount::Ssh(SshMount {
            id: id.to_owned(),
            target,
            mode: fields.mode()?.unwrap_or(0o600),
            uid: fields.id(MountKey::Uid)?.unwrap_or(0),
            gid: fields.id(MountKey::Gid)?.unwrap_or(0),
            presence: fields.presence()?,
        }))
    }

    /// What `from` names. A cache without one starts empty, as does one from `scratch`.
    fn mount_source(&mut self, fields: &Fields<'_>) -> Fallible<Option<Source>> {
        let word = fields.field(MountKey::From).and_then(|(field, _)| field.value.as_ref());
        match word.filter(|word| !word.as_str().is_empty()) {
            Some(word) => self.shared.source(word, self.index).map(Some),
            None => Ok(None),
        }
    }

    /// Without a target, a mount is upon the working directory.
    fn target(&self, fields: &Fields<'_>, flag: &Spanned<MountFlag>) -> Fallible<ImagePath> {
        self.checked_target(fields.text(MountKey::Target).unwrap_or_default(), fields, flag)
    }

    /// Relative targets are below the working directory.
    fn checked_target(
        &self,
        target: &str,
        fields: &Fields<'_>,
        flag: &Spanned<MountFlag>,
    ) -> Fallible<ImagePath> {
        let path = self.state.cwd().join(target);
        let may_be_elsewhere = self.state.base == BaseKnowledge::Unknown && !self.state.has_workdir;
        if path.is_root() && !(target.is_empty() && may_be_elsewhere) {
            let span = fields.field(MountKey::Target).map_or(flag.span, |(field, _)| field_span(field));
            let error = Finding::new(ErrorKind::Mount(MountError::RootTarget), span);
            return Err(Box::new(
                error.help("add `target=/path`; without it, the mount is upon the working directory"),
            ));
        }
        Ok(path)
    }
}

impl<'a> Fields<'a> {
    fn field(&self, key: MountKey) -> Option<(&'a MountField, Option<&str>)> {
        let found = self.list.iter().rev().find(|(field, _)| field.key.node == key);
        found.map(|(field, value)| (*field, value.as_deref()))
    }

    fn text(&self, key: MountKey) -> Option<&str> {
        self.field(key)?.1
    }

    fn kind(&self) -> Fallible<MountType> {
        let Some((field, Some(text))) = self.field(MountKey::Type) else { return Ok(MountType::default()) };
        let known = TYPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        known.map(|(_, kind)| *kind).ok_or_else(|| {
            let error = Finding::new(ErrorKind::Mount(MountError::Type(text.to_owned())), field_span(field));
            let meant = nearest(text, TYPES.iter().map(|(name, _)| *name));
            Box::new(error.meant(meant, |name| format!("`type={name}`")))
        })
    }

    /// Refuses keys that would have an effect with another type. Those that the reference implementation ignores are ignored.
    fn check_keys(&self, kind: MountType) -> Fallible<()> {
        use MountKey::{Env, From, Gid, Mode, Required, Sharing, Size, Uid};
        for (field, _) in &self.list {
            let fits = match field.key.node {
                Mode | Uid | Gid => matches!(kind, MountType::Cache | MountType::Secret | MountType::Ssh),
                Sharing => kind == MountType::Cache,
                Required => matches!(kind, MountType::Secret | MountType::Ssh),
                Env => kind == MountType::Secret,
                Size => kind == MountType::Tmpfs,
                From => kind != MountType::Secret,
                _ => true,
            };
            if !fits {
                let error = MountError::Key { kind: type_name(kind), key: key_name(field.key.node) };
                return Err(Box::new(Finding::new(ErrorKind::Mount(error), field_span(field))));
            }
        }
        Ok(())
    }

    fn access(&self, default: Access) -> Fallible<Access> {
        let is_access = |key| matches!(key, MountKey::ReadOnly | MountKey::ReadWrite);
        let Some((field, value)) = self.list.iter().rev().find(|(field, _)| is_access(field.key.node)) else {
            return Ok(default);
        };
        let yes = match value {
            None => true,
            Some(text) => parse_bool(text).ok_or_else(|| wrong_value(field, text))?,
        };
        let read_only = yes == (field.key.node == MountKey::ReadOnly);
        Ok(if read_only { Access::ReadOnly } else { Access::ReadWrite })
    }

    fn presence(&self) -> Fallible<Presence> {
        let required = match self.field(MountKey::Required) {
            None => false,
            Some((_, None)) => true,
            Some((field, Some(text))) => parse_bool(text).ok_or_else(|| wrong_value(field, text))?,
        };
        Ok(if required { Presence::Required } else { Presence::Optional })
    }

    fn sharing(&self) -> Fallible<Sharing> {
        let sharing = self.parsed(MountKey::Sharing, |text| match text.to_ascii_lowercase().as_str() {
            "shared" => Some(Sharing::Shared),
            "private" => Some(Sharing::Private),
            "locked" => Some(Sharing::Locked),
            _ => None,
        });
        Ok(sharing?.unwrap_or(Sharing::Shared))
    }

    fn mode(&self) -> Fallible<Option<u32>> {
        self.parsed(MountKey::Mode, |text| u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777))
    }

    fn id(&self, key: MountKey) -> Fallible<Option<u32>> {
        self.parsed(key, |text| text.parse().ok())
    }

    fn parsed<T>(&self, key: MountKey, parse: impl Fn(&str) -> Option<T>) -> Fallible<Option<T>> {
        match self.field(key) {
            Some((field, Some(text))) => parse(text).map(Some).ok_or_else(|| wrong_value(field, text)),
            Some((_, None)) | None => Ok(None),
        }
    }
}

fn mount_error(error: MountError, flag: &Spanned<MountFlag>) -> Box<crate::PlanError> {
    Box::new(Finding::new(ErrorKind::Mount(error), flag.span))
}

fn wrong_value(field: &MountField, text: &str) -> Box<crate::PlanError> {
    let key = field.key.node;
    let error = Finding::new(
        ErrorKind::Mount(MountError::Value { key: key_name(key), value: text.to_owned() }),
        field_span(field),
    );
    let help = match key {
        MountKey::Sharing => "one of `shared`, `private` and `locked`",
        MountKey::Mode => "an octal number up to 7777",
        MountKey::Uid | MountKey::Gid => "a number; names are not looked up",
        MountKey::Size => "a number of bytes, or with a unit: `64m`, `1g`",
        _ => "`true` or `false`",
    };
    Box::new(error.help(format!("`{}` is {help}", key_name(key))))
}

fn field_span(field: &MountField) -> dockerfile::Span {
    field.value.as_ref().map_or(field.key.span, |value| field.key.span.to(value.span))
}

fn type_name(kind: MountType) -> &'static str {
    TYPES.iter().find(|(_, known)| *known == kind).map_or("", |(name, _)| name)
}

fn file_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// A path cleaned by text; a relative one stays relative.
fn cleaned(path: &str) -> String {
    let rooted = ImagePath::rooted(path);
    match rooted.relative() {
        _ if path.starts_with('/') => rooted.to_string(),
        "" => ".".to_owned(),
        relative => relative.to_owned(),
    }
}

/// What Go takes for a bool.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `64m`, `1.5 GiB`, `100`: powers of 1024; `None` for anything else.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start().to_ascii_lowercase();
    let letter = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let power = match letter {
        "" if unit == "ib" => return None,
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let bytes = number * 1024_f64.powi(power);
    // Exact up to 2^53, and beyond any memory there is from there on.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be within the range"
    )]
    (0.0..9.0e18).contains(&bytes).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, expected) in [
            ("0", Some(0)),
            ("100", Some(100)),
            ("64m", Some(64 << 20)),
            ("64MB", Some(64 << 20)),
            ("1.5g", Some(3 << 29)),
            ("1 GiB", Some(1 << 30)),
            ("10b", Some(10)),
            ("", None),
            ("-1", None),
            ("1x", None),
            ("1ib", None),
            ("1.2.3k", None),
            ("99999999p", None),
        ] {
            assert_eq!(parse_size(text), expected, "{text}");
        }
    }

    #[test]
    fn names_of_secrets_come_from_their_paths() {
        assert_eq!(file_name("/run/secrets/token"), "token");
        assert_eq!(file_name("a/b/"), "b");
        assert_eq!(cleaned("a/../b/"), "b");
        assert_eq!(cleaned("/root//.cache/"), "/root/.cache");
    }
}
