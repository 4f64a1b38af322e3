//! `--lock`, `--locked` and `--offline`: names that mean what they meant, and builds that ask nobody.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::registry::{self, Registry};

use crate::scene::{Scene, Upstream, text};
use crate::world::{World, succeed, write_files};

const HEAD: &str = "\
# What the names in the Dockerfile meant when `rbuild build --lock` wrote this; `rbuild build --locked` takes exactly these.
version 1
";

const AMD64: &str = "--platform=linux/amd64";

/// A tar with a file `version` that says this.
fn layer(directory: &Path, version: &str) -> Vec<u8> {
    write_files(directory, &[("version", version)]);
    succeed(Command::new("tar").arg("-C").arg(directory).args(["-cf", "-", "version"])).stdout
}

/// Lets `NAME:latest` be an index with an image of that version for each of two platforms; gives its digest.
fn publish(registry: &Registry, scene: &Scene, name: &str, version: &str) -> String {
    let layer = layer(&scene.world.path("layer"), version);
    let [amd64, arm64] =
        ["linux/amd64", "linux/arm64"].map(|platform| registry.add_image(name, "part", platform, &[&layer]));
    registry.add_index(name, "latest", &[(&amd64, "linux/amd64"), (&arm64, "linux/arm64")])
}

fn lock_file(scene: &Scene) -> PathBuf {
    scene.world.path("context/rbuild.lock")
}

fn read_lock(scene: &Scene) -> String {
    fs::read_to_string(lock_file(scene)).expect("a lock file")
}

/// Forgets all images, steps and fetched sources.
fn forget(world: &World) {
    let listed = succeed(world.rbuild().args(["images", "-q"])).stdout;
    for id in String::from_utf8_lossy(&listed).lines() {
        succeed(world.rbuild().args(["rmi", "-f", id]));
    }
    succeed(world.rbuild().args(["prune", "--all"]));
}

#[test]
fn an_image_is_what_it_was_though_its_tag_has_moved() {
    let Some(scene) = Scene::new("an_image_is_what_it_was_though_its_tag_has_moved") else { return };
    let registry = Registry::start();
    let from = format!("FROM {}", registry.reference("app"));
    let digest = publish(&registry, &scene, "app", "one");
    let said = scene.build(&from, &[AMD64, "--lock"]);
    assert!(said.contains("rbuild.lock` says what 1 name meant"), "{said}");
    let written = read_lock(&scene);
    let line = format!("image {}:latest linux/amd64 {digest} sha256:", registry.reference("app"));
    assert!(written.starts_with(&format!("{HEAD}{line}")), "{written}");
    assert_eq!(written.lines().count(), 3, "{written}");
    // What is in the store says the same.
    fs::remove_file(lock_file(&scene)).expect("it is there");
    scene.build(&from, &[AMD64, "--lock"]);
    assert_eq!(read_lock(&scene), written);

    publish(&registry, &scene, "app", "two");
    scene.build(&from, &[AMD64, "--pull"]);
    assert_eq!(scene.read("version"), "two");
    let asked = registry.requests().len();
    scene.build(&from, &[AMD64, "--locked"]);
    assert_eq!(scene.read("version"), "one");
    assert_eq!(registry.requests().len(), asked, "it is in the store");
    forget(&scene.world);
    scene.build(&from, &[AMD64, "--locked"]);
    assert_eq!(scene.read("version"), "one");
    let by_tag = registry.requests()[asked..].iter().filter(|seen| seen.path.ends_with("/latest")).count();
    assert_eq!(by_tag, 0, "the tag says nothing");
    assert_eq!(read_lock(&scene), written, "it is not written");
    scene.build(&from, &[AMD64, "--pull", "--lock"]);
    assert_ne!(read_lock(&scene), written);
    assert_eq!(scene.read("version"), "two");
    scene.world.assert_sound();
}

