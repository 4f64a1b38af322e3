//! Options of `build` that are about how, not what: each does its job.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::world::{World, write_files};

struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn command(world: &World, args: &[&str]) -> Command {
    let mut command = world.rbuild();
    command.args(["build", "-t", "app"]).args(args).arg(world.path("context"));
    command
}

fn run(command: &mut Command) -> Said {
    let output = command.output().expect("rbuild starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

fn world(test: &str, dockerfile: &str) -> Option<World> {
    let world = World::with_base(test)?;
    write_files(&world.path("context"), &[("Dockerfile", dockerfile)]);
    Some(world)
}

fn is_kept(world: &World) -> bool {
    run(world.rbuild().args(["inspect", "app"])).code == Some(0)
}

#[test]
fn rawjson_is_the_stream_of_the_reference_builder() {
    const NAME: &str = "rawjson_is_the_stream_of_the_reference_builder";
    let Some(world) = world(NAME, "FROM base AS One\nCOPY <<end /f\nf\nend\nRUN echo made\n") else { return };
    let said = run(&mut command(&world, &["--progress=rawjson"]));
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let records: Vec<Value> = said
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is a document"))
        .collect();
    let all =
        |key: &str| records.iter().filter_map(|record| record[key].as_array()).flatten().collect::<Vec<_>>();
    let vertexes = all("vertexes");
    let run_of =
        |vertex: &&&Value| vertex["name"].as_str().is_some_and(|name| name.ends_with("RUN echo made"));
    let run_record = vertexes.iter().rfind(run_of).expect("a RUN");
    for key in ["digest", "started", "completed"] {
        assert!(run_record[key].is_string(), "{key}: {run_record}");
    }
    let inputs = run_record["inputs"].as_array().expect("inputs");
    assert!(inputs.iter().all(|input| vertexes.iter().any(|vertex| vertex["digest"] == *input)));
    let logs = all("logs");
    let log = logs.iter().find(|log| log["vertex"] == run_record["digest"]).expect("a log");
    assert_eq!(STANDARD.decode(log["data"].as_str().expect("text")).expect("base64"), b"made\n");
    assert_eq!(log["stream"], 1);
    let warnings = all("warnings");
    let short = STANDARD.decode(warnings[0]["short"].as_str().expect("text")).expect("base64");
    assert!(String::from_utf8_lossy(&short).starts_with("StageNameCasing: "));
    let again = run(&mut command(&world, &["--progress=rawjson"]));
    assert!(again.stderr.contains("\"cached\":true"), "{}", again.stderr);
}

#[test]
fn a_step_that_fails_is_completed_with_an_error_in_rawjson() {
    const NAME: &str = "a_step_that_fails_is_completed_with_an_error_in_rawjson";
    let Some(world) = world(NAME, "FROM base\nRUN false\n") else { return };
    let said = run(&mut command(&world, &["--progress=rawjson"]));
    assert_eq!(said.code, Some(1));
    let failed = said.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    assert!(failed.into_iter().any(|record| record["vertexes"][0]["error"].is_string()), "{}", said.stderr);
}

#[test]
fn progress_is_what_is_asked_for_or_what_the_environment_says() {
    const NAME: &str = "progress_is_what_is_asked_for_or_what_the_environment_says";
    let Some(world) = world(NAME, "FROM base\nRUN echo made\n") else { return };
    let with = |variable: &str, args: &[&str]| run(command(&world, args).env("BUILDKIT_PROGRESS", variable));
    let plain = run(&mut command(&world, &["--no-cache"]));
    assert!(plain.stderr.contains("made") && plain.stdout.is_empty());
    assert_eq!(with("none", &["--no-cache"]).stderr, "");
    assert!(with("none", &["--no-cache", "--progress=plain"]).stderr.contains("made"));
    assert!(with("rawjson", &["--no-cache"]).stderr.starts_with('{'));
    assert_eq!(with("loud", &[]).code, Some(2));
    let none = run(&mut command(&world, &["--progress=none"]));
    assert_eq!((none.code, none.stdout.as_str(), none.stderr.as_str()), (Some(0), "", ""));
    let quiet = run(&mut command(&world, &["--progress=quiet"]));
    assert!(quiet.stdout.starts_with("sha256:") && quiet.stderr.is_empty(), "{}", quiet.stdout);
}

#[test]
fn load_keeps_the_image_besides_another_output() {
    let Some(world) = world("load_keeps_the_image_besides_another_output", "FROM base\n") else { return };
    let out = format!("type=oci,dest={}", world.path("app.tar").display());
    assert_eq!(run(&mut command(&world, &["-o", &out])).code, Some(0));
    assert!(!is_kept(&world), "it was only written out");
    assert_eq!(run(&mut command(&world, &["-o", &out, "--load"])).code, Some(0));
    assert!(is_kept(&world));
}

#[test]
fn options_of_builders_before_are_so_anyway_or_refused() {
    let Some(world) = world("options_of_builders_before_are_so_anyway_or_refused", "FROM base\n") else {
        return;
    };
    let accepted =
        ["--rm", "--rm=true", "--force-rm", "--force-rm=false", "--compress", "--isolation=default"];
    for option in accepted.into_iter().chain(["--disable-content-trust"]) {
        let said = run(&mut command(&world, &[option]));
        assert_eq!(said.code, Some(0), "{option}: {}", said.stderr);
    }
    let told =
        run(&mut command(&world, &["--compress", "--force-rm", "--disable-content-trust=false"])).stderr;
    for words in ["`--compress` has nothing to do", "`--force-rm` has", "`--disable-content-trust=false` has"]
    {
        assert!(told.contains(words), "should say `{words}`: {told}");
    }
    for (option, words) in [("--rm=false", "rbuild shell"), ("--isolation=hyperv", "Windows")] {
        let said = run(&mut command(&world, &[option]));
        assert_eq!(said.code, Some(2), "{option}");
        assert!(said.stderr.contains(words), "{option}: {}", said.stderr);
    }
}

#[test]
fn an_unknown_option_is_refused_with_the_nearest_one() {
    let world = World::new();
    for (option, nearest) in
        [("--buildarg=a=b", "--build-arg"), ("--no-cach", "--no-cache"), ("--platfrom=x", "--platform")]
    {
        let said = run(world.rbuild().args(["build", option, "."]));
        assert_eq!(said.code, Some(2));
        assert!(said.stderr.contains(nearest), "{option}: {}", said.stderr);
    }
}

#[test]
fn debugging_has_a_short_name() {
    let Some(world) = world("debugging_has_a_short_name", "FROM base\n") else { return };
    assert!(run(&mut command(&world, &["-D"])).stderr.contains("DEBUG"));
    assert!(!run(&mut command(&world, &[])).stderr.contains("DEBUG"));
}

#[test]
fn warnings_are_in_the_metadata_if_they_are_asked_for() {
    const NAME: &str = "warnings_are_in_the_metadata_if_they_are_asked_for";
    let Some(world) = world(NAME, "FROM base AS One\n") else { return };
    let file = world.path("metadata");
    let metadata = |asked: &str| {
        let option = format!("--metadata-file={}", file.display());
        let said = run(command(&world, &[&option, "-q"]).env("BUILDX_METADATA_WARNINGS", asked));
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        serde_json::from_slice::<Value>(&std::fs::read(&file).expect("a file")).expect("JSON")
    };
    assert_eq!(metadata("0")["buildx.build.warnings"], Value::Null);
    let found = metadata("true");
    let warning = &found["buildx.build.warnings"][0];
    let short = STANDARD.decode(warning["short"].as_str().expect("text")).expect("base64");
    assert!(String::from_utf8_lossy(&short).starts_with("StageNameCasing: "));
    assert_eq!(warning["range"][0]["start"]["line"], 1);
}

#[test]
fn labels_say_which_commit_the_context_is() {
    const NAME: &str = "labels_say_which_commit_the_context_is";
    let Some(world) = world(NAME, "FROM base\nLABEL a=b\n") else { return };
    if !testkit::can_run(NAME, &[testkit::requirements::Need::Program("git")]) {
        return;
    }
    let context = world.path("context");
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(args).current_dir(&context);
        let output = crate::world::succeed(command.env("GIT_CONFIG_GLOBAL", "/dev/null"));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    git(&["init", "-q"]);
    git(&["remote", "add", "origin", "https://me:secret@example.com/r.git"]);
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "x"]);
    let labels = |asked: &str, args: &[&str]| {
        let mut command = command(&world, args);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let said = run(command.env("PATH", path).env("BUILDX_GIT_LABELS", asked));
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        let said = run(world.rbuild().args(["inspect", "app"]));
        serde_json::from_str::<Value>(&said.stdout).expect("JSON")[0]["Config"]["Labels"].clone()
    };
    let head = git(&["rev-parse", "HEAD"]);
    let (revision, entry) = ("org.opencontainers.image.revision", "com.docker.image.source.entrypoint");
    assert_eq!(labels("", &[]), serde_json::json!({ "a": "b" }));
    assert_eq!(labels("1", &[]), serde_json::json!({ "a": "b", revision: head, entry: "Dockerfile" }));
    let source = "org.opencontainers.image.source";
    let given = format!("--label={revision}=mine");
    let expected = serde_json::json!({ "a": "b", revision: "mine", entry: "Dockerfile", source: "https://example.com/r.git" });
    assert_eq!(labels("full", &[&given]), expected);
    write_files(&context, &[("new", "")]);
    assert_eq!(labels("1", &[])[revision], format!("{head}-dirty"));
}

