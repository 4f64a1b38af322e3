use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use store::{Error, PrunePolicy, Remedy, Store};

use crate::support::{Form, assert_clean, check_layer, commit, is_root, meaning, publish};

/// A file system with hardly any room.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(dir: &Path, options: &str) -> Self {
        mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
        Self(dir.to_path_buf())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Detached: a child that another test is just starting may still have our files open, until it is a program of its own.
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

/// Fills a disk through the store until it says that it is full, then expects a remedy that works.
fn check(test: &str, options: &str) {
    if !is_root(test) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::new(dir.path(), options);
    let store = Store::open(&disk.0.join("store")).unwrap();
    let lease = store.lease().unwrap();
    commit(&lease, "kept", &["a"]);
    let error = fill(&lease).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
    assert_eq!(error.remedy(), Some(Remedy::FreeSpace));
    assert!(error.to_string().contains(&store.root().display().to_string()), "{error}");
    drop(lease);

    let pruned = store.prune(&PrunePolicy::everything()).unwrap();
    assert!(pruned.bytes() > 0);
    assert_clean(&store);
    let lease = store.lease().unwrap();
    let image = store.image(&meaning(&store, "kept").unwrap()).unwrap().unwrap();
    check_layer(&lease.layers(&image.layers).unwrap().unwrap()[0]).unwrap();
    publish(&lease, "b", &[Form::Tar]);
    commit(&lease, "new", &["b"]);
    lease.close().unwrap();
    assert_clean(&store);
}

fn fill(lease: &store::Lease) -> Result<(), Error> {
    for number in 0..10_000_u32 {
        let mut bytes = vec![0; 20_000];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        lease.put_blob(&bytes)?;
    }
    Ok(())
}

#[test]
fn a_full_disk_is_an_error_with_a_remedy_that_works() {
    check("a_full_disk_is_an_error_with_a_remedy_that_works", "size=2m,mode=700");
}

#[test]
fn a_disk_without_inodes_is_an_error_with_a_remedy_that_works() {
    check("a_disk_without_inodes_is_an_error_with_a_remedy_that_works", "size=64m,nr_inodes=100,mode=700");
}
