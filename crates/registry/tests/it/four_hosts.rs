//! A registry, its token server, where its blobs are, and where uploads go: four hosts, of which each sees what is meant for it.

use oci::Reference;
use registry::{Delivery, Reach};
use testkit::registry::{Identity, Registry, authority_pem, basic};
use web::Roots;

use crate::push::push;
use crate::world::{Setup, Zone, login, pull, reference, setup};

const BEARER: &str = "Bearer for-the-registry-alone";

/// As another host than 127.0.0.1, with the same certificate.
fn named(server: &Registry) -> String {
    format!("localhost:{}", server.port())
}

struct Hosts {
    registry: Registry,
    tokens: Registry,
    blobs: Registry,
    uploads: Registry,
}

fn hosts() -> Hosts {
    let start = || Registry::start_tls(Identity::Trusted);
    let hosts = Hosts { registry: start(), tokens: start(), blobs: start(), uploads: start() };
    let (tokens, blobs, uploads) = (named(&hosts.tokens), named(&hosts.blobs), named(&hosts.uploads));
    hosts.registry.on("/v2/a/", move |seen, exchange| {
        if seen.header("authorization") != Some(BEARER) {
            let challenge = format!("Bearer realm=\"https://{tokens}/token\",service=\"s\"");
            return exchange.respond(401, &[("WWW-Authenticate", &challenge)], b"");
        }
        match seen.method.as_str() {
            "GET" if seen.path.contains("/blobs/") => {
                exchange.redirect(&format!("https://{blobs}{}", seen.path))
            }
            "HEAD" => exchange.respond(404, &[], b""),
            "POST" => exchange.respond(202, &[("Location", &format!("https://{uploads}/upload"))], b""),
            "PUT" => exchange.respond(201, &[], b""),
            _ => exchange.serve(),
        }
    });
    hosts.tokens.on("/token", |seen, exchange| match seen.header("authorization") {
        Some(value) if value == basic("me", "secret") => {
            let token = BEARER.trim_start_matches("Bearer ");
            exchange.respond(200, &[], format!("{{\"token\":\"{token}\"}}").as_bytes())
        }
        _ => exchange.respond(401, &[], b""),
    });
    // All of them ask for more than they should get.
    let challenge = [("WWW-Authenticate", "Basic realm=\"give it to me\"")];
    hosts.uploads.on("/upload", move |_, exchange| exchange.respond(201, &challenge, b""));
    hosts
}

/// Every secret that came to a server, in whatever part of a request.
fn secrets(server: &Registry) -> Vec<String> {
    let known = [basic("me", "secret"), BEARER.to_owned()];
    let mut found = Vec::new();
    for seen in server.requests() {
        let headers = seen.headers.iter().map(|(_, value)| value.clone());
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        for text in headers.chain([body, seen.query.clone(), seen.path.clone()]) {
            let is_in = |secret: &&String| text.contains(secret.split_once(' ').map_or("", |(_, bare)| bare));
            found.extend(known.iter().filter(is_in).cloned());
        }
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn each_host_sees_the_credentials_that_are_for_it() {
    let hosts = hosts();
    hosts.registry.add_image("a", "latest", "linux/amd64", &[b"layer"]);
    hosts.blobs.add_image("a", "latest", "linux/amd64", &[b"layer"]);
    let name: Reference = reference(&hosts.registry, "a");
    let credentials = login(&hosts.registry.host(), "me", "secret");
    let (names, roots) =
        (Zone::new(&[("localhost", &[Reach::Loopback])]), Roots::Pem(authority_pem().to_vec()));
    let client = Setup { credentials, roots, names, ..setup() }.client().0;
    assert_eq!(pull(&client, &name).unwrap().1[1], b"layer");
    let large: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    for bytes in [b"small".to_vec(), large] {
        assert_eq!(push(&client, &name, &bytes, None), Ok(Delivery::Sent));
    }
    client.push_manifest(&name, testkit::registry::MANIFEST, b"{}").unwrap();
    assert!(hosts.blobs.requests().len() >= 2 && hosts.uploads.requests().len() >= 3);
    assert_eq!(secrets(&hosts.registry), [BEARER]);
    assert_eq!(secrets(&hosts.tokens), [basic("me", "secret")]);
    assert_eq!(secrets(&hosts.blobs), [""; 0]);
    assert_eq!(secrets(&hosts.uploads), [""; 0]);
}
