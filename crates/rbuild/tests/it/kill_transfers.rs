//! `kill -9` of a pull, of a push and of the export of a cache: nothing is damaged or left, and what was moved is not moved again.

use std::collections::HashSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::registry::{MANIFEST, Registry};
use testkit::{Need, leftovers};

use crate::building::Building;
use crate::world::{World, succeed, write_files};

const KILLS: u32 = 20;
const LAYERS: usize = 12;

/// How long the registry takes with each blob at least, so that a transfer lasts longer than its start.
const EACH: Duration = Duration::from_millis(25);

/// A store with an image of many layers.
fn source(test: &str) -> Option<World> {
    if !testkit::can_run(test, &[Need::Root]) {
        return None;
    }
    let world = World::new();
    let context = world.path("context");
    let copies: Vec<String> = (0..LAYERS).map(|n| format!("COPY f{n} /f{n}\n")).collect();
    write_files(&context, &[("Dockerfile", &format!("FROM scratch\n{}", copies.concat()))]);
    for n in 0..LAYERS {
        let noise: Vec<u8> = (0..40_000u64)
            .flat_map(|word| (word.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (n as u64) << 32).to_le_bytes())
            .collect();
        fs::write(context.join(format!("f{n}")), noise).unwrap();
    }
    succeed(world.rbuild().args(["build", "-q", "-t", "app"]).arg(&context));
    Some(world)
}

/// Short names of the layers that a transfer has told of as ended, and how it told.
fn ended(lines: &[String]) -> HashSet<String> {
    let layers = lines.iter().filter_map(|line| line.split_once(": layer ")?.1.split(' ').next());
    layers.map(ToOwned::to_owned).collect()
}

/// Kills a command after a part of the time that it takes undisturbed; gives the layers that it had ended, unless it ended itself before.
fn kill_within(took: Duration, part: u32, command: &mut Command) -> Option<HashSet<String>> {
    let begun = Building::start(command);
    std::thread::sleep(took.mul_f64(f64::from(part % KILLS) / f64::from(KILLS)));
    let (was_in_time, lines) = begun.kill_and_read();
    was_in_time.then(|| ended(&lines))
}

fn timed(command: &mut Command) -> Duration {
    let start = Instant::now();
    succeed(command);
    start.elapsed()
}

/// The digests of the blobs that were asked for by a method, from the `from`th request on.
fn blobs(registry: &Registry, method: &str, from: usize) -> Vec<String> {
    let requests = registry.requests();
    let of_method = requests[from..].iter().filter(|seen| seen.method == method);
    let digests =
        of_method.filter_map(|seen| seen.path.split_once("/blobs/sha256:").map(|(_, hex)| hex.to_owned()));
    digests.collect()
}

#[test]
fn a_killed_pull_is_taken_up_where_it_was() {
    let Some(source) = source("a_killed_pull_is_taken_up_where_it_was") else { return };
    let registry = Registry::start();
    let name = registry.reference("app");
    succeed(source.rbuild().args(["tag", "app", &name]));
    succeed(source.rbuild().args(["push", &name]));
    registry.on("/v2/app/blobs/", |_, exchange| {
        std::thread::sleep(EACH);
        exchange.serve()
    });
    let pull = |world: &World| {
        let mut rbuild = world.rbuild();
        rbuild.args(["pull", &name]);
        rbuild
    };
    let took = timed(&mut pull(&World::new()));
    let (mut kills, mut had_layers) = (0, 0);
    for part in 0..4 * KILLS {
        let world = World::new();
        let Some(complete) = kill_within(took, part, &mut pull(&world)) else { continue };
        leftovers::assert_no_process(&world.store());
        if world.store().exists() {
            world.assert_sound();
        }
        let before = registry.requests().len();
        succeed(&mut pull(&world));
        let again = blobs(&registry, "GET", before);
        let twice = again.iter().find(|hex| complete.iter().any(|short| hex.starts_with(short)));
        assert_eq!(twice, None, "of {complete:?} one came twice");
        world.assert_sound();
        leftovers::assert_nothing_left(&world.store());
        kills += 1;
        had_layers += u32::from(!complete.is_empty());
        if kills == KILLS {
            break;
        }
    }
    assert_eq!(kills, KILLS, "too few kills came in time");
    assert!(had_layers >= KILLS / 4, "only {had_layers} kills came when there was something to lose");
}

