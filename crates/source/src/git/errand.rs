//! From a repository's URL to a commit, and from a commit to files.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sys::root::{Dir, Time};

use super::program::{Ran, Run, files};
use super::repository::is_commit_id;
use super::{GitError, Program, Repository, Submodules, Times, memory};
use crate::{Access, Authorization};

/// What a URL may be fetched by, in submodules too: not a local path, and nothing that starts a program.
const PROTOCOLS: &str = "https:http:git";

/// The same of what is fetched by ssh.
const PROTOCOLS_WITH_SSH: &str = "https:http:git:ssh";

/// The same where nobody may be asked: no transport has that name.
const NO_PROTOCOL: &str = "none";

/// What a server says that gives a commit only by a name, or only with all below it.
const ONLY_BY_NAME: [&str; 4] = ["not our ref", "unadvertised object", "does not support", "dumb http"];

/// The id of a commit, in full.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Commit(String);

/// What is to be fetched, and what with.
#[derive(Clone, Copy)]
pub struct Errand<'e> {
    /// `git`.
    pub program: &'e Program,
    /// What.
    pub repository: &'e Repository,
    /// Sent to the repository's own host only.
    pub authorization: Option<&'e Authorization>,
    /// A directory where things are kept from one time to the next. Whoever uses it holds it alone.
    pub place: &'e Path,
    /// Whether the server may be asked.
    pub access: Access,
    /// Asked every now and then.
    pub is_cancelled: &'e dyn Fn() -> bool,
}

impl Commit {
    /// Reads an id: 40 or 64 hexadecimal digits in lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_commit_id(text).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Errand<'_> {
    /// Which commit is meant now. Asks the server, unless it is named by its whole id; with [`Access::KeptOnly`] it is what the server last said.
    ///
    /// # Errors
    /// [`GitError::NoReference`], [`GitError::WrongCommit`], [`GitError::NotKept`], and whatever the program says.
    pub fn resolve(&self) -> Result<Commit, GitError> {
        let repository = self.repository;
        // Without a branch, a commit that is insisted on is the one that is meant.
        let name = repository.reference.as_deref().or(repository.checksum.as_deref());
        let named = name.and_then(Commit::parse);
        let commit = named.map_or_else(|| self.look_up(), Ok)?;
        match &repository.checksum {
            Some(expected) if !commit.0.starts_with(expected) => Err(GitError::WrongCommit {
                remote: repository.remote.clone(),
                expected: expected.clone(),
                got: commit,
            }),
            _ => Ok(commit),
        }
    }

    /// Writes a commit's files into an empty directory; gives the directory below it that is asked for.
    ///
    /// # Errors
    /// [`GitError::NoDirectory`], [`GitError::NotKept`], and whatever the program says.
    pub fn write(&self, commit: &Commit, into: &Path) -> Result<PathBuf, GitError> {
        let bare = self.fetch(commit)?;
        self.check_out(commit, &bare, into)?;
        let time = match self.repository.times {
            Times::Checkout => None,
            Times::Commit => Some(self.commit_time(commit, &bare)?),
        };
        let keeps_git_dir = self.repository.keep_git_dir.unwrap_or_default();
        let tidy = Tidy { keeps_git_dir, time };
        tidy.directory(into)?;
        self.directory(commit, into)
    }

    /// When a commit was made, in seconds since 1970.
    ///
    /// # Errors
    /// Whatever the program says.
    pub fn time(&self, commit: &Commit) -> Result<i64, GitError> {
        let bare = self.fetch(commit)?;
        self.commit_time(commit, &bare).map(|time| time.seconds)
    }

