//! `images`, `rmi`, `tag`, `history`, `inspect`, `version`, `info`: what is shown, to a person and as JSON.

use std::process::Command;

use expect_test::{Expect, expect};
use serde_json::{Value, json};
use testkit::Need;
use testkit::registry::{MANIFEST, Registry};

use crate::world::{World, succeed};

/// A tar with one empty file, always the same bytes.
fn tar() -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..4].copy_from_slice(b"file");
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(b"00000000003");
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header.to_vec();
    tar.extend_from_slice(b"abc");
    tar.resize(3 * 1024, 0);
    tar
}

/// Puts an image into a registry that uses most of what a config can say. Its time lies so far ahead that no clock changes what is shown.
fn add_app(registry: &Registry) {
    let tar = tar();
    let config = json!({
        "created": "2999-01-02T03:04:05Z", "author": "somebody", "architecture": "amd64", "os": "linux",
        "config": {
            "User": "5", "ExposedPorts": { "80/tcp": {} }, "Env": ["A=b"], "Entrypoint": ["/file"], "Cmd": ["x"],
            "Volumes": { "/v": {} }, "WorkingDir": "/w", "Labels": { "l": "m" }, "StopSignal": "SIGINT",
        },
        "history": [
            { "created": "2999-01-02T03:04:04Z", "created_by": "COPY file /\nfile", "comment": "buildkit" },
            { "created": "2999-01-02T03:04:05Z", "created_by": "ENV A=\u{1b}[31mb", "empty_layer": true },
        ],
        "rootfs": { "type": "layers", "diff_ids": [testkit::registry::digest(&tar)] },
    });
    let descriptor = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": registry.add_blob(bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes()),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &tar)],
    });
    registry.tag("app", "1", &registry.add_blob(manifest.to_string()));
}

/// A store with the same image every time, named `app:1` and `other/app:2`.
fn world_with_app() -> World {
    let registry = Registry::start();
    add_app(&registry);
    let world = World::new();
    let name = registry.reference("app:1");
    succeed(world.rbuild().args(["pull", "--platform", "linux/amd64", &name]));
    for target in ["app:1", "other/app:2"] {
        succeed(world.rbuild().args(["tag", &name, target]));
    }
    succeed(world.rbuild().args(["rmi", &name]));
    world
}

#[track_caller]
fn check(world: &World, args: &[&str], expected: Expect) {
    let output = world.rbuild().args(args).output().expect("rbuild starts");
    let text = |bytes| String::from_utf8(bytes).expect("it wrote text");
    let code = output.status.code().unwrap_or(-1);
    expected.assert_eq(&format!("{}{}({code})\n", text(output.stdout), text(output.stderr)));
}

fn shown(command: &mut Command) -> Value {
    serde_json::from_slice(&succeed(command).stdout).expect("JSON")
}

