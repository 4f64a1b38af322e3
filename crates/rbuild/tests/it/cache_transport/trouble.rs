//! Caches that are missing, damaged or out of reach, and builds that end early.

use std::fs;

use super::{STEPS, Scene, files, output_of, ran};
use crate::building::Building;
use crate::world::{World, check_code};

#[test]
fn an_export_that_breaks_off_leaves_the_cache_of_before() {
    let Some(scene) = Scene::new("an_export_that_breaks_off_leaves_the_cache_of_before") else { return };
    let directory = scene.maker.path("cache");
    let to = format!("type=local,dest={},mode=max", directory.display());
    scene.build(&scene.maker, &["--cache-to", &to]);
    let index = fs::read(directory.join("index.json")).expect("an index");
    // The index cannot be replaced by a file: everything before has happened by then.
    fs::rename(directory.join("oci-layout"), directory.join("kept")).expect("a file");
    fs::create_dir(directory.join("oci-layout")).expect("a directory");
    scene.write(&[("b.txt", "other\n")]);
    check_code(&mut scene.command(&scene.maker, &["--cache-to", &to]), 4);
    assert_eq!(fs::read(directory.join("index.json")).expect("an index"), index);
    scene.write(&[("b.txt", "b\n")]);
    let other = World::new();
    let said = scene.build(&other, &["--cache-from", &format!("type=local,src={}", directory.display())]);
    assert_eq!(ran(&said), 0, "{said}");
    // The next one that is whole goes on from there.
    fs::remove_dir(directory.join("oci-layout")).expect("a directory");
    scene.write(&[("b.txt", "other\n")]);
    scene.build(&scene.maker, &["--cache-to", &to]);
    let said =
        scene.build(&World::new(), &["--cache-from", &format!("type=local,src={}", directory.display())]);
    assert_eq!(ran(&said), 0, "{said}");
}

#[test]
fn a_cache_that_is_missing_or_damaged_costs_time_only() {
    let Some(scene) = Scene::new("a_cache_that_is_missing_or_damaged_costs_time_only") else { return };
    let directory = scene.maker.path("cache");
    let to = format!("type=local,dest={},mode=max", directory.display());
    scene.build(&scene.maker, &["--cache-to", &to]);
    let from = format!("type=local,src={}", directory.display());
    let whole = files(&directory);
    let absent = scene.registry.reference("cache:absent");
    let said = scene.build(&World::new(), &["--cache-from", &absent, "--cache-from", &from]);
    assert!(said.contains("there is no cache at") && ran(&said) == 0, "{said}");
    // An image is no cache.
    let said = scene.build(&World::new(), &["--cache-from", &scene.registry.reference("base:1")]);
    assert!(said.contains("cannot import the cache at") && ran(&said) == STEPS, "{said}");
    for (path, bytes) in &whole {
        for damaged in [&bytes[..bytes.len() / 2], &[&bytes[..bytes.len() - 1], b"\xff"].concat(), b""] {
            fs::write(path, damaged).expect("a file");
            let other = World::new();
            let said = scene.build(&other, &["--cache-from", &from]);
            assert_eq!(output_of(&other), "final\na\nb\n", "{said}");
            other.assert_sound();
            fs::write(path, bytes).expect("a file");
        }
    }
    // A layer of the image that is another one: its step runs, with a word about it.
    for (path, bytes) in whole.iter().filter(|(_, bytes)| bytes.starts_with(&[0x1f, 0x8b])) {
        fs::write(path, vec![0; bytes.len()]).expect("a file");
    }
    let said = scene.build(&World::new(), &["--cache-from", &from]);
    assert!(said.contains("its result does not come from the cache") && ran(&said) == STEPS, "{said}");
}

#[test]
fn a_cache_that_cannot_be_written_fails_the_build_unless_it_is_said() {
    let Some(scene) = Scene::new("a_cache_that_cannot_be_written_fails_the_build") else { return };
    scene.registry.on("/v2/cache/manifests/", |_, exchange| exchange.respond(403, &[], b""));
    let (to, file) = (format!("type=registry,ref={}", scene.cache()), scene.maker.path("id"));
    let id = file.display().to_string();
    let said = check_code(&mut scene.command(&scene.maker, &["--iidfile", &id, "--cache-to", &to]), 3);
    assert!(said.contains("cannot export the cache to") && said.contains("ignore-error=true"), "{said}");
    // The image is there nevertheless.
    assert!(fs::read_to_string(&file).expect("an id").starts_with("sha256:"));
    let local = format!("type=local,dest={}", scene.maker.path("cache").display());
    let ignored = format!("{to},ignore-error=true");
    let said = scene.build(&scene.maker, &["--cache-to", &ignored, "--cache-to", &local]);
    assert!(said.contains("warning[cache-export]") && said.contains("exported the results"), "{said}");
    let refused = format!("{to},ignore-error=false");
    check_code(&mut scene.command(&scene.maker, &["--cache-to", &refused]), 3);
}

