//! `copy`, `manifest` and `search`: images that stay at registries.

use expect_test::{Expect, expect};
use serde_json::{Value, json};
use testkit::registry::{INDEX, Registry};

use crate::world::{World, check_code, stdout};

/// A registry with `app`, an index of two images that share a layer; and the digests of all three.
struct Origin {
    registry: Registry,
    amd64: String,
    arm64: String,
    index: String,
}

fn origin() -> Origin {
    let registry = Registry::start();
    let amd64 = registry.add_image("app", "amd64", "linux/amd64", &[&[0; 100_000], &[1; 1000]]);
    let arm64 = registry.add_image("app", "arm64", "linux/arm64", &[&[0; 100_000], &[2; 1000]]);
    let entries = [(&*amd64, "linux/amd64"), (&*arm64, "linux/arm64")];
    let index = registry.add_index("app", "latest", &entries);
    Origin { registry, amd64, arm64, index }
}

fn count(registry: &Registry, method: &str) -> usize {
    registry.requests().iter().filter(|seen| seen.method == method).count()
}

#[test]
fn an_index_is_copied_with_all_it_has_and_every_digest() {
    let (origin, there, world) = (origin(), Registry::start(), World::new());
    let (from, to) = (origin.registry.reference("app"), there.reference("team/app:1"));
    let copy = || {
        let mut rbuild = world.rbuild();
        rbuild.args(["copy", &from, &to]);
        rbuild
    };
    let said = check_code(&mut copy(), 0);
    assert!(said.contains(&format!("{}@{}", there.reference("team/app"), origin.index)), "{said}");
    assert!(said.contains("layer") && said.contains("copied to"), "{said}");
    // Two configs, and of the layers the common one once.
    assert_eq!(count(&there, "POST"), 5);
    for digest in [&origin.index, &origin.amd64, &origin.arm64] {
        let name = format!("{}@{digest}", there.reference("team/app"));
        let raw = stdout(world.rbuild().args(["manifest", "inspect", "--raw", &name]));
        assert_eq!(testkit::registry::digest(raw.as_bytes()), *digest);
    }
    check_code(&mut copy(), 0);
    assert_eq!(count(&there, "POST"), 5, "what is there is not sent again");
    assert!(
        !world.store().exists() || world.store().join("blobs/sha256").read_dir().unwrap().next().is_none()
    );
}

#[test]
fn one_platform_may_be_copied_alone_and_quietly() {
    let (origin, there, world) = (origin(), Registry::start(), World::new());
    let (from, to) = (origin.registry.reference("app"), there.reference("app:arm"));
    let said = check_code(world.rbuild().args(["copy", "-q", "--platform=linux/arm64", &from, &to]), 0);
    assert_eq!(said, format!("{}@{}\n", there.reference("app"), origin.arm64));
    assert_eq!(there.count(&format!("/v2/app/manifests/{}", origin.amd64)), 0);
    let said = check_code(world.rbuild().args(["copy", "--platform=linux/s390x", &from, &to]), 3);
    assert!(said.contains("has no image for linux/s390x"), "{said}");
}

#[test]
fn within_a_registry_blobs_are_taken_over() {
    let (origin, there, world) = (origin(), Registry::start(), World::new());
    let (from, built) = (origin.registry.reference("app"), there.reference("built/app"));
    check_code(world.rbuild().args(["copy", &from, &built]), 0);
    let before = there.requests().len();
    check_code(world.rbuild().args(["copy", &built, &there.reference("released/app:1")]), 0);
    let since = there.requests().split_off(before);
    let queries: Vec<_> = since.iter().filter(|seen| seen.method == "POST").map(|seen| &seen.query).collect();
    assert!(
        queries.len() == 5 && queries.iter().all(|query| query.contains("from=built%2Fapp")),
        "{queries:?}"
    );
    assert!(since.iter().all(|seen| seen.method != "PATCH"), "nothing is sent");
}

#[test]
fn a_copy_that_fails_names_nothing_and_says_where() {
    let (origin, there, world) = (origin(), Registry::start(), World::new());
    let to = there.reference("app:1");
    let said = check_code(world.rbuild().args(["copy", &origin.registry.reference("none"), &to]), 3);
    assert!(said.contains("cannot copy `") && said.contains("has no tag `latest` in `none`"), "{said}");
    origin.registry.add_image("more", "latest", "linux/amd64", &[&[5; 1000]]);
    let layer = testkit::registry::digest(&[1; 1000]);
    origin.registry.on(&format!("/v2/app/blobs/{layer}"), |_, exchange| exchange.respond(404, &[], b""));
    check_code(world.rbuild().args(["copy", &origin.registry.reference("app"), &to]), 3);
    there.on("/v2/app/blobs/uploads/", |_, exchange| exchange.respond(403, &[], b""));
    let said = check_code(world.rbuild().args(["copy", &origin.registry.reference("more"), &to]), 3);
    assert!(said.contains(&format!("cannot copy to `{to}`")), "{said}");
    assert_eq!(there.count("/v2/app/manifests/"), 0, "no manifest was put");
    let digest = format!("{to}@{}", origin.index);
    check_code(world.rbuild().args(["copy", &origin.registry.reference("app"), &digest]), 2);
}

