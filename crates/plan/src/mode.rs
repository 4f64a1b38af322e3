//! `--chmod`: octal and symbolic modes.

use std::fmt;

/// Every bit that a mode may set: permissions, sticky, setgid, setuid.
const ALL_BITS: u32 = 0o7777;

/// The value of `--chmod`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Mode {
    /// `0`..=`07777`. Also given to parent directories that the copy has to make.
    Octal(u32),
    /// `u=rwX,go=rX` and the like: changes the mode of each copied entry.
    Symbolic(SymbolicMode),
}

/// Clauses such as `u+x` and `go=rX`, applied from left to right with umask 0 (POSIX `chmod`, "operand").
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SymbolicMode {
    text: String,
    actions: Vec<Action>,
}

/// Why a text is not a [`Mode`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ModeError {
    /// Digits beyond `7777`, or beyond 7.
    #[error("mode `{0}` is not an octal number up to 7777")]
    NotOctal(String),
    /// A clause without operator, or with a letter that means nothing.
    #[error("mode `{mode}` has the clause `{clause}`, which is not of the form `u+rwx`")]
    Clause {
        /// The whole value.
        mode: String,
        /// The part that is wrong.
        clause: String,
    },
}

/// One operator with its operand: `u+x-w` has two.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Action {
    who: u32,
    operator: Operator,
    operand: Operand,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Operand {
    /// Bits for each of user, group and others at once, and whether `X` was among them.
    Bits { bits: u32, conditional_execute: bool },
    /// The permissions that one of the classes has now; the number is the shift of that class.
    CopyOf(u32),
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHERS: u32 = 0o0007;
const STICKY: u32 = 0o1000;

impl Mode {
    /// Reads an octal number or symbolic clauses.
    ///
    /// # Errors
    /// [`ModeError`].
    pub fn parse(text: &str) -> Result<Self, ModeError> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let value = u32::from_str_radix(text, 8).ok().filter(|value| *value <= ALL_BITS);
            return value.map(Self::Octal).ok_or_else(|| ModeError::NotOctal(text.to_owned()));
        }
        let mut actions = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause, &mut actions)
                .ok_or_else(|| ModeError::Clause { mode: text.to_owned(), clause: clause.to_owned() })?;
        }
        Ok(Self::Symbolic(SymbolicMode { text: text.to_owned(), actions }))
    }

    /// The mode of an entry that had the permission bits `old`.
    #[must_use]
    pub fn apply(&self, old: u32, kind: EntryKind) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(symbolic) => {
                symbolic.actions.iter().fold(old & ALL_BITS, |mode, action| action.apply(mode, kind))
            }
        }
    }
}

/// What a mode is applied to: `X` sets execute bits of directories always, of files only if some execute bit is set already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// Anything else.
    File,
}

impl Action {
    fn apply(self, mode: u32, kind: EntryKind) -> u32 {
        let bits = self.who & self.operand.bits(mode, kind);
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            // The class's setuid or setgid bit goes as well unless it is named, of directories too (BSD's setmode).
            Operator::Set => (mode & !self.who) | bits,
        }
    }
}

impl Operand {
    /// The sticky bit belongs to no class: `t` reaches it for any but others alone, and nothing else touches it.
    fn sticky_for(self, who: u32) -> u32 {
        match self {
            Self::Bits { bits, .. } if bits & STICKY != 0 && who & !OTHERS != 0 => STICKY,
            _ => 0,
        }
    }

    fn bits(self, mode: u32, kind: EntryKind) -> u32 {
        match self {
            Self::Bits { bits, conditional_execute } => {
                let execute = conditional_execute && (kind == EntryKind::Directory || mode & 0o111 != 0);
                bits | if execute { 0o111 } else { 0 }
            }
            Self::CopyOf(shift) => ((mode >> shift) & 0o7) * 0o111,
        }
    }
}

/// `[ugoa]*([+-=][rwxXst]*|[ugo])+`
fn parse_clause(clause: &str, actions: &mut Vec<Action>) -> Option<()> {
    let operators = |c: char| matches!(c, '+' | '-' | '=');
    let start = clause.find(operators)?;
    let mut who = clause[..start].chars().try_fold(0, |who, c| Some(who | class(c)?))?;
    if who == 0 {
        who = USER | GROUP | OTHERS;
    }
    let mut rest = &clause[start..];
    while let Some(first) = rest.chars().next() {
        let operator = match first {
            '+' => Operator::Add,
            '-' => Operator::Remove,
            _ => Operator::Set,
        };
        let operand = &rest[1..];
        let end = operand.find(operators).unwrap_or(operand.len());
        let (operand, end) = (parse_operand(&operand[..end])?, end + 1);
        actions.push(Action { who: who | operand.sticky_for(who), operator, operand });
        rest = &rest[end..];
    }
    Some(())
}

