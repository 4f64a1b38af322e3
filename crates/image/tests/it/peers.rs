//! What other tools make of our archives, where they are installed.

use std::process::{Command, Output};

use image::export::Format;
use oci::Compression;

use crate::archives::{load, named, save};
use crate::world::{ROOTFS, World, find, import, is_root, show_directory, tar};

/// Runs a tool; `None`, and a word why, if it is not installed.
fn run(tool: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(tool).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped: cannot run {tool}: {error}");
            None
        }
    }
}

#[track_caller]
fn assert_success(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn skopeo_reads_every_archive_and_ours_reads_skopeos() {
    if !is_root("skopeo_reads_every_archive_and_ours_reads_skopeos") {
        return;
    }
    let world = World::new();
    let id = world.run(|layers| import(layers, &tar(ROOTFS), "app:2").id);
    for (transport, format) in [("oci-archive", Format::Oci), ("docker-archive", Format::Docker)] {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let archive = world.path(&format!("{transport}.{compression}"));
            std::fs::write(&archive, world.run(|layers| save(layers, &["app:2"], format, compression)))
                .unwrap();
            let from = format!("{transport}:{}", archive.display());
            let Some(inspected) = run("skopeo", &["inspect", &from]) else { return };
            assert_success(&inspected);
            let json: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
            assert_eq!(json["Architecture"], "amd64");
            for to in ["oci-archive", "docker-archive"] {
                // skopeo knows no zstd for Docker's manifests.
                if to == "docker-archive" && compression == Compression::Zstd {
                    continue;
                }
                let copy = world.path("copy");
                let target = format!("{to}:{}:copy:1", copy.display());
                assert_success(&run("skopeo", &["copy", "--insecure-policy", &from, &target]).unwrap());
                let target = World::new();
                target.run(|layers| {
                    let loaded = load(layers, &std::fs::read(&copy).unwrap());
                    assert_eq!(loaded[0].names[0].0.familiar(), "copy:1");
                    // Docker archives keep the config as it is; into OCI skopeo writes it anew.
                    if to == "docker-archive" && transport == to {
                        assert_eq!(loaded[0].image.id, id);
                    }
                    assert_eq!(loaded[0].image.config.rootfs.diff_ids.len(), 1);
                });
                std::fs::remove_file(copy).unwrap();
            }
        }
    }
}

#[test]
fn umoci_unpacks_the_same_tree() {
    if !is_root("umoci_unpacks_the_same_tree") {
        return;
    }
    let world = World::new();
    let layout = world.path("layout");
    world.run(|layers| {
        import(layers, &tar(ROOTFS), "app:2");
        image::export::layout(layers, &[named(layers, "app:2")], Compression::Gzip.into(), &layout).unwrap();
        image::export::rootfs_tree(layers, &find(layers, "app:2").layers, None, &world.path("ours")).unwrap();
    });
    let (image, bundle) = (format!("{}:2", layout.display()), world.path("bundle"));
    let Some(unpacked) = run("umoci", &["unpack", "--image", &image, &bundle.display().to_string()]) else {
        return;
    };
    assert_success(&unpacked);
    assert_eq!(show_directory(&world.path("ours")), show_directory(&bundle.join("rootfs")));
}
