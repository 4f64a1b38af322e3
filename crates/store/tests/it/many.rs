use std::fs;
use std::os::unix::fs::MetadataExt as _;

use store::PrunePolicy;

use crate::scenario::{CROWD, Child};
use crate::support::{Fixture, assert_clean, check_layer, commit, meaning};

#[test]
fn many_processes_build_and_prune_and_die_and_the_store_stays_whole() {
    let fixture = Fixture::new();
    let mut children: Vec<Child> = (0..10).map(|_| Child::start(&fixture.root(), CROWD)).collect();
    // Some are killed as soon as they have committed something, wherever they are by then.
    for child in &mut children[..4] {
        child.wait_for_line();
        child.kill();
    }
    children.drain(4..).for_each(Child::finish);
    fixture.store.prune(&PrunePolicy::unneeded()).unwrap();
    assert_clean(&fixture.store);
    if let Some(id) = meaning(&fixture.store, "app") {
        let image = fixture.store.image(&id).unwrap().unwrap();
        let lease = fixture.store.lease().unwrap();
        lease.layers(&image.layers).unwrap().unwrap().iter().for_each(|layer| check_layer(layer).unwrap());
    }
    for dir in ["tmp", "leases"] {
        assert_eq!(fs::read_dir(fixture.root().join(dir)).unwrap().count(), 0, "{dir}");
    }
}

#[test]
fn no_file_of_the_store_can_be_read_by_others() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    commit(&lease, "app", &["a"]);
    lease.create_log().unwrap();
    lease.put_build_report("app", &[], b"").unwrap();
    assert_eq!(fs::metadata(fixture.root()).unwrap().mode() & 0o077, 0);
    let mut pending = vec![fixture.root()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            // What lies in a layer has the modes of the image; nobody gets there.
            let is_inside_a_layer = dir.parent().is_some_and(|above| above.ends_with("layers"));
            let status = entry.metadata().unwrap();
            if !is_inside_a_layer {
                assert_eq!(status.mode() & 0o077, 0, "{}", entry.path().display());
            }
            if status.is_dir() && !is_inside_a_layer {
                pending.push(entry.path());
            }
        }
    }
}
