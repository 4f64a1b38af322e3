//! Early cut-off: a step ran again, and what came of it is what came of it before, but for the times.
//!
//! Whatever is reused above it, and however stages are put together, `make` and Python must find nothing to do in the image: its
//! files have the times at which they were really made of each other.

use std::path::Path;
use std::process::Command;

use testkit::Need;
use testkit::rootfs::add_program;

use crate::world::{World, succeed, write_files};

const MAKE: &str = "/usr/bin/make";
const PYTHON: &str = "/usr/bin/python3";

/// The stage that runs again: a Makefile with one rule, and its input.
const GEN: &str = "FROM tools AS gen\n\
    RUN mkdir /s && printf 'out: in\\n\\tcp in out; echo compiled >> /log\\n' > /s/Makefile && echo text > /s/in\n";

/// The stage that compiles.
const OBJ: &str = "FROM gen AS obj\nRUN make -C /s\n";

/// A store with an image `tools` that has busybox and `make`, and a context.
fn make_world(test: &str) -> Option<World> {
    if !testkit::can_run(test, &[Need::Root, Need::Busybox, Need::Program("make")]) {
        return None;
    }
    let world = World::new();
    let root = world.path("tools-root");
    std::fs::create_dir(&root).unwrap();
    testkit::rootfs::make_busybox(&root).unwrap();
    add_program(&root, Path::new(MAKE)).unwrap();
    import(&world, &root, "tools");
    Some(world)
}

/// Makes an image of a directory.
fn import(world: &World, root: &Path, name: &str) {
    let dockerfile = world.path("tools.Dockerfile");
    std::fs::write(&dockerfile, "FROM scratch\nCOPY . /\nENV PATH=/usr/bin:/bin\n").unwrap();
    succeed(world.rbuild().args(["build", "--quiet", "--tag", name, "--file"]).arg(&dockerfile).arg(root));
}

/// Builds with a Dockerfile of this text: what it says.
#[track_caller]
fn build(world: &World, dockerfile: &str, arguments: &[&str]) -> String {
    let context = world.path("context");
    write_files(&context, &[("Dockerfile", dockerfile)]);
    let mut command = world.rbuild();
    command.args(["build", "--progress", "plain", "--tag", "app"]).args(arguments).arg(&context);
    String::from_utf8(succeed(&mut command).stderr).unwrap()
}

#[track_caller]
fn assert_reused(said: &str, instruction: &str) {
    let line = format!("reused: {instruction}");
    assert!(said.lines().any(|said| said.ends_with(&line)), "`{line}` is not in:\n{said}");
}

/// What lines say of their steps, without the step's place.
fn told(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter(|line| line.starts_with('[')).filter_map(|line| Some(line.split_once("] ")?.1))
}

#[track_caller]
fn assert_ran(said: &str, instruction: &str) {
    let ran =
        |told: &str| told.contains(instruction) && !told.starts_with("reused: ") && !told.starts_with('|');
    assert!(told(said).any(ran), "`{instruction}` did not run:\n{said}");
}

#[track_caller]
fn assert_counts(said: &str, ran: usize, reused: usize) {
    let count = |beginning| told(said).filter(|told| told.starts_with(beginning)).count();
    assert_eq!((count("done in "), count("reused: ")), (ran, reused), "{said}");
}

#[track_caller]
fn assert_cached(said: &str) {
    assert!(!told(said).any(|told| told.starts_with("done in ")), "something ran:\n{said}");
}

/// Fails if `make` would do anything in `/s` of the image.
#[track_caller]
fn assert_up_to_date(world: &World) {
    let script = "cd /s && ls -l --full-time in out; make --question";
    let output = world.rbuild().args(["run", "app", "sh", "-c", script]).output().unwrap();
    assert!(output.status.success(), "make would compile again: {output:?}");
}

