//! `rbuild diff`: images and steps beside each other.

use std::path::PathBuf;

use expect_test::{Expect, expect};

use crate::world::{World, succeed, write_files};

struct Scene {
    world: World,
    context: PathBuf,
}

impl Scene {
    fn new(test: &str) -> Option<Self> {
        let world = World::with_base(test)?;
        let context = world.path("context");
        Some(Self { world, context })
    }

    fn build(&self, tag: &str, dockerfile: &str) {
        write_files(&self.context, &[("Dockerfile", dockerfile)]);
        succeed(self.world.rbuild().args(["build", "-q", "-t", tag]).arg(&self.context));
    }

    /// Standard output, then standard error, then the exit code.
    fn diff(&self, args: &[&str]) -> String {
        let output = self.world.rbuild().arg("diff").args(args).output().expect("rbuild starts");
        let text = |bytes| String::from_utf8(bytes).expect("it wrote text");
        format!("{}{}({})\n", text(output.stdout), text(output.stderr), output.status.code().unwrap())
    }

    #[track_caller]
    fn check(&self, args: &[&str], expected: Expect) {
        expected.assert_eq(&self.diff(args));
    }
}

#[test]
fn images_differ_in_config_and_files() {
    let Some(scene) = Scene::new("images_differ_in_config_and_files") else { return };
    let first = "FROM base\nENV A=1 B=2\nLABEL x=1\nCMD [\"a\"]\nRUN mkdir /d && echo one > /d/f && ln -s f /d/l && touch /d/gone /d/m && touch /p\n";
    scene.build("one", first);
    let second = "FROM base\nENV A=1 B=3\nCMD [\"b\"]\nRUN mkdir /d && echo two2 > /d/f && ln -s g /d/l && touch /d/m && chmod 600 /d/m && chown 1:2 /d/m && mkdir /p && touch /p/new\nUSER app\n";
    scene.build("two", second);
    scene.check(
        &["one", "two"],
        expect![[r#"
            C config.Cmd: ["a"] → ["b"]
            C config.Env.B: "2" → "3"
            D config.Labels.x: "1"
            A config.User: "app"
            C /d/f  content (4 B → 5 B)
            D /d/gone
            C /d/l  target f → g
            C /d/m  mode 0644 → 0600, owner 0:0 → 1:2
            C /p  file → directory
            A /p/new
            4 in the config, 1 added, 1 deleted, 4 changed
            (1)
        "#]],
    );
    scene.check(&["one", "one"], expect!["nothing differs\n(0)\n"]);
    // The same again, but later.
    scene.build("three", &first.replace("FROM base\n", "FROM base\nRUN true\n"));
    scene.check(&["one", "three"], expect!["nothing differs\n(0)\n"]);
    assert!(scene.diff(&["--mtime", "one", "three"]).contains("C /d/f  mtime\n"));
    let document: serde_json::Value =
        serde_json::from_str(scene.diff(&["--format=json", "one", "two"]).strip_suffix("(1)\n").unwrap())
            .unwrap();
    assert_eq!(document["config"][1]["field"], "config.Env.B");
    assert_eq!(document["files"][0]["path"], "/d/f");
    assert_eq!(document["files"][0]["differs"][0], "content");
    assert_eq!(document["files"][0]["new"]["size_bytes"], 5);
    assert!(document["files"][1]["new"].is_null());
}

#[test]
fn whoever_reads_no_further_has_seen_enough() {
    let Some(scene) = Scene::new("whoever_reads_no_further") else { return };
    scene.build("app", "FROM base AS app\nRUN touch /x\n");
    for args in
        [&["diff", "base", "app"][..], &["diff", "--format=json", "base", "app"], &["images"], &["explain"]]
    {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = scene.world.rbuild().args(args).stdout(writer).output().expect("rbuild starts");
        let code = if args[0] == "diff" { 1 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{args:?} {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn steps_differ_by_what_was_done_between_them() {
    let Some(scene) = Scene::new("steps_differ_by_what_was_done") else { return };
    let dockerfile = "FROM base AS lib\nRUN echo lib > /lib\nFROM base AS app\nWORKDIR /w\nCOPY --link --from=lib /lib /l\nRUN rm /l; touch /w/x\n";
    scene.build("app", dockerfile);
    // Nothing of the second build runs, and most steps are not even asked for.
    scene.build("app", dockerfile);
    scene.check(&["app@1", "app@2"], expect!["A /w\n1 added\n(1)\n"]);
    scene.check(&["app@2", "app@3"], expect!["A /l\n1 added\n(1)\n"]);
    scene.check(&["app@3", "APP@4"], expect!["D /l\nA /w/x\n1 added, 1 deleted\n(1)\n"]);
    scene.check(&["lib@1", "1@1"], expect!["nothing differs\n(0)\n"]);
    scene.check(&["lib@2", "app"], expect!["D /lib\nA /w\nA /w/x\n2 added, 1 deleted\n(1)\n"]);
    scene.build("other", "FROM base\nRUN true\n");
    let file = scene.world.path("other");
    write_files(&file, &[("Dockerfile", "FROM base\n")]);
    assert!(scene.diff(&["app@2", "app@3"]).contains("there is no stage `app`"));
}

#[test]
fn what_is_not_there_is_said() {
    let Some(scene) = Scene::new("what_is_not_there_is_said") else { return };
    assert!(scene.diff(&["base", "bas"]).contains("did you mean `base`?"));
    scene.build("app", "FROM base AS app\nRUN touch /x\n");
    for (args, expected) in [
        (["app@1", "app@9"], "there is no step 9 in stage `app` of that build, whose last is 2"),
        (["ap@1", "app@1"], "did you mean `app`?"),
    ] {
        let said = scene.diff(&args);
        assert!(said.contains(expected) && said.ends_with("(2)\n"), "{said}");
    }
    succeed(scene.world.rbuild().args(["rmi", "app"]));
    succeed(scene.world.rbuild().args(["prune", "--all"]));
    let said = scene.diff(&["app@1", "app@2"]);
    assert!(said.contains("rbuild build"), "{said}");
    let said = scene.diff(&["-f", "/no/such/Dockerfile", "app@1", "app@2"]);
    assert!(said.contains("cannot find the Dockerfile"), "{said}");
}
