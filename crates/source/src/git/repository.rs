//! What a URL says about a repository (BuildKit's forms).
//!
//! `https://host/path.git`, `git://host/path`, `ssh://user@host/path`, `user@host:path`, each with `#ref:directory`, or with a query of `ref`, `tag`, `branch`, `subdir`, `checksum` (or
//! `commit`), `keep-git-dir`, `submodules`, `fetch-by-commit` and `mtime`.

use super::Commit;

/// A repository, and what of it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Repository {
    /// What git is told: no query, no fragment.
    pub(super) remote: String,
    /// Host and, unless it is the usual one, port.
    pub(super) host: String,
    /// A branch, a tag, a full ref or a commit; `None` is the default branch.
    pub(super) reference: Option<String>,
    /// Cleaned; `None` is the whole repository.
    pub(super) subdirectory: Option<String>,
    /// The beginning of the commit's id that is insisted on.
    pub(super) checksum: Option<String>,
    /// Whether `.git` stays; `None` if the URL does not say.
    pub(super) keep_git_dir: Option<bool>,
    pub(super) submodules: Submodules,
    pub(super) times: Times,
}

/// Whether submodules are fetched as well.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Submodules {
    /// All, and theirs.
    Fetched,
    /// Their directories stay empty.
    Left,
}

/// How old the files are.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Times {
    /// As git leaves them: now.
    Checkout,
    /// All as old as the commit.
    Commit,
}

/// Why a URL is none of a repository that is fetched.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RepositoryError {
    /// A user name or password where they would be sent along, or a password anywhere.
    #[error("`{0}` has a user name in it")]
    UserInfo(String),
    /// Characters that have no place there.
    #[error("`{0}` is no address of a repository")]
    Malformed(String),
    /// A ref that git would not take for one.
    #[error("`{0}` is no name of a branch, tag or commit")]
    Reference(String),
    /// A directory outside of the repository.
    #[error("`{0}` is no directory of a repository")]
    Directory(String),
    /// A checksum that is none.
    #[error("`{0}` is no commit's id")]
    Checksum(String),
    /// A word of the query.
    #[error("`{key}` means nothing for a repository, or not `{value}`")]
    Query {
        /// Its name.
        key: String,
        /// Its value.
        value: String,
    },
    /// The same thing said twice.
    #[error("it says both `{0}` and `{1}`")]
    Conflict(String, String),
}

impl Repository {
    /// Reads the URL of a repository.
    ///
    /// # Errors
    /// [`RepositoryError`].
    pub fn parse(text: &str) -> Result<Self, RepositoryError> {
        let (address, fragment) = text.split_once('#').map_or((text, None), |(a, f)| (a, Some(f)));
        let (address, query) = address.split_once('?').map_or((address, None), |(a, q)| (a, Some(q)));
        let host = match address.split_once("://").map(|(scheme, _)| scheme) {
            // Without a scheme it is `user@host:path`.
            None => host_by_ssh(address, ':')?,
            Some("ssh") => host_by_ssh(address.strip_prefix("ssh://").unwrap_or_default(), '/')?,
            Some("git" | "http" | "https") => host(address)?,
            Some(_) => return Err(RepositoryError::Malformed(address.to_owned())),
        };
        Self::read(address, host, query, fragment)
    }

    /// Whether it is fetched by ssh.
    #[must_use]
    pub fn is_by_ssh(&self) -> bool {
        self.remote.starts_with("ssh://") || !self.remote.contains("://")
    }

