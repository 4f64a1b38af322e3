//! Certificates, and registries on loopback that do or do not have one.

use expect_test::{Expect, expect};
use testkit::registry::{Identity, Registry, authority_pem};
use web::Roots;

use crate::world::{Setup, chain, pull, reference, setup};

#[track_caller]
fn check(registry: &Registry, roots: Roots, expected: Expect) {
    registry.add_image("a", "latest", "linux/amd64", &[b"layer"]);
    let result = pull(&Setup { roots, ..setup() }.client().0, &reference(registry, "a"));
    expected.assert_eq(&match result {
        Ok((_, blobs)) => format!("{} blobs", blobs.len()),
        Err(error) => error.replace(&registry.host(), "HOST"),
    });
}

fn ours() -> Roots {
    Roots::Pem(authority_pem().to_vec())
}

#[test]
fn a_loopback_registry_is_found_to_have_tls() {
    check(&Registry::start_tls(Identity::Trusted), ours(), expect!["2 blobs"]);
}

#[track_caller]
fn check_refusal(identity: Identity, roots: Roots, reason: &str) {
    let registry = Registry::start_tls(identity);
    let client = Setup { roots, ..setup() }.client().0;
    let error = client.manifest(&reference(&registry, "a")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("`{}` offers no TLS connection that can be trusted", registry.host())
    );
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains(reason), "{cause}");
}

#[test]
fn certificates_that_prove_nothing_are_refused_and_the_reason_is_told() {
    check_refusal(Identity::WrongName, ours(), "not valid for name");
    check_refusal(Identity::Expired, ours(), "expired");
    check_refusal(Identity::SelfSigned, ours(), "UnknownIssuer");
    check_refusal(Identity::Trusted, Roots::Compiled, "UnknownIssuer");
}

#[test]
fn a_server_with_an_old_protocol_is_refused() {
    // A TLS 1.0 alert of "protocol version", to whatever comes.
    let registry = Registry::start_raw(&[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46]);
    check(&registry, ours(), expect!["`HOST` offers no TLS connection that can be trusted"]);
}

#[test]
fn nothing_leads_from_tls_to_plain_http() {
    let (registry, plain) = (Registry::start_tls(Identity::Trusted), Registry::start());
    let away = plain.host();
    registry
        .on("/v2/a/blobs/", move |seen, exchange| exchange.redirect(&format!("http://{away}{}", seen.path)));
    registry.add_image("a", "latest", "linux/amd64", &[b"layer"]);
    let error = pull(&Setup { roots: ours(), ..setup() }.client().0, &reference(&registry, "a")).unwrap_err();
    assert!(error.ends_with("is not protected by TLS"), "{error}");
    assert_eq!(plain.requests().len(), 0);
}

#[test]
fn a_token_realm_without_tls_gets_nothing_from_a_registry_with_tls() {
    let registry = Registry::start_tls(Identity::Trusted);
    registry.on("/v2/a/", |seen, exchange| {
        let realm = format!("Bearer realm=\"http://{}/token\"", seen.header("host").unwrap());
        exchange.respond(401, &[("WWW-Authenticate", &realm)], b"")
    });
    let error = pull(&Setup { roots: ours(), ..setup() }.client().0, &reference(&registry, "a")).unwrap_err();
    assert!(error.ends_with("/token` is not protected by TLS"), "{error}");
}

#[test]
fn a_bundle_without_certificates_is_an_error() {
    let new = |pem: &[u8]| {
        let setup = setup();
        registry::Client::new(registry::Options {
            credentials: setup.credentials,
            limits: setup.limits,
            hosts: setup.hosts,
            proxies: setup.proxies,
            roots: Roots::Pem(pem.to_vec()),
            user_agent: String::new(),
            names: setup.names,
            timing: crate::world::setup().client().1,
        })
    };
    expect!["the certificate bundle has no certificate in it"].assert_eq(&chain(&new(b"").unwrap_err()));
    expect!["the certificate bundle cannot be read"]
        .assert_eq(&new(b"-----BEGIN CERTIFICATE-----\n!\n").unwrap_err().to_string());
}