/// Adds something to the registry that refers to `subject`, and gives its digest and how it would be listed.
fn add_referrer(registry: &Registry, subject: &str, note: &str) -> (String, Value) {
    let config = registry.add_blob("{}");
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type, "artifactType": "text/note",
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2 },
        "layers": [{ "mediaType": "text/plain", "digest": registry.add_blob(note), "size": note.len() }],
        "subject": { "mediaType": media_type, "digest": subject, "size": 1 },
    })
    .to_string();
    let digest = registry.add_blob(manifest.clone());
    let entry = json!({
        "mediaType": media_type, "digest": digest, "size": manifest.len(), "artifactType": "text/note",
        "annotations": { "note": note },
    });
    (digest, entry)
}

fn list_of(entries: &[&Value]) -> String {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }).to_string()
}

#[test]
fn what_refers_to_an_image_goes_with_it_if_it_is_asked_for() {
    let (origin, there, world) = (origin(), Registry::start(), World::new());
    let (note, note_entry) = add_referrer(&origin.registry, &origin.amd64, "a note");
    let (note_on_note, on_note_entry) = add_referrer(&origin.registry, &note, "a note on a note");
    // The registry lies: the notes refer to each other.
    for (subject, entries) in [
        (&origin.amd64, vec![&note_entry]),
        (&note, vec![&on_note_entry]),
        (&note_on_note, vec![&note_entry]),
    ] {
        let list = list_of(&entries);
        origin.registry.on(&format!("/v2/app/referrers/{subject}"), move |_, exchange| {
            exchange.respond(200, &[("Content-Type", INDEX)], list.as_bytes())
        });
    }
    let (from, to) = (origin.registry.reference("app"), there.reference("app"));
    check_code(world.rbuild().args(["copy", &from, &to]), 0);
    assert_eq!(there.count(&format!("/v2/app/manifests/{note}")), 0);
    check_code(world.rbuild().args(["copy", "--referrers", &from, &to]), 0);
    let raw = |name: &str| stdout(world.rbuild().args(["manifest", "inspect", "--raw", name]));
    for digest in [&note, &note_on_note] {
        assert_eq!(testkit::registry::digest(raw(&format!("{to}@{digest}")).as_bytes()), *digest);
    }
    // This one keeps no lists, so there are tags.
    let listed = raw(&there.reference(&format!("app:{}", origin.amd64.replace(':', "-"))));
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap()["manifests"], json!([note_entry]));
    // From there they are found again, for a registry that keeps lists.
    let third = Registry::start();
    third.on("/v2/app/manifests/sha256:", |seen, exchange| match seen.method.as_str() {
        "PUT" => exchange.respond(201, &[("OCI-Subject", "sha256:…")], b""),
        _ => exchange.serve(),
    });
    check_code(world.rbuild().args(["copy", "--referrers", &to, &third.reference("app")]), 0);
    assert_eq!(third.count(&format!("/v2/app/manifests/{note_on_note}")), 1);
    assert_eq!(third.count("/v2/app/manifests/sha256-"), 0);
    // A mirror's older list is not taken for the registry's.
    let mirror = Registry::start();
    mirror.on("/v2/app/manifests/sha256-", |_, exchange| {
        exchange.respond(200, &[("Content-Type", INDEX)], list_of(&[]).as_bytes())
    });
    let conf = format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}\"\n",
        there.host(),
        mirror.host()
    );
    crate::world::write_files(&world.path(".config/containers"), &[("registries.conf", &conf)]);
    // Once more: the list is what it was.
    check_code(world.rbuild().args(["copy", "--referrers", &from, &to]), 0);
    let list = there.reference(&format!("app:{}", origin.amd64.replace(':', "-")));
    assert_eq!(stdout(World::new().rbuild().args(["manifest", "inspect", "--raw", &list])), listed);
}

