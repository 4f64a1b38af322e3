//! Against Debian's `docker-registry`, where it is installed: a registry that nobody here wrote.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use expect_test::expect;
use registry::{Client, Credentials, Delivery};
use testkit::registry::Registry;

use crate::world::{Setup, login, pull, setup};

/// bcrypt of `pw`, as the registry's htpasswd wants it.
const HTPASSWD: &str = "hub:$2b$05$7dv8fXpD0s7BRtlvWJxL5O6LuGkLIJJT1FY135OBh2aEwHd4EW.xO\n";

/// A `docker-registry` on a port of its own choosing, ended on drop.
struct Debian {
    process: Child,
    host: String,
    _directory: tempfile::TempDir,
}

impl Debian {
    fn start() -> Option<Self> {
        if !Path::new("/usr/bin/docker-registry").exists() {
            println!("skipped: Debian's docker-registry is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {path}/data}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n\
             auth: {{htpasswd: {{realm: test, path: {path}/htpasswd}}}}\n"
        );
        std::fs::write(directory.path().join("config.yml"), config).unwrap();
        std::fs::write(directory.path().join("htpasswd"), HTPASSWD).unwrap();
        let mut process = Command::new("/usr/bin/docker-registry")
            .args(["serve", &format!("{path}/config.yml")])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let host = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, address) = line.split_once("listening on ")?;
            Some(address.split('"').next().unwrap().to_owned())
        });
        // Keeps the pipe empty, so that the registry never blocks on its log.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { process, host: host.expect("the registry listens"), _directory: directory })
    }

    /// Copies an image out of a test registry; says how its blobs got there.
    fn push(&self, source: &Registry, repository: &str, mount_from: Option<&str>) -> Vec<Delivery> {
        let (resolved, blobs) =
            pull(&setup().client().0, &crate::world::reference(source, "team/app")).unwrap();
        let client = self.client(login(&self.host, "hub", "pw"));
        let target = oci::Reference::parse(&format!("{}/{repository}", self.host)).unwrap();
        let delivered =
            blobs.iter().map(|bytes| crate::push::push(&client, &target, bytes, mount_from).unwrap());
        let delivered = delivered.collect();
        let media_type = resolved.manifest.media_type.to_string();
        client.push_manifest(&target, &media_type, &resolved.manifest.bytes).unwrap();
        delivered
    }

    fn client(&self, credentials: Credentials) -> Client {
        Setup { credentials, ..setup() }.client().0
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn images_are_pushed_to_debians_registry_and_pulled_from_it() {
    let Some(debian) = Debian::start() else { return };
    let source = Registry::start();
    let layer: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = source.add_image("team/app", "latest", "linux/amd64", &[&layer, b"two"]);
    assert_eq!(debian.push(&source, "team/app", None), [Delivery::Sent; 3]);
    assert_eq!(debian.push(&source, "team/app", None), [Delivery::Existed; 3]);
    assert_eq!(debian.push(&source, "team/other", Some("team/app")), [Delivery::Mounted; 3]);

    let client = |credentials: Credentials| debian.client(credentials);
    let known = client(login(&debian.host, "hub", "pw"));
    for name in ["team/other".to_owned(), "team/app".to_owned(), format!("team/app@{digest}")] {
        let reference = oci::Reference::parse(&format!("{}/{name}", debian.host)).unwrap();
        let (resolved, blobs) = pull(&known, &reference).unwrap();
        assert_eq!(resolved.digest().to_string(), digest);
        assert!(blobs[1] == layer && blobs[2] == b"two");
    }
    let app = oci::Reference::parse(&format!("{}/team/app", debian.host)).unwrap();
    assert_eq!(known.tags(&app).unwrap(), [app]);
    let error = |client: &registry::Client, name: &str| {
        let reference = oci::Reference::parse(&format!("{}/{name}", debian.host)).unwrap();
        pull(client, &reference).unwrap_err().replace(&debian.host, "HOST")
    };
    expect!["`HOST` has no tag `nosuch` in `team/app`, or does not show it to `hub` — MANIFEST_UNKNOWN: manifest unknown"].assert_eq(&error(&known, "team/app:nosuch"));
    expect!["`HOST` has no tag `latest` in `nosuch`, or does not show it to `hub` — MANIFEST_UNKNOWN: manifest unknown"].assert_eq(&error(&known, "nosuch"));
    expect!["`HOST` refuses `team/app` without a login (status 401; it may also not exist) — UNAUTHORIZED: authentication required"].assert_eq(&error(&client(Credentials::none()), "team/app"));
    expect!["`HOST` refuses `team/app` to `hub` (status 401; it may also not exist) — UNAUTHORIZED: authentication required"].assert_eq(&error(&client(login(&debian.host, "hub", "guess")), "team/app"));
}
