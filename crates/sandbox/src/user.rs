//! `USER`: parsing `user[:group]`, and resolving it with the root's own `/etc/passwd` and `/etc/group`.
//!
//! | written | uid | gid | supplementary groups | `HOME` |
//! | --- | --- | --- | --- | --- |
//! | nothing | 0 | as for `0` | as for `0` | as for `0` |
//! | `UID` | UID | of its passwd entry, else 0 | of that entry's name | of its passwd entry, else `/` |
//! | `NAME` | of the passwd entry | of the passwd entry | GID and every group that lists NAME | of the passwd entry |
//! | `UID:GID` | UID | GID | none | of its passwd entry, else `/` |
//! | `UID:GROUP`, `NAME:GID`, `NAME:GROUP` | as above | GID, or of the group entry | none | as above |
//!
//! Text of digits only is a number and never looked up as a name. Numbers above 2³¹-1 are refused, since several tools inside
//! images keep them in a signed integer and would wrap around to root.

use std::fmt;
use std::str::FromStr;

/// The largest user and group id accepted.
pub const MAX_ID: u32 = i32::MAX as u32;

/// Who a process is, as an image says it: `user[:group]`, both by name or number.
#[derive(Clone, Debug, Default, Eq, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct User {
    /// The user; `None` (nothing written) is user 0.
    pub user: Option<NameOrId>,
    /// The group, if one was written.
    pub group: Option<NameOrId>,
}

/// A user or group as written.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum NameOrId {
    /// A number.
    Id(u32),
    /// A name, to be looked up in the root.
    Name(String),
}

/// Why a user does not resolve.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum UserError {
    /// The number is too large.
    #[error("id `{0}` is larger than 2147483647")]
    TooLarge(String),
    /// A character that would end a field or a line of `/etc/passwd`.
    #[error("user or group `{0}` contains a control character or a second colon")]
    Malformed(String),
    /// No line of `/etc/passwd` has this name.
    #[error("unable to find user `{0}`: no entry in /etc/passwd of the image")]
    UnknownUser(String),
    /// No line of `/etc/group` has this name.
    #[error("unable to find group `{0}`: no entry in /etc/group of the image")]
    UnknownGroup(String),
}

/// A resolved user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids, the primary one among them, sorted.
    pub groups: Vec<u32>,
    /// Home directory, `/` where nothing says otherwise.
    pub home: Vec<u8>,
}

impl FromStr for User {
    type Err = UserError;

    /// Parses `user`, `user:group`, `:group` or nothing.
    fn from_str(text: &str) -> Result<Self, UserError> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self { user: NameOrId::parse(user)?, group: NameOrId::parse(group)? })
    }
}

impl NameOrId {
    /// `None` for empty text.
    fn parse(text: &str) -> Result<Option<Self>, UserError> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.bytes().any(|b| b == b':' || b.is_ascii_control()) {
            return Err(UserError::Malformed(text.to_owned()));
        }
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Some(Self::Name(text.to_owned())));
        }
        match text.parse() {
            Ok(id) if id <= MAX_ID => Ok(Some(Self::Id(id))),
            _ => Err(UserError::TooLarge(text.to_owned())),
        }
    }
}

impl fmt::Display for NameOrId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}")?;
        }
        self.group.as_ref().map_or(Ok(()), |group| write!(f, ":{group}"))
    }
}

impl User {
    /// Resolves against the text of the root's `/etc/passwd` and `/etc/group` (empty where a file is absent).
    ///
    /// # Errors
    /// [`UserError::UnknownUser`], [`UserError::UnknownGroup`].
    pub fn resolve(&self, passwd: &[u8], group: &[u8]) -> Result<Credentials, UserError> {
        let entry = passwd.split(|&b| b == b'\n').filter_map(PasswdEntry::parse).find(|e| self.is_entry(e));
        let uid = match (&self.user, &entry) {
            (None, _) => 0,
            (Some(NameOrId::Id(uid)), _) => *uid,
            (Some(NameOrId::Name(_)), Some(entry)) => entry.uid,
            (Some(NameOrId::Name(name)), None) => return Err(UserError::UnknownUser(name.clone())),
        };
        let home = entry.as_ref().map_or(&b"/"[..], |e| e.home);
        let home = if home.is_empty() { b"/".to_vec() } else { home.to_vec() };
        let (gid, mut groups) = match (&self.group, &entry) {
            (Some(written), _) => (resolve_group(written, group)?, Vec::new()),
            (None, Some(entry)) => (entry.gid, groups_of(entry.name, group)),
            (None, None) => (0, Vec::new()),
        };
        // A login puts the primary group among the others; without it, a set-group-ID program would lose it.
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        Ok(Credentials { uid, gid, groups, home })
    }

