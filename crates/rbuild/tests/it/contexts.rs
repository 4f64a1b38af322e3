//! Where Dockerfile and context may come from besides a directory: standard input, as text or as an archive.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use testkit::Need;

use crate::world::{World, succeed, write_files};

/// Shows a file of a context without any base image: an image with nothing else, written out.
const COPY_ALL: &str = "FROM scratch\nCOPY . /\n";

/// Runs a command with bytes as its standard input.
fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("rbuild starts");
    let mut stdin = child.stdin.take().expect("it was asked for");
    // A command that refuses its arguments does not read.
    stdin.write_all(input).ok();
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// `rbuild build ARGS…`, whose result is written to `out`.
fn build_to(world: &World, out: &str, args: &[&str]) -> Command {
    let mut command = world.rbuild();
    let out = format!("type=local,dest={}", world.path(out).display());
    command.args(["build", "--progress=plain", "-o", &out]).args(args).current_dir(world.path("."));
    command
}

#[track_caller]
fn assert_done(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

#[track_caller]
fn assert_refused(output: &Output, code: i32, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(words), "should say `{words}`:\n{text}");
}

/// The tar of a directory, made by tar(1).
fn tar_of(directory: &Path) -> Vec<u8> {
    succeed(Command::new("tar").arg("-C").arg(directory).args(["-cf", "-", "."])).stdout
}

fn names_in(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<String> =
        names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn can_run(test: &str) -> bool {
    testkit::can_run(test, &[Need::Root])
}

#[test]
fn a_dockerfile_from_standard_input_has_no_context() {
    if !can_run("a_dockerfile_from_standard_input_has_no_context") {
        return;
    }
    let world = World::new();
    write_files(&world.path("."), &[("beside", "x")]);
    assert_done(&with_input(
        &mut build_to(&world, "out", &["-"]),
        b"FROM scratch\nCOPY . /\nCOPY <<f /f\nhi\nf\n",
    ));
    assert_eq!(names_in(&world.path("out")), ["f"]);
    let again =
        with_input(&mut build_to(&world, "out2", &["-"]), b"FROM scratch\nCOPY . /\nCOPY <<f /f\nhi\nf\n");
    let said = assert_done(&again);
    assert!(!said.contains("ran"), "nothing changed, so nothing runs: {said}");
    succeed(world.rbuild().args(["explain", "--file", "-"]));
    let bad = with_input(&mut build_to(&world, "out3", &["-"]), b"FROM scratch\nCOPI x y\n");
    assert_refused(&bad, 1, "Dockerfile:2:1");
    world.assert_sound();
}

#[test]
fn a_dockerfile_from_standard_input_builds_a_directory() {
    if !can_run("a_dockerfile_from_standard_input_builds_a_directory") {
        return;
    }
    let world = World::new();
    write_files(
        &world.path("context"),
        &[("a", "a"), ("Dockerfile", "FROM nowhere\n"), (".dockerignore", "D*\n.d*\n")],
    );
    assert_done(&with_input(&mut build_to(&world, "out", &["-f", "-", "context"]), COPY_ALL.as_bytes()));
    assert_eq!(names_in(&world.path("out")), ["a"]);
    let both = with_input(&mut build_to(&world, "out", &["-f", "-", "-"]), COPY_ALL.as_bytes());
    assert_refused(&both, 2, "cannot both come from standard input");
}

#[test]
fn an_archive_from_standard_input_is_the_context_packed_in_any_way() {
    const NAME: &str = "an_archive_from_standard_input_is_the_context_packed_in_any_way";
    if !can_run(NAME) {
        return;
    }
    let world = World::new();
    let files = [
        ("Dockerfile", COPY_ALL),
        ("d/a", "a"),
        ("hidden", "x"),
        (".dockerignore", "hidden\nDockerfile\n.d*\n"),
    ];
    write_files(&world.path("files"), &files);
    let tar = tar_of(&world.path("files"));
    let plain = assert_done(&with_input(&mut build_to(&world, "plain", &["-"]), &tar));
    assert!(plain.contains("for the first time"), "{plain}");
    assert_eq!(names_in(&world.path("plain")), ["d"]);
    assert_eq!(fs::read(world.path("plain/d/a")).expect("a file"), b"a");
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        if !testkit::can_run(NAME, &[Need::Program(program)]) {
            continue;
        }
        let packed = with_input(Command::new(program).arg("-c"), &tar).stdout;
        let said = assert_done(&with_input(&mut build_to(&world, program, &["-"]), &packed));
        assert!(!said.contains("ran"), "the same files were built before: {said}");
        assert_eq!(names_in(&world.path(program)), ["d"]);
    }
    world.assert_sound();
}

