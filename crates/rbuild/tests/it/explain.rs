//! Each kind of change is told by its right name: real builds, one before and one after the change.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::{Expect, expect};
use testkit::registry::Registry;

use crate::world::{World, succeed, write_files};

const DOCKERFILE: &str = "\
FROM base AS lib
COPY lib /lib
RUN cp -r /lib /built

FROM base
ARG VERSION=1
ENV GREETING=hello
WORKDIR /app
COPY src /app/src
RUN --mount=type=tmpfs,target=/scratch cat /app/src/a.txt
COPY --from=lib /built /app/built
RUN cat /app/built/x
";

const FILES: &[(&str, &str)] = &[
    ("Dockerfile", DOCKERFILE),
    (".dockerignore", "*.log\n"),
    ("src/a.txt", "a"),
    ("src/b.txt", "b"),
    ("src/c.txt", "c"),
    ("lib/x", "x"),
];

/// A context that was built once.
struct Built {
    world: World,
    context: PathBuf,
}

impl Built {
    fn new(test: &str) -> Option<Self> {
        let world = World::with_base(test)?;
        let context = world.path("context");
        write_files(&context, FILES);
        let built = Self { world, context };
        built.build(&[]);
        Some(built)
    }

    /// Builds, and gives the lines of the summary without times and without the image.
    #[track_caller]
    fn build(&self, args: &[&str]) -> String {
        let mut command = self.world.rbuild();
        command.args(["build", "--progress=plain"]).args(args).arg(&self.context);
        let output = succeed(&mut command);
        let text = String::from_utf8(output.stderr).expect("messages are UTF-8");
        let is_of_summary =
            |line: &&str| !["[", "image ", "pull"].iter().any(|other| line.starts_with(other));
        let lines = text.lines().filter(is_of_summary);
        let without_time = |line: &str| match line.split_once("ran: ") {
            Some((title, why)) => {
                format!("{}  {}\n", title.trim_end(), why.rsplit_once(", ").unwrap_or((why, "")).0)
            }
            None => format!("{}\n", line.split(" in ").next().unwrap_or_default()),
        };
        lines.map(without_time).collect()
    }

    fn replace(&self, from: &str, to: &str) {
        let path = self.context.join("Dockerfile");
        let text = fs::read_to_string(&path).expect("a Dockerfile");
        assert!(text.contains(from), "{from:?} is in the Dockerfile");
        fs::write(path, text.replace(from, to)).expect("a Dockerfile");
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.context.join(name), text).expect("a file");
    }
}

/// Changes something, builds, compares the summary, and puts everything back, so that the next case begins at the same place.
#[track_caller]
fn check(built: &Built, change: impl FnOnce(&Built, &Path), args: &[&str], expected: Expect) {
    change(built, &built.context);
    expected.assert_eq(&built.build(args));
    fs::remove_dir_all(&built.context).expect("the context can be removed");
    write_files(&built.context, FILES);
    // Not by adoption of what is recorded, so that each case is compared with this one.
    built.build(&["--no-cache"]);
}

