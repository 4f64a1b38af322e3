//! Registries as they are configured: mirrors, certificates, none at all, and proxies on the way.

use std::path::Path;
use std::sync::Arc;

use expect_test::{Expect, expect};
use oci::Reference;
use registry::{Certificates, Hosts, Reach};
use testkit::proxy::{Proxy, Tunnel};
use testkit::registry::{Access, Identity, Registry, authority_pem, client_identity_pem};
use web::{Proxies, Roots};

use crate::world::{Setup, Zone, chain, login, pull, reference, setup};

const LAYER: &[u8] = &[7; 100_000];

/// A registry with an image, and a mirror of all of it.
fn mirrored() -> (Registry, Registry, Hosts) {
    let (registry, mirror) = (Registry::start(), Registry::start());
    registry.add_image("a", "latest", "linux/amd64", &[LAYER]);
    mirror.add_image("copy/a", "latest", "linux/amd64", &[LAYER]);
    let mut hosts = Hosts::none();
    let text = format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}/copy\"",
        registry.host(),
        mirror.host()
    );
    hosts.add_registries_conf(Path::new("registries.conf"), &text).unwrap();
    (registry, mirror, hosts)
}

/// Pulls the image, and tells from whom manifests and blobs were asked.
#[track_caller]
fn check(registry: &Registry, mirror: &Registry, hosts: Hosts, expected: Expect) {
    let (client, timing) = Setup { hosts, ..setup() }.client();
    let (_, blobs) = pull(&client, &reference(registry, "a")).unwrap();
    assert!(blobs[1] == LAYER);
    let asked = |server: &Registry| {
        (server.count("/v2/a/") + server.count("/v2/copy/a/"), timing.pauses.lock().unwrap().len())
    };
    let ((of_mirror, pauses), (of_registry, _)) = (asked(mirror), asked(registry));
    expected.assert_eq(&format!("mirror {of_mirror}, registry {of_registry}, pauses {pauses}"));
}

#[test]
fn a_mirror_that_has_everything_is_asked_alone() {
    let (registry, mirror, hosts) = mirrored();
    check(&registry, &mirror, hosts, expect!["mirror 3, registry 0, pauses 0"]);
}

#[test]
fn what_a_mirror_does_not_have_comes_from_the_registry() {
    let (registry, mirror, hosts) = mirrored();
    mirror.on("/v2/copy/a/blobs/", |_, exchange| exchange.respond(404, &[], b""));
    check(&registry, &mirror, hosts, expect!["mirror 3, registry 2, pauses 0"]);
}

#[test]
fn a_mirror_that_is_not_there_is_asked_once_and_not_waited_for() {
    let (registry, mirror, hosts) = mirrored();
    drop(mirror);
    check(&registry, &Registry::start(), hosts, expect!["mirror 0, registry 3, pauses 0"]);
}

#[test]
fn a_mirror_that_gives_something_else_is_asked_no_more() {
    let (registry, mirror, hosts) = mirrored();
    mirror.on("/v2/copy/a/manifests/", |_, exchange| {
        exchange.respond(200, &[("Content-Type", "text/html")], b"<html>Please log in")
    });
    check(&registry, &mirror, hosts, expect!["mirror 1, registry 3, pauses 0"]);
    let (registry, mirror, hosts) = mirrored();
    mirror.on("/v2/copy/a/blobs/", |_, exchange| exchange.respond(200, &[], b"something else"));
    check(&registry, &mirror, hosts, expect!["mirror 2, registry 2, pauses 0"]);
}

#[test]
fn what_breaks_off_at_a_mirror_goes_on_at_the_registry() {
    let (registry, mirror, hosts) = mirrored();
    let layer = testkit::registry::digest(LAYER);
    mirror.on(&format!("/v2/copy/a/blobs/{layer}"), |_, exchange| {
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
        exchange.send(&LAYER[..30_000])
    });
    check(&registry, &mirror, hosts, expect!["mirror 3, registry 1, pauses 0"]);
    let seen = registry.requests().into_iter().find(|seen| seen.path.ends_with(&layer)).unwrap();
    assert_eq!(seen.range_from(), Some(30_000));
}

#[test]
fn what_nobody_has_is_told_of_the_registry() {
    let (registry, mirror, hosts) = mirrored();
    let client = Setup { hosts, ..setup() }.client().0;
    let error = client.manifest(&reference(&registry, "a:other")).unwrap_err().to_string();
    assert!(error.starts_with(&format!("`{}` has no tag `other` in `a`", registry.host())), "{error}");
    assert_eq!(mirror.count("/v2/copy/a/"), 1);
}

#[test]
fn a_mirror_sees_its_own_login_and_no_other() {
    let (registry, mirror, hosts) = mirrored();
    mirror.set_access(Access::Basic("m", "of mirror"));
    let credentials = login(&mirror.host(), "m", "of mirror").or(login(&registry.host(), "r", "of registry"));
    let client = Setup { hosts, credentials, ..setup() }.client().0;
    pull(&client, &reference(&registry, "a")).unwrap();
    assert_eq!(registry.requests().len(), 0);
    let secret = testkit::registry::basic("r", "of registry");
    let leaked = mirror.requests().iter().any(|seen| seen.header("authorization") == Some(&*secret));
    assert!(!leaked);
}