#[test]
fn each_platform_of_a_build_has_its_line() {
    let Some(scene) = Scene::new("each_platform_of_a_build_has_its_line") else { return };
    let registry = Registry::start();
    let name = registry.reference("app");
    let digest = publish(&registry, &scene, "app", "one");
    let from = format!("FROM {name}");
    scene.build(&from, &["--platform=linux/amd64,linux/arm64", "--lock"]);
    let written = read_lock(&scene);
    for platform in ["linux/amd64", "linux/arm64"] {
        let line = format!("\nimage {name}:latest {platform} {digest} sha256:");
        assert!(written.contains(&line), "{written}");
    }
    scene.build(&from, &[AMD64, "--lock"]);
    let said = scene.refused(&from, &["--platform=linux/arm64", "--locked"], 1);
    assert!(said.contains(&format!("`{name}:latest` for linux/arm64 is not in")), "{said}");
    assert!(said.contains("it is there for linux/amd64") && said.contains("Dockerfile:2:6"), "{said}");
}

#[test]
fn the_digest_is_that_which_the_tag_was_pulled_with() {
    let Some(scene) = Scene::new("the_digest_is_that_which_the_tag_was_pulled_with") else { return };
    let registry = Registry::start();
    let name = registry.reference("app");
    let image =
        registry.add_image("app", "part", "linux/amd64", &[&layer(&scene.world.path("layer"), "one")]);
    let add_index = |others: &[(&str, &str)]| {
        let entries: Vec<_> =
            [(image.as_str(), "linux/amd64")].into_iter().chain(others.iter().copied()).collect();
        registry.add_index("app", "latest", &entries)
    };
    // The same image in two indexes, one after the other.
    add_index(&[]);
    scene.build(&format!("FROM {name}"), &[AMD64]);
    let second = add_index(&[(&image, "linux/arm64")]);
    scene.build(&format!("FROM {name}"), &[AMD64, "--pull"]);
    scene.build(&format!("FROM {name}"), &[AMD64, "--lock"]);
    assert!(read_lock(&scene).contains(&format!(" linux/amd64 {second} ")), "{}", read_lock(&scene));
    scene.build(&format!("FROM {name}@{image}"), &[AMD64, "--lock"]);
    let line = format!("image {name}@{image} linux/amd64 {image} sha256:");
    assert!(read_lock(&scene).contains(&line), "{}", read_lock(&scene));
    // A name that was given here is none that a registry has.
    succeed(scene.world.rbuild().args(["tag", &name, "mine"]));
    scene.build("FROM mine", &[AMD64, "--lock"]);
    assert!(!read_lock(&scene).contains(&second), "{}", read_lock(&scene));
    scene.world.assert_sound();
}

#[test]
fn a_lock_that_names_what_no_registry_has_or_something_else_is_refused() {
    let Some(scene) = Scene::new("a_lock_that_names_what_no_registry_has_is_refused") else { return };
    let registry = Registry::start();
    let from = format!("FROM {}", registry.reference("app"));
    let digest = publish(&registry, &scene, "app", "one");
    scene.build(&from, &[AMD64, "--lock"]);
    let written = read_lock(&scene);
    forget(&scene.world);
    let other = registry::digest(b"other");
    fs::write(lock_file(&scene), written.replace(&digest, &other)).expect("a file");
    let said = scene.refused(&from, &[AMD64, "--locked"], 1);
    assert!(said.contains(&other) && said.contains("`--lock` in place of `--locked`"), "{said}");
    let (start, id) = written.trim_end().rsplit_once(' ').expect("the last word is the id");
    fs::write(lock_file(&scene), format!("{start} {other}\n")).expect("a file");
    let said = scene.refused(&from, &[AMD64, "--locked"], 1);
    assert!(said.contains("is not the image that is locked") && said.contains(id), "{said}");
    let endless = scene.refused(&from, &[AMD64, "--locked=/dev/zero"], 1);
    assert!(endless.contains("is larger than"), "{endless}");
}