#[test]
fn the_dockerfile_of_an_archive_is_found_in_it_and_nowhere_else() {
    if !can_run("the_dockerfile_of_an_archive_is_found_in_it_and_nowhere_else") {
        return;
    }
    let world = World::new();
    write_files(
        &world.path("files"),
        &[("sub/Own", COPY_ALL), ("sub/Own.dockerignore", "secret\n"), ("secret", "x")],
    );
    let tar = tar_of(&world.path("files"));
    assert_done(&with_input(&mut build_to(&world, "out", &["-f", "sub/Own", "-"]), &tar));
    assert_eq!(names_in(&world.path("out")), ["sub"]);
    assert_refused(
        &with_input(&mut build_to(&world, "out", &["-"]), &tar),
        2,
        "cannot read the Dockerfile `Dockerfile`",
    );
    write_files(&world.path("."), &[("host.Dockerfile", "FROM scratch\n")]);
    symlink(world.path("host.Dockerfile"), world.path("files/Dockerfile")).expect("a link");
    let tar = tar_of(&world.path("files"));
    assert_refused(
        &with_input(&mut build_to(&world, "out", &["-"]), &tar),
        2,
        "cannot read the Dockerfile `Dockerfile`",
    );
    let text = with_input(&mut build_to(&world, "out", &["-f", "sub/Own", "-"]), COPY_ALL.as_bytes());
    assert_refused(&text, 2, "are a Dockerfile");
}

#[test]
fn an_archive_that_breaks_off_or_climbs_out_is_refused() {
    if !can_run("an_archive_that_breaks_off_or_climbs_out_is_refused") {
        return;
    }
    let world = World::new();
    write_files(&world.path("files"), &[("Dockerfile", COPY_ALL), ("large", &"x".repeat(100_000))]);
    let tar = tar_of(&world.path("files"));
    let cut = with_input(&mut build_to(&world, "out", &["-"]), &tar[..tar.len() / 2]);
    assert_refused(&cut, 1, "error[bad-context]");
    let climbing = succeed(Command::new("tar").args(["-C"]).arg(world.path("files")).args([
        "--transform",
        "s,^large,../../../outside,",
        "-P",
        "-cf",
        "-",
        "Dockerfile",
        "large",
    ]));
    // Clamped like a member of a layer, or refused: never outside.
    with_input(&mut build_to(&world, "out", &["-"]), &climbing.stdout);
    for directory in [world.path("outside"), world.store().join("outside"), world.store().join("tmp/outside")]
    {
        assert!(!directory.exists(), "{}", directory.display());
    }
    world.assert_sound();
}

#[test]
fn default_names_are_tried_in_order() {
    if !can_run("default_names_are_tried_in_order") {
        return;
    }
    let world = World::new();
    let context = world.path("context");
    for name in ["Containerfile", "dockerfile", "Dockerfile"] {
        write_files(&context, &[(name, &format!("FROM scratch\nCOPY <<f /{name}\nf\n"))]);
        assert_done(&build_to(&world, name, &["context"]).output().expect("rbuild starts"));
        assert_eq!(names_in(&world.path(name)), [name]);
    }
}

#[test]
fn a_containerignore_wins_over_a_dockerignore() {
    if !can_run("a_containerignore_wins_over_a_dockerignore") {
        return;
    }
    let world = World::new();
    let files = [
        ("Dockerfile", COPY_ALL),
        ("a", ""),
        ("b", ""),
        (".containerignore", "a\n.*\nD*\n"),
        (".dockerignore", "b\n"),
    ];
    write_files(&world.path("context"), &files);
    assert_done(&build_to(&world, "out", &["context"]).output().expect("rbuild starts"));
    assert_eq!(names_in(&world.path("out")), ["b"]);
}