#[test]
fn pushes_and_lists_do_not_go_to_mirrors() {
    let (registry, mirror, hosts) = mirrored();
    let client = Setup { hosts, ..setup() }.client().0;
    let reference = reference(&registry, "a");
    assert!(!client.has_blob(&reference, &oci::Digest::of(b"x")).unwrap());
    assert_eq!(client.tags(&reference).unwrap().len(), 1);
    assert!(client.referrers(&reference, &oci::Digest::of(b"x")).unwrap().is_empty());
    assert_eq!(mirror.requests().len(), 0);
}

#[test]
fn a_mirror_whose_storage_gives_something_else_is_asked_no_more() {
    let (registry, mirror, hosts) = mirrored();
    let storage = Registry::start();
    storage.on("/", |_, exchange| exchange.respond(200, &[], b"something else"));
    let away = storage.host();
    mirror.on("/v2/copy/a/blobs/", move |_, exchange| exchange.redirect(&format!("http://{away}/x")));
    check(&registry, &mirror, hosts, expect!["mirror 2, registry 2, pauses 0"]);
}

#[test]
fn one_insecure_repository_does_not_make_the_others_so() {
    let registry = Registry::start();
    registry.add_image("private/a", "latest", "linux/amd64", &[LAYER]);
    let host = format!("far.example:{}", registry.port());
    for text in [
        format!("[[registry]]\nlocation = \"{host}/public\"\ninsecure = true"),
        format!(
            "[[registry]]\nlocation = \"b.test\"\n[[registry.mirror]]\nlocation = \"{host}\"\ninsecure = true"
        ),
    ] {
        let mut hosts = Hosts::none();
        hosts.add_registries_conf(Path::new("conf"), &text).unwrap();
        let names = Zone::new(&[("far.example", &[Reach::Private])]);
        let client = Setup { hosts, names, ..setup() }.client().0;
        client.manifest(&Reference::parse(&format!("{host}/private/a")).unwrap()).unwrap_err();
        assert_eq!(registry.requests().len(), 0, "{text}");
    }
}

