use std::fs;
use std::path::PathBuf;

use expect_test::{Expect, expect};
use store::{BlobOrigin, FsckMode, LayerBlob, Object, Outcome, PrunePolicy, Record, Severity};

use crate::support::{
    Fixture, Form, assert_clean, commit, facts, findings, fsck, key, layer_id, publish, reference,
};

/// A store with an image of one layer and a record that names the layer, and what was done to it.
#[track_caller]
fn check(damage: impl Fn(&Fixture), worst: Severity, expected: Expect) {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    commit(&lease, "app", &["a"]);
    let needs = vec![Object::Layer(layer_id("a"))];
    lease.put_record(&key("step"), &Record { needs, payload: Vec::new() }).unwrap();
    lease.close().unwrap();
    let salt = fixture.store.salt().unwrap();
    assert_clean(&fixture.store);
    damage(&fixture);

    let report = fsck(&fixture.store, FsckMode::Check);
    expected.assert_eq(&findings(&fixture.store, &report));
    assert_eq!(report.worst(), Some(worst));
    assert!(report.found.iter().all(|found| found.outcome == Outcome::Left));
    let repaired = fsck(&fixture.store, FsckMode::Repair);
    assert_eq!(findings(&fixture.store, &repaired), findings(&fixture.store, &report));
    assert_clean(&fixture.store);

    assert_eq!(fixture.store.salt().unwrap(), salt);

    // Whatever was lost can be made again under its name.
    let lease = fixture.store.lease().unwrap();
    let image = commit(&lease, "app", &["a"]);
    lease.close().unwrap();
    assert_eq!(fixture.rebooted().image(&image.id).unwrap(), Some(image));
    fixture.store.prune(&PrunePolicy::everything()).unwrap();
    assert_clean(&fixture.store);
    assert_eq!(fs::read_dir(fixture.root().join("damaged")).unwrap().count(), 0);
}

fn layer_dir(fixture: &Fixture) -> PathBuf {
    fixture.root().join("layers").join(layer_id("a").digest().hex())
}

