//! Making a manifest's git repositories, by `git`.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Entry, Event, Kind, disk};

/// Of every commit, so that its id is known beforehand.
const DATE: &str = "1600000000 +0000";

/// A bare repository and the files that its next commit keeps.
struct Repository<'p> {
    bare: &'p Path,
    files: tempfile::TempDir,
}

/// Makes the bare repository `path` and lets `events` happen to it.
pub(super) fn make(path: &Path, events: &[Entry]) -> Result<()> {
    let repository = Repository { bare: path, files: tempfile::tempdir()? };
    repository.git(&["init", "--quiet", "--bare", "--initial-branch=main"])?;
    events.iter().try_for_each(|event| {
        repository.apply(event).with_context(|| format!("event `{}`", event.path.display()))
    })?;
    repository.git(&["symbolic-ref", "HEAD", "refs/heads/main"])?;
    repository.git(&["pack-refs", "--all"])
}

impl Repository<'_> {
    fn apply(&self, event: &Entry) -> Result<()> {
        let name = event.path.to_str().context("a name is not UTF-8")?;
        match &event.kind {
            Kind::Event(Event::Commit) => self.commit(name),
            Kind::Event(Event::Tag) => self.git(&["tag", name]),
            Kind::Event(Event::Branch) => {
                self.git(&["branch", name])?;
                self.git(&["symbolic-ref", "HEAD", &format!("refs/heads/{name}")])
            }
            Kind::Event(Event::Submodule { url, commit }) => {
                let section = format!("submodule.{name}");
                let config = |key: &str, value: &str| {
                    self.git(&["config", "--file", ".gitmodules", &format!("{section}.{key}"), value])
                };
                config("path", name)?;
                config("url", url.to_str().context("a URL is not UTF-8")?)?;
                self.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{name}")])
            }
            _ => disk::make(self.files.path(), event),
        }
    }

    /// Submodules are in the index alone: a deleted file stays until a line says otherwise, which none can.
    fn commit(&self, message: &str) -> Result<()> {
        self.git(&["add", "--ignore-removal", "."])?;
        self.git(&["commit", "--quiet", "--message", message])
    }

    fn git(&self, arguments: &[&str]) -> Result<()> {
        let mut git = Command::new("git");
        git.arg("--git-dir").arg(self.bare);
        if arguments[0] != "init" {
            git.arg("--work-tree").arg(self.files.path());
        }
        git.args(["-c", "user.name=t", "-c", "user.email=t@t"])
            .args(arguments)
            .current_dir(self.files.path());
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        git.env("GIT_AUTHOR_DATE", DATE).env("GIT_COMMITTER_DATE", DATE).stdin(Stdio::null());
        let output = git.output().context("cannot start `git`")?;
        ensure!(output.status.success(), "{git:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}
