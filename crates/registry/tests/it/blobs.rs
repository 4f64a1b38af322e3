//! Blobs that arrive in pieces.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use oci::{Descriptor, Digest, MediaType};
use testkit::registry::Registry;

use crate::world::{blob, client, limits, reference, setup};

/// More than sockets and buffers hold at once.
fn large() -> Vec<u8> {
    (0..400_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new(MediaType::ImageLayer, bytes.len() as u64, &Digest::of(bytes))
}

#[test]
fn a_blob_is_resumed_where_the_connection_broke() {
    let (registry, bytes) = (Registry::start(), large());
    registry.add_blob(bytes.clone());
    registry.on("/v2/a/blobs/", {
        let bytes = bytes.clone();
        move |seen, exchange| match seen.earlier {
            0..=3 => {
                // Announces all there is to come, sends a fifth of the whole, and is gone.
                let from = seen.range_from().unwrap_or(0);
                let head = match from {
                    0 => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()),
                    _ => format!(
                        "HTTP/1.1 206 Partial\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\n\r\n",
                        bytes.len() - from,
                        bytes.len() - 1,
                        bytes.len()
                    ),
                };
                exchange.send(head.as_bytes())?;
                exchange.send(&bytes[from..from + bytes.len() / 5])
            }
            _ => exchange.serve(),
        }
    });
    // Four breaks with three attempts: each one gained enough to count as progress.
    let got = blob(&client(), &reference(&registry, "a"), &descriptor(&bytes)).unwrap();
    assert!(got == bytes);
    let from: Vec<_> =
        registry.requests().iter().filter(|s| s.path.contains("/blobs/")).map(|s| s.range_from()).collect();
    let fifth = bytes.len() / 5;
    assert_eq!(from, [None, Some(fifth), Some(2 * fifth), Some(3 * fifth), Some(4 * fifth)]);
}

#[test]
fn a_break_at_any_kibibyte_costs_no_byte_twice() {
    let (registry, bytes) = (Registry::start(), large()[..48 << 10].to_vec());
    registry.add_blob(bytes.clone());
    let sent = Arc::new(AtomicUsize::new(0));
    registry.on("/v2/cut-", {
        let (bytes, sent) = (bytes.clone(), Arc::clone(&sent));
        move |seen, exchange| {
            let kibibytes: usize = seen.path["/v2/cut-".len()..].split('/').next().unwrap().parse().unwrap();
            let from = seen.range_from().unwrap_or(0);
            if seen.earlier > 0 {
                sent.fetch_add(bytes.len() - from, Ordering::SeqCst);
                return exchange.serve();
            }
            sent.fetch_add(kibibytes << 10, Ordering::SeqCst);
            exchange
                .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).as_bytes())?;
            exchange.send(&bytes[..kibibytes << 10])
        }
    });
    let client = client();
    for kibibytes in 0..48 {
        let reference = reference(&registry, &format!("cut-{kibibytes}"));
        sent.store(0, Ordering::SeqCst);
        assert!(blob(&client, &reference, &descriptor(&bytes)).unwrap() == bytes);
        assert_eq!(sent.load(Ordering::SeqCst), bytes.len(), "cut after {kibibytes} KiB");
    }
}

/// Breaks once in the middle; `second` answers the request for the rest.
#[track_caller]
fn check_second_answer(
    second: impl Fn(&[u8], usize) -> (u16, Option<String>, Vec<u8>) + Send + Sync + 'static,
) {
    let (registry, bytes) = (Registry::start(), large());
    registry.add_blob(bytes.clone());
    registry.on("/v2/a/blobs/", {
        let bytes = bytes.clone();
        move |seen, exchange| match (seen.earlier, seen.range_from()) {
            (0, _) => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
                exchange.send(head.as_bytes())?;
                exchange.send(&bytes[..bytes.len() / 2])
            }
            (_, Some(from)) => {
                let (status, range, body) = second(&bytes, from);
                let headers: Vec<_> = range.iter().map(|range| ("Content-Range", range.as_str())).collect();
                exchange.respond(status, &headers, &body)
            }
            (_, None) => exchange.serve(),
        }
    });
    assert!(blob(&client(), &reference(&registry, "a"), &descriptor(&bytes)).unwrap() == bytes);
}