    fn look_up(&self) -> Result<Commit, GitError> {
        let name = self.repository.reference.as_deref().unwrap_or("HEAD");
        if self.access == Access::KeptOnly {
            let what = match &self.repository.reference {
                Some(name) => format!("branch or tag `{name}`"),
                None => "the default branch".to_owned(),
            };
            return memory::recall(self.place, name).ok_or_else(|| self.not_kept(&what));
        }
        // An annotated tag stands for the commit that it was put on.
        let peeled = format!("{name}^{{}}");
        let args = ["ls-remote", "--quiet", "--", &self.repository.remote, name, &peeled];
        let listed = self.git("ls-remote", self.place, &args)?.stdout;
        let refs: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
        let candidates = [
            format!("refs/tags/{peeled}"),
            peeled.clone(),
            name.to_owned(),
            format!("refs/tags/{name}"),
            format!("refs/heads/{name}"),
            format!("refs/{name}"),
        ];
        let found = candidates.iter().find_map(|wanted| refs.iter().find(|(_, name)| name == wanted));
        let found = found.and_then(|(id, _)| Commit::parse(id));
        let commit = found.ok_or_else(|| GitError::NoReference {
            remote: self.repository.remote.clone(),
            reference: name.to_owned(),
        })?;
        memory::remember(self.place, name, &commit)?;
        Ok(commit)
    }

    fn not_kept(&self, what: &str) -> GitError {
        GitError::NotKept { remote: self.repository.remote.clone(), what: what.to_owned() }
    }

    /// The bare repository, with the commit in it.
    fn fetch(&self, commit: &Commit) -> Result<PathBuf, GitError> {
        let bare = self.place.join("repository.git");
        unlock(&bare)?;
        // Harmless to one that is there, and makes one whole that was left half made.
        self.git("init", self.place, &["init", "--quiet", "--bare", "repository.git"])?;
        if self.has(commit, &bare)? {
            return Ok(bare);
        }
        if self.access == Access::KeptOnly {
            return Err(self.not_kept(&format!("commit {commit}")));
        }
        let remote = self.repository.remote.as_str();
        let (own, heads) = (format!("+{commit}:refs/kept/{commit}"), "+refs/heads/*:refs/kept/heads/*");
        let common = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
        let alone = [&common[..], &["--depth=1", "--", remote, &own]].concat();
        match self.git("fetch", &bare, &alone) {
            Err(GitError::Failed { message, .. })
                if ONLY_BY_NAME.iter().any(|said| message.contains(said)) =>
            {
                let deep: &[&str] = if bare.join("shallow").exists() { &["--unshallow"] } else { &[] };
                let named = ["--", remote, heads, "+refs/tags/*:refs/kept/tags/*"];
                self.git("fetch", &bare, &[&common[..], deep, &named].concat())?;
            }
            fetched => drop(fetched?),
        }
        if self.has(commit, &bare)? {
            return Ok(bare);
        }
        Err(GitError::NoReference { remote: remote.to_owned(), reference: commit.to_string() })
    }

    fn has(&self, commit: &Commit, bare: &Path) -> Result<bool, GitError> {
        let object = format!("{commit}^{{commit}}");
        Ok(self.run(bare, self.protocols(), &["cat-file", "-e", &object])?.status.success())
    }

    fn check_out(&self, commit: &Commit, bare: &Path, into: &Path) -> Result<(), GitError> {
        let id = commit.0.as_str();
        self.git("init", into, &["init", "--quiet", "."])?;
        self.git("remote", into, &["remote", "add", "origin", &self.repository.remote])?;
        if self.repository.keep_git_dir.unwrap_or_default() {
            // A copy that stands alone, made by the protocol rather than by links.
            let local = format!("file://{}", bare.display());
            let args = ["fetch", "--quiet", "--no-tags", "--depth=1", "--", &local, id];
            let ran = self.run(into, "file", &args)?;
            self.succeeded("fetch", ran)?;
        } else {
            let path = into.join(".git/objects/info/alternates");
            fs::write(&path, format!("{}\n", bare.join("objects").display())).map_err(files(&path))?;
        }
        self.git("checkout", into, &["checkout", "--quiet", "--force", "--detach", id])?;
        let has_submodules = into.join(".gitmodules").symlink_metadata().is_ok_and(|found| found.is_file());
        if has_submodules && self.repository.submodules == Submodules::Fetched {
            if self.access == Access::KeptOnly {
                return Err(GitError::Submodules(self.repository.remote().to_owned()));
            }
            let args = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"];
            self.git("submodule", into, &args)?;
        }
        Ok(())
    }

