//! `--cache-to` and `--cache-from`: two stores as two machines.

mod honesty;
mod mounts;
mod trouble;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use testkit::registry::Registry;

use crate::world::{World, check_code, succeed, write_files};

/// Two stages; `big` is a layer of the first one that the image does not have.
const DOCKERFILE: &str = "FROM BASE AS builder
RUN head -c 300000 /dev/urandom > /big
COPY a.txt /a.txt
RUN cat /a.txt > /result

FROM BASE
RUN echo final > /final
COPY --from=builder /result /result
COPY b.txt /b.txt
CMD [\"cat\", \"/final\", \"/result\", \"/b.txt\"]
";

/// How many of its steps have layers.
const STEPS: usize = 6;

/// A registry with a base image, and a context that builds upon it.
struct Scene {
    registry: Registry,
    /// Where the base image was made, and the context is.
    maker: World,
}

impl Scene {
    fn new(test: &str) -> Option<Self> {
        let maker = World::with_base(test)?;
        let scene = Self { registry: Registry::start(), maker };
        let base = scene.registry.reference("base:1");
        succeed(scene.maker.rbuild().args(["tag", "base", &base]));
        succeed(scene.maker.rbuild().args(["push", "-q", &base]));
        scene.write(&[
            ("Dockerfile", &DOCKERFILE.replace("BASE", &base)),
            ("a.txt", "a\n"),
            ("b.txt", "b\n"),
        ]);
        Some(scene)
    }

    fn write(&self, files: &[(&str, &str)]) {
        write_files(&self.context(), files);
    }

    fn context(&self) -> PathBuf {
        self.maker.path("context")
    }

    fn cache(&self) -> String {
        self.registry.reference("cache:1")
    }

    fn command(&self, world: &World, args: &[&str]) -> Command {
        self.command_for("app", world, args)
    }

    fn command_for(&self, name: &str, world: &World, args: &[&str]) -> Command {
        let mut command = world.rbuild();
        command.args(["build", "--progress=plain", "-t", name]).args(args).arg(self.context());
        command
    }

    #[track_caller]
    fn build(&self, world: &World, args: &[&str]) -> String {
        text(&succeed(&mut self.command(world, args)))
    }

    /// Builds where the base image was made and sends all of it to the registry.
    #[track_caller]
    fn export(&self, mode: &str) -> String {
        let to = format!("type=registry,ref={},mode={mode}", self.cache());
        self.build(&self.maker, &["--cache-to", &to])
    }

    /// Bytes of blobs that were sent to the registry so far.
    fn sent_bytes(&self) -> usize {
        let requests = self.registry.requests();
        requests.iter().filter(|seen| seen.path.contains("/uploads/")).map(|seen| seen.body.len()).sum()
    }

    /// Blobs of the cache that were fetched so far.
    fn fetched(&self) -> usize {
        let is_fetch = |seen: &&testkit::registry::Seen| {
            seen.method == "GET"
                && seen.path.starts_with("/v2/cache/blobs/")
                && !seen.path.contains("/uploads/")
        };
        self.registry.requests().iter().filter(is_fetch).count()
    }

    /// The manifest that the registry was given last for a cache.
    fn manifest(&self) -> Value {
        let requests = self.registry.requests();
        let put = |seen: &&testkit::registry::Seen| {
            seen.method == "PUT" && seen.path.starts_with("/v2/cache/manifests/")
        };
        serde_json::from_slice(&requests.iter().rfind(put).expect("a manifest").body).expect("JSON")
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn image_id(world: &World) -> String {
    let shown = succeed(world.rbuild().args(["inspect", "app"])).stdout;
    let shown: Value = serde_json::from_slice(&shown).expect("JSON");
    shown[0]["Id"].as_str().expect("an id").to_owned()
}

fn output_of(world: &World) -> String {
    String::from_utf8(succeed(world.rbuild().args(["run", "app"])).stdout).expect("text")
}

/// How often the plain progress says that a step ran.
fn ran(said: &str) -> usize {
    said.lines().filter(|line| line.starts_with('[') && line.contains("] done in ")).count()
}

#[test]
fn another_machine_reuses_every_step_and_fetches_only_what_the_image_has() {
    let Some(scene) = Scene::new("another_machine_reuses_every_step") else { return };
    let said = scene.export("max");
    assert!(said.contains(&format!("exported the results of {STEPS} steps")), "{said}");
    let other = World::new();
    let said = scene.build(&other, &["--cache-from", &scene.cache()]);
    assert_eq!(ran(&said), 0, "{said}");
    assert!(said.contains(&format!("found the results of {STEPS} steps in the cache")), "{said}");
    // The records, and the three layers of the image's own; none of the builder's.
    assert_eq!(scene.fetched(), 4, "{said}");
    assert_eq!(image_id(&other), image_id(&scene.maker));
    assert_eq!(output_of(&other), "final\na\nb\n");
    let explained = succeed(other.rbuild().arg("explain")).stdout;
    assert!(String::from_utf8_lossy(&explained).contains("another cache had it"));
    // What came is the store's own now.
    scene.build(&other, &[]);
    assert_eq!(scene.fetched(), 4);
    // And what changes from now on is told.
    scene.write(&[("a.txt", "other\n")]);
    let said = scene.build(&other, &["--cache-from", &scene.cache()]);
    assert!(said.contains("a.txt changed"), "{said}");
    other.assert_sound();
}

#[test]
fn layers_of_a_stage_come_when_a_step_of_it_must_run() {
    let Some(scene) = Scene::new("layers_of_a_stage_come_when_a_step_of_it_must_run") else { return };
    scene.export("max");
    scene.write(&[("a.txt", "other\n")]);
    let other = World::new();
    let said = scene.build(&other, &["--cache-from", &format!("type=registry,ref={}", scene.cache())]);
    // The builder's COPY and RUN, and both COPYs behind them; neither stage's first RUN.
    assert_eq!(ran(&said), 4, "{said}");
    assert_eq!(output_of(&other), "final\nother\nb\n");
    // The records, the builder's first layer, and that of the target.
    assert_eq!(scene.fetched(), 3, "{said}");
    other.assert_sound();
}

#[test]
fn a_step_whose_inputs_came_out_the_same_is_found_by_content() {
    let Some(scene) = Scene::new("a_step_whose_inputs_came_out_the_same") else { return };
    scene.export("max");
    let dockerfile = fs::read_to_string(scene.context().join("Dockerfile")).expect("a Dockerfile");
    // Another command with the same outcome: all behind it has another definition, and the same content.
    scene.write(&[("Dockerfile", &dockerfile.replace("cat /a.txt > /result", "cp /a.txt /result"))]);
    let other = World::new();
    let said = scene.build(&other, &["--cache-from", &scene.cache()]);
    assert_eq!(ran(&said), 1, "{said}");
    assert_eq!(output_of(&other), "final\na\nb\n");
}

#[test]
fn mode_min_sends_the_steps_of_the_image_and_no_others() {
    let Some(scene) = Scene::new("mode_min_sends_the_steps_of_the_image") else { return };
    let said = scene.export("min");
    assert!(said.contains("exported the results of 3 steps"), "{said}");
    assert_eq!(scene.manifest()["layers"].as_array().map(Vec::len), Some(3));
    let other = World::new();
    let said = scene.build(&other, &["--cache-from", &scene.cache()]);
    assert_eq!(ran(&said), 0, "{said}");
    scene.write(&[("a.txt", "other\n")]);
    let third = World::new();
    let said = scene.build(&third, &["--cache-from", &scene.cache()]);
    assert_eq!(ran(&said), 5, "{said}");
    // That is what buildx does without a mode, too.
    let said = scene.build(&scene.maker, &["--cache-to", &scene.registry.reference("cache:2")]);
    assert!(said.contains("exported the results of 3 steps"), "{said}");
}

#[test]
fn a_second_export_sends_what_is_new() {
    let Some(scene) = Scene::new("a_second_export_sends_what_is_new") else { return };
    scene.export("max");
    let first = scene.sent_bytes();
    let said = scene.export("max");
    assert!(said.contains("nothing new was sent"), "{said}");
    assert_eq!(scene.sent_bytes(), first);
    scene.write(&[("b.txt", "other\n")]);
    let said = scene.export("max");
    let more = scene.sent_bytes() - first;
    // One small layer, and the records; the large layer is there.
    assert!(said.contains("2 new blobs"), "{said}");
    assert!(first > 300_000 && more < 4_000, "{first} bytes, then {more}");
}

#[test]
fn what_was_imported_and_not_needed_is_exported_again() {
    let Some(scene) = Scene::new("what_was_imported_and_not_needed_is_exported_again") else { return };
    scene.export("max");
    let directory = scene.maker.path("cache");
    let (same, local) = (
        format!("type=registry,ref={},mode=max", scene.cache()),
        format!("type=local,dest={},mode=max", directory.display()),
    );
    // A machine on which no step runs keeps what it does not need itself, in the same place and in another one.
    let other = World::new();
    let said =
        scene.build(&other, &["--cache-from", &scene.cache(), "--cache-to", &same, "--cache-to", &local]);
    assert_eq!(ran(&said), 0, "{said}");
    assert_eq!(said.matches(&format!("exported the results of {STEPS} steps")).count(), 2, "{said}");
    scene.write(&[("a.txt", "other\n")]);
    for from in [scene.cache(), format!("type=local,src={}", directory.display())] {
        let third = World::new();
        let said = scene.build(&third, &["--cache-from", &from]);
        assert_eq!(ran(&said), 4, "{from}: {said}");
        assert_eq!(output_of(&third), "final\nother\nb\n");
        third.assert_sound();
    }
    other.assert_sound();
}

/// Paths and contents of the files below a directory.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("a file"));
        }
    }
    found
}