#[test]
fn a_server_without_ranges_sends_all_again_and_nothing_is_doubled() {
    check_second_answer(|bytes, _| (200, None, bytes.to_vec()));
}

#[test]
fn a_part_from_another_offset_is_not_used() {
    check_second_answer(|bytes, from| {
        let range = format!("bytes {}-{}/{}", from - 5, bytes.len() - 1, bytes.len());
        (206, Some(range), bytes[from - 5..].to_vec())
    });
    check_second_answer(|bytes, from| {
        let range = format!("bytes {}-{}/{}", from + 5, bytes.len() - 1, bytes.len());
        (206, Some(range), bytes[from + 5..].to_vec())
    });
    check_second_answer(|bytes, from| (206, None, bytes[from..].to_vec()));
    check_second_answer(|bytes, from| (206, Some(format!("bytes {from}-/999")), bytes[from..].to_vec()));
}

#[test]
fn a_lawful_range_that_is_called_unsatisfiable_is_asked_for_otherwise() {
    check_second_answer(|_, _| (416, None, Vec::new()));
}

#[test]
fn an_empty_blob_needs_no_request() {
    let registry = Registry::start();
    assert_eq!(blob(&client(), &reference(&registry, "a"), &descriptor(b"")).unwrap(), b"");
    assert_eq!(registry.requests().len(), 0);
}

#[test]
fn layers_are_fetched_in_parallel_with_one_client() {
    let registry = Registry::start();
    registry.set_access(testkit::registry::Access::Token(None));
    let layers: Vec<Vec<u8>> = (0..8u8).map(|n| vec![n; 300_000]).collect();
    layers.iter().for_each(|layer| drop(registry.add_blob(layer.clone())));
    let (client, reference) = (client(), reference(&registry, "a"));
    std::thread::scope(|scope| {
        for layer in &layers {
            scope.spawn(|| assert!(blob(&client, &reference, &descriptor(layer)).unwrap() == *layer));
        }
    });
}

#[test]
fn the_urls_of_a_foreign_layer_are_never_asked() {
    let (registry, foreign) = (Registry::start(), Registry::start());
    let digest = foreign.add_blob(b"layer".as_slice());
    let mut descriptor = descriptor(b"layer");
    descriptor.set_urls(Some(vec![format!("http://{}/v2/a/blobs/{digest}", foreign.host())]));
    let error = blob(&client(), &reference(&registry, "a"), &descriptor).unwrap_err();
    assert!(error.contains("has no blob"), "{error}");
    assert_eq!(foreign.requests().len(), 0);
}

#[test]
fn cancelling_ends_a_transfer_at_once() {
    let (registry, bytes) = (Registry::start(), large());
    let client = setup().client().0;
    let asked = Arc::new(AtomicUsize::new(0));
    registry.on("/v2/a/blobs/", {
        let (client, asked, bytes) = (client.clone(), Arc::clone(&asked), bytes.clone());
        move |_, exchange| {
            asked.fetch_add(1, Ordering::SeqCst);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
            exchange.send(head.as_bytes())?;
            exchange.send(&bytes[..1000])?;
            client.cancel();
            exchange.hold();
            Ok(())
        }
    });
    let error = blob(&client, &reference(&registry, "a"), &descriptor(&bytes)).unwrap_err();
    assert!(error.ends_with("was not waited for: cancelled"), "{error}");
    let error = client.manifest(&reference(&registry, "a")).unwrap_err().to_string();
    assert!(error.ends_with("was not waited for: cancelled"), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn breaks_without_progress_end_after_the_attempts() {
    let (registry, bytes) = (Registry::start(), large());
    registry.on("/v2/a/blobs/", {
        let length = bytes.len();
        move |_, exchange| {
            exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nx").as_bytes())
        }
    });
    let (client, timing) = setup().client();
    let error = blob(&client, &reference(&registry, "a"), &descriptor(&bytes)).unwrap_err();
    assert_eq!(error, format!("`{}` broke the connection (tried 3 times)", registry.host()));
    assert_eq!(*timing.pauses.lock().unwrap(), [limits().backoff, limits().backoff * 2]);
}
