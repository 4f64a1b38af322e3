use std::fs;

use oci::{Compression, Digest, ImageId};
use store::{BlobOrigin, Error, Image, KnownManifest, LayerBlob, PrunePolicy, Store, Tag};

use crate::support::{
    Fixture, Form, assert_clean, commit, layer_id, meaning, publish, reference, snapshot, uncommitted_image,
};

#[test]
fn a_committed_image_survives_a_power_cut_whole() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let image = commit(&lease, "app", &["a", "b"]);
    lease.close().unwrap();
    let rebooted = fixture.rebooted();
    assert_eq!(meaning(&rebooted, "app"), Some(image.id.clone()));
    assert_eq!(rebooted.image(&image.id).unwrap(), Some(image.clone()));
    assert_eq!(rebooted.read_blob(image.config()).unwrap().unwrap(), b"app");
    assert!(rebooted.lease().unwrap().layers(&image.layers).unwrap().is_some());
    assert_clean(&rebooted);
}

#[test]
fn a_commit_also_covers_what_another_process_left_unsynced() {
    let fixture = Fixture::new();
    publish(&fixture.store.lease().unwrap(), "a", &[Form::Tar]);
    let lease = fixture.store.lease().unwrap();
    let config = lease.put_blob(b"config").unwrap().digest;
    let image = Image { id: ImageId::new(config), layers: vec![layer_id("a")], manifests: Vec::new() };
    lease.commit_image(&image, &[]).unwrap();
    assert!(fixture.rebooted().layer(&layer_id("a")).unwrap().unwrap().tar_path().is_some());
}

#[test]
fn a_commit_that_changes_nothing_writes_nothing() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    commit(&lease, "app", &["a", "b"]);
    lease.close().unwrap();
    let before = snapshot(&fixture.root());
    let store = Store::open(&fixture.root()).unwrap();
    let lease = store.lease().unwrap();
    let image = store.image(&meaning(&store, "app").unwrap()).unwrap().unwrap();
    lease.layers(&image.layers).unwrap().unwrap();
    lease.put_blob(b"app").unwrap();
    lease.commit_image(&image, &[reference("app")]).unwrap();
    lease.close().unwrap();
    assert_eq!(snapshot(&fixture.root()), before);
}

#[test]
fn what_a_layer_was_compressed_to_is_made_durable_with_an_image_that_is_there() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let image = commit(&lease, "app", &["a"]);
    let digest = lease.put_blob(b"compressed").unwrap().digest;
    let draft = lease.layer_draft().unwrap();
    let origin = BlobOrigin::Encoded { level: 1, version: 1 };
    draft.add_blob(&LayerBlob { digest: digest.clone(), compression: Compression::Gzip, origin }).unwrap();
    lease.extend_layer(draft, &layer_id("a")).unwrap();
    assert!(!fixture.rebooted().contains_blob(&digest).unwrap());
    lease.commit_image(&image, &[reference("app")]).unwrap();
    assert!(fixture.rebooted().contains_blob(&digest).unwrap());
    assert_clean(&fixture.rebooted());
}

#[test]
fn an_image_without_its_layers_is_refused_and_leaves_no_trace() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let mut image = uncommitted_image(&lease, "app", &["a"]);
    image.layers.push(layer_id("never made"));
    let error = lease.commit_image(&image, &[reference("app")]).unwrap_err();
    assert!(matches!(error, Error::MissingLayer(id) if id == layer_id("never made")));
    assert_eq!(fixture.store.image(&image.id).unwrap(), None);
    assert_eq!(fixture.store.tag(&reference("app")).unwrap(), None);
}

#[test]
fn manifests_gather_on_an_image() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let mut image = commit(&lease, "app", &["a"]);
    let mut learn = |name: &str, compression| {
        let digest = lease.put_blob(name.as_bytes()).unwrap().digest;
        image.manifests = vec![KnownManifest { digest, compression, layers: vec![Digest::of("gone")] }];
        lease.commit_image(&image, &[]).unwrap();
    };
    learn("gzip manifest", Compression::Gzip);
    learn("zstd manifest", Compression::Zstd);
    learn("gzip manifest", Compression::Gzip);
    let known = fixture.rebooted().image(&image.id).unwrap().unwrap().manifests;
    assert_eq!(known.len(), 2);
    assert!(fixture.rebooted().contains_blob(&known[1].digest).unwrap());
}

#[test]
fn a_tag_moves_and_says_from_where() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let one = commit(&lease, "one", &["a"]);
    let two = commit(&lease, "two", &["a"]);
    let name = reference("registry.example:5000/team/app:1.0");
    let [first, second] = [&one, &two].map(|image| Tag::new(name.clone(), image.id.clone()));
    assert_eq!(lease.set_tag(&first).unwrap(), None);
    assert_eq!(lease.set_tag(&second).unwrap(), Some(first));
    assert_eq!(fixture.rebooted().tag(&name).unwrap(), Some(second.clone()));
    let tags: Vec<_> = fixture.store.tags().unwrap().iter().map(|tag| tag.reference.familiar()).collect();
    assert_eq!(tags, ["one:latest", "two:latest", "registry.example:5000/team/app:1.0"]);
    assert_eq!(fixture.store.remove_tag(&name).unwrap(), Some(second));
    assert_eq!(fixture.store.remove_tag(&name).unwrap(), None);
    let nobody = Tag::new(name, ImageId::new(Digest::of("nobody")));
    assert!(matches!(lease.set_tag(&nobody), Err(Error::MissingImage(_))));
}

#[test]
fn all_images_of_a_tag_stay_and_are_needed() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let [one, two] = ["one", "two"].map(|name| commit(&lease, name, &[name]).id);
    let others = vec![two.clone()];
    let pulled = Some(Digest::of("index"));
    let tag = Tag { reference: reference("both"), image: one.clone(), others, pulled };
    assert_eq!(lease.set_tag(&tag).unwrap(), None);
    let nobody = ImageId::new(Digest::of("nobody"));
    let with_nobody = Tag { others: vec![nobody], ..tag.clone() };
    assert!(matches!(lease.set_tag(&with_nobody), Err(Error::MissingImage(_))));
    for name in ["one", "two"] {
        fixture.store.remove_tag(&reference(name)).unwrap();
    }
    lease.close().unwrap();
    fixture.store.prune(&PrunePolicy::everything()).unwrap();
    let rebooted = fixture.rebooted();
    assert_eq!(rebooted.tag(&tag.reference).unwrap(), Some(tag));
    assert!(!rebooted.remove_image(&two).unwrap(), "a tag names it");
    assert_eq!(rebooted.image_ids().unwrap().len(), 2);
    assert_clean(&rebooted);
}

#[test]
fn a_damaged_tag_or_image_is_an_error_that_names_the_file() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let image = commit(&lease, "app", &["a"]);
    let tag = fixture.root().join("tags/docker.io+library+app:latest");
    let other = fixture.root().join("tags/docker.io+library+other:latest");
    fs::copy(&tag, other).unwrap();
    assert!(matches!(fixture.store.tag(&reference("other")), Err(Error::Damaged { .. })));
    fs::write(&tag, "").unwrap();
    let error = fixture.store.tag(&reference("app")).unwrap_err();
    assert!(error.to_string().contains("tags/docker.io+library+app:latest` is damaged"));

    fs::write(fixture.root().join("images").join(image.config().hex()), "{").unwrap();
    assert!(matches!(fixture.store.image(&image.id), Err(Error::Damaged { .. })));
    lease.commit_image(&image, &[]).unwrap();
    assert_eq!(fixture.store.image(&image.id).unwrap(), Some(image));
}
