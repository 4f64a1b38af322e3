//! `import`, `load`, `save` and `build --output`: images through files, also those of tools that nobody here wrote.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use testkit::Need;

use crate::world::{World, succeed, write_files};

#[track_caller]
fn stdout(output: Output) -> String {
    String::from_utf8(output.stdout).expect("it wrote text").trim_end().to_owned()
}

/// The id of an image.
#[track_caller]
fn id(world: &World, name: &str) -> String {
    let inspected = stdout(succeed(world.rbuild().args(["inspect", name])));
    let document: serde_json::Value = serde_json::from_str(&inspected).expect("JSON");
    document[0]["Id"].as_str().expect("an id").to_owned()
}

/// An image with what archives may get wrong: links of both kinds, whiteouts, owners, modes, an empty layer, a layer twice.
fn make_sample(world: &World) {
    let instructions = "RUN mkdir -m 0750 /d && echo x > /d/f && ln /d/f /d/hard && ln -s f /d/soft && chown 5:6 /d/f && chmod 4755 /d/f\n\
                        RUN rm /d/soft /etc/group && mkfifo /d/pipe\nENV A=b\nLABEL l=\"ü \\\"\"\nCMD [\"cat\", \"/d/hard\"]\n";
    world.make_base("sample", instructions);
}

#[track_caller]
fn assert_runs(world: &World, name: &str) {
    assert_eq!(stdout(succeed(world.rbuild().args(["run", name]))), "x");
}

#[track_caller]
fn assert_refused(command: &mut Command, code: i32, words: &str) {
    let output = command.output().expect("rbuild starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{text}");
    assert!(text.contains(words), "{command:?} should say `{words}`:\n{text}");
}

#[test]
fn a_root_filesystem_is_imported_from_a_file_or_a_pipe_compressed_in_any_way() {
    let Some(world) = World::with_base("a_root_filesystem_is_imported") else { return };
    let tar = world.path("root.tar");
    succeed(
        world
            .rbuild()
            .args(["build", "-q", "-o"])
            .arg(format!("type=tar,dest={}", tar.display()))
            .arg(context(&world, "FROM base\n")),
    );
    let first = stdout(succeed(world.rbuild().arg("import").arg(&tar).arg("plain")));
    assert_eq!(first, id(&world, "plain"));
    let by_pipe = world
        .rbuild()
        .args(["import", "-", "piped:1"])
        .stdin(fs::File::open(&tar).unwrap())
        .output()
        .unwrap();
    assert!(by_pipe.status.success(), "{by_pipe:?}");
    for (program, name) in
        [("gzip", "gzipped"), ("xz", "xzipped"), ("zstd", "zstdipped"), ("bzip2", "bzipped")]
    {
        if !testkit::can_run("a_root_filesystem_is_imported", &[Need::Program(program)]) {
            continue;
        }
        let packed = world.path(name);
        let to = fs::File::create(&packed).unwrap();
        succeed(Command::new(program).arg("-c").arg(&tar).stdout(Stdio::from(to.try_clone().unwrap())));
        let mut pack = Command::new(program);
        pack.arg("-c").arg(&tar).stdout(to);
        assert!(pack.status().unwrap().success());
        succeed(world.rbuild().arg("import").arg(&packed).arg(name));
        assert_eq!(layers(&world, name), layers(&world, "plain"), "{program}");
    }
    assert_eq!(stdout(succeed(world.rbuild().args(["run", "piped:1", "/bin/echo", "hi"]))), "hi");
    world.assert_sound();
}

/// The DiffIDs of an image.
fn layers(world: &World, name: &str) -> String {
    let inspected = stdout(succeed(world.rbuild().args(["inspect", name])));
    let document: serde_json::Value = serde_json::from_str(&inspected).expect("JSON");
    document[0]["RootFS"]["Layers"].to_string()
}

/// A context with one Dockerfile.
fn context(world: &World, dockerfile: &str) -> std::path::PathBuf {
    let directory = world.path("context");
    write_files(&directory, &[("Dockerfile", dockerfile)]);
    directory
}