#[test]
fn a_directory_is_an_oci_layout_that_keeps_nothing_old() {
    let Some(scene) = Scene::new("a_directory_is_an_oci_layout_that_keeps_nothing_old") else { return };
    let directory = scene.maker.path("cache");
    let to = |rest: &str| format!("type=local,dest={}{rest}", directory.display());
    scene.build(&scene.maker, &["--cache-to", &to(",mode=max")]);
    let index: Value =
        serde_json::from_slice(&fs::read(directory.join("index.json")).expect("an index")).expect("JSON");
    let entry = &index["manifests"][0];
    assert_eq!(entry["artifactType"], "application/vnd.rbuild.cache.v1");
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "latest");
    let before = files(&directory);
    scene.build(&scene.maker, &["--cache-to", &to(",mode=max")]);
    assert!(before == files(&directory), "the same build gives the same directory");

    // Under another tag the first stays; under the same one, what only that had goes.
    scene.write(&[("b.txt", "other\n")]);
    scene.build(&scene.maker, &["--cache-to", &to(",mode=max,tag=other")]);
    let both = files(&directory);
    assert!(before.keys().filter(|path| !path.ends_with("index.json")).all(|path| both.contains_key(path)));
    scene.build(&scene.maker, &["--cache-to", &to(",mode=max")]);
    let after = files(&directory);
    assert!(after.len() < both.len(), "{} files, then {}", both.len(), after.len());
    for tag in ["", ",tag=other"] {
        let other = World::new();
        let from = format!("type=local,src={}{tag}", directory.display());
        let said = scene.build(&other, &["--cache-from", &from]);
        assert_eq!(ran(&said), 0, "{said}");
        other.assert_sound();
    }
    let from = format!("type=local,src={},tag=absent", directory.display());
    assert!(scene.build(&World::new(), &["--cache-from", &from]).contains("there is no cache at"));
    // What is no layout is left alone.
    let full = scene.maker.path("full");
    write_files(&full, &[("mine", "mine")]);
    let to = format!("type=local,dest={}", full.display());
    assert!(
        check_code(&mut scene.command(&scene.maker, &["--cache-to", &to]), 4).contains("is there already")
    );
    assert_eq!(files(&full).len(), 1);
}

