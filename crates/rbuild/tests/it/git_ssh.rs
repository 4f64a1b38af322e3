//! Repositories by ssh. A program `ssh` of our own stands for the server and writes down how it was called.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::scene::{Scene, Upstream, text};
use crate::world::succeed;

/// A scene with a program `ssh`, which reaches the repository of `upstream` if it is told of an agent.
struct ByShell<'s> {
    scene: &'s Scene,
    upstream: Upstream<'s>,
}

impl<'s> ByShell<'s> {
    fn new(scene: &'s Scene) -> Option<Self> {
        let upstream = Upstream::new(scene, None)?;
        let directory = scene.world.path("bin");
        fs::create_dir(&directory).expect("a directory");
        let (log, served) = (scene.world.path("ssh.log"), scene.world.path("served"));
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = -G ] && exit 1\necho \"$SSH_AUTH_SOCK|$*\" >> {}\n\
             if ! [ \"$SSH_AUTH_SOCK\" ]; then echo 'git@host: Permission denied (publickey).' >&2; exit 255; fi\n\
             for last; do :; done\ncd {} && eval \"exec $(echo \"$last\" | sed s,\'/,\',)\"\n",
            log.display(),
            served.display()
        );
        let program = directory.join("ssh");
        fs::write(&program, script).expect("a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it can be executed");
        Some(Self { scene, upstream })
    }

    /// With the program `ssh` of ours before any other.
    fn with_ssh<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let path = std::env::var("PATH").expect("a search path");
        command.env("PATH", format!("{}:{path}", self.scene.world.path("bin").display()))
    }

    fn calls(&self) -> Vec<String> {
        let log = fs::read_to_string(self.scene.world.path("ssh.log")).unwrap_or_default();
        log.lines().map(ToOwned::to_owned).collect()
    }
}

#[test]
fn a_dockerfile_reaches_repositories_with_the_agent_that_it_was_given() {
    const NAME: &str = "a_dockerfile_reaches_repositories_with_the_agent_that_it_was_given";
    let Some(scene) = Scene::new(NAME) else { return };
    let Some(by_ssh) = ByShell::new(&scene) else { return };
    let socket = scene.world.path("agent");
    let _agent = testkit::agent::Agent::start(&socket).expect("an agent");
    let option = format!("--ssh=default={}", socket.display());
    for add in ["ADD git@host:r.git /src", "ADD ssh://git@host:2222/r.git?subdir=d /src/d"] {
        let mut command = scene.command(add, &[&option]);
        succeed(by_ssh.with_ssh(&mut command).env("SSH_AUTH_SOCK", "/another"));
        assert_eq!(scene.read("src/d/b"), "b");
        let mut again = scene.command(add, &[&option]);
        let said = text(&succeed(by_ssh.with_ssh(&mut again)));
        assert!(!said.contains("ran"), "{said}");
    }
    for call in by_ssh.calls() {
        assert!(call.starts_with(&format!("{}|-F none ", socket.display())), "the given agent: {call}");
        assert!(call.contains("StrictHostKeyChecking=yes") && call.contains("IdentityFile=none"), "{call}");
    }
    by_ssh.upstream.push(&[("a", "two")]);
    let mut changed = scene.command("ADD git@host:r.git /src", &[&option]);
    let said = text(&succeed(by_ssh.with_ssh(&mut changed)));
    assert!(said.contains("ran: git@host:r.git changed"), "{said}");
    scene.world.assert_sound();
}

#[test]
fn a_dockerfile_without_an_agent_has_no_keys() {
    let Some(scene) = Scene::new("a_dockerfile_without_an_agent_has_no_keys") else { return };
    let Some(by_ssh) = ByShell::new(&scene) else { return };
    let mut command = scene.command("ADD git@host:r.git /src", &[]);
    let output =
        by_ssh.with_ssh(&mut command).env("SSH_AUTH_SOCK", "/users").output().expect("rbuild starts");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("--ssh default"), "{}", text(&output));
    assert_eq!(by_ssh.calls(), Vec::<String>::new(), "the user's own keys are his");
}

#[test]
fn a_context_is_fetched_as_the_user_would() {
    let Some(scene) = Scene::new("a_context_is_fetched_as_the_user_would") else { return };
    let Some(by_ssh) = ByShell::new(&scene) else { return };
    by_ssh.upstream.push(&[("Dockerfile", "FROM scratch\nCOPY a /\nCOPY --from=other d /d\n")]);
    let build = |agent: Option<&str>, more: &[(&str, &str)]| {
        let mut command = scene.world.rbuild();
        let output = format!("type=local,dest={}", scene.out().display());
        command.args(["build", "-o", &output, "--build-context=other=ssh://host/r.git", "git@host:r.git"]);
        by_ssh
            .with_ssh(&mut command)
            .envs(agent.map(|agent| ("SSH_AUTH_SOCK", agent)))
            .envs(more.iter().copied());
        command.output().expect("rbuild starts")
    };
    let refused = build(None, &[]);
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused));
    assert!(text(&refused).contains("Permission denied (publickey)"), "{}", text(&refused));
    assert!(text(&refused).contains("ssh-add -l"), "{}", text(&refused));
    let done = build(Some("/users"), &[]);
    assert!(done.status.success(), "{}", text(&done));
    assert_eq!([scene.read("a"), scene.read("d/b")], ["one", "b"]);
    let calls = by_ssh.calls();
    assert!(calls[1..].iter().all(|call| call.starts_with("/users|-o BatchMode=yes ")), "{calls:?}");
    assert!(build(Some("/users"), &[("GIT_SSH_COMMAND", "ssh -4")]).status.success());
    assert!(by_ssh.calls().last().expect("a call").starts_with("/users|-4 "), "{:?}", by_ssh.calls());
    // The command is the user's, and finds his files.
    assert!(
        build(Some("/users"), &[("GIT_SSH_COMMAND", "ssh -i ~/key"), ("HOME", "/home/me")]).status.success()
    );
    let last = by_ssh.calls().pop().expect("a call");
    assert!(last.starts_with("/users|-i /home/me/key "), "{last}");
    scene.world.assert_sound();
}