#[test]
fn what_is_no_root_filesystem_or_no_archive_is_refused_and_leaves_nothing() {
    let Some(world) = World::with_base("what_is_no_root_filesystem") else { return };
    let (archive, garbage) = (world.path("archive.tar"), world.path("garbage"));
    succeed(world.rbuild().args(["save", "base", "-o"]).arg(&archive));
    fs::write(&garbage, "no tar at all, and long enough to be sure of it\n".repeat(100)).unwrap();
    assert_refused(world.rbuild().arg("import").arg(&archive).arg("x"), 1, "rbuild load");
    assert_refused(world.rbuild().arg("import").arg(&garbage).arg("x"), 1, "root filesystem");
    assert_refused(world.rbuild().args(["import", "/no/such/file", "x"]), 2, "/no/such/file");
    assert_refused(world.rbuild().arg("import").arg(&garbage).arg("Upper"), 2, "upper-case");
    assert_refused(world.rbuild().args(["load", "-i"]).arg(&garbage), 1, "archive");
    let bytes = fs::read(&archive).unwrap();
    let cut = world.path("cut.tar");
    let other = World::new();
    for part in [10, 50, 90] {
        fs::write(&cut, &bytes[..bytes.len() * part / 100]).unwrap();
        assert_refused(other.rbuild().args(["load", "-i"]).arg(&cut), 1, "archive");
    }
    let mut changed = bytes;
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(&cut, &changed).unwrap();
    assert!(!other.rbuild().args(["load", "-i"]).arg(&cut).output().unwrap().status.success());
    assert_eq!(stdout(succeed(other.rbuild().args(["images", "--format", "json"]))), "[]");
    other.assert_sound();
}

#[test]
fn an_image_that_is_saved_and_loaded_is_the_same_image() {
    let Some(world) = World::with_base("an_image_that_is_saved_and_loaded") else { return };
    make_sample(&world);
    let before = id(&world, "sample");
    for format in ["oci", "docker"] {
        for compression in ["uncompressed", "gzip", "zstd"] {
            let archive = world.path(&format!("{format}-{compression}.tar"));
            let flags =
                ["save", "--format", format, "--compression", compression, "sample", "base:latest", "-o"];
            succeed(world.rbuild().args(flags).arg(&archive));
            let bytes = fs::read(&archive).unwrap();
            let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
            assert_eq!(has("manifest.json"), format == "docker", "{format} {compression}");
            let packed = ["+gzip", "+zstd"].map(|kind| has(&format!("layer.v1.tar{kind}")));
            assert_eq!(packed, [compression == "gzip", compression == "zstd"], "{format} {compression}");
            let other = World::new();
            let said = stdout(succeed(other.rbuild().args(["load", "-i"]).arg(&archive)));
            assert_eq!(
                said, "Loaded image: base:latest\nLoaded image: sample:latest",
                "{format} {compression}"
            );
            assert_eq!(id(&other, "sample"), before);
            assert_runs(&other, "sample");
            other.assert_sound();
        }
    }
    let piped = succeed(world.rbuild().args(["save", "sample"]));
    let archive = world.path("piped.tar");
    fs::write(&archive, piped.stdout).unwrap();
    let other = World::new();
    let loaded = other.rbuild().arg("load").stdin(fs::File::open(&archive).unwrap()).output().unwrap();
    assert_eq!(stdout(loaded), "Loaded image: sample:latest");
    let by_id = succeed(world.rbuild().args(["save", before.as_str()]));
    fs::write(&archive, by_id.stdout).unwrap();
    let other = World::new();
    assert_eq!(
        stdout(succeed(other.rbuild().args(["load", "-i"]).arg(&archive))),
        format!("Loaded image ID: {before}")
    );
}

#[test]
fn skopeo_and_umoci_take_what_is_written_and_what_they_write_is_loaded() {
    let needs = [Need::Program("skopeo"), Need::Program("umoci")];
    if !testkit::can_run("skopeo_and_umoci_take_what_is_written", &needs) {
        return;
    }
    let Some(world) = World::with_base("skopeo_and_umoci_take_what_is_written") else { return };
    make_sample(&world);
    let context = context(&world, "FROM sample\n");
    let path = |name: &str| world.path(name).display().to_string();
    let mut build = world.rbuild();
    build.args(["build", "-q", "-t", "out"]);
    for output in [
        "type=image".to_owned(),
        format!("type=oci,dest={}", path("oci.tar")),
        format!("type=oci,tar=false,compression=zstd,dest={}", path("layout")),
        format!("type=docker,dest={}", path("docker.tar")),
        format!("type=local,dest={}", path("local")),
    ] {
        build.args(["-o", &output]);
    }
    let metadata = world.path("metadata.json");
    let said = stdout(succeed(
        build.arg("--metadata-file").arg(&metadata).arg("--iidfile").arg(world.path("iid")).arg(&context),
    ));
    assert_eq!(said, id(&world, "out"));
    assert_eq!(fs::read_to_string(world.path("iid")).unwrap(), said);
    let metadata: serde_json::Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.config.digest"], said.as_str());
    assert_eq!(metadata["image.name"], "docker.io/library/out:latest");

    let copied = |source: &str, target: &str| {
        succeed(skopeo(&world).args(["copy", "--insecure-policy", "-q", source, target]));
    };
    copied(&format!("oci-archive:{}", path("oci.tar")), &format!("oci:{}:copied", path("from-oci")));
    copied(&format!("docker-archive:{}", path("docker.tar")), &format!("oci:{}:copied", path("from-docker")));
    copied(&format!("oci:{}", path("layout")), &format!("oci:{}:copied", path("from-layout")));
    copied(
        &format!("oci-archive:{}", path("oci.tar")),
        &format!("docker-archive:{}:again:1", path("again.tar")),
    );
    for from in ["from-oci", "from-docker"] {
        let unpacked = world.path(&format!("{from}-unpacked"));
        succeed(
            Command::new("umoci")
                .args(["unpack", "--image"])
                .arg(format!("{}:copied", path(from)))
                .arg(&unpacked),
        );
        assert_same_tree(&unpacked.join("rootfs"), &world.path("local"));
    }
    let manifest = stdout(succeed(
        skopeo(&world).args(["inspect", "--raw"]).arg(format!("oci-archive:{}", path("oci.tar"))),
    ));
    assert_eq!(metadata["containerimage.digest"], oci::Digest::of(manifest.as_bytes()).to_string());
    let other = World::new();
    assert_eq!(
        stdout(succeed(other.rbuild().args(["load", "-i"]).arg(world.path("again.tar")))),
        "Loaded image: again:1"
    );
    assert_runs(&other, "again:1");
    for directory in ["from-docker", "from-layout"] {
        let loaded = stdout(succeed(other.rbuild().args(["load", "-i"]).arg(world.path(directory))));
        assert!(loaded.starts_with("Loaded image"), "{loaded}");
    }
    other.assert_sound();
}

