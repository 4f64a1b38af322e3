//! Manifests, indexes and the choice of a platform.

use expect_test::{Expect, expect};
use oci::{ManifestKind, Platform};
use serde_json::json;
use testkit::registry::{INDEX, MANIFEST, Registry};

use crate::world::{amd64, chain, client, pull, reference, setup};

#[test]
fn a_plain_image_is_pulled_by_tag_and_by_digest() {
    let registry = Registry::start();
    let digest = registry.add_image("team/app", "v1", "linux/amd64", &[b"one", b"two"]);
    for name in ["team/app:v1".to_owned(), format!("team/app@{digest}")] {
        let (resolved, blobs) = pull(&client(), &reference(&registry, &name)).unwrap();
        assert_eq!(resolved.manifest.digest.to_string(), digest);
        assert_eq!(resolved.digest(), &resolved.manifest.digest);
        assert_eq!((resolved.indexes.len(), resolved.platform), (0, None));
        assert_eq!(blobs[1..], [b"one", b"two"]);
    }
}

#[test]
fn a_layout_directory_can_be_served_and_pulled() {
    let (layout, source, target) = (tempfile::tempdir().unwrap(), Registry::start(), Registry::start());
    let digest = source.add_image("a", "latest", "linux/amd64", &[b"layer"]);
    let (resolved, blobs) = pull(&client(), &reference(&source, "a")).unwrap();
    let directory = layout.path().join("blobs/sha256");
    std::fs::create_dir_all(&directory).unwrap();
    for bytes in blobs.iter().chain([&resolved.manifest.bytes]) {
        std::fs::write(directory.join(oci::Digest::of(bytes).hex()), bytes).unwrap();
    }
    let index = json!({ "schemaVersion": 2, "manifests": [{ "digest": digest, "mediaType": MANIFEST,
        "annotations": { "org.opencontainers.image.ref.name": "v2" } }] });
    std::fs::write(layout.path().join("index.json"), index.to_string()).unwrap();
    target.serve_layout("b", layout.path()).unwrap();
    assert_eq!(pull(&client(), &reference(&target, "b:v2")).unwrap().1, blobs);
}

/// Which of an index's images `wanted` gets; each is known by its layer.
#[track_caller]
fn check_choice(wanted: &str, platforms: &[&str], expected: Expect) {
    let registry = Registry::start();
    let digests: Vec<String> = platforms
        .iter()
        .enumerate()
        .map(|(at, platform)| {
            registry.add_image("a", "x", "linux/x", &[format!("{at} {platform}").as_bytes()])
        })
        .collect();
    let entries: Vec<(&str, &str)> =
        digests.iter().map(String::as_str).zip(platforms.iter().copied()).collect();
    let index = registry.add_index("a", "latest", &entries);
    let (client, reference) = (client(), reference(&registry, "a"));
    let wanted: Platform = wanted.parse().unwrap();
    let shown = match client.resolve(&reference, &wanted) {
        Err(error) => chain(&error).replace(&registry.host(), "HOST"),
        Ok(resolved) => {
            assert_eq!(resolved.digest().to_string(), index);
            assert_eq!(resolved.indexes[0].kind, ManifestKind::Index);
            crate::world::blob(&client, &reference, &resolved.layers()[0])
                .map(|layer| String::from_utf8(layer).unwrap())
                .unwrap()
        }
    };
    expected.assert_eq(&shown);
}

#[test]
fn the_platform_that_fits_best_is_chosen() {
    check_choice("linux/arm64", &["linux/amd64", "linux/arm64/v8"], expect!["1 linux/arm64/v8"]);
    check_choice("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6", "linux/arm64"], expect!["1 linux/arm/v6"]);
    check_choice("linux/arm/v6", &["linux/arm/v7", "linux/arm/v6"], expect!["1 linux/arm/v6"]);
    check_choice("linux/amd64", &["linux/amd64", "linux/amd64"], expect!["0 linux/amd64"]);
    check_choice("linux/amd64", &["unknown/unknown", "linux/amd64"], expect!["1 linux/amd64"]);
    check_choice("linux/amd64", &["", "linux/amd64"], expect!["1 linux/amd64"]);
    check_choice("linux/amd64", &["linux/arm64", ""], expect!["1 "]);
    check_choice(
        "linux/s390x",
        &["linux/arm64", "linux/amd64", "unknown/unknown", "linux/arm64"],
        expect!["`HOST/a:latest` has no image for linux/s390x, only for linux/amd64, linux/arm64"],
    );
    check_choice("linux/amd64", &[], expect!["`HOST/a:latest` has no image for linux/amd64, only for none"]);
}

