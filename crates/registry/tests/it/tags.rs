//! The tags of a repository.

use expect_test::expect;
use oci::Reference;
use testkit::registry::{Access, Registry};

use crate::world::{Setup, chain, client, limits, reference, setup};

fn tags(client: &registry::Client, reference: &Reference) -> Result<Vec<String>, String> {
    let found = client.tags(reference).map_err(|error| chain(&error))?;
    Ok(found.iter().map(|tag| tag.tag().unwrap().to_owned()).collect())
}

fn with_tags() -> Registry {
    let registry = Registry::start();
    let digest = registry.add_blob("{}");
    ["a", "b", "c", "d", "e"].iter().for_each(|tag| registry.tag("team/app", tag, &digest));
    registry.tag("team/other", "x", &digest);
    registry
}

#[test]
fn all_pages_of_a_list_are_asked_for() {
    let registry = with_tags();
    registry.set_access(Access::Token(None));
    let found = tags(&client(), &reference(&registry, "team/app")).unwrap();
    assert_eq!(found, ["a", "b", "c", "d", "e"]);
    assert_eq!(tags(&client(), &reference(&registry, "team/nothing")).unwrap(), [""; 0]);
}

#[test]
fn what_is_no_list_of_tags_is_refused() {
    let registry = with_tags();
    let app = reference(&registry, "team/app");
    registry.on("/v2/team/app/tags/list", |seen, exchange| match seen.earlier {
        0 => exchange.respond(200, &[], b"<html>"),
        1 => exchange.respond(200, &[], br#"{"tags":["../x"]}"#),
        2 => exchange.respond(200, &[("Link", "<http://elsewhere.test/>; rel=next")], br#"{"tags":["a"]}"#),
        3 => exchange.respond(200, &[], br#"{"name":"team/app","tags":null}"#),
        // A list that never ends.
        _ => exchange.respond(200, &[("Link", "<?again>; rel=\"next\"")], br#"{"tags":["a","b","c"]}"#),
    });
    let few = Setup { limits: registry::Limits { tags: 10, ..limits() }, ..setup() }.client().0;
    let mut said = String::new();
    for _ in 0..5 {
        let found = tags(&few, &app).map(|tags| format!("{tags:?}"));
        said += &found.unwrap_or_else(|error| error).replace(&registry.host(), "HOST");
        said += "\n";
    }
    expect![[r#"
        `HOST` does not answer with a list of tags: expected value at line 1 column 1
        `HOST` lists a tag that is none: `../x` is not a tag: up to 128 letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`
        `HOST` redirects to where it may not: `http://elsewhere.test/` is another host's, and is no part of the answer
        []
        ["a", "b", "c", "a", "b", "c"]
    "#]].assert_eq(&said);
}
