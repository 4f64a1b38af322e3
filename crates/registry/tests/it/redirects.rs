//! Where a registry may send us, and who gets to see the password on the way.

use expect_test::{Expect, expect};
use registry::Reach;
use testkit::registry::{Access, Registry};

use crate::world::{Setup, Zone, login, pull, reference, setup};

/// A registry `registry.test` whose blobs are elsewhere: at `LOCATION`, in which `CDN` stands for another server.
#[track_caller]
fn check(registry_reach: Reach, location: &str, expected: Expect) {
    let (registry, cdn) = (Registry::start(), Registry::start());
    registry.add_image("a", "latest", "linux/amd64", &[b"layer"]);
    cdn.add_image("a", "latest", "linux/amd64", &[b"layer"]);
    let location = location.replace("CDN", &cdn.port().to_string());
    registry.on("/v2/a/blobs/", move |seen, exchange| {
        let digest = seen.path.rsplit('/').next().unwrap();
        exchange.redirect(&location.replace("DIGEST", digest))
    });
    let names = Zone::new(&[
        ("registry.test", &[registry_reach]),
        ("public.test", &[Reach::Public]),
        ("private.test", &[Reach::Private]),
        ("inside.test", &[Reach::Loopback]),
    ]);
    let reference = oci::Reference::parse(&format!("registry.test:{}/a", registry.port())).unwrap();
    let shown = match pull(&Setup { names, ..setup() }.client().0, &reference) {
        Ok((_, blobs)) => format!("{} blobs", blobs.len()),
        Err(error) => {
            error.replace(&registry.port().to_string(), "PORT").replace(&cdn.port().to_string(), "CDN")
        }
    };
    let shown = shown.replace("`registry.test:PORT` redirects to where it may not:", "refused:");
    expected.assert_eq(&format!("{shown}; the other got {} requests", cdn.requests().len()));
}

#[test]
fn redirects_lead_outward_or_stay_where_they_are() {
    check(
        Reach::Public,
        "http://public.test:CDN/v2/a/blobs/DIGEST",
        expect!["2 blobs; the other got 2 requests"],
    );
    check(
        Reach::Private,
        "http://public.test:CDN/v2/a/blobs/DIGEST",
        expect!["2 blobs; the other got 2 requests"],
    );
    check(
        Reach::Private,
        "http://private.test:CDN/v2/a/blobs/DIGEST",
        expect!["2 blobs; the other got 2 requests"],
    );
    check(
        Reach::Loopback,
        "//inside.test:CDN/v2/a/blobs/DIGEST",
        expect!["2 blobs; the other got 2 requests"],
    );
    check(
        Reach::Public,
        "http://private.test:CDN/v2/a/blobs/DIGEST",
        expect!["refused: `private.test` is the inner address 127.0.0.1; the other got 0 requests"],
    );
    check(
        Reach::Public,
        "http://inside.test:CDN/v2/a/blobs/DIGEST",
        expect!["refused: `inside.test` is the inner address 127.0.0.1; the other got 0 requests"],
    );
    check(
        Reach::Public,
        "http://127.0.0.1:CDN/v2/a/blobs/DIGEST",
        expect!["refused: `127.0.0.1` is the inner address 127.0.0.1; the other got 0 requests"],
    );
    check(
        Reach::Private,
        "http://inside.test:CDN/v2/a/blobs/DIGEST",
        expect!["refused: `inside.test` is the inner address 127.0.0.1; the other got 0 requests"],
    );
    check(
        Reach::Public,
        "https://169.254.169.254/latest/meta-data",
        expect!["refused: `169.254.169.254` is the inner address 169.254.169.254; the other got 0 requests"],
    );
    check(
        Reach::Loopback,
        "https://169.254.169.254/latest/meta-data",
        expect!["refused: `169.254.169.254` is the inner address 169.254.169.254; the other got 0 requests"],
    );
    check(
        Reach::Public,
        "https://[::ffff:127.0.0.1]:CDN/",
        expect![
            "refused: `::ffff:127.0.0.1` is the inner address ::ffff:127.0.0.1; the other got 0 requests"
        ],
    );
    check(
        Reach::Public,
        "https://nosuch.test/",
        expect!["`nosuch.test` has no address (tried 3 times); the other got 0 requests"],
    );
}

#[test]
fn redirects_to_what_is_no_web_address_are_refused() {
    check(
        Reach::Loopback,
        "file:///etc/passwd",
        expect!["refused: `file:///etc/passwd` is neither https nor http; the other got 0 requests"],
    );
    check(
        Reach::Loopback,
        "gopher://inside.test/",
        expect!["refused: `gopher://inside.test/` is neither https nor http; the other got 0 requests"],
    );
    check(
        Reach::Loopback,
        "http://user:pw@inside.test:CDN/",
        expect!["refused: `…@inside.test:CDN/` has a user name in it; the other got 0 requests"],
    );
    check(
        Reach::Loopback,
        "http://unprotected.test/",
        expect!["`unprotected.test` has no address (tried 3 times); the other got 0 requests"],
    );
}