#[test]
fn images_are_listed_by_name_and_as_json() {
    let world = world_with_app();
    check(
        &world,
        &["images"],
        expect![[r#"
            REPOSITORY  TAG  IMAGE ID      CREATED        SIZE
            app         1    d15e33915e49  in the future  3 B
            other/app   2    d15e33915e49  in the future  3 B
            (0)
        "#]],
    );
    check(
        &world,
        &["images", "-q"],
        expect![[r#"
            d15e33915e49
            (0)
        "#]],
    );
    check(
        &world,
        &["images", "--format", "json"],
        expect![[r#"
            [
              {
                "id": "sha256:d15e33915e49913d4aacbbd1eef61aa2ef53f25462bf071d44421e415dd8de22",
                "names": [
                  "app:1",
                  "other/app:2"
                ],
                "created": "2999-01-02T03:04:05Z",
                "platform": "linux/amd64",
                "size_bytes": 3,
                "digests": [
                  "sha256:88347468efb55ff8abfe86ab406139522f8c86a76f3fb4ee6f47ade774a6e295"
                ]
              }
            ]
            (0)
        "#]],
    );
}

#[test]
fn an_image_is_described_as_docker_does() {
    let world = world_with_app();
    check(
        &world,
        &["inspect", "app:1"],
        expect![[r#"
            [
              {
                "Id": "sha256:d15e33915e49913d4aacbbd1eef61aa2ef53f25462bf071d44421e415dd8de22",
                "RepoTags": [
                  "app:1",
                  "other/app:2"
                ],
                "RepoDigests": [
                  "app@sha256:88347468efb55ff8abfe86ab406139522f8c86a76f3fb4ee6f47ade774a6e295",
                  "other/app@sha256:88347468efb55ff8abfe86ab406139522f8c86a76f3fb4ee6f47ade774a6e295"
                ],
                "Comment": "",
                "Created": "2999-01-02T03:04:05Z",
                "Author": "somebody",
                "Config": {
                  "User": "5",
                  "ExposedPorts": {
                    "80/tcp": {}
                  },
                  "Env": [
                    "A=b"
                  ],
                  "Entrypoint": [
                    "/file"
                  ],
                  "Cmd": [
                    "x"
                  ],
                  "Volumes": {
                    "/v": {}
                  },
                  "WorkingDir": "/w",
                  "Labels": {
                    "l": "m"
                  },
                  "StopSignal": "SIGINT"
                },
                "Architecture": "amd64",
                "Os": "linux",
                "Size": 3,
                "RootFS": {
                  "Type": "layers",
                  "Layers": [
                    "sha256:5c49716388b403d1687e53b1cf7ec772c24c257fadb5930c2ef2d260d2e2b953"
                  ]
                }
              }
            ]
            (0)
        "#]],
    );
    check(
        &world,
        &["history", "app:1"],
        expect![[r#"
            CREATED        CREATED BY        SIZE  COMMENT
            in the future  ENV A=␛[31mb
            in the future  COPY file / file  3 B   buildkit
            (0)
        "#]],
    );
    check(
        &world,
        &["history", "--format", "json", "app:1"],
        expect![[r#"
            [
              {
                "created": "2999-01-02T03:04:05Z",
                "created_by": "ENV A=\u001b[31mb",
                "comment": "",
                "layer": null,
                "size_bytes": 0
              },
              {
                "created": "2999-01-02T03:04:04Z",
                "created_by": "COPY file /\nfile",
                "comment": "buildkit",
                "layer": "sha256:1d9cbdf92c2cf77bde5f78775783549de4ae519908655d6ca861f112fc402804",
                "size_bytes": 3
              }
            ]
            (0)
        "#]],
    );
}

#[test]
fn what_is_not_there_is_named_and_what_is_there_shown() {
    let world = world_with_app();
    check(
        &world,
        &["history", "aap:1"],
        expect![[r#"
        error[no-image]: there is no image `aap:1`
         |
         = help: did you mean `app:1`?
        (2)
    "#]],
    );
    let output = world.rbuild().args(["inspect", "app:1", "nowhere"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON, also then");
    assert_eq!((shown.as_array().map(Vec::len), output.status.code()), (Some(1), Some(2)));
}

#[test]
fn names_are_given_and_taken_and_the_last_takes_the_image_along() {
    let world = world_with_app();
    let names =
        |world: &World| shown(world.rbuild().args(["images", "--format", "json"]))[0]["names"].to_string();
    succeed(world.rbuild().args(["tag", "app:1", "third"]));
    assert_eq!(names(&world), r#"["app:1","third:latest","other/app:2"]"#);
    check(
        &world,
        &["rmi", "third", "nowhere"],
        expect![[r#"
        Untagged: third:latest
        error[no-image]: there is no image `nowhere`
         |
         = help: `rbuild images` lists those that are here
        (2)
    "#]],
    );
    let id = shown(world.rbuild().args(["inspect", "app:1"]))[0]["Id"].as_str().unwrap().to_owned();
    check(
        &world,
        &["rmi", &id[7..19]],
        expect![[r#"
        error[name]: image sha256:d15e33915e49913d4aacbbd1eef61aa2ef53f25462bf071d44421e415dd8de22 has 2 names: app:1, other/app:2
         |
         = help: remove them one by one, or all of them with the image: `--force`
        (2)
    "#]],
    );
    check(
        &world,
        &["tag", "app:1", "Upper"],
        expect![[r#"
        error[name]: `Upper` cannot be the name of an image
         |
         = note: repository name `Upper` has an upper-case letter
         = help: a name looks like `app`, `app:1.2` or `registry.example.com/team/app:1.2`
        (2)
    "#]],
    );
    check(
        &world,
        &["rmi", "--force", &id],
        expect![[r#"
        Untagged: app:1
        Untagged: other/app:2
        Deleted: sha256:d15e33915e49913d4aacbbd1eef61aa2ef53f25462bf071d44421e415dd8de22
        (0)
    "#]],
    );
    check(
        &world,
        &["images", "--format", "json"],
        expect![[r#"
        []
        (0)
    "#]],
    );
    world.assert_sound();
}

#[test]
fn version_and_info_say_what_a_machine_can_read() {
    if !testkit::can_run("version_and_info_say", &[Need::Root]) {
        return;
    }
    let world = World::new();
    let version = shown(world.rbuild().args(["version", "--format", "json"]));
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let info = shown(world.rbuild().args(["info", "--format", "json"]));
    assert_eq!(info["store"]["root"], world.store().canonicalize().unwrap().display().to_string());
    assert_eq!((&info["store"]["images"], &info["run_network"]), (&Value::from(0), &Value::from("host")));
    assert!(info["machine"]["kernel"].is_string() && info["machine"]["lowered"].is_array(), "{info}");
    let text = String::from_utf8(succeed(world.rbuild().arg("info")).stdout).unwrap();
    assert!(text.contains("network of RUN: the machine's own"), "{text}");
    for sentence in info["machine"]["lowered"].as_array().unwrap() {
        assert!(text.contains(sentence.as_str().unwrap()), "{text}");
    }
}
