//! Repositories by way of a real server: which commit is meant, which files come of it, and what moves for that.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use source::git::{Commit, Errand, GitError, Program, Repository};
use source::{Access, Authorization};
use tempfile::TempDir;
use testkit::Need;
use testkit::site::Site;

/// A repository `r.git` on a server, made of a working tree beside it.
struct World {
    directory: TempDir,
    site: Site,
    program: Program,
}

/// When every commit is made.
const COMMIT_TIME: i64 = 1_600_000_000;

impl World {
    fn new(test: &str) -> Option<Self> {
        if !testkit::can_run(test, &[Need::Program("git")]) {
            return None;
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let program = Program::find(&directories).unwrap();
        let world = Self { directory: tempfile::tempdir().unwrap(), site: Site::start(), program };
        fs::create_dir(world.path("served")).unwrap();
        fs::create_dir(world.path("place")).unwrap();
        world.site.serve_repositories(&world.path("served"), None);
        world.make("r", &[("a", "one"), ("d/b", "b"), ("d/run.sh", "#!")]);
        Some(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A working tree `NAME` with one commit, served as `NAME.git`.
    fn make(&self, name: &str, files: &[(&str, &str)]) {
        let tree = self.path(name);
        fs::create_dir(&tree).unwrap();
        git(&tree, &["init", "-q", "-b", "main"]);
        self.commit(name, files);
        let served = self.path("served").join(format!("{name}.git"));
        git(&tree, &["clone", "-q", "--bare", ".", served.to_str().unwrap()]);
        git(&tree, &["remote", "add", "origin", served.to_str().unwrap()]);
    }

    fn commit(&self, name: &str, files: &[(&str, &str)]) {
        let tree = self.path(name);
        for (path, text) in files {
            fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
            fs::write(tree.join(path), text).unwrap();
            if path.ends_with(".sh") {
                fs::set_permissions(tree.join(path), fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        git(&tree, &["add", "-A"]);
        git(&tree, &["commit", "-q", "-m", "x"]);
    }

    fn push(&self, name: &str, files: &[(&str, &str)]) {
        self.commit(name, files);
        git(&self.path(name), &["push", "-q", "--tags", "origin", "main"]);
    }

    fn head(&self, name: &str) -> String {
        git(&self.path(name), &["rev-parse", "HEAD"]).trim().to_owned()
    }

    fn ask<T>(
        &self,
        rest: &str,
        token: Option<&str>,
        what: impl FnOnce(&Errand<'_>) -> Result<T, GitError>,
    ) -> Result<T, GitError> {
        self.ask_with(Access::Network, rest, token, what)
    }

    fn ask_with<T>(
        &self,
        access: Access,
        rest: &str,
        token: Option<&str>,
        what: impl FnOnce(&Errand<'_>) -> Result<T, GitError>,
    ) -> Result<T, GitError> {
        let url =
            self.site.url(&if rest.starts_with('/') { rest.to_owned() } else { format!("/git/{rest}") });
        let repository = Repository::parse(&url).unwrap();
        let authorization = token.map(|token| Authorization::git_token(token.as_bytes()).unwrap());
        what(&Errand {
            program: &self.program,
            repository: &repository,
            authorization: authorization.as_ref(),
            place: &self.path("place"),
            access,
            is_cancelled: &|| false,
        })
    }

    fn resolve(&self, rest: &str) -> Result<Commit, GitError> {
        self.ask(rest, None, |errand| errand.resolve())
    }

    /// Files of what a URL means now, in a directory that did not exist.
    fn write(&self, rest: &str, into: &str) -> Result<PathBuf, GitError> {
        let into = self.path(into);
        fs::create_dir(&into).unwrap();
        self.ask(rest, None, |errand| errand.write(&errand.resolve()?, &into))
    }
}

fn git(directory: &Path, args: &[&str]) -> String {
    let date = format!("{COMMIT_TIME} +0000");
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"])
        .args(args)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_COMMITTER_DATE", &date)
        .env("GIT_AUTHOR_DATE", &date)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn branches_tags_and_commits_are_found() {
    let Some(world) = World::new("branches_tags_and_commits_are_found") else { return };
    let first = world.head("r");
    git(&world.path("r"), &["tag", "light"]);
    git(&world.path("r"), &["tag", "-a", "-m", "x", "heavy"]);
    world.push("r", &[("a", "two")]);
    let second = world.head("r");
    let is =
        |rest: &str, expected: &str| assert_eq!(world.resolve(rest).unwrap().to_string(), expected, "{rest}");
    is("r.git", &second);
    is("r.git#main", &second);
    is("r.git#refs/heads/main", &second);
    is("r.git?branch=main", &second);
    is("r.git#light", &first);
    is("r.git?tag=heavy", &first);
    is(&format!("r.git#{first}"), &first);
    is(&format!("r.git?ref=light&checksum={}", &first[..10]), &first);
    let error = world.resolve("r.git#nothing").unwrap_err();
    assert!(matches!(&error, GitError::NoReference { reference, .. } if reference == "nothing"), "{error}");
    let error =
        world.resolve(&format!("r.git#main?checksum={first}").replace("#main?", "?ref=main&")).unwrap_err();
    assert!(error.to_string().contains(&first) && error.to_string().contains(&second), "{error}");
    let error = world.resolve("none.git").unwrap_err();
    assert!(matches!(error, GitError::Failed { task: "ls-remote", .. }), "{error}");
}

#[test]
fn files_are_those_of_the_commit_and_nothing_of_gits() {
    let Some(world) = World::new("files_are_those_of_the_commit_and_nothing_of_gits") else { return };
    let tree = world.write("r.git?mtime=commit", "out").unwrap();
    assert_eq!(names_in(&tree), ["a", "d"]);
    let found = |name: &str| tree.join(name).metadata().unwrap();
    let mode = |name: &str| found(name).permissions().mode() & 0o7777;
    assert_eq!([mode("a"), mode("d"), mode("d/run.sh")], [0o644, 0o755, 0o755]);
    assert_eq!([found("a").mtime(), found("d").mtime()], [COMMIT_TIME; 2]);
    let now = world.write("r.git", "now").unwrap();
    assert!(now.join("a").metadata().unwrap().mtime() > COMMIT_TIME, "as old as the checkout");
    let below = world.write("r.git#main:d", "below").unwrap();
    assert_eq!(names_in(&below), ["b", "run.sh"]);
    let error = world.write("r.git#main:nothing", "error").unwrap_err();
    assert!(matches!(error, GitError::NoDirectory { .. }), "{error}");
    let error = world.write("r.git#main:a", "error2").unwrap_err();
    assert!(matches!(error, GitError::NoDirectory { .. }), "{error}");
}

#[test]
fn an_unchanged_commit_moves_no_content() {
    let Some(world) = World::new("an_unchanged_commit_moves_no_content") else { return };
    world.write("r.git", "one").unwrap();
    let packs = || world.site.requests("/git/r.git/git-upload-pack").into_iter();
    let fetches =
        || packs().filter(|seen| String::from_utf8_lossy(&seen.body).contains("command=fetch")).count();
    assert_eq!(fetches(), 1);
    let tree = world.write("r.git", "two").unwrap();
    assert_eq!(fs::read_to_string(tree.join("a")).unwrap(), "one");
    assert_eq!(fetches(), 1);
    world.push("r", &[("a", "two")]);
    let tree = world.write("r.git", "three").unwrap();
    assert_eq!(fs::read_to_string(tree.join("a")).unwrap(), "two");
    assert_eq!(fetches(), 2);
}

#[test]
fn a_server_of_old_gives_what_has_no_name_along_with_all_that_has_one() {
    let Some(world) = World::new("a_server_of_old_gives_what_has_no_name") else { return };
    let first = world.head("r");
    world.push("r", &[("a", "two")]);
    let tip = world.write("/old-git/r.git", "tip").unwrap();
    assert_eq!(fs::read_to_string(tip.join("a")).unwrap(), "two");
    let tree = world.write(&format!("/old-git/r.git#{first}"), "first").unwrap();
    assert_eq!(fs::read_to_string(tree.join("a")).unwrap(), "one");
    let never = "0123456789abcdef0123456789abcdef01234567";
    let error = world.write(&format!("/old-git/r.git#{never}"), "never").unwrap_err();
    assert!(matches!(&error, GitError::NoReference { reference, .. } if reference == never), "{error}");
}

#[test]
fn a_kept_git_directory_stands_alone() {
    let Some(world) = World::new("a_kept_git_directory_stands_alone") else { return };
    let tree = world.write("r.git?keep-git-dir=true", "out").unwrap();
    fs::remove_dir_all(world.path("place")).unwrap();
    assert_eq!(git(&tree, &["rev-parse", "HEAD"]).trim(), world.head("r"));
    assert_eq!(git(&tree, &["status", "--porcelain"]), "");
    assert_eq!(git(&tree, &["remote", "get-url", "origin"]).trim(), world.site.url("/git/r.git"));
}

#[test]
fn submodules_come_along_unless_they_are_left() {
    let Some(world) = World::new("submodules_come_along_unless_they_are_left") else { return };
    world.make("sub", &[("inner", "inner")]);
    let url = world.site.url("/git/sub.git");
    git(&world.path("r"), &["submodule", "--quiet", "add", &url, "module"]);
    world.push("r", &[]);
    let with = world.write("r.git", "with").unwrap();
    assert_eq!(names_in(&with.join("module")), ["inner"]);
    let into = world.path("kept");
    fs::create_dir(&into).unwrap();
    let kept =
        world.ask_with(Access::KeptOnly, "r.git", None, |errand| errand.write(&errand.resolve()?, &into));
    assert!(matches!(kept, Err(GitError::Submodules(_))), "{kept:?}");
    let without = world.write("r.git?submodules=false", "without").unwrap();
    assert!(names_in(&without.join("module")).is_empty());
}

#[test]
fn a_submodule_that_is_a_path_or_a_program_is_refused() {
    let Some(world) = World::new("a_submodule_that_is_a_path_or_a_program_is_refused") else { return };
    let mark = world.path("mark");
    let local = world.path("served/r.git").display().to_string();
    for (number, url) in [local.clone(), format!("file://{local}"), format!("ext::touch {}", mark.display())]
        .into_iter()
        .enumerate()
    {
        let name = format!("bad{number}");
        world.make(&name, &[("a", "a")]);
        let head = world.head("r");
        let gitmodules = format!("[submodule \"m\"]\n\tpath = m\n\turl = {url}\n");
        fs::write(world.path(&name).join(".gitmodules"), gitmodules).unwrap();
        git(&world.path(&name), &["add", ".gitmodules"]);
        git(&world.path(&name), &["update-index", "--add", "--cacheinfo", &format!("160000,{head},m")]);
        git(&world.path(&name), &["commit", "-q", "-m", "bad"]);
        git(&world.path(&name), &["push", "-q", "origin", "main"]);
        let error = world.write(&format!("{name}.git"), &format!("out{number}")).unwrap_err();
        assert!(matches!(error, GitError::Failed { task: "submodule", .. }), "{url}: {error}");
    }
    assert!(!mark.exists());
}

#[test]
fn a_token_opens_a_guarded_repository() {
    let Some(world) = World::new("a_token_opens_a_guarded_repository") else { return };
    world.site.serve_repositories(&world.path("served"), Some("basic eC1hY2Nlc3MtdG9rZW46YWJj"));
    let error = world.resolve("r.git").unwrap_err();
    assert!(matches!(error, GitError::Failed { .. }), "{error}");
    let commit = world.ask("r.git", Some("abc"), |errand| errand.resolve()).unwrap();
    assert_eq!(commit.to_string(), world.head("r"));
}

#[test]
fn a_repository_that_a_killed_git_left_locked_is_used_again() {
    let Some(world) = World::new("a_repository_that_a_killed_git_left_locked_is_used_again") else { return };
    world.write("r.git", "first").unwrap();
    world.push("r", &[("a", "two")]);
    for lock in ["shallow.lock".to_owned(), format!("refs/kept/{}.lock", world.head("r"))] {
        fs::write(world.path("place/repository.git").join(lock), "").unwrap();
    }
    let second = world.write("r.git", "second").unwrap();
    assert_eq!(fs::read_to_string(second.join("a")).unwrap(), "two");
}

#[test]
fn a_repository_that_was_left_half_made_is_made_whole() {
    let Some(world) = World::new("a_repository_that_was_left_half_made_is_made_whole") else { return };
    fs::create_dir(world.path("place/repository.git")).unwrap();
    fs::write(world.path("place/repository.git/HEAD"), "ref: refs/heads/master\n").unwrap();
    let written = world.write("r.git", "out").unwrap();
    assert_eq!(fs::read_to_string(written.join("a")).unwrap(), "one");
}

#[test]
fn what_cannot_be_reached_is_asked_for_once_and_told_as_it_is() {
    let Some(world) = World::new("what_cannot_be_reached_is_asked_for_once_and_told_as_it_is") else {
        return;
    };
    let nobody = "0".repeat(40);
    let error = world.write(&format!("none.git#{nobody}"), "out").unwrap_err();
    let GitError::Failed { task: "fetch", message, .. } = &error else { panic!("{error}") };
    assert!(message.contains("not found"), "{message}");
}

#[test]
fn a_build_that_is_cancelled_ends_git_and_what_it_started() {
    let Some(world) = World::new("a_build_that_is_cancelled_ends_git_and_what_it_started") else { return };
    let (fake, helper) = (world.path("git"), world.path("helper"));
    // It does not listen to SIGTERM, and neither does its helper.
    let script = "#!/bin/sh\ntrap '' TERM\nsleep 1000 & echo $! > HELPER.new; mv HELPER.new HELPER; wait\n";
    fs::write(&fake, script.replace("HELPER", helper.to_str().unwrap())).unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    let program = Program { path: fake, ..world.program.clone() };
    let repository = Repository::parse(&world.site.url("/git/r.git")).unwrap();
    let errand = Errand {
        program: &program,
        repository: &repository,
        authorization: None,
        place: &world.path("place"),
        access: Access::Network,
        is_cancelled: &|| helper.exists(),
    };
    assert!(matches!(errand.resolve(), Err(GitError::Cancelled)));
    let pid = fs::read_to_string(&helper).unwrap().trim().parse().unwrap();
    // It is killed, and whoever adopted it may have to reap it yet.
    let ended = sys::process::open(pid)
        .map_or(true, |pidfd| sys::process::ends_within(pidfd, Duration::from_secs(10)).unwrap());
    assert!(ended);
}

#[test]
fn without_a_server_a_name_means_what_it_last_meant_and_what_is_not_kept_is_named() {
    let Some(world) = World::new("without_a_server_a_name_means_what_it_last_meant") else { return };
    let kept = |rest: &str| world.ask_with(Access::KeptOnly, rest, None, |errand| errand.resolve());
    let not_kept = |error: GitError| match error {
        GitError::NotKept { what, .. } => what,
        other => panic!("{other}"),
    };
    assert_eq!(not_kept(kept("r.git").unwrap_err()), "the default branch");
    world.write("r.git", "first").unwrap();
    let first = world.head("r");
    world.push("r", &[("a", "two")]);
    let asked = world.site.server().requests().len();
    assert_eq!(kept("r.git").unwrap().to_string(), first);
    assert_eq!(not_kept(kept("r.git#main").unwrap_err()), "branch or tag `main`");
    let write = |rest: &str, into: &str| {
        let into = world.path(into);
        fs::create_dir(&into).unwrap();
        world.ask_with(Access::KeptOnly, rest, None, |errand| errand.write(&errand.resolve()?, &into))
    };
    let files = write("r.git?keep-git-dir=true", "again").unwrap();
    assert_eq!(fs::read_to_string(files.join("a")).unwrap(), "one");
    let second = world.head("r");
    assert_eq!(not_kept(write(&format!("r.git#{second}"), "never").unwrap_err()), format!("commit {second}"));
    assert_eq!(world.site.server().requests().len(), asked, "nobody is asked");
}

#[test]
fn a_commit_is_fetched_whatever_a_branch_means_by_then() {
    let Some(world) = World::new("a_commit_is_fetched_whatever_a_branch_means_by_then") else { return };
    let first = world.resolve("r.git#main").unwrap();
    world.push("r", &[("a", "two")]);
    let url = world.site.url("/git/r.git#main");
    let pinned = Repository::parse(&url).unwrap().at_commit(&first);
    let commit = world.ask("r.git", None, |errand| Errand { repository: &pinned, ..*errand }.resolve());
    assert_eq!(commit.unwrap(), first);
}

#[test]
fn git_is_told_whom_to_trust() {
    let Some(world) = World::new("git_is_told_whom_to_trust") else { return };
    let fake = world.path("git");
    fs::write(&fake, "#!/bin/sh\necho \"fatal: $GIT_SSL_CAINFO\" >&2\nexit 1\n").unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    let certificates = Some(PathBuf::from("/ours.pem"));
    let program = Program { path: fake, certificates, ..world.program.clone() };
    let repository = Repository::parse(&world.site.url("/git/r.git")).unwrap();
    let errand = Errand {
        program: &program,
        repository: &repository,
        authorization: None,
        place: &world.path("place"),
        access: Access::Network,
        is_cancelled: &|| false,
    };
    let Err(GitError::Failed { message, .. }) = errand.resolve() else { panic!("it failed") };
    assert_eq!(message, "fatal: /ours.pem");
}