#[test]
fn dockers_manifest_list_and_schema_2_are_understood() {
    let registry = Registry::start();
    let config = br#"{"os":"linux","architecture":"amd64"}"#;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": { "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": registry.add_blob(config.as_slice()), "size": config.len() },
        "layers": [],
    })
    .to_string();
    let list = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": [{ "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "digest": registry.add_blob(manifest.as_str()), "size": manifest.len(),
            "platform": { "os": "linux", "architecture": "amd64" } }],
    });
    registry.tag("a", "latest", &registry.add_blob(list.to_string()));
    let (resolved, blobs) = pull(&client(), &reference(&registry, "a")).unwrap();
    assert_eq!(resolved.platform, Some(amd64()));
    assert_eq!(blobs, [config]);
}

#[test]
fn indexes_within_indexes_are_followed_up_to_a_bound() {
    let registry = Registry::start();
    let mut digest = registry.add_image("a", "x", "linux/amd64", &[b"layer"]);
    let mut limits = crate::world::limits();
    limits.index_depth = 3;
    let client = crate::world::Setup { limits, ..setup() }.client().0;
    for depth in 1..=4 {
        digest = registry.add_index("a", "latest", &[(&digest, "")]);
        let result = pull(&client, &reference(&registry, "a"));
        if depth <= 3 {
            assert_eq!(result.unwrap().0.indexes.len(), depth);
        } else {
            let expected =
                format!("`{}/a:latest` has more than 3 indexes within each other", registry.host());
            assert_eq!(result.unwrap_err(), expected);
        }
    }
}

#[test]
fn an_entry_that_misdescribes_its_manifest_is_refused() {
    let registry = Registry::start();
    let digest = registry.add_image("a", "x", "linux/amd64", &[]);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [
        { "mediaType": MANIFEST, "digest": digest, "size": 7,
          "platform": { "os": "linux", "architecture": "amd64" } }] });
    registry.tag("a", "latest", &registry.add_blob(index.to_string()));
    let error = pull(&client(), &reference(&registry, "a")).unwrap_err();
    assert!(error.contains("as 7 bytes of"), "{error}");
}

#[test]
fn an_image_of_more_layers_than_can_be_mounted_is_refused() {
    let registry = Registry::start();
    registry.add_image("a", "latest", "linux/amd64", &[b"1", b"2", b"3"]);
    let limits = registry::Limits { layers: 2, ..crate::world::limits() };
    let client = crate::world::Setup { limits, ..setup() }.client().0;
    let error = client.resolve(&reference(&registry, "a"), &amd64()).unwrap_err();
    assert!(error.to_string().ends_with("has 3 layers, more than the 2 that can be mounted"), "{error}");
}

#[test]
fn a_tag_that_moves_during_the_pull_is_read_once() {
    let registry = Registry::start();
    let (first, second) = (
        registry.add_image("a", "one", "linux/amd64", &[b"first"]),
        registry.add_image("a", "two", "linux/amd64", &[b"second"]),
    );
    registry.add_index("a", "old", &[(&first, "linux/amd64")]);
    let moved = registry.add_index("a", "new", &[(&second, "linux/amd64")]);
    registry.on("/v2/a/manifests/latest", {
        move |seen, exchange| {
            // From the second request on the tag stands for another image.
            let name = if seen.earlier == 0 { "old" } else { "new" };
            exchange.serve_as(&format!("/v2/a/manifests/{name}"))
        }
    });
    let (resolved, blobs) = pull(&client(), &reference(&registry, "a:latest")).unwrap();
    assert_eq!(blobs[1], b"first");
    assert_ne!(resolved.digest().to_string(), moved);
    assert_eq!(registry.count("/v2/a/manifests/latest"), 1);
}