#[test]
fn a_file_has_the_locked_content_or_the_build_fails() {
    let Some(scene) = Scene::new("a_file_has_the_locked_content_or_the_build_fails") else { return };
    scene.site.put("/f", b"one");
    let add = format!("ADD {}?signature=secret /f", scene.site.url("/f"));
    scene.build(&add, &["--lock"]);
    let digest = registry::digest(b"one");
    let written = read_lock(&scene);
    assert_eq!(written, format!("{HEAD}url {} {digest}\n", scene.site.url("/f")), "no query");
    scene.site.put("/f", b"two");
    scene.build(&add, &[]);
    assert_eq!(scene.read("f"), "two");
    let asked = scene.site.requests("/f").len();
    scene.build(&add, &["--locked"]);
    assert_eq!(scene.read("f"), "one", "the step is recorded");
    assert_eq!(scene.site.requests("/f").len(), asked);
    forget(&scene.world);
    let said = scene.refused(&add, &["--locked"], 1);
    let got = registry::digest(b"two");
    assert!(said.contains("wrong-checksum") && said.contains(&digest) && said.contains(&got), "{said}");
    assert!(said.contains("Dockerfile:2") && said.contains("`--lock` in place of `--locked`"), "{said}");
    let sum = format!("ADD --checksum={got} {}?signature=secret /f", scene.site.url("/f"));
    let said = scene.refused(&sum, &["--locked"], 1);
    assert!(said.contains("rbuild.lock`") && said.contains(&got), "{said}");
    scene.site.put("/f", b"one");
    scene.build(&add, &["--locked"]);
    assert_eq!(scene.read("f"), "one");
}

#[test]
fn files_that_only_their_queries_tell_apart_are_locked_together() {
    let Some(scene) = Scene::new("files_that_only_their_queries_tell_apart_are_locked_together") else {
        return;
    };
    scene.site.server().on("/q", |seen, exchange| {
        let body = seen.query.rsplit('=').next().unwrap_or_default().to_owned();
        exchange.respond(200, &[], body.as_bytes())
    });
    let url = scene.site.url("/q");
    let add = |second: &str| format!("ADD {url}?name=a /a\nADD {url}?name={second} /b");
    scene.build(&add("b"), &["--lock"]);
    assert_eq!(read_lock(&scene).matches(&format!("url {url} sha256:")).count(), 2);
    forget(&scene.world);
    scene.build(&add("b"), &["--locked"]);
    assert_eq!([scene.read("a"), scene.read("b")], ["a", "b"]);
    let said = scene.refused(&add("c"), &["--locked"], 1);
    assert!(said.contains("wrong-checksum") && said.contains("Dockerfile:3"), "{said}");
}

#[test]
fn a_repository_is_at_the_locked_commit_wherever_it_is_named() {
    let Some(scene) = Scene::new("a_repository_is_at_the_locked_commit_wherever_it_is_named") else { return };
    let Some(upstream) = Upstream::new(&scene, None) else { return };
    let first = upstream.head();
    let url = upstream.url("#main");
    let (add, named) =
        (format!("ADD {url} /add\nCOPY --from=r a /named"), format!("--build-context=r={url}"));
    scene.build(&add, &["--lock", &named]);
    assert_eq!(read_lock(&scene), format!("{HEAD}git {url} {first}\n"));
    let again = scene.build(&add, &["--locked", &named]);
    assert!(!again.contains("ran"), "a lock is no part of any key: {again}");
    upstream.push(&[("a", "two"), ("Dockerfile", "FROM scratch\nCOPY a /\n")]);
    forget(&scene.world);
    scene.build(&add, &["--locked", &named]);
    assert_eq!([scene.read("add/a"), scene.read("named")], ["one", "one"]);
    scene.build(&add, &[&named]);
    assert_eq!([scene.read("add/a"), scene.read("named")], ["two", "two"]);

    // The main context, too, of which there is no directory for a lock file.
    let lock = scene.world.path("of-repository.lock");
    let build = |option: String| {
        drop(fs::remove_dir_all(scene.out()));
        let mut command = scene.world.rbuild();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.args(["build", &option, "-o"]).arg(format!("type=local,dest={}", scene.out().display()));
        command.arg(&url);
        command
    };
    let refused = build("--lock".to_owned()).output().expect("rbuild starts");
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("--lock=FILE"), "{}", text(&refused));
    succeed(&mut build(format!("--lock={}", lock.display())));
    upstream.push(&[("a", "three")]);
    succeed(&mut build(format!("--locked={}", lock.display())));
    assert_eq!(scene.read("a"), "two");
    fs::write(&lock, HEAD).expect("a file");
    let refused = build(format!("--locked={}", lock.display())).output().expect("rbuild starts");
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused).contains(&format!("`{url}` is not in")), "{}", text(&refused));
}

