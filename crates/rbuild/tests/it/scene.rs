//! A server and somebody who builds from it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use testkit::Need;
use testkit::site::Site;

use crate::world::{World, succeed, write_files};

/// A server, a store, and a context with a Dockerfile.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) site: Site,
}

impl Scene {
    pub(crate) fn new(test: &str) -> Option<Self> {
        testkit::can_run(test, &[Need::Root]).then(|| Self { world: World::new(), site: Site::start() })
    }

    /// `rbuild build` of a Dockerfile upon nothing, written out to `out`.
    pub(crate) fn command(&self, instructions: &str, args: &[&str]) -> Command {
        let context = self.world.path("context");
        write_files(&context, &[("Dockerfile", &format!("FROM scratch\n{instructions}\n"))]);
        let out = self.out();
        if out.exists() {
            fs::remove_dir_all(&out).expect("the last result goes");
        }
        let mut command = self.world.rbuild();
        // For git.
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.args(["build", "--progress=plain", "-o"]).arg(format!("type=local,dest={}", out.display()));
        command.args(args).arg(context);
        command
    }

    /// What a build says.
    #[track_caller]
    pub(crate) fn build(&self, instructions: &str, args: &[&str]) -> String {
        text(&succeed(&mut self.command(instructions, args)))
    }

    #[track_caller]
    pub(crate) fn refused(&self, instructions: &str, args: &[&str], code: i32) -> String {
        let output = self.command(instructions, args).output().expect("rbuild starts");
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        text(&output)
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.world.path("out")
    }

    #[track_caller]
    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.out().join(path)).expect("the file was added")
    }

    /// A secret's file, as the argument of `--secret`.
    pub(crate) fn secret(&self, id: &str, value: &str) -> String {
        let path = self.world.path("secret");
        fs::write(&path, value).expect("a file");
        format!("--secret=id={id},src={}", path.display())
    }
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A working tree `tree` with one branch, which the scene's site serves as `/git/r.git`.
pub(crate) struct Upstream<'s>(&'s Scene);

impl<'s> Upstream<'s> {
    pub(crate) fn new(scene: &'s Scene, authorization: Option<&str>) -> Option<Self> {
        if !testkit::can_run("git sources", &[Need::Program("git")]) {
            return None;
        }
        let upstream = Self(scene);
        fs::create_dir_all(upstream.tree()).expect("a directory");
        upstream.git(&["init", "-q", "-b", "main"]);
        upstream.git(&["init", "-q", "-b", "main", "--bare", "../served/r.git"]);
        upstream.push(&[("a", "one"), ("d/b", "b")]);
        scene.site.serve_repositories(&scene.world.path("served"), authorization);
        Some(upstream)
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.0.world.path("tree")
    }

    pub(crate) fn push(&self, files: &[(&str, &str)]) {
        write_files(&self.tree(), files);
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "x"]);
        self.git(&["push", "-q", "../served/r.git", "main"]);
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(args).current_dir(self.tree());
        let output = succeed(
            command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_COMMITTER_DATE", "1600000000 +0000"),
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(crate) fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    pub(crate) fn url(&self, rest: &str) -> String {
        self.0.site.url(&format!("/git/r.git{rest}"))
    }

    /// Transfers of content so far.
    pub(crate) fn transfers(&self) -> usize {
        let requests = self.0.site.requests("/git/r.git/git-upload-pack");
        requests.iter().filter(|seen| String::from_utf8_lossy(&seen.body).contains("command=fetch")).count()
    }
}
