//! `push`, and `build --push`.

use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use serde_json::Value;
use testkit::Need;
use testkit::registry::{Access, Exchange, Identity, Registry, Seen};

use crate::commands_pull::DebianRegistry;
use crate::platforms::with_both;
use crate::world::{World, check_code, succeed, write_files};

/// How long what must come is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text").trim_end().to_owned()
}

/// Makes a layer that is worth sending while it is compressed, and that no compression makes smaller.
const LARGE: &str = "RUN head -c 6000000 /dev/urandom > /large\n";

/// A world with an image of three layers of its own upon `base`, a large one among them, under a name of the registry.
fn world(test: &str, name: &str) -> Option<World> {
    let world = World::with_base(test)?;
    let dockerfile = format!(
        "FROM base\nRUN echo one > /one\n{LARGE}RUN echo two > /two\nCMD [\"cat\", \"/one\", \"/two\"]\n"
    );
    write_files(&world.path("context"), &[("Dockerfile", &dockerfile)]);
    succeed(world.rbuild().args(["build", "-q", "-t", name]).arg(world.path("context")));
    Some(world)
}

/// How many requests sent something.
fn uploads(registry: &Registry) -> usize {
    registry.requests().iter().filter(|seen| seen.path.contains("/uploads/")).count()
}

#[test]
fn what_is_pushed_is_the_same_image_for_everybody() {
    const NAME: &str = "what_is_pushed_is_the_same_image_for_everybody";
    if !testkit::can_run(NAME, &[Need::Program("skopeo"), Need::Program("docker-registry")]) {
        return;
    }
    let directory = World::new();
    let registry = DebianRegistry::start(&directory.path("."));
    let name = format!("{}/team/app:1", registry.host);
    let Some(world) = world(NAME, &name) else { return };
    for compression in ["gzip", "zstd", "uncompressed"] {
        let pushed = text(succeed(world.rbuild().args(["push", "--compression", compression, &name])).stdout);
        let (_, digest) = pushed.split_once('@').expect("a digest");
        let mut skopeo = Command::new("skopeo");
        skopeo.env("HOME", world.path("home")).args(["inspect", "--tls-verify=false"]);
        let shown: Value =
            serde_json::from_slice(&succeed(skopeo.arg(format!("docker://{name}"))).stdout).expect("JSON");
        assert_eq!(shown["Digest"], digest, "{compression}");
        let mut skopeo = Command::new("skopeo");
        skopeo.env("HOME", world.path("home")).args(["inspect", "--raw", "--tls-verify=false"]);
        let raw: Value =
            serde_json::from_slice(&succeed(skopeo.arg(format!("docker://{name}"))).stdout).expect("JSON");
        let mut types = raw["layers"].as_array().expect("layers").iter().map(|layer| &layer["mediaType"]);
        let ending = if compression == "uncompressed" { "layer.v1.tar" } else { compression };
        assert!(types.all(|kind| kind.as_str().is_some_and(|kind| kind.ends_with(ending))), "{raw}");
        assert_eq!(shown["Layers"].as_array().map(Vec::len), Some(4));
        let other = World::new();
        let id = text(succeed(other.rbuild().args(["pull", &name])).stdout);
        let here: Value =
            serde_json::from_slice(&succeed(world.rbuild().args(["inspect", &name])).stdout).expect("JSON");
        assert_eq!(here[0]["Id"], id, "{compression}");
        assert_eq!(text(succeed(other.rbuild().args(["run", &name])).stdout), "one\ntwo");
        // Going on from there moves no byte that is there, and changes none.
        let again = text(succeed(other.rbuild().args(["push", "--compression", compression, &name])).stdout);
        assert_eq!(again, pushed);
        other.assert_sound();
    }
    world.assert_sound();
}

