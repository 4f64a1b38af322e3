//! What is configured about registries: files, flags, proxies, and what `registry explain` says of them.

use expect_test::{Expect, expect};
use testkit::Need;
use testkit::proxy::Proxy;
use testkit::registry::{Access, Identity, Registry, authority_pem, client_identity_pem};

use crate::scene::Scene;
use crate::world::{World, check_code, said, write_files};

fn add_image(registry: &Registry) {
    registry.add_image("app", "latest", "linux/amd64", &[&[0; 1024]]);
}

/// A person with files below `~/.config`, and nothing else.
fn world(files: &[(&str, &str)]) -> World {
    let world = World::new();
    write_files(&world.path(".config"), files);
    world
}

fn text(pem: &[u8]) -> &str {
    std::str::from_utf8(pem).expect("PEM is text")
}

#[test]
fn nobody_is_believed_without_proof_unless_the_command_says_so() {
    let registry = Registry::start_tls(Identity::SelfSigned);
    add_image(&registry);
    let (world, name) = (World::new(), registry.reference("app"));
    let refused = check_code(world.rbuild().args(["pull", &name]), 3);
    assert!(refused.contains("offers no TLS connection that can be trusted"), "{refused}");
    assert!(
        refused
            .contains(&format!("--cert-dir DIR` or in `/etc/containers/certs.d/{}/ca.crt", registry.host())),
        "{refused}"
    );
    check_code(world.rbuild().args(["pull", "--tls-verify=false", &name]), 0);
    let refused = check_code(world.rbuild().args(["push", &name]), 3);
    assert!(refused.contains("--cert-dir DIR"), "{refused}");
    check_code(world.rbuild().args(["push", "--tls-verify=false", &name]), 0);
    let login = |flags: &[&str]| {
        let mut rbuild = world.rbuild();
        rbuild.arg("login").args(flags).args(["-u", "me", "-p", "secret", &registry.host()]);
        rbuild
    };
    assert!(check_code(&mut login(&[]), 3).contains("--cert-dir DIR"));
    check_code(&mut login(&["--tls-verify=false"]), 0);
}

#[test]
fn run_and_build_take_the_flag_too() {
    if !testkit::can_run("run_and_build_take_the_flag_too", &[Need::Root]) {
        return;
    }
    let registry = Registry::start_tls(Identity::SelfSigned);
    add_image(&registry);
    let name = registry.reference("app");
    let world = World::new();
    let context = world.path("context");
    write_files(&context, &[("Dockerfile", &format!("FROM {name}\n"))]);
    let said = check_code(world.rbuild().arg("build").arg(&context), 3);
    assert!(said.contains("Dockerfile:1:6") && said.contains("--cert-dir DIR"), "{said}");
    check_code(world.rbuild().args(["build", "--tls-verify=false"]).arg(&context), 0);
    let world = World::new();
    check_code(world.rbuild().args(["run", &name, "x"]), 125);
    // There is nothing in it to run.
    let said = check_code(world.rbuild().args(["run", "--tls-verify=false", &name, "x"]), 127);
    assert!(!said.contains("TLS"), "{said}");
}

#[test]
fn a_registry_on_this_machine_needs_tls_if_it_is_asked_for() {
    let registry = Registry::start();
    add_image(&registry);
    let (world, name) = (World::new(), registry.reference("app"));
    for flag in ["--tls-verify", "--tls-verify=true"] {
        check_code(world.rbuild().args(["pull", flag, &name]), 3);
        assert_eq!(registry.requests().len(), 0, "without TLS nothing is said");
    }
    check_code(world.rbuild().args(["pull", &name]), 0);
}

#[test]
fn certificates_come_from_the_flag_or_from_the_directory_of_the_host() {
    let registry = Registry::start_for_known_clients();
    add_image(&registry);
    let name = registry.reference("app");
    let (certificate, key) = client_identity_pem();
    let files = [("ca.crt", text(authority_pem())), ("me.cert", text(certificate)), ("me.key", text(key))];
    let world = World::new();
    write_files(&world.path("certs"), &files);
    check_code(world.rbuild().args(["pull", &name]), 3);
    check_code(world.rbuild().args(["pull", "--cert-dir"]).arg(world.path("certs")).arg(&name), 0);
    for program in ["containers", "docker"] {
        let world = World::new();
        write_files(&world.path(&format!(".config/{program}/certs.d/{}", registry.host())), &files);
        check_code(world.rbuild().args(["pull", &name]), 0);
    }
}

