//! `--chown`: who will own what a COPY or ADD brings.

use std::fmt;

/// A user or a group, by number or by a name that is looked up in the destination's `/etc/passwd` or `/etc/group` when the
/// step runs. `root` is 0 without a look-up.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Principal {
    /// A number.
    Id(u32),
    /// A name; one that the destination does not know fails the step.
    Name(String),
}

/// The value of `--chown=[user][:group]`.
///
/// * `N` alone owns as `N:N`; a name alone takes that user's primary group.
/// * `user:group` takes exactly those.
/// * `:group` leaves the user at 0.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Owner {
    /// Before the colon; `None` if nothing stands there.
    pub user: Option<Principal>,
    /// Behind the colon; `None` if there is no colon or nothing behind it.
    pub group: Option<Principal>,
}

impl Owner {
    /// Reads `user`, `user:group` or `:group`. Every text is an owner: what is no number is a name.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        Self { user: Principal::parse(user), group: Principal::parse(group) }
    }

    /// The names that have to be looked up in the destination, user first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        [&self.user, &self.group].into_iter().flatten().filter_map(|principal| match principal {
            Principal::Name(name) => Some(name.as_str()),
            Principal::Id(_) => None,
        })
    }
}

impl Principal {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "" => None,
            "root" => Some(Self::Id(0)),
            _ => Some(text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Id)),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            user.fmt(f)?;
        }
        self.group.as_ref().map_or(Ok(()), |group| write!(f, ":{group}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ids_and_everything_else_is_a_name() {
        let id = |id| Some(Principal::Id(id));
        let name = |name: &str| Some(Principal::Name(name.to_owned()));
        for (text, user, group) in [
            ("5", id(5), None),
            ("5:6", id(5), id(6)),
            ("app", name("app"), None),
            ("app:root", name("app"), id(0)),
            (":wheel", None, name("wheel")),
            ("-1", name("-1"), None),
            ("4294967296", name("4294967296"), None),
        ] {
            assert_eq!(Owner::parse(text), Owner { user, group }, "{text}");
        }
    }

    #[test]
    fn only_names_need_a_look_up() {
        assert_eq!(Owner::parse("root:7").names().count(), 0);
        assert_eq!(Owner::parse("app:wheel").names().collect::<Vec<_>>(), ["app", "wheel"]);
        assert_eq!(Owner::parse("app:root").to_string(), "app:0");
    }
}