/// Builds `before`, then `after` with `gen` run again, and looks at the outcome.
#[track_caller]
fn check(test: &str, before: &str, after: &str) {
    let Some(world) = make_world(test) else { return };
    build(&world, before, &[]);
    assert_up_to_date(&world);
    let said = build(&world, after, &["--no-cache-filter", "gen"]);
    assert_ran(&said, "RUN mkdir /s");
    assert_reused(&said, "RUN make -C /s");
    assert_up_to_date(&world);
    // What was adopted is what is recorded.
    assert_cached(&build(&world, after, &[]));
    assert_up_to_date(&world);
}

#[test]
fn make_finds_nothing_to_do_above_a_stage_that_ran_again() {
    let text = format!("{GEN}{OBJ}");
    check("make_finds_nothing_to_do_above_a_stage_that_ran_again", &text, &text);
}

#[test]
fn make_finds_nothing_to_do_after_a_copy_from_a_stage_that_ran_again() {
    let text = format!("{GEN}FROM tools\nCOPY --from=gen /s /s\nRUN make -C /s\n");
    check("make_finds_nothing_to_do_after_a_copy_from_a_stage_that_ran_again", &text, &text);
}

#[test]
fn a_linked_copy_of_what_was_compiled_is_newer_than_its_source() {
    let text = format!("{GEN}{OBJ}FROM gen\nCOPY --link --from=obj /s/out /s/out\n");
    check("a_linked_copy_of_what_was_compiled_is_newer_than_its_source", &text, &text);
}

#[test]
fn a_new_copy_of_what_was_compiled_is_newer_than_its_source() {
    let text = |mode| format!("{GEN}{OBJ}FROM gen\nCOPY --chmod={mode} --from=obj /s/out /s/out\n");
    check("a_new_copy_of_what_was_compiled_is_newer_than_its_source", &text("644"), &text("600"));
}

#[test]
fn a_source_copied_beside_what_was_compiled_of_it_is_older() {
    let text = |mode| {
        format!(
            "{GEN}{OBJ}FROM tools\nCOPY --from=obj /s/out /s/out\nCOPY --chmod={mode} --from=gen /s/in /s/Makefile /s/\n"
        )
    };
    check("a_source_copied_beside_what_was_compiled_of_it_is_older", &text("644"), &text("600"));
}

#[test]
fn directories_made_between_stages_do_not_matter() {
    let text = |name| {
        format!("{GEN}WORKDIR /work\n{OBJ}FROM gen\nWORKDIR /{name}\nCOPY --link --from=obj /s/out /s/out\n")
    };
    check("directories_made_between_stages_do_not_matter", &text("one"), &text("two"));
}

#[test]
fn a_cache_mount_in_the_stage_that_runs_again_does_not_matter() {
    let gen_ = GEN.replace("RUN mkdir /s", "RUN --mount=type=cache,target=/c echo x >> /c/n; mkdir /s");
    let text = format!("{gen_}{OBJ}FROM gen\nCOPY --link --from=obj /s/out /s/out\n");
    let test = "a_cache_mount_in_the_stage_that_runs_again_does_not_matter";
    let Some(world) = make_world(test) else { return };
    build(&world, &text, &[]);
    assert_reused(&build(&world, &text, &["--no-cache-filter", "gen"]), "RUN make -C /s");
    assert_up_to_date(&world);
}

#[test]
fn a_mount_of_a_stage_that_ran_again_shows_the_times_that_were_compiled() {
    let test = "a_mount_of_a_stage_that_ran_again_shows_the_times_that_were_compiled";
    let Some(world) = make_world(test) else { return };
    // What is compiled goes elsewhere, since the mount keeps nothing.
    let gen_ = GEN.replace("out: in", "/o/out: in").replace("cp in out", "cp in /o/out");
    let text = |last| {
        format!(
            "{gen_}FROM tools\nRUN --mount=from=gen,source=/s,target=/s mkdir /o && make -C /s\n\
             RUN --mount=from=gen,source=/s,target=/s make --question -C /s && echo {last} > /f\n"
        )
    };
    build(&world, &text("one"), &[]);
    let said = build(&world, &text("two"), &["--no-cache-filter", "gen"]);
    assert_ran(&said, "RUN mkdir /s");
    assert_counts(&said, 2, 1);
}

