use std::fs;
use std::path::Path;
use std::process::Command;

use store::{Error, Object, Store};

use crate::scenario::{self, Child};
use crate::support::{Fixture, layer_id};

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn a_lease_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let scratch = lease.scratch_dir().unwrap();
    fs::write(scratch.join("x"), "x").unwrap();
    assert_eq!(count(&fixture.root().join("leases")), 1);
    lease.close().unwrap();
    assert_eq!(count(&fixture.root().join("leases")), 0);
    assert_eq!(count(&fixture.root().join("tmp")), 0);
}

#[test]
fn what_is_not_there_cannot_be_pinned() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let error = lease.pin(&[Object::Layer(layer_id("a"))]).unwrap_err();
    assert!(matches!(error, Error::MissingLayer(_)));
}

#[test]
fn opening_drops_what_a_killed_process_left_and_nothing_of_a_live_one() {
    let fixture = Fixture::new();
    let live = fixture.store.lease().unwrap();
    let scratch = live.scratch_dir().unwrap();
    let mut child = Child::start(&fixture.root(), scenario::HOLD_A_LEASE);
    child.wait_for_line();
    assert_eq!(count(&fixture.root().join("leases")), 2);
    Store::open(&fixture.root()).unwrap();
    assert_eq!(count(&fixture.root().join("leases")), 2, "the child lives");
    child.kill();
    Store::open(&fixture.root()).unwrap();
    assert_eq!(count(&fixture.root().join("leases")), 1);
    assert_eq!(count(&fixture.root().join("tmp")), 1);
    assert!(scratch.exists());
}

#[test]
fn opening_leaves_large_leftovers_to_a_prune() {
    let fixture = Fixture::new();
    let area = fixture.root().join("tmp/dead");
    fs::create_dir(&area).unwrap();
    for number in 0..2000 {
        fs::write(area.join(number.to_string()), "").unwrap();
    }
    fs::write(fixture.root().join("leases/dead"), "").unwrap();
    let store = Store::open(&fixture.root()).unwrap();
    assert!(area.exists());
    assert_eq!(store.drop_leftovers().unwrap().count, 1);
    assert!(!area.exists());
    assert_eq!(count(&fixture.root().join("leases")), 0);
}

#[test]
fn leftovers_of_any_shape_are_removed() {
    let fixture = Fixture::new();
    let area = fixture.root().join("tmp/dead");
    fs::create_dir(&area).unwrap();
    let mut dir = sys::root::Dir::open(&area).unwrap();
    for _ in 0..2500 {
        dir.create_dir("directory".as_ref()).unwrap();
        dir = dir.open_dir("directory".as_ref()).unwrap();
    }
    let closed = Command::new("chmod").arg("000").arg(area.join("directory")).status().unwrap();
    assert!(closed.success());
    std::os::unix::fs::symlink("/etc", area.join("etc")).unwrap();
    fixture.store.drop_leftovers().unwrap();
    assert!(!area.exists());
    assert!(Path::new("/etc").exists());
}
