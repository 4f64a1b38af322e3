//! The check of a store looks inside its layers.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::path::Path;

use image::LayerDamage;
use image::export::Format;
use oci::Compression;
use store::{Finding, FsckMode};

use crate::archives::{load, save};
use crate::world::{ROOTFS, World, find, import, is_root, tar};

/// Damages the tree of an imported image and tells what the check says of its layer.
fn damaged(damage: impl Fn(&Path)) -> String {
    let world = World::new();
    world.run(|layers| {
        import(layers, &tar(ROOTFS), "base");
        damage(&layers.tree(&find(layers, "base").layers[0]).unwrap());
    });
    let report = image::fsck(&world.store, FsckMode::Check).unwrap();
    let mut said = report.found.into_iter().filter_map(|found| match found.finding {
        Finding::LayerDamaged { source, .. } => Some(source.to_string()),
        _ => None,
    });
    said.next().unwrap_or_else(|| "nothing".to_owned())
}

#[test]
fn every_change_of_a_tree_is_found_and_named() {
    if !is_root("every_change_of_a_tree_is_found_and_named") {
        return;
    }
    let changed = |path: &str, what: &str| format!("`{path}` in its tree has changed: its {what}");
    assert_eq!(damaged(|_| ()), "nothing");
    assert_eq!(damaged(|tree| fs::write(tree.join("bin/su"), "SU").unwrap()), changed("/bin/su", "content"));
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(damaged(|tree| chmod(&tree.join("etc/conf"), 0o600)), changed("/etc/conf", "mode"));
    assert_eq!(damaged(|tree| chmod(tree, 0o755)), changed("/", "mode"));
    let chown = |tree: &Path| lchown(tree.join("bin/link"), Some(9), Some(9)).unwrap();
    assert_eq!(damaged(chown), changed("/bin/link", "owner"));
    assert_eq!(
        damaged(|tree| fs::remove_file(tree.join("dev/null")).unwrap()),
        "`/dev/null` is missing from its tree"
    );
    assert_eq!(
        damaged(|tree| fs::write(tree.join("empty/more"), "").unwrap()),
        "`/empty/more` is in its tree and should not be"
    );
    let broken_link = |tree: &Path| {
        fs::remove_file(tree.join("bin/sh")).unwrap();
        fs::copy(tree.join("bin/ash"), tree.join("bin/sh")).unwrap();
    };
    assert_eq!(damaged(broken_link), changed("/bin/sh", "content"));
    let other_kind = |tree: &Path| {
        fs::remove_file(tree.join("dev/pipe")).unwrap();
        fs::write(tree.join("dev/pipe"), "").unwrap();
    };
    assert_eq!(damaged(other_kind), changed("/dev/pipe", "kind"));
    let time = |tree: &Path| {
        let file = fs::File::options().write(true).open(tree.join("bin/su")).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    };
    assert_eq!(damaged(time), changed("/bin/su", "time"));
    let dir = |tree: &Path| sys::root::Dir::open(&tree.join("etc")).unwrap();
    let xattr =
        |tree: &Path| sys::xattr::set_at(dir(tree), "conf".as_ref(), "user.note".as_ref(), b"y").unwrap();
    assert_eq!(damaged(xattr), changed("/etc/conf", "extended attributes"));
}

