//! `login` and `logout`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Output, Stdio};

use testkit::registry::{Access, Registry};

use crate::world::{World, said, write_files};

/// A machine with a user, and a registry that knows one.
struct Place {
    world: World,
    registry: Registry,
}

impl Place {
    fn new(access: Access) -> Self {
        let (world, registry) = (World::new(), Registry::start());
        registry.set_access(access);
        Self { world, registry }
    }

    fn rbuild(&self, command: &str) -> Command {
        let mut rbuild = self.world.rbuild();
        rbuild.env("DOCKER_CONFIG", self.world.path("docker")).env("HOME", self.world.path("home"));
        rbuild.arg(command);
        rbuild
    }

    fn login(&self, args: &[&str], password: &str) -> Output {
        let mut rbuild = self.rbuild("login");
        rbuild.args(args).arg(self.registry.host());
        rbuild.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = rbuild.spawn().expect("rbuild starts");
        // Whoever does not read it has another reason to end.
        drop(child.stdin.take().expect("a pipe").write_all(password.as_bytes()));
        child.wait_with_output().expect("rbuild ends")
    }

    fn config(&self) -> String {
        fs::read_to_string(self.world.path("docker/config.json")).unwrap_or_default()
    }
}

const STDIN: [&str; 3] = ["-u", "hub", "--password-stdin"];

#[test]
fn who_has_logged_in_is_known_until_he_logs_out() {
    for access in [Access::Basic("hub", "s3cret"), Access::Token(Some(("hub", "s3cret")))] {
        let place = Place::new(access.clone());
        place.registry.add_image("app", "latest", "linux/amd64", &[&[0; 1024]]);
        let pull =
            || place.rbuild("pull").arg(place.registry.reference("app")).output().expect("rbuild starts");
        assert_eq!(pull().status.code(), Some(3), "{access:?}");
        let output = place.login(&STDIN, "s3cret\n");
        assert_eq!((output.status.code(), &*said(&output)), (Some(0), "Login Succeeded\n"), "{access:?}");
        assert_eq!(pull().status.code(), Some(0), "{access:?}");
        let mode = fs::metadata(place.world.path("docker/config.json")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let logout = || place.rbuild("logout").arg(place.registry.host()).output().expect("rbuild starts");
        assert!(said(&logout()).starts_with("Removed the login"), "{access:?}");
        assert_eq!(pull().status.code(), Some(3), "{access:?}");
        assert!(said(&logout()).starts_with("There is no login"), "{access:?}");
    }
}

#[test]
fn a_wrong_password_changes_nothing() {
    let place = Place::new(Access::Basic("hub", "s3cret"));
    write_files(&place.world.path("docker"), &[("config.json", "{\"x\":1}")]);
    let output = place.login(&STDIN, "guess");
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains("does not take this name and password"), "{}", said(&output));
    assert!(!said(&output).contains("guess"));
    assert_eq!(place.config(), "{\"x\":1}");
    for (args, words) in [
        (&["-u", "hub"][..], "nobody to ask"),
        (&["--password-stdin"], "no way to ask for the name"),
        (&["-u", "", "--password-stdin"], "may be empty"),
        (&["-u", "a:b", "--password-stdin"], "neither a colon"),
    ] {
        let output = place.login(args, "x");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(said(&output).contains(words), "{args:?}: {}", said(&output));
    }
    let output =
        place.rbuild("login").args(["-u", "x", "-p", "y", "no.registry/"]).arg("--debug").output().unwrap();
    assert!(!said(&output).contains("\"y\""), "{}", said(&output));
}

#[test]
fn what_else_the_file_has_stays_and_a_link_stays_a_link() {
    let place = Place::new(Access::Basic("hub", "s3cret"));
    let text = r#"{"HttpHeaders": {"a": "b"}, "auths": {"quay.io": {"auth": "eA=="}}, "psFormat": "table"}"#;
    write_files(&place.world.path("elsewhere"), &[("real.json", text)]);
    fs::create_dir(place.world.path("docker")).expect("a directory");
    symlink(place.world.path("elsewhere/real.json"), place.world.path("docker/config.json")).expect("a link");
    let output = place.login(&["-u", "hub", "-p", "s3cret"], "");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("warning: a password on the command line"));
    assert!(fs::symlink_metadata(place.world.path("docker/config.json")).expect("it is there").is_symlink());
    let config = place.config();
    for part in ["HttpHeaders", "quay.io", "psFormat", "aHViOnMzY3JldA=="] {
        assert!(config.contains(part), "{part}: {config}");
    }
    assert_eq!(fs::read_dir(place.world.path("elsewhere")).expect("a directory").count(), 1);
}

