//! Cache mounts on their way.

use std::fs;
use std::path::Path;

use super::{Scene, files, ran, text};
use crate::world::{World, check_code, succeed, write_files};

/// A Dockerfile whose RUNs have two cache mounts; `fill` is what the first one does in the mount `a`.
fn with_mounts(scene: &Scene, fill: &str) {
    let base = scene.registry.reference("base:1");
    let dockerfile = format!(
        "FROM {base}\nRUN --mount=type=cache,id=a,target=/a,mode=0750,uid=7,gid=8 {fill}\n\
         RUN --mount=type=cache,target=/b --mount=type=secret,id=s echo b > /b/file; cat /run/secrets/s > /dev/null\n"
    );
    scene.write(&[("Dockerfile", &dockerfile)]);
}

const FILL: &str = "mkdir -p /a/dir; head -c 6000000 /dev/urandom > /a/large; head -c 6000000 /dev/urandom > /a/larger; echo a > /a/dir/file; ln -s dir /a/link; ln /a/dir/file /a/hard; chmod 0604 /a/dir/file; chown 3:4 /a/dir/file";

/// What a build without a cache of results sees in the mounts.
#[track_caller]
fn seen(scene: &Scene, world: &World, args: &[&str]) -> String {
    let base = scene.registry.reference("base:1");
    let look = "cat /a/dir/file /a/hard; stat -c '%a %u:%g %h %s' /a /a/dir/file /a/large; readlink /a/link; md5sum /a/large; cat /b/file; true";
    let dockerfile = format!(
        "FROM {base}\nRUN --mount=type=cache,id=a,target=/a,mode=0750,uid=7,gid=8 --mount=type=cache,target=/b {look}\n"
    );
    let context = world.path("look");
    write_files(&context, &[("Dockerfile", &dockerfile)]);
    let mut command = world.rbuild();
    command.args(["build", "--no-cache-filter=0", "--progress=plain"]).args(args).arg(context);
    let said = text(&succeed(&mut command));
    said.lines().filter_map(|line| line.split_once("| ")).map(|(_, line)| format!("{line}\n")).collect()
}

#[test]
fn cache_mounts_travel() {
    let Some(scene) = Scene::new("cache_mounts_travel") else { return };
    with_mounts(&scene, FILL);
    let secret = scene.maker.path("secret");
    fs::write(&secret, "a secret that never travels").expect("a file");
    let secret = format!("--secret=id=s,src={}", secret.display());
    let to = format!("type=registry,ref={},mode=max,mounts=all", scene.cache());
    let said = scene.build(&scene.maker, &[&secret, "--cache-to", &to]);
    assert!(said.contains("exported the results of 2 steps and 2 cache mounts"), "{said}");
    let expected = seen(&scene, &scene.maker, &[]);
    assert!(expected.starts_with("a\na\n750 7:8 ") && expected.contains("\n604 3:4 2 2\n"), "{expected}");
    // Every step is reused, and the mounts are there all the same.
    let other = World::new();
    let said = scene.build(&other, &[&secret, "--cache-from", &scene.cache()]);
    assert!(ran(&said) == 0 && said.contains("filled the cache mount a"), "{said}");
    assert_eq!(seen(&scene, &other, &[]), expected);
    other.assert_sound();
    // A RUN that runs finds its own filled.
    let third = World::new();
    assert_eq!(seen(&scene, &third, &["--cache-from", &scene.cache()]), expected);
    for seen in scene.registry.requests() {
        assert!(!String::from_utf8_lossy(&seen.body).contains("a secret that never"));
    }
}

#[test]
fn a_second_export_of_cache_mounts_sends_what_changed() {
    let Some(scene) = Scene::new("a_second_export_of_cache_mounts_sends_what_changed") else { return };
    for to in [
        format!("type=registry,ref={},mounts=a", scene.cache()),
        format!("type=local,dest={},mounts=a,mode=max", scene.maker.path("cache").display()),
    ] {
        succeed(scene.maker.rbuild().args(["prune", "-a"]));
        with_mounts(&scene, FILL);
        let said = scene.build(&scene.maker, &["--secret=id=s,env=HOME", "--cache-to", &to]);
        assert!(said.contains("and one cache mount to"), "{said}");
        with_mounts(&scene, "echo more >> /a/dir/file; echo new > /a/dir/new");
        let said = scene.build(&scene.maker, &["--secret=id=s,env=HOME", "--cache-to", &to]);
        let sent = said.lines().find(|line| line.starts_with("exported")).expect("a line");
        let sent = sent.split_once("new blobs of ").expect("blobs").1;
        let (number, unit) = sent.split_once(' ').expect("a number");
        // Of 12 MB: a chunk or two, and the list of all.
        let is_little = unit.starts_with("kB") || number.parse::<f64>().expect("a number") < 2.0;
        assert!(is_little && !unit.starts_with("GB"), "{said}");
        let expected = seen(&scene, &scene.maker, &[]);
        let other = World::new();
        let from = if to.contains("local") {
            to.replace("dest", "src").replace(",mounts=a,mode=max", "")
        } else {
            scene.cache()
        };
        let here = seen(&scene, &other, &["--cache-from", &from]);
        // The other mount does not travel.
        assert!(
            here.ends_with("No such file or directory\n") && expected.ends_with("/a/large\nb\n"),
            "{here}"
        );
        assert_eq!(here.lines().take(8).collect::<Vec<_>>(), expected.lines().take(8).collect::<Vec<_>>());
        other.assert_sound();
    }
}

