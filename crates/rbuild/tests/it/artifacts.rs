//! `--artifact`: files of stages on this machine, of builds that succeed and of those that fail.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Output;

use crate::world::{World, succeed, write_files};

fn world(test: &str, dockerfile: &str) -> Option<World> {
    let world = World::with_base(test)?;
    write_files(&world.path("context"), &[("Dockerfile", dockerfile)]);
    Some(world)
}

fn build(world: &World, artifacts: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = world.rbuild();
    command.args(["build", "-t", "app"]).args(args);
    for (from, to) in artifacts {
        command.arg("--artifact").arg(format!("{from}={}", world.path(to).display()));
    }
    command.arg(world.path("context")).output().expect("rbuild starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn names(world: &World, directory: &str) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.expect("an entry").file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<String> =
        fs::read_dir(world.path(directory)).expect("a directory").map(name).collect();
    names.sort();
    names
}

const SUITE: &str = "FROM base AS Test
RUN mkdir -m 750 /out && echo setup > /out/setup && ln -s /out /link && echo gone > /out/gone
RUN echo 1 > /out/one && ln /out/one /out/same && ln -s one /out/to && chown 7:8 /out/one && rm /out/gone
FROM base
RUN echo app > /app
";

#[test]
fn files_of_a_stage_are_written() {
    let Some(world) = world("files_of_a_stage_are_written", SUITE) else { return };
    let all = [("test:/out", "a"), ("TEST:/link/", "b"), ("0:/out/one", "c"), ("test:/out/to", "d")];
    let output = build(&world, &all, &[]);
    assert!(output.status.success(), "{}", said(&output));
    for directory in ["a", "b"] {
        assert_eq!(names(&world, directory), ["one", "same", "setup", "to"], "{directory}");
        let at = |name: &str| world.path(directory).join(name);
        let one = fs::metadata(at("one")).expect("a file");
        assert_eq!((one.uid(), one.gid(), one.nlink()), (7, 8, 2));
        assert_eq!(one.ino(), fs::metadata(at("same")).expect("a file").ino());
        assert_eq!(fs::read_link(at("to")).expect("a link").to_str(), Some("one"));
        assert_eq!(fs::metadata(world.path(directory)).expect("it").permissions().mode() & 0o777, 0o750);
    }
    assert_eq!(fs::read_to_string(world.path("c/one")).expect("a file"), "1\n");
    assert_eq!(fs::read_to_string(world.path("d/to")).expect("a file"), "1\n", "links are followed");
    // What is there stays.
    fs::write(world.path("a/mine"), "mine").expect("written");
    fs::write(world.path("a/one"), "another").expect("written");
    assert!(build(&world, &all, &[]).status.success());
    assert_eq!(names(&world, "a"), ["mine", "one", "same", "setup", "to"]);
    assert_eq!(fs::read_to_string(world.path("a/one")).expect("a file"), "1\n");
    world.assert_sound();
}

#[test]
fn a_build_that_fails_gives_what_it_has() {
    const NAME: &str = "a_build_that_fails_gives_what_it_has";
    let failing = "FROM base AS deps
RUN mkdir /deps && echo deps > /deps/f
FROM base AS test
RUN mkdir /out && echo setup > /out/setup && echo old > /out/report
COPY --from=deps /deps /out/deps
RUN echo failures > /out/report && rm /out/setup && mkdir /out/logs && echo log > /out/logs/1 && false
RUN echo never > /out/never
FROM test AS later
RUN true
FROM base
COPY --from=test /out /out
";
    let Some(world) = world(NAME, failing) else { return };
    for again in ["first", "second"] {
        let at = |name: &str| format!("{again}-{name}");
        let (out, deps, later, none) = (at("out"), at("deps"), at("later"), at("none"));
        let all: [(&str, &str); 4] = [
            ("test:/out", &out),
            ("deps:/deps", &deps),
            ("later:/out/report", &later),
            ("test:/out/never", &none),
        ];
        let output = build(&world, &all, &[]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("exited with status 1"), "{}", said(&output));
        assert!(said(&output).contains("there is no `/out/never` in stage `test` yet"), "{}", said(&output));
        assert_eq!(names(&world, &out), ["deps", "logs", "report"]);
        let read = |path: String| fs::read_to_string(world.path(&path)).expect("a file");
        assert_eq!(read(format!("{out}/report")), "failures\n");
        assert_eq!(read(format!("{out}/logs/1")), "log\n");
        assert_eq!(read(format!("{deps}/f")), "deps\n");
        assert_eq!(read(format!("{later}/report")), "failures\n");
        assert!(!world.path(&none).exists());
    }
    world.assert_sound();
}

#[test]
fn a_stage_on_a_base_that_an_earlier_one_names_is_one_stage() {
    const NAME: &str = "a_stage_on_a_base_that_an_earlier_one_names_is_one_stage";
    let dockerfile = "FROM base AS one
RUN echo 1 > /one
FROM base AS test
RUN mkdir /rep && cat /proc/sys/kernel/random/uuid > /rep/r && exit $((FAIL))
FROM base
COPY --from=one /one /one
COPY --from=test /rep/r /r
";
    let Some(world) = world(NAME, dockerfile) else { return };
    let output = build(&world, &[("test:/rep", "out")], &["--no-cache"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("4 steps ran"), "{}", said(&output));
    let printed = succeed(world.rbuild().args(["run", "app", "cat", "/r"])).stdout;
    assert_eq!(fs::read(world.path("out/r")).expect("a file"), printed);
    let failing = dockerfile.replace("$((FAIL))", "7");
    write_files(&world.path("context"), &[("Dockerfile", &failing)]);
    let output = build(&world, &[("test:/rep", "failed")], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(names(&world, "failed"), ["r"], "{}", said(&output));
}

#[test]
fn a_step_that_is_no_run_fails_upon_what_was_there() {
    const NAME: &str = "a_step_that_is_no_run_fails_upon_what_was_there";
    let dockerfile = "FROM base AS test\nRUN echo two > /two\nCOPY --from=base /missing /\n";
    let Some(world) = world(NAME, dockerfile) else { return };
    let output = build(&world, &[("test:/two", "out")], &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(names(&world, "out"), ["two"]);
}

#[test]
fn an_artifact_that_is_not_there_fails_a_build() {
    let Some(world) = world("an_artifact_that_is_not_there_fails_a_build", SUITE) else { return };
    for (from, code, words) in [
        ("test:/nothing", 1, "there is no `/nothing` in stage `test`"),
        ("test:/out/one/below", 1, "there is no `/out/one/below`"),
        ("tset:/out", 2, "did you mean `test`"),
        ("test/out", 2, "STAGE:/PATH=DIRECTORY"),
    ] {
        let output = build(&world, &[(from, "out")], &[]);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
        assert!(!world.path("out").exists());
    }
    let kept = world.rbuild().args(["inspect", "app"]).output().expect("rbuild starts");
    assert!(!kept.status.success(), "and nothing is kept");
}

#[test]
fn each_platform_has_a_directory() {
    const NAME: &str = "each_platform_has_a_directory";
    let Some(world) =
        world(NAME, "FROM scratch AS files\nARG TARGETARCH\nCOPY <<end /d/$TARGETARCH\nend\nFROM scratch\n")
    else {
        return;
    };
    let output = build(&world, &[("files:/d", "out")], &["--platform=linux/amd64,linux/arm64"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(names(&world, "out"), ["linux_amd64", "linux_arm64"]);
    assert_eq!(names(&world, "out/linux_arm64"), ["arm64"]);
    let missing = build(&world, &[("files:/d/amd64", "x")], &["--platform=linux/amd64,linux/arm64"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(said(&missing).contains("stage `files` for linux/arm64"), "{}", said(&missing));
    succeed(world.rbuild().args(["inspect", "app"]));
}