#[test]
fn a_lock_has_every_image_wherever_it_is_named() {
    let Some(scene) = Scene::new("a_lock_has_every_image_wherever_it_is_named") else { return };
    let Some(world) = World::with_base("a_lock_has_every_image_wherever_it_is_named") else { return };
    let registry = Registry::start();
    let name = |name: &str| registry.reference(name);
    for image in ["from", "copied", "mounted", "triggered", "named"] {
        publish(&registry, &scene, image, image);
    }
    let context = world.path("context");
    let build = |dockerfile: &str, args: &[&str]| {
        write_files(&context, &[("Dockerfile", dockerfile)]);
        let named = format!("--build-context=ctx=docker-image://{}", name("named"));
        world
            .rbuild()
            .args(["build", "-q", AMD64, &named])
            .args(args)
            .arg(&context)
            .output()
            .expect("it starts")
    };
    let trigger = format!("FROM base\nONBUILD COPY --from={} version /triggered\n", name("triggered"));
    assert!(build(&trigger, &["-t", "trigger"]).status.success());
    let dockerfile = format!(
        "FROM {} AS first\nFROM trigger\nCOPY --from=first version /a\nCOPY --from={} version /b\nCOPY --from=ctx version /c\n\
         RUN --mount=from={},target=/m cat /m/version\n",
        name("from"),
        name("copied"),
        name("mounted")
    );
    let built = build(&dockerfile, &["--lock"]);
    assert!(built.status.success(), "{}", text(&built));
    let lock = fs::read_to_string(context.join("rbuild.lock")).expect("a lock file");
    let names: Vec<&str> =
        lock.lines().filter_map(|line| line.strip_prefix("image ")?.split(' ').next()).collect();
    let sorted =
        ["copied", "from", "mounted", "named", "triggered"].map(|image| format!("{}:latest", name(image)));
    assert_eq!(names[..5], sorted);
    assert_eq!(names[5..], ["trigger:latest"]);
    assert!(lock.contains("image trigger:latest linux/amd64 - sha256:"), "no registry has it: {lock}");
    for image in ["from", "copied", "mounted", "triggered", "named"] {
        publish(&registry, &scene, image, "another");
        succeed(world.rbuild().args(["pull", "-q", AMD64, &name(image)]));
    }
    let again = build(&dockerfile, &["--locked"]);
    assert_eq!((again.status.success(), again.stdout), (true, built.stdout), "the same image");
    assert!(build("FROM scratch\nCOPY Dockerfile /trigger\n", &["-t", "trigger"]).status.success());
    forget(&world);
    let refused = text(&build(&dockerfile, &["--locked"]));
    assert!(
        refused.contains("which `trigger:latest` is locked to") && refused.contains("Dockerfile:2"),
        "{refused}"
    );
}

#[test]
fn what_is_not_locked_is_told_all_at_once_and_nothing_is_written() {
    let Some(scene) = Scene::new("what_is_not_locked_is_told_all_at_once_and_nothing_is_written") else {
        return;
    };
    let said = scene.refused("", &["--locked"], 2);
    assert!(said.contains("no-lock") && said.contains("rbuild.lock"), "{said}");
    scene.build("COPY Dockerfile /", &["--lock"]);
    assert_eq!(read_lock(&scene), HEAD);
    let url = scene.site.url("/f");
    let repository = format!("{}#main", scene.site.url("/git/r.git"));
    let more = format!("ADD {url} /f\nADD {url}2 {repository} /r/\nCOPY --from=alpine /a /a");
    let said = scene.refused(&more, &["--locked", "--platform=linux/amd64,linux/arm64"], 1);
    for (line, name) in [
        ("2:5", url.as_str()),
        ("3:5", &format!("{url}2")),
        ("3:", &repository),
        ("4:13", "`alpine:latest` for linux/amd64"),
        ("4:13", "`alpine:latest` for linux/arm64"),
    ] {
        assert!(said.contains(&format!("Dockerfile:{line}")) && said.contains(name), "{line} {name}: {said}");
    }
    assert_eq!(said.matches("error[").count(), 5, "{said}");
    assert_eq!(said.matches("`--lock` in place of `--locked`").count(), 5, "{said}");
    assert!(scene.site.server().requests().is_empty(), "nobody is asked");
    assert_eq!(read_lock(&scene), HEAD);
    // A build that fails writes none, and leaves what was there.
    scene.site.put("/f", b"f");
    scene.refused(&format!("ADD {url} /f\nCOPY nothing /"), &["--lock"], 1);
    assert_eq!(read_lock(&scene), HEAD);
    fs::remove_file(lock_file(&scene)).expect("it is there");
    scene.refused(&format!("ADD {url} /f\nCOPY nothing /"), &["--lock"], 1);
    assert!(!lock_file(&scene).exists());
}

