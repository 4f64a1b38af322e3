//! Directories of what was fetched: kept from one process to the next, used by one at a time, taken by a prune.

use std::fs;

use store::{Kind, PrunePolicy};

use crate::support::Fixture;

#[test]
fn a_directory_is_kept_and_used_by_one_at_a_time() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let held = lease.source_dir("https://example.com/a?b", || false).unwrap().unwrap();
    fs::write(held.path().join("body"), "x").unwrap();
    assert!(lease.source_dir("https://example.com/a?b", || true).unwrap().is_none(), "it is in use");
    assert!(lease.source_dir("https://example.com/a", || true).unwrap().is_some(), "another one is not");
    drop(held);
    lease.close().unwrap();
    let lease = fixture.store.lease().unwrap();
    let held = lease.source_dir("https://example.com/a?b", || true).unwrap().unwrap();
    assert_eq!(fs::read(held.path().join("body")).unwrap(), b"x");
}

#[test]
fn a_prune_takes_directories_that_nobody_uses() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let held = lease.source_dir("one", || false).unwrap().unwrap();
    fs::write(lease.source_dir("two", || false).unwrap().unwrap().path().join("body"), [1; 10_000]).unwrap();
    assert!(!fixture.store.prune(&PrunePolicy::unneeded()).unwrap().kinds.contains_key(&Kind::Sources));
    let usage = fixture.store.usage(&PrunePolicy::everything()).unwrap();
    assert_eq!(usage.kinds[&Kind::Sources].reclaimable.count, 2);
    let pruned = fixture.store.prune(&PrunePolicy::everything()).unwrap();
    assert_eq!(pruned.kinds[&Kind::Sources].count, 1);
    assert!(pruned.kinds[&Kind::Sources].bytes >= 10_000);
    assert!(held.path().exists(), "it is in use");
    drop(held);
    assert_eq!(fixture.store.prune(&PrunePolicy::everything()).unwrap().kinds[&Kind::Sources].count, 1);
}