    fn read(
        address: &str,
        host: String,
        query: Option<&str>,
        fragment: Option<&str>,
    ) -> Result<Self, RepositoryError> {
        let mut repository = Self {
            remote: address.to_owned(),
            host,
            reference: None,
            subdirectory: None,
            checksum: None,
            keep_git_dir: None,
            submodules: Submodules::Fetched,
            times: Times::Checkout,
        };
        if let Some(fragment) = fragment {
            let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
            repository.set_reference(reference)?;
            repository.set_directory(directory)?;
        }
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            repository.set(key, value)?;
        }
        Ok(repository)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), RepositoryError> {
        let wrong = || RepositoryError::Query { key: key.to_owned(), value: value.to_owned() };
        let switch = || match value {
            "" | "1" | "t" | "true" | "T" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "false" | "F" | "FALSE" | "False" => Ok(false),
            _ => Err(wrong()),
        };
        match (key, value) {
            ("keep-git-dir", _) => self.keep_git_dir = Some(switch()?),
            ("submodules", _) => {
                self.submodules = if switch()? { Submodules::Fetched } else { Submodules::Left };
            }
            // What is fetched is always the commit alone, if the server gives it by its id.
            ("fetch-by-commit", _) => drop(switch()?),
            (_, "") => return Err(wrong()),
            ("ref", _) => self.set_reference(value)?,
            ("tag", _) => self.set_reference(&full(value, "refs/tags/"))?,
            ("branch", _) => self.set_reference(&full(value, "refs/heads/"))?,
            ("subdir", _) => self.set_directory(value)?,
            ("checksum" | "commit", _) => self.set_checksum(value)?,
            ("mtime", "checkout") => self.times = Times::Checkout,
            ("mtime", "commit") => self.times = Times::Commit,
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn set_reference(&mut self, value: &str) -> Result<(), RepositoryError> {
        if value.is_empty() {
            return Ok(());
        }
        if !is_reference(value) {
            return Err(RepositoryError::Reference(value.to_owned()));
        }
        set_once(&mut self.reference, value)
    }

    fn set_directory(&mut self, value: &str) -> Result<(), RepositoryError> {
        let names: Vec<&str> = value.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        if names.iter().any(|name| *name == ".." || name.eq_ignore_ascii_case(".git")) || value.contains('\0')
        {
            return Err(RepositoryError::Directory(value.to_owned()));
        }
        if names.is_empty() { Ok(()) } else { set_once(&mut self.subdirectory, &names.join("/")) }
    }

    /// Insists on a commit, named by its id or the beginning of that.
    ///
    /// # Errors
    /// [`RepositoryError::Checksum`], [`RepositoryError::Conflict`].
    pub fn set_checksum(&mut self, value: &str) -> Result<(), RepositoryError> {
        let is_id = (7..=64).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id {
            return Err(RepositoryError::Checksum(value.to_owned()));
        }
        set_once(&mut self.checksum, &value.to_ascii_lowercase())
    }

    /// Whether `.git` stays; `flag` counts where the URL does not say.
    #[must_use]
    pub fn keeping_git_dir(mut self, flag: bool) -> Self {
        self.keep_git_dir = Some(self.keep_git_dir.unwrap_or(flag));
        self
    }

    /// The same of one commit, whatever branch or tag the URL names.
    #[must_use]
    pub fn at_commit(mut self, commit: &Commit) -> Self {
        self.reference = Some(commit.to_string());
        self
    }

    /// What git is told.
    #[must_use]
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// Host and, unless it is the usual one, port: what secrets are named after.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whatever but the commit decides which files come of it and what they are like.
    #[must_use]
    pub fn options(&self) -> String {
        let directory = self.subdirectory.as_deref().unwrap_or_default();
        let keep = self.keep_git_dir.unwrap_or_default();
        format!("{directory:?} {keep} {:?} {:?}", self.submodules, self.times)
    }
}

fn set_once(field: &mut Option<String>, value: &str) -> Result<(), RepositoryError> {
    match field {
        Some(before) if before != value => Err(RepositoryError::Conflict(before.clone(), value.to_owned())),
        _ => {
            *field = Some(value.to_owned());
            Ok(())
        }
    }
}

fn full(name: &str, prefix: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

/// Host and port of an address that is sound.
fn host(address: &str) -> Result<String, RepositoryError> {
    let malformed = || RepositoryError::Malformed(address.escape_default().to_string());
    let (_, rest) = address.split_once("://").ok_or_else(malformed)?;
    let (host, path) = rest.split_once('/').ok_or_else(malformed)?;
    if let Some((_, bare)) = host.rsplit_once('@') {
        return Err(RepositoryError::UserInfo(format!("…@{bare}/{path}")));
    }
    if is_host(host) && is_path(path) { Ok(host.to_ascii_lowercase()) } else { Err(malformed()) }
}

/// The same of `[user@]host`, a separator, and a path.
fn host_by_ssh(address: &str, separator: char) -> Result<String, RepositoryError> {
    let malformed = || RepositoryError::Malformed(address.escape_default().to_string());
    let (place, path) = address.split_once(separator).ok_or_else(malformed)?;
    let (user, host) = place.rsplit_once('@').map_or((None, place), |(user, host)| (Some(user), host));
    if user.is_some_and(|user| user.contains(':')) {
        return Err(RepositoryError::UserInfo(format!("…@{host}{separator}{path}")));
    }
    // What begins with `-` would be an option.
    let is_user = |user: &str| {
        user.starts_with(|c: char| c.is_ascii_alphanumeric())
            && user.chars().all(|c| c.is_ascii_alphanumeric() || "-._+".contains(c))
    };
    if user.is_none_or(is_user) && is_host(host) && is_path(path) && !path.starts_with('-') {
        Ok(host.to_ascii_lowercase())
    } else {
        Err(malformed())
    }
}

fn is_host(host: &str) -> bool {
    host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c))
}

fn is_path(path: &str) -> bool {
    !path.is_empty() && path.chars().all(|c| !c.is_control() && c != '\\' && c != ' ')
}