#[test]
fn layers_are_compressed_as_it_is_said_and_old_ones_are_left_out() {
    let Some(scene) = Scene::new("layers_are_compressed_as_it_is_said") else { return };
    for (compression, ending) in [
        ("", "gzip"),
        (",compression=gzip", "gzip"),
        (",compression=zstd", "zstd"),
        (",compression=uncompressed", "tar"),
    ] {
        let to = format!("type=registry,ref={},mode=max{compression}", scene.cache());
        scene.build(&scene.maker, &["--cache-to", &to]);
        let manifest = scene.manifest();
        let types = manifest["layers"].as_array().expect("layers").iter().map(|layer| &layer["mediaType"]);
        assert!(
            types.clone().count() == STEPS
                && types.clone().all(|kind| kind.as_str().is_some_and(|kind| kind.ends_with(ending))),
            "{manifest}"
        );
        let other = World::new();
        let said = scene.build(&other, &["--cache-from", &scene.cache()]);
        assert_eq!(ran(&said), 0, "{said}");
        other.assert_sound();
    }
    let said = scene.build(&World::new(), &["--cache-from", &scene.cache(), "--cache-ttl", "0s"]);
    assert_eq!(ran(&said), STEPS, "{said}");
    let said = scene.build(&World::new(), &["--cache-from", &scene.cache(), "--no-cache"]);
    assert_eq!(ran(&said), STEPS, "{said}");
}

