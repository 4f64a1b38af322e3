//! Annotations, and the fields of `--output` that are about names and places.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::world::{World, succeed, write_files};

fn world(test: &str) -> Option<World> {
    let world = World::with_base(test)?;
    write_files(&world.path("context"), &[("Dockerfile", "FROM scratch\nCOPY f /\n"), ("f", "f\n")]);
    Some(world)
}

fn build(world: &World, args: &[&str]) {
    succeed(world.rbuild().args(["build", "-t", "app"]).args(args).arg(world.path("context")));
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a document")).expect("JSON")
}

fn blob(layout: &Path, entry: &Value) -> Value {
    let digest = entry["digest"].as_str().expect("a digest").strip_prefix("sha256:").expect("SHA-256");
    json(&layout.join("blobs/sha256").join(digest))
}

#[test]
fn annotations_stand_where_they_are_meant_to() {
    let Some(world) = world("annotations_stand_where_they_are_meant_to") else { return };
    let layout = world.path("layout");
    let output = format!("type=oci,tar=false,dest={},annotation.f=6", layout.display());
    let mut args = vec!["--platform=linux/amd64,linux/arm64", "-o", &output];
    for annotation in [
        "a=1",
        "manifest[linux/arm64]:b=2",
        "index:c=3",
        "index-descriptor:d=4",
        "manifest-descriptor:e=5",
        "manifest-descriptor,index:g=7",
    ] {
        args.extend(["--annotation", annotation]);
    }
    build(&world, &args);
    let top = &json(&layout.join("index.json"))["manifests"][0];
    assert_eq!(top["annotations"]["d"], "4");
    assert_eq!(top["annotations"]["org.opencontainers.image.ref.name"], "latest");
    assert_eq!(top["annotations"]["e"], Value::Null);
    let index = blob(&layout, top);
    assert_eq!(index["annotations"], serde_json::json!({ "c": "3", "g": "7" }));
    let [amd64, arm64] = [&index["manifests"][0], &index["manifests"][1]];
    assert_eq!(amd64["annotations"], serde_json::json!({ "e": "5", "g": "7" }));
    assert_eq!(arm64["annotations"], amd64["annotations"]);
    assert_eq!(blob(&layout, amd64)["annotations"], serde_json::json!({ "a": "1", "f": "6" }));
    assert_eq!(blob(&layout, arm64)["annotations"], serde_json::json!({ "a": "1", "b": "2", "f": "6" }));
    world.assert_sound();
}

#[test]
fn annotations_are_of_what_was_written_with_them() {
    let Some(world) = world("annotations_are_of_what_was_written_with_them") else { return };
    let written = |name: &str, annotations: &[&str]| {
        let layout = world.path(name);
        let output = format!("type=oci,tar=false,dest={}", layout.display());
        build(&world, &[&["--load", "-o", &output], annotations].concat());
        let top = json(&layout.join("index.json"))["manifests"][0].clone();
        (blob(&layout, &top)["annotations"].clone(), top["annotations"]["e"].clone())
    };
    let expected = (serde_json::json!({ "a": "2" }), Value::from("5"));
    assert_eq!(
        written("one", &["--annotation=a=1", "--annotation=a=2", "--annotation=manifest-descriptor:e=5"]),
        expected
    );
    assert_eq!(written("two", &[]), (Value::Null, Value::Null), "the next export has none of them");
    assert_eq!(
        written("three", &["--annotation=a=2"]).0,
        expected.0,
        "and a known manifest is not in the way"
    );
    world.assert_sound();
}

#[test]
fn an_output_has_further_names() {
    let Some(world) = world("an_output_has_further_names") else { return };
    let layout = world.path("layout");
    let output = format!("type=oci,tar=false,dest={},\"name=one:1,two\"", layout.display());
    build(&world, &["-o", &output, "-o", "type=image,name=kept,push=false,store=true"]);
    let index = json(&layout.join("index.json"));
    let entries = index["manifests"].as_array().expect("entries");
    let names: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry["annotations"]["io.containerd.image.name"].as_str())
        .collect();
    assert_eq!(
        names,
        ["docker.io/library/app:latest", "docker.io/library/one:1", "docker.io/library/two:latest"]
    );
    succeed(world.rbuild().args(["inspect", "kept"]));
    succeed(world.rbuild().args(["inspect", "app"]));
    world.assert_sound();
}

#[test]
fn files_of_one_platform_may_be_in_its_directory() {
    let Some(world) = world("files_of_one_platform_may_be_in_its_directory") else { return };
    let output = format!("type=local,dest={},platform-split=true", world.path("out").display());
    build(&world, &["--platform=linux/arm64", "-o", &output]);
    assert_eq!(fs::read(world.path("out/linux_arm64/f")).expect("a file"), b"f\n");
    world.assert_sound();
}

