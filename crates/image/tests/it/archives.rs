//! Archives: what is saved loads again as the same image, whoever wrote it; what is damaged leaves nothing.

use std::io::Read as _;

use image::export::{Destination, Format, Named};
use image::load::{LoadError, Loaded, Source};
use image::{Layers, LocalImage};
use oci::{Compression, Config, Digest, Reference};
use serde_json::{Value, json};

use crate::world::{ROOTFS, World, amd64, find, import, is_root, packed, reference, show, tar, tar_of};

/// Saves images under the names given.
pub(crate) fn save(layers: &Layers<'_>, names: &[&str], format: Format, compression: Compression) -> Vec<u8> {
    let images: Vec<Named> = names.iter().map(|name| named(layers, name)).collect();
    let mut bytes = Vec::new();
    image::export::archive(layers, &images, format, compression.into(), Destination::Stream(&mut bytes))
        .unwrap();
    bytes
}

pub(crate) fn named(layers: &Layers<'_>, name: &str) -> Named {
    Named { images: vec![find(layers, name)], names: vec![reference(name)], annotations: Vec::new() }
}

pub(crate) fn try_load(layers: &Layers<'_>, mut archive: &[u8]) -> Result<Vec<Loaded>, LoadError> {
    image::load(layers, Source::Stream(&mut archive), &amd64(), 2)
}

pub(crate) fn load(layers: &Layers<'_>, archive: &[u8]) -> Vec<Loaded> {
    try_load(layers, archive).unwrap()
}

fn names(loaded: &Loaded) -> Vec<String> {
    loaded.names.iter().map(|(name, _)| name.familiar()).collect()
}

/// The members of a tar by name.
fn members(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut members = Vec::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if entry.header().entry_type().is_file() {
            members.push((name, bytes));
        }
    }
    members
}

/// A config for layers with these tars.
fn config(layers: &[&[u8]]) -> Vec<u8> {
    let mut config = Config::empty(&amd64());
    config.rootfs.diff_ids = layers.iter().map(|layer| oci::DiffId::new(Digest::of(layer))).collect();
    config.to_json()
}

/// An archive as `docker save` wrote it before version 25.
fn docker_archive(name: &str, layers: &[&[u8]]) -> Vec<u8> {
    let config = config(layers);
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let paths: Vec<String> = (0..layers.len()).map(|at| format!("{at}/layer.tar")).collect();
    let manifest = json!([{ "Config": config_name, "RepoTags": [name], "Layers": paths }]).to_string();
    let mut files: Vec<(&str, &[u8])> =
        paths.iter().map(String::as_str).zip(layers.iter().copied()).collect();
    files.push((&config_name, &config));
    files.push(("manifest.json", manifest.as_bytes()));
    tar_of(&files)
}

#[test]
fn what_is_saved_loads_as_the_same_image() {
    if !is_root("what_is_saved_loads_as_the_same_image") {
        return;
    }
    let source = World::new();
    let imported = source.run(|layers| import(layers, &tar(ROOTFS), "host:5000/base:1"));
    for format in [Format::Oci, Format::Docker] {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let case = format!("{format:?} {compression}");
            let archive = source.run(|layers| save(layers, &["host:5000/base:1"], format, compression));
            let target = World::new();
            let tree = target.run(|layers| {
                let loaded = load(layers, &archive);
                assert_eq!(loaded.len(), 1, "{case}");
                assert_eq!(loaded[0].image.id, imported.id, "{case}");
                assert_eq!(names(&loaded[0]), ["host:5000/base:1"], "{case}");
                layers.trees(&loaded[0].image.layers).unwrap();
                show(layers, &loaded[0].image.layers)
            });
            let expected = source.run(|layers| show(layers, &find(layers, "host:5000/base:1").layers));
            assert_eq!(tree, expected, "{case}");
            target.assert_clean();
            // What was loaded leaves as it came.
            if compression != Compression::None {
                let again =
                    target.run(|layers| save(layers, &["host:5000/base:1"], format, Compression::Gzip));
                assert!(again == archive, "{case}: not the same bytes");
            }
        }
    }
    source.assert_clean();
}

#[test]
fn the_same_image_gives_the_same_bytes_and_is_compressed_once() {
    let world = World::new();
    let bytes = tar("dir d\nfile d/a size=70000\nfile d/b content=x");
    world.run(|layers| import(layers, &bytes, "a"));
    let save = |name: &'static str| world.run(|layers| save(layers, &[name], Format::Oci, Compression::Gzip));
    let first = save("a");
    let written = world.contents();
    assert!(save("a") == first);
    assert_eq!(world.contents(), written);
    let other = World::new();
    other.run(|layers| import(layers, &bytes, "a"));
    assert!(
        other.run(|layers| crate::archives::save(layers, &["a"], Format::Oci, Compression::Gzip)) == first
    );
}

