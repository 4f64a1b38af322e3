use expect_test::{Expect, expect};

use super::*;

/// Where a name leads, one place a line: `mirror` or `registry`, the name there, `insecure`, and the files that say so.
fn shown(hosts: &Hosts, name: &str, purpose: Purpose) -> String {
    let route = match hosts.route(&Reference::parse(name).unwrap(), purpose) {
        Ok(route) => route,
        Err(error) => return format!("`{name}` {error}\n"),
    };
    let line = |role: &str, endpoint: &Endpoint| {
        let insecure = if endpoint.is_insecure { " insecure" } else { "" };
        let because: String = endpoint.because.iter().map(|path| format!(" {}", path.display())).collect();
        format!("{role} {}{insecure}{because}\n", endpoint.reference)
    };
    let mirrors: String = route.mirrors.iter().map(|mirror| line("mirror", mirror)).collect();
    mirrors + &line("registry", &route.registry)
}

fn conf(text: &str) -> Hosts {
    let mut hosts = Hosts::none();
    hosts.add_registries_conf(Path::new("conf"), text).unwrap();
    hosts
}

#[track_caller]
fn check(text: &str, name: &str, expected: Expect) {
    expected.assert_eq(&shown(&conf(text), name, Purpose::Pull));
}

const MIRRORED: &str = r#"
unqualified-search-registries = ["quay.io"]

[[registry]]
prefix = "docker.io"

[[registry.mirror]]
location = "mirror.lan:5000/hub/"
insecure = true

[[registry.mirror]]
location = "digests.lan"
pull-from-mirror = "digest-only"

[[registry.mirror]]
location = "tags.lan"
pull-from-mirror = "tag-only"
"#;

#[test]
fn without_configuration_a_name_is_where_it_leads() {
    check("", "alpine", expect!["registry docker.io/library/alpine:latest\n"]);
    check("", "a.test:5000/b", expect!["registry a.test:5000/b:latest\n"]);
}