#[test]
fn a_list_is_made_of_images_of_several_repositories() {
    let (origin, there, world) = (origin(), Registry::start(), World::new());
    let other = origin.registry.add_image("other", "latest", "linux/s390x", &[&[3; 1000]]);
    for name in ["app:arm64", "other"] {
        stdout(world.rbuild().args(["copy", &origin.registry.reference(name), &there.reference(name)]));
    }
    let list = there.reference("list:1");
    let manifest = |args: &[&str]| {
        let mut rbuild = world.rbuild();
        rbuild.arg("manifest").args(args);
        rbuild
    };
    let (arm64, s390x) = (there.reference("app:arm64"), there.reference("other"));
    let created = stdout(&mut manifest(&["create", &list, &arm64]));
    assert_eq!(created, format!("Created manifest list {list}\n"));
    let said = check_code(&mut manifest(&["create", &list, &s390x]), 2);
    assert!(said.contains("there is a list") && said.contains("--amend"), "{said}");
    stdout(&mut manifest(&["create", "--amend", &list, &s390x]));
    // Again: it is there.
    stdout(&mut manifest(&["create", "-a", &list, &s390x]));
    let flags = ["--os=windows", "--arch=mips", "--variant=v9", "--os-version=1.2", "--os-features=a,b"];
    let annotate = [&["annotate"][..], &flags, &["--annotation=note=x=y", &list, &s390x]].concat();
    stdout(&mut manifest(&annotate));
    let said = check_code(&mut manifest(&["annotate", "--os=linux", &list, "nowhere.test/x"]), 2);
    assert!(said.contains("`nowhere.test/x:latest` is not in the list"), "{said}");
    let shown = stdout(&mut manifest(&["inspect", &list]));
    expect![[r#"
        {
          "schemaVersion": 2,
          "mediaType": "application/vnd.oci.image.index.v1+json",
          "manifests": [
            {
              "mediaType": "application/vnd.oci.image.manifest.v1+json",
              "digest": "ARM64",
              "size": 549,
              "platform": {
                "architecture": "arm64",
                "os": "linux"
              }
            },
            {
              "mediaType": "application/vnd.oci.image.manifest.v1+json",
              "digest": "OTHER",
              "size": 397,
              "platform": {
                "architecture": "mips",
                "os": "windows",
                "variant": "v9",
                "os.version": "1.2",
                "os.features": [
                  "a",
                  "b"
                ]
              },
              "annotations": {
                "note": "x=y"
              }
            }
          ]
        }
    "#]]
    .assert_eq(&shown.replace(&origin.arm64, "ARM64").replace(&other, "OTHER"));
    let pushed = stdout(&mut manifest(&["push", "-q", &list]));
    let raw = stdout(&mut manifest(&["inspect", "--raw", &list]));
    let digest = testkit::registry::digest(raw.as_bytes());
    assert_eq!(pushed, format!("{}@{digest}\n", there.reference("list")));
    // Purged here, it is the registry's that is shown.
    let elsewhere = there.reference("list:2");
    stdout(&mut manifest(&["push", "--purge", &list, &elsewhere]));
    check_code(&mut manifest(&["rm", &list]), 2);
    assert_eq!(stdout(&mut manifest(&["inspect", "--raw", &elsewhere])), raw);
    let accepted = there.requests().into_iter().rev().find(|seen| seen.method == "PUT").unwrap();
    assert_eq!(
        (accepted.path.as_str(), accepted.header("content-type")),
        ("/v2/list/manifests/2", Some(INDEX))
    );
    let of_list = format!("{}@{}", there.reference("list"), origin.arm64);
    assert_eq!(
        testkit::registry::digest(stdout(&mut manifest(&["inspect", "--raw", &of_list])).as_bytes()),
        origin.arm64
    );
    world.assert_sound();
}

#[test]
fn a_list_of_an_index_has_what_the_index_has_and_can_be_removed() {
    let (origin, world) = (origin(), World::new());
    let (list, app) = ("a.test/list", origin.registry.reference("app"));
    stdout(world.rbuild().args(["manifest", "create", list, &app]));
    let shown = stdout(world.rbuild().args(["manifest", "inspect", list]));
    assert!(shown.contains(&origin.amd64) && shown.contains(&origin.arm64), "{shown}");
    let said = check_code(world.rbuild().args(["manifest", "annotate", "--arch=mips", list, &app]), 2);
    assert!(said.contains("several images in the list") && said.contains(&origin.arm64), "{said}");
    let one = format!("{}@{}", origin.registry.reference("app"), origin.arm64);
    stdout(world.rbuild().args(["manifest", "annotate", "--arch=mips", list, &one]));
    let shown = stdout(world.rbuild().args(["manifest", "inspect", list]));
    assert_eq!(shown.matches("mips").count(), 1, "{shown}");
    world.assert_sound();
    assert_eq!(
        stdout(world.rbuild().args(["manifest", "rm", list])),
        "Removed manifest list a.test/list:latest\n"
    );
    let said = check_code(world.rbuild().args(["manifest", "push", list]), 2);
    assert!(said.contains("there is no list `a.test/list:latest`"), "{said}");
}

#[track_caller]
fn check_search(registry: &Registry, args: &[&str], word: &str, expected: Expect) {
    let world = World::new();
    let term = format!("{}/{word}", registry.host());
    let said = check_code(world.rbuild().arg("search").args(args).arg(term), 0);
    expected.assert_eq(&said.replace(&registry.host(), "HOST"));
}

#[test]
fn a_registry_that_searches_is_asked_to() {
    let registry = Registry::start();
    registry.on("/v1/search", |seen, exchange| {
        assert!(seen.query.starts_with("q=web&n="), "{}", seen.query);
        let body = br#"{"results": [
            {"name": "team/web", "description": "A server\u001b[31m of files, with a description that goes on for longer", "star_count": 7, "is_official": true},
            {"name": "web2", "description": null}]}"#;
        exchange.respond(200, &[("Content-Type", "application/json")], body)
    });
    check_search(
        &registry,
        &[],
        "web",
        expect![[r#"
        NAME                      DESCRIPTION                                     STARS  OFFICIAL
        HOST/team/web  A server␛[31m of files, with a description th…  7      [OK]
        HOST/web2                                                      0
    "#]],
    );
    check_search(
        &registry,
        &["--no-trunc", "--filter=stars=5"],
        "web",
        expect![[r#"
        NAME                      DESCRIPTION                                                         STARS  OFFICIAL
        HOST/team/web  A server␛[31m of files, with a description that goes on for longer  7      [OK]
    "#]],
    );
    check_search(
        &registry,
        &["-f", "is-official=false", "--format=json"],
        "web",
        expect![[r#"
        [
          {
            "name": "HOST/web2",
            "description": "",
            "stars": 0,
            "official": false
          }
        ]
    "#]],
    );
    check_search(
        &registry,
        &["--limit=1"],
        "web",
        expect![[r#"
        NAME                      DESCRIPTION                                     STARS  OFFICIAL
        HOST/team/web  A server␛[31m of files, with a description th…  7      [OK]
    "#]],
    );
    let said = check_code(World::new().rbuild().args(["search", "--filter=size=1", "x"]), 2);
    assert!(said.contains("`--filter size=1` is none"), "{said}");
}

#[test]
fn a_registry_that_only_lists_is_looked_through() {
    let registry = Registry::start();
    registry.on("/v1/search", |_, exchange| exchange.respond(404, &[], b"no"));
    registry.on("/v2/_catalog", |seen, exchange| {
        let (body, link): (&[u8], _) = match seen.query.contains("last=") {
            true => (br#"{"repositories": ["team/web", "zoo"]}"#, None),
            false => (
                br#"{"repositories": ["a", "web"]}"#,
                Some(("Link", "</v2/_catalog?n=2&last=web>; rel=\"next\"")),
            ),
        };
        exchange.respond(200, &link.into_iter().collect::<Vec<_>>(), body)
    });
    check_search(
        &registry,
        &[],
        "web",
        expect![[r#"
        NAME                      DESCRIPTION  STARS  OFFICIAL
        HOST/web                    0
        HOST/team/web               0
        HOST does not search: these are of its list of repositories
    "#]],
    );
    registry.on("/v2/_catalog", |seen, exchange| match seen.header("authorization") {
        Some("Bearer t") => exchange.respond(200, &[], br#"{"repositories": ["web"]}"#),
        _ => {
            let realm = format!("Bearer realm=\"http://{}/token\"", seen.header("host").unwrap());
            exchange.respond(401, &[("WWW-Authenticate", &realm)], b"")
        }
    });
    registry.on("/token", |seen, exchange| {
        assert_eq!(seen.query, "scope=registry%3Acatalog%3A%2A");
        exchange.respond(200, &[], br#"{"token": "t"}"#)
    });
    let said = check_code(World::new().rbuild().arg("search").arg(format!("{}/web", registry.host())), 0);
    assert!(said.contains("/web"), "{said}");
    registry.on("/v2/_catalog", |_, exchange| exchange.respond(403, &[], b"no"));
    let said = check_code(World::new().rbuild().arg("search").arg(format!("{}/x", registry.host())), 3);
    assert!(said.contains("neither searches nor lists what it has"), "{said}");
}