#[test]
fn the_lock_lies_beside_its_dockerfile() {
    let Some(scene) = Scene::new("the_lock_lies_beside_its_dockerfile") else { return };
    let directory = scene.world.path("files");
    write_files(
        &directory,
        &[
            ("prod.Dockerfile", "FROM scratch\nCOPY Dockerfile /\n"),
            ("Containerfile", "FROM scratch\nCOPY Dockerfile /\n"),
        ],
    );
    for (file, lock) in [("prod.Dockerfile", "prod.Dockerfile.rbuild.lock"), ("Containerfile", "rbuild.lock")]
    {
        let file = format!("--file={}", directory.join(file).display());
        scene.build("", &[&file, "--lock"]);
        assert_eq!(fs::read_to_string(directory.join(lock)).expect("a lock file"), HEAD, "{lock}");
        scene.build("", &[&file, "--locked"]);
        fs::remove_file(directory.join(lock)).expect("it is there");
        scene.refused("", &[&file, "--locked"], 2);
    }
    assert!(!lock_file(&scene).exists());
    let said = scene.refused("", &["--file=-", "--locked"], 2);
    assert!(said.contains("--locked=FILE"), "{said}");
    let unchanged =
        || fs::metadata(lock_file(&scene)).and_then(|found| found.modified()).expect("it is there");
    scene.build("COPY Dockerfile /", &["--lock"]);
    let before = unchanged();
    scene.build("COPY Dockerfile /", &["--lock"]);
    assert_eq!(unchanged(), before, "what says the same is not written again");
}

#[test]
fn without_a_network_the_store_is_enough() {
    let Some(scene) = Scene::new("without_a_network_the_store_is_enough") else { return };
    let Some(upstream) = Upstream::new(&scene, None) else { return };
    let registry = Registry::start();
    publish(&registry, &scene, "app", "one");
    scene.site.put("/f", b"one");
    let (url, repository) = (scene.site.url("/f"), upstream.url("#main"));
    let all = format!("FROM {}\nADD {url} /f\nADD {repository} /r", registry.reference("app"));
    scene.build(&all, &[AMD64]);
    let first = scene.read("r/a");
    scene.site.put("/f", b"two");
    upstream.push(&[("a", "two")]);
    let (name, address) = (registry.reference("app"), registry.reference("other"));
    drop(registry);
    let asked = scene.site.server().requests().len();
    for cache in [&[AMD64, "--offline"][..], &[AMD64, "--offline", "--no-cache"]] {
        scene.build(&all, cache);
        assert_eq!(
            [scene.read("version"), scene.read("f"), scene.read("r/a")],
            ["one", "one", first.as_str()]
        );
    }
    // What was fetched can be locked, and what is locked used.
    scene.build(&all, &[AMD64, "--offline", "--lock"]);
    assert!(read_lock(&scene).contains(&registry::digest(b"one")));
    scene.build(&all, &[AMD64, "--offline", "--locked", "--no-cache"]);
    assert_eq!(scene.read("f"), "one");
    let more = format!("FROM {address}\nADD {url}2 /f\nADD {} /r\nADD {repository} /s", upstream.url("#v1"));
    let said = scene.refused(&more, &[AMD64, "--offline"], 1);
    for (line, missing) in [
        ("2:6", format!("image `{address}:latest` cannot be had")),
        ("3:5", format!("`{url}2` is not in the store")),
        ("4:5", "branch or tag `v1`".to_owned()),
    ] {
        assert!(said.contains(&format!("Dockerfile:{line}")) && said.contains(&missing), "{line}: {said}");
    }
    assert!(said.contains("`rbuild pull") && said.contains("build once without `--offline`"), "{said}");
    assert_eq!(said.matches("error[").count(), 3, "{said}");
    let lock = read_lock(&scene).replace(&registry::digest(b"one"), &registry::digest(b"gone"));
    fs::write(lock_file(&scene), lock).expect("a file");
    let said = scene.refused(&all, &[AMD64, "--offline", "--locked"], 1);
    assert!(said.contains(&registry::digest(b"gone")) && said.contains("Dockerfile:3"), "{said}");
    assert_eq!(scene.site.server().requests().len(), asked, "nobody is asked");
    let living = Registry::start();
    publish(&living, &scene, "app", "one");
    let app = living.reference("app");
    let run = scene.world.rbuild().args(["run", "--offline", &app]).output().expect("it starts");
    assert_eq!(run.status.code(), Some(125), "{}", text(&run));
    assert!(living.requests().is_empty(), "nobody is asked");
    let insists = scene.world.rbuild().args(["run", "--offline", "--pull=newer", &name]).output();
    assert!(text(&insists.expect("it starts")).contains("`--offline` lets nobody do that"));
    scene.world.assert_sound();
}