#[test]
fn only_what_is_missing_is_sent() {
    const NAME: &str = "only_what_is_missing_is_sent";
    let registry = Registry::start();
    let (name, other) = (registry.reference("team/app:1"), registry.reference("team/other:1"));
    let Some(world) = world(NAME, &name) else { return };
    let said = succeed(world.rbuild().args(["push", &name])).stderr;
    assert!(text(said).contains("layer "));
    let before = uploads(&registry);
    let said = text(succeed(world.rbuild().args(["push", &name])).stderr);
    assert_eq!(uploads(&registry), before, "{said}");
    assert!(said.contains("is there already"), "{said}");
    succeed(world.rbuild().args(["tag", &name, &other]));
    let said = text(succeed(world.rbuild().args(["push", &other])).stderr);
    assert!(said.contains("is taken over from another repository"), "{said}");
    let quiet = succeed(world.rbuild().args(["push", "-q", &other]));
    assert_eq!(
        (text(quiet.stderr), quiet.stdout.starts_with(other.rsplit_once(':').unwrap().0.as_bytes())),
        (String::new(), true)
    );
}

#[test]
fn a_build_pushes_what_it_made() {
    const NAME: &str = "a_build_pushes_what_it_made";
    let registry = Registry::start();
    let (name, second) = (registry.reference("app:1"), registry.reference("app:2"));
    let Some(world) = world(NAME, "unpushed") else { return };
    let context = world.path("context");
    let build = |args: &[&str]| {
        let mut command = world.rbuild();
        command.arg("build").args(args).arg(&context);
        command
    };
    let metadata = world.path("metadata.json");
    let file = metadata.to_str().expect("UTF-8");
    succeed(&mut build(&[
        "--push",
        "-t",
        &name,
        "-t",
        &second,
        "--metadata-file",
        file,
        "--annotation",
        "a=b",
    ]));
    let metadata: Value = serde_json::from_slice(&std::fs::read(&metadata).unwrap()).expect("JSON");
    let other = World::new();
    for name in [&name, &second] {
        assert_eq!(text(succeed(other.rbuild().args(["run", name])).stdout), "one\ntwo");
        // Kept as well.
        succeed(world.rbuild().args(["inspect", name]));
    }
    let digest = metadata["containerimage.digest"].as_str().expect("a digest");
    let manifest = registry.requests().into_iter().rfind(|seen| seen.method == "PUT").expect("a manifest");
    assert_eq!(testkit::registry::digest(&manifest.body), digest);
    let manifest: Value = serde_json::from_slice(&manifest.body).expect("JSON");
    assert_eq!(manifest["annotations"]["a"], "b");

    let before = uploads(&registry);
    succeed(&mut build(&["-o", &format!("type=registry,name={}", registry.reference("app:3"))]));
    succeed(&mut build(&["-o", "type=image,push=true", "-t", &registry.reference("app:4")]));
    assert_eq!(uploads(&registry), before);
    succeed(&mut build(&["-o", "type=registry,compression=zstd", "-t", &registry.reference("app:5")]));
    let manifest = registry.requests().into_iter().rfind(|seen| seen.method == "PUT").expect("a manifest");
    assert!(String::from_utf8_lossy(&manifest.body).contains("tar+zstd"));
    assert!(check_code(&mut build(&["--push"]), 2).contains("no name under which"));
}