#[test]
fn a_helper_keeps_what_it_is_given() {
    let place = Place::new(Access::Basic("hub", "s3cret"));
    let kept = place.world.path("kept");
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat > {kept} ;;\nget) read -r s; [ -f {kept} ] || {{ echo credentials not found in native keychain; exit 1; }}; cat {kept} ;;\nerase) rm {kept} ;;\nesac\n",
        kept = kept.display()
    );
    write_files(&place.world.path("bin"), &[("docker-credential-test", &script)]);
    let program = place.world.path("bin/docker-credential-test");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
    write_files(&place.world.path("docker"), &[("config.json", r#"{"credsStore": "test"}"#)]);
    let path = format!("{}:/usr/bin:/bin", place.world.path("bin").display());
    let run = |command: &mut Command| command.env("PATH", &path).output().expect("rbuild starts");
    let mut login = place.rbuild("login");
    let output = run(login.args(["-u", "hub", "-p", "s3cret"]).arg(place.registry.host()));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let stored: serde_json::Value =
        serde_json::from_slice(&fs::read(&kept).expect("it was kept")).expect("JSON");
    assert_eq!(
        stored,
        serde_json::json!({ "ServerURL": place.registry.host(), "Username": "hub", "Secret": "s3cret" })
    );
    assert!(!place.config().contains("\"auth\"") && place.config().contains(&place.registry.host()));
    place.registry.add_image("app", "latest", "linux/amd64", &[&[0; 1024]]);
    let mut pull = place.rbuild("pull");
    assert_eq!(run(pull.arg(place.registry.reference("app"))).status.code(), Some(0));
    let output = run(place.rbuild("logout").arg(place.registry.host()));
    assert!(said(&output).starts_with("Removed the login"), "{}", said(&output));
    assert!(!kept.exists());
    // One that is not there is no reason to write passwords into files.
    fs::remove_file(&program).expect("it was there");
    let output = run(place.rbuild("login").args(["-u", "hub", "-p", "s3cret"]).arg(place.registry.host()));
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("`docker-credential-test`") && !place.config().contains("auth\""));
}

#[test]
fn all_logins_are_forgotten_at_once() {
    let place = Place::new(Access::Open);
    let nothing = place.rbuild("logout").arg("--all").output().expect("rbuild starts");
    assert!(said(&nothing).starts_with("There is no login in "), "{}", said(&nothing));
    // A file for each server, named after its host.
    let kept = place.world.path("kept");
    let script = format!(
        "#!/bin/sh\ncd {kept}\ncase $1 in\nlist) printf '{{\"https://index.docker.io/v1/\": \"hub\", \"a.test\": \"a\"}}' ;;\nerase) read -r s; echo \"$s\" >> erased ;;\nget) read -r s; [ \"$s\" != d.test ] || {{ echo credentials not found in native keychain; exit 1; }}; echo '{{\"Username\": \"x\", \"Secret\": \"y\"}}' ;;\nesac\n",
        kept = kept.display()
    );
    fs::create_dir(&kept).expect("a directory");
    write_files(&place.world.path("bin"), &[("docker-credential-test", &script)]);
    let program = place.world.path("bin/docker-credential-test");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
    let config = r#"{"credsStore": "test", "auths": {"b.test:5000": {"auth": "eDp5"}, "d.test/team": {"auth": "eDp5"}}, "credHelpers": {"c.test": "test"}, "x": 1}"#;
    write_files(&place.world.path("docker"), &[("config.json", config)]);
    let path = format!("{}:/usr/bin:/bin", place.world.path("bin").display());
    let output = place.rbuild("logout").arg("--all").env("PATH", path).output().expect("rbuild starts");
    let expected = ["a.test", "b.test:5000", "c.test", "docker.io", "d.test/team"]
        .map(|name| format!("Removed the login for {name}\n"));
    assert_eq!(said(&output), expected.concat());
    let erased = fs::read_to_string(kept.join("erased")).expect("something was erased");
    for server in ["a.test", "c.test", "https://index.docker.io/v1/"] {
        assert!(erased.lines().any(|line| line == server), "{server} of {erased}");
    }
    assert!(!place.config().contains("eDp5") && place.config().contains("\"x\": 1"), "{}", place.config());
    // A helper that is gone is told of, and everything else is forgotten.
    write_files(
        &place.world.path("docker"),
        &[("config.json", r#"{"credsStore": "gone", "auths": {"b.test": {"auth": "eDp5"}}}"#)],
    );
    let output = place.rbuild("logout").arg("--all").output().expect("rbuild starts");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("`docker-credential-gone`") && !place.config().contains("eDp5"));
}

#[test]
fn no_level_of_what_is_told_has_a_secret_in_it() {
    for access in [Access::Basic("hub", "s3cret"), Access::Token(Some(("hub", "s3cret")))] {
        let place = Place::new(access.clone());
        place.registry.add_image("app", "latest", "linux/amd64", &[&[0; 1024]]);
        let mut told = said(&place.login(&["--debug", "-u", "hub", "--password-stdin"], "s3cret"));
        assert!(told.contains("Login Succeeded"), "{told}");
        let (name, copy) = (place.registry.reference("app"), place.registry.reference("copy"));
        for words in
            [vec!["pull", &name], vec!["tag", &name, &copy], vec!["push", &copy], vec!["copy", &name, &copy]]
        {
            let mut rbuild = place.rbuild("--debug");
            let output = rbuild.args(&words).output().expect("rbuild starts");
            assert_eq!(output.status.code(), Some(0), "{words:?}: {}", said(&output));
            told += &said(&output);
        }
        assert!(told.contains("request"), "it is told what is done: {told}");
        let tokens = place
            .registry
            .requests()
            .into_iter()
            .filter_map(|seen| seen.header("authorization").map(ToOwned::to_owned));
        for secret in tokens.chain(["x s3cret".to_owned()]) {
            let secret = secret.split_once(' ').map_or("", |(_, secret)| secret);
            assert!(!secret.is_empty() && !told.contains(secret), "{access:?}: {secret} in {told}");
        }
    }
}

#[test]
fn podmans_logins_are_told_of() {
    let place = Place::new(Access::Open);
    let auth = format!(r#"{{"auths": {{"{}": {{"auth": "aHViOnB3"}}}}}}"#, place.registry.host());
    write_files(&place.world.path("home/.config/containers"), &[("auth.json", &auth)]);
    let output = place.rbuild("logout").arg(place.registry.host()).output().expect("rbuild starts");
    assert!(said(&output).contains("podman logout"), "{}", said(&output));
    let output = place.rbuild("login").arg("nodots").output().expect("rbuild starts");
    assert!(said(&output).contains("`nodots` is no registry"), "{}", said(&output));
}
