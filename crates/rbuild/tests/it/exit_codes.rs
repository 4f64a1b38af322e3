//! The exit codes of `build` and its kin: who is to blame, for a script.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testkit::Need;
use testkit::registry::Registry;

use crate::world::{World, check_code, write_files};

/// Runs rbuild on a context and checks its exit code and what it says.
#[track_caller]
fn check(world: &World, args: &[&str], code: i32, says: &str) {
    let output = world.rbuild().args(args).output().expect("rbuild starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{text}");
    assert!(text.contains(says), "{args:?} does not say {says:?}:\n{text}");
}

fn context(world: &World, name: &str, dockerfile: &str) -> String {
    let context = world.path(name);
    write_files(&context, &[("Dockerfile", dockerfile)]);
    context.display().to_string()
}

#[test]
fn each_kind_of_failure_has_its_exit_code() {
    let Some(world) = World::with_base("each_kind_of_failure_has_its_exit_code") else { return };
    let registry = Registry::start_raw(b"HTTP/1.1 418 teapot\r\nContent-Length: 0\r\n\r\n");
    let good = context(&world, "good", "FROM base\nRUN true\n");
    let broken = context(&world, "broken", "FROM base\nRUM true\n");
    let failing = context(&world, "failing", "FROM base\nRUN exit 5\n");
    let missing = context(&world, "missing", "FROM base\nCOPY nothing /\n");
    let remote = context(&world, "remote", &format!("FROM {}\n", registry.reference("image:1")));
    let nowhere = world.path("nowhere").display().to_string();
    check(&world, &["build", &good], 0, "image sha256:");
    check(&world, &["build", &broken], 1, "error[unknown-instruction]");
    check(&world, &["build", &failing], 1, "error[run-failed]");
    check(&world, &["build", &missing], 1, "error[missing-source]");
    check(&world, &["build"], 2, "<CONTEXT>");
    check(&world, &["build", "--colour", &good], 2, "--colour");
    check(&world, &["build", &nowhere], 2, "error[no-dockerfile]");
    check(&world, &["build", "--target=nothing", &good], 2, "error[unknown-target]");
    check(&world, &["build", "--build-arg", "--tag=Upper", &good], 2, "error");
    check(&world, &["explain", "-f", &nowhere], 2, "error[no-dockerfile]");
    check(&world, &["build", &remote], 3, "error[image-unavailable]");
}

#[test]
fn the_machine_and_the_store_have_an_exit_code_of_their_own() {
    const NAME: &str = "the_machine_and_the_store_have_an_exit_code_of_their_own";
    let Some(world) = World::with_base(NAME) else { return };
    let good = context(&world, "good", "FROM scratch\nCOPY . /\n");
    let elsewhere = |root: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
        let output = command.arg("--root").arg(root).args(["build", &good]).output().expect("rbuild starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let other = world.path("no-store");
    write_files(&other, &[("something", "else")]);
    let (code, text) = elsewhere(&other);
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("error[not-a-store]") && text.contains("`--root`"), "{text}");
    let small = SmallDisk::mount(world.path("small"), "2m");
    fs::write(Path::new(&good).join("large"), vec![1; 8 << 20]).expect("a large file");
    let (code, text) = elsewhere(&small.0.join("store"));
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("error[no-space]") && text.contains("rbuild prune"), "{text}");
}

#[test]
fn an_image_that_there_is_no_room_to_compress_is_built_without() {
    const NAME: &str = "an_image_that_there_is_no_room_to_compress_is_built_without";
    if !testkit::can_run(NAME, &[Need::Root]) {
        return;
    }
    let world = World::new();
    let small = SmallDisk::mount(world.path("small"), "10m");
    let context = context(&world, "context", "FROM scratch\nCOPY noise /\n");
    let mut noise = vec![0; 6 << 20];
    fs::File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut noise)).expect("noise");
    fs::write(Path::new(&context).join("noise"), noise).expect("a large file");
    let build = |args: &[&str]| {
        let mut build = Command::new(env!("CARGO_BIN_EXE_rbuild"));
        build.arg("--root").arg(small.0.join("store")).arg("build").args(args).arg(&context);
        build.output().expect("rbuild starts")
    };
    let check = |args: &[&str]| {
        let output = build(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        text
    };
    let text = check(&["-t", "registry.test/app"]);
    let told = text.lines().find(|line| line.contains("not compressed for a push later: cannot write"));
    assert!(told.is_some_and(|line| line.contains("No space left")), "{text}");
    assert_eq!(check(&["-q", "-t", "registry.test/app"]), "");
    assert!(!check(&["-t", "app"]).contains("compress"));
}

#[test]
fn a_build_that_is_interrupted_ends_at_once_and_says_so() {
    const NAME: &str = "a_build_that_is_interrupted_ends_at_once_and_says_so";
    if !testkit::can_run(NAME, &[Need::Program("taskset")]) {
        return;
    }
    let Some(world) = World::with_base(NAME) else { return };
    let status = fs::read_to_string("/proc/self/status").expect("it is there");
    let allowed = status.split("Cpus_allowed_list:\t").nth(1).expect("a list");
    let processor: String = allowed.chars().take_while(char::is_ascii_digit).collect();
    let check = |dockerfile: &str, args: &[&str], begun: &str| {
        let slow = context(&world, "slow", dockerfile);
        let rbuild = world.rbuild();
        // One processor has enough to do.
        let mut command = Command::new("taskset");
        command.env_clear().env("HOME", world.path("home")).args(["--cpu-list", &processor]);
        command.arg(rbuild.get_program()).args(rbuild.get_args());
        command.args(["build", "--progress=plain"]).args(args).arg(&slow).stderr(Stdio::piped());
        let mut child = command.spawn().expect("rbuild starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains(begun)), "{begun}");
        crate::commands_run::send(&child, crate::commands_run::SIGINT);
        let rest: Vec<String> = lines.collect();
        assert_eq!(child.wait().expect("it ends").code(), Some(130), "{rest:?}");
        assert_eq!(rest.last().map(String::as_str), Some("cancelled"), "{rest:?}");
        world.assert_sound();
    };
    check("FROM base\nRUN echo begun && sleep 60\n", &[], "| begun");
    check(
        // Neither noise nor anything that repeats: the slowest there is to compress.
        "FROM base\nRUN head -c 150000000 /dev/urandom | tr '\\200-\\377' '\\000-\\177' > /large\n",
        &["-o", "type=image,compression=gzip", "-t", "unfinished"],
        "compressing layers for a push later",
    );
    check_code(world.rbuild().args(["inspect", "unfinished"]), 2);
}

/// A file system of few bytes, gone with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf, size: &str) -> Self {
        fs::create_dir(&path).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path);
        assert!(mount.status().expect("mount starts").success());
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let is_unmounted = Command::new("umount").arg(&self.0).status().is_ok_and(|status| status.success());
        assert!(is_unmounted || std::thread::panicking(), "{} stays mounted", self.0.display());
    }
}
