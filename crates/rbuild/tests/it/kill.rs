//! `kill -9` of a build in each of its phases: nothing is damaged, nothing is left, and the same build then gives the same image.
//!
//! A phase lies between two lines of the plain output. How long it takes is measured once, and the kills are spread over it evenly.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use oci::ContentDigest;
use store::Store;
use testkit::leftovers;
use testkit::tree::{Shape, plant};

use crate::building::Building;
use crate::world::{World, succeed, write_files};

/// In each phase.
const KILLS: u32 = 20;

/// A part of a build.
struct Phase {
    dockerfile: &'static str,
    /// A line that comes at its beginning.
    begins: &'static str,
    /// A line that comes at its end; `None` is the end of the program.
    ends: Option<&'static str>,
}

/// A store with the base image, and a context, from which each kill gets its own copy.
struct Prepared {
    world: World,
}

impl Prepared {
    fn new(test: &str, phase: &Phase) -> Option<Self> {
        let world = World::with_base(test)?;
        let context = world.path("context");
        write_files(&context, &[("Dockerfile", phase.dockerfile)]);
        plant(&context, Shape { top_directories: 4, directories_each: 4, files: 300, size_bytes: 16 << 20 })
            .unwrap();
        Some(Self { world })
    }

    /// Another store of the same content.
    fn copy(&self) -> World {
        let world = World::new();
        succeed(Command::new("cp").arg("-a").arg(self.world.store()).arg(world.store()));
        world
    }

    fn build(&self, world: &World) -> Command {
        let mut command = world.rbuild();
        command.args(["build", "--progress", "plain", "-t", "app"]).arg(self.world.path("context"));
        command
    }
}

fn kill_all_through(test: &str, phase: &Phase) {
    let Some(prepared) = Prepared::new(test, phase) else { return };
    let undisturbed = prepared.copy();
    let takes = measure(phase, &mut prepared.build(&undisturbed));
    let expected = contents(&undisturbed.store(), "app");
    let (mut kills, mut tries) = (0, 0);
    while kills < KILLS {
        assert!(tries < 4 * KILLS, "only {kills} of {tries} kills came in time");
        let world = prepared.copy();
        let delay = takes.mul_f64(f64::from(tries % KILLS) / f64::from(KILLS));
        kills += u32::from(kill_after(phase, delay, &mut prepared.build(&world)));
        tries += 1;
        leftovers::assert_no_process(&world.store());
        world.assert_sound();
        succeed(&mut prepared.build(&world));
        assert_eq!(contents(&world.store(), "app"), expected, "killed after {delay:?}");
        succeed(world.rbuild().arg("prune"));
        leftovers::assert_nothing_left(&world.store());
    }
}

/// How long a phase takes when nothing disturbs it.
fn measure(phase: &Phase, command: &mut Command) -> Duration {
    let build = Building::start(command);
    let began = build.wait_for(phase.begins).expect("the phase begins");
    let ended = phase.ends.map(|ends| build.wait_for(ends).expect("the phase ends"));
    let (status, lines) = build.finish();
    assert!(status.success(), "{lines}");
    ended.unwrap_or_else(Instant::now) - began
}

/// Whether the kill was in time.
fn kill_after(phase: &Phase, delay: Duration, command: &mut Command) -> bool {
    let build = Building::start(command);
    build.wait_for(phase.begins).expect("the phase begins");
    std::thread::sleep(delay);
    build.kill()
}

/// What an image's layers contain, lowest first, leaving out times.
fn contents(root: &Path, name: &str) -> Vec<ContentDigest> {
    let store = Store::open(root).unwrap();
    let id = store.tag(&name.parse().unwrap()).unwrap().expect("the image has its name");
    let image = store.image(&id.image).unwrap().expect("the image is there");
    let layers = image.layers.iter().map(|id| store.layer(id).unwrap().expect("its layers are there"));
    layers.map(|layer| layer.facts().content.clone()).collect()
}

#[test]
fn a_build_killed_in_a_run_leaves_nothing_and_is_repeated() {
    let phase = Phase {
        dockerfile: "FROM base\nRUN echo begins; for i in $(seq 150); do mkdir /d$i; echo $i > /d$i/f; done; setsid sleep 600 & echo ends\n",
        begins: "| begins",
        ends: Some("| ends"),
    };
    kill_all_through("a_build_killed_in_a_run_leaves_nothing_and_is_repeated", &phase);
}

#[test]
fn a_build_killed_in_a_copy_leaves_nothing_and_is_repeated() {
    let phase =
        Phase { dockerfile: "FROM base\nCOPY . /data\n", begins: "COPY . /data", ends: Some("done in") };
    kill_all_through("a_build_killed_in_a_copy_leaves_nothing_and_is_repeated", &phase);
}

#[test]
fn a_build_killed_while_it_seals_leaves_nothing_and_is_repeated() {
    let phase = Phase {
        dockerfile: "FROM base\nRUN for i in $(seq 16); do yes $i | head -c 1m > /f$i; done; echo written\n",
        begins: "| written",
        ends: Some("done in"),
    };
    kill_all_through("a_build_killed_while_it_seals_leaves_nothing_and_is_repeated", &phase);
}

#[test]
fn a_build_killed_while_it_publishes_leaves_nothing_and_is_repeated() {
    let phase = Phase {
        dockerfile: "FROM base\nRUN for i in $(seq 100); do echo $i > /f$i; done\n",
        begins: "done in",
        ends: None,
    };
    kill_all_through("a_build_killed_while_it_publishes_leaves_nothing_and_is_repeated", &phase);
}

#[test]
fn a_store_is_not_sound_once_a_byte_of_a_layer_is_another() {
    let test = "a_store_is_not_sound_once_a_byte_of_a_layer_is_another";
    let Some(world) = World::with_base(test) else { return };
    world.assert_sound();
    let layers = fs::read_dir(world.store().join("layers")).unwrap();
    let entries = layers.map(|layer| layer.unwrap().path().join("entries")).next().unwrap();
    let mut bytes = fs::read(&entries).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&entries, bytes).unwrap();
    let checked = world.rbuild().arg("fsck").output().unwrap();
    assert!(!checked.status.success(), "{checked:?}");
}
