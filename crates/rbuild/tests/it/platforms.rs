//! Builds for other platforms, and for several at once.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testkit::Need;
use testkit::rootfs;

use crate::world::{World, succeed, write_files};

const BOTH: &str = "linux/amd64,linux/arm64";

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// `rbuild build ARGS…` of the context.
fn build(world: &World, args: &[&str]) -> String {
    let mut command = world.rbuild();
    command.args(["build", "--progress=plain"]).args(args).arg(world.path("context"));
    String::from_utf8_lossy(&succeed(&mut command).stderr).into_owned()
}

/// A store with an image `base` for amd64 and arm64, whose shell says of which it is.
pub(crate) fn with_both(test: &str) -> Option<World> {
    if !testkit::can_run(test, &[Need::Root, Need::Busybox, Need::ForeignBusybox, Need::Program("skopeo")]) {
        return None;
    }
    let world = World::new();
    for (architecture, busybox) in
        [("amd64", rootfs::busybox()), ("arm64", Some(rootfs::foreign_busybox_path()))]
    {
        let root = world.path("roots").join(architecture);
        fs::create_dir_all(&root).expect("a directory");
        rootfs::make_with(&root, &busybox.expect("it was looked for")).expect("a busybox root");
    }
    let dockerfile = world.path("base.Dockerfile");
    fs::write(&dockerfile, "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\nENV PATH=/bin\n")
        .expect("a file");
    let mut command = world.rbuild();
    command.args(["build", "-q", "-t", "base", "--platform", BOTH, "-f"]).arg(&dockerfile);
    succeed(command.arg(world.path("roots")));
    Some(world)
}

#[test]
fn two_platforms_are_built_into_one_image_each_with_its_own_files() {
    let Some(world) = with_both("two_platforms_are_built_into_one_image_each_with_its_own_files") else {
        return;
    };
    let dockerfile =
        "FROM base\nARG TARGETPLATFORM\nLABEL of=$TARGETPLATFORM\nCOPY f /f\nRUN uname -m > /machine\n";
    write_files(&world.path("context"), &[("Dockerfile", dockerfile), ("f", "f")]);
    let said = build(&world, &["-t", "app", "--platform", BOTH]);
    assert!(
        said.contains("[linux/arm64 stage-0 3/3]") && said.contains("[linux/amd64 stage-0 3/3]"),
        "{said}"
    );
    // Kept here: the machine's own platform by itself, the other by asking.
    for (args, machine) in [
        (&["run", "app"][..], "x86_64"),
        (&["run", "--platform=linux/arm64", "app"], "aarch64"),
        (&["run", "--platform", "local", "app"], "x86_64"),
    ] {
        let output = succeed(world.rbuild().args(args).args(["cat", "/machine"]));
        assert_eq!(text(&output.stdout), machine, "{args:?}");
    }
    let listed = json(&succeed(world.rbuild().args(["images", "--format=json"])).stdout);
    let named = |image: &&Value| image["names"].to_string().contains("app");
    let listed: Vec<&Value> = listed.as_array().expect("a list").iter().filter(named).collect();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let again = build(&world, &["-t", "app", "--platform", BOTH]);
    assert!(!again.contains("ran"), "nothing changed: {again}");
    check_archive(&world);
    // One name for all, to give and to take.
    succeed(world.rbuild().args(["tag", "app", "other"]));
    succeed(world.rbuild().args(["rmi", "app"]));
    let output = succeed(world.rbuild().args(["run", "--platform=linux/arm64", "other", "cat", "/machine"]));
    assert_eq!(text(&output.stdout), "aarch64");
    succeed(world.rbuild().args(["rmi", "other", "base"]));
    let left = json(&succeed(world.rbuild().args(["images", "--format=json"])).stdout);
    assert_eq!(left.as_array().map(Vec::len), Some(0), "{left}");
    world.assert_sound();
}