#[test]
fn a_killed_push_is_taken_up_where_it_was() {
    let Some(source) = source("a_killed_push_is_taken_up_where_it_was") else { return };
    let start = || {
        let registry = Registry::start();
        registry.on("/v2/app/blobs/uploads/", |_, exchange| {
            std::thread::sleep(EACH);
            exchange.serve()
        });
        registry
    };
    let push = |registry: &Registry| {
        let name = registry.reference("app");
        succeed(source.rbuild().args(["tag", "app", &name]));
        let mut rbuild = source.rbuild();
        rbuild.args(["push", &name]);
        rbuild
    };
    // What is compressed once stays so.
    succeed(&mut push(&start()));
    let took = timed(&mut push(&start()));
    let (mut kills, mut had_layers) = (0, 0);
    for part in 0..4 * KILLS {
        let registry = start();
        let Some(complete) = kill_within(took, part, &mut push(&registry)) else { continue };
        source.assert_sound();
        let manifests = |seen: &testkit::registry::Seen| seen.header("content-type") == Some(MANIFEST);
        let before = registry.requests().len();
        let named = registry.requests().iter().any(manifests);
        succeed(&mut push(&registry));
        let sent: u64 = registry.requests()[before..].iter().map(|seen| seen.body.len() as u64).sum();
        let missing = (LAYERS - complete.len()) as u64;
        assert!(
            named || sent <= (missing + 1) * 330_000 + 20_000,
            "{sent} bytes though {complete:?} was there"
        );
        kills += 1;
        had_layers += u32::from(!complete.is_empty());
        if kills == KILLS {
            break;
        }
    }
    source.assert_sound();
    leftovers::assert_nothing_left(&source.store());
    assert_eq!(kills, KILLS, "too few kills came in time");
    assert!(had_layers >= KILLS / 4, "only {had_layers} kills came when there was something to lose");
}

#[test]
fn a_killed_export_of_a_cache_is_taken_up_where_it_was() {
    let Some(source) = source("a_killed_export_of_a_cache_is_taken_up_where_it_was") else { return };
    let start = || {
        let registry = Registry::start();
        registry.on("/v2/cache/blobs/uploads/", |_, exchange| {
            std::thread::sleep(EACH);
            exchange.serve()
        });
        registry
    };
    let export = |registry: &Registry| {
        let mut rbuild = source.rbuild();
        let to = format!("type=registry,ref={},mode=max", registry.reference("cache"));
        rbuild.args(["build", "--progress=plain", "--cache-to", &to]).arg(source.path("context"));
        rbuild
    };
    // What is compressed once stays so.
    succeed(&mut export(&start()));
    let took = timed(&mut export(&start()));
    let (mut kills, mut had_blobs) = (0, 0);
    for part in 0..4 * KILLS {
        let registry = start();
        if kill_within(took, part, &mut export(&registry)).is_none() {
            continue;
        }
        source.assert_sound();
        // Of what it was given, the registry may be at work on the last yet.
        std::thread::sleep(4 * EACH);
        let taken: HashSet<String> = registry
            .requests()
            .iter()
            .filter(|seen| seen.method == "PUT" && seen.path.contains("/blobs/uploads/"))
            .filter_map(|seen| seen.query.split_once("digest=").map(|(_, digest)| digest.to_owned()))
            .filter(|digest| registry.has_taken("cache", &digest.replace("%3A", ":")))
            .collect();
        let before = registry.requests().len();
        succeed(&mut export(&registry));
        let again = registry.requests().split_off(before);
        let twice = again
            .iter()
            .filter(|seen| seen.method == "PUT")
            .filter_map(|seen| seen.query.split_once("digest="));
        let twice = twice.filter(|(_, digest)| taken.contains(*digest)).count();
        assert_eq!(twice, 0, "of {} blobs", taken.len());
        kills += 1;
        had_blobs += u32::from(!taken.is_empty());
        if kills == KILLS {
            break;
        }
    }
    leftovers::assert_nothing_left(&source.store());
    assert_eq!(kills, KILLS, "too few kills came in time");
    assert!(had_blobs >= KILLS / 4, "only {had_blobs} kills came when there was something to lose");
    // And it is a cache that another store can take from.
    let (other, registry) = (World::new(), start());
    succeed(&mut export(&registry));
    let mut rbuild = other.rbuild();
    let said = succeed(
        rbuild
            .args(["build", "--progress=plain", "--cache-from", &registry.reference("cache")])
            .arg(source.path("context")),
    );
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains(&format!("{LAYERS} steps reused")), "{said}");
}
