//! kill -9, failing calls and power cuts, at every call.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, umount2};
use store::{FsckMode, PrunePolicy, Severity, Store};
use sys::durable::BootId;

use crate::scenario::{self, BUILD, PRUNE, RETAG};
use crate::support::{
    Fixture, assert_clean, check_layer, commit, findings, fsck, is_root, layer_id, meaning, reference,
};
use crate::tracer::{Next, count_calls, trace};

/// Kills a scenario at each of its calls, each time on a store that `prepare` has made, and lets `check` judge what is left.
fn kill_everywhere(scenario: &str, prepare: impl Fn(&Store), check: impl Fn(&Store)) {
    let mut kill_at = 0;
    loop {
        let fixture = Fixture::in_memory();
        prepare(&fixture.store);
        let said =
            trace(
                &fixture.root(),
                scenario,
                |stop| {
                    if stop.number == kill_at { Next::Kill } else { Next::GoOn }
                },
            );
        let store = Store::open(&fixture.root()).unwrap();
        let report = fsck(&store, FsckMode::Check);
        let worst = report.worst();
        assert_ne!(worst, Some(Severity::Damage), "killed at {kill_at}: {}", findings(&store, &report));
        check(&store);
        scenario::run(scenario, &fixture.root()).unwrap();
        check(&store);
        store.prune(&PrunePolicy::unneeded()).unwrap();
        assert_clean(&store);
        assert_nothing_left(&fixture.root());
        if said.is_some() {
            break;
        }
        kill_at += 1;
    }
    assert!(kill_at > 20, "only {kill_at} calls seen");
}

fn assert_nothing_left(root: &Path) {
    for dir in ["tmp", "leases"] {
        assert_eq!(fs::read_dir(root.join(dir)).unwrap().count(), 0, "{dir}");
    }
}

fn assert_image_is_whole(store: &Store, name: &str) {
    let Some(id) = meaning(store, name) else { return };
    let image = store.image(&id).unwrap().unwrap();
    assert!(store.read_blob(image.config()).unwrap().is_some());
    let layers = store.lease().unwrap().layers(&image.layers).unwrap().unwrap();
    layers.iter().for_each(|layer| check_layer(layer).unwrap());
}

#[test]
fn a_build_killed_at_any_call_leaves_a_store_in_which_it_succeeds() {
    kill_everywhere(BUILD, |_| {}, |store| assert_image_is_whole(store, "app"));
}

#[test]
fn a_prune_killed_at_any_call_takes_nothing_that_is_needed() {
    let prepare = |store: &Store| {
        let lease = store.lease().unwrap();
        commit(&lease, "kept", &["base", "a"]);
        commit(&lease, "gone", &["base", "b"]);
        lease.close().unwrap();
        store.remove_tag(&reference("gone")).unwrap();
    };
    kill_everywhere(PRUNE, prepare, |store| {
        assert_image_is_whole(store, "kept");
        assert!(store.layer(&layer_id("a")).unwrap().is_some());
    });
}

#[test]
fn a_tag_killed_at_any_call_means_what_it_meant_or_what_it_means() {
    let prepare = |store: &Store| {
        let lease = store.lease().unwrap();
        commit(&lease, "one", &["a"]);
        commit(&lease, "two", &["b"]);
        lease.close().unwrap();
    };
    let mut kill_at = 0;
    loop {
        let fixture = Fixture::in_memory();
        prepare(&fixture.store);
        let two = meaning(&fixture.store, "two");
        let said =
            trace(
                &fixture.root(),
                RETAG,
                |stop| {
                    if stop.number == kill_at { Next::Kill } else { Next::GoOn }
                },
            );
        let store = Store::open(&fixture.root()).unwrap();
        assert_image_is_whole(&store, "one");
        let named = ["one", "two"].map(|name| meaning(&store, name));
        assert!(named.contains(&two), "killed at {kill_at}, the image has no name: {named:?}");
        if said.is_some() {
            break;
        }
        kill_at += 1;
    }
    assert!(kill_at > 20, "only {kill_at} calls seen");
}

/// Lets each call of a build fail once, and expects an error or a success, never a panic, and no damage.
fn fail_everywhere(errno: Errno) {
    let mut failed = 0;
    for fail_at in 0.. {
        let fixture = Fixture::in_memory();
        let mut is_reached = false;
        let said = trace(&fixture.root(), BUILD, |stop| {
            if stop.number != fail_at {
                return Next::GoOn;
            }
            is_reached = true;
            Next::Fail(errno)
        });
        let said = said.unwrap();
        failed += said.iter().filter(|line| line.starts_with("error: ")).count();
        let store = Store::open(&fixture.root()).unwrap();
        let report = fsck(&store, FsckMode::Check);
        assert_ne!(report.worst(), Some(Severity::Damage), "{fail_at}: {}", findings(&store, &report));
        assert_image_is_whole(&store, "app");
        let is_committed = said.iter().any(|line| line == "committed");
        assert!(!is_committed || store.tag(&reference("app")).unwrap().is_some());
        scenario::run(BUILD, &fixture.root()).unwrap();
        store.prune(&PrunePolicy::unneeded()).unwrap();
        assert_clean(&store);
        assert_nothing_left(&fixture.root());
        if !is_reached {
            break;
        }
    }
    assert!(failed > 20, "only {failed} errors seen");
}