#[test]
fn a_certificate_without_its_key_is_named() {
    let world = world(&[("containers/certs.d/a.test/me.cert", "x")]);
    let said = check_code(world.rbuild().args(["pull", "a.test/b"]), 3);
    assert!(said.contains("certs.d/a.test/me.cert` is there, and `"), "{said}");
    assert!(said.contains("certs.d/a.test/me.key` is not"), "{said}");
    // What is there for others is nothing to us.
    let registry = Registry::start();
    add_image(&registry);
    check_code(world.rbuild().args(["pull", &registry.reference("app")]), 0);
    let absent = world.path("absent");
    let said =
        check_code(world.rbuild().env("CONTAINERS_REGISTRIES_CONF", &absent).args(["pull", "a.test/b"]), 2);
    assert!(said.contains(&format!("cannot read `{}`", absent.display())), "{said}");
    let said = check_code(world.rbuild().args(["pull", "--cert-dir"]).arg(&absent).arg("a.test/b"), 2);
    assert!(said.contains(&format!("cannot read `{}`", absent.display())), "{said}");
}

#[test]
fn a_mirror_of_the_users_file_or_of_a_drop_in_is_asked_first() {
    for file in ["containers/registries.conf", "containers/registries.conf.d/mine.conf"] {
        let mirror = Registry::start();
        mirror.add_image("hub/library/alpine", "latest", "linux/amd64", &[&[0; 1024]]);
        let conf = format!(
            "[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"{}/hub\"\n",
            mirror.host()
        );
        let world = world(&[(file, &conf)]);
        check_code(world.rbuild().args(["pull", "alpine"]), 0);
        // It is here by the name that was asked for.
        let listed = check_code(world.rbuild().arg("images"), 0);
        assert!(listed.contains("alpine") && !listed.contains(&mirror.host()), "{listed}");
    }
}

#[test]
fn what_a_mirror_gives_wrongly_comes_from_the_registry() {
    let (registry, mirror) = (Registry::start(), Registry::start());
    let layer = [0; 10_240];
    registry.add_image("app", "latest", "linux/amd64", &[&layer]);
    mirror.add_image("app", "latest", "linux/amd64", &[&layer]);
    let path = format!("/v2/app/blobs/{}", testkit::registry::digest(&layer));
    mirror.on(&path, |_, exchange| exchange.respond(200, &[], &[1; 10_240]));
    let conf = format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}\"\n",
        registry.host(),
        mirror.host()
    );
    let world = world(&[("containers/registries.conf", &conf)]);
    let said = check_code(world.rbuild().args(["pull", &registry.reference("app")]), 0);
    assert_eq!((mirror.count(&path), registry.count(&path)), (1, 1));
    assert!(said.contains("the mirror is not asked any more"), "{said}");
    world.assert_sound();
}