/// Has `/gate` of the registry answer when so many requests of a method have come for uploads; each of these is answered by `answer`.
fn gate(
    registry: &Registry,
    method: &'static str,
    count: usize,
    answer: impl Fn(&mut Exchange<'_>) -> io::Result<()> + Send + Sync + 'static,
) {
    let come = Arc::new((Mutex::new(0), Condvar::new()));
    let gate = Arc::clone(&come);
    registry.on("/v2/app/blobs/uploads/", move |seen, exchange| {
        if seen.method != method {
            return exchange.serve();
        }
        answer(exchange)?;
        *come.0.lock().unwrap() += 1;
        come.1.notify_all();
        Ok(())
    });
    registry.on("/gate", move |_, exchange| {
        let come = gate.0.lock().unwrap();
        let (come, waited) = gate.1.wait_timeout_while(come, PATIENCE, |come| *come < count).unwrap();
        drop(come);
        exchange.respond(if waited.timed_out() { 504 } else { 200 }, &[], b"open")
    });
}

/// A step that ends when the gate of the registry is open.
fn behind_the_gate(registry: &Registry) -> String {
    format!("RUN --network=host wget -q -O /two http://{}/gate\n", registry.host())
}

#[test]
fn layers_leave_while_later_steps_run() {
    const NAME: &str = "layers_leave_while_later_steps_run";
    let registry = Registry::start();
    let Some(world) = world(NAME, "unpushed") else { return };
    // That of the base, and /one.
    gate(&registry, "PUT", 2, |exchange| exchange.serve());
    let dockerfile = format!("FROM base\nRUN echo one > /one\n{}", behind_the_gate(&registry));
    write_files(&world.path("context"), &[("Dockerfile", &dockerfile)]);
    let name = registry.reference("app:1");
    let mut build = world.rbuild();
    build.args(["build", "--allow=network.host", "--push", "-t", &name]).arg(world.path("context"));
    let said = text(succeed(&mut build).stderr);
    assert_eq!(said.matches(": layer ").count(), 3, "{said}");
    // Those are not asked for again: each has one request whether it is there.
    let heads = |seen: &&Seen| seen.method == "HEAD" && seen.path.starts_with("/v2/app/blobs/");
    let mut asked: Vec<String> =
        registry.requests().iter().filter(heads).map(|seen| seen.path.clone()).collect();
    let all = asked.len();
    asked.sort();
    asked.dedup();
    assert_eq!((all, asked.len()), (4, 4), "{asked:?}");
    let other = World::new();
    succeed(other.rbuild().args(["pull", &name]));
    assert_eq!(text(succeed(other.rbuild().args(["run", &name, "cat", "/one", "/two"])).stdout), "one\nopen");
    world.assert_sound();
}

#[test]
fn what_leaves_early_is_given_up_when_a_later_step_fails() {
    const NAME: &str = "what_leaves_early_is_given_up_when_a_later_step_fails";
    let registry = Registry::start();
    let Some(world) = world(NAME, "unpushed") else { return };
    gate(&registry, "POST", 1, |exchange| exchange.serve());
    registry.on("/v2/app/blobs/uploads/1", |_, exchange| {
        exchange.hold();
        Ok(())
    });
    let dockerfile = format!("FROM base\n{}RUN false\n", behind_the_gate(&registry));
    write_files(&world.path("context"), &[("Dockerfile", &dockerfile)]);
    let mut build = world.rbuild();
    build.args(["build", "--allow=network.host", "--push", "-t", &registry.reference("app:1")]);
    let said = check_code(build.arg(world.path("context")), 1);
    assert!(said.contains("RUN false") && !said.contains("push"), "{said}");
    assert_eq!(registry.count("/v2/app/manifests/"), 0);
    world.assert_sound();
}

#[test]
fn what_does_not_get_ahead_is_pushed_in_the_end() {
    const NAME: &str = "what_does_not_get_ahead_is_pushed_in_the_end";
    let registry = Registry::start();
    let Some(world) = world(NAME, "unpushed") else { return };
    let asked = AtomicUsize::new(0);
    gate(&registry, "POST", 1, move |exchange| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => exchange.respond(403, &[], b"{}"),
        _ => exchange.serve(),
    });
    // As a registry does that has cleared away what nothing names.
    registry.on("/v2/app/manifests/", |seen, exchange| match seen.earlier {
        0 => exchange.respond(404, &[], br#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}"#),
        _ => exchange.serve(),
    });
    let dockerfile = format!("FROM base\n{}", behind_the_gate(&registry));
    write_files(&world.path("context"), &[("Dockerfile", &dockerfile)]);
    let name = registry.reference("app:1");
    let build = || {
        let mut build = world.rbuild();
        build.args(["build", "--allow=network.host", "--push", "-t", &name]).arg(world.path("context"));
        build
    };
    // Nothing of it had gone ahead, so the refusal is what it is.
    check_code(&mut build(), 3);
    succeed(&mut build());
    succeed(World::new().rbuild().args(["pull", &name]));

    let second = Registry::start();
    second.on("/v2/app/manifests/", |seen, exchange| match seen.earlier {
        0 => exchange.respond(404, &[], br#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}"#),
        _ => exchange.serve(),
    });
    let name = second.reference("app:1");
    succeed(
        world
            .rbuild()
            .args(["build", "--allow=network.host", "--push", "-t", &name])
            .arg(world.path("context")),
    );
    let asked = second.requests().into_iter().filter(|seen| seen.method == "HEAD").count();
    assert_eq!(asked, 6, "three blobs, twice");
}

#[test]
fn who_may_not_push_is_told_once_and_keeps_the_image() {
    const NAME: &str = "who_may_not_push_is_told_once_and_keeps_the_image";
    let registry = Registry::start();
    let Some(world) = world(NAME, "unpushed") else { return };
    gate(&registry, "POST", 1, |exchange| exchange.respond(403, &[], b"{}"));
    let dockerfile = format!("FROM base\n{}", behind_the_gate(&registry));
    write_files(&world.path("context"), &[("Dockerfile", &dockerfile)]);
    let name = registry.reference("app:1");
    let mut build = world.rbuild();
    build.args(["build", "--allow=network.host", "--push", "-t", &name]).arg(world.path("context"));
    let said = check_code(&mut build, 3);
    assert_eq!(said.matches("error").count(), 1, "{said}");
    succeed(world.rbuild().args(["run", &name, "cat", "/two"]));
}

/// Of each layer that was sent: whether it was compressed meanwhile, and its bytes.
fn bodies(registry: &Registry) -> Vec<(bool, usize)> {
    let requests = registry.requests().into_iter().filter(|seen| seen.method == "PATCH");
    requests.map(|seen| (seen.header("transfer-encoding").is_some(), seen.body.len())).collect()
}

#[test]
fn a_large_layer_leaves_while_it_is_compressed() {
    const NAME: &str = "a_large_layer_leaves_while_it_is_compressed";
    let name = |registry: &Registry| registry.reference("team/app:1");
    let registry = Registry::start();
    let Some(world) = world(NAME, "unpushed") else { return };
    succeed(world.rbuild().args(["tag", "unpushed", &name(&registry)]));
    let said = text(succeed(world.rbuild().args(["push", &name(&registry)])).stderr);
    assert_eq!(said.matches(": layer ").count(), 4, "{said}");
    // That of the base is large, too.
    let sent = bodies(&registry);
    assert!(
        sent.len() >= 2 && sent.iter().any(|(is_open, bytes)| *is_open && *bytes > 6_000_000),
        "{sent:?}"
    );
    let other = World::new();
    succeed(other.rbuild().args(["pull", &name(&registry)]));
    other.assert_sound();
    // It is compressed now, so that whether it is there can be asked first.
    let second = Registry::start();
    succeed(world.rbuild().args(["tag", &name(&registry), &name(&second)]));
    succeed(world.rbuild().args(["push", &name(&second)]));
    let sent = bodies(&second);
    assert!(sent.iter().all(|(is_open, _)| !is_open), "{sent:?}");
    world.assert_sound();
}

#[test]
fn a_build_compresses_what_its_names_say_will_be_pushed() {
    const NAME: &str = "a_build_compresses_what_its_names_say_will_be_pushed";
    let Some(world) = world(NAME, "unpushed") else { return };
    let build = |args: &[&str]| succeed(world.rbuild().arg("build").args(args).arg(world.path("context")));
    let check = |is_compressed: bool, tag: &str, args: &[&str]| {
        let registry = Registry::start();
        let (tag, name) = (tag.replace("REGISTRY", &registry.host()), registry.reference("app:1"));
        let case = format!("-t {tag} {args:?}");
        // A large layer of its own each time, of which it is built from a cache that it has to be compressed still.
        let dockerfile = format!("FROM base AS stage\n{LARGE}LABEL case={case:?}\nFROM stage\n");
        write_files(&world.path("context"), &[("Dockerfile", &dockerfile)]);
        build(&["--no-cache", "-t", "unpushed"]);
        build(&[&["-t", &tag], args].concat());
        succeed(world.rbuild().args(["tag", tag.trim_start_matches("stage="), &name]));
        succeed(world.rbuild().args(["push", &name]));
        let sent = bodies(&registry);
        let large = sent.iter().find(|(_, bytes)| (6_000_000..6_100_000).contains(bytes));
        assert_eq!(large.map(|(is_open, _)| !is_open), Some(is_compressed), "{case}: {sent:?}");
    };
    check(true, "REGISTRY/team/app:1", &[]);
    check(true, "REGISTRY/team/app:1", &["--no-cache"]);
    for local in ["app", "team/app", "localhost/app"] {
        check(false, local, &[]);
    }
    check(true, "app", &["-o", "type=image,compression=gzip"]);
    check(false, "REGISTRY/team/app:1", &["-o", "type=image,compression=uncompressed"]);
    // Those that the image has in the end.
    check(true, "REGISTRY/team/app:1", &["--squash"]);
    let epoch = ["-o", "type=image,rewrite-timestamp=true", "--build-arg", "SOURCE_DATE_EPOCH=1"];
    check(true, "REGISTRY/team/app:1", &epoch);
    check(true, "stage=REGISTRY/team/stage:1", &[]);
    world.assert_sound();
    let refused = |outputs: [&str; 2]| {
        let mut build = world.rbuild();
        build
            .args(["build", "-t", "registry.test/app"])
            .args(outputs.map(|output| format!("--output={output}")));
        check_code(build.arg(world.path("context")), 2)
    };
    let said = refused(["type=image,compression=gzip", "type=image,compression=uncompressed"]);
    assert!(said.contains("it is one image"), "{said}");
    let said = refused(["type=image,compression=gzip", "type=registry"]);
    assert!(said.contains("another one pushes it now"), "{said}");
}

#[test]
fn layers_are_compressed_while_later_steps_run() {
    const NAME: &str = "layers_are_compressed_while_later_steps_run";
    let registry = Registry::start();
    let Some(world) = world(NAME, "unpushed") else { return };
    let (open, is_open) = mpsc::channel();
    let is_open = Mutex::new(is_open);
    registry.on("/gate", move |_, exchange| {
        let opened = is_open.lock().unwrap().recv_timeout(PATIENCE);
        exchange.respond(if opened.is_ok() { 200 } else { 504 }, &[], b"open")
    });
    let dockerfile = format!("FROM base\n{LARGE}{}", behind_the_gate(&registry));
    write_files(&world.path("context"), &[("Dockerfile", &dockerfile)]);
    let name = registry.reference("app:1");
    let mut build = world.rbuild();
    build.args(["--debug", "build", "--allow=network.host", "-t", &name]).arg(world.path("context"));
    let mut build = build.stderr(Stdio::piped()).spawn().expect("rbuild starts");
    let lines = BufReader::new(build.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let mut said = Vec::new();
    for line in lines {
        if line.contains("a layer is compressed") && line.contains("bytes=60") {
            // It waits for that.
            open.send(()).expect("the step");
        }
        said.push(line);
    }
    assert!(build.wait().expect("it ends").success(), "{said:#?}");
    world.assert_sound();
}

#[test]
fn an_image_is_pushed_by_its_digest_alone() {
    const NAME: &str = "an_image_is_pushed_by_its_digest_alone";
    let registry = Registry::start();
    let Some(world) = world(NAME, "unpushed") else { return };
    let (context, metadata) = (world.path("context"), world.path("metadata.json"));
    let output =
        |name: &str| format!("type=image,name={name},push=true,push-by-digest=true,name-canonical=true");
    let build = |name: &str| {
        let mut command = world.rbuild();
        command.args(["build", "--metadata-file"]).arg(&metadata).args(["-o", &output(name)]).arg(&context);
        command
    };
    let name = registry.reference("app");
    succeed(&mut build(&name));
    let digest_in = |metadata: &Path| {
        let document: Value = serde_json::from_slice(&std::fs::read(metadata).unwrap()).expect("JSON");
        document["containerimage.digest"].as_str().expect("a digest").to_owned()
    };
    let digest = digest_in(&metadata);
    let put: Vec<String> = registry.requests().into_iter().map(|seen| seen.path).collect();
    let put: Vec<&String> = put.iter().filter(|path| path.starts_with("/v2/app/manifests/")).collect();
    assert_eq!(put, [&format!("/v2/app/manifests/{digest}")]);
    let canonical = format!("{name}@{digest}");
    assert_eq!(text(succeed(World::new().rbuild().args(["run", &canonical])).stdout), "one\ntwo");
    assert_eq!(text(succeed(world.rbuild().args(["run", "--pull=never", &canonical])).stdout), "one\ntwo");
    // Also where the manifest is not one that the image is kept with.
    succeed(build(&name).args(["--annotation", "a=b"]));
    let annotated = digest_in(&metadata);
    assert_ne!(annotated, digest);
    succeed(world.rbuild().args(["run", "--pull=never", &format!("{name}@{annotated}")]));
    for tag in ["app:1", "app:latest"] {
        let said = check_code(&mut build(&registry.reference(tag)), 2);
        assert!(said.contains("has a tag"), "{said}");
    }
    let mut tagged = world.rbuild();
    tagged.args([
        "build",
        "-t",
        &registry.reference("app:latest"),
        "-o",
        "type=registry,push-by-digest=true",
    ]);
    assert!(check_code(tagged.arg(&context), 2).contains("has a tag"));
}

#[test]
fn a_registry_that_nobody_vouches_for_is_believed_where_it_is_said() {
    const NAME: &str = "a_registry_that_nobody_vouches_for_is_believed_where_it_is_said";
    let registry = Registry::start_tls(Identity::SelfSigned);
    let Some(world) = world(NAME, "unpushed") else { return };
    let build = |insecure: &str| {
        let output = format!("type=registry,name={}{insecure}", registry.reference("app:1"));
        let mut command = world.rbuild();
        command.args(["build", "-o", &output]).arg(world.path("context"));
        command
    };
    check_code(&mut build(""), 3);
    check_code(&mut build(",registry.insecure=false"), 3);
    succeed(&mut build(",registry.insecure=true"));
    let said = check_code(build(",registry.insecure=true").arg("--tls-verify=true"), 2);
    assert!(said.contains("say two things"), "{said}");
    assert!(registry.count("/v2/app/manifests/") > 0);
    let said = check_code(
        world.rbuild().args(["build", "-o", "type=image,registry.insecure=true"]).arg(world.path("context")),
        2,
    );
    assert!(said.contains("is not pushed"), "{said}");
}

#[test]
fn an_index_of_several_platforms_is_pushed_whole() {
    let Some(world) = with_both("an_index_of_several_platforms_is_pushed_whole") else { return };
    let registry = Registry::start();
    let name = registry.reference("app:1");
    let dockerfile = "FROM base\nCOPY Dockerfile /\n";
    write_files(&world.path("context"), &[("Dockerfile", dockerfile)]);
    let mut build = world.rbuild();
    build.args(["build", "--platform=linux/amd64,linux/arm64", "--push", "-t", &name]);
    succeed(build.arg(world.path("context")));
    let other = World::new();
    for architecture in ["amd64", "arm64"] {
        let platform = format!("linux/{architecture}");
        let id = text(succeed(other.rbuild().args(["pull", "--platform", &platform, &name])).stdout);
        let shown: Value =
            serde_json::from_slice(&succeed(other.rbuild().args(["inspect", &id])).stdout).expect("JSON");
        assert_eq!(shown[0]["Architecture"], architecture);
    }
    // One of them by itself is no index.
    let one = registry.reference("app:one");
    succeed(world.rbuild().args(["tag", &name, &one]));
    succeed(world.rbuild().args(["push", "--platform=linux/arm64", &one]));
    let manifest = registry.requests().into_iter().rfind(|seen| seen.method == "PUT").expect("a manifest");
    assert!(!String::from_utf8_lossy(&manifest.body).contains("manifests"));
    assert!(
        check_code(world.rbuild().args(["push", "--platform=linux/s390x", &one]), 2).contains("linux/arm64")
    );
}

#[test]
fn all_tags_of_a_repository_are_pushed_if_all_are_wanted() {
    const NAME: &str = "all_tags_of_a_repository_are_pushed_if_all_are_wanted";
    let registry = Registry::start();
    let name = registry.reference("team/app:1");
    let Some(world) = world(NAME, &name) else { return };
    for tag in ["2", "3"] {
        succeed(world.rbuild().args(["tag", &name, &registry.reference(&format!("team/app:{tag}"))]));
    }
    succeed(world.rbuild().args(["tag", &name, &registry.reference("team/other")]));
    succeed(world.rbuild().args(["push", "-a", &registry.reference("team/app")]));
    let put = registry.requests().into_iter().filter(|seen| seen.path.contains("/manifests/"));
    let put: Vec<String> = put.map(|seen| seen.path).collect();
    assert_eq!(put, ["1", "2", "3"].map(|tag| format!("/v2/team/app/manifests/{tag}")));
    check_code(world.rbuild().args(["push", "-a", &registry.reference("team/nothing")]), 2);
    check_code(world.rbuild().args(["push", "-a", &name]), 2);
    let other = World::new();
    let pulled = succeed(other.rbuild().args(["pull", "-q", "--all-tags", &registry.reference("team/app")]));
    assert_eq!((pulled.stderr, text(pulled.stdout).lines().count()), (Vec::new(), 3));
    for tag in ["1", "2", "3"] {
        succeed(other.rbuild().args(["inspect", &registry.reference(&format!("team/app:{tag}"))]));
    }
    check_code(other.rbuild().args(["pull", "-a", &name]), 2);
    other.assert_sound();
}

#[test]
fn who_cannot_push_is_told_why() {
    const NAME: &str = "who_cannot_push_is_told_why";
    let registry = Registry::start();
    let name = registry.reference("team/app:1");
    let Some(world) = world(NAME, &name) else { return };
    assert!(
        check_code(world.rbuild().args(["push", &registry.reference("nothing")]), 2).contains("no-image")
    );
    registry.set_access(Access::Basic("hub", "correct horse"));
    let said = check_code(world.rbuild().args(["push", &name]), 3);
    assert!(said.contains("without a login") && said.contains("rbuild login"), "{said}");
    let config =
        format!(r#"{{"auths":{{"{}":{{"username":"hub","password":"correct horse"}}}}}}"#, registry.host());
    write_files(&world.path("docker"), &[("config.json", &config)]);
    let mut push = world.rbuild();
    push.env("DOCKER_CONFIG", world.path("docker")).args(["push", "--debug", &name]);
    let said = text(succeed(&mut push).stderr);
    assert!(!said.contains("correct horse") && !said.contains("aHViOmNvcnJlY3QgaG9yc2U="), "{said}");
}

#[test]
fn a_damaged_layer_ends_the_push_and_is_named() {
    const NAME: &str = "a_damaged_layer_ends_the_push_and_is_named";
    let registry = Registry::start();
    let name = registry.reference("team/app:1");
    let Some(world) = world(NAME, &name) else { return };
    succeed(world.rbuild().args(["push", &name]));
    let manifest = registry.requests().into_iter().rfind(|seen| seen.method == "PUT").expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest.body).expect("JSON");
    let layers = manifest["layers"].as_array().expect("layers");
    let largest = layers.iter().max_by_key(|layer| layer["size"].as_u64()).expect("a layer");
    let digest = largest["digest"].as_str().expect("a digest");
    let blob = world.store().join("blobs").join(digest.replace(':', "/"));
    let bytes = std::fs::read(&blob).expect("a blob");
    for damaged in [&bytes[..bytes.len() / 2], &[&bytes[..bytes.len() - 1], b"?"].concat()] {
        // Blobs are read-only.
        std::fs::remove_file(&blob).expect("it was there");
        std::fs::write(&blob, damaged).expect("it is written");
        let other = Registry::start();
        let elsewhere = other.reference("team/app:1");
        succeed(world.rbuild().args(["tag", &name, &elsewhere]));
        let said = check_code(world.rbuild().args(["push", &elsewhere]), 4);
        assert!(said.contains(digest) && said.contains("rbuild fsck"), "{said}");
        let put = other.requests().into_iter().find(|seen| seen.path.contains("/manifests/"));
        assert!(put.is_none(), "it got a name");
    }
}

#[test]
fn layers_leave_at_the_level_and_in_the_compression_that_are_asked_for() {
    const NAME: &str = "layers_leave_at_the_level_and_in_the_compression_that_are_asked_for";
    let registry = Registry::start();
    let base = registry.reference("base");
    let Some(world) = world(NAME, &base) else { return };
    succeed(world.rbuild().args(["push", &base]));
    // Somebody else's layers are those that were pulled.
    let other = World::new();
    succeed(other.rbuild().args(["pull", &base]));
    let context = other.path("context");
    let words: String =
        (0..60_000).map(|n: u32| format!("{} ", n.wrapping_mul(2_654_435_761) >> 12)).collect();
    write_files(&context, &[("Dockerfile", &format!("FROM {base}\nCOPY words /words\n")), ("words", &words)]);
    let layers = |name: &str| -> Vec<(String, u64)> {
        let raw = succeed(other.rbuild().args(["manifest", "inspect", "--raw", name])).stdout;
        let manifest: Value = serde_json::from_slice(&raw).expect("JSON");
        let layer = |layer: &Value| {
            let media_type =
                layer["mediaType"].as_str().expect("a type").rsplit(['.', '+']).next().expect("an end");
            (media_type.to_owned(), layer["size"].as_u64().expect("a size"))
        };
        manifest["layers"].as_array().expect("layers").iter().map(layer).collect()
    };
    let build = |name: &str, fields: &str| {
        let output = format!("type=image,name={name},push=true{fields}");
        succeed(other.rbuild().args(["build", "-q", "-o", &output]).arg(&context));
        layers(name)
    };
    let usual = build(&registry.reference("usual"), "");
    let fast = build(&registry.reference("fast"), ",compression-level=1");
    let small = build(&registry.reference("small"), ",compression-level=12");
    let last = |layers: &[(String, u64)]| layers.last().expect("layers").1;
    assert!(last(&fast) > last(&usual) && last(&usual) > last(&small), "{fast:?} {usual:?} {small:?}");
    // The base came as gzip and leaves so.
    let zstd = build(&registry.reference("zstd"), ",compression=zstd");
    assert!(zstd[0].0 == "gzip" && zstd.last().unwrap().0 == "zstd", "{zstd:?}");
    let forced = build(&registry.reference("forced"), ",compression=zstd,force-compression=true");
    assert!(forced.iter().all(|(media_type, _)| media_type == "zstd"), "{forced:?}");
    // By hand.
    let name = registry.reference("byhand");
    succeed(other.rbuild().args(["tag", &base, &name]));
    succeed(other.rbuild().args(["push", "--compression=zstd", &name]));
    assert!(layers(&name).iter().all(|(media_type, _)| media_type == "gzip"));
    succeed(other.rbuild().args(["push", "--compression=zstd", "--force-compression", &name]));
    assert!(layers(&name).iter().all(|(media_type, _)| media_type == "zstd"));
    assert_eq!(text(succeed(World::new().rbuild().args(["run", &name])).stdout), "one\ntwo");
    other.assert_sound();
}

#[test]
fn memory_does_not_grow_with_layers() {
    const NAME: &str = "memory_does_not_grow_with_layers";
    /// What a command may have of it, stacks of threads included.
    const LIMIT_BYTES: usize = 128 << 20;
    const LAYER_BYTES: usize = 200_000_000;
    if !testkit::can_run(NAME, &[Need::Program("prlimit"), Need::Program("docker-registry")]) {
        return;
    }
    let directory = World::new();
    let registry = DebianRegistry::start(&directory.path("."));
    let Some(world) = World::with_base(NAME) else { return };
    let dockerfile = format!("FROM base\nRUN head -c {LAYER_BYTES} /dev/urandom > /large\n");
    write_files(&world.path("context"), &[("Dockerfile", &dockerfile)]);
    let limited = |world: &World, args: &[&str]| {
        let rbuild = world.rbuild();
        let mut command = Command::new("prlimit");
        // However many processors there are: each thread's stack counts.
        command.env_clear().env("HOME", world.path("home")).env("RAYON_NUM_THREADS", "2");
        command.arg(format!("--data={LIMIT_BYTES}"));
        command.arg(rbuild.get_program()).args(rbuild.get_args()).args(args);
        succeed(&mut command);
    };
    let name = format!("{}/team/large:1", registry.host);
    let context = world.path("context");
    let context = context.to_str().expect("UTF-8");
    limited(&world, &["build", "-t", "unpushed", context]);
    // Compressed while it leaves, and while it is built.
    limited(&world, &["tag", "unpushed", &name]);
    limited(&world, &["push", &name]);
    limited(&world, &["build", "--no-cache", "-t", &name, context]);
    limited(&world, &["push", &name]);
    let other = World::new();
    limited(&other, &["pull", &name]);
    limited(&other, &["tag", &name, &format!("{}/team/other:1", registry.host)]);
    limited(&other, &["push", &format!("{}/team/other:1", registry.host)]);
    let archive = other.path("large.tar");
    limited(&other, &["save", "--format", "docker", "-o", archive.to_str().expect("UTF-8"), &name]);
    other.assert_sound();
}
