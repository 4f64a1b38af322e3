//! `--squash` and names for other stages: what becomes of the layers at the end.

use serde_json::Value;

use crate::world::{World, succeed, write_files};

fn build(world: &World, args: &[&str]) -> String {
    let mut command = world.rbuild();
    command.args(["build", "--progress=plain", "-t", "app"]).args(args).arg(world.path("context"));
    String::from_utf8_lossy(&succeed(&mut command).stderr).into_owned()
}

fn inspect(world: &World, image: &str) -> Value {
    let output = succeed(world.rbuild().args(["inspect", image]));
    serde_json::from_slice::<Value>(&output.stdout).expect("JSON")[0].clone()
}

fn layers(world: &World, image: &str) -> Vec<Value> {
    inspect(world, image)["RootFS"]["Layers"].as_array().expect("layers").clone()
}

/// Files with all that decides how they are, of an image or of a layer's tar.
fn listing(world: &World, image: &str) -> String {
    let script = "cd / && find . -xdev ! -path './proc*' ! -path './sys*' ! -path './dev*' ! -path './bin/?[!u]*' -exec stat -c '%n %F %a %u:%g' {} + | sort; md5sum d/* e/* 2>/dev/null; true";
    String::from_utf8_lossy(&succeed(world.rbuild().args(["run", image, "sh", "-c", script])).stdout)
        .into_owned()
}

const DOCKERFILE: &str = "FROM base AS tools
RUN mkdir /d && echo one > /d/one && echo two > /d/two && ln /d/one /d/linked && rm /bin/vi
FROM tools AS mid
RUN rm -r /d/two && echo secret > /secret && rm -rf /var && mkdir -m 700 /var
FROM mid
RUN rm /secret && chmod 600 /d/one && mkdir /e && touch /e/f
LABEL a=b
";

#[test]
fn squashed_layers_show_the_same_files_and_keep_no_secret() {
    const NAME: &str = "squashed_layers_show_the_same_files_and_keep_no_secret";
    let Some(world) = World::with_base(NAME) else { return };
    write_files(&world.path("context"), &[("Dockerfile", DOCKERFILE)]);
    build(&world, &[]);
    let (whole, expected) = (layers(&world, "app"), listing(&world, "app"));
    assert_eq!(whole.len(), 4);
    for (args, kept) in [
        (&["--squash"][..], 1),
        (&["--squash=new"], 1),
        (&["--squash=all"], 0),
        (&["--squash=from:tools"], 2),
        (&["--squash=from:0"], 2),
        (&["--squash=from:MID"], 3),
    ] {
        let said = build(&world, args);
        assert!(!said.contains("ran: "), "squashing is of the image, not of the build: {said}");
        let squashed = layers(&world, "app");
        let common = squashed.iter().zip(&whole).take_while(|(a, b)| a == b).count();
        if kept < 3 {
            assert_eq!((squashed.len(), common), (kept + 1, kept), "{args:?}");
        }
        assert_eq!(listing(&world, "app"), expected, "{args:?}");
        let history = succeed(world.rbuild().args(["history", "--format=json", "app"])).stdout;
        let history: Value = serde_json::from_slice(&history).expect("JSON");
        assert!(history.to_string().contains("LABEL a=b"), "the lines stay");
    }
    build(&world, &["--squash"]);
    let archive = world.path("app.tar");
    succeed(world.rbuild().args(["save", "--compression=uncompressed", "-o"]).arg(&archive).arg("app"));
    let bytes = std::fs::read(&archive).expect("an archive");
    let name = b"secret\n";
    assert!(!bytes.windows(name.len()).any(|window| window == name), "what was removed is nowhere");
    world.assert_sound();
}

#[test]
fn a_squashed_layer_is_whole_elsewhere_too() {
    let Some(world) = World::with_base("a_squashed_layer_is_whole_elsewhere_too") else { return };
    let dockerfile = "FROM base AS a
RUN echo f > /file && mkdir -m 711 /kept && echo k > /kept/k
FROM a
RUN mkdir -m 700 /d && chown 5:6 /d && chmod 710 /etc && rm /file && mkdir /file
COPY x /d/x
COPY x /file/x
COPY x /etc/x
COPY x /kept/x
";
    write_files(&world.path("context"), &[("Dockerfile", dockerfile), ("x", "x\n")]);
    build(&world, &[]);
    let expected = listing(&world, "app");
    let other = World::new();
    for squash in ["--squash", "--squash=all", "--squash=from:a"] {
        let archive = world.path(squash);
        build(&world, &[squash, "-o", &format!("type=docker,dest={}", archive.display())]);
        succeed(other.rbuild().args(["load", "-i"]).arg(&archive));
        assert_eq!(listing(&other, "app"), expected, "{squash}");
    }
}

