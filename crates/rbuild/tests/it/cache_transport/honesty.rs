//! What travels is what a step gave, to whom it may be given.

use std::fs;

use super::Scene;
use crate::world::World;

#[test]
fn what_a_step_gave_upon_other_files_is_not_taken_for_what_it_gives_upon_these() {
    let Some(scene) = Scene::new("what_a_step_gave_upon_other_files") else { return };
    let base = scene.registry.reference("base:1");
    let counts = "n=$(cat /c/n 2>/dev/null || echo 0); echo $((n+1)) > /c/n; echo $n > /f";
    let dockerfile = |make: &str| {
        format!(
            "FROM {base} AS a\nRUN mkdir /x\nRUN {make}\nRUN cat /f > /g\nFROM a AS b\nRUN echo b > /b\nCMD [\"cat\", \"/f\", \"/g\"]\n"
        )
    };
    scene.write(&[("Dockerfile", &dockerfile(&format!("--mount=type=cache,target=/c {counts}")))]);
    scene.build(&scene.maker, &["--target=b"]);
    // The records of `a` are of another run now than the image of `b`.
    scene.build(&scene.maker, &["--target=a", "--no-cache"]);
    let cache = scene.maker.path("cache");
    let to = format!("type=local,dest={},mode=max", cache.display());
    scene.build(&scene.maker, &["--target=b", "--cache-to", &to]);
    let other = World::new();
    scene.write(&[("Dockerfile", &dockerfile("echo 1 > /f"))]);
    scene.build(&other, &["--cache-from", &format!("type=local,src={}", cache.display())]);
    assert_eq!(super::output_of(&other), "1\n1\n");
}

#[test]
fn what_was_read_from_a_directory_of_the_machine_stays_there() {
    let Some(scene) = Scene::new("what_was_read_from_a_directory_of_the_machine_stays_there") else { return };
    let base = scene.registry.reference("base:1");
    let text = format!(
        "FROM {base} AS free\nCOPY a.txt /a\nFROM {base}\nRUN cat /hv/v > /out\nCOPY --from=free /a /a\nRUN echo last > /last\nCMD [\"cat\", \"/out\"]\n"
    );
    scene.write(&[("Dockerfile", &text)]);
    let volume = scene.maker.path("hv");
    fs::create_dir(&volume).unwrap();
    let volume_flag = format!("--volume={}:/hv", volume.display());
    let cache = scene.maker.path("cache");
    let (to, from) = (
        format!("type=local,dest={},mode=max", cache.display()),
        format!("type=local,src={}", cache.display()),
    );
    fs::write(volume.join("v"), "one\n").unwrap();
    let said = scene.build(&scene.maker, &[&volume_flag, "--cache-to", &to]);
    // Every RUN has the volume, and so has what stands on one.
    assert!(said.contains("exported the results of one step"), "{said}");
    fs::write(volume.join("v"), "two\n").unwrap();
    let other = World::new();
    scene.build(&other, &[&volume_flag, "--cache-from", &from]);
    assert_eq!(super::output_of(&other), "two\n");
}

#[test]
fn a_directory_that_is_copied_from_keeps_what_is_copied() {
    let Some(scene) = Scene::new("a_directory_that_is_copied_from_keeps_what_is_copied") else { return };
    let places = ["one", "two"].map(|name| scene.maker.path(name).display().to_string());
    let [one, two] = &places;
    scene.build(&scene.maker, &["--cache-to", &format!("type=local,dest={one},mode=max")]);
    let other = World::new();
    let from = format!("type=local,src={one}");
    let (min, max) = (format!("type=local,dest={one},mode=min"), format!("type=local,dest={two},mode=max"));
    let said = scene.build(&other, &["--cache-from", &from, "--cache-to", &min, "--cache-to", &max]);
    assert!(said.contains(&format!("{} steps", super::STEPS)) && !said.contains("left out"), "{said}");
    let third = World::new();
    let said = scene.build(&third, &["--cache-from", &format!("type=local,src={two}")]);
    assert!(said.contains(&format!("found the results of {} steps", super::STEPS)), "{said}");
    // What only the mode=max cache of before had is gone by then.
    let blobs = |place: &str| fs::read_dir(format!("{place}/blobs/sha256")).unwrap().count();
    assert!(blobs(one) < blobs(two), "{} {}", blobs(one), blobs(two));
}

#[test]
fn sizes_that_nothing_has_cost_time_only() {
    let Some(scene) = Scene::new("sizes_that_nothing_has_cost_time_only") else { return };
    let cache = scene.maker.path("cache");
    scene.build(&scene.maker, &["--cache-to", &format!("type=local,dest={},mode=max", cache.display())]);
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(cache.join("index.json")).unwrap()).unwrap();
    let path = |digest: &serde_json::Value| {
        cache.join("blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:"))
    };
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(path(&index["manifests"][0]["digest"])).unwrap()).unwrap();
    for layer in manifest["layers"].as_array_mut().unwrap() {
        layer["size"] = 9_223_372_036_854_775_807_u64.into();
    }
    let text = manifest.to_string();
    let digest = testkit::registry::digest(text.as_bytes());
    fs::write(path(&digest.clone().into()), &text).unwrap();
    let mut index = index;
    index["manifests"][0]["digest"] = digest.into();
    index["manifests"][0]["size"] = text.len().into();
    fs::write(cache.join("index.json"), index.to_string()).unwrap();
    let other = World::new();
    let said = scene.build(&other, &["--cache-from", &format!("type=local,src={}", cache.display())]);
    assert!(said.contains("does not come from the cache") && !said.contains("bug"), "{said}");
    other.assert_sound();
}
