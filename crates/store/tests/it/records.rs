use std::fs;
use std::time::{Duration, SystemTime};

use store::{Error, Object, Record};

use crate::support::{Fixture, Form, key, layer_id, publish};

fn record(layers: &[&str], payload: &[u8]) -> Record {
    let needs = layers.iter().map(|layer| Object::Layer(layer_id(layer))).collect();
    Record { needs, payload: payload.to_vec() }
}

#[test]
fn a_record_is_found_with_what_it_needs() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    publish(&lease, "a", &[Form::Fs]);
    assert_eq!(lease.record(&key("step")).unwrap(), None);
    let written = record(&["a"], b"payload");
    lease.put_record(&key("step"), &written).unwrap();
    assert_eq!(lease.record(&key("step")).unwrap(), Some(written));
    assert_eq!(fixture.store.record_keys().unwrap(), [key("step")]);
    assert!(fixture.store.remove_record(&key("step")).unwrap());
    assert_eq!(lease.record(&key("step")).unwrap(), None);
}

#[test]
fn a_record_of_what_is_not_there_is_refused() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let error = lease.put_record(&key("step"), &record(&["a"], b"")).unwrap_err();
    assert!(matches!(error, Error::MissingLayer(_)));
}

#[test]
fn a_record_whose_layer_a_power_cut_took_is_a_miss_and_dropped() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    publish(&lease, "a", &[Form::Fs]);
    lease.put_record(&key("step"), &record(&["a"], b"")).unwrap();
    drop(lease);
    let rebooted = fixture.rebooted();
    let lease = rebooted.lease().unwrap();
    assert_eq!(lease.record(&key("step")).unwrap(), None);
    assert_eq!(rebooted.record_keys().unwrap(), []);
}

#[test]
fn a_torn_record_is_a_miss_and_dropped() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    publish(&lease, "a", &[Form::Fs]);
    let hex = key("step").digest().hex();
    let path = fixture.root().join("records").join(&hex[..2]).join(&hex);
    lease.put_record(&key("step"), &record(&["a"], b"payload")).unwrap();
    let whole = fs::read(&path).unwrap();
    for torn in [&whole[..0], &whole[..whole.len() - 1], &vec![0; whole.len()]] {
        fs::write(&path, torn).unwrap();
        assert_eq!(lease.record(&key("step")).unwrap(), None);
        assert!(!path.exists());
    }
}

#[test]
fn a_record_is_worth_its_layers_without_its_log() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    publish(&lease, "a", &[Form::Fs]);
    let (log, _file) = lease.create_log().unwrap();
    let mut written = record(&["a"], b"");
    written.needs.push(Object::Log(log.clone()));
    lease.put_record(&key("step"), &written).unwrap();
    fs::remove_file(fixture.store.log_path(&log)).unwrap();
    assert_eq!(lease.record(&key("step")).unwrap(), Some(record(&["a"], b"")));
}

#[test]
fn using_a_record_notes_it_once_an_hour() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    publish(&lease, "a", &[Form::Fs]);
    lease.put_record(&key("step"), &record(&["a"], b"")).unwrap();
    let hex = key("step").digest().hex();
    let path = fixture.root().join("records").join(&hex[..2]).join(&hex);
    let used = || fs::metadata(&path).unwrap().modified().unwrap();
    let set = |time: SystemTime| fs::File::open(&path).unwrap().set_modified(time).unwrap();
    let now = used();
    let recently = now - Duration::from_secs(60 * 10);
    set(recently);
    lease.record(&key("step")).unwrap().unwrap();
    assert_eq!(used(), recently);
    for odd in
        [now - Duration::from_secs(60 * 60 * 24 * 365 * 20), now + Duration::from_secs(60 * 60 * 24 * 365)]
    {
        set(odd);
        lease.record(&key("step")).unwrap().unwrap();
        assert!(used() >= recently && used() <= now + Duration::from_secs(60), "renewed from {odd:?}");
    }
}

#[test]
fn reports_and_logs_are_kept_by_name() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let (log, _file) = lease.create_log().unwrap();
    fs::write(fixture.store.log_path(&log), "output").unwrap();
    let output = std::io::read_to_string(fixture.store.open_log(&log).unwrap().unwrap()).unwrap();
    assert_eq!(output, "output");
    let name = "/home/me/../me/Dockerfile";
    lease.put_build_report(name, &[log], b"report").unwrap();
    assert_eq!(fixture.store.build_report(name).unwrap().unwrap(), b"report");
    assert_eq!(fixture.store.build_report("other").unwrap(), None);
    let path = fixture.store.context_path(name);
    assert_eq!(path.parent().unwrap(), fixture.root().join("contexts"));
}

#[test]
fn a_record_that_says_the_same_is_left_as_it_is() {
    use std::os::unix::fs::MetadataExt as _;
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let inode = || {
        let shards = fs::read_dir(fixture.root().join("records")).unwrap();
        let mut files = shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap());
        files.next().unwrap().unwrap().metadata().unwrap().ino()
    };
    lease.put_record(&key("step"), &record(&[], b"one")).unwrap();
    let first = inode();
    lease.put_record(&key("step"), &record(&[], b"one")).unwrap();
    assert_eq!(inode(), first);
    lease.put_record(&key("step"), &record(&[], b"two")).unwrap();
    assert_ne!(inode(), first);
    assert_eq!(lease.record(&key("step")).unwrap(), Some(record(&[], b"two")));
}