#[test]
fn a_cache_mount_that_is_here_stays_and_a_damaged_one_does_not_come() {
    let Some(scene) = Scene::new("a_cache_mount_that_is_here_stays") else { return };
    with_mounts(&scene, "echo there > /a/file");
    let directory = scene.maker.path("cache");
    let to = format!("type=local,dest={},mounts=a,/b", directory.display());
    let secret = "--secret=id=s,env=HOME";
    let said = scene.build(&scene.maker, &[secret, "--cache-to", &to]);
    assert!(said.contains("2 cache mounts"), "{said}");
    let from = format!("type=local,src={}", directory.display());
    let other = World::new();
    with_mounts(&scene, "echo here > /a/file");
    scene.build(&other, &[secret]);
    with_mounts(&scene, "cat /a/file");
    let said = scene.build(&other, &[secret, "--cache-from", &from]);
    assert!(said.contains("| here"), "{said}");
    // Everything that is no layer: the mounts, and the records.
    let is_read =
        |path: &Path, bytes: &[u8]| !bytes.starts_with(&[0x1f, 0x8b]) && !path.ends_with("oci-layout");
    for (path, bytes) in files(&directory).into_iter().filter(|(path, bytes)| is_read(path, bytes)) {
        for damaged in [&bytes[..bytes.len() / 2], &vec![7; bytes.len()]] {
            fs::write(&path, damaged).expect("a file");
            let third = World::new();
            with_mounts(&scene, "ls /a; echo mine > /a/file");
            let said = scene.build(&third, &[secret, "--cache-from", &from]);
            assert!(
                said.contains("cannot import the cache") || said.contains("does not come from the cache"),
                "{said}"
            );
            third.assert_sound();
        }
        fs::write(&path, &bytes).expect("a file");
    }
    let to = format!("type=local,dest={},mounts=c", directory.display());
    let said = scene.build(&other, &[secret, "--cache-to", &to]);
    assert!(
        said.contains("no RUN of this build mounts a cache `c`") && !said.contains("cache mount to"),
        "{said}"
    );
    // What no tar of a layer can hold stays here, with a word.
    with_mounts(&scene, "touch /a/.wh.x");
    let to = format!("type=local,dest={},mounts=all", directory.display());
    let said = scene.build(&other, &[secret, "--cache-to", &to]);
    assert!(
        said.contains("the cache mount `a` is not exported") && said.contains("one cache mount to"),
        "{said}"
    );
}

#[test]
fn a_build_that_fails_exports_its_cache_mounts() {
    let Some(scene) = Scene::new("a_build_that_fails_exports_its_cache_mounts") else { return };
    with_mounts(&scene, "echo kept > /a/file; false");
    let to = format!("type=registry,ref={},mounts=a", scene.cache());
    let said =
        check_code(&mut scene.command(&scene.maker, &["--secret=id=s,env=HOME", "--cache-to", &to]), 1);
    assert!(said.contains("exported the results of 0 steps and one cache mount"), "{said}");
    with_mounts(&scene, "cat /a/file");
    let said = scene.build(&World::new(), &["--secret=id=s,env=HOME", "--cache-from", &scene.cache()]);
    assert!(said.contains("| kept"), "{said}");
}

#[test]
fn a_mount_that_is_not_here_stays_where_it_is_exported_to() {
    let Some(scene) = Scene::new("a_mount_that_is_not_here_stays_where_it_is_exported_to") else { return };
    with_mounts(&scene, FILL);
    let secret = scene.maker.path("secret");
    fs::write(&secret, "s").expect("a file");
    let secret = format!("--secret=id=s,src={}", secret.display());
    let to = format!("type=registry,ref={},mode=max,mounts=all", scene.cache());
    scene.build(&scene.maker, &[&secret, "--cache-to", &to]);
    let expected = seen(&scene, &scene.maker, &[]);
    fs::remove_dir_all(scene.maker.store().join("cache-mounts")).expect("it was there");
    fs::create_dir(scene.maker.store().join("cache-mounts")).expect("a directory");
    let said = scene.build(&scene.maker, &[&secret, "--cache-to", &to]);
    assert!(said.contains("2 steps and 2 cache mounts"), "{said}");
    let other = World::new();
    assert_eq!(seen(&scene, &other, &["--cache-from", &scene.cache()]), expected);
}
