//! `pull`, and images from registries for `run` and `FROM`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use testkit::Need;
use testkit::registry::{Access, Registry};

use crate::world::{World, succeed, write_files};

/// A registry with the image `base` of a world as `app`, and a world without it.
fn registry_with_app(test: &str) -> Option<(Registry, World)> {
    let source = World::with_base(test)?;
    let layout = source.path("layout");
    let context = source.path("context");
    let dockerfile = "FROM base\nRUN echo from afar > /greeting\nCMD [\"cat\", \"/greeting\"]\n";
    write_files(&context, &[("Dockerfile", dockerfile)]);
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    succeed(source.rbuild().args(["build", "-q", "-o", &output]).arg(&context));
    let registry = Registry::start();
    registry.serve_layout("app", &layout).expect("a layout");
    Some((registry, World::new()))
}

fn output_of(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("rbuild starts");
    let text = |bytes| String::from_utf8(bytes).expect("it wrote text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_pulled_image_runs_and_is_not_asked_for_again() {
    let Some((registry, world)) = registry_with_app("a_pulled_image_runs") else { return };
    let name = registry.reference("app");
    let (code, id, words) = output_of(world.rbuild().args(["pull", &name]));
    assert_eq!(code, Some(0), "{words}");
    assert!(id.starts_with("sha256:"), "{id}");
    assert!(words.contains("pulling ") && words.contains("layer ") && words.contains("pulled "), "{words}");
    let asked = registry.requests().len();
    let (code, greeting, words) = output_of(world.rbuild().args(["run", &name]));
    assert_eq!((code, greeting.as_str(), words.as_str()), (Some(0), "from afar\n", ""));
    assert_eq!(registry.requests().len(), asked, "what is here is not asked for");
    let blobs = registry.count("/v2/app/blobs/");
    succeed(world.rbuild().args(["pull", &name]));
    assert_eq!(registry.count("/v2/app/blobs/"), blobs, "a second pull fetches no layer");
    world.assert_sound();
}

#[test]
fn run_and_from_pull_what_is_missing_and_only_then() {
    let Some((registry, world)) = registry_with_app("run_and_from_pull_what_is_missing") else { return };
    let name = registry.reference("app");
    let (code, greeting, _) = output_of(world.rbuild().args(["run", &name]));
    assert_eq!((code, greeting.as_str()), (Some(0), "from afar\n"));
    let other = World::new();
    let context = other.path("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("Dockerfile"), format!("FROM {name}\nRUN cat /greeting\n")).unwrap();
    let build = |flags: &[&str]| {
        let (code, _, words) = output_of(other.rbuild().arg("build").args(flags).arg(&context));
        assert_eq!(code, Some(0), "{words}");
        registry.count("/v2/app/manifests/")
    };
    let before = registry.count("/v2/app/manifests/");
    let first = build(&[]);
    assert!(first > before);
    assert_eq!(build(&[]), first, "FROM resolves what is here");
    assert!(build(&["--pull"]) > first);
    other.assert_sound();
}

#[test]
fn a_registry_that_has_nothing_or_lets_nobody_in_is_named() {
    let Some((registry, world)) = registry_with_app("a_registry_that_has_nothing") else { return };
    let absent = registry.reference("absent:1");
    let (code, _, words) = output_of(world.rbuild().args(["pull", &absent]));
    assert_eq!(code, Some(3));
    assert!(words.contains("absent:1") && words.contains("has no tag"), "{words}");
    registry.set_access(Access::Basic("user", "word"));
    let name = registry.reference("app");
    let (code, _, words) = output_of(world.rbuild().args(["pull", &name]));
    assert_eq!(code, Some(3));
    assert!(words.contains("without a login"), "{words}");
    let (code, _, _) = output_of(world.rbuild().args(["pull", "UPPER"]));
    assert_eq!(code, Some(2));
    assert_eq!(output_of(world.rbuild().arg("images").arg("-q")).1, "");
    world.assert_sound();
}

#[test]
fn logins_of_docker_and_podman_are_used() {
    let Some((registry, world)) = registry_with_app("logins_of_docker_and_podman_are_used") else { return };
    registry.set_access(Access::Basic("user", "word"));
    let name = registry.reference("app");
    // user:word
    let file = format!(r#"{{"auths": {{"{}": {{"auth": "dXNlcjp3b3Jk"}}}}}}"#, registry.host());
    for (place, variable) in [
        (".docker/config.json", None),
        (".config/containers/auth.json", None),
        ("elsewhere/config.json", Some("DOCKER_CONFIG")),
        ("elsewhere.json", Some("REGISTRY_AUTH_FILE")),
    ] {
        let path = world.path(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &file).unwrap();
        let mut command = world.rbuild();
        match variable {
            Some("DOCKER_CONFIG") => command.env("DOCKER_CONFIG", path.parent().unwrap()),
            Some(variable) => command.env(variable, &path),
            None => &mut command,
        };
        let (code, _, words) = output_of(command.args(["pull", &name]));
        assert_eq!(code, Some(0), "{place}: {words}");
        fs::remove_file(&path).unwrap();
        assert_eq!(output_of(world.rbuild().args(["pull", &name])).0, Some(3), "without {place}");
    }
    fs::write(world.path(".docker/config.json"), "{ not JSON").unwrap();
    let (code, _, words) = output_of(world.rbuild().args(["pull", &name]));
    assert!(code == Some(2) && words.contains("config.json"), "{words}");
}

/// Debian's `docker-registry` on a port of its own choosing.
pub(crate) struct DebianRegistry {
    process: Child,
    pub(crate) host: String,
}

impl DebianRegistry {
    pub(crate) fn start(directory: &Path) -> Self {
        let config = directory.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n\
             storage: {{filesystem: {{rootdirectory: {}/registry-data}}}}\n",
            directory.display(),
        );
        fs::write(&config, text).expect("a file");
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(process.stderr.take().expect("it was asked for")).lines();
        let address = lines.find_map(|line| {
            let line = line.expect("it writes text");
            let (_, address) = line.split_once("listening on ")?;
            address.split('"').next().map(ToOwned::to_owned)
        });
        // Keeps the pipe empty, so that the registry never blocks on its log.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, host: address.expect("the registry listens") }
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        self.process.kill().expect("a child can be killed");
        self.process.wait().expect("a child can be waited for");
    }
}

#[test]
fn a_registry_is_asked_when_it_is_to_be() {
    let Some((registry, world)) = registry_with_app("a_registry_is_asked_when_it_is_to_be") else { return };
    let name = registry.reference("app");
    let context = world.path("context");
    write_files(&context, &[("Dockerfile", &format!("FROM {name}\nRUN cat /greeting\n"))]);
    let build =
        |when: &str| output_of(world.rbuild().args(["build", &format!("--pull={when}")]).arg(&context));
    let run = |when: &str| output_of(world.rbuild().args(["run", &format!("--pull={when}"), &name]));
    let (code, _, words) = build("never");
    assert_eq!(code, Some(1));
    assert!(words.contains("`--pull=never`"), "{words}");
    assert_eq!(run("never").0, Some(125));
    assert_eq!(registry.requests().len(), 0);
    assert_eq!(run("missing").0, Some(0));
    let mut asked = registry.requests().len();
    for (when, asks) in [("never", false), ("missing", false), ("newer", true), ("always", true)] {
        for command in [&build as &dyn Fn(&str) -> _, &run] {
            assert_eq!(command(when).0, Some(0), "{when}");
            let now = registry.requests().len();
            assert_eq!(now > asked, asks, "{when}");
            asked = now;
        }
    }
    // Docker's way to write it.
    assert_eq!(build("true").0, Some(0));
    assert!(registry.requests().len() > asked);
    drop(registry);
    assert_eq!((build("missing").0, run("missing").0), (Some(0), Some(0)));
    // Both ask for as long as it could come back.
    assert_eq!((build("newer").0, run("always").0), (Some(0), Some(125)));
}

#[test]
fn of_several_platforms_the_one_asked_for_is_pulled() {
    let registry = Registry::start();
    let empty_tar = [0; 1024];
    let entries = ["linux/amd64", "linux/arm64"].map(|platform| {
        let tag = platform.replace('/', "-");
        (registry.add_image("app", &tag, platform, &[&empty_tar]), platform)
    });
    let entries = entries.each_ref().map(|(digest, platform)| (digest.as_str(), *platform));
    registry.add_index("app", "both", &entries);
    let world = World::new();
    let name = registry.reference("app:both");
    for (architecture, args) in
        [("arm64", &["--platform", "linux/arm64"][..]), ("amd64", &["--platform=linux/amd64"])]
    {
        let id = succeed(world.rbuild().arg("pull").args(args).arg(&name)).stdout;
        let id = String::from_utf8(id).expect("an id");
        let shown = succeed(world.rbuild().args(["inspect", id.trim()])).stdout;
        let shown: serde_json::Value = serde_json::from_slice(&shown).expect("JSON");
        assert_eq!(shown[0]["Architecture"], architecture);
    }
    let (code, _, words) = output_of(world.rbuild().args(["pull", "--platform=linux/s390x", &name]));
    assert_eq!(code, Some(3), "{words}");
    assert_eq!(output_of(world.rbuild().args(["pull", "--platform=?", &name])).0, Some(2));
}

#[test]
fn an_image_goes_through_skopeo_and_debians_registry_and_comes_back_the_same() {
    let test = "an_image_goes_through_skopeo_and_debians_registry";
    if !testkit::can_run(test, &[Need::Program("skopeo"), Need::Program("docker-registry")]) {
        return;
    }
    let Some(world) = World::with_base(test) else { return };
    let registry = DebianRegistry::start(&world.path("."));
    let archive = world.path("base.tar");
    for (format, transport) in [("oci", "oci-archive"), ("docker", "docker-archive")] {
        succeed(world.rbuild().args(["save", "--format", format, "base", "-o"]).arg(&archive));
        let (from, to) = (
            format!("{transport}:{}", archive.display()),
            format!("docker://{}/team/{format}:1", registry.host),
        );
        let mut copy = Command::new("skopeo");
        copy.env("HOME", world.path("home")).args([
            "copy",
            "--insecure-policy",
            "-q",
            "--dest-tls-verify=false",
            &from,
            &to,
        ]);
        succeed(&mut copy);
        let other = World::new();
        let name = format!("{}/team/{format}:1", registry.host);
        let id = succeed(other.rbuild().args(["pull", &name])).stdout;
        let here: serde_json::Value =
            serde_json::from_slice(&succeed(world.rbuild().args(["inspect", "base"])).stdout).unwrap();
        assert_eq!(String::from_utf8(id).unwrap().trim_end(), here[0]["Id"].as_str().unwrap());
        assert_eq!(succeed(other.rbuild().args(["run", &name, "echo", "hi"])).stdout, b"hi\n");
        other.assert_sound();
    }
}

#[test]
fn nobody_waits_for_a_registry_after_ctrl_c() {
    let registry = Registry::start();
    registry.on("/v2/app/manifests/", |_, exchange| exchange.respond(503, &[("Retry-After", "60")], b""));
    let world = World::new();
    let mut pull = world.rbuild();
    let mut child =
        pull.args(["pull", &registry.reference("app")]).stderr(Stdio::null()).spawn().expect("it starts");
    while registry.count("/v2/app/manifests/") == 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // It has the answer, and waits.
    std::thread::sleep(std::time::Duration::from_millis(200));
    crate::commands_run::send(&child, crate::commands_run::SIGINT);
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    assert_eq!(registry.count("/v2/app/manifests/"), 1);
}
