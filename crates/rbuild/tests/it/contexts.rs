//! Where Dockerfile and context may come from besides a directory: standard input, as text or as an archive.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use testkit::Need;

use crate::scene::{Scene, Upstream, text};
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
fn a_dockerfile_that_is_a_device_or_never_ends_is_not_read_to_its_end() {
    if !can_run("a_dockerfile_that_is_a_device_or_never_ends_is_not_read_to_its_end") {
        return;
    }
    let world = World::new();
    fs::create_dir(world.path("files")).expect("a directory");
    succeed(Command::new("mknod").arg(world.path("files/Dockerfile")).args(["c", "1", "5"]));
    let archive = with_input(&mut build_to(&world, "out", &["-"]), &tar_of(&world.path("files")));
    assert_refused(&archive, 2, "not a regular file");
    let zeros = build_to(&world, "out", &["-f", "/dev/zero", "."]).output().expect("rbuild starts");
    assert_refused(&zeros, 1, "the file is larger than 16 MiB");
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

/// `rbuild build CONTEXT`, whose result is written out.
fn build_from(scene: &Scene, args: &[&str]) -> Command {
    if scene.out().exists() {
        fs::remove_dir_all(scene.out()).expect("the last result goes");
    }
    let mut command = build_to(&scene.world, "out", args);
    // For git.
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

#[test]
fn what_is_behind_a_url_is_a_dockerfile_or_a_context() {
    let Some(scene) = Scene::new("what_is_behind_a_url_is_a_dockerfile_or_a_context") else { return };
    scene.site.put("/text", b"FROM scratch\nCOPY . /\nCOPY <<f /f\nhi\nf\n");
    let url = scene.site.url("/text");
    assert_done(&build_from(&scene, &[&url]).output().expect("rbuild starts"));
    assert_eq!(names_in(&scene.out()), ["f"]);
    let files = [("sub/Own", COPY_ALL), ("a", "a"), ("hidden", "x"), (".dockerignore", "hidden\nsub\n.d*\n")];
    write_files(&scene.world.path("files"), &files);
    scene.site.put("/tar", &tar_of(&scene.world.path("files")));
    let url = scene.site.url("/tar");
    let sent = scene.site.sent_bytes();
    assert_done(&build_from(&scene, &["-f", "sub/Own", &url]).output().expect("rbuild starts"));
    assert_eq!(names_in(&scene.out()), ["a"]);
    let once = scene.site.sent_bytes();
    assert!(once > sent);
    let said = assert_done(&build_from(&scene, &["-f", "sub/Own", &url]).output().expect("rbuild starts"));
    assert!(!said.contains("ran"), "{said}");
    assert_eq!(scene.site.sent_bytes(), once, "an unchanged context is not fetched again");
    assert_done(&with_input(&mut build_from(&scene, &["-f", "-", &url]), b"FROM scratch\nCOPY a /b\n"));
    assert_eq!(names_in(&scene.out()), ["b"]);
    let missing = build_from(&scene, &[&scene.site.url("/none")]).output().expect("rbuild starts");
    assert_refused(&missing, 3, "status 404");
}

#[test]
fn a_repository_is_a_context() {
    let Some(scene) = Scene::new("a_repository_is_a_context") else { return };
    let Some(upstream) = Upstream::new(&scene, None) else { return };
    let ignore = ("d/.dockerignore", "hidden\nDockerfile\n.d*\n");
    upstream.push(&[("d/Dockerfile", COPY_ALL), ("d/hidden", "x"), ignore]);
    assert_done(&build_from(&scene, &[&upstream.url("#main:d")]).output().expect("rbuild starts"));
    assert_eq!(names_in(&scene.out()), ["b"]);
    assert_done(
        &build_from(&scene, &["-f", "d/Dockerfile", &upstream.url("")]).output().expect("rbuild starts"),
    );
    assert_eq!(names_in(&scene.out()), ["a", "d"]);
    assert_eq!(upstream.transfers(), 1);
    let arguments = scene.world.path("arguments");
    fs::write(&arguments, "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1\n").expect("it is written");
    let file = format!("--build-arg-file={}", arguments.display());
    for keep in ["--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", &file] {
        let mut build = build_from(&scene, &["-f", "d/Dockerfile", keep, &upstream.url("")]);
        assert_done(&build.output().expect("rbuild starts"));
        assert_eq!(names_in(&scene.out()), [".git", "a", "d"]);
    }
    succeed(scene.world.rbuild().args(["explain", "--file", &upstream.url("")]));
    assert_done(&with_input(
        &mut build_from(&scene, &["-f", "-", &upstream.url("")]),
        b"FROM scratch\nCOPY a /x\n",
    ));
    assert_eq!(names_in(&scene.out()), ["x"]);
    for (context, code, words) in [
        ("ext://x".to_owned(), 2, "no context of a known kind"),
        (upstream.url("#nothing"), 2, "no branch, tag or commit `nothing`"),
    ] {
        assert_refused(&build_from(&scene, &[&context]).output().expect("rbuild starts"), code, words);
    }
}

#[test]
fn named_contexts_are_fetched_when_files_are_taken_from_them() {
    let Some(scene) = Scene::new("named_contexts_are_fetched_when_files_are_taken_from_them") else { return };
    let Some(upstream) = Upstream::new(&scene, None) else { return };
    scene.site.put("/f.txt", b"content");
    let (file, repository) =
        (format!("file={}", scene.site.url("/f.txt")), format!("repo={}", upstream.url("#main:d")));
    let args = ["--build-context", &file, "--build-context", &repository];
    scene.build("COPY <<x /x\ntext\nx", &args);
    assert_eq!((scene.site.sent_bytes(), upstream.transfers()), (0, 0), "nobody needs them");
    scene.build("COPY --from=file context /f\nCOPY --from=repo . /r", &args);
    assert_eq!([scene.read("f"), scene.read("r/b")], ["content", "b"]);
    let again = scene.build("COPY --from=file context /f\nCOPY --from=repo . /r", &args);
    assert!(!again.contains("ran"), "{again}");
    scene.site.put("/f.txt", b"other");
    scene.build("COPY --from=file context /f\nCOPY --from=repo . /r", &args);
    assert_eq!(scene.read("f"), "other");
    let output =
        scene.command("COPY --from=x . /", &["--build-context", "x=-"]).output().expect("rbuild starts");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

#[test]
fn an_image_in_a_layout_stands_for_a_name() {
    let Some(world) = World::with_base("an_image_in_a_layout_stands_for_a_name") else { return };
    let context = world.path("context");
    for (tag, text) in [("one", "one"), ("latest", "two")] {
        write_files(
            &context,
            &[("Dockerfile", &format!("FROM base\nCOPY <<f /which\n{text}\nf\nLABEL made=here\n"))],
        );
        let output = format!("type=oci,tar=false,dest={}", world.path(tag).display());
        succeed(
            world.rbuild().args(["build", "-q", "-t", &format!("made:{tag}"), "-o", &output]).arg(&context),
        );
    }
    write_files(&context, &[("Dockerfile", "FROM up\nCOPY --from=up /which /copy\nRUN cat /which /copy\n")]);
    let build = |source: &str, code: i32| {
        let given = format!("up=oci-layout://{source}");
        let mut command = world.rbuild();
        command.args(["build", "--progress=plain", "-t", "app", "--build-context", &given]).arg(&context);
        let output = command.output().expect("rbuild starts");
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        text(&output)
    };
    let directory = |name: &str| world.path(name).display().to_string();
    let said = build(&format!("{}:one", directory("one")), 0);
    assert!(said.contains("| one"), "{said}");
    let again = build(&format!("{}:one", directory("one")), 0);
    assert!(!again.contains("ran"), "{again}");
    assert!(build(&directory("latest"), 0).contains("| two"));
    for name in ["UP", "up::linux/amd64"] {
        let given = format!("{name}=oci-layout://{}:one", directory("one"));
        let mut command = world.rbuild();
        command.args(["build", "-q", "--platform=linux/amd64", "--build-context", &given]);
        succeed(command.arg(&context));
    }
    let index = fs::read(world.path("one/index.json")).expect("a layout");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    let digest = index["manifests"][0]["digest"].as_str().expect("a digest");
    assert!(!build(&format!("{}@{digest}", directory("one")), 0).contains("ran"), "it was built before");
    assert!(build(&format!("{}:none", directory("one")), 1).contains("no image `none`"));
    build("/no/such/directory", 1);
    build(&format!("{}@sha256:x", directory("one")), 2);
    let images = succeed(world.rbuild().args(["images", "--format=json"]));
    assert!(!String::from_utf8_lossy(&images.stdout).contains("up:latest"), "it gets no name here");
}