#[test]
fn a_build_survives_a_full_disk_at_any_call() {
    fail_everywhere(Errno::ENOSPC);
}

#[test]
fn a_build_survives_a_failing_disk_at_any_call() {
    fail_everywhere(Errno::EIO);
}

#[test]
fn a_build_survives_too_many_open_files_at_any_call() {
    fail_everywhere(Errno::EMFILE);
}

#[test]
fn a_build_that_changes_nothing_syncs_nothing() {
    let fixture = Fixture::new();
    let syncs = [libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_syncfs];
    assert!(count_calls(&fixture.root(), BUILD, &syncs) > 0);
    assert_eq!(count_calls(&fixture.root(), BUILD, &syncs), 0);
}

/// An ext4 on a file: a copy of the file is what a power cut leaves of it, since what is not synced is not in it.
struct Disk {
    image: PathBuf,
    mount_point: PathBuf,
}

impl Disk {
    fn make(dir: &Path) -> Self {
        let image = dir.join("disk");
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-N", "4096"]).arg(&image).status().unwrap();
        assert!(made.success());
        Self::mount(image, dir.join("mounted"))
    }

    fn mount(image: PathBuf, mount_point: PathBuf) -> Self {
        fs::create_dir(&mount_point).unwrap();
        let mounted =
            Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount_point).status().unwrap();
        assert!(mounted.success());
        Self { image, mount_point }
    }

    /// The disk after a power cut now, mounted elsewhere.
    fn cut(&self, dir: &Path, number: usize) -> Self {
        let image = dir.join(format!("cut-{number}"));
        fs::copy(&self.image, &image).unwrap();
        Self::mount(image, dir.join(format!("cut-{number}-mounted")))
    }

    fn root(&self) -> PathBuf {
        self.mount_point.join("store")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Detached: a child that another test is just starting may still have our files open, until it is a program of its own.
        umount2(&self.mount_point, MntFlags::MNT_DETACH).unwrap();
        fs::remove_file(&self.image).unwrap();
    }
}

fn can_mount_loops(test: &str) -> bool {
    let has_mkfs = Command::new("mkfs.ext4").arg("-V").output().is_ok_and(|run| run.status.success());
    let can = has_mkfs && Path::new("/dev/loop-control").exists();
    if !can {
        println!("skipped: `{test}` needs mkfs.ext4 and loop devices");
    }
    can && is_root(test)
}

#[test]
fn a_power_cut_at_any_call_takes_nothing_that_was_reported_as_done() {
    if !can_mount_loops("a_power_cut_at_any_call_takes_nothing_that_was_reported_as_done") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::make(dir.path());
    let store = Store::open(&disk.root()).unwrap();
    let lease = store.lease().unwrap();
    commit(&lease, "before", &["base"]);
    lease.close().unwrap();

    let mut cuts = 0;
    let mut check = |is_committed: bool| {
        let cut = disk.cut(dir.path(), cuts);
        cuts += 1;
        let store = Store::open_in_boot(&cut.root(), BootId::parse("0-0-0").unwrap()).unwrap();
        let report = fsck(&store, FsckMode::Check);
        assert_ne!(report.worst(), Some(Severity::Damage), "cut {cuts}: {}", findings(&store, &report));
        assert!(store.tag(&reference("before")).unwrap().is_some());
        assert_image_is_whole(&store, "before");
        assert_image_is_whole(&store, "app");
        assert!(!is_committed || store.tag(&reference("app")).unwrap().is_some());
        store.prune(&PrunePolicy::unneeded()).unwrap();
        assert_clean(&store);
    };
    let said = trace(&disk.root(), BUILD, |stop| {
        let changes_the_disk = [libc::SYS_fsync, libc::SYS_syncfs, libc::SYS_renameat2, libc::SYS_rename];
        if changes_the_disk.contains(&stop.call) || stop.number % 16 == 0 {
            check(false);
        }
        Next::GoOn
    });
    assert_eq!(said.unwrap(), ["committed"]);
    check(true);
    assert!(cuts > 20, "only {cuts} cuts");
}