#[test]
fn a_mirror_of_dockers_daemon_is_asked_first() {
    let mirror = Registry::start();
    mirror.add_image("library/alpine", "latest", "linux/amd64", &[&[0; 1024]]);
    let json = format!(r#"{{"registry-mirrors": ["http://{}"]}}"#, mirror.host());
    check_code(world(&[("docker/daemon.json", &json)]).rbuild().args(["pull", "alpine"]), 0);
}

#[test]
fn a_file_that_cannot_be_understood_is_named() {
    let said = |file: &str, text: &str| {
        let world = world(&[(file, text)]);
        check_code(world.rbuild().args(["pull", "a.test/b"]), 2)
            .replace(&world.path("").display().to_string(), "HOME/")
    };
    expect![[r#"
        error[registry]: cannot use `HOME/.config/containers/registries.conf`, line 1: key with no value, expected `=`
         |
         = help: mend the file, or move it away
    "#]].assert_eq(&said("containers/registries.conf", "a\n[[registry"));
    expect![[r#"
        error[registry]: cannot use `HOME/.config/docker/daemon.json`, line 1: EOF while parsing an object at line 1 column 1
         |
         = help: mend the file, or move it away
    "#]].assert_eq(&said("docker/daemon.json", "{"));
    let blocked = "[[registry]]\nlocation = \"a.test\"\nblocked = true";
    let world = world(&[("containers/registries.conf", blocked)]);
    let said = check_code(world.rbuild().args(["pull", "a.test/b"]), 3);
    assert!(said.contains("`a.test/b` is blocked by `"), "{said}");
}

#[test]
fn what_is_not_here_is_asked_for_through_the_proxy() {
    let Some(scene) = Scene::new("what_is_not_here_is_asked_for_through_the_proxy") else { return };
    let (registry, proxy) = (Registry::start(), Proxy::start());
    add_image(&registry);
    let address = format!("http://me:s3cret@{}", proxy.address());
    let json = format!(r#"{{"insecure-registries": ["far.test:{}"]}}"#, registry.port());
    write_files(&scene.world.path(".config"), &[("docker/daemon.json", &json)]);
    let name = format!("far.test:{}/app", registry.port());
    let said =
        check_code(scene.world.rbuild().env("ALL_PROXY", &address).args(["--debug", "pull", &name]), 0);
    assert!(!said.contains("s3cret"), "{said}");
    assert!(proxy.tunnels().iter().all(|tunnel| tunnel.to == format!("far.test:{}", registry.port())));
    scene.site.put("/f", b"content");
    let url = scene.site.url("/f").replace("127.0.0.1", "far.test");
    check_code(scene.command(&format!("ADD {url} /f"), &[]).env("http_proxy", &address), 0);
    assert_eq!(scene.read("f"), "content");
    // What is excepted is asked directly, where there is no such name.
    let mut direct = scene.command(&format!("ADD {url} /g"), &["--no-cache"]);
    check_code(direct.env("http_proxy", &address).env("NO_PROXY", ".test"), 3);
    // git is told, too: it does not find the name but by the proxy, which says what it thinks of a GET.
    let git = scene.site.url("/git/r.git").replace("127.0.0.1", "far.test");
    let said = check_code(scene.command(&format!("ADD {git}#main /g"), &[]).env("http_proxy", &address), 3);
    assert!(said.contains("405"), "{said}");
    let said =
        check_code(scene.world.rbuild().env("https_proxy", "socks5://h:1").args(["pull", "a.test/b"]), 2);
    assert!(
        said.contains("`https_proxy` names a proxy that is asked neither by http nor by https"),
        "{said}"
    );
}

#[track_caller]
fn check_explanation(world: &World, name: &str, flags: &[&str], expected: Expect) {
    let mut rbuild = world.rbuild();
    rbuild.env("https_proxy", "http://me:secret@proxy.test:3128").args(["registry", "explain", name]);
    let said = check_code(rbuild.args(flags), 0);
    expected.assert_eq(&said.replace(&world.path("").display().to_string(), "HOME/"));
}

#[test]
fn explain_says_which_file_decides() {
    let conf = "[[registry]]\nlocation = \"a.test\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"b.test/a\"\n";
    let world = world(&[
        ("containers/registries.conf", conf),
        ("containers/certs.d/b.test/ca.crt", text(authority_pem())),
        ("containers/auth.json", r#"{"auths": {"b.test": {"auth": "bWU6c2VjcmV0"}}}"#),
    ]);
    check_explanation(
        &world,
        "a.test/x",
        &[],
        expect![[r#"
            a.test/x:latest
            pulled from b.test/a/x:latest
              because of: HOME/.config/containers/registries.conf
              certificates: HOME/.config/containers/certs.d/b.test
              login: `me` of HOME/.config/containers/auth.json
              proxy: proxy.test:3128
            else from and pushed to a.test/x:latest
              because of: HOME/.config/containers/registries.conf
              insecure: TLS may be missing, or prove nothing
              login: none
              proxy: proxy.test:3128
        "#]],
    );
    check_explanation(
        &world,
        "c.test/x:1",
        &["--tls-verify=false", "--format=json"],
        expect![[r#"
            {
              "reference": "c.test/x:1",
              "pulled_from": [
                {
                  "reference": "c.test/x:1",
                  "because": [],
                  "insecure": true,
                  "plain": false,
                  "proxy": "proxy.test:3128"
                }
              ],
              "pushed_to": {
                "reference": "c.test/x:1",
                "because": [],
                "insecure": true,
                "plain": false,
                "proxy": "proxy.test:3128"
              }
            }
        "#]],
    );
    let said = check_code(world.rbuild().args(["registry", "explain", "UPPER"]), 2);
    assert!(said.contains("`UPPER` is no image name"), "{said}");
}

#[test]
fn a_login_is_for_the_registry_of_its_name() {
    let registry = Registry::start();
    registry.set_access(Access::Basic("me", "secret"));
    let conf = format!("[[registry]]\nprefix = \"{}\"\nlocation = \"b.test\"\n", registry.host());
    let world = world(&[("containers/registries.conf", &conf)]);
    check_code(world.rbuild().args(["login", "-u", "me", "-p", "secret", &registry.host()]), 0);
}

#[test]
fn processes_are_told_of_the_proxies_that_docker_is_configured_with() {
    let Some(world) = World::with_base("processes_are_told_of_the_proxies") else { return };
    let configure = |proxy: &str| {
        let json =
            format!(r#"{{"proxies": {{"default": {{"httpProxy": "{proxy}", "noProxy": "a.test"}}}}}}"#);
        write_files(&world.path(".docker"), &[("config.json", &json)]);
    };
    configure("http://p.test:1");
    let context = world.path("context");
    write_files(&context, &[("Dockerfile", "FROM base\nRUN env | grep -i proxy | sort\n")]);
    let build = |flags: &[&str]| {
        check_code(world.rbuild().args(["build", "--progress=plain"]).args(flags).arg(&context), 0)
    };
    let said = build(&[]);
    for line in
        ["HTTP_PROXY=http://p.test:1", "http_proxy=http://p.test:1", "NO_PROXY=a.test", "no_proxy=a.test"]
    {
        assert!(said.contains(&format!("| {line}")), "{line} in {said}");
    }
    // It is no part of what a step is made from.
    configure("http://q.test:1");
    assert!(!build(&[]).contains("q.test"));
    let said = build(&["--no-cache", "--build-arg=http_proxy=http://mine.test:1"]);
    assert!(said.contains("http_proxy=http://mine.test:1") && !said.contains("q.test"), "{said}");
    let run = |flags: &[&str]| check_code(world.rbuild().arg("run").args(flags).args(["base", "env"]), 0);
    let said = run(&[]);
    assert!(said.contains("HTTP_PROXY=http://q.test:1") && said.contains("no_proxy=a.test"), "{said}");
    assert!(!run(&["-e", "HTTP_PROXY=mine"]).contains("q.test"));
    write_files(&world.path(".docker"), &[("config.json", "{")]);
    assert!(build(&["--no-cache"]).contains("the file is no JSON"));
}

#[test]
fn every_command_that_asks_a_registry_takes_both_flags() {
    if !testkit::can_run("every_command_that_asks_a_registry_takes_both_flags", &[Need::Root]) {
        return;
    }
    let registry = Registry::start_tls(Identity::Trusted);
    add_image(&registry);
    registry.on("/v1/search", |_, exchange| exchange.respond(200, &[], br#"{"results": []}"#));
    let (name, copy, host) = (registry.reference("app"), registry.reference("copy"), registry.host());
    let term = format!("{host}/app");
    let certs = World::new();
    write_files(&certs.path("certs"), &[("ca.crt", text(authority_pem()))]);
    write_files(&certs.path("context"), &[("Dockerfile", &format!("FROM {name}\n"))]);
    let context = certs.path("context").display().to_string();
    let trusting = format!("--cert-dir={}", certs.path("certs").display());
    let commands: [&[&str]; 10] = [
        &["pull", &name],
        &["push", &name],
        &["login", "-u", "me", "-p", "secret", &host],
        &["build", &context],
        &["run", &name, "x"],
        &["copy", &name, &copy],
        &["search", &term],
        &["manifest", "inspect", &name],
        &["manifest", "create", "list", &name],
        &["manifest", "push", "list", &copy],
    ];
    for words in commands {
        let verb = 1 + usize::from(words[0] == "manifest");
        let outcome = |flags: &[&str]| {
            let world = World::new();
            // What is pushed must be here.
            match words[..verb] {
                ["push"] => drop(check_code(world.rbuild().args(["pull", &trusting, &name]), 0)),
                ["manifest", "push"] => {
                    drop(check_code(
                        world.rbuild().args(["manifest", "create", &trusting, "list", &name]),
                        0,
                    ));
                }
                _ => {}
            }
            let mut rbuild = world.rbuild();
            rbuild.args(&words[..verb]).args(flags).args(&words[verb..]);
            said(&rbuild.output().expect("rbuild starts"))
        };
        let is_refused =
            |flags: &[&str]| outcome(flags).contains("offers no TLS connection that can be trusted");
        assert!(is_refused(&[]), "{words:?}");
        assert!(!is_refused(&["--tls-verify=false"]), "{words:?}");
        assert!(!is_refused(&[&trusting]), "{words:?}");
    }
    let explained =
        |flags: &[&str]| check_code(certs.rbuild().args(["registry", "explain", &name]).args(flags), 0);
    assert!(explained(&[&trusting]).contains("certificates: ") && !explained(&[]).contains("certificates: "));
    assert!(explained(&["--tls-verify=false"]).contains("insecure: "));
}
