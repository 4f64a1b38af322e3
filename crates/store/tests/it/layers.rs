use std::fs;
use std::sync::Barrier;

use oci::{Compression, DiffId, Digest};
use store::{BlobOrigin, Error, LayerBlob};

use crate::support::{Fixture, Form, check_layer, commit, facts, layer_id, publish};

#[test]
fn a_published_layer_is_seen_by_everybody_with_the_forms_it_has() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    publish(&lease, "a", &[Form::Fs]);
    let layer = fixture.store.layer(&layer_id("a")).unwrap().unwrap();
    assert_eq!(layer.facts(), &facts("a"));
    assert!(layer.fs_path().is_some() && layer.tar_path().is_none());
    check_layer(&layer).unwrap();
    assert!(fixture.store.layer(&layer_id("b")).unwrap().is_none());
}

#[test]
fn publishing_a_layer_again_keeps_it_and_adds_the_missing_form() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let first = publish(&lease, "a", &[Form::Fs]);
    fs::write(first.fs_path().unwrap().join("witness"), "").unwrap();
    let again = publish(&lease, "a", &[Form::Fs, Form::Tar]);
    assert!(again.fs_path().unwrap().join("witness").exists());
    assert!(again.tar_path().is_some());
    check_layer(&again).unwrap();
}

#[test]
fn a_form_can_be_added_later() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    publish(&lease, "a", &[]);
    let draft = lease.layer_draft().unwrap();
    fs::write(draft.tar_path(), "a").unwrap();
    let layer = lease.extend_layer(draft, &layer_id("a")).unwrap();
    check_layer(&layer).unwrap();
    assert!(layer.tar_path().is_some());
    let draft = lease.layer_draft().unwrap();
    assert!(matches!(lease.extend_layer(draft, &layer_id("b")), Err(Error::MissingLayer(_))));
}

#[test]
fn compressed_forms_and_the_diff_id_are_remembered() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let received = LayerBlob {
        digest: lease.put_blob(b"gz").unwrap().digest,
        compression: Compression::Gzip,
        origin: BlobOrigin::Received,
    };
    let encoded = LayerBlob {
        digest: lease.put_blob(b"zst").unwrap().digest,
        compression: Compression::Zstd,
        origin: BlobOrigin::Encoded { level: -3, version: 1 },
    };
    let draft = lease.layer_draft().unwrap();
    fs::write(draft.entries_path(), "a").unwrap();
    draft.add_blob(&received).unwrap();
    lease.publish_layer(draft, &layer_id("a"), &facts("a")).unwrap();
    let draft = lease.layer_draft().unwrap();
    draft.add_blob(&encoded).unwrap();
    let layer = lease.extend_layer(draft, &layer_id("a")).unwrap();
    let mut blobs = layer.blobs().to_vec();
    blobs.sort_unstable_by_key(|blob| blob.compression);
    assert_eq!(blobs, [received, encoded]);

    assert_eq!(layer.diff_id(), None);
    let diff_id = DiffId::new(Digest::of("tar"));
    lease.set_diff_id(&layer, &diff_id).unwrap();
    assert_eq!(fixture.store.layer(&layer_id("a")).unwrap().unwrap().diff_id(), Some(&diff_id));
}

#[test]
fn an_id_cannot_get_another_content() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    publish(&lease, "a", &[]);
    let draft = lease.layer_draft().unwrap();
    fs::write(draft.entries_path(), "b").unwrap();
    let error = lease.publish_layer(draft, &layer_id("a"), &facts("b")).unwrap_err();
    assert!(matches!(error, Error::LayerConflict { .. }));
}

#[test]
fn a_draft_without_entries_or_unpublished_leaves_nothing() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let draft = lease.layer_draft().unwrap();
    draft.make_fs().unwrap();
    assert!(matches!(lease.publish_layer(draft, &layer_id("a"), &facts("a")), Err(Error::NoEntries(_))));
    drop(lease.layer_draft().unwrap());
    assert_eq!(fixture.store.layer_ids().unwrap(), []);
    let area = fs::read_dir(fixture.root().join("tmp")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read_dir(area).unwrap().count(), 0);
}

