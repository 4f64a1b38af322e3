//! Pulling from a registry in this process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use image::Layers;
use image::export::{Destination, Format};
use image::pull::{Progress, PullError, PullFailure, PullOptions, Pulled};
use oci::{Compression, Digest, Reference};
use registry::{Client, Credentials, Hosts, Limits, Options, SystemNames, Timing};
use serde_json::json;
use testkit::registry::Registry;
use web::{Proxies, Roots};

use crate::archives::named;
use crate::world::{World, amd64, reference, show, tar};

/// The real clock; pauses are skipped.
#[derive(Debug)]
struct Skipping(Instant);

impl Timing for Skipping {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, _: Duration, _: &dyn Fn() -> bool) {}

    fn jitter(&self) -> f64 {
        0.0
    }
}

pub(crate) fn client() -> Client {
    let options = Options {
        credentials: Credentials::none(),
        limits: Limits { attempts: 2, ..Limits::DEFAULT },
        hosts: Hosts::none(),
        proxies: Proxies::none(),
        roots: Roots::Compiled,
        user_agent: "rbuild-test".to_owned(),
        names: Arc::new(SystemNames),
        timing: Arc::new(Skipping(Instant::now())),
    };
    Client::new(options).unwrap()
}

fn pull(layers: &Layers<'_>, reference: &Reference) -> Result<Pulled, PullError> {
    let (platform, progress) = (amd64(), |_| ());
    let options = PullOptions { platform: &platform, transfers: 3, progress: &progress };
    image::pull(layers, &client(), reference, options)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    layer::compress::compress(bytes, Compression::Gzip, &mut packed).unwrap();
    packed
}

/// Puts an image of gzipped layers into a registry, its config saying that they are the tars `claimed`.
fn add_gzipped(registry: &Registry, name: &str, layers: &[&[u8]], claimed: &[&[u8]]) -> Vec<String> {
    let diff_ids: Vec<Digest> = claimed.iter().map(Digest::of).collect();
    let config = json!({
        "os": "linux", "architecture": "amd64", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string();
    let packed: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(layer)).collect();
    let descriptor = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": registry.add_blob(bytes), "size": bytes.len() });
    let layers: Vec<_> = packed
        .iter()
        .map(|layer| descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", layer))
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": descriptor("application/vnd.docker.container.image.v1+json", config.as_bytes()),
        "layers": layers,
    });
    let digest = registry.add_blob(manifest.to_string());
    registry.tag(name, "latest", &digest);
    packed.iter().map(|layer| format!("/v2/{name}/blobs/{}", Digest::of(layer))).collect()
}

