//! The instructions' names.

use std::fmt;

/// The name of an instruction; read without regard to case.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
}

/// Keyword, name, and how it is used.
const TABLE: [(Keyword, &str, &str); 18] = [
    (Keyword::Add, "ADD", "ADD [--chown=…] [--chmod=…] source… destination"),
    (Keyword::Arg, "ARG", "ARG NAME[=default]…"),
    (Keyword::Cmd, "CMD", "CMD [\"program\", \"argument\"]"),
    (Keyword::Copy, "COPY", "COPY [--from=…] [--chown=…] [--chmod=…] source… destination"),
    (Keyword::Entrypoint, "ENTRYPOINT", "ENTRYPOINT [\"program\", \"argument\"]"),
    (Keyword::Env, "ENV", "ENV NAME=value…"),
    (Keyword::Expose, "EXPOSE", "EXPOSE port[/protocol]…"),
    (Keyword::From, "FROM", "FROM [--platform=…] image [AS name]"),
    (Keyword::Healthcheck, "HEALTHCHECK", "HEALTHCHECK [--interval=…] CMD command` or `HEALTHCHECK NONE"),
    (Keyword::Label, "LABEL", "LABEL key=value…"),
    (Keyword::Maintainer, "MAINTAINER", "MAINTAINER name"),
    (Keyword::Onbuild, "ONBUILD", "ONBUILD instruction"),
    (Keyword::Run, "RUN", "RUN [--mount=…] command"),
    (Keyword::Shell, "SHELL", "SHELL [\"program\", \"argument\"]"),
    (Keyword::StopSignal, "STOPSIGNAL", "STOPSIGNAL signal"),
    (Keyword::User, "USER", "USER user[:group]"),
    (Keyword::Volume, "VOLUME", "VOLUME path…"),
    (Keyword::Workdir, "WORKDIR", "WORKDIR path"),
];

impl Keyword {
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        TABLE.iter().find(|(_, name, _)| name.eq_ignore_ascii_case(text)).map(|&(keyword, ..)| keyword)
    }

    pub(crate) fn names() -> [&'static str; TABLE.len()] {
        TABLE.map(|(_, name, _)| name)
    }

    pub(crate) fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// How the instruction is used, for help texts.
    pub(crate) fn usage(self) -> &'static str {
        TABLE[self as usize].2
    }

    pub(crate) fn takes_heredocs(self) -> bool {
        matches!(self, Self::Add | Self::Copy | Self::Run)
    }
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_keywords() {
        for (index, &(keyword, name, usage)) in TABLE.iter().enumerate() {
            assert_eq!(keyword as usize, index);
            assert!(usage.starts_with(name));
            assert_eq!(Keyword::from_text(&name.to_lowercase()), Some(keyword));
        }
    }
}
