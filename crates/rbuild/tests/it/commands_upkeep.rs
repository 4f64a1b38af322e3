//! `du`, `prune`, `fsck`: what takes space, what goes, and what is damaged.

use std::fs;

use serde_json::Value;

use crate::world::{World, succeed, write_files};

fn json(world: &World, args: &[&str]) -> Value {
    let output = succeed(world.rbuild().args(args).args(["--format", "json"]));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Builds something with a cache mount on `base`.
fn build(world: &World, tag: &str) {
    let context = world.path("context");
    let dockerfile =
        "FROM base\nRUN --mount=type=cache,target=/c echo kept > /c/f && head -c 300000 /dev/zero > /made\n";
    write_files(&context, &[("Dockerfile", dockerfile)]);
    succeed(world.rbuild().args(["build", "-q", "-t", tag]).arg(&context));
}

#[test]
fn prune_frees_what_du_says_and_keeps_what_has_a_name() {
    let Some(world) = World::with_base("prune_frees_what_du_says") else { return };
    build(&world, "app");
    succeed(world.rbuild().args(["rmi", "app"]));
    let before = json(&world, &["du"]);
    let promised = |document: &Value, key: &str| -> u64 {
        document["kinds"].as_object().unwrap().values().map(|kind| kind[key].as_u64().unwrap()).sum()
    };
    assert!(promised(&before, "prune_all_frees_bytes") > 300_000, "{before}");
    assert!(before["cache_mounts"][0]["bytes"].as_u64().unwrap() > 0, "{before}");
    let careful = json(&world, &["prune"]);
    assert_eq!(careful["freed_bytes"].as_u64().unwrap(), promised(&before, "prune_frees_bytes"), "{careful}");
    // The records are there, so that the same build runs nothing.
    build(&world, "app");
    succeed(world.rbuild().args(["rmi", "app"]));
    let before = json(&world, &["du"]);
    let thorough = json(&world, &["prune", "--all"]);
    assert_eq!(
        thorough["freed_bytes"].as_u64().unwrap(),
        promised(&before, "prune_all_frees_bytes"),
        "{thorough}"
    );
    let after = json(&world, &["du"]);
    assert_eq!(promised(&after, "prune_all_frees_bytes"), 0, "{after}");
    assert_eq!(succeed(world.rbuild().args(["run", "base", "echo", "still"])).stdout, b"still\n");
    world.assert_sound();
}

#[test]
fn fsck_tells_damage_from_what_can_be_reclaimed_and_repairs_both() {
    let Some(world) = World::with_base("fsck_tells_damage") else { return };
    let fsck = |flags: &[&str]| {
        let output = world.rbuild().arg("fsck").args(flags).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, words) = fsck(&[]);
    assert!(code == Some(0) && words.contains("0 damaged, 0 to be reclaimed"), "{words}");

    fs::write(world.store().join("blobs/sha256/stray"), "somebody's").unwrap();
    let (code, words) = fsck(&[]);
    assert!(code == Some(0) && words.contains("reclaimable: ") && words.contains("--repair"), "{words}");

    let inspected: Value =
        serde_json::from_slice(&succeed(world.rbuild().args(["inspect", "base"])).stdout).unwrap();
    let id = inspected[0]["Id"].as_str().unwrap();
    let config = world.store().join("blobs/sha256").join(id.strip_prefix("sha256:").unwrap());
    let mut bytes = fs::read(&config).unwrap();
    bytes[0] ^= 1;
    fs::write(&config, bytes).unwrap();
    let (code, words) = fsck(&[]);
    assert!(code == Some(4) && words.contains("damage: ") && words.contains(id), "{words}");
    let (code, document) = fsck(&["--repair", "--format", "json"]);
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(code, Some(4), "{document}");
    let outcomes: Vec<&str> =
        document["found"].as_array().unwrap().iter().map(|f| f["outcome"].as_str().unwrap()).collect();
    assert!(outcomes.contains(&"put aside") && !outcomes.contains(&"left"), "{document}");
    let (code, words) = fsck(&[]);
    assert!(code == Some(0) && words.contains("0 damaged"), "{words}");
    // What was lost can be made again under its name.
    world.make_base("base", "");
    assert_eq!(succeed(world.rbuild().args(["run", "base", "echo", "again"])).stdout, b"again\n");
}