#[test]
fn an_image_comes_once_and_whole() {
    let (registry, world) = (Registry::start(), World::new());
    let (lower, upper) = (tar("dir ./ mode=0555\ndir d\nfile d/a content=1"), tar("file d/b content=2"));
    let blobs = add_gzipped(&registry, "app", &[&lower, &upper], &[&lower, &upper]);
    let name = reference(&registry.reference("app"));
    let first = world.run(|layers| {
        let pulled = pull(layers, &name).unwrap();
        expect_test::expect![[r#"
            / 555 0:0
            /d 755 0:0 dir
            /d/a 644 0:0 file 1
            /d/b 644 0:0 file 1
        "#]]
        .assert_eq(&show(layers, &pulled.image.layers));
        pulled
    });
    assert_eq!((&first.name, &first.replaced), (&name, &None));
    let second = world.run(|layers| pull(layers, &name).unwrap());
    assert_eq!((second.image.id.clone(), second.replaced), (first.image.id.clone(), Some(first.image.id)));
    // The upper layer is not self-contained, so that it is looked at again; but its blob is there.
    assert!(blobs.iter().all(|blob| registry.count(blob) == 1));
    world.assert_clean();
}

#[test]
fn a_pulled_image_leaves_with_the_manifest_it_came_with() {
    let (registry, world) = (Registry::start(), World::new());
    let layer = tar("dir d\nfile d/a size=9000");
    add_gzipped(&registry, "docker", &[&layer], &[&layer]);
    registry.add_image("plain", "latest", "linux/amd64", &[&layer]);
    for (name, compression) in [("docker", Compression::Zstd), ("plain", Compression::None)] {
        world.run(|layers| {
            let name = registry.reference(name);
            let pulled = pull(layers, &reference(&name)).unwrap();
            let mut bytes = Vec::new();
            let to = Destination::Stream(&mut bytes);
            let exported =
                image::export::archive(layers, &[named(layers, &name)], Format::Oci, compression.into(), to)
                    .unwrap();
            assert_eq!(exported[0].manifest, pulled.digest);
        });
    }
}

#[test]
fn of_an_index_the_platform_asked_for_comes_and_the_digest_is_remembered() {
    let (registry, world) = (Registry::start(), World::new());
    let (one, two) = (tar("file amd content=1"), tar("file arm content=2"));
    let amd = registry.add_image("app", "a", "linux/amd64", &[&one]);
    let arm = registry.add_image("app", "b", "linux/arm64", &[&two]);
    let index = registry.add_index("app", "latest", &[(&arm, "linux/arm64"), (&amd, "linux/amd64")]);
    world.run(|layers| {
        let pulled = pull(layers, &reference(&registry.reference("app"))).unwrap();
        assert_eq!(pulled.digest.to_string(), index);
        assert!(show(layers, &pulled.image.layers).contains("/amd"));
        for digest in [&index, &amd] {
            let pinned = reference(&registry.reference(&format!("app@{digest}")));
            assert_eq!(image::local(layers, &pinned, &amd64()).unwrap().unwrap().id, pulled.image.id);
        }
        let pinned = reference(&registry.reference(&format!("app@{amd}")));
        assert_eq!(pull(layers, &pinned).unwrap().name, pinned);
    });
    world.assert_clean();
}

#[test]
fn progress_tells_of_every_byte() {
    let (registry, world) = (Registry::start(), World::new());
    let layer = tar("file a size=200000");
    add_gzipped(&registry, "app", &[&layer], &[&layer]);
    let (announced, received) = (AtomicU64::new(0), AtomicU64::new(0));
    let others = Mutex::new(Vec::new());
    let progress = |event: Progress| match event {
        Progress::Began { bytes, .. } => drop(announced.fetch_add(bytes, Ordering::SeqCst)),
        Progress::Received { bytes, .. } => drop(received.fetch_add(bytes, Ordering::SeqCst)),
        other => others.lock().unwrap().push(other),
    };
    world.run(|layers| {
        let platform = amd64();
        let options = PullOptions { platform: &platform, transfers: 1, progress: &progress };
        image::pull(layers, &client(), &reference(&registry.reference("app")), options).unwrap();
    });
    assert_eq!(announced.load(Ordering::SeqCst), gzip(&layer).len() as u64);
    assert_eq!(received.load(Ordering::SeqCst), announced.load(Ordering::SeqCst));
    let others = others.into_inner().unwrap();
    assert!(matches!(others[..], [Progress::Found { layers: 1, .. }, Progress::Ended { .. }]), "{others:?}");
}

#[track_caller]
fn failure(world: &World, registry: &Registry, name: &str) -> PullFailure {
    let failure =
        world.run(|layers| pull(layers, &reference(&registry.reference(name))).unwrap_err().failure);
    world.run(|layers| {
        assert!(image::list(layers).unwrap().is_empty());
        assert!(layers.lease().store().tags().unwrap().is_empty());
    });
    world.assert_clean();
    failure
}

#[test]
fn a_layer_that_is_another_than_the_config_says_is_refused() {
    let (registry, world) = (Registry::start(), World::new());
    let (one, other) = (tar("file a content=1"), tar("file a content=2"));
    add_gzipped(&registry, "wrong", &[&one], &[&other]);
    let error = failure(&world, &registry, "wrong");
    let (expected, got) = (Digest::of(&other), Digest::of(&one));
    assert_eq!(
        error.to_string(),
        format!("the config says that a layer is the tar {expected}, but it is {got}")
    );
    add_gzipped(&registry, "fewer", &[&one], &[&one, &one]);
    assert_eq!(failure(&world, &registry, "fewer").to_string(), "its manifest has 1 layers, its config 2");
    let lower = tar("file lib content=1");
    let upper = tar("file lib/x content=1");
    add_gzipped(&registry, "impossible", &[&lower, &upper], &[&lower, &upper]);
    assert!(matches!(failure(&world, &registry, "impossible"), PullFailure::Layer(_)));
}

#[test]
fn bytes_that_break_off_are_an_error_of_the_network() {
    let (registry, world) = (Registry::start(), World::new());
    let layer = tar("file a size=200000");
    let blobs = add_gzipped(&registry, "cut", &[&layer], &[&layer]);
    let packed = gzip(&layer);
    registry.on(&blobs[0], move |_, exchange| {
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", packed.len()).as_bytes())?;
        exchange.send(&packed[..packed.len() / 2])
    });
    assert!(matches!(failure(&world, &registry, "cut"), PullFailure::Blob(_)));
    let blobs = add_gzipped(&registry, "forged", &[&layer], &[&layer]);
    let forged = vec![0; gzip(&layer).len()];
    registry.on(&blobs[0], move |_, exchange| exchange.respond(200, &[], &forged));
    assert!(matches!(failure(&world, &registry, "forged"), PullFailure::Blob(_)));
}

#[test]
fn a_layer_that_came_is_not_asked_for_again_after_another_failed() {
    let (registry, world) = (Registry::start(), World::new());
    let (good, bad) = (tar("file a size=5000"), tar("file b size=6000"));
    let blobs = add_gzipped(&registry, "app", &[&good, &bad], &[&good, &bad]);
    registry.on(&blobs[1], |seen, exchange| match seen.earlier {
        0 => exchange.respond(403, &[], b""),
        _ => exchange.serve(),
    });
    let name = reference(&registry.reference("app"));
    let platform = amd64();
    let options = PullOptions { platform: &platform, transfers: 1, progress: &|_| () };
    world.run(|layers| image::pull(layers, &client(), &name, options).unwrap_err());
    world.run(|layers| image::pull(layers, &client(), &name, options).unwrap());
    assert_eq!((registry.count(&blobs[0]), registry.count(&blobs[1])), (1, 2));
    world.assert_clean();
}

#[test]
fn a_chart_is_no_image() {
    let (registry, world) = (Registry::start(), World::new());
    let digest = registry.add_blob("{}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": testkit::registry::MANIFEST,
        "config": { "mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": digest, "size": 2 },
        "layers": [],
    });
    registry.tag("chart", "latest", &registry.add_blob(manifest.to_string()));
    assert_eq!(
        failure(&world, &registry, "chart").to_string(),
        "it is no image: its config is of the type `application/vnd.cncf.helm.config.v1+json`"
    );
}