#[test]
fn contexts_from_elsewhere_are_those_that_were_fetched_last() {
    let Some(scene) = Scene::new("contexts_from_elsewhere_are_those_that_were_fetched_last") else { return };
    scene.site.put("/Dockerfile", b"FROM scratch AS seen\nCOPY <<f /f\nf\n");
    let url = scene.site.url("/Dockerfile");
    let targets = |option: &[&str]| {
        scene
            .world
            .rbuild()
            .args(["build", "--call=targets"])
            .args(option)
            .arg(&url)
            .output()
            .expect("it starts")
    };
    let refused = targets(&["--offline"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused).contains("is not in the store"), "{}", text(&refused));
    assert!(scene.site.server().requests().is_empty());
    assert!(targets(&[]).status.success());
    let seen = targets(&["--offline"]);
    assert!(String::from_utf8_lossy(&seen.stdout).contains("seen"), "{}", text(&seen));
    assert_eq!(scene.site.requests("/Dockerfile").len(), 1);
    let lock = scene.world.path("lock");
    fs::write(&lock, format!("version 1\nurl {url} {}\n", registry::digest(b"another"))).expect("a file");
    assert_eq!(targets(&[&format!("--locked={}", lock.display())]).status.code(), Some(1));
}

#[test]
fn a_shell_looks_names_up_as_its_build_does() {
    let Some(scene) = Scene::new("a_shell_looks_names_up_as_its_build_does") else { return };
    let Some(world) = World::with_base("a_shell_looks_names_up_as_its_build_does") else { return };
    scene.site.put("/f", b"one");
    let context = world.path("context");
    let dockerfile = format!("FROM base\nADD --chmod=644 {} /f\nRUN false\n", scene.site.url("/f"));
    write_files(&context, &[("Dockerfile", &dockerfile.replace("RUN false\n", ""))]);
    succeed(world.rbuild().args(["build", "--lock"]).arg(&context));
    scene.site.put("/f", b"two");
    let asked = scene.site.requests("/f").len();
    let shell = |option: &str, file: &str| {
        let mut command = world.rbuild();
        command.args(["shell", option, "--context"]).arg(&context).args(["--", "cat", file]);
        String::from_utf8_lossy(&succeed(&mut command).stdout).into_owned()
    };
    assert_eq!([shell("--locked", "/f"), shell("--offline", "/f")], ["one", "one"]);
    assert_eq!(scene.site.requests("/f").len(), asked);
    write_files(&context, &[("Dockerfile", &dockerfile)]);
    let failed =
        world.rbuild().args(["build", "--locked", "--offline"]).arg(&context).output().expect("it starts");
    assert!(
        text(&failed).contains("shell stage-0@3") && text(&failed).contains("--locked --offline"),
        "{}",
        text(&failed)
    );
}