#[test]
fn mirrors_come_first_and_only_for_what_they_are_for() {
    check(
        MIRRORED,
        "alpine:3",
        expect![[r"
        mirror mirror.lan:5000/hub/library/alpine:3 insecure conf
        mirror tags.lan/library/alpine:3 conf
        registry docker.io/library/alpine:3
    "]],
    );
    let name = format!("alpine@sha256:{}", "a".repeat(64));
    check(
        MIRRORED,
        &name,
        expect![[r"
        mirror mirror.lan:5000/hub/library/alpine@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa insecure conf
        mirror digests.lan/library/alpine@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa conf
        registry docker.io/library/alpine@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    "]],
    );
    check(MIRRORED, "quay.io/a/b", expect!["registry quay.io/a/b:latest\n"]);
    expect!["registry docker.io/library/alpine:3\n"].assert_eq(&shown(
        &conf(MIRRORED),
        "alpine:3",
        Purpose::Push,
    ));
}

#[test]
fn the_longest_prefix_counts_and_ends_where_a_part_does() {
    let text = r#"
        [[registry]]
        location = "a.test"
        insecure = true
        [[registry]]
        prefix = "a.test/team"
        location = "b.test/other"
        [[registry]]
        prefix = "a.test/team/secret"
        blocked = true
        [[registry]]
        prefix = "*.c.test"
        location = "d.test:5000"
    "#;
    check(text, "a.test/x", expect!["registry a.test/x:latest insecure conf\n"]);
    check(text, "a.test/team/x:1", expect!["registry b.test/other/x:1 conf\n"]);
    expect!["registry a.test/team/x:1\n"].assert_eq(&shown(&conf(text), "a.test/team/x:1", Purpose::LogIn));
    check(text, "a.test/teams/x", expect!["registry a.test/teams/x:latest insecure conf\n"]);
    check(text, "a.test/team/secret/x", expect!["`a.test/team/secret/x` is blocked by `conf`\n"]);
    check(text, "a.test:5000/team/x", expect!["registry a.test:5000/team/x:latest\n"]);
    check(text, "x.c.test/y", expect!["registry d.test:5000/y:latest conf\n"]);
    check(text, "x.c.test:80/y", expect!["registry d.test:5000/y:latest conf\n"]);
    check(text, "c.test/y", expect!["registry c.test/y:latest\n"]);
}

#[test]
fn a_mirror_for_digests_only_may_be_said_of_all() {
    let text = r#"
        [[registry]]
        location = "a.test"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "b.test"
    "#;
    check(text, "a.test/x", expect!["registry a.test/x:latest\n"]);
}

#[test]
fn a_slash_at_an_end_means_nothing_and_an_address_is_refused() {
    check(
        "[[registry]]\nprefix = \"a.test/b/\"\nblocked = true",
        "a.test/b/c",
        expect!["`a.test/b/c` is blocked by `conf`\n"],
    );
    let address = "[[registry]]\nlocation = \"https://a.test\"";
    let error = Hosts::none().add_registries_conf(Path::new("conf"), address).unwrap_err();
    expect!["cannot use `conf`: `https://a.test` is an address, not a host or the beginning of a name"]
        .assert_eq(&error.to_string());
    let named = br#"{"registry-mirrors": ["https://me:secret@m.test"]}"#;
    let error = Hosts::none().add_daemon_json(Path::new("d"), named).unwrap_err();
    expect!["cannot use `d`: a mirror has a user name in it: log in with `rbuild login` instead"]
        .assert_eq(&error.to_string());
    Hosts::none().add_daemon_json(Path::new("d"), b"\n").unwrap();
}

#[test]
fn a_host_of_one_word_is_one() {
    let mut hosts = Hosts::none();
    hosts
        .add_daemon_json(Path::new("d"), br#"{"registry-mirrors": ["http://mirror", "http://no mirror"]}"#)
        .unwrap();
    expect![[r#"
        mirror mirror/library/alpine:latest insecure d
        registry docker.io/library/alpine:latest
    "#]]
    .assert_eq(&shown(&hosts, "alpine", Purpose::Pull));
    check(
        "[[registry]]\nprefix = \"a.test\"\nlocation = \"b\"",
        "a.test/x",
        expect![[r#"
        registry b/x:latest conf
    "#]],
    );
}

#[test]
fn a_location_that_is_no_host_is_not_taken_for_a_name_of_docker_hub() {
    let text = "[[registry]]\nprefix = \"a.test\"\nlocation = \"A B\"";
    check(text, "a.test/x", expect!["`a.test/x` would be `A B/x` by `conf`, which is no name\n"]);
}

#[test]
fn a_drop_in_replaces_the_rule_of_its_prefix() {
    let mut hosts = conf("[[registry]]\nlocation = \"a.test\"\nblocked = true");
    hosts
        .add_registries_conf(Path::new("drop-in"), "[[registry]]\nlocation = \"a.test\"\ninsecure = true")
        .unwrap();
    expect!["registry a.test/x:latest insecure drop-in\n"].assert_eq(&shown(
        &hosts,
        "a.test/x",
        Purpose::Pull,
    ));
}

#[test]
fn dockers_daemon_has_mirrors_of_docker_hub() {
    let mut hosts = Hosts::none();
    let text = br#"{"registry-mirrors": ["https://m.test/", "http://n.test:5000"],
        "insecure-registries": ["a.test:1", "b.test:5000", "10.0.0.0/8", "http://c.test/"], "log-driver": "none"}"#;
    hosts.add_daemon_json(Path::new("daemon.json"), text).unwrap();
    let all: String = ["alpine", "a.test:1/x", "b.test/x", "b.test:5000/x", "10.1.2.3:5000/x", "c.test/x"]
        .map(|name| shown(&hosts, name, Purpose::Pull))
        .concat();
    expect![[r"
        mirror m.test/library/alpine:latest daemon.json
        mirror n.test:5000/library/alpine:latest insecure daemon.json
        registry docker.io/library/alpine:latest
        registry a.test:1/x:latest insecure daemon.json
        registry b.test/x:latest
        registry b.test:5000/x:latest insecure daemon.json
        registry 10.1.2.3:5000/x:latest insecure daemon.json
        registry c.test/x:latest insecure daemon.json
    "]]
    .assert_eq(&all);
}

#[test]
fn the_command_line_has_the_last_word_about_tls() {
    let mut hosts = conf(MIRRORED);
    hosts.set_verify(true);
    assert!(!shown(&hosts, "alpine", Purpose::Pull).contains("insecure"));
    hosts.set_verify(false);
    expect!["registry quay.io/x:latest insecure\n"].assert_eq(&shown(&hosts, "quay.io/x", Purpose::Pull));
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_the_line() {
    let error =
        |text: &str| Hosts::none().add_registries_conf(Path::new("conf"), text).unwrap_err().to_string();
    expect!["cannot use `conf`, line 3: invalid type: string \"yes\", expected a boolean"]
        .assert_eq(&error("[[registry]]\nlocation = \"a\"\ninsecure = \"yes\"\n"));
    expect!["cannot use `conf`: a `[[registry]]` has neither `prefix` nor `location`"]
        .assert_eq(&error("[[registry]]\n"));
    let error = |text: &[u8]| Hosts::none().add_daemon_json(Path::new("d"), text).unwrap_err().to_string();
    expect!["cannot use `d`: the mirror `m.test` is no address: it has no scheme"]
        .assert_eq(&error(br#"{"registry-mirrors": ["m.test"]}"#));
    expect!["cannot use `d`, line 1: EOF while parsing an object at line 1 column 1"].assert_eq(&error(b"{"));
}