/// What another tool finds in an archive of `app`.
fn check_archive(world: &World) {
    let archive = world.path("app.tar");
    succeed(world.rbuild().args(["save", "--format=oci", "-o"]).arg(&archive).arg("app"));
    let source = format!("oci-archive:{}", archive.display());
    let index = json(&succeed(Command::new("skopeo").args(["inspect", "--raw", &source])).stdout);
    let platforms: Vec<String> = index["manifests"]
        .as_array()
        .expect("an index")
        .iter()
        .map(|entry| format!("{} {}", entry["platform"]["os"], entry["platform"]["architecture"]))
        .collect();
    assert_eq!(platforms, ["\"linux\" \"amd64\"", "\"linux\" \"arm64\""]);
    let layout = format!("oci:{}", world.path("copied").display());
    succeed(Command::new("skopeo").args(["copy", "--quiet", "--all", &source, &layout]));
    for (architecture, machine) in [("amd64", "x86_64"), ("arm64", "aarch64")] {
        let of = ["--override-os", "linux", "--override-arch", architecture, "inspect"];
        let config = json(&succeed(Command::new("skopeo").args(of).args(["--config", &source])).stdout);
        assert_eq!(config["architecture"], architecture);
        assert_eq!(config["config"]["Labels"]["of"], format!("linux/{architecture}"));
        let inspected = json(&succeed(Command::new("skopeo").args(of).arg(&layout)).stdout);
        assert_eq!(inspected["Layers"].as_array().map(Vec::len), Some(3));
        let top = inspected["Layers"][2].as_str().expect("a digest").replace(':', "/");
        let blob = world.path("copied/blobs").join(top);
        let file = succeed(Command::new("tar").args(["-xzOf"]).arg(blob).arg("machine"));
        assert_eq!(text(&file.stdout), machine);
    }
}

#[test]
fn what_is_the_same_for_all_platforms_is_done_once() {
    let Some(world) = with_both("what_is_the_same_for_all_platforms_is_done_once") else { return };
    let dockerfile = "FROM --platform=$BUILDPLATFORM base AS tool\nRUN uname -m > /built-on\n\
        FROM --platform=$BUILDPLATFORM tool AS cross\nARG TARGETARCH\nRUN echo for $TARGETARCH > /made\n\
        FROM scratch\nCOPY --from=cross /built-on /made /\n";
    write_files(&world.path("context"), &[("Dockerfile", dockerfile)]);
    let said = build(
        &world,
        &["--platform", BOTH, "-o", &format!("type=local,dest={}", world.path("out").display())],
    );
    assert!(said.contains("5 steps ran for the first time"), "one, two and two: {said}");
    for architecture in ["amd64", "arm64"] {
        let of = |name: &str| {
            fs::read_to_string(world.path("out").join(format!("linux_{architecture}")).join(name))
        };
        assert_eq!(of("built-on").expect("a file").trim(), "x86_64");
        assert_eq!(of("made").expect("a file").trim(), format!("for {architecture}"));
    }
    let tar = world.path("out.tar");
    build(&world, &["--platform", BOTH, "-o", &format!("type=tar,dest={}", tar.display())]);
    assert_eq!(
        members(&tar),
        [
            "linux_amd64/",
            "linux_amd64/built-on",
            "linux_amd64/made",
            "linux_arm64/",
            "linux_arm64/built-on",
            "linux_arm64/made"
        ]
    );
}

/// Below the root.
fn members(tar: &Path) -> Vec<String> {
    let listed = succeed(Command::new("tar").arg("-tf").arg(tar));
    let lines = text(&listed.stdout);
    lines.lines().filter(|line| *line != "./").map(|line| line.trim_start_matches("./").to_owned()).collect()
}