    fn commit_time(&self, commit: &Commit, bare: &Path) -> Result<Time, GitError> {
        let shown = self.git("show", bare, &["show", "--no-patch", "--format=%ct", &commit.0])?.stdout;
        Ok(Time { seconds: shown.trim().parse().unwrap_or(0), nanos: 0 })
    }

    /// The directory that is asked for, if no link is on the way to it.
    fn directory(&self, commit: &Commit, into: &Path) -> Result<PathBuf, GitError> {
        let mut path = into.to_owned();
        for name in self.repository.subdirectory.iter().flat_map(|directory| directory.split('/')) {
            path.push(name);
            if !path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                return Err(GitError::NoDirectory {
                    remote: self.repository.remote.clone(),
                    commit: commit.clone(),
                    subdirectory: self.repository.subdirectory.clone().unwrap_or_default(),
                });
            }
        }
        Ok(path)
    }

    fn protocols(&self) -> &'static str {
        match self.access {
            Access::KeptOnly => NO_PROTOCOL,
            Access::Network if self.repository.is_by_ssh() => PROTOCOLS_WITH_SSH,
            Access::Network => PROTOCOLS,
        }
    }

    /// Runs git and insists on success.
    fn git(&self, task: &'static str, directory: &Path, args: &[&str]) -> Result<Ran, GitError> {
        let ran = self.run(directory, self.protocols(), args)?;
        self.succeeded(task, ran)
    }

    fn run(&self, directory: &Path, protocols: &str, args: &[&str]) -> Result<Ran, GitError> {
        let run = Run {
            program: self.program,
            directory,
            scratch: self.place,
            protocols,
            authorization: self.authorization.map(|value| (self.repository.remote.as_str(), value)),
            is_cancelled: self.is_cancelled,
        };
        run.run(&args.iter().map(OsStr::new).collect::<Vec<_>>())
    }

    fn succeeded(&self, task: &'static str, ran: Ran) -> Result<Ran, GitError> {
        if ran.status.success() {
            return Ok(ran);
        }
        let remote = self.repository.remote.clone();
        Err(GitError::Failed { task, remote, message: ran.message, status: ran.status })
    }
}

/// Takes away the locks of a git that was killed: beside its own files, and beside references. Whoever holds the place alone knows that
/// no other uses them.
fn unlock(bare: &Path) -> Result<(), GitError> {
    remove_locks(bare, Depth::Top)?;
    remove_locks(&bare.join("refs"), Depth::All)
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Depth {
    Top,
    All,
}

fn remove_locks(directory: &Path, depth: Depth) -> Result<(), GitError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(files(directory))?,
    };
    for entry in entries {
        let entry = entry.map_err(files(directory))?;
        let path = entry.path();
        if entry.file_type().map_err(files(&path))?.is_dir() {
            if depth == Depth::All {
                remove_locks(&path, depth)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "lock") {
            fs::remove_file(&path).map_err(files(&path))?;
        }
    }
    Ok(())
}

/// Makes a checkout what it is on every machine: modes do not depend on the umask, and what is not wanted of git's own files goes.
struct Tidy {
    keeps_git_dir: bool,
    time: Option<Time>,
}

impl Tidy {
    fn directory(&self, path: &Path) -> Result<(), GitError> {
        let dir = Dir::open(path).map_err(files(path))?;
        for entry in fs::read_dir(path).map_err(files(path))? {
            let name = entry.map_err(files(path))?.file_name();
            let path = path.join(&name);
            if name == ".git" && !self.keeps_git_dir {
                dir.remove_all(&name).map_err(files(&path))?;
                continue;
            }
            self.entry(&path)?;
            if let Some(time) = self.time {
                dir.set_time(&name, time).map_err(files(&path))?;
            }
        }
        Ok(())
    }

    fn entry(&self, path: &Path) -> Result<(), GitError> {
        let found = path.symlink_metadata().map_err(files(path))?;
        let mode = match found.permissions().mode() {
            _ if found.is_symlink() => return Ok(()),
            _ if found.is_dir() => {
                self.directory(path)?;
                0o755
            }
            mode if mode & 0o100 != 0 => 0o755,
            _ => 0o644,
        };
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(files(path))
    }
}