#[test]
fn a_changed_blob_names_the_image_that_loses_by_it() {
    check(
        |fixture| {
            let config = oci::Digest::of("app");
            fs::write(fixture.root().join("blobs/sha256").join(config.hex()), "apq").unwrap();
        },
        Severity::Damage,
        expect![[r#"
            blob sha256:a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333 has changed: its digest is sha256:8f2e499a67b1ddfef99c29fd59edfed307f8c81f057f8604e524a98194bcc811
            image sha256:a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333 lacks blob sha256:a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333
            `docker.io/library/app:latest` names image sha256:a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333, which is not there or not whole
        "#]],
    );
}

#[test]
fn a_changed_layer_names_all_that_lose_by_it() {
    check(
        |fixture| fs::write(layer_dir(fixture).join("fs/file"), "b").unwrap(),
        Severity::Damage,
        expect![[r#"
            layer sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb is damaged
            image sha256:a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333 lacks layer sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb
            `docker.io/library/app:latest` names image sha256:a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333, which is not there or not whole
            cache record sha256:3e64cc41cf8e07b43936d7bc4eaf8bdb8e2abcec1f44c7b915ac0a0c27ebc41a is of no use
        "#]],
    );
}

#[test]
fn a_lost_layer_is_missed() {
    check(
        |fixture| fs::remove_dir_all(layer_dir(fixture)).unwrap(),
        Severity::Damage,
        expect![[r#"
        image sha256:a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333 lacks layer sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb
        `docker.io/library/app:latest` names image sha256:a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333, which is not there or not whole
        cache record sha256:3e64cc41cf8e07b43936d7bc4eaf8bdb8e2abcec1f44c7b915ac0a0c27ebc41a is of no use
    "#]],
    );
}

#[test]
fn a_lost_or_torn_image_is_missed() {
    let image = |fixture: &Fixture| fixture.root().join("images").join(oci::Digest::of("app").hex());
    check(
        |fixture| fs::remove_file(image(fixture)).unwrap(),
        Severity::Damage,
        expect![[r#"
        `docker.io/library/app:latest` names image sha256:a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333, which is not there or not whole
    "#]],
    );
    check(
        |fixture| fs::write(image(fixture), "").unwrap(),
        Severity::Damage,
        expect![[r#"
        the file of image sha256:a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333 is damaged
        `docker.io/library/app:latest` names image sha256:a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333, which is not there or not whole
    "#]],
    );
}

#[test]
fn a_torn_tag_is_damage() {
    check(
        |fixture| fs::write(fixture.root().join("tags/docker.io+library+app:latest"), "").unwrap(),
        Severity::Damage,
        expect![[r#"
            the tag file `/tags/docker.io+library+app:latest` is damaged
        "#]],
    );
}

#[test]
fn what_crashes_leave_is_reclaimable() {
    check(
        |fixture| {
            publish(&fixture.rebooted().lease().unwrap(), "of another boot", &[Form::Fs]);
            fs::create_dir(fixture.root().join("tmp/orphan")).unwrap();
            fs::write(fixture.root().join("leases/dead"), "").unwrap();
            fs::write(fixture.root().join("locks/step-dead"), "").unwrap();
            fs::write(fixture.root().join("locks/unsynced.tags.0-0"), "").unwrap();
            fs::create_dir(fixture.root().join("blobs/unsynced-0-0")).unwrap();
            fs::write(fixture.root().join("blobs/unsynced-0-0/x"), "").unwrap();
            fs::write(fixture.root().join("builds/name"), "torn").unwrap();
            fs::write(fixture.root().join("layers/stranger"), "").unwrap();
            let hex = key("step").digest().hex();
            fs::write(fixture.root().join("records").join(&hex[..2]).join(&hex), "torn").unwrap();
        },
        Severity::Reclaimable,
        expect![[r#"
            layer sha256:b9321a9f157bf81813d2742f5196c5121ac1474c5a203f776636607f6b9d0099 was left unfinished
            cache record sha256:3e64cc41cf8e07b43936d7bc4eaf8bdb8e2abcec1f44c7b915ac0a0c27ebc41a is of no use
            the build report `/builds/name` is damaged
            `/locks/step-dead` was left by a process that is dead
            `/locks/unsynced.tags.0-0` was left by a process that is dead
            `/blobs/unsynced-0-0` was left by a process that is dead
            `/tmp/orphan` was left by a process that is dead
            `/tmp/dead` was left by a process that is dead
            `/layers/stranger` is not the store's
        "#]],
    );
}

#[test]
fn a_compressed_form_is_missed_as_much_as_it_matters() {
    let add = |fixture: &Fixture, name: &str, form: &[Form]| {
        let lease = fixture.store.lease().unwrap();
        let digest = lease.put_blob(name.as_bytes()).unwrap().digest;
        let blob = LayerBlob { digest, compression: oci::Compression::Gzip, origin: BlobOrigin::Received };
        let draft = lease.layer_draft().unwrap();
        fs::write(draft.entries_path(), name).unwrap();
        if !form.is_empty() {
            fs::write(draft.tar_path(), name).unwrap();
        }
        draft.add_blob(&blob).unwrap();
        lease.publish_layer(draft, &layer_id(name), &facts(name)).unwrap();
        let config = lease.put_blob(format!("config of {name}").as_bytes()).unwrap().digest;
        let image = store::Image {
            id: oci::ImageId::new(config),
            layers: vec![layer_id(name)],
            manifests: Vec::new(),
        };
        lease.commit_image(&image, &[reference("packed")]).unwrap();
        fs::remove_file(fixture.root().join("blobs/sha256").join(blob.digest.hex())).unwrap();
    };
    check(
        |fixture| add(fixture, "with tar", &[Form::Tar]),
        Severity::Reclaimable,
        expect![[r#"
        layer sha256:a820774701a57285b8af6d44ce8b7e21d55928e504c15c05a2062db18706d6f6 has lost its compressed form sha256:a820774701a57285b8af6d44ce8b7e21d55928e504c15c05a2062db18706d6f6
    "#]],
    );
    check(
        |fixture| add(fixture, "without", &[]),
        Severity::Damage,
        expect![[r#"
        layer sha256:1216b2a88975f9d3c0ba5e043bae1803d4f0f1cfab98eeccb800fdd82fff9aca has lost its only form, sha256:1216b2a88975f9d3c0ba5e043bae1803d4f0f1cfab98eeccb800fdd82fff9aca
        image sha256:bb81912f7887de3fb0a3c64567371e7b7088335944e6c50c3bf1ad872f180102 lacks layer sha256:1216b2a88975f9d3c0ba5e043bae1803d4f0f1cfab98eeccb800fdd82fff9aca
        `docker.io/library/packed:latest` names image sha256:bb81912f7887de3fb0a3c64567371e7b7088335944e6c50c3bf1ad872f180102, which is not there or not whole
    "#]],
    );
}

#[test]
fn every_byte_is_read() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    commit(&lease, "app", &["a", "b"]);
    let report = fsck(&fixture.store, FsckMode::Check);
    assert_eq!((report.blobs, report.blob_bytes, report.layers), (1, 3, 2));
}