#[test]
fn every_layer_has_a_line_of_history() {
    let Some(world) = World::with_base("every_layer_has_a_line_of_history") else { return };
    let write = |dockerfile: &str| write_files(&world.path("context"), &[("Dockerfile", dockerfile)]);
    write("FROM base\nRUN true\nRUN true\n");
    build(&world, &["--omit-history"]);
    world.rbuild().args(["tag", "app", "untold"]).status().expect("rbuild starts");
    write("FROM untold\nRUN echo a > /a\nRUN echo b > /b\nRUN echo c > /c\n");
    for (args, layers) in [(&[][..], 6), (&["--squash"], 4), (&["--squash=all"], 1)] {
        build(&world, args);
        let archive = world.path("layout");
        let output = format!("type=oci,tar=false,dest={}", archive.display());
        build(&world, &[args, &["-o", &output]].concat());
        let blob = |entry: &Value| {
            let digest = entry["digest"].as_str().expect("a digest").replace(':', "/");
            let bytes = std::fs::read(archive.join("blobs").join(digest)).expect("a blob");
            serde_json::from_slice::<Value>(&bytes).expect("JSON")
        };
        let index = std::fs::read(archive.join("index.json")).expect("an index");
        let index: Value = serde_json::from_slice(&index).expect("JSON");
        let config = blob(&blob(&index["manifests"][0])["config"]);
        let with_layer = |entry: &&Value| entry["empty_layer"] != true;
        let lines = config["history"].as_array().expect("lines").iter().filter(with_layer).count();
        let diff_ids = config["rootfs"]["diff_ids"].as_array().expect("layers").len();
        assert_eq!((lines, diff_ids), (layers, layers), "{args:?}: {}", config["history"]);
        std::fs::remove_dir_all(&archive).expect("the layout goes");
    }
}

#[test]
fn what_cannot_be_squashed_is_refused() {
    let Some(world) = World::with_base("what_cannot_be_squashed_is_refused") else { return };
    write_files(&world.path("context"), &[("Dockerfile", DOCKERFILE)]);
    for (option, words) in
        [("--squash=from:other", "is not made FROM a stage"), ("--squash=some", "from:STAGE")]
    {
        let mut command = world.rbuild();
        let output =
            command.args(["build", option]).arg(world.path("context")).output().expect("rbuild starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn another_stage_gets_a_name_and_is_built_for_it() {
    const NAME: &str = "another_stage_gets_a_name_and_is_built_for_it";
    let Some(world) = World::with_base(NAME) else { return };
    let dockerfile = "FROM base AS deps\nRUN echo deps > /deps\nFROM base AS Unused\nRUN echo x > /x\nFROM deps\nRUN echo app > /app\n";
    write_files(&world.path("context"), &[("Dockerfile", dockerfile)]);
    let said = build(&world, &["-t", "deps=deps:1", "-t", "unused=other", "-t", "deps=deps:2"]);
    assert!(said.contains("3 steps ran"), "each once: {said}");
    let files = |image: &str, files: &str| {
        let script = format!("ls {files} 2>/dev/null");
        let output = succeed(world.rbuild().args(["run", image, "sh", "-c", &format!("{script}; true")]));
        String::from_utf8_lossy(&output.stdout).split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(files("app", "/deps /app /x"), ["/app", "/deps"]);
    assert_eq!(files("deps:1", "/deps /app /x"), ["/deps"]);
    assert_eq!(files("other", "/deps /app /x"), ["/x"]);
    assert_eq!(inspect(&world, "deps:1")["Id"], inspect(&world, "deps:2")["Id"]);
    let mut command = world.rbuild();
    let output =
        command.args(["build", "-t", "dep=x"]).arg(world.path("context")).output().expect("rbuild starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("did you mean"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    world.assert_sound();
}