#[test]
fn an_image_brings_the_results_of_its_own_steps() {
    let Some(scene) = Scene::new("an_image_brings_the_results_of_its_own_steps") else { return };
    let name = scene.registry.reference("app:1");
    let push = |args: &[&str]| text(&succeed(scene.command_for(&name, &scene.maker, &["--push"]).args(args)));
    push(&["--cache-to", "type=inline"]);
    scene.build(&scene.maker, &[]);
    let id = image_id(&scene.maker);
    let other = World::new();
    let said = scene.build(&other, &["--cache-from", &name]);
    assert_eq!(ran(&said), 0, "{said}");
    assert_eq!(image_id(&other), id, "records change nothing of the image itself");
    scene.write(&[("b.txt", "other\n")]);
    let third = World::new();
    let said = scene.build(&third, &["--cache-from", &format!("type=registry,ref={name}")]);
    assert_eq!(ran(&said), 1, "{said}");
    assert_eq!(output_of(&third), "final\na\nother\n");
    third.assert_sound();
    // Without the option the image says nothing.
    push(&[]);
    let said = scene.build(&World::new(), &["--cache-from", &name]);
    assert!(said.contains("cannot import the cache at"), "{said}");
    let said = scene.build(&scene.maker, &["--cache-to", "type=inline"]);
    assert!(said.contains("the image is kept without a manifest"), "{said}");
    let said = push(&["--squash", "--cache-to", "type=inline"]);
    assert!(said.contains("the layers of the image are not those of its steps"), "{said}");
}

#[test]
fn each_platform_of_an_image_brings_its_own_results() {
    let Some(scene) = Scene::new("each_platform_of_an_image_brings_its_own_results") else { return };
    scene.write(&[(
        "Dockerfile",
        "FROM scratch\nARG TARGETARCH\nCOPY a.txt /$TARGETARCH\nCOPY b.txt /b.txt\n",
    )]);
    let name = scene.registry.reference("app:1");
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    let args = [&platforms[..], &["--push", "--cache-to", "type=inline"]].concat();
    let said = text(&succeed(&mut scene.command_for(&name, &scene.maker, &args)));
    assert_eq!(ran(&said), 4, "{said}");
    let said = scene.build(&World::new(), &[&platforms[..], &["--cache-from", &name]].concat());
    assert!(said.contains("found the results of 4 steps") && ran(&said) == 0, "{said}");
    let said = scene.build(&World::new(), &["--platform", "linux/arm64", "--cache-from", &name]);
    assert!(said.contains("found the results of 2 steps") && ran(&said) == 0, "{said}");
}

