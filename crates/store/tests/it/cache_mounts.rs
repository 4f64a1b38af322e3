use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use store::{CacheMount, CacheMountRequest, CacheSharing, Lease, PrunePolicy};

use crate::support::{Fixture, is_root};

const NEVER: fn() -> bool = || false;
const AT_ONCE: fn() -> bool = || true;

fn request(id: &str, sharing: CacheSharing) -> CacheMountRequest<'_> {
    CacheMountRequest { id, sharing, mode: 0o755, uid: 0, gid: 0, seed: None }
}

fn mount(lease: &Lease, id: &str, sharing: CacheSharing) -> Option<CacheMount> {
    lease.cache_mount(&request(id, sharing), AT_ONCE).unwrap()
}

#[test]
fn sharing_says_who_may_be_in_at_once() {
    if !is_root("sharing_says_who_may_be_in_at_once") {
        return;
    }
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let shared = mount(&lease, "/root/.cache", CacheSharing::Shared).unwrap();
    let also = mount(&lease, "/root/.cache", CacheSharing::Shared).unwrap();
    assert_eq!(shared.path(), also.path());
    assert!(mount(&lease, "/root/.cache", CacheSharing::Locked).is_none());
    assert!(mount(&lease, "/other", CacheSharing::Locked).is_some());
    let private = mount(&lease, "/root/.cache", CacheSharing::Private).unwrap();
    let another = mount(&lease, "/root/.cache", CacheSharing::Private).unwrap();
    assert_ne!(private.path(), shared.path());
    assert_ne!(private.path(), another.path());
    let first = private.path().to_path_buf();
    drop((shared, also, private));
    let locked = mount(&lease, "/root/.cache", CacheSharing::Locked).unwrap();
    assert!(mount(&lease, "/root/.cache", CacheSharing::Shared).is_none());
    let again = mount(&lease, "/root/.cache", CacheSharing::Private).unwrap();
    assert_eq!(again.path(), first, "a directory that is free is used again");
    drop(locked);
}

#[test]
fn what_is_in_a_cache_stays_and_its_attributes_are_those_of_its_first_use() {
    if !is_root("what_is_in_a_cache_stays_and_its_attributes_are_those_of_its_first_use") {
        return;
    }
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let seed = |dir: &Path| fs::write(dir.join("seed"), "from the image");
    let first = CacheMountRequest {
        mode: 0o2770,
        uid: 123,
        gid: 456,
        seed: Some(&seed),
        ..request("id", CacheSharing::Shared)
    };
    let cache = lease.cache_mount(&first, NEVER).unwrap().unwrap();
    let found = fs::metadata(cache.path()).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o2770, 123, 456));
    fs::write(cache.path().join("more"), "").unwrap();
    drop(cache);
    let cache = mount(&lease, "id", CacheSharing::Locked).unwrap();
    assert!(cache.path().join("seed").exists() && cache.path().join("more").exists());
    assert_eq!(fs::metadata(cache.path()).unwrap().uid(), 123);
}

#[test]
fn a_seed_that_fails_leaves_no_half_filled_cache() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let seed = |dir: &Path| {
        fs::write(dir.join("half"), "")?;
        Err(io::Error::other("the image is gone"))
    };
    let failing = CacheMountRequest { seed: Some(&seed), ..request("id", CacheSharing::Shared) };
    assert!(lease.cache_mount(&failing, NEVER).is_err());
    assert!(fixture.store.cache_mounts().unwrap().is_empty());
}

#[test]
fn a_prune_takes_caches_that_nobody_uses_and_lists_them_before() {
    if !is_root("a_prune_takes_caches_that_nobody_uses_and_lists_them_before") {
        return;
    }
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let used = mount(&lease, "used", CacheSharing::Shared).unwrap();
    let idle = mount(&lease, "a/../b", CacheSharing::Locked).unwrap();
    fs::write(idle.path().join("x"), vec![1; 100_000]).unwrap();
    drop(idle);
    let listed = fixture.store.cache_mounts().unwrap();
    let listed: Vec<_> = listed.iter().map(|info| (info.id.as_str(), info.disk_bytes > 100_000)).collect();
    assert_eq!(listed, [("a/../b", true), ("used", false)]);

    fixture.store.prune(&PrunePolicy::unneeded()).unwrap();
    assert_eq!(fixture.store.cache_mounts().unwrap().len(), 2);
    let pruned = fixture.store.prune(&PrunePolicy::everything()).unwrap();
    assert!(pruned.bytes() > 100_000);
    let left = fixture.store.cache_mounts().unwrap();
    assert_eq!(left.iter().map(|info| info.id.as_str()).collect::<Vec<_>>(), ["used"]);
    assert!(used.path().exists());
    assert_eq!(fs::read_dir(fixture.root().join("cache-mounts")).unwrap().count(), 1);
}