#[test]
fn loops_and_long_chains_end() {
    let registry = Registry::start();
    registry.on("/v2/loop/", |seen, exchange| exchange.redirect(&seen.path));
    registry.on("/v2/chain/", |seen, exchange| exchange.redirect(&format!("{}x", seen.path)));
    registry.on("/v2/nowhere/", |_, exchange| exchange.respond(302, &[], b""));
    let error = |name: &str| {
        let error = pull(&setup().client().0, &reference(&registry, name)).unwrap_err();
        error.replace(&registry.host(), "HOST")
    };
    expect!["`HOST` redirects to where it may not: there are more than 10 redirects"]
        .assert_eq(&error("loop"));
    expect!["`HOST` redirects to where it may not: there are more than 10 redirects"]
        .assert_eq(&error("chain"));
    expect!["`HOST` redirects to where it may not: the redirect has no location"]
        .assert_eq(&error("nowhere"));
    assert_eq!(registry.count("/v2/loop/"), 11);
}

#[test]
fn the_password_goes_back_to_its_origin_and_nowhere_else() {
    let (registry, other) = (Registry::start(), Registry::start());
    registry.add_image("a", "latest", "linux/amd64", &[b"layer"]);
    registry.set_access(Access::Basic("hub", "pw"));
    let (own, away) = (registry.host(), other.host());
    registry.on("/v2/a/blobs/", move |seen, exchange| {
        exchange.redirect(&format!("http://{away}{}", seen.path.replace("/a/", "/b/")))
    });
    other.on("/v2/b/blobs/", move |seen, exchange| {
        exchange.redirect(&format!("http://{own}{}", seen.path.replace("/b/", "/back/")))
    });
    let client = Setup { credentials: login(&registry.host(), "hub", "pw"), ..setup() }.client().0;
    assert_eq!(pull(&client, &reference(&registry, "a")).unwrap().1[1], b"layer");
    assert_eq!(other.count("/v2/b/blobs/"), 2);
    assert!(other.requests().iter().all(|seen| seen.header("authorization").is_none()));
    let back = registry.requests().into_iter().filter(|seen| seen.path.contains("/back/"));
    assert!(back.clone().count() == 2 && back.clone().all(|seen| seen.header("authorization").is_some()));
}

#[test]
fn a_challenge_behind_a_redirect_gets_no_credentials() {
    let (registry, other) = (Registry::start(), Registry::start());
    other.set_access(Access::Basic("hub", "pw"));
    let away = other.host();
    registry.on("/v2/a/", move |seen, exchange| exchange.redirect(&format!("http://{away}{}", seen.path)));
    let client = Setup { credentials: login(&registry.host(), "hub", "pw"), ..setup() }.client().0;
    let error = pull(&client, &reference(&registry, "a")).unwrap_err();
    assert!(error.starts_with(&format!("`{}` answered with status 401", other.host())), "{error}");
    assert!(other.requests().iter().all(|seen| seen.header("authorization").is_none()));
}

#[test]
fn a_name_that_changes_its_address_gains_nothing() {
    let registry = Registry::start();
    registry.add_image("a", "latest", "linux/amd64", &[b"layer"]);
    let inner = format!("http://rebind.test:{}/stolen", registry.port());
    registry.on("/v2/a/blobs/", move |_, exchange| exchange.redirect(&inner));
    // Harmless when looked up first, inward the next time: what is connected to is what was checked.
    let names =
        Zone::new(&[("registry.test", &[Reach::Public]), ("rebind.test", &[Reach::Public, Reach::Loopback])]);
    let reference = oci::Reference::parse(&format!("registry.test:{}/a", registry.port())).unwrap();
    registry.on("/stolen", |_, exchange| exchange.respond(503, &[], b""));
    let error = pull(&Setup { names, ..setup() }.client().0, &reference).unwrap_err();
    assert!(
        error.contains("redirects to where it may not (tried 2 times): `rebind.test` is the inner address"),
        "{error}"
    );
    assert_eq!(registry.count("/stolen"), 1);
}

#[test]
fn a_registry_whose_name_turns_inward_is_trusted_with_no_more() {
    let (registry, inside) = (Registry::start(), Registry::start());
    registry.add_image("a", "latest", "linux/amd64", &[b"layer"]);
    let location = format!("http://inside.test:{}/stolen", inside.port());
    registry.on("/v2/a/blobs/", move |_, exchange| exchange.redirect(&location));
    let names = Zone::new(&[
        ("registry.test", &[Reach::Public, Reach::Loopback]),
        ("inside.test", &[Reach::Loopback]),
    ]);
    let reference = oci::Reference::parse(&format!("registry.test:{}/a", registry.port())).unwrap();
    let error = pull(&Setup { names, ..setup() }.client().0, &reference).unwrap_err();
    assert!(error.ends_with("`inside.test` is the inner address 127.0.0.1"), "{error}");
    assert_eq!(inside.requests().len(), 0);
}

#[test]
fn a_token_realm_may_not_lead_inward() {
    let registry = Registry::start();
    registry.on("/v2/a/", |_, exchange| {
        exchange.respond(401, &[("WWW-Authenticate", "Bearer realm=\"https://169.254.169.254/token\"")], b"")
    });
    let names = Zone::new(&[("registry.test", &[Reach::Public])]);
    let reference = oci::Reference::parse(&format!("registry.test:{}/a", registry.port())).unwrap();
    let error = pull(&Setup { names, ..setup() }.client().0, &reference).unwrap_err();
    expect!["`registry.test:PORT` asks for a token that cannot be had: its token realm may not be used: `169.254.169.254` is the inner address 169.254.169.254"].assert_eq(&error.replace(&registry.port().to_string(), "PORT"));
}
