use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use oci::{Algorithm, Digest, Hasher, VerifyError};
use store::{Error, Expected};

use crate::support::{Fixture, uncommitted_image};

fn expected(bytes: &str, size_bytes: Option<u64>) -> Option<Expected> {
    Some(Expected { digest: Digest::of(bytes), size_bytes })
}

#[test]
fn a_blob_appears_when_it_is_finished_and_not_before() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let mut writer = lease.blob_writer(expected("hello", Some(5))).unwrap();
    writer.write_all(b"hel").unwrap();
    writer.write_all(b"lo").unwrap();
    let digest = Digest::of("hello");
    assert!(!fixture.store.contains_blob(&digest).unwrap());
    let blob = writer.finish().unwrap();
    assert_eq!((&blob.digest, blob.size_bytes), (&digest, 5));
    assert_eq!(fixture.store.blob_size(&digest).unwrap(), Some(5));
    assert_eq!(fixture.store.read_blob(&digest).unwrap().unwrap(), b"hello");
    let mut file = fixture.store.open_blob(&digest).unwrap().unwrap();
    assert_eq!(std::io::read_to_string(&mut file).unwrap(), "hello");
}

#[test]
fn bytes_that_are_not_the_announced_ones_leave_nothing() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();

    let mut writer = lease.blob_writer(expected("hello", Some(5))).unwrap();
    let error = writer.write_all(b"hello!").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let inner = error.into_inner().unwrap().downcast::<Error>().unwrap();
    assert!(matches!(*inner, Error::Blob(VerifyError::TooLong { expected: 5, .. })));
    drop(writer);

    let mut writer = lease.blob_writer(expected("hello", Some(5))).unwrap();
    writer.write_all(b"hell").unwrap();
    assert!(matches!(writer.finish(), Err(Error::Blob(VerifyError::TooShort { got: 4, .. }))));

    let mut writer = lease.blob_writer(expected("hello", None)).unwrap();
    writer.write_all(b"hallo").unwrap();
    assert!(matches!(writer.finish(), Err(Error::Blob(VerifyError::WrongDigest { .. }))));

    assert!(!fixture.store.contains_blob(&Digest::of("hello")).unwrap());
    assert!(!fixture.store.contains_blob(&Digest::of("hallo")).unwrap());
    let area = fs::read_dir(fixture.root().join("tmp")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read_dir(area).unwrap().count(), 0);
}

#[test]
fn a_blob_of_another_algorithm_is_verified_with_that() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update("hello");
    let digest = hasher.finish();
    let mut writer = lease.blob_writer(Some(Expected { digest: digest.clone(), size_bytes: None })).unwrap();
    writer.write_all(b"hello").unwrap();
    assert_eq!(writer.finish().unwrap().digest, digest);
    assert_eq!(fixture.store.read_blob(&digest).unwrap().unwrap(), b"hello");
}

#[test]
fn a_changed_byte_is_noticed_when_a_small_blob_is_read() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let blob = lease.put_blob(b"{\"a\":1}").unwrap();
    let unsynced = fs::read_dir(fixture.root().join("blobs")).unwrap();
    let unsynced = unsynced.map(|entry| entry.unwrap().path());
    let unsynced = unsynced.filter(|path| !path.ends_with("sha256") && !path.ends_with("sha512"));
    let file = unsynced.last().unwrap().join(format!("sha256-{}", blob.digest.hex()));
    fs::write(&file, b"{\"a\":2}").unwrap();
    let error = fixture.store.read_blob(&blob.digest).unwrap_err();
    assert!(matches!(error, Error::Blob(VerifyError::WrongDigest { .. })));
}

#[test]
fn a_blob_that_is_there_is_not_written_again() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let inode = |digest| fixture.store.open_blob(digest).unwrap().unwrap().metadata().unwrap().ino();
    let digest = lease.put_blob(b"x").unwrap().digest;
    let first = inode(&digest);
    lease.put_blob(b"x").unwrap();
    let mut writer = lease.blob_writer(None).unwrap();
    writer.write_all(b"x").unwrap();
    writer.finish().unwrap();
    assert_eq!(inode(&digest), first);
}

#[test]
fn an_unsynced_blob_is_worth_nothing_after_a_power_cut() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let digest = lease.put_blob(b"x").unwrap().digest;
    assert!(!fixture.rebooted().contains_blob(&digest).unwrap());
}

#[test]
fn a_blob_can_be_read_while_a_commit_moves_it() {
    let fixture = Fixture::in_memory();
    let lease = fixture.store.lease().unwrap();
    for number in 0..300 {
        let image = uncommitted_image(&lease, &format!("image {number}"), &[]);
        let digest = image.config();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert!(fixture.store.open_blob(digest).unwrap().is_some(), "image {number}");
                    assert!(fixture.store.read_blob(digest).unwrap().is_some(), "image {number}");
                    assert!(fixture.store.blob_size(digest).unwrap().is_some(), "image {number}");
                }
            });
            lease.commit_image(&image, &[]).unwrap();
            is_over.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
    }
}