#[test]
fn a_directory_holds_nothing_else_if_that_is_asked_for() {
    let Some(world) = world("a_directory_holds_nothing_else_if_that_is_asked_for") else { return };
    let (out, outside) = (world.path("here/out"), world.path("outside"));
    let plant = || {
        write_files(&out, &[("stale/deep/file", "x"), ("linux_s390x/f", "x")]);
        write_files(&outside, &[("precious", "x")]);
        std::os::unix::fs::symlink(&outside, out.join("link")).expect("a link");
    };
    let names = || {
        let mut names: Vec<_> = fs::read_dir(&out)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    };
    let run = |from: &str, args: &[&str]| {
        let mut command = world.rbuild();
        command.arg("build").args(args).arg(world.path("context")).current_dir(world.path(from));
        command.output().expect("rbuild starts")
    };
    plant();
    assert!(run("here", &["-o", "type=local,dest=out"]).status.success());
    assert_eq!(names(), ["f", "link", "linux_s390x", "stale"]);
    fs::remove_file(out.join("f")).expect("a file");
    write_files(&out, &[("f/was/a/directory", "x")]);
    assert!(run("here", &["-o", "type=local,dest=out,mode=delete"]).status.success());
    assert_eq!(names(), ["f"]);
    fs::remove_dir_all(&out).expect("it can be removed");
    plant();
    // One of the directories is there, with something else in it; in place of the other there is a link.
    write_files(&out, &[("linux_amd64/old", "x")]);
    std::os::unix::fs::symlink(&outside, out.join("linux_arm64")).expect("a link");
    let both = "--platform=linux/amd64,linux/arm64";
    assert!(run("here", &[both, "-o", "type=local,dest=out,mode=delete"]).status.success());
    assert_eq!(names(), ["linux_amd64", "linux_arm64"]);
    assert!(!out.join("linux_amd64/old").exists() && out.join("linux_amd64/f").exists());
    assert!(out.join("linux_arm64").symlink_metadata().expect("it is there").is_dir());
    assert!(outside.join("precious").exists(), "no link is followed");
    // What is not below the working directory is cleared only if that is allowed.
    for (from, dest) in [("here", outside.to_str().expect("UTF-8")), ("outside", "."), ("here", "none/../..")]
    {
        let output = format!("type=local,dest={dest},mode=delete");
        let refused = run(from, &["-o", &output]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("--allow=buildx.local.delete") || said.contains("without `..`"), "{said}");
        assert!(outside.join("precious").exists());
    }
    // Nor what this build reads or writes besides.
    let delete = "type=local,dest=out,mode=delete";
    for args in [
        &["-o", "type=oci,dest=out/app.tar", "-o", delete][..],
        &["-o", "type=local,dest=out/deep/er", "-o", delete],
        &["--cache-to=type=local,dest=out/cache", "-o", delete],
        &["--logfile=out/log", "-o", delete],
        &["--artifact=0:/f=out/reports", "-o", delete],
    ] {
        let refused = run("here", args);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned()
            + &fs::read_to_string(out.join("log")).unwrap_or_default();
        assert_eq!(refused.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains("is in it"), "{args:?}: {said}");
    }
    let context = format!("type=local,dest={},mode=delete", world.path(".").display());
    let refused = run("here", &["--allow=buildx.local.delete", "-o", &context]);
    assert_eq!(refused.status.code(), Some(2));
    let output = format!("type=local,dest={},mode=delete", outside.display());
    assert!(run("here", &["--allow=buildx.local.delete", "-o", &output]).status.success());
    assert!(!outside.join("precious").exists() && outside.join("f").exists());
    world.assert_sound();
}

#[test]
fn what_has_nowhere_to_stand_is_refused() {
    let Some(world) = world("what_has_nowhere_to_stand_is_refused") else { return };
    let dest = world.path("x").display().to_string();
    let (oci, local) = (format!("type=oci,dest={dest}"), format!("type=local,dest={dest}"));
    let split = format!("{local},platform-split=false");
    for (args, words) in [
        (&["--annotation=a=b"][..], "has nowhere to stand"),
        (&["--annotation=a=b", "-o", &local], "has nowhere to stand"),
        (&["--annotation=index:a=b", "-o", &oci], "one platform has none"),
        (&["--annotation=layer:a=b", "-o", &oci], "unknown type"),
        (&["--annotation=manifest[linux/s390x]:a=b", "-o", &oci], "which is not built"),
        (&["-o", "type=image,annotation.a=b"], "no manifest for them"),
        (&["-o", "type=image,push=true"], "no name under which"),
        (&["-o", "type=oci,push=true,dest=x"], "has a `push`, which is for type=image"),
        (&["-o", "type=registry,push=false"], "is nothing but a push"),
        (&["-o", "type=tar,dest=x,mode=delete"], "has a `mode`, which is for type=local"),
        (&["-o", "type=local,dest=x,mode=mirror"], "neither copy nor delete"),
        (&["-o", &split, "--platform=linux/amd64,linux/arm64"], "would mix"),
    ] {
        let mut command = world.rbuild();
        let output =
            command.arg("build").args(args).arg(world.path("context")).output().expect("rbuild starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
        assert!(!world.path("x").exists(), "nothing was written");
    }
}
