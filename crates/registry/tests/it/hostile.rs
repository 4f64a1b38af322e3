//! Registries that lie, stall and flood. Each row: what one of them does, and what comes of it.

use std::time::Duration;

use expect_test::{Expect, expect};
use registry::Limits;
use serde_json::json;
use testkit::registry::{Exchange, Registry, Seen};

use crate::world::{Setup, limits, pull, reference, setup};

const LAYER: &[u8] = &[7; 100_000];

/// Limits for servers that make us wait: short, since the outcome is the same however slow the machine is.
fn impatient() -> Limits {
    let short = Duration::from_millis(200);
    Limits { first_byte: short, stall: short, floor_window: short, ..limits() }
}

/// Pulls an image of one layer from a registry that answers requests below `path` by `misbehave`.
#[track_caller]
fn check_with(
    limits: Limits,
    path: &str,
    misbehave: impl Fn(&Seen, &mut Exchange<'_>) -> std::io::Result<()> + Send + Sync + 'static,
    expected: Expect,
) {
    let registry = Registry::start();
    let manifest = registry.add_image("a", "latest", "linux/amd64", &[LAYER]);
    let layer = testkit::registry::digest(LAYER);
    let path = path.replace("MANIFEST", "/v2/a/manifests/").replace("LAYER", &format!("/v2/a/blobs/{layer}"));
    registry.on(&path, misbehave);
    let (client, timing) = Setup { limits, ..setup() }.client();
    let result = pull(&client, &reference(&registry, "a"));
    let shown = match result {
        Ok((_, blobs)) => {
            assert!(blobs[1] == LAYER);
            "the image".to_owned()
        }
        Err(error) => {
            error.replace(&registry.host(), "HOST").replace(&manifest, "MANIFEST").replace(&layer, "LAYER")
        }
    };
    let requests = registry.count(&path);
    let pauses: Vec<f64> = timing.pauses.lock().unwrap().iter().map(Duration::as_secs_f64).collect();
    expected.assert_eq(&format!("{shown}\n{requests} requests, pauses {pauses:?}"));
}

#[track_caller]
fn check(
    path: &str,
    misbehave: impl Fn(&Seen, &mut Exchange<'_>) -> std::io::Result<()> + Send + Sync + 'static,
    expected: Expect,
) {
    check_with(limits(), path, misbehave, expected);
}

fn respond_with(
    media_type: &'static str,
    body: impl Into<Vec<u8>>,
) -> impl Fn(&Seen, &mut Exchange<'_>) -> std::io::Result<()> {
    let body = body.into();
    move |_, exchange| exchange.respond(200, &[("Content-Type", media_type)], &body)
}

#[test]
fn manifests_that_are_none_are_refused() {
    use testkit::registry::{INDEX, MANIFEST};
    check(
        "MANIFEST",
        respond_with("text/html", "<html>Please log in"),
        expect![[r#"
        `HOST` does not answer with a manifest: `text/html` is not the media type of an image manifest or index
        1 requests, pauses []"#]],
    );
    check(
        "MANIFEST",
        respond_with("application/vnd.docker.distribution.manifest.v1+prettyjws", "{}"),
        expect![[r#"
            `HOST` does not answer with a manifest: `application/vnd.docker.distribution.manifest.v1+prettyjws` is not the media type of an image manifest or index
            1 requests, pauses []"#]],
    );
    check(
        "MANIFEST",
        respond_with(MANIFEST, "{"),
        expect![[r#"
        the manifest sha256:021fb596db81e6d02bf3d2586ee3981fe519f275c0ac9ca76bbcf2ebb4097d96 from `HOST` cannot be read: EOF while parsing an object at line 1 column 1
        1 requests, pauses []"#]],
    );
    check(
        "MANIFEST",
        respond_with(MANIFEST, "{}"),
        expect![[r#"
            the document from `HOST` is no clear `application/vnd.oci.image.manifest.v1+json`: it has the fields of both a manifest and an index, or of neither
            1 requests, pauses []"#]],
    );
    check(
        "MANIFEST",
        respond_with(MANIFEST, json!({ "mediaType": INDEX, "layers": [] }).to_string()),
        expect![[r#"
            `HOST` announces `application/vnd.oci.image.manifest.v1+json`, but the document says it is `application/vnd.oci.image.index.v1+json`
            1 requests, pauses []"#]],
    );
    let both = json!({ "mediaType": INDEX, "manifests": [], "layers": [], "config": {} }).to_string();
    check(
        "MANIFEST",
        respond_with(INDEX, both),
        expect![[r#"
            the document from `HOST` is no clear `application/vnd.oci.image.index.v1+json`: it has the fields of both a manifest and an index, or of neither
            1 requests, pauses []"#]],
    );
    let deep = "[".repeat(100_000);
    check(
        "MANIFEST",
        respond_with(MANIFEST, format!("{{\"layers\":{deep}")),
        expect![[r#"
        the manifest sha256:9dad31d2f44c8b485f8a635b7d240a85ffd7d711c4b2a1f8ec91f14d861a3b78 from `HOST` cannot be read: EOF while parsing a list at line 1 column 100010
        1 requests, pauses []"#]],
    );
    check(
        "MANIFEST",
        respond_with(MANIFEST, vec![b' '; (4 << 20) + 1]),
        expect![[r#"
        `HOST` sent a manifest of more than 4194304 bytes
        1 requests, pauses []"#]],
    );
}

#[test]
fn manifests_of_another_digest_are_refused() {
    check(
        "MANIFEST",
        |_, exchange| {
            let header = format!("sha256:{}", "0".repeat(64));
            let headers = [("Content-Type", testkit::registry::MANIFEST), ("Docker-Content-Digest", &header)];
            exchange.respond(200, &headers, b"{\"config\":{},\"layers\":[]}")
        },
        expect![[r#"
            `HOST` announces `sha256:0000000000000000000000000000000000000000000000000000000000000000` and gave sha256:f53e9334367d65dd27d02cff1c8ce230fb432277d2018ac4936dbce8d92f1ae2
            1 requests, pauses []"#]],
    );
    let registry = Registry::start();
    let digest = registry.add_image("a", "latest", "linux/amd64", &[]);
    registry
        .on("/v2/a/manifests/", respond_with(testkit::registry::MANIFEST, "{\"config\":{},\"layers\":[]}"));
    let error = pull(&setup().client().0, &reference(&registry, &format!("a@{digest}"))).unwrap_err();
    assert!(error.contains(&format!("was asked for {digest} and gave sha256:")), "{error}");
}

#[test]
fn blobs_of_other_bytes_are_refused() {
    let other: Vec<u8> = LAYER.iter().map(|byte| byte + 1).collect();
    check(
        "LAYER",
        respond_with("application/octet-stream", other.clone()),
        expect![[r#"
        the bytes received for LAYER have the digest sha256:fd9646bd209d2f72fe6ab9961ce654aec04ef14dd060f6af83bf8ff8995b7015
        1 requests, pauses []"#]],
    );
    check(
        "LAYER",
        respond_with("application/octet-stream", [LAYER, b"more"].concat()),
        expect![[r#"
        `HOST` has 100004 bytes for LAYER, not the 100000 of its descriptor
        1 requests, pauses []"#]],
    );
    check(
        "LAYER",
        respond_with("application/octet-stream", &LAYER[1..]),
        expect![[r#"
        `HOST` has 99999 bytes for LAYER, not the 100000 of its descriptor
        1 requests, pauses []"#]],
    );
    // A body in another encoding is other bytes, whatever the header says of it.
    check(
        "LAYER",
        move |_, exchange| exchange.respond(200, &[("Content-Encoding", "gzip")], &other),
        expect![[r#"
            the bytes received for LAYER have the digest sha256:fd9646bd209d2f72fe6ab9961ce654aec04ef14dd060f6af83bf8ff8995b7015
            1 requests, pauses []"#]],
    );
    check(
        "LAYER",
        |_, exchange| exchange.respond(206, &[("Content-Range", "bytes 5-9/10")], b"12345"),
        expect![[r#"
            `HOST` sent a part of LAYER when asked for the whole
            1 requests, pauses []"#]],
    );
}

#[test]
fn blobs_that_are_too_long_are_read_no_further_than_declared() {
    // The right bytes, then chunks for ever.
    check(
        "LAYER",
        |_, exchange| {
            exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            exchange.send(format!("{:x}\r\n", LAYER.len()).as_bytes())?;
            exchange.send(LAYER)?;
            loop {
                exchange.send(b"\r\n3\r\nabc")?;
            }
        },
        expect![[r#"
            the image
            1 requests, pauses []"#]],
    );
    check(
        "LAYER",
        |_, exchange| {
            exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                exchange.send(b"3\r\nabc\r\n")?;
            }
        },
        expect![[r#"
            the bytes received for LAYER have the digest sha256:3af361142563c6e63e2a271176a8b1f61b046c53b4b9dd077be78c895d1919e1
            1 requests, pauses []"#]],
    );
}

#[test]
fn bodies_that_end_early_are_asked_for_again() {
    check(
        "LAYER",
        |seen, exchange| match seen.earlier {
            0 => {
                exchange
                    .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", LAYER.len()).as_bytes())?;
                exchange.send(&LAYER[..LAYER.len() / 2])
            }
            _ => exchange.serve(),
        },
        expect![[r#"
            the image
            2 requests, pauses [0.5]"#]],
    );
    // The length is right and never kept.
    check(
        "LAYER",
        |_, exchange| {
            exchange
                .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", LAYER.len()).as_bytes())?;
            exchange.send(&LAYER[..10])
        },
        expect![[r#"
            `HOST` broke the connection (tried 3 times)
            3 requests, pauses [0.5, 1.0]"#]],
    );
    check(
        "MANIFEST",
        |seen, exchange| match seen.earlier {
            0 => exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"),
            _ => exchange.serve(),
        },
        expect![[r#"
            the image
            2 requests, pauses [0.5]"#]],
    );
}

#[test]
fn silence_and_dripping_end_at_their_limits() {
    check_with(
        impatient(),
        "LAYER",
        |_, exchange| {
            exchange.hold();
            Ok(())
        },
        expect![[r#"
            `HOST` did not answer within 200ms (tried 3 times)
            3 requests, pauses [0.5, 1.0]"#]],
    );
    check_with(
        impatient(),
        "LAYER",
        |_, exchange| {
            exchange
                .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", LAYER.len()).as_bytes())?;
            exchange.hold();
            Ok(())
        },
        expect![[r#"
            `HOST` sent nothing further within 200ms (tried 3 times)
            3 requests, pauses [0.5, 1.0]"#]],
    );
    check_with(
        Limits { stall: Duration::from_secs(30), first_byte: Duration::from_secs(30), ..impatient() },
        "LAYER",
        |_, exchange| {
            exchange
                .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", LAYER.len()).as_bytes())?;
            exchange.drip(LAYER, Duration::from_millis(10))
        },
        expect![[r#"
            `HOST` moved less than 1024 bytes a second for 200ms
            1 requests, pauses []"#]],
    );
    check_with(
        Limits { stall: Duration::from_secs(30), ..impatient() },
        "LAYER",
        |_, exchange| {
            exchange.drip(b"HTTP/1.1 200 OK\r\nX-Slow: yes\r\nX-Slower: yes\r\n", Duration::from_millis(20))
        },
        expect![[r#"
            `HOST` did not answer within 200ms (tried 3 times)
            3 requests, pauses [0.5, 1.0]"#]],
    );
}

#[test]
fn passing_failures_are_tried_again_as_the_server_asks() {
    check(
        "MANIFEST",
        |seen, exchange| match seen.earlier {
            0 => exchange.respond(502, &[], b""),
            1 => exchange.respond(429, &[("Retry-After", "7")], b""),
            _ => exchange.serve(),
        },
        expect![[r#"
            the image
            3 requests, pauses [0.5, 7.0]"#]],
    );
    check(
        "MANIFEST",
        |seen, exchange| match seen.earlier {
            0 => {
                let past = [
                    ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
                    ("Retry-After", "Sun, 06 Nov 1983 08:49:37 GMT"),
                ];
                exchange.respond(429, &past, b"")
            }
            _ => exchange.serve(),
        },
        expect![[r#"
            the image
            2 requests, pauses [0.5]"#]],
    );
    check(
        "MANIFEST",
        |seen, exchange| if seen.earlier == 0 { Ok(()) } else { exchange.serve() },
        expect![[r#"
            the image
            2 requests, pauses [0.5]"#]],
    );
}

#[test]
fn lasting_failures_end_with_the_servers_words() {
    check(
        "MANIFEST",
        |_, exchange| exchange.respond(500, &[], b""),
        expect![[r#"
        `HOST` answered with status 500 (tried 3 times)
        3 requests, pauses [0.5, 1.0]"#]],
    );
    check(
        "MANIFEST",
        |_, exchange| {
            let says =
                br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit \u001b[31mreached"}]}"#;
            exchange.respond(429, &[("Retry-After", "1000000000")], says)
        },
        expect![[r#"
            `HOST` asks for a pause of 1000000000 s, which is more than 60 s — TOOMANYREQUESTS: pull rate limit �[31mreached
            1 requests, pauses []"#]],
    );
    check(
        "MANIFEST",
        |_, exchange| exchange.respond(418, &[], &[b'x'; 200_000]),
        expect![[r#"
        `HOST` answered with status 418
        1 requests, pauses []"#]],
    );
    check(
        "MANIFEST",
        |_, exchange| exchange.respond(204, &[], b""),
        expect![[r#"
        `HOST` answered with status 204
        1 requests, pauses []"#]],
    );
}

#[test]
fn headers_without_bounds_are_refused() {
    check(
        "MANIFEST",
        |_, exchange| exchange.respond(200, &[("X-Big", &"x".repeat(1 << 20))], b""),
        expect![[r#"
            `HOST` did not answer in proper HTTP
            1 requests, pauses []"#]],
    );
    check(
        "MANIFEST",
        |_, exchange| exchange.respond(200, &vec![("X-Many", "x"); 10_000], b""),
        expect![[r#"
            `HOST` did not answer in proper HTTP
            1 requests, pauses []"#]],
    );
    check(
        "MANIFEST",
        |_, exchange| exchange.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        expect![[r#"
        `HOST` did not answer in proper HTTP
        1 requests, pauses []"#]],
    );
    check(
        "MANIFEST",
        |_, exchange| exchange.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        expect![[r#"
        `HOST` did not answer in proper HTTP
        1 requests, pauses []"#]],
    );
}

#[test]
fn nobody_at_home_is_said_so() {
    let port = Registry::start().port();
    let error = pull(&setup().client().0, &oci::Reference::parse(&format!("127.0.0.1:{port}/a")).unwrap())
        .unwrap_err();
    assert_eq!(error, format!("`127.0.0.1:{port}` cannot be reached (tried 3 times)"));
    let error = pull(&setup().client().0, &oci::Reference::parse("nosuch.test/a").unwrap()).unwrap_err();
    assert_eq!(error, "`nosuch.test` has no address (tried 3 times)");
}
