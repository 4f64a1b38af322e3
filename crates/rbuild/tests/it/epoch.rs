//! `SOURCE_DATE_EPOCH`: builds whose results do not say when they were made.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use testkit::site::Validators;

use crate::scene::{Scene, Upstream};
use crate::world::{World, succeed, write_files};

const EPOCH: i64 = 1_700_000_001;
const THEN: &str = "2023-11-14T22:13:21Z";

fn build(world: &World, args: &[&str]) -> String {
    let mut command = world.rbuild();
    command.args(["build", "--progress=plain"]).args(args).arg(world.path("context"));
    String::from_utf8_lossy(&succeed(&mut command).stderr).into_owned()
}

fn inspect(world: &World, image: &str) -> Value {
    let output = succeed(world.rbuild().args(["inspect", image]));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn modified(path: &Path) -> i64 {
    fs::symlink_metadata(path).expect("a file").mtime()
}

#[test]
fn with_an_epoch_two_builds_on_two_days_give_one_image() {
    const NAME: &str = "with_an_epoch_two_builds_on_two_days_give_one_image";
    let Some(world) = World::with_base(NAME) else { return };
    let dockerfile = "FROM base\nWORKDIR /w/x\nCOPY . .\nRUN echo made > made\nLABEL a=b\nCMD [\"sh\"]\n";
    write_files(&world.path("context"), &[("Dockerfile", dockerfile), ("f", "f"), ("d/g", "g")]);
    let epoch = format!("SOURCE_DATE_EPOCH={EPOCH}");
    let args = ["--build-arg", &epoch, "--no-cache", "-o", "type=image,rewrite-timestamp=true", "-t"];
    build(&world, &[&args[..], &["one"]].concat());
    // Another checkout of the same files.
    fs::remove_file(world.path("context/f")).expect("a file");
    write_files(&world.path("context"), &[("f", "f")]);
    build(&world, &[&args[..], &["two"]].concat());
    let (one, two) = (inspect(&world, "one"), inspect(&world, "two"));
    assert_eq!(one[0]["Id"], two[0]["Id"]);
    assert_eq!(one[0]["Created"], THEN);
    let history = succeed(world.rbuild().args(["history", "--format=json", "one"])).stdout;
    let history: Value = serde_json::from_slice(&history).expect("JSON");
    let lines = history.as_array().expect("lines");
    let ours = lines.iter().filter(|line| line["created"] == THEN).count();
    assert_eq!((ours, lines.len() - ours), (5, 2), "the lines of the base image are its own: {history:#}");
    let said = build(&world, &["-o", "type=image,rewrite-timestamp=true"]);
    assert!(said.contains("warning[no-epoch]"), "{said}");
    world.assert_sound();
}

#[test]
fn an_epoch_is_the_time_of_what_the_build_makes_and_of_nothing_else() {
    const NAME: &str = "an_epoch_is_the_time_of_what_the_build_makes_and_of_nothing_else";
    let Some(world) = World::with_base(NAME) else { return };
    let dockerfile =
        "FROM base\nWORKDIR /w\nCOPY f f\nCOPY <<inline .\ninline\nRUN touch made && stat -c %Y f > seen\n";
    write_files(&world.path("context"), &[("Dockerfile", dockerfile), ("f", "f")]);
    let mut command = world.rbuild();
    command.args(["build", "-q", "-t", "app"]).arg(world.path("context"));
    succeed(command.env("SOURCE_DATE_EPOCH", EPOCH.to_string()));
    let script = "stat -c %Y /w/f /w/inline /w/made; cat /w/seen";
    let output = succeed(world.rbuild().args(["run", "app", "sh", "-c", script])).stdout;
    let text = String::from_utf8(output).expect("numbers");
    let times: Vec<i64> = text.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!([times[0], times[1], times[3]], [EPOCH; 3]);
    assert!(times[2] > EPOCH, "what a RUN writes has its own time: {times:?}");
}

#[test]
fn files_that_are_written_out_have_the_epoch_too() {
    let Some(scene) = Scene::new("files_that_are_written_out_have_the_epoch_too") else { return };
    let epoch = format!("--build-arg=SOURCE_DATE_EPOCH={EPOCH}");
    scene.build("COPY <<d/f /d/\nx\nd/f\nCOPY <<f /e/f\nx\nf", &[&epoch]);
    for path in ["d", "e", "e/f"] {
        assert_eq!(modified(&scene.out().join(path)), EPOCH, "{path}");
    }
}

#[test]
fn another_epoch_is_another_result_and_the_cause_that_is_told() {
    const NAME: &str = "another_epoch_is_another_result_and_the_cause_that_is_told";
    let Some(world) = World::with_base(NAME) else { return };
    let dockerfile = "FROM base\nRUN echo first > /first\nCOPY f /f\nRUN stat -c %Y /f > /seen\n";
    write_files(&world.path("context"), &[("Dockerfile", dockerfile), ("f", "f")]);
    let seen = |epoch: &str| {
        let said = build(&world, &["--build-arg", &format!("SOURCE_DATE_EPOCH={epoch}"), "-t", "app"]);
        let seen = succeed(world.rbuild().args(["run", "app", "cat", "/seen"])).stdout;
        (said, String::from_utf8_lossy(&seen).trim().to_owned())
    };
    assert_eq!(seen("5").1, "5");
    let (said, time) = seen("6");
    assert_eq!(time, "6");
    assert!(said.contains("COPY f /f") && said.contains("ran: time changed"), "{said}");
    assert!(!said.contains("RUN echo first > /first  ran"), "it sees no file that the build dates: {said}");
    let (said, time) = seen("5");
    assert_eq!(time, "5");
    assert!(!said.contains("ran: "), "{said}");
}

#[test]
fn the_epoch_may_be_that_of_what_is_fetched() {
    let Some(scene) = Scene::new("the_epoch_may_be_that_of_what_is_fetched") else { return };
    write_files(&scene.world.path("files"), &[("f", "x")]);
    let archive = scene.world.path("a.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(scene.world.path("files")).args(["--mtime=@1234567890", "-cf"]).arg(&archive).arg("f");
    succeed(&mut tar);
    scene.site.put("/a.tar", &fs::read(&archive).expect("an archive"));
    scene.site.put_with("/f", b"x", Validators::Date("Sun, 06 Nov 1994 08:49:37 GMT".to_owned()));
    let check = |source: &str, args: &[&str], expected: Option<i64>| {
        let stage = format!("ADD {} /\nFROM scratch\nCOPY <<end /x\nx\nend", scene.site.url(source));
        let text = format!("ARG SOURCE_DATE_EPOCH=source\nFROM scratch AS source\n{stage}\n");
        let mut command = scene.command("COPY <<x /x\nx\nx", args);
        write_files(&scene.world.path("context"), &[("Dockerfile", &text)]);
        succeed(&mut command);
        let made = modified(&scene.out().join("x"));
        assert_eq!((made < EPOCH).then_some(made), expected, "{source} {args:?}");
    };
    check("/a.tar", &[], Some(1_234_567_890));
    check("/f", &[], Some(784_111_777));
    check("/f", &["--build-arg=SOURCE_DATE_EPOCH=context"], None);
    let context = format!("--build-context=other={}", scene.site.url("/f"));
    check("/a.tar", &[&context, "--build-arg=SOURCE_DATE_EPOCH=other"], Some(784_111_777));
    if let Some(upstream) = Upstream::new(&scene, None) {
        let context = format!("--build-context=other={}", upstream.url(""));
        check("/a.tar", &[&context, "--build-arg=SOURCE_DATE_EPOCH=other"], Some(1_600_000_000));
    }
}

#[test]
fn the_epoch_of_a_context_is_that_of_its_commit_or_its_youngest_file() {
    let Some(scene) = Scene::new("the_epoch_of_a_context_is_that_of_its_commit_or_its_youngest_file") else {
        return;
    };
    let Some(upstream) = Upstream::new(&scene, None) else { return };
    let dockerfile = ("Dockerfile", "FROM scratch\nCOPY a /a\n");
    upstream.push(&[dockerfile]);
    write_files(&scene.world.path("files"), &[dockerfile, ("a", "a")]);
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(scene.world.path("files")).args(["--mtime=@1234567890", "-c", "."]);
    let archive = succeed(&mut tar).stdout;
    fs::write(scene.world.path("a.tar"), &archive).expect("a file");
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=context"];
    let check = |context: &str, input: Stdio, expected: i64| {
        if scene.out().exists() {
            fs::remove_dir_all(scene.out()).expect("the last result goes");
        }
        let mut command = scene.world.rbuild();
        // For git.
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let out = format!("type=local,dest={}", scene.out().display());
        command.args(["build", "-o", &out]).args(epoch).arg(context);
        succeed(command.stdin(input));
        assert_eq!(modified(&scene.out().join("a")), expected, "{context}");
    };
    check(&upstream.url(""), Stdio::null(), 1_600_000_000);
    let file = fs::File::open(scene.world.path("a.tar")).expect("a file");
    check("-", file.into(), 1_234_567_890);
}