#[test]
fn a_damaged_entry_list_or_tar_is_found_and_repaired() {
    let world = World::new();
    let archive = world.run(|layers| {
        import(layers, &tar("file a size=5000"), "base");
        let archive = save(layers, &["base"], Format::Docker, Compression::None);
        image::remove(layers, "base", image::RemoveMode::Careful).unwrap();
        archive
    });
    let damaged_file = |name: &'static str| {
        let world = World::new();
        let layer = world.run(|layers| {
            let loaded = load(layers, &archive);
            layers.layer(&loaded[0].image.layers[0]).unwrap()
        });
        let path = if name == "tar" { layer.tar_path().unwrap() } else { layer.entries_path() };
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        world
    };
    let is_expected = |damage: &LayerDamage, name: &str| match name {
        "tar" => matches!(damage, LayerDamage::WrongDiffId { .. }),
        _ => matches!(damage, LayerDamage::Entries(_)),
    };
    for name in ["tar", "entries"] {
        let world = damaged_file(name);
        let report = image::fsck(&world.store, FsckMode::Repair).unwrap();
        let is_found = report.found.iter().any(|found| {
            matches!(&found.finding, Finding::LayerDamaged { source, .. } if is_expected(source, name))
        });
        assert!(is_found, "{:?}", report.found);
        world.assert_clean();
        // What was moved aside is not in the way.
        world.run(|layers| load(layers, &archive));
        world.assert_clean();
    }
}

#[test]
fn what_is_used_of_a_damaged_layer_is_noticed_at_its_use() {
    let world = World::new();
    let archive = {
        let source = World::new();
        source.run(|layers| {
            import(layers, &tar("file a size=5000"), "base");
            save(layers, &["base"], Format::Oci, Compression::Gzip)
        })
    };
    world.run(|layers| {
        let image = load(layers, &archive).remove(0).image;
        let blob = layers.layer(&image.layers[0]).unwrap().blobs()[0].digest.hex();
        let path = world.contents().into_iter().find(|path| path.ends_with(&blob)).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
        let before = world.contents();
        assert!(layers.tree(&image.layers[0]).is_err());
        assert_eq!(world.contents(), before);
    });
}

/// Changes a byte of the only compressed layer in a store; tells where it is.
fn damage_blob(world: &World, name: &str) -> std::path::PathBuf {
    let hex = world.run(|layers| {
        let id = find(layers, name).layers[0].clone();
        layers.layer(&id).unwrap().blobs()[0].digest.hex()
    });
    let path = world.contents().into_iter().find(|path| path.ends_with(&hex)).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    path.into()
}

#[test]
fn a_damaged_export_is_made_again_and_costs_no_image() {
    let world = World::new();
    let save = || world.run(|layers| save(layers, &["base"], Format::Oci, Compression::Gzip));
    world.run(|layers| import(layers, &tar("file a size=5000"), "base"));
    let archive = save();
    damage_blob(&world, "base");
    let report = image::fsck(&world.store, FsckMode::Repair).unwrap();
    let is_blob = |found: &store::Found<_>| {
        matches!(found.finding, Finding::BlobChanged { .. } | Finding::LayerLacksBlob { .. })
    };
    assert!(report.found.iter().all(is_blob) && !report.found.is_empty(), "{:?}", report.found);
    world.assert_clean();
    assert!(save() == archive);
    world.assert_clean();
}

#[test]
fn an_image_whose_only_copy_of_a_layer_is_damaged_goes_aside() {
    let (source, world) = (World::new(), World::new());
    let archive = source.run(|layers| {
        import(layers, &tar("file a size=5000"), "base");
        save(layers, &["base"], Format::Oci, Compression::Gzip)
    });
    world.run(|layers| load(layers, &archive));
    let blob = damage_blob(&world, "base");
    let report = image::fsck(&world.store, FsckMode::Check).unwrap();
    let is_lost = |found: &store::Found<_>| matches!(found.finding, Finding::LayerDamaged { .. });
    assert!(report.found.iter().any(is_lost), "{:?}", report.found);
    fs::remove_file(blob).unwrap();
    let report = image::fsck(&world.store, FsckMode::Repair).unwrap();
    let is_gone = |found: &store::Found<_>| {
        matches!(found.finding, Finding::LayerDamaged { source: LayerDamage::NoContents, .. })
    };
    assert!(report.found.iter().any(is_gone), "{:?}", report.found);
    world.assert_clean();
    world.run(|layers| assert!(image::find(layers, "base").is_err()));
    world.run(|layers| load(layers, &archive));
    world.assert_clean();
}
