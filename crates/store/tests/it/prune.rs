use std::fs;
use std::time::{Duration, SystemTime};

use store::{Kind, Object, PrunePolicy, Record, Retain};

use crate::scenario::{self, Child};
use crate::support::{Fixture, Form, assert_clean, commit, key, layer_id, publish, reference};

fn put_record(fixture: &Fixture, name: &str, layer: &str) {
    let lease = fixture.store.lease().unwrap();
    publish(&lease, layer, &[Form::Fs]);
    let record = Record { needs: vec![Object::Layer(layer_id(layer))], payload: Vec::new() };
    lease.put_record(&key(name), &record).unwrap();
}

fn has_layer(fixture: &Fixture, name: &str) -> bool {
    fixture.store.layer(&layer_id(name)).unwrap().is_some()
}

#[test]
fn tagged_images_stay_and_untagged_ones_go_with_what_only_they_need() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let kept = commit(&lease, "kept", &["base", "a"]);
    let gone = commit(&lease, "gone", &["base", "b"]);
    lease.close().unwrap();
    fixture.store.remove_tag(&reference("gone")).unwrap();
    assert!(fixture.store.image(&gone.id).unwrap().is_some(), "it stays until it is collected");
    let pruned = fixture.store.prune(&PrunePolicy::unneeded()).unwrap();
    assert_eq!(pruned.images, std::slice::from_ref(&gone.id));
    assert_eq!(pruned.kinds[&Kind::Layers].count, 1);
    assert_eq!(pruned.kinds[&Kind::Blobs].count, 1);
    assert!(pruned.bytes() > 0);
    assert_eq!(fixture.store.image(&gone.id).unwrap(), None);
    assert!(!fixture.store.contains_blob(gone.config()).unwrap());
    assert!(has_layer(&fixture, "base") && has_layer(&fixture, "a") && !has_layer(&fixture, "b"));
    assert!(fixture.store.image(&kept.id).unwrap().is_some());
    assert_clean(&fixture.store);
    assert_eq!(fixture.store.prune(&PrunePolicy::unneeded()).unwrap().bytes(), 0);
}

#[test]
fn records_keep_their_layers_as_the_policy_says() {
    let fixture = Fixture::new();
    put_record(&fixture, "old", "a");
    put_record(&fixture, "new", "b");
    let hex = key("old").digest().hex();
    let path = fixture.root().join("records").join(&hex[..2]).join(&hex);
    let day = Duration::from_secs(60 * 60 * 24);
    fs::File::open(path).unwrap().set_modified(SystemTime::now() - 2 * day).unwrap();

    fixture.store.prune(&PrunePolicy::unneeded()).unwrap();
    assert!(has_layer(&fixture, "a") && has_layer(&fixture, "b"));
    let since = Retain::UsedSince(SystemTime::now() - day);
    fixture.store.prune(&PrunePolicy { records: since, ..PrunePolicy::unneeded() }).unwrap();
    assert!(!has_layer(&fixture, "a") && has_layer(&fixture, "b"));
    assert_eq!(fixture.store.record_keys().unwrap(), [key("new")]);
    fixture.store.prune(&PrunePolicy::everything()).unwrap();
    assert!(!has_layer(&fixture, "b"));
    assert_clean(&fixture.store);
}

#[test]
fn what_a_live_process_pins_is_not_taken_until_it_dies() {
    let fixture = Fixture::new();
    let mut child = Child::start(&fixture.root(), scenario::PIN_A_LAYER);
    child.wait_for_line();
    fixture.store.prune(&PrunePolicy::everything()).unwrap();
    assert!(has_layer(&fixture, "pinned"));
    child.kill();
    fixture.store.prune(&PrunePolicy::everything()).unwrap();
    assert!(!has_layer(&fixture, "pinned"));
    assert_clean(&fixture.store);
}

#[test]
fn a_pinned_image_keeps_all_it_needs() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let image = commit(&lease, "app", &["a"]);
    lease.close().unwrap();
    fixture.store.remove_tag(&reference("app")).unwrap();
    let lease = fixture.store.lease().unwrap();
    lease.image(&image.id).unwrap().unwrap();
    fixture.store.prune(&PrunePolicy::everything()).unwrap();
    assert!(has_layer(&fixture, "a") && fixture.store.contains_blob(image.config()).unwrap());
}

#[test]
fn nothing_is_taken_while_it_is_unknown_what_a_tag_needs() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let image = commit(&lease, "app", &["a"]);
    lease.close().unwrap();
    fs::write(fixture.root().join("images").join(image.config().hex()), "{").unwrap();
    assert!(fixture.store.prune(&PrunePolicy::everything()).is_err());
    assert!(has_layer(&fixture, "a"));
}

#[test]
fn logs_stay_with_their_report_and_go_with_it() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let (named, _) = lease.create_log().unwrap();
    let (unnamed, _) = lease.create_log().unwrap();
    lease.put_build_report("build", std::slice::from_ref(&named), b"").unwrap();
    fixture.store.prune(&PrunePolicy::unneeded()).unwrap();
    assert!(fixture.store.open_log(&unnamed).unwrap().is_some(), "its lease lives");
    lease.close().unwrap();
    fixture.store.prune(&PrunePolicy::unneeded()).unwrap();
    assert!(fixture.store.open_log(&unnamed).unwrap().is_none());
    assert!(fixture.store.open_log(&named).unwrap().is_some());
    fixture.store.prune(&PrunePolicy::everything()).unwrap();
    assert!(fixture.store.open_log(&named).unwrap().is_none());
    assert_eq!(fixture.store.build_report("build").unwrap(), None);
}

#[test]
fn usage_tells_shared_from_unique_and_what_a_prune_would_take() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    commit(&lease, "one", &["base", "a"]);
    commit(&lease, "two", &["base"]);
    lease.close().unwrap();
    put_record(&fixture, "step", "b");
    fs::write(fixture.root().join("tmp/orphan"), vec![1; 50_000]).unwrap();

    let usage = fixture.store.usage(&PrunePolicy::everything()).unwrap();
    let layers = usage.kinds[&Kind::Layers];
    assert_eq!((layers.total.count, layers.reclaimable.count), (3, 1));
    assert!(usage.kinds[&Kind::Leftovers].reclaimable.bytes >= 50_000);
    assert_eq!(usage.kinds[&Kind::Images].reclaimable.count, 0);
    let by_tag = |name: &str| usage.images.iter().find(|image| image.tags == [reference(name)]).unwrap();
    assert!(by_tag("one").unique_bytes < by_tag("one").disk_bytes);
    assert!(by_tag("two").unique_bytes < by_tag("one").unique_bytes);
    let base = usage.layers.iter().find(|layer| layer.id == layer_id("base")).unwrap();
    assert_eq!((base.images, base.records), (2, 0));

    let expected: u64 = usage.kinds.values().map(|kind| kind.reclaimable.bytes).sum();
    let pruned = fixture.store.prune(&PrunePolicy::everything()).unwrap();
    assert_eq!(pruned.bytes(), expected);
    let left = fixture.store.usage(&PrunePolicy::everything()).unwrap();
    assert_eq!(left.kinds.values().map(|kind| kind.reclaimable.count).sum::<u64>(), 0);
}