#[test]
fn a_mirror_without_tls_is_not_asked_whether_it_has_some() {
    let mirror = Registry::start();
    mirror.set_access(Access::Token(None));
    mirror.add_image("library/a", "latest", "linux/amd64", &[LAYER]);
    let mut hosts = Hosts::none();
    let text = format!(r#"{{"registry-mirrors": ["http://mirror.example:{}"]}}"#, mirror.port());
    hosts.add_daemon_json(Path::new("daemon.json"), text.as_bytes()).unwrap();
    let names = Zone::new(&[("mirror.example", &[Reach::Private])]);
    let client = Setup { hosts, names, ..setup() }.client().0;
    pull(&client, &Reference::parse("a").unwrap()).unwrap();
    assert_eq!(mirror.requests().iter().filter(|seen| seen.path == "/v2/").count(), 0);
    assert_eq!(mirror.count("/token"), 1);
}

#[test]
fn the_token_server_of_an_insecure_registry_need_not_prove_anything_either() {
    let (registry, tokens) =
        (Registry::start_tls(Identity::SelfSigned), Registry::start_tls(Identity::SelfSigned));
    let reference = far(&registry);
    let realm = format!("Bearer realm=\"https://far.test:{}/token\"", tokens.port());
    registry.on("/v2/a/", move |seen, exchange| match seen.header("authorization") {
        Some("Bearer t") => exchange.serve(),
        _ => exchange.respond(401, &[("WWW-Authenticate", &realm)], b""),
    });
    tokens.on("/token", |_, exchange| exchange.respond(200, &[], br#"{"token": "t"}"#));
    let names = Zone::new(&[("far.test", &[Reach::Private])]);
    pull(&Setup { names, ..setup() }.client().0, &reference).unwrap();
}

#[test]
fn what_is_blocked_is_not_asked() {
    let registry = Registry::start();
    let mut hosts = Hosts::none();
    let text = format!("[[registry]]\nlocation = \"{}/a\"\nblocked = true", registry.host());
    hosts.add_registries_conf(Path::new("/etc/registries.conf"), &text).unwrap();
    let client = Setup { hosts, ..setup() }.client().0;
    let error = client.manifest(&reference(&registry, "a")).unwrap_err().to_string();
    assert_eq!(error, format!("`{}/a` is blocked by `/etc/registries.conf`", registry.host()));
    assert_eq!(registry.requests().len(), 0);
}

/// Names below `.test` are insecure in every test: the servers behind them have no TLS.
fn with_certificates(host: String, certificates: Certificates) -> Hosts {
    let mut hosts = Hosts::none();
    let certificates = Arc::new(certificates);
    hosts.set_certificates(Arc::new(move |asked| Ok((asked == host).then(|| Arc::clone(&certificates)))));
    hosts
}

/// The name of an image at the registry, which is not on loopback by that name.
fn far(registry: &Registry) -> Reference {
    registry.add_image("a", "latest", "linux/amd64", &[LAYER]);
    Reference::parse(&format!("far.test:{}/a", registry.port())).unwrap()
}

#[test]
fn an_insecure_registry_may_prove_nothing_and_need_not_have_tls() {
    for registry in [Registry::start_tls(Identity::SelfSigned), Registry::start()] {
        let reference = far(&registry);
        let names = Zone::new(&[("far.test", &[Reach::Private])]);
        let client = Setup { names, ..setup() }.client().0;
        pull(&client, &reference).unwrap();
    }
}

#[test]
fn the_authority_of_a_registry_is_trusted_for_it_alone() {
    let (registry, other) = (Registry::start_tls(Identity::Trusted), Registry::start_tls(Identity::Trusted));
    registry.add_image("a", "latest", "linux/amd64", &[LAYER]);
    let (directory, authorities) = ("/certs.d/it".into(), authority_pem().to_vec());
    let hosts = with_certificates(registry.host(), Certificates { directory, authorities, identity: None });
    let client = Setup { hosts, ..setup() }.client().0;
    pull(&client, &reference(&registry, "a")).unwrap();
    let error = client.manifest(&reference(&other, "a")).unwrap_err().to_string();
    assert!(error.ends_with("offers no TLS connection that can be trusted"), "{error}");
}

#[test]
fn a_registry_that_asks_who_we_are_is_told() {
    let registry = Registry::start_for_known_clients();
    registry.add_image("a", "latest", "linux/amd64", &[LAYER]);
    let roots = || Roots::Pem(authority_pem().to_vec());
    let (certificate, key) = client_identity_pem();
    let with = |identity| {
        let (directory, authorities) = ("/certs.d/it".into(), Vec::new());
        let hosts = with_certificates(registry.host(), Certificates { directory, authorities, identity });
        let client = Setup { hosts, roots: roots(), ..setup() }.client().0;
        pull(&client, &reference(&registry, "a")).map(drop)
    };
    with(None).unwrap_err();
    with(Some((certificate.to_vec(), key.to_vec()))).unwrap();
    let error = with(Some((certificate.to_vec(), b"no key".to_vec()))).unwrap_err();
    let expected = "cannot be asked: its certificates in `/certs.d/it` cannot be used: the key to the certificate cannot be read";
    assert_eq!(error, format!("`{}` {expected}", registry.host()));
}

#[test]
fn a_proxy_is_asked_for_what_is_not_here() {
    let (registry, proxy) = (Registry::start(), Proxy::start());
    let reference = far(&registry);
    let address = format!("http://me:secret@{}", proxy.address());
    let proxies = Proxies::from_variables(|name| (name == "all_proxy").then_some(&*address)).unwrap();
    // The proxy knows the name; we need not.
    let client = Setup { proxies, ..setup() }.client().0;
    pull(&client, &reference).unwrap();
    let authorization = Some(testkit::registry::basic("me", "secret"));
    let expected = Tunnel { to: format!("far.test:{}", registry.port()), authorization };
    assert!(!proxy.tunnels().is_empty());
    assert!(proxy.tunnels().iter().all(|tunnel| *tunnel == expected), "{:?}", proxy.tunnels());
}

#[test]
fn nobody_leads_a_proxy_to_an_inner_address() {
    let (registry, proxy) = (Registry::start(), Proxy::start());
    let reference = far(&registry);
    registry.on("/v2/a/blobs/", |_, exchange| exchange.redirect("http://169.254.169.254/latest"));
    let address = format!("http://{}", proxy.address());
    let proxies = Proxies::from_variables(|name| (name == "all_proxy").then_some(&*address)).unwrap();
    let mut hosts = Hosts::none();
    hosts.add_daemon_json(Path::new("d"), br#"{"insecure-registries": ["169.254.0.0/16"]}"#).unwrap();
    let client = Setup { hosts, proxies, ..setup() }.client().0;
    let error = pull(&client, &reference).unwrap_err();
    assert!(error.ends_with("`169.254.169.254` is the inner address 169.254.169.254"), "{error}");
    assert!(proxy.tunnels().iter().all(|tunnel| tunnel.to.starts_with("far.test:")));
}

#[test]
fn a_proxy_that_refuses_is_told_of() {
    let address = |proxy: &Proxy| format!("http://{}", proxy.address());
    let ask = |address: &str| {
        let proxies = Proxies::from_variables(|name| (name == "https_proxy").then_some(address)).unwrap();
        let client = Setup { proxies, ..setup() }.client().0;
        let error = client.manifest(&Reference::parse("far.test:1/a").unwrap()).unwrap_err();
        chain(&error).replace(address.trim_start_matches("http://"), "PROXY")
    };
    // Nobody listens there, so the proxy has nobody to connect to.
    let proxy = Proxy::start();
    expect![
        "`far.test:1` cannot be asked: the proxy `PROXY` makes no tunnel: proxy server responded 502/502"
    ]
    .assert_eq(&ask(&address(&proxy)));
    let gone = address(&proxy);
    drop(proxy);
    expect!["`far.test:1` cannot be asked: the proxy `PROXY` cannot be reached (tried 3 times)"]
        .assert_eq(&ask(&gone));
}