#[test]
fn an_archive_has_the_documents_that_other_tools_look_for() {
    let world = World::new();
    let archive = world.run(|layers| {
        import(layers, &tar("file a content=1"), "app:2");
        save(layers, &["app:2"], Format::Docker, Compression::Gzip)
    });
    let members = members(&archive);
    let document = |name: &str| -> Value {
        let found = members.iter().find(|(member, _)| member == name);
        serde_json::from_slice(&found.unwrap_or_else(|| panic!("{name} is missing")).1).unwrap()
    };
    assert_eq!(document("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }));
    let entry = document("index.json")["manifests"][0].clone();
    assert_eq!(
        entry["annotations"],
        json!({ "io.containerd.image.name": "docker.io/library/app:2", "org.opencontainers.image.ref.name": "2" })
    );
    assert_eq!(entry["platform"], json!({ "architecture": "amd64", "os": "linux" }));
    let docker = &document("manifest.json")[0];
    assert_eq!(docker["RepoTags"], json!(["app:2"]));
    for path in [&docker["Config"], &docker["Layers"][0]] {
        assert!(members.iter().any(|(name, _)| name == path.as_str().unwrap()), "{path} is missing");
    }
    for (name, bytes) in members.iter().filter(|(name, _)| name.starts_with("blobs/sha256/")) {
        assert_eq!(name.rsplit('/').next().unwrap(), Digest::of(bytes).hex());
    }
}

#[test]
fn several_images_and_names_travel_together() {
    let (source, target) = (World::new(), World::new());
    let archive = source.run(|layers| {
        import(layers, &tar("file a content=1"), "one");
        import(layers, &tar("file b content=2"), "two");
        image::tag(layers, "one", "one:alias").unwrap();
        let one = Named { names: vec![reference("one"), reference("one:alias")], ..named(layers, "one") };
        let images = [one, named(layers, "two")];
        let mut bytes = Vec::new();
        let to = Destination::Stream(&mut bytes);
        image::export::archive(layers, &images, Format::Docker, Compression::Zstd.into(), to).unwrap();
        bytes
    });
    target.run(|layers| {
        let mut all: Vec<String> = load(layers, &archive).iter().flat_map(names).collect();
        all.sort();
        assert_eq!(all, ["one:alias", "one:latest", "two:latest"]);
        // Once more: nothing is new.
        let before = target.contents();
        load(layers, &archive);
        let new: Vec<_> = target.contents().into_iter().filter(|name| !before.contains(name)).collect();
        assert!(new.iter().all(|name| name.contains("/tmp/")), "{new:?}");
    });
    target.assert_clean();
}

#[test]
fn the_archives_of_older_dockers_load() {
    let world = World::new();
    let (lower, upper) =
        (tar("dir d\nfile d/a content=1"), packed("dir d\nfile d/.wh.a\nfile d/b content=2", "none"));
    let loaded = world.run(|layers| load(layers, &docker_archive("old:1", &[&lower, &upper])));
    assert_eq!(names(&loaded[0]), ["old:1"]);
    world.run(|layers| {
        expect_test::expect![[r#"
            / 755 0:0
            /d 755 0:0 dir
            /d/b 644 0:0 file 1
        "#]]
        .assert_eq(&show(layers, &loaded[0].image.layers));
        layers.trees(&loaded[0].image.layers).unwrap();
        // Bytes that came uncompressed are kept so, and leave as they came if nothing else is asked for.
        let archive = save(layers, &["old:1"], Format::Oci, Compression::None);
        let blobs: Vec<Vec<u8>> = members(&archive).into_iter().map(|(_, bytes)| bytes).collect();
        assert!(blobs.contains(&lower) && blobs.contains(&upper));
    });
    world.assert_clean();
}

#[test]
fn a_layer_saved_as_a_link_to_an_equal_one_is_found() {
    let layer = tar("file a content=1");
    let config = config(&[&layer, &layer]);
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let manifest =
        json!([{ "Config": config_name, "RepoTags": null, "Layers": ["x/layer.tar", "y/layer.tar"] }])
            .to_string();
    let mut start = tar_of(&[("x/layer.tar", &layer), (&config_name, &config)]);
    start.truncate(start.len() - 1024);
    let mut builder = tar::Builder::new(start);
    let mut link = tar::Header::new_ustar();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "y/layer.tar", "../x/layer.tar").unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(manifest.len() as u64);
    builder.append_data(&mut header, "manifest.json", manifest.as_bytes()).unwrap();
    let archive = builder.into_inner().unwrap();
    let world = World::new();
    let loaded = world.run(|layers| load(layers, &archive));
    assert_eq!(loaded[0].image.layers.len(), 2);
    assert_eq!(loaded[0].image.layers[0], loaded[0].image.layers[1]);
}

/// Loads layers and shows what they make, from the entry lists and from the trees.
#[track_caller]
fn check_layers(layers: &[&[u8]], expected: &expect_test::Expect) {
    let world = World::new();
    world.run(|access| {
        let image: LocalImage = load(access, &docker_archive("x", layers)).remove(0).image;
        expected.assert_eq(&show(access, &image.layers));
        let target = world.path("tree");
        image::export::rootfs_tree(access, &image.layers, None, &target).unwrap();
        let shown: Vec<&str> = expected.data.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        assert_eq!(crate::world::show_directory(&target).lines().count(), shown.len());
    });
    world.assert_clean();
}

#[test]
fn a_member_below_a_lower_link_goes_where_it_leads() {
    let lower = tar("dir usr\ndir usr/lib mode=0750\nsymlink lib to=usr/lib\nfile usr/lib/a content=1");
    let upper = tar("file lib/x content=2");
    check_layers(
        &[&lower, &upper],
        &expect_test::expect![[r#"
            / 755 0:0
            /lib 777 0:0 -> usr/lib
            /usr 755 0:0 dir
            /usr/lib 750 0:0 dir
            /usr/lib/a 644 0:0 file 1
            /usr/lib/x 644 0:0 file 1
        "#]],
    );
}

#[test]
fn the_roots_mode_and_missing_parents_come_from_below() {
    let lower = tar("dir ./ mode=0555\ndir etc mode=0700 owner=5:6\nfile etc/a content=1");
    let upper = tar("file etc/b content=2\nfile new/deep/c content=3");
    check_layers(
        &[&lower, &upper],
        &expect_test::expect![[r#"
            / 555 0:0
            /etc 700 5:6 dir
            /etc/a 644 0:0 file 1
            /etc/b 644 0:0 file 1
            /new 755 0:0 dir
            /new/deep 755 0:0 dir
            /new/deep/c 644 0:0 file 1
        "#]],
    );
}

#[test]
fn one_upper_layer_over_two_bases_is_two_layers_if_it_looked_below() {
    let world = World::new();
    let upper = tar("file lib/x content=2");
    let merged = tar("dir usr\ndir usr/lib\nsymlink lib to=usr/lib");
    let plain = tar("dir lib");
    world.run(|layers| {
        let one = load(layers, &docker_archive("one", &[&merged, &upper])).remove(0).image;
        let two = load(layers, &docker_archive("two", &[&plain, &upper])).remove(0).image;
        assert_ne!(one.layers[1], two.layers[1]);
        assert!(show(layers, &one.layers).contains("/usr/lib/x"));
        assert!(show(layers, &two.layers).contains("/lib/x"));
        let again = load(layers, &docker_archive("three", &[&plain, &upper])).remove(0).image;
        assert_eq!(again.layers, two.layers);
    });
    world.assert_clean();
}

/// The archive is refused, and the store is as it was.
#[track_caller]
fn check_refused(archive: &[u8], case: &str) -> LoadError {
    let world = World::new();
    let before = world.contents();
    let error = world.run(|layers| match try_load(layers, archive) {
        Err(error) => error,
        Ok(loaded) => panic!("{case}: loaded {loaded:?}"),
    });
    assert_eq!(world.contents(), before, "{case}: {error:?}");
    error
}

#[test]
fn an_archive_that_is_cut_short_leaves_nothing() {
    let source = World::new();
    for (format, compression) in [(Format::Oci, Compression::Gzip), (Format::Docker, Compression::None)] {
        let archive = source.run(|layers| {
            import(layers, &tar("dir d\nfile d/a size=20000\nfile d/b size=5000"), "a");
            save(layers, &["a"], format, compression)
        });
        // The end marks, and what fills the last block of the last file, say nothing and may be missing.
        for cut in (0..archive.len() - 3 * 512).step_by(701) {
            check_refused(&archive[..cut], &format!("{format:?} cut at {cut}"));
        }
        let mut packed = Vec::new();
        layer::compress::compress(&archive[..], Compression::Gzip, &mut packed).unwrap();
        for cut in [1, 20, packed.len() / 2, packed.len() - 9] {
            check_refused(&packed[..cut], &format!("{format:?} packed, cut at {cut}"));
        }
    }
}

#[test]
fn a_changed_byte_in_any_file_is_noticed_and_leaves_nothing() {
    let source = World::new();
    let archive = source.run(|layers| {
        import(layers, &tar("dir d\nfile d/a size=20000"), "a");
        save(layers, &["a"], Format::Oci, Compression::Gzip)
    });
    for (name, bytes) in members(&archive).iter().filter(|(name, _)| name.starts_with("blobs/")) {
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let files: Vec<(String, Vec<u8>)> = members(&archive)
                .into_iter()
                .map(|(other, mut bytes)| {
                    if other == *name {
                        bytes[at] ^= 1;
                    }
                    (other, bytes)
                })
                .collect();
            let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
            check_refused(&tar_of(&files), &format!("{name} at {at}"));
        }
    }
}

#[test]
fn what_holds_no_image_says_so() {
    let check = |archive: &[u8], expected: &str| {
        assert_eq!(check_refused(archive, expected).to_string(), expected);
    };
    check(
        &tar("file a content=1"),
        "the archive holds no images: it has neither `index.json` nor `manifest.json`",
    );
    check(&tar("dir bin\ndir etc\ndir usr"), "the archive is a root filesystem, not an archive of images");
    check(b"not a tar at all, only some text", "the archive is damaged");
    let layer = tar("file a content=1");
    let mut wrong = docker_archive("x", &[&layer]);
    let at = wrong.windows(9).position(|bytes| bytes == b"layer.tar").unwrap() + 512;
    // The content of the only file of the layer.
    let content = wrong[at..].iter().position(|byte| *byte == b'1').unwrap() + at;
    wrong[content] = b'2';
    check_refused(&wrong, "a changed layer");
    let other = tar("file a content=2");
    let config = config(&[&other]);
    let name = format!("{}.json", Digest::of(&config).hex());
    let manifest = json!([{ "Config": name, "RepoTags": [], "Layers": ["l"] }]).to_string();
    let error = check_refused(
        &tar_of(&[("l", &layer), (&name, &config), ("manifest.json", manifest.as_bytes())]),
        "a layer of another config",
    );
    let expected = format!(
        "the config says that a layer is the tar {}, but it is {}",
        Digest::of(&other),
        Digest::of(&layer)
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn of_several_platforms_the_one_that_fits_is_loaded() {
    let world = World::new();
    let layout = world.path("layout");
    let ids: Vec<_> = ["amd64", "arm64"]
        .map(|architecture| {
            let source = World::new();
            let archive = source.run(|layers| {
                let platform = oci::Platform::new("linux", architecture, None);
                let tags = [reference("multi")];
                let options = image::import::ImportOptions {
                    tags: &tags,
                    platform: &platform,
                    created: None,
                    message: String::new(),
                };
                image::import(layers, &tar("file a content=1")[..], &options).unwrap();
                save(layers, &["multi"], Format::Oci, Compression::Gzip)
            });
            let target = layout.join(architecture);
            tar::Archive::new(&archive[..]).unpack(&target).unwrap();
            let index: Value =
                serde_json::from_slice(&std::fs::read(target.join("index.json")).unwrap()).unwrap();
            (target, index["manifests"][0].clone())
        })
        .into();
    // An index of both, as BuildKit writes it, in a layout of its own.
    let both = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": ids.iter().map(|(_, entry)| entry).collect::<Vec<_>>(),
    })
    .to_string();
    let digest = Digest::of(&both);
    let joined = layout.join("amd64");
    for blob in std::fs::read_dir(layout.join("arm64/blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        std::fs::copy(blob.path(), joined.join("blobs/sha256").join(blob.file_name())).unwrap();
    }
    std::fs::write(joined.join("blobs/sha256").join(digest.hex()), &both).unwrap();
    let entry = json!({
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": both.len(),
        "annotations": { "io.containerd.image.name": "docker.io/library/multi:latest" },
    });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
    std::fs::write(joined.join("index.json"), index).unwrap();
    world.run(|layers| {
        let load = |architecture: &str| {
            let platform = oci::Platform::new("linux", architecture, None);
            image::load(layers, Source::Path(joined.clone()), &platform, 2)
        };
        for architecture in ["amd64", "arm64"] {
            let loaded = load(architecture).unwrap();
            assert_eq!(loaded[0].image.config.architecture, architecture);
        }
        assert_eq!(
            load("s390x").unwrap_err().to_string(),
            "the archive has no image for linux/s390x, only for linux/amd64, linux/arm64"
        );
        // Both are known by the index they came in.
        let pinned = Reference::parse(&format!("multi@{digest}")).unwrap();
        for architecture in ["amd64", "arm64"] {
            let platform = oci::Platform::new("linux", architecture, None);
            let found = image::local(layers, &pinned, &platform).unwrap().unwrap();
            assert_eq!(found.config.architecture, architecture);
        }
    });
}
