//! Challenges and credentials.

use expect_test::{Expect, expect};
use registry::{Credentials, Reach};
use testkit::registry::{Access, Registry, basic};

use crate::world::{Setup, Zone, login, pull, reference, setup};

fn pull_with(registry: &Registry, credentials: Credentials) -> Result<usize, String> {
    let client = Setup { credentials, ..setup() }.client().0;
    registry.add_image("team/app", "latest", "linux/amd64", &[b"layer"]);
    let result = pull(&client, &reference(registry, "team/app")).map(|(_, blobs)| blobs.len());
    result.map_err(|error| error.replace(&registry.host(), "HOST"))
}

#[track_caller]
fn check(access: Access, credentials: impl Fn(&str) -> Credentials, expected: Expect) {
    let registry = Registry::start();
    registry.set_access(access);
    expected.assert_eq(&match pull_with(&registry, credentials(&registry.host())) {
        Ok(blobs) => format!("{blobs} blobs, {} requests", registry.requests().len()),
        Err(error) => error,
    });
}

#[test]
fn credentials_are_used_as_the_registry_asks() {
    let nobody = |_: &str| Credentials::none();
    let right = |host: &str| login(host, "hub", "pw");
    let wrong = |host: &str| login(host, "hub", "guess");
    // Without a challenge: the probe, one manifest, two blobs.
    check(Access::Open, right, expect!["2 blobs, 4 requests"]);
    // One more for the challenge, and one for the token.
    check(Access::Basic("hub", "pw"), right, expect!["2 blobs, 5 requests"]);
    check(Access::Token(None), nobody, expect!["2 blobs, 6 requests"]);
    check(Access::Token(Some(("hub", "pw"))), right, expect!["2 blobs, 6 requests"]);
    check(
        Access::Basic("hub", "pw"),
        nobody,
        expect![
            "`HOST` refuses `team/app` without a login (status 401; it may also not exist) — UNAUTHORIZED: authentication required"
        ],
    );
    check(
        Access::Basic("hub", "pw"),
        wrong,
        expect![
            "`HOST` refuses `team/app` to `hub` (status 401; it may also not exist) — UNAUTHORIZED: authentication required"
        ],
    );
    check(
        Access::Token(Some(("hub", "pw"))),
        nobody,
        expect![
            "`HOST` asks for a token that cannot be had: `HOST` refuses `team/app` without a login (status 401; it may also not exist) — incorrect username or password"
        ],
    );
    check(
        Access::Token(Some(("hub", "pw"))),
        wrong,
        expect![
            "`HOST` asks for a token that cannot be had: `HOST` refuses `team/app` to `hub` (status 401; it may also not exist) — incorrect username or password"
        ],
    );
}

#[test]
fn what_is_missing_and_what_is_refused_are_told_apart() {
    let registry = Registry::start();
    let client = setup().client().0;
    let error = |name: &str| {
        pull(&client, &reference(&registry, name)).unwrap_err().replace(&registry.host(), "HOST")
    };
    expect!["`HOST` has no tag `v1` in `nosuch`, or does not show it without a login — MANIFEST_UNKNOWN: unknown to the test registry"].assert_eq(&error("nosuch:v1"));
    registry.on("/v2/secret/", |_, exchange| {
        exchange.respond(
            403,
            &[],
            br#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#,
        )
    });
    expect!["`HOST` refuses `secret` without a login (status 403; it may also not exist) — DENIED: requested access is denied"].assert_eq(&error("secret:v1"));
}

#[test]
fn no_secret_is_sent_before_it_is_asked_for() {
    let registry = Registry::start();
    registry.set_access(Access::Basic("hub", "pw"));
    pull_with(&registry, login(&registry.host(), "hub", "pw")).unwrap();
    let sent: Vec<bool> = registry.requests().iter().map(|s| s.header("authorization").is_some()).collect();
    assert_eq!(sent, [false, false, true, true, true]);
}