fn class(c: char) -> Option<u32> {
    match c {
        'u' => Some(USER),
        'g' => Some(GROUP),
        'o' => Some(OTHERS),
        'a' => Some(USER | GROUP | OTHERS),
        _ => None,
    }
}

fn parse_operand(text: &str) -> Option<Operand> {
    match text {
        "u" => return Some(Operand::CopyOf(6)),
        "g" => return Some(Operand::CopyOf(3)),
        "o" => return Some(Operand::CopyOf(0)),
        _ => {}
    }
    let mut bits = 0;
    let mut conditional_execute = false;
    for c in text.chars() {
        match c {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            's' => bits |= 0o6000,
            't' => bits |= STICKY,
            'X' => conditional_execute = true,
            _ => return None,
        }
    }
    Some(Operand::Bits { bits, conditional_execute })
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Octal(mode) => write!(f, "{mode:04o}"),
            Self::Symbolic(symbolic) => f.write_str(&symbolic.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(mode: &str, old: u32, kind: EntryKind, expected: Expect) {
        expected.assert_eq(
            &Mode::parse(mode)
                .map_or_else(|e| e.to_string(), |mode| format!("{:04o}", mode.apply(old, kind))),
        );
    }

    #[test]
    fn octal_replaces_everything() {
        check("755", 0o4600, EntryKind::File, expect!["0755"]);
        check("07777", 0, EntryKind::File, expect!["7777"]);
        check("0", 0o777, EntryKind::File, expect!["0000"]);
        check("10000", 0, EntryKind::File, expect!["mode `10000` is not an octal number up to 7777"]);
        check("789", 0, EntryKind::File, expect!["mode `789` is not an octal number up to 7777"]);
    }

    #[test]
    fn symbolic_clauses_apply_from_left_to_right() {
        check("+x", 0o644, EntryKind::File, expect!["0755"]);
        check("u=rwX,go=rX", 0o600, EntryKind::File, expect!["0644"]);
        check("u=rwX,go=rX", 0o700, EntryKind::File, expect!["0755"]);
        check("u=rwX,go=rX", 0o600, EntryKind::Directory, expect!["0755"]);
        check("a-w,u+w", 0o666, EntryKind::File, expect!["0644"]);
        check("go=", 0o777, EntryKind::File, expect!["0700"]);
        check("g=u,o=g", 0o640, EntryKind::File, expect!["0666"]);
        check("u+x-w", 0o600, EntryKind::File, expect!["0500"]);
        check("u+s,g+s,+t", 0o755, EntryKind::File, expect!["7755"]);
        check("u=rx", 0o4755, EntryKind::File, expect!["0555"]);
        check("u=rw,g=u,o=g-w", 0o754, EntryKind::File, expect!["0664"]);
    }

    #[test]
    fn the_sticky_bit_belongs_to_no_class() {
        check("g+s,o+t", 0o754, EntryKind::File, expect!["2754"]);
        check("u+t", 0o644, EntryKind::File, expect!["1644"]);
        check("a=rx", 0o1777, EntryKind::Directory, expect!["1555"]);
        check("a=rxt", 0o777, EntryKind::Directory, expect!["1555"]);
        check("-t", 0o1777, EntryKind::Directory, expect!["0777"]);
    }

    #[test]
    fn wrong_clauses_are_named() {
        check(
            "u+rwz",
            0,
            EntryKind::File,
            expect!["mode `u+rwz` has the clause `u+rwz`, which is not of the form `u+rwx`"],
        );
        check(
            "a+r,b+w",
            0,
            EntryKind::File,
            expect!["mode `a+r,b+w` has the clause `b+w`, which is not of the form `u+rwx`"],
        );
        check(
            "rwx",
            0,
            EntryKind::File,
            expect!["mode `rwx` has the clause `rwx`, which is not of the form `u+rwx`"],
        );
        check("", 0, EntryKind::File, expect!["mode `` has the clause ``, which is not of the form `u+rwx`"]);
    }
}