#[test]
fn linked_copies_and_secrets_that_count_are_found_as_far_as_they_can_be() {
    let Some(scene) = Scene::new("linked_copies_and_secrets_that_count") else { return };
    let base = scene.registry.reference("base:1");
    let dockerfile = format!(
        "FROM {base}\nRUN echo final > /final\nCOPY --link a.txt /result\nCOPY b.txt /b.txt\n\
         RUN --mount=type=secret,id=s true\nCMD [\"cat\", \"/final\", \"/result\", \"/b.txt\"]\n"
    );
    scene.write(&[("Dockerfile", &dockerfile)]);
    let to = format!("type=registry,ref={},mode=max", scene.cache());
    let secret = "--secret=id=s,env=HOME";
    scene.build(&scene.maker, &[secret, "--cache-to", &to]);
    scene.write(&[("b.txt", "other\n")]);
    let other = World::new();
    let said = scene.build(&other, &[secret, "--cache-from", &scene.cache()]);
    assert_eq!(ran(&said), 2, "{said}");
    assert_eq!(output_of(&other), "final\na\nother\n");
    other.assert_sound();
    // The value of a secret that counts is in a key that no other machine can make.
    let secret = format!("{secret},cache=hash");
    scene.build(&scene.maker, &[&secret, "--cache-to", &to]);
    let said = scene.build(&World::new(), &[&secret, "--cache-from", &scene.cache()]);
    assert_eq!(ran(&said), 1, "{said}");
}

#[test]
fn what_a_linked_copy_is_copied_from_does_not_come() {
    let Some(scene) = Scene::new("what_a_linked_copy_is_copied_from_does_not_come") else { return };
    let dockerfile = fs::read_to_string(scene.context().join("Dockerfile")).expect("a Dockerfile");
    scene.write(&[("Dockerfile", &dockerfile.replace("COPY --from", "COPY --link --from"))]);
    scene.export("max");
    let other = World::new();
    let said = scene.build(&other, &["--cache-from", &scene.cache()]);
    assert_eq!((ran(&said), scene.fetched()), (0, 4), "{said}");
    assert_eq!(output_of(&other), "final\na\nb\n");
    // And not later either, with the cache or without.
    for args in [&["--cache-from", &scene.cache()][..], &[]] {
        let said = scene.build(&other, args);
        assert!(said.contains("nothing to do") || ran(&said) == 0, "{said}");
    }
    assert_eq!(scene.fetched(), 5);
    // Where the store has what is below, the two have to be looked at together.
    let third = World::new();
    scene.write(&[("Dockerfile", dockerfile.split("COPY --from").next().expect("a beginning"))]);
    scene.build(&third, &[]);
    scene.write(&[("Dockerfile", &dockerfile.replace("COPY --from", "COPY --link --from"))]);
    let said = scene.build(&third, &["--cache-from", &scene.cache()]);
    assert_eq!(output_of(&third), "final\na\nb\n", "{said}");
    for world in [&other, &third] {
        world.assert_sound();
    }
}

#[test]
fn layers_that_were_pushed_are_not_sent_again_for_the_cache() {
    let Some(scene) = Scene::new("layers_that_were_pushed_are_not_sent_again") else { return };
    let (name, to) = (scene.registry.reference("app:1"), format!("type=registry,ref={}", scene.cache()));
    let said = text(&succeed(&mut scene.command_for(&name, &scene.maker, &["--push", "--cache-to", &to])));
    // The records alone.
    assert!(said.contains("exported the results of 3 steps") && said.contains("one new blob of"), "{said}");
    let said = scene.build(&World::new(), &["--cache-from", &scene.cache()]);
    assert_eq!(ran(&said), 0, "{said}");
}

#[test]
fn a_build_without_layers_has_a_cache_that_is_empty() {
    let Some(scene) = Scene::new("a_build_without_layers_has_a_cache_that_is_empty") else { return };
    scene.write(&[("Dockerfile", &format!("FROM {}\nENV A=b\n", scene.registry.reference("base:1")))]);
    let said = scene.export("max");
    assert!(said.contains("exported the results of 0 steps"), "{said}");
    let said = scene.build(&World::new(), &["--cache-from", &scene.cache()]);
    assert!(said.contains("found the results of 0 steps"), "{said}");
}