#[test]
fn an_abandoned_draft_can_be_looked_at_until_its_lease_ends() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let draft = lease.layer_draft().unwrap();
    let left = draft.make_fs().unwrap();
    draft.abandon();
    assert!(left.is_dir());
    lease.close().unwrap();
    assert!(!left.exists());
}

#[test]
fn an_uncommitted_layer_is_gone_after_a_power_cut_and_can_be_published_anew() {
    let fixture = Fixture::new();
    publish(&fixture.store.lease().unwrap(), "a", &[Form::Fs]);
    let rebooted = fixture.rebooted();
    assert!(rebooted.layer(&layer_id("a")).unwrap().is_none());
    let lease = rebooted.lease().unwrap();
    let layer = publish(&lease, "a", &[Form::Tar]);
    assert!(layer.fs_path().is_none(), "what the power cut left must not be taken for the layer's");
    check_layer(&layer).unwrap();
}

#[test]
fn a_form_added_after_the_commit_is_lost_alone() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    commit(&lease, "image", &["a"]);
    publish(&lease, "a", &[Form::Tar]);
    let layer = fixture.rebooted().layer(&layer_id("a")).unwrap().unwrap();
    assert!(layer.fs_path().is_some() && layer.tar_path().is_none());

    fs::write(fixture.root().join("layers").join(layer_id("a").digest().hex()).join("tar"), "torn").unwrap();
    let rebooted = fixture.rebooted();
    let layer = publish(&rebooted.lease().unwrap(), "a", &[Form::Tar]);
    check_layer(&layer).unwrap();
    assert!(layer.tar_path().is_some());
}

#[test]
fn a_torn_description_makes_a_layer_absent() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    publish(&lease, "a", &[Form::Fs]);
    let meta = fixture.root().join("layers").join(layer_id("a").digest().hex()).join("meta");
    fs::write(&meta, "").unwrap();
    assert!(fixture.store.layer(&layer_id("a")).unwrap().is_none());
    assert!(lease.layers(&[layer_id("a")]).unwrap().is_none());
    check_layer(&publish(&lease, "a", &[Form::Fs])).unwrap();
}

#[test]
fn many_publishers_of_one_layer_agree() {
    const PUBLISHERS: usize = 8;
    let fixture = Fixture::new();
    for round in 0..20 {
        let name = format!("layer {round}");
        let barrier = Barrier::new(PUBLISHERS);
        std::thread::scope(|scope| {
            for number in 0..PUBLISHERS {
                let (name, barrier, store) = (&name, &barrier, &fixture.store);
                scope.spawn(move || {
                    let lease = store.lease().unwrap();
                    let form = if number % 2 == 0 { Form::Fs } else { Form::Tar };
                    barrier.wait();
                    check_layer(&publish(&lease, name, &[form])).unwrap();
                    lease.close().unwrap();
                });
            }
        });
        let layer = fixture.store.layer(&layer_id(&name)).unwrap().unwrap();
        assert!(layer.fs_path().is_some() && layer.tar_path().is_some());
        check_layer(&layer).unwrap();
    }
    assert_eq!(fs::read_dir(fixture.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_layer_that_has_all_a_draft_has_stands_for_it() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let draft = || lease.layer_draft().unwrap();
    assert!(lease.layer_like(&draft(), &layer_id("a")).unwrap().is_none());
    publish(&lease, "a", &[Form::Tar]);
    assert!(lease.layer_like(&draft(), &layer_id("a")).unwrap().is_some());
    let with_tree = draft();
    with_tree.make_fs().unwrap();
    assert!(lease.layer_like(&with_tree, &layer_id("a")).unwrap().is_none(), "the tree would be lost");
}