#[test]
fn an_image_for_another_platform_is_built_without_running_anything() {
    const NAME: &str = "an_image_for_another_platform_is_built_without_running_anything";
    if !testkit::can_run(NAME, &[Need::Root]) {
        return;
    }
    let world = World::new();
    write_files(
        &world.path("context"),
        &[
            ("Dockerfile", "FROM scratch\nARG TARGETPLATFORM\nLABEL of=$TARGETPLATFORM\nCOPY f /\n"),
            ("f", "f"),
        ],
    );
    let platform = |name: &str| {
        let shown = json(&succeed(world.rbuild().args(["inspect", name])).stdout);
        let shown = &shown[0];
        format!("{} {} {}", shown["Architecture"], shown["Variant"], shown["Config"]["Labels"]["of"])
    };
    build(&world, &["-t", "app", "--platform=linux/arm/v6"]);
    assert_eq!(platform("app"), "\"arm\" \"v6\" \"linux/arm/v6\"");
    let mut command = world.rbuild();
    command.env("DOCKER_DEFAULT_PLATFORM", "linux/riscv64").args(["build", "-q", "-t", "app"]);
    succeed(command.arg(world.path("context")));
    assert_eq!(platform("app"), "\"riscv64\" null \"linux/riscv64\"");
    let mut command = world.rbuild();
    let output =
        command.args(["build", "--platform=linux/"]).arg(world.path("context")).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("`--platform linux/`"), "{}", text(&output.stderr));
}

#[test]
fn a_foreign_program_without_an_emulator_is_refused_with_the_way_out() {
    const NAME: &str = "a_foreign_program_without_an_emulator_is_refused_with_the_way_out";
    if !testkit::can_run(NAME, &[Need::Root]) {
        return;
    }
    let world = World::new();
    // The header of a program for a processor that nobody emulates (elf(5): EM_NONE).
    let mut program = vec![0; 64];
    program[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    program[16] = 2;
    fs::create_dir(world.path("context")).expect("a directory");
    fs::write(world.path("context/sh"), program).expect("a file");
    let dockerfile = ("Dockerfile", "FROM scratch\nCOPY --chmod=755 sh /bin/sh\nRUN true\n");
    write_files(&world.path("context"), &[dockerfile]);
    let mut command = world.rbuild();
    command.args(["build", "--platform=linux/s390x"]).arg(world.path("context"));
    let output = command.output().expect("rbuild starts");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in
        ["error[foreign-platform]", "Dockerfile:3:1", "for linux/s390x", "binfmt_misc", "qemu-user-static"]
    {
        assert!(said.contains(words), "should say `{words}`:\n{said}");
    }
    write_files(&world.path("context"), &[("Dockerfile", "FROM scratch\nCOPY --chmod=755 sh /bin/sh\n")]);
    build(&world, &["--platform=linux/s390x", "-t", "app"]);
    let output = world.rbuild().args(["run", "app", "/bin/sh"]).output().expect("rbuild starts");
    assert_eq!(output.status.code(), Some(126));
    assert!(text(&output.stderr).contains("qemu-user-static"), "{}", text(&output.stderr));
}

#[test]
fn a_step_that_fails_for_one_of_several_platforms_says_for_which() {
    const NAME: &str = "a_step_that_fails_for_one_of_several_platforms_says_for_which";
    let Some(world) = World::with_base(NAME) else { return };
    let dockerfile = "FROM --platform=$BUILDPLATFORM base AS compiled\n\
        RUN true\nARG TARGETARCH\nRUN test $TARGETARCH != s390x\nFROM scratch\nCOPY --from=compiled /etc/passwd /\n";
    write_files(&world.path("context"), &[("Dockerfile", dockerfile)]);
    let mut command = world.rbuild();
    command.args(["build", "--platform=linux/arm64,linux/s390x", "--progress=plain"]);
    let output = command.arg(world.path("context")).output().expect("rbuild starts");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("in stage `compiled` on linux/amd64 for linux/s390x, step 3 of 3"), "{said}");
    assert!(said.contains("[linux/amd64->s390x compiled 3/3] "), "{said}");
    assert!(said.contains("shell compiled@3 ") && said.contains("--platform linux/s390x"), "{said}");
    // What all have in common is told of none.
    assert!(said.contains("[linux/amd64 compiled 2/3] "), "{said}");
}