#[test]
fn every_kind_of_change_is_told_by_its_name() {
    let Some(built) = Built::new("every_kind_of_change_is_told_by_its_name") else { return };
    let unchanged = |_: &Built, _: &Path| {};
    check(
        &built,
        unchanged,
        &[],
        expect![[r#"
        7 steps reused
    "#]],
    );
    check(
        &built,
        |built, _| built.write("src/a.txt", "other"),
        &[],
        expect![[r#"
            COPY src /app/src  src/a.txt changed
            RUN --mount=type=tmpfs,target=/scratch cat /app/src/a.txt  src/a.txt changed (COPY Dockerfile:9)
            COPY --from=lib /built /app/built  src/a.txt changed (COPY Dockerfile:9)
            RUN cat /app/built/x  src/a.txt changed (COPY Dockerfile:9)
            4 of 7 steps ran
        "#]],
    );
    let set_mode = |_: &Built, context: &Path| {
        fs::set_permissions(context.join("src/a.txt"), Permissions::from_mode(0o755)).expect("a mode");
    };
    check(
        &built,
        set_mode,
        &[],
        expect![[r#"
            COPY src /app/src  src/a.txt has mode 0755, was 0644
            RUN --mount=type=tmpfs,target=/scratch cat /app/src/a.txt  src/a.txt has mode 0755, was 0644 (COPY Dockerfile:9)
            COPY --from=lib /built /app/built  src/a.txt has mode 0755, was 0644 (COPY Dockerfile:9)
            RUN cat /app/built/x  src/a.txt has mode 0755, was 0644 (COPY Dockerfile:9)
            4 of 7 steps ran
        "#]],
    );
    check(
        &built,
        |built, _| built.write("src/new.txt", "new"),
        &[],
        expect![[r#"
            COPY src /app/src  src/new.txt is new
            RUN --mount=type=tmpfs,target=/scratch cat /app/src/a.txt  src/new.txt is new (COPY Dockerfile:9)
            COPY --from=lib /built /app/built  src/new.txt is new (COPY Dockerfile:9)
            RUN cat /app/built/x  src/new.txt is new (COPY Dockerfile:9)
            4 of 7 steps ran
        "#]],
    );
    let remove = |_: &Built, context: &Path| fs::remove_file(context.join("src/b.txt")).expect("removed");
    check(
        &built,
        remove,
        &[],
        expect![[r#"
            COPY src /app/src  src/b.txt was removed
            RUN --mount=type=tmpfs,target=/scratch cat /app/src/a.txt  src/b.txt was removed (COPY Dockerfile:9)
            COPY --from=lib /built /app/built  src/b.txt was removed (COPY Dockerfile:9)
            RUN cat /app/built/x  src/b.txt was removed (COPY Dockerfile:9)
            4 of 7 steps ran
        "#]],
    );
    check(
        &built,
        |built, _| built.write(".dockerignore", "*.log\nsrc/c.*\n"),
        &[],
        expect![[r#"
            COPY src /app/src  src/c.txt is excluded by line 2 of .dockerignore
            RUN --mount=type=tmpfs,target=/scratch cat /app/src/a.txt  src/c.txt is excluded by line 2 of .dockerignore (COPY Dockerfile:9)
            COPY --from=lib /built /app/built  src/c.txt is excluded by line 2 of .dockerignore (COPY Dockerfile:9)
            RUN cat /app/built/x  src/c.txt is excluded by line 2 of .dockerignore (COPY Dockerfile:9)
            4 of 7 steps ran
        "#]],
    );
    check(
        &built,
        |built, _| built.replace("GREETING=hello", "GREETING=bye"),
        &[],
        expect![[r#"
            RUN --mount=type=tmpfs,target=/scratch cat /app/src/a.txt  ENV GREETING changed
            RUN cat /app/built/x  ENV GREETING changed
            2 of 7 steps ran
        "#]],
    );
    check(
        &built,
        unchanged,
        &["--build-arg=VERSION=2"],
        expect![[r#"
            RUN --mount=type=tmpfs,target=/scratch cat /app/src/a.txt  ARG VERSION changed
            RUN cat /app/built/x  ARG VERSION changed
            2 of 7 steps ran
        "#]],
    );
    check(
        &built,
        |built, _| built.replace("type=tmpfs,", "type=tmpfs,size=1m,"),
        &[],
        expect![[r#"
            RUN --mount=type=tmpfs,size=1m,target=/scratch cat /app/src…  mount /scratch changed
            1 of 7 steps ran
        "#]],
    );
    check(
        &built,
        |built, _| built.replace("COPY src", "USER app\nCOPY src"),
        &[],
        expect![[r#"
            RUN --mount=type=tmpfs,target=/scratch cat /app/src/a.txt  user changed
            RUN cat /app/built/x  user changed
            2 of 7 steps ran
        "#]],
    );
    check(
        &built,
        |built, _| built.replace("cat /app/src/a.txt", "cat /app/src/b.txt"),
        &[],
        expect![[r#"
            RUN --mount=type=tmpfs,target=/scratch cat /app/src/b.txt  command changed
            1 of 7 steps ran
        "#]],
    );
    check(
        &built,
        |built, _| built.replace("COPY src", "RUN true\nCOPY src"),
        &[],
        expect![[r#"
            COPY src /app/src  instruction is new (RUN Dockerfile:9)
            RUN --mount=type=tmpfs,target=/scratch cat /app/src/a.txt  instruction is new (RUN Dockerfile:9)
            COPY --from=lib /built /app/built  instruction is new (RUN Dockerfile:9)
            RUN cat /app/built/x  instruction is new (RUN Dockerfile:9)
            1 step ran for the first time
            5 of 8 steps ran
        "#]],
    );
    check(
        &built,
        |built, _| built.replace("/app/src\n", "/app/source\nRUN ln -s source /app/src\n"),
        &[],
        expect![[r#"
            COPY src /app/source  destination changed
            RUN --mount=type=tmpfs,target=/scratch cat /app/src/a.txt  instruction is new (RUN Dockerfile:10)
            COPY --from=lib /built /app/built  instruction is new (RUN Dockerfile:10)
            RUN cat /app/built/x  instruction is new (RUN Dockerfile:10)
            1 step ran for the first time
            5 of 8 steps ran
        "#]],
    );
    check(
        &built,
        |built, _| built.replace("WORKDIR /app\n", ""),
        &[],
        expect![[r#"
        COPY src /app/src  WORKDIR /app was removed
        RUN --mount=type=tmpfs,target=/scratch cat /app/src/a.txt  working directory changed
        COPY --from=lib /built /app/built  working directory changed (RUN Dockerfile:9)
        RUN cat /app/built/x  working directory changed
        4 of 6 steps ran
    "#]],
    );
    check(
        &built,
        |built, _| built.replace("COPY lib", "COPY --chmod=700 lib"),
        &[],
        expect![[r#"
            COPY --chmod=700 lib /lib  mode changed
            RUN cp -r /lib /built  mode changed (COPY Dockerfile:2)
            COPY --from=lib /built /app/built  mode changed (COPY Dockerfile:2)
            RUN cat /app/built/x  mode changed (COPY Dockerfile:2)
            4 of 7 steps ran
        "#]],
    );
    check(
        &built,
        |built, _| built.write("lib/x", "y"),
        &[],
        expect![[r#"
            COPY lib /lib  lib/x changed
            RUN cp -r /lib /built  lib/x changed (COPY Dockerfile:2)
            COPY --from=lib /built /app/built  lib/x changed (COPY Dockerfile:2)
            RUN cat /app/built/x  lib/x changed (COPY Dockerfile:2)
            4 of 7 steps ran
        "#]],
    );
    check(
        &built,
        unchanged,
        &["--no-cache"],
        expect![[r#"
        7 steps ran because the cache is off
        7 steps ran
    "#]],
    );
    check(
        &built,
        unchanged,
        &["--no-cache-filter=lib"],
        expect![[r#"
        2 steps ran because the cache is off
        2 of 7 steps ran
    "#]],
    );
    check(
        &built,
        unchanged,
        &["--network=none"],
        expect![[r#"
            RUN cp -r /lib /built  network changed
            RUN --mount=type=tmpfs,target=/scratch cat /app/src/a.txt  network changed
            RUN cat /app/built/x  network changed
            3 of 7 steps ran
        "#]],
    );
    let new_base = |built: &Built, _: &Path| built.world.make_base("base", "RUN touch /new\n");
    check(
        &built,
        new_base,
        &[],
        expect![[r#"
            COPY lib /lib  image base:latest changed (FROM Dockerfile:1)
            RUN cp -r /lib /built  image base:latest changed (FROM Dockerfile:1)
            WORKDIR /app  image base:latest changed (FROM Dockerfile:1)
            COPY src /app/src  image base:latest changed (FROM Dockerfile:1)
            RUN --mount=type=tmpfs,target=/scratch cat /app/src/a.txt  image base:latest changed (FROM Dockerfile:1)
            COPY --from=lib /built /app/built  image base:latest changed (FROM Dockerfile:1)
            RUN cat /app/built/x  image base:latest changed (FROM Dockerfile:1)
            7 steps ran
        "#]],
    );
}

#[test]
fn a_change_is_told_also_after_a_build_that_failed() {
    let Some(built) = Built::new("a_change_is_told_also_after_a_build_that_failed") else { return };
    built.write("src/a.txt", "other");
    built.replace("cat /app/src/a.txt", "cat /app/src/a.txt && false");
    let mut command = built.world.rbuild();
    let output = command.arg("build").arg(&built.context).output().expect("rbuild starts");
    assert_eq!(output.status.code(), Some(1));
    built.replace(" && false", "");
    // The copy has run in the build that failed; the RUN upon it has not.
    expect![[r#"
        RUN --mount=type=tmpfs,target=/scratch cat /app/src/a.txt  src/a.txt changed (COPY Dockerfile:9)
        COPY --from=lib /built /app/built  src/a.txt changed (COPY Dockerfile:9)
        RUN cat /app/built/x  src/a.txt changed (COPY Dockerfile:9)
        3 of 7 steps ran
    "#]]
    .assert_eq(&built.build(&[]));
}

#[test]
fn two_sources_of_one_copy_are_told_apart() {
    let Some(built) = Built::new("two_sources_of_one_copy_are_told_apart") else { return };
    built.write("Dockerfile", "FROM base\nCOPY src/a.txt src/b.txt /\nRUN true\n");
    built.build(&[]);
    built.write("src/b.txt", "other");
    expect![[r#"
        COPY src/a.txt src/b.txt /  src/b.txt changed
        RUN true  src/b.txt changed (COPY Dockerfile:2)
        2 steps ran
    "#]]
    .assert_eq(&built.build(&[]));
}

#[test]
fn another_platform_is_told() {
    let Some(built) = Built::new("another_platform_is_told") else { return };
    let root = built.world.path("base-root");
    let layer = succeed(Command::new("tar").arg("-C").arg(root).args(["-c", "."])).stdout;
    let registry = Registry::start();
    let platforms = ["linux/amd64", "linux/arm64"];
    // The same program for both: what counts is what it is said to be for.
    let images = platforms.map(|platform| registry.add_image("many", &platform[6..], platform, &[&layer]));
    registry.add_index("many", "1", &[(&images[0], platforms[0]), (&images[1], platforms[1])]);
    let from = registry.reference("many:1");
    built.write("Dockerfile", &format!("ARG PLATFORM\nFROM --platform=$PLATFORM {from}\nRUN true\n"));
    built.build(&["--build-arg=PLATFORM=linux/amd64"]);
    expect![[r#"
        RUN true  platform changed
        1 step ran
    "#]]
    .assert_eq(&built.build(&["--build-arg=PLATFORM=linux/arm64"]));
}

#[test]
fn explain_shows_every_part_of_every_step() {
    let Some(built) = Built::new("explain_shows_every_part_of_every_step") else { return };
    built.write("src/a.txt", "other");
    built.write("src/new.txt", "new");
    built.build(&[]);
    let explain = |args: &[&str]| {
        let output = succeed(built.world.rbuild().arg("explain").args(args));
        String::from_utf8(output.stdout).expect("text")
    };
    let dockerfile = built.context.join("Dockerfile").display().to_string();
    let text = explain(&[]);
    assert_eq!(text, explain(&["-f", &dockerfile]));
    let text = built.world.without_paths(&text).replace(&dockerfile, "DOCKERFILE");
    expect![[r#"
        DOCKERFILE, built TIME

        [lib 1/3] FROM base AS lib  Dockerfile:1
          not needed: a later step was reused
          same     image

        [lib 2/3] COPY lib /lib  Dockerfile:2
          not needed, saves TIME: a later step was reused
          same     sources, destination, owner, mode, excludes, flags, files of context, parent

        [lib 3/3] RUN cp -r /lib /built  Dockerfile:3
          reused, saves TIME: nothing it is made from changed
          same     command, ENV PATH, working directory, user, network, host name, extra hosts, platform, parent

        [stage-1 2/6] WORKDIR /app  Dockerfile:8
          reused, saves TIME: nothing it is made from changed
          same     directory, user, parent

        [stage-1 3/6] COPY src /app/src  Dockerfile:9
          ran in TIME: src/a.txt changed
          and: src/new.txt is new
          changed  files of context
          same     sources, destination, owner, mode, excludes, flags, parent

        [stage-1 4/6] RUN --mount=type=tmpfs,target=/scratch cat /app/src/a.txt  Dockerfile:10
          ran in TIME: src/a.txt changed (COPY src /app/src Dockerfile:9)
          and: src/new.txt is new
          changed  parent
          same     command, ENV PATH, ARG VERSION, ENV GREETING, working directory, user, network, host name, extra hosts, mount /scratch, platform
          log      STORE/logs/LOG

        [stage-1 5/6] COPY --from=lib /built /app/built  Dockerfile:11
          ran in TIME: src/a.txt changed (COPY src /app/src Dockerfile:9)
          and: src/new.txt is new
          changed  parent
          same     sources, destination, owner, mode, excludes, flags, step lib

        [stage-1 6/6] RUN cat /app/built/x  Dockerfile:12
          ran in TIME: src/a.txt changed (COPY src /app/src Dockerfile:9)
          and: src/new.txt is new
          changed  parent
          same     command, ENV PATH, ARG VERSION, ENV GREETING, working directory, user, network, host name, extra hosts, platform
          log      STORE/logs/LOG
    "#]].assert_eq(&without_times(&text));
    let report: serde_json::Value = serde_json::from_str(&explain(&["--format=json"])).expect("JSON");
    let copy =
        report["steps"].as_array().into_iter().flatten().find(|step| step["title"] == "COPY src /app/src");
    let copy = copy.expect("the step is in the report");
    assert_eq!(copy["verdict"], "ran");
    assert_eq!(copy["changes"][0]["file"]["path"], "src/a.txt");
    assert_eq!(copy["changes"][0]["file"]["how"], "content");
    let parts = copy["parts"].as_array().expect("parts");
    assert!(parts.iter().any(|part| part["name"] == "files of context" && part["how"] == "changed"));
}

/// Times are not the same twice.
fn without_times(text: &str) -> String {
    let line = |line: &str| {
        let line = match line.split_once(", built ") {
            Some((dockerfile, _)) => format!("{dockerfile}, built TIME"),
            None => line.to_owned(),
        };
        match line.split_once(": ") {
            Some((verdict, reason)) if verdict.starts_with("  ran in ") => {
                format!("  ran in TIME: {reason}\n")
            }
            Some((verdict, reason)) if verdict.contains("saves ") => {
                format!("{} saves TIME: {reason}\n", verdict.split(" saves ").next().unwrap_or_default())
            }
            _ => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
}

#[test]
fn another_secret_runs_a_step_again_only_if_it_was_given_to_count() {
    let Some(world) = World::with_base("another_secret_runs_a_step_again_only_if_it_was_given_to_count")
    else {
        return;
    };
    let context = world.path("context");
    write_files(
        &context,
        &[("Dockerfile", "FROM base\nRUN --mount=type=secret,id=t cat /run/secrets/t > /t\n")],
    );
    let build = |value: &str, option: &str| {
        let mut command = world.rbuild();
        command.args(["build", "--progress=plain", "--secret", option]).arg(&context).env("T", value);
        String::from_utf8(succeed(&mut command).stderr).unwrap()
    };
    build("one", "id=t,env=T");
    assert!(
        build("a-second-token", "id=t,env=T").contains("reused"),
        "a token that was renewed runs nothing"
    );
    build("one", "id=t,env=T,cache=hash");
    assert!(build("one", "id=t,env=T,cache=hash").contains("reused"));
    let said = build("a-second-token", "id=t,env=T,cache=hash");
    assert!(said.contains("ran: secret t changed"), "{said}");
    // Neither the value nor a digest that others could make of it is kept.
    let records =
        Command::new("grep").args(["-r", "-l", "a-second-token"]).arg(world.store().join("records")).output();
    assert_eq!(String::from_utf8(records.unwrap().stdout).unwrap(), "");
}