#[test]
fn a_token_that_expired_is_replaced() {
    let registry = Registry::start();
    registry.set_access(Access::Token(None));
    registry.on("/v2/team/app/blobs/", |seen, exchange| match seen.earlier {
        0 => {
            let realm = format!("Bearer realm=\"http://{}/token\"", seen.header("host").unwrap());
            exchange.respond(401, &[("WWW-Authenticate", &realm)], b"")
        }
        _ => exchange.serve(),
    });
    assert_eq!(pull_with(&registry, Credentials::none()), Ok(2));
    assert_eq!(registry.count("/token"), 3);
}

#[test]
fn a_refresh_token_is_exchanged_by_post() {
    let registry = Registry::start();
    registry.set_access(Access::Token(None));
    registry.on("/token", |seen, exchange| {
        let form = String::from_utf8_lossy(&seen.body).into_owned();
        let expected = "service=testkit&scope=repository%3Ateam%2Fapp%3Apull&grant_type=refresh_token\
                        &client_id=rbuild&refresh_token=r%2Ft%3D";
        match (seen.method.as_str(), form == expected) {
            ("POST", true) => {
                let token = testkit::registry::digest(b"repository:team/app:pull").replace(':', ".");
                exchange.respond(200, &[], format!("{{\"access_token\":\"{token}\"}}").as_bytes())
            }
            _ => exchange.respond(400, &[], form.as_bytes()),
        }
    });
    let file = format!(r#"{{"auths": {{"{}": {{"identitytoken": "r/t="}}}}}}"#, registry.host());
    assert_eq!(pull_with(&registry, Credentials::parse(file.as_bytes()).unwrap()), Ok(2));
}

#[test]
fn a_registry_token_is_sent_as_it_is() {
    let registry = Registry::start();
    registry.set_access(Access::Token(None));
    let token = testkit::registry::digest(b"repository:team/app:pull").replace(':', ".");
    let file = format!(r#"{{"auths": {{"{}": {{"registrytoken": "{token}"}}}}}}"#, registry.host());
    assert_eq!(pull_with(&registry, Credentials::parse(file.as_bytes()).unwrap()), Ok(2));
    assert_eq!(registry.count("/token"), 0);
}

#[test]
fn a_failing_token_server_is_asked_again() {
    let registry = Registry::start();
    registry.set_access(Access::Token(None));
    registry.on("/token", |seen, exchange| match seen.earlier {
        0 => exchange.respond(503, &[], b""),
        1 => Ok(()),
        _ => exchange.serve(),
    });
    assert_eq!(pull_with(&registry, Credentials::none()), Ok(2));
    assert_eq!(registry.count("/token"), 3);
}

#[test]
fn the_scope_is_ours_whatever_the_challenge_asks() {
    let registry = Registry::start();
    registry.set_access(Access::Token(None));
    registry.on("/v2/team/app/manifests/", |seen, exchange| {
        if seen.header("authorization").is_some() {
            return exchange.serve();
        }
        let host = seen.header("host").unwrap();
        let challenge =
            format!("Bearer realm=\"http://{host}/token\",scope=\"repository:other:pull,push,delete\"");
        exchange.respond(401, &[("WWW-Authenticate", &challenge)], b"")
    });
    assert_eq!(pull_with(&registry, Credentials::none()), Ok(2));
    let token = registry.requests().into_iter().find(|seen| seen.path == "/token").unwrap();
    assert_eq!(token.query, "scope=repository%3Ateam%2Fapp%3Apull");
}

const NO_TOKEN: &str = "`127.0.0.1:OWN` asks for a token that cannot be had: ";

/// What comes of a challenge that names `realm`, and whether anybody got the password.
#[track_caller]
fn check_realm(realm: &'static str, expected: Expect) {
    let (registry, other) = (Registry::start(), Registry::start());
    let realm =
        realm.replace("OTHER", &other.port().to_string()).replace("OWN", &registry.port().to_string());
    registry.on("/v2/team/", move |_, exchange| {
        exchange.respond(401, &[("WWW-Authenticate", &format!("Bearer realm=\"{realm}\""))], b"")
    });
    let names = Zone::new(&[("auth.test", &[Reach::Loopback])]);
    let setup = Setup { credentials: login(&registry.host(), "hub", "pw"), names, ..setup() };
    let error = pull(&setup.client().0, &reference(&registry, "team/app")).unwrap_err();
    let error =
        error.replace(&registry.port().to_string(), "OWN").replace(&other.port().to_string(), "OTHER");
    let told = other.requests().iter().any(|seen| seen.header("authorization").is_some());
    let error = error.strip_prefix(NO_TOKEN).unwrap_or(&error);
    expected.assert_eq(&format!("{error}{}", if told { " (told the other)" } else { "" }));
}

#[test]
fn credentials_do_not_go_to_realms_without_protection() {
    check_realm(
        "http://auth.test:OTHER/token",
        expect!["its token realm may not be used: `http://auth.test:OTHER/token` is not protected by TLS"],
    );
    check_realm(
        "file:///etc/passwd",
        expect!["its token realm may not be used: `file:///etc/passwd` is neither https nor http"],
    );
    check_realm(
        "gopher://auth.test/",
        expect!["its token realm may not be used: `gopher://auth.test/` is neither https nor http"],
    );
    check_realm(
        "https://hub:pw@auth.test/",
        expect!["its token realm may not be used: `…@auth.test/` has a user name in it"],
    );
    check_realm("/token", expect!["its token realm may not be used: `/token` is not an address"]);
    check_realm(
        "http://127.0.0.1:OWN/x\r\nHost: y",
        expect!["`127.0.0.1:OWN` answered with status 404 — MANIFEST_UNKNOWN: unknown to the test registry"],
    );
}

#[test]
fn a_registry_that_never_stops_asking_gets_two_requests() {
    let (registry, names) = (Registry::start(), Zone::new(&[]));
    registry.on("/v2/team/", |seen, exchange| {
        let host = seen.header("host").unwrap();
        let realm = format!("Bearer realm=\"http://{host}/token/{}\"", seen.earlier);
        exchange.respond(401, &[("WWW-Authenticate", &realm)], b"")
    });
    registry.on("/token", |_, exchange| exchange.respond(200, &[], br#"{"token":"t"}"#));
    let setup = Setup { names, ..setup() };
    let error = pull(&setup.client().0, &reference(&registry, "team/app")).unwrap_err();
    expect!["`HOST` refuses `team/app` without a login (status 401; it may also not exist)"]
        .assert_eq(&error.replace(&registry.host(), "HOST"));
    assert_eq!((registry.count("/v2/team/"), registry.count("/token")), (2, 1));
}

/// What comes of a token server's answer.
#[track_caller]
fn check_token(answer: &'static [u8], expected: Expect) {
    let registry = Registry::start();
    registry.set_access(Access::Token(None));
    registry.on("/token", move |_, exchange| exchange.respond(200, &[], answer));
    let error = pull_with(&registry, Credentials::none()).unwrap_err();
    let error = error.strip_prefix("`HOST` asks for a token that cannot be had: ").unwrap();
    expected.assert_eq(error.split(" at line ").next().unwrap());
}

#[test]
fn unusable_tokens_are_refused() {
    check_token(b"{}", expect!["the answer of `HOST` has no usable token in it"]);
    check_token(br#"{"token":""}"#, expect!["the answer of `HOST` has no usable token in it"]);
    check_token(
        b"{\"token\":\"a\\r\\nX-Evil: 1\"}",
        expect!["the answer of `HOST` has no usable token in it"],
    );
    check_token(b"<html>", expect!["the answer of `HOST` is not a token: expected value"]);
    check_token(&[b'x'; 100_000], expect!["`HOST` sent a token of more than 65536 bytes"]);
}

#[test]
fn unknown_challenges_are_named() {
    let registry = Registry::start();
    registry
        .on("/v2/team/", |_, exchange| exchange.respond(401, &[("WWW-Authenticate", "Negotiate YIIx")], b""));
    expect!["`HOST` asks for a token that cannot be had: its challenge `Negotiate YIIx` is neither Basic nor a Bearer challenge with a realm"].assert_eq(&pull_with(&registry, Credentials::none()).unwrap_err());
}

#[test]
fn the_test_registry_encodes_as_everybody_does() {
    assert_eq!(basic("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
}
