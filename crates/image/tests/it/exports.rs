//! Files out of images: tars, trees and layouts, and where they are written.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use image::export::{Destination, ExportError, Format, Part};
use image::{Layers, LocalImage};
use oci::Compression;
use sys::RootfsPath;

use crate::archives::{load, named};
use crate::world::{ROOTFS, World, find, import, is_root, reference, show_directory, tar};

fn rootfs_tar(layers: &Layers<'_>, image: &LocalImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    image::export::rootfs_tar(
        layers,
        &[Part { below: RootfsPath::root(), layers: image.layers.clone() }],
        None,
        Destination::Stream(&mut bytes),
    )
    .unwrap();
    bytes
}

#[test]
fn the_tar_of_an_imported_root_filesystem_is_its_layer() {
    if !is_root("the_tar_of_an_imported_root_filesystem_is_its_layer") {
        return;
    }
    let world = World::new();
    world.run(|layers| {
        import(layers, &tar(ROOTFS), "base");
        let image = find(layers, "base");
        let exported = rootfs_tar(layers, &image);
        assert_eq!(oci::Digest::of(&exported), *image.config.rootfs.diff_ids[0].digest());
        assert_eq!(import(layers, &exported, "again").id, image.id);
    });
}

#[test]
fn a_tree_has_everything_that_the_image_has() {
    if !is_root("a_tree_has_everything_that_the_image_has") {
        return;
    }
    let world = World::new();
    world.run(|layers| {
        import(layers, &tar(ROOTFS), "base");
        let target = world.path("deep/tree");
        image::export::rootfs_tree(layers, &find(layers, "base").layers, None, &target).unwrap();
        expect_test::expect![[r#"
            / 40555 0:0 0 dir
            /bin 40755 0:0 1600000000 dir
            /bin/ash 100644 0:0 1600000000 2 840dcac73c29
            /bin/link 120777 0:0 1600000000 -> sh
            /bin/sh 100644 0:0 1600000000 2 840dcac73c29
            /bin/su 104755 0:0 1600000000 1 0a64ce10853f
            /dev 40755 0:0 1600000000 dir
            /dev/disk 60644 0:0 1600000000 device 1793
            /dev/null 20666 0:0 1600000000 device 259
            /dev/pipe 10644 0:0 1600000000 fifo 0
            /empty 40700 0:0 1600000000 dir
            /etc 40755 1:2 1600000000 dir
            /etc/conf 100640 3:4 1600000000 1 982d9e3eb996 user.note
            /tmp 41777 0:0 1600000000 dir
            /tmp/big 100644 0:0 1600000000 1 3c65ea93424a
        "#]]
        .assert_eq(&show_directory(&target));
    });
}

#[test]
fn a_tree_moves_into_a_directory_that_is_there_and_follows_no_link() {
    if !is_root("a_tree_moves_into_a_directory_that_is_there_and_follows_no_link") {
        return;
    }
    let world = World::new();
    let (target, outside) = (world.path("target"), world.path("outside"));
    fs::create_dir_all(target.join("bin")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o711)).unwrap();
    fs::write(target.join("bin/sh"), "old").unwrap();
    fs::write(target.join("mine"), "kept").unwrap();
    symlink(&outside, target.join("etc")).unwrap();
    world.run(|layers| {
        import(layers, &tar(ROOTFS), "base");
        let image = find(layers, "base");
        for _ in 0..2 {
            image::export::rootfs_tree(layers, &image.layers, None, &target).unwrap();
        }
    });
    assert_eq!(fs::read_to_string(target.join("bin/sh")).unwrap(), "#!shell");
    assert_eq!(fs::read_to_string(target.join("mine")).unwrap(), "kept");
    assert!(target.join("etc").symlink_metadata().unwrap().is_dir());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(target.metadata().unwrap().permissions().mode() & 0o777, 0o711);
    assert_eq!(names(&target), ["bin", "dev", "empty", "etc", "mine", "tmp"]);
}

fn names(directory: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_directory_is_not_replaced_by_a_file_and_nothing_stays_behind() {
    let world = World::new();
    let target = world.path("target");
    fs::create_dir_all(target.join("a/mine")).unwrap();
    world.run(|layers| {
        import(layers, &tar("file a content=1"), "base");
        let image = find(layers, "base");
        let error = image::export::rootfs_tree(layers, &image.layers, None, &target).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot write `{}`", target.join("a").display()));
        let file = world.path("file");
        fs::write(&file, "").unwrap();
        let error = image::export::rootfs_tree(layers, &image.layers, None, &file).unwrap_err();
        assert!(matches!(error, ExportError::InTheWay { expected: "a directory", .. }));
        let to_directory = Destination::File(target.clone());
        let error = image::export::rootfs_tar(
            layers,
            &[Part { below: RootfsPath::root(), layers: image.layers.clone() }],
            None,
            to_directory,
        )
        .unwrap_err();
        assert!(matches!(error, ExportError::InTheWay { expected: "a file", .. }));
    });
    assert_eq!(names(&target), ["a"]);
}

#[test]
fn a_file_is_replaced_when_all_is_written_and_not_before() {
    let world = World::new();
    let target = world.path("out/image.tar");
    fs::create_dir(world.path("out")).unwrap();
    fs::write(&target, "old").unwrap();
    world.run(|layers| {
        import(layers, &tar("file a size=100000"), "base");
        let images = [named(layers, "base")];
        // The content of the layer is gone: the header is written by the time that shows.
        let tree = layers.tree(&images[0].images[0].layers[0]).unwrap();
        fs::write(tree.join("a"), vec![1; 100_000]).unwrap();
        let export = || {
            let to = Destination::File(target.clone());
            image::export::archive(layers, &images, Format::Oci, Compression::None.into(), to)
        };
        assert!(matches!(export().unwrap_err(), ExportError::Image(error) if matches!(*error, image::Error::WrongDiffId { .. })));
        assert_eq!(fs::read_to_string(&target).unwrap(), "old");
        assert_eq!(names(&world.path("out")), ["image.tar"]);
    });
    let good = World::new();
    good.run(|layers| {
        import(layers, &tar("file a size=100000"), "base");
        let images = [named(layers, "base")];
        let to = Destination::File(target.clone());
        image::export::archive(layers, &images, Format::Oci, Compression::None.into(), to).unwrap();
        let loaded = load(layers, &fs::read(&target).unwrap());
        assert_eq!(loaded[0].image.id, images[0].images[0].id);
    });
    assert_eq!(names(&world.path("out")), ["image.tar"]);
}

#[test]
fn a_layout_gains_images_and_keeps_others() {
    let world = World::new();
    let directory = world.path("new/layout");
    let index = || -> Vec<String> {
        let bytes = fs::read(directory.join("index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let entries = index["manifests"].as_array().unwrap().iter();
        entries
            .map(|entry| entry["annotations"]["io.containerd.image.name"].as_str().unwrap().to_owned())
            .collect()
    };
    world.run(|layers| {
        import(layers, &tar("file a content=1"), "one");
        import(layers, &tar("file a content=2"), "two");
        let layout = |name: &str| {
            image::export::layout(layers, &[named(layers, name)], Compression::Gzip.into(), &directory)
                .unwrap()
        };
        layout("one");
        assert_eq!(index(), ["docker.io/library/one:latest"]);
        let exported = layout("two");
        // A blob that was damaged in the meantime is written anew.
        let manifest = directory.join("blobs/sha256").join(exported[0].manifest.hex());
        fs::write(&manifest, "damaged").unwrap();
        layout("two");
        layout("one");
        assert_eq!(index(), ["docker.io/library/two:latest", "docker.io/library/one:latest"]);
        let loaded =
            image::load(layers, image::load::Source::Path(directory.clone()), &crate::world::amd64(), 2)
                .unwrap();
        assert_eq!(loaded.len(), 2);
        let full = world.path("full");
        fs::create_dir(&full).unwrap();
        fs::write(full.join("x"), "").unwrap();
        let error = image::export::layout(layers, &[named(layers, "one")], Compression::Gzip.into(), &full)
            .unwrap_err();
        assert!(matches!(error, ExportError::InTheWay { .. }));
        fs::write(full.join("index.json"), "[1]").unwrap();
        let error = image::export::layout(layers, &[named(layers, "one")], Compression::Gzip.into(), &full)
            .unwrap_err();
        assert!(matches!(error, ExportError::Index { .. }));
    });
}

#[test]
fn names_without_a_tag_are_left_out() {
    let world = World::new();
    world.run(|layers| {
        import(layers, &tar("file a content=1"), "one");
        let mut images = [named(layers, "one")];
        let pinned = reference("one").at_digest(oci::Digest::of("x"));
        images[0].names.push(pinned);
        let mut bytes = Vec::new();
        let to = Destination::Stream(&mut bytes);
        image::export::archive(layers, &images, Format::Docker, Compression::Gzip.into(), to).unwrap();
        assert_eq!(load(layers, &bytes)[0].names.len(), 1);
    });
}