    fn is_entry(&self, entry: &PasswdEntry<'_>) -> bool {
        match &self.user {
            None => entry.uid == 0,
            Some(NameOrId::Id(uid)) => entry.uid == *uid,
            Some(NameOrId::Name(name)) => entry.name == name.as_bytes(),
        }
    }
}

/// `name:password:uid:gid:comment:home:shell`
struct PasswdEntry<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

impl<'a> PasswdEntry<'a> {
    /// `None` for a line that is no entry: such lines are skipped, as the C library does.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|&b| b == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = parse_id(fields.nth(1)?)?;
        let gid = parse_id(fields.next()?)?;
        Some(Self { name, uid, gid, home: fields.nth(1).unwrap_or(b"") })
    }
}

/// `name:password:gid:member,member`
struct GroupEntry<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl<'a> GroupEntry<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|&b| b == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = parse_id(fields.nth(1)?)?;
        Some(Self { name, gid, members: fields.next().unwrap_or(b"") })
    }
}

fn group_entries(group: &[u8]) -> impl Iterator<Item = GroupEntry<'_>> {
    group.split(|&b| b == b'\n').filter_map(GroupEntry::parse)
}

fn parse_id(field: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(field).ok()?;
    // `parse` takes a leading plus sign, the C library's tables do not.
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?.filter(|id| *id <= MAX_ID)
}

fn resolve_group(written: &NameOrId, group: &[u8]) -> Result<u32, UserError> {
    match written {
        NameOrId::Id(gid) => Ok(*gid),
        NameOrId::Name(name) => group_entries(group)
            .find(|entry| entry.name == name.as_bytes())
            .map(|entry| entry.gid)
            .ok_or_else(|| UserError::UnknownGroup(name.clone())),
    }
}

fn groups_of(user: &[u8], group: &[u8]) -> Vec<u32> {
    group_entries(group)
        .filter(|entry| entry.members.split(|&b| b == b',').any(|member| member == user))
        .map(|entry| entry.gid)
        .collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        # comment\n\
        bad line\n\
        app:x:1000:1001:App:/home/app:/bin/sh\n\
        123:x:77:78::/odd:/bin/sh\n\
        nohome:x:5:5\n\
        big:x:4294967296:0::/:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:root\nadm:x:4:root,app\napp:x:1001:\nwheel:x:10:other,app\n99:x:98:\n";

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        let resolved = text.parse::<User>().and_then(|user| user.resolve(PASSWD, GROUP));
        let shown = resolved.map_or_else(
            |e| e.to_string(),
            |c| format!("{}:{} {:?} {}", c.uid, c.gid, c.groups, String::from_utf8_lossy(&c.home)),
        );
        expected.assert_eq(&shown);
    }

    #[test]
    fn users_resolve_as_the_table_says() {
        check("", expect!["0:0 [0, 4] /root"]);
        check("root", expect!["0:0 [0, 4] /root"]);
        check("app", expect!["1000:1001 [4, 10, 1001] /home/app"]);
        check("1000", expect!["1000:1001 [4, 10, 1001] /home/app"]);
        check("4711", expect!["4711:0 [0] /"]);
        check("1000:5", expect!["1000:5 [5] /home/app"]);
        check("4711:4712", expect!["4711:4712 [4712] /"]);
        check("app:adm", expect!["1000:4 [4] /home/app"]);
        check("app:31", expect!["1000:31 [31] /home/app"]);
        check(":adm", expect!["0:4 [4] /root"]);
        check("nohome", expect!["5:5 [5] /"]);
    }

    #[test]
    fn digits_are_never_looked_up_as_a_name() {
        check("123", expect!["123:0 [0] /"]);
        check("app:99", expect!["1000:99 [99] /home/app"]);
    }

    #[test]
    fn what_does_not_resolve_is_named() {
        check("nosuch", expect!["unable to find user `nosuch`: no entry in /etc/passwd of the image"]);
        check("app:nosuch", expect!["unable to find group `nosuch`: no entry in /etc/group of the image"]);
        check("big", expect!["unable to find user `big`: no entry in /etc/passwd of the image"]);
        check("2147483648", expect!["id `2147483648` is larger than 2147483647"]);
        check("99999999999999999999:0", expect!["id `99999999999999999999` is larger than 2147483647"]);
        check("a:b:c", expect!["user or group `b:c` contains a control character or a second colon"]);
    }
}
