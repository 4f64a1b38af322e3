//! `--ssh` and `RUN --mount=type=ssh`: a step reaches the agent it was given, and only that.

use std::fs;
use std::path::Path;
use std::process::Command;

use testkit::agent::Agent;
use testkit::leftovers::assert_nothing_left;
use testkit::requirements::{Need, can_run};

use crate::world::{World, succeed, write_files};

#[track_caller]
fn build(world: &World, dockerfile: &str, options: &[&str]) -> (Option<i32>, String) {
    let context = world.path("context");
    write_files(&context, &[("Dockerfile", dockerfile)]);
    let mut command = world.rbuild();
    command.args(["build", "--no-cache", "--progress", "plain"]).args(options).arg(context);
    let output = command.env_remove("SSH_AUTH_SOCK").output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_step_finds_the_socket_it_asks_for() {
    let Some(world) = World::with_base("a_step_finds_the_socket_it_asks_for") else { return };
    let socket = world.path("real");
    let _agent = Agent::start(&socket).unwrap();
    let option = format!("default={}", socket.display());
    let stat = "stat -c '%a %u:%g %F' $SSH_AUTH_SOCK; echo at $SSH_AUTH_SOCK";
    let (code, said) =
        build(&world, &format!("FROM base\nRUN --mount=type=ssh {stat}\n"), &["--ssh", &option]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("600 0:0 socket") && said.contains("at /run/buildkit/ssh_agent.0"), "{said}");

    let flags = "type=ssh,id=other,target=/agent,mode=0666,uid=5,gid=6";
    let option = format!("other={}", socket.display());
    let (code, said) =
        build(&world, &format!("FROM base\nRUN --mount={flags} {stat}\n"), &["--ssh", &option]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("666 5:6 socket") && said.contains("at /agent"), "{said}");

    // Not given and not required: the step runs without. No trace of it is in the layer.
    let (code, said) =
        build(&world, "FROM base\nRUN --mount=type=ssh echo \"[$SSH_AUTH_SOCK]\"; ls /run\n", &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("| []"), "{said}");
    world.assert_sound();
}

#[test]
fn an_agent_that_must_be_there_and_is_not_fails_the_step() {
    let Some(world) = World::with_base("an_agent_that_must_be_there_and_is_not_fails_the_step") else {
        return;
    };
    let (code, said) = build(&world, "FROM base\nRUN --mount=type=ssh,id=deploy,required true\n", &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("ssh agent `deploy` is required") && said.contains("--ssh deploy="), "{said}");
    let (code, said) = build(&world, "FROM base\n", &["--ssh", "default"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("SSH_AUTH_SOCK is not set"), "{said}");
}

#[test]
fn a_key_file_gets_an_agent_of_its_own_that_ends_with_the_build() {
    let test = "a_key_file_gets_an_agent_of_its_own_that_ends_with_the_build";
    let Some(world) = World::with_base(test) else { return };
    if !can_run(test, &[Need::Program("ssh-add"), Need::Program("ssh-agent"), Need::Program("ssh-keygen")]) {
        return;
    }
    let root = world.path("root");
    fs::create_dir(&root).unwrap();
    testkit::rootfs::make_busybox(&root).unwrap();
    testkit::rootfs::add_program(&root, Path::new("/usr/bin/ssh-add")).unwrap();
    write_files(&root, &[("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")]);
    let dockerfile = world.path("client.Dockerfile");
    fs::write(&dockerfile, "FROM scratch\nCOPY . /\nENV PATH=/usr/bin:/bin\n").unwrap();
    succeed(
        world.rbuild().args(["build", "--quiet", "--tag", "client", "--file"]).arg(&dockerfile).arg(&root),
    );
    let key = world.path("key");
    let mut keygen = Command::new("ssh-keygen");
    succeed(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
    let option = format!("default={}", key.display());
    let list = "FROM client\nRUN --mount=type=ssh ssh-add -l && ! ssh-add -D\n";
    let (code, said) = build(&world, list, &["--ssh", &option]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("(ED25519)"), "{said}");
    let processes = Command::new("pgrep").args(["-f", "ssh-agent -D -a agent"]).output().unwrap();
    assert_eq!(String::from_utf8(processes.stdout).unwrap(), "");

    fs::write(&key, "no key").unwrap();
    let (code, said) = build(&world, "FROM base\n", &["--ssh", &option]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("cannot read the key"), "{said}");
    assert_nothing_left(&world.store());
}