#[test]
fn a_changed_comment_in_a_mounted_file_recompiles_nothing() {
    let test = "a_changed_comment_in_a_mounted_file_recompiles_nothing";
    let Some(world) = make_world(test) else { return };
    let text = "FROM tools AS gen\n\
        RUN mkdir /s && printf 'out: in\\n\\tcp in out\\n' > /s/Makefile\n\
        RUN --mount=source=in,target=/mnt/in grep -v '#' /mnt/in > /s/in\n\
        FROM gen AS obj\nRUN make -C /s\n\
        FROM gen\nCOPY --link --from=obj /s/out /s/out\n";
    write_files(&world.path("context"), &[("in", "# one\ntext\n")]);
    build(&world, text, &[]);
    write_files(&world.path("context"), &[("in", "# two\ntext\n")]);
    let said = build(&world, text, &[]);
    assert_ran(&said, "grep -v '#' /mnt/in > /s/in");
    assert_reused(&said, "RUN make -C /s");
    assert_up_to_date(&world);
    // And the step really looks at its file.
    write_files(&world.path("context"), &[("in", "# two\nother\n")]);
    assert_ran(&build(&world, text, &[]), "RUN make -C /s");
    assert_up_to_date(&world);
}

#[test]
fn results_of_builds_that_never_met_are_not_put_together() {
    let test = "results_of_builds_that_never_met_are_not_put_together";
    let Some(world) = make_world(test) else { return };
    let text = format!("{GEN}{OBJ}FROM gen AS last\nCOPY --link --from=obj /s/out /s/out\n");
    build(&world, &text, &["--target", "obj"]);
    // Nothing is adopted here, so `gen` has new times from now on, and what `obj` gave is older.
    assert_ran(&build(&world, &text, &["--target", "gen", "--no-cache"]), "RUN mkdir /s");
    let said = build(&world, &text, &[]);
    assert_up_to_date(&world);
    assert_ran(&said, "RUN make -C /s");
    // Alone, each is still what it was.
    assert_cached(&build(&world, &text, &[]));
    assert_up_to_date(&world);
}

#[test]
fn an_outcome_that_is_another_is_not_adopted() {
    let test = "an_outcome_that_is_another_is_not_adopted";
    let Some(world) = make_world(test) else { return };
    let gen_ = GEN.replace("echo text > /s/in", "head -c 8 /dev/urandom > /s/in");
    let text = format!("{gen_}{OBJ}FROM gen\nCOPY --link --from=obj /s/out /s/out\n");
    build(&world, &text, &[]);
    let said = build(&world, &text, &["--no-cache-filter", "gen"]);
    assert_ran(&said, "RUN make -C /s");
    assert_up_to_date(&world);
    succeed(world.rbuild().args(["run", "app", "cmp", "/s/in", "/s/out"]));
}

#[test]
fn without_the_cache_everything_is_new() {
    let test = "without_the_cache_everything_is_new";
    let Some(world) = make_world(test) else { return };
    let text = format!("{GEN}{OBJ}");
    let time = || {
        let shown = succeed(world.rbuild().args(["run", "app", "stat", "-c", "%y", "/s/in"]));
        String::from_utf8(shown.stdout).unwrap()
    };
    build(&world, &text, &[]);
    let before = time();
    assert_counts(&build(&world, &text, &["--no-cache"]), 2, 0);
    assert_ne!(before, time());
    assert_up_to_date(&world);
    assert_cached(&build(&world, &text, &[]));
    assert_up_to_date(&world);
}

/// What Python's own library needs to start and to import a module.
const PYTHON_PACKAGES: &[&str] = &["encodings", "collections", "importlib", "re", "__pycache__"];