/// What `git check-ref-format` takes, and no option.
fn is_reference(name: &str) -> bool {
    let is_sound = |c: char| !c.is_control() && !" ~^:?*[\\".contains(c);
    !name.starts_with(['-', '/', '.'])
        && !name.ends_with(['/', '.'])
        && !name.contains("..")
        && !name.contains("@{")
        && name.chars().all(is_sound)
}

/// A whole commit id, of either kind that git has.
pub(super) fn is_commit_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let got = match Repository::parse(text) {
            Err(error) => error.to_string(),
            Ok(r) => format!(
                "{} {} {} {} {}",
                r.remote,
                r.reference.as_deref().unwrap_or("-"),
                r.subdirectory.as_deref().unwrap_or("-"),
                r.checksum.as_deref().unwrap_or("-"),
                r.clone().keeping_git_dir(false).options()
            ),
        };
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn a_url_says_what_of_a_repository_is_meant() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        check("https://h/r.git", "https://h/r.git - - - \"\" false Fetched Checkout");
        check("https://h:1/r.git#v1:a/./b/", "https://h:1/r.git v1 a/b - \"a/b\" false Fetched Checkout");
        check("git://h/r#:/a", "git://h/r - a - \"a\" false Fetched Checkout");
        check(
            "https://h/r.git?tag=v1&subdir=a",
            "https://h/r.git refs/tags/v1 a - \"a\" false Fetched Checkout",
        );
        check(
            "https://h/r.git?branch=b&keep-git-dir",
            "https://h/r.git refs/heads/b - - \"\" true Fetched Checkout",
        );
        check(
            &format!("https://h/r.git?commit={id}"),
            &format!("https://h/r.git - - {id} \"\" false Fetched Checkout"),
        );
        check(
            "https://h/r.git?ref=b&checksum=ABCDEF0",
            "https://h/r.git b - abcdef0 \"\" false Fetched Checkout",
        );
        check(
            "https://h/r.git?submodules=false&mtime=commit&fetch-by-commit",
            "https://h/r.git - - - \"\" false Left Commit",
        );
    }

    #[test]
    fn a_repository_may_be_reached_by_ssh() {
        check("git@h:o/r.git", "git@h:o/r.git - - - \"\" false Fetched Checkout");
        check("git@h:o/r.git#v1:a", "git@h:o/r.git v1 a - \"a\" false Fetched Checkout");
        check("ssh://git@H:22/r?ref=b", "ssh://git@H:22/r b - - \"\" false Fetched Checkout");
        check("ssh://h/r", "ssh://h/r - - - \"\" false Fetched Checkout");
        let parse = |text| Repository::parse(text).unwrap();
        assert_eq!((parse("ssh://git@H:22/r").host(), parse("git@h:r").host()), ("h:22", "h"));
        assert!(parse("git@h:r").is_by_ssh() && !parse("https://h/r").is_by_ssh());
    }

    #[test]
    fn what_could_be_an_option_or_lead_elsewhere_is_refused() {
        check("https://h/r.git#--upload-pack=x", "`--upload-pack=x` is no name of a branch, tag or commit");
        check("https://h/r.git?ref=a..b", "`a..b` is no name of a branch, tag or commit");
        check("https://h/r.git#a b", "`a b` is no name of a branch, tag or commit");
        check("git://-oProxyCommand=x/r", "`git://-oProxyCommand=x/r` is no address of a repository");
        check("git://h/r\nx", "`git://h/r\\nx` is no address of a repository");
        check("https://h/r.git#v:../x", "`../x` is no directory of a repository");
        check("https://h/r.git#v:.git/hooks", "`.git/hooks` is no directory of a repository");
        check("https://me:pw@h/r.git", "`…@h/r.git` has a user name in it");
        check("https://h/r.git?checksum=xyz", "`xyz` is no commit's id");
        check("https://h/r.git?depth=1", "`depth` means nothing for a repository, or not `1`");
        check(
            "https://h/r.git?fetch-by-commit=maybe",
            "`fetch-by-commit` means nothing for a repository, or not `maybe`",
        );
        check("https://h/r.git?mtime=now", "`mtime` means nothing for a repository, or not `now`");
        check("https://h/r.git?ref=a#b", "it says both `b` and `a`");
        check("-oProxyCommand=x@h:r.git", "`-oProxyCommand=x@h:r.git` is no address of a repository");
        check("git@-oProxyCommand=x:r", "`git@-oProxyCommand=x:r` is no address of a repository");
        check("ssh://git@-x/r", "`git@-x/r` is no address of a repository");
        check("git@h:-x", "`git@h:-x` is no address of a repository");
        check("ssh://git:pw@h/r", "`…@h/r` has a user name in it");
    }
}
