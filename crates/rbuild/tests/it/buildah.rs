//! Options of `build` that buildah has and docker has not: each does its job.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::world::{World, succeed, write_files};

fn world(test: &str, dockerfile: &str) -> Option<World> {
    let world = World::with_base(test)?;
    write_files(&world.path("context"), &[("Dockerfile", dockerfile)]);
    Some(world)
}

fn try_build(world: &World, args: &[&str]) -> Output {
    let mut command = world.rbuild();
    command.args(["build", "--progress=plain", "-t", "app"]).args(args).arg(world.path("context"));
    command.output().expect("rbuild starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the build wrote to standard error.
fn build(world: &World, args: &[&str]) -> String {
    let output = try_build(world, args);
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    said(&output)
}

fn refused(world: &World, args: &[&str], words: &str) {
    let output = try_build(world, args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {}", said(&output));
    assert!(said(&output).contains(words), "{args:?}: {}", said(&output));
}

fn inspect(world: &World) -> Value {
    let output = succeed(world.rbuild().args(["inspect", "app"]));
    serde_json::from_slice::<Value>(&output.stdout).expect("JSON")[0].clone()
}

fn run(world: &World, script: &str) -> String {
    let output = succeed(world.rbuild().args(["run", "app", "sh", "-c", script]));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn arguments_come_from_files() {
    let dockerfile = "FROM base\nARG A=0\nARG B=0\nARG C=0\nRUN echo \"$A|$B|$C\" > /args\n";
    let Some(world) = world("arguments_come_from_files", dockerfile) else { return };
    let (one, two) = (world.path("one"), world.path("two"));
    fs::write(&one, "# settings\n\n  A=one = 1\nB=one\n").expect("written");
    fs::write(&two, "B=two\nC=two\n").expect("written");
    let files =
        ["--build-arg-file", one.to_str().expect("UTF-8"), "--build-arg-file", two.to_str().expect("UTF-8")];
    build(&world, &[&files[..], &["--build-arg=C=three"]].concat());
    assert_eq!(run(&world, "cat /args"), "one = 1|two|three\n");
    refused(&world, &["--build-arg-file=/nowhere"], "cannot read `/nowhere`");
}

#[test]
fn another_image_stands_for_the_first_from() {
    let dockerfile =
        "ARG BASE\nFROM $BASE AS first\nRUN cat /which > /first\nFROM base\nCOPY --from=first /first /\n";
    let Some(world) = world("another_image_stands_for_the_first_from", dockerfile) else { return };
    world.make_base("other", "RUN echo other > /which");
    build(&world, &["--from=other"]);
    assert_eq!(run(&world, "cat /first; ls /which 2>&1 | wc -l"), "other\n1\n");
    refused(&world, &["--from=No good"], "is no image name");
    write_files(&world.path("context"), &[("Dockerfile", "FROM base\nCOPY Dockerfile /\n")]);
    build(&world, &["--from=scratch"]);
    assert_eq!(inspect(&world)["RootFS"]["Layers"].as_array().map(Vec::len), Some(1));
}

#[test]
fn another_file_says_what_is_left_out() {
    let Some(world) = world("another_file_says_what_is_left_out", "FROM base\nCOPY . /c/\n") else { return };
    write_files(
        &world.path("context"),
        &[("a", ""), ("b", ""), (".dockerignore", "a\n"), ("Dockerfile.dockerignore", "*\n")],
    );
    let file = world.path("ignore");
    fs::write(&file, "b\n*ockerfile*\n.*\n").expect("written");
    build(&world, &["--ignorefile", file.to_str().expect("UTF-8")]);
    assert_eq!(run(&world, "ls /c"), "a\n");
    refused(&world, &["--ignorefile=/nowhere"], "there is no ignore file `/nowhere`");
}

#[test]
fn the_image_gets_and_loses_what_the_command_line_says() {
    const NAME: &str = "the_image_gets_and_loses_what_the_command_line_says";
    let dockerfile =
        "FROM labelled\nENV KEPT=1 GONE=2\nLABEL own=1 gone=2\nRUN echo \"${ADDED-unset}\" > /seen\n";
    let Some(world) = world(NAME, dockerfile) else { return };
    world.make_base("labelled", "LABEL from=base\nENV BASE=1");
    let of = |key: &str| inspect(&world)["Config"][key].clone();
    build(&world, &[]);
    assert_eq!(of("Labels"), serde_json::json!({ "from": "base", "gone": "2", "own": "1" }));
    build(
        &world,
        &[
            "--unsetlabel=gone",
            "--inherit-labels=false",
            "--env=ADDED=3",
            "--env=UNKNOWN",
            "--unsetenv=GONE",
            "--unsetenv=BASE",
            "--label=new=4",
        ],
    );
    assert_eq!(of("Labels"), serde_json::json!({ "new": "4", "own": "1" }));
    let env = of("Env").to_string();
    assert!(env.contains("KEPT=1") && env.contains("ADDED=3"), "{env}");
    assert!(!["GONE", "BASE", "UNKNOWN"].iter().any(|name| env.contains(name)), "{env}");
    assert_eq!(run(&world, "cat /seen"), "unset\n");
    let history = |args: &[&str]| {
        build(&world, args);
        let output = succeed(world.rbuild().args(["history", "--format=json", "app"]));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(history(&[]).contains("LABEL own"));
    assert!(!history(&["--omit-history"]).contains("LABEL own"));
    for nameless in ["--env==x", "--label==x", "--build-arg==x"] {
        refused(&world, &[nameless], "it has no name");
    }
    assert_eq!(run(&world, "cat /seen"), "unset\n");
}

#[test]
fn the_image_and_its_files_are_of_one_time() {
    let Some(world) = world("the_image_and_its_files_are_of_one_time", "FROM base\nRUN echo x > /f\n") else {
        return;
    };
    let mut command = world.rbuild();
    command.env("SOURCE_DATE_EPOCH", "5").args(["build", "-t", "app", "--timestamp=1000"]);
    succeed(command.arg(world.path("context")));
    assert_eq!(inspect(&world)["Created"], "1970-01-01T00:16:40Z");
    assert_eq!(run(&world, "stat -c %Y /f"), "1000\n");
    refused(&world, &["--timestamp=-1"], "-1 is not in 0..");
}

#[test]
fn steps_ask_the_servers_that_were_named() {
    let Some(world) =
        world("steps_ask_the_servers_that_were_named", "FROM base\nRUN cat /etc/resolv.conf > /seen\n")
    else {
        return;
    };
    build(&world, &["--dns=10.9.8.7", "--dns=::1", "--dns-search=a.example", "--dns-option=ndots:3"]);
    let seen = run(&world, "grep -v '^#' /seen");
    assert!(
        seen.ends_with("nameserver 10.9.8.7\nnameserver ::1\nsearch a.example\noptions ndots:3\n"),
        "{seen}"
    );
    assert_eq!(seen.matches("nameserver").count(), 2);
    refused(&world, &["--dns=server"], "invalid value 'server'");
}

#[test]
fn old_results_are_made_again() {
    let Some(world) = world("old_results_are_made_again", "FROM base\nRUN echo a\nRUN echo b\n") else {
        return;
    };
    let ran = |args: &[&str]| build(&world, args).matches("  ran").count();
    let first = build(&world, &[]);
    assert!(first.contains("2 steps ran"), "{first}");
    assert_eq!(ran(&["--cache-ttl=1h"]), 0);
    let again = build(&world, &["--cache-ttl=0s"]);
    assert!(again.contains("2 steps ran because of `--cache-ttl`"), "{again}");
    assert_eq!(ran(&["--cache-ttl=1d"]), 0);
    // A step that is new stands on steps that are old.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    write_files(&world.path("context"), &[("Dockerfile", "FROM base\nRUN echo a\nRUN echo b\nRUN echo c\n")]);
    assert!(build(&world, &[]).contains("1 step ran"));
    let aged = build(&world, &["--cache-ttl=1s"]);
    assert!(aged.contains("3 steps ran because of `--cache-ttl`"), "{aged}");
    let explained = succeed(world.rbuild().args(["explain", "--file"]).arg(world.path("context/Dockerfile")));
    let explained = String::from_utf8_lossy(&explained.stdout);
    assert!(explained.contains("its result is older than wanted"), "{explained}");
    refused(&world, &["--cache-ttl=soon"], "`--cache-ttl soon` is no duration");
}

#[test]
fn stages_that_nobody_needs_are_built_if_they_are_wanted() {
    let dockerfile = "FROM base AS unused\nRUN false\nFROM base\nRUN true\n";
    let Some(world) = world("stages_that_nobody_needs_are_built_if_they_are_wanted", dockerfile) else {
        return;
    };
    build(&world, &[]);
    let output = try_build(&world, &["--skip-unused-stages=false"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("RUN false"), "{}", said(&output));
}

#[test]
fn what_is_said_goes_to_a_file() {
    let Some(world) = world("what_is_said_goes_to_a_file", "FROM base\nRUN echo spoken\n") else {
        return;
    };
    let log = world.path("log");
    fs::write(&log, "before\n").expect("written");
    let option = format!("--logfile={}", log.display());
    assert_eq!(build(&world, &[&option]), "");
    let text = fs::read_to_string(&log).expect("a log");
    assert!(text.starts_with("before\n") && text.contains("spoken"), "{text}");
    write_files(&world.path("context"), &[("Dockerfile", "FROM base\nRUN exit 3\n")]);
    let output = try_build(&world, &[&option]);
    assert_eq!(output.status.code(), Some(1));
    let text = fs::read_to_string(&log).expect("a log");
    assert!(
        text.contains("exited with status 3") && said(&output).contains("exited with status 3"),
        "{text}"
    );
    assert!(!said(&output).contains("1 step"), "{}", said(&output));
    refused(&world, &["--logfile=/nowhere/log"], "cannot write the log `/nowhere/log`");
}

#[test]
fn steps_see_what_the_machine_shows_them() {
    let dockerfile =
        "FROM base\nRUN cat /mnt/data/f > /seen; touch /mnt/data/made; cat /etc/one >> /seen; true\n";
    let Some(world) = world("steps_see_what_the_machine_shows_them", dockerfile) else { return };
    let (data, one) = (world.path("data"), world.path("one"));
    write_files(&data, &[("f", "shown\n")]);
    fs::write(&one, "single\n").expect("written");
    let volume = |access: &str| format!("--volume={}:/mnt/data{access}", data.display());
    let single = format!("-v={}:/etc/one:ro", one.display());
    build(&world, &[&volume(":ro"), &single]);
    assert_eq!(run(&world, "cat /seen; ls -d /mnt /etc/one 2>&1 | wc -l"), "shown\nsingle\n2\n");
    assert!(!data.join("made").exists());
    // What it holds does not count; that it can be written does.
    write_files(&data, &[("f", "changed\n")]);
    assert!(!build(&world, &[&volume(":ro"), &single]).contains("ran: "));
    let said = build(&world, &[&volume(""), &single]);
    assert!(said.contains("ran: mount /mnt/data changed"), "{said}");
    assert!(data.join("made").exists());
    assert!(build(&world, &[]).contains("ran: "));
    refused(&world, &["--volume=/nowhere:/x"], "cannot use `/nowhere`");
    refused(&world, &["--volume=/tmp"], "SOURCE:TARGET");
    assert!(!std::path::Path::new("/nowhere").exists());
    world.assert_sound();
}