fn skopeo(world: &World) -> Command {
    let mut command = Command::new("skopeo");
    command.env("HOME", world.path("home")).env("TMPDIR", world.path("context"));
    command
}

/// Compares types, modes, owners, sizes, link targets and contents of two trees, by a listing that neither of the two tools made.
#[track_caller]
fn assert_same_tree(left: &Path, right: &Path) {
    let listing = |top: &Path| {
        let script = "find . -printf '%P %y %m %U:%G %n %l\\n' | sort; find . -type f -print0 | sort -z | xargs -0 sha256sum";
        stdout(succeed(Command::new("sh").args(["-c", script]).current_dir(top)))
    };
    assert!(listing(left) == listing(right), "{} and {} differ", left.display(), right.display());
}

#[test]
fn outputs_replace_only_what_is_of_their_kind() {
    let Some(world) = World::with_base("outputs_replace_only") else { return };
    let context = context(&world, "FROM base\nCOPY Dockerfile /d\n");
    let build = |output: String| {
        let mut command = world.rbuild();
        command.args(["build", "-q", "-o", &output]).arg(&context);
        command
    };
    let path = |name: &str| world.path(name).display().to_string();
    fs::create_dir(world.path("directory")).unwrap();
    fs::write(world.path("directory/other"), "stays").unwrap();
    fs::write(world.path("file"), "goes").unwrap();
    assert_refused(&mut build(format!("type=oci,dest={}", path("directory"))), 2, "is there already");
    assert_refused(
        &mut build(format!("type=oci,tar=false,dest={}", path("directory"))),
        2,
        "is there already",
    );
    assert_refused(&mut build(format!("type=local,dest={}", path("file"))), 2, "is there already");
    assert_eq!(fs::read_to_string(world.path("file")).unwrap(), "goes");
    succeed(&mut build(format!("type=docker,dest={}", path("file"))));
    assert!(fs::metadata(world.path("file")).unwrap().len() > 10_000);
    // As with Docker, files go beside those that are there. No link is followed.
    symlink("/nowhere", world.path("directory/d")).unwrap();
    succeed(&mut build(path("directory")));
    assert_eq!(fs::read_to_string(world.path("directory/other")).unwrap(), "stays");
    assert!(fs::symlink_metadata(world.path("directory/d")).unwrap().is_file());
    let streamed = succeed(&mut build("-".to_owned()));
    let listed = Command::new("tar").arg("-t").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    assert!(stdout(fed(listed, &streamed.stdout)).lines().any(|line| line.trim_start_matches("./") == "d"));
    assert_refused(
        world.rbuild().args(["build", "-o", "-", "-o", "type=oci,dest=-"]).arg(&context),
        2,
        "standard output",
    );
    let left: Vec<_> =
        fs::read_dir(world.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains(".rbuild-")), "{left:?}");
}

/// Gives bytes to a program and waits for its end.
fn fed(mut child: std::process::Child, bytes: &[u8]) -> Output {
    let mut input = child.stdin.take().expect("it was asked for");
    std::thread::scope(|scope| {
        // A program that has seen enough is no failure.
        scope.spawn(move || std::io::Write::write_all(&mut input, bytes).unwrap_or(()));
        child.wait_with_output().expect("a child can be waited for")
    })
}