/// Copies this machine's Python; `None` if it is not laid out as Debian's.
fn add_python(root: &Path) -> Option<()> {
    let asked = Command::new(PYTHON).args(["-c", "import os; print(os.path.dirname(os.__file__))"]).output();
    let library = String::from_utf8(asked.ok().filter(|asked| asked.status.success())?.stdout).unwrap();
    let library = Path::new(library.trim());
    add_program(root, Path::new(PYTHON)).unwrap();
    let target = root.join(library.strip_prefix("/").unwrap());
    std::fs::create_dir_all(&target).unwrap();
    for entry in std::fs::read_dir(library).unwrap() {
        let path = entry.unwrap().path();
        let is_wanted = path.extension().is_some_and(|extension| extension == "py")
            || PYTHON_PACKAGES.iter().any(|package| path.ends_with(package));
        if is_wanted {
            succeed(Command::new("cp").arg("-a").arg(&path).arg(&target));
        }
    }
    Some(())
}

#[test]
fn python_takes_its_compiled_modules_as_they_are() {
    let test = "python_takes_its_compiled_modules_as_they_are";
    if !testkit::can_run(test, &[Need::Root, Need::Busybox, Need::Program("python3")]) {
        return;
    }
    let world = World::new();
    let root = world.path("python-root");
    std::fs::create_dir(&root).unwrap();
    testkit::rootfs::make_busybox(&root).unwrap();
    if add_python(&root).is_none() {
        testkit::skip(test, "needs Debian's python3");
        return;
    }
    import(&world, &root, "tools");
    // A .pyc holds its source's time; where that is another, it is compiled again.
    let text = |mode| {
        format!(
            "FROM tools AS gen\nRUN mkdir /app && echo 'value = 42' > /app/module.py\n\
             FROM gen AS obj\nRUN cd /app && python3 -c 'import module'\n\
             FROM gen\nCOPY --chmod={mode} --link --from=obj /app/__pycache__ /app/__pycache__\n"
        )
    };
    build(&world, &text("755"), &[]);
    assert_python_loads(&world);
    let said = build(&world, &text("700"), &["--no-cache-filter", "gen"]);
    assert_ran(&said, "RUN mkdir /app");
    assert_reused(&said, "RUN cd /app && python3 -c 'import module'");
    assert_python_loads(&world);
}

/// Fails if Python compiles the module of `/app` anew.
#[track_caller]
fn assert_python_loads(world: &World) {
    let script = "cd /app && python3 -v -c 'import module; print(module.value)' 2>&1 | grep module";
    let said = succeed(world.rbuild().args(["run", "app", "sh", "-c", script]));
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("/app/__pycache__/module.cpython-") && said.contains(".pyc matches"), "{said}");
    assert!(!said.contains("code object from '/app/module.py'"), "{said}");
}

#[test]
fn a_copied_name_of_a_changed_file_is_copied_again() {
    let Some(world) = World::with_base("a_copied_name_of_a_changed_file_is_copied_again") else { return };
    let file = |content: &str| {
        format!(
            "FROM base AS b\nRUN mkdir /out && echo {content} > /out/a && ln /out/a /out/b\n\
             FROM base\nCOPY --from=b /out/b /b\nCMD cat /b\n"
        )
    };
    for content in ["one", "two"] {
        build(&world, &file(content), &[]);
        let ran = succeed(world.rbuild().args(["run", "app"]));
        assert_eq!(String::from_utf8(ran.stdout).unwrap().trim(), content);
    }
}

#[test]
fn names_that_are_one_file_are_not_taken_for_copies_of_it() {
    let Some(world) = World::with_base("names_that_are_one_file_are_not_taken_for_copies_of_it") else {
        return;
    };
    let file = |make: &str| {
        format!(
            "FROM base AS b\nRUN mkdir /out && echo x > /out/a && {make} /out/a /out/b\n\
             FROM base\nCOPY --from=b /out /out\nCMD stat -c %h /out/a\n"
        )
    };
    for (make, links) in [("ln", "2"), ("cp", "1")] {
        build(&world, &file(make), &[]);
        let ran = succeed(world.rbuild().args(["run", "app"]));
        assert_eq!(String::from_utf8(ran.stdout).unwrap().trim(), links, "{make}");
    }
}
