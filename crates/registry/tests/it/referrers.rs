//! What refers to an image.

use expect_test::{Expect, expect};
use oci::Digest;
use serde_json::{Value, json};
use testkit::registry::{INDEX, Registry};

use crate::world::{chain, client, reference};

fn entry(name: &str) -> Value {
    let digest = Digest::of(name).to_string();
    json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1, "annotations": {"name": name} })
}

fn list(names: &[&str]) -> Vec<u8> {
    let entries: Vec<Value> = names.iter().map(|name| entry(name)).collect();
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }).to_string().into_bytes()
}

#[track_caller]
fn check(registry: &Registry, expected: Expect) {
    let found = client().referrers(&reference(registry, "a"), &Digest::of("subject"));
    let shown = match found {
        Ok(found) => {
            let names = found.iter().map(|entry| entry.annotations().as_ref().unwrap()["name"].clone());
            names.collect::<Vec<_>>().join(" ")
        }
        Err(error) => chain(&error).replace(&registry.host(), "HOST"),
    };
    expected.assert_eq(&shown);
}

#[test]
fn all_pages_of_a_registrys_list_are_asked_for() {
    let registry = Registry::start();
    registry.on("/v2/a/referrers/", |seen, exchange| {
        let link = ("Link", "<?page=2>; rel=\"next\"");
        match seen.query.as_str() {
            "" => exchange.respond(200, &[link], &list(&["one", "two"])),
            _ => exchange.respond(200, &[], &list(&["three"])),
        }
    });
    check(&registry, expect!["one two three"]);
}

#[test]
fn a_registry_without_lists_has_a_tag_or_nothing() {
    let registry = Registry::start();
    check(&registry, expect![""]);
    let tag = Digest::of("subject").to_string().replace(':', "-");
    registry.on(&format!("/v2/a/manifests/{tag}"), |_, exchange| {
        exchange.respond(200, &[("Content-Type", INDEX)], &list(&["one"]))
    });
    check(&registry, expect!["one"]);
}

#[test]
fn what_is_no_list_of_referrers_is_refused() {
    let registry = Registry::start();
    registry.on("/v2/a/referrers/", |_, exchange| exchange.respond(200, &[], b"<html>"));
    check(
        &registry,
        expect!["`HOST` does not answer with a list of referrers: expected value at line 1 column 1"],
    );
    registry.on("/v2/a/referrers/", |seen, exchange| {
        // Without end.
        let link = format!("<?page={}>; rel=\"next\"", seen.earlier);
        let names: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        exchange.respond(
            200,
            &[("Link", &link)],
            &list(&names.iter().map(String::as_str).collect::<Vec<_>>()),
        )
    });
    check(&registry, expect!["`HOST` lists more than 100000 referrers"]);
    registry.on("/v2/a/referrers/", |_, exchange| {
        exchange.respond(200, &[("Link", "<http://elsewhere.test/>; rel=\"next\"")], &list(&["one"]))
    });
    check(
        &registry,
        expect![
            "`HOST` redirects to where it may not: `http://elsewhere.test/` is another host's, and is no part of the answer"
        ],
    );
    registry.on("/v2/a/referrers/", |_, exchange| exchange.respond(403, &[], b""));
    check(&registry, expect!["`HOST` refuses `a` without a login (status 403; it may also not exist)"]);
}