#[test]
fn what_is_decided_is_told_if_it_is_asked_for() {
    let Some(world) = world("what_is_decided_is_told_if_it_is_asked_for", "FROM base\n") else { return };
    assert!(!run(&mut command(&world, &[])).stderr.contains("DEBUG"));
    assert!(run(&mut command(&world, &["--debug"])).stderr.contains("DEBUG"));
}

#[test]
fn as_many_steps_run_at_once_as_jobs_are_given() {
    const NAME: &str = "as_many_steps_run_at_once_as_jobs_are_given";
    // Whoever finds another one at work fails.
    let run = |stage: &str| {
        format!(
            "FROM base AS {stage}\nRUN --mount=type=cache,id=place,target=/c mkdir /c/work && sleep 0.5 && rmdir /c/work && touch /{stage}\n"
        )
    };
    let copies = "FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n";
    let Some(world) = world(NAME, &format!("{}{}{copies}", run("a"), run("b"))) else { return };
    let alone = self::run(&mut command(&world, &["--jobs=1"]));
    assert_eq!(alone.code, Some(0), "{}", alone.stderr);
    let together = self::run(&mut command(&world, &["--jobs=2", "--no-cache"]));
    assert_eq!(together.code, Some(1), "{}", together.stderr);
}

#[test]
fn a_secret_of_the_type_env_is_a_variable() {
    const NAME: &str = "a_secret_of_the_type_env_is_a_variable";
    let Some(world) = world(NAME, "FROM base\nRUN --mount=type=secret,id=x cat /run/secrets/x > /seen\n")
    else {
        return;
    };
    let built = |args: &[&str]| run(command(&world, args).env("VARIABLE", "hello"));
    for secret in ["id=x,type=env,src=VARIABLE", "id=x,type=env,env=VARIABLE", "id=x,env=VARIABLE"] {
        let said = built(&["--no-cache", "--secret", secret]);
        assert_eq!(said.code, Some(0), "{secret}: {}", said.stderr);
        assert_eq!(run(world.rbuild().args(["run", "app", "cat", "/seen"])).stdout, "hello");
    }
    assert_eq!(built(&["--secret=id=x,type=file,src=VARIABLE"]).code, Some(2));
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_is() {
    const NAME: &str = "what_cannot_be_done_is_refused_before_anything_is";
    let Some(world) = world(NAME, "FROM base\nRUN echo ran\n") else { return };
    let file = world.path("out.tar");
    let outputs = [format!("type=tar,dest={}", file.display()), format!("type=oci,dest={}", file.display())];
    for (args, words) in [
        (vec!["-o", &outputs[0], "-o", &outputs[1]], "stands twice"),
        (vec!["--volume=/tmp:/x", "--volume=/usr:/x"], "two volumes are to be at `/x`"),
        (vec!["--squash=from:nothing"], "is not made FROM a stage"),
    ] {
        let said = run(&mut command(&world, &args));
        assert_eq!(said.code, Some(2), "{args:?}: {}", said.stderr);
        assert!(said.stderr.contains(words) && !said.stderr.contains("ran"), "{args:?}: {}", said.stderr);
    }
}

#[test]
fn nobody_has_to_read_what_is_said() {
    const NAME: &str = "nobody_has_to_read_what_is_said";
    let Some(world) = world(NAME, "FROM base\nRUN echo ran\n") else { return };
    let full = || std::fs::File::create("/dev/full").expect("it takes nothing");
    let code = |command: &mut Command| command.status().expect("rbuild starts").code();
    assert_eq!(code(command(&world, &[]).stderr(full())), Some(0));
    assert_eq!(code(command(&world, &["--progress=rawjson", "--no-cache"]).stderr(full())), Some(0));
    assert_eq!(code(world.rbuild().args(["rmi", "nothing"]).stderr(full())), Some(2));
    // Whoever asks for an id wants to have it.
    let said = run(command(&world, &["--quiet"]).stdout(full()));
    assert_eq!(said.code, Some(4));
    assert!(said.stderr.contains("cannot write to standard output"), "{}", said.stderr);
}