#[test]
fn an_export_that_is_killed_leaves_a_cache_and_a_store_that_are_whole() {
    let Some(scene) = Scene::new("an_export_that_is_killed_leaves_a_cache") else { return };
    let directory = scene.maker.path("cache");
    let to = format!("type=local,dest={},mode=max", directory.display());
    let from = format!("type=local,src={}", directory.display());
    scene.build(&scene.maker, &["--cache-to", &to]);
    let mut was_in_time = 0;
    for number in 0..5 {
        scene.write(&[("b.txt", &number.to_string().repeat(2_000_000))]);
        let building = Building::start(&mut scene.command(&scene.maker, &["--cache-to", &to]));
        assert!(building.wait_for("exporting to the cache").is_some());
        was_in_time += usize::from(building.kill());
        scene.maker.assert_sound();
        let other = World::new();
        let said = scene.build(&other, &["--cache-from", &from]);
        assert!(said.contains(&format!("found the results of {STEPS} steps")), "{said}");
        // The step that has changed may be there or not.
        assert!(ran(&said) <= 1 && !said.contains("warning"), "{said}");
        other.assert_sound();
    }
    assert!(was_in_time > 0, "no export was slow enough to be killed");
    let said = scene.build(&scene.maker, &["--cache-to", &to]);
    assert!(said.contains("exported the results"), "{said}");
    assert_eq!(ran(&scene.build(&World::new(), &["--cache-from", &from])), 0);
}

#[test]
fn a_wait_for_a_cache_ends_with_the_build() {
    let Some(scene) = Scene::new("a_wait_for_a_cache_ends_with_the_build") else { return };
    let waits = |path: &'static str| {
        let (to, begun) = std::sync::mpsc::channel();
        scene.registry.on(path, move |_, exchange| {
            // Nobody may listen any more.
            to.send(()).ok();
            exchange.hold();
            Ok(())
        });
        begun
    };
    let to = format!("type=registry,ref={},ignore-error=true", scene.cache());
    for (args, path) in [
        (["--cache-from", &scene.cache()], "/v2/cache/manifests/"),
        (["--cache-to", &to], "/v2/cache/blobs/"),
    ] {
        let begun = waits(path);
        let building = Building::start(&mut scene.command(&scene.maker, &args));
        begun.recv().expect("a request");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(building.pid()).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
        let (status, said) = building.finish();
        assert_eq!(status.code(), Some(130), "{said}");
        assert!(!said.contains("warning"), "{said}");
    }
}

#[test]
fn an_image_that_cannot_be_delivered_keeps_no_cache_from_its_place() {
    let Some(scene) = Scene::new("an_image_that_cannot_be_delivered") else { return };
    scene.registry.on("/v2/app/manifests/", |_, exchange| exchange.respond(403, &[], b""));
    let (name, to) = (scene.registry.reference("app:1"), format!("type=registry,ref={}", scene.cache()));
    let said = check_code(&mut scene.command_for(&name, &scene.maker, &["--push", "--cache-to", &to]), 3);
    assert!(said.contains("cannot push") && said.contains("exported the results of 3 steps"), "{said}");
    let said = scene.build(&World::new(), &["--cache-from", &scene.cache()]);
    assert_eq!(ran(&said), 0, "{said}");
}

#[test]
fn a_build_that_fails_exports_what_it_has_done() {
    let Some(scene) = Scene::new("a_build_that_fails_exports_what_it_has_done") else { return };
    let dockerfile = fs::read_to_string(scene.context().join("Dockerfile")).expect("a Dockerfile");
    scene.write(&[("Dockerfile", &dockerfile.replace("cat /a.txt > /result", "exit 3"))]);
    let to = format!("type=registry,ref={},mode=max", scene.cache());
    let said = check_code(&mut scene.command(&scene.maker, &["--jobs=1", "--cache-to", &to]), 1);
    assert!(said.contains("exported the results of "), "{said}");
    scene.write(&[("Dockerfile", &dockerfile)]);
    let other = World::new();
    let said = scene.build(&other, &["--cache-from", &scene.cache()]);
    assert!(!said.contains("[builder 2/4] done in") && said.contains("[builder 4/4] done in"), "{said}");
}
