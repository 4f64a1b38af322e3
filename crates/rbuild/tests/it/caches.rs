//! `RUN --mount=type=cache`: what is shown of a cache, how one begins, and who waits for whom.

use std::fs;
use std::time::{Duration, Instant};

use crate::building::Building;
use crate::world::{World, succeed, write_files};

/// Long enough for everything but waiting for oneself.
const PROMPTLY: Duration = Duration::from_secs(60);

#[track_caller]
fn try_build(world: &World, dockerfile: &str, options: &[&str]) -> (Option<i32>, String) {
    let context = world.path("context");
    write_files(&context, &[("Dockerfile", dockerfile)]);
    let mut command = world.rbuild();
    let output = command.args(["build", "--progress", "plain"]).args(options).arg(context).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[track_caller]
fn build(world: &World, dockerfile: &str, options: &[&str]) -> String {
    let (code, said) = try_build(world, dockerfile, options);
    assert_eq!(code, Some(0), "{said}");
    said
}

#[test]
fn a_link_in_a_cache_leads_nowhere_out_of_it() {
    let Some(world) = World::with_base("a_link_in_a_cache_leads_nowhere_out_of_it") else { return };
    let canary = world.path("canary");
    write_files(&canary, &[("file", "as it was")]);
    let up = format!("../../../../../../../../..{}", canary.display());
    for (id, link) in [("absolute", canary.display().to_string()), ("relative", up), ("root", "/".to_owned())]
    {
        let (_, said) = try_build(
            &world,
            &format!(
                "FROM base\nRUN --mount=type=cache,id={id},target=/c ln -s {link} /c/link\n\
                 RUN --mount=type=cache,id={id},source=/link,target=/m echo owned > /m/file; ls /m\n"
            ),
            &[],
        );
        assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "as it was", "{said}");
        assert_eq!(fs::read_dir(&canary).unwrap().count(), 1, "{said}");
    }
    assert!(!fs::exists("/file").unwrap());
}

#[test]
fn a_part_of_a_cache_is_shown_and_a_missing_one_told() {
    let Some(world) = World::with_base("a_part_of_a_cache_is_shown_and_a_missing_one_told") else { return };
    let said = build(
        &world,
        "FROM base\nRUN --mount=type=cache,id=x,target=/c mkdir /c/part && echo inside > /c/part/file\n\
         RUN --mount=type=cache,id=x,source=/part,target=/m cat /m/file\n",
        &[],
    );
    assert!(said.contains("| inside"), "{said}");
    let (code, said) =
        try_build(&world, "FROM base\nRUN --mount=type=cache,id=x,source=/none,target=/m true\n", &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("there is no `/none` in cache `x`"), "{said}");
}

#[test]
fn a_cache_begins_with_files_of_a_named_context() {
    let Some(world) = World::with_base("a_cache_begins_with_files_of_a_named_context") else { return };
    let seed = world.path("seed");
    write_files(&seed, &[("a", "seeded"), ("deep/b", "deeper")]);
    let option = format!("seed={}", seed.display());
    let options = ["--build-context", option.as_str()];
    // Beside a bind mount of another context, whose files are not the seed.
    let said = build(
        &world,
        "FROM base\nRUN --mount=type=bind,target=/src --mount=type=cache,id=all,from=seed,target=/c cat /c/a /c/deep/b\n\
         RUN --mount=type=cache,id=part,from=seed,source=/deep,target=/d cat /d/b; ls /d\n",
        &options,
    );
    assert!(said.contains("seeded") && said.matches("deeper").count() == 2, "{said}");
}

#[test]
fn a_step_does_not_wait_for_itself_nor_two_for_each_other() {
    let Some(world) = World::with_base("a_step_does_not_wait_for_itself_nor_two_for_each_other") else {
        return;
    };
    let began = Instant::now();
    build(
        &world,
        "FROM base\nRUN --mount=type=cache,id=x,target=/a,sharing=locked --mount=type=cache,id=x,target=/b echo 1 > /a/n && cat /b/n\n",
        &[],
    );
    let stage = |name: &str, first: &str, second: &str| {
        format!(
            "FROM base AS {name}\nRUN --mount=type=cache,id={first},target=/1,sharing=locked \
             --mount=type=cache,id={second},target=/2,sharing=locked sleep 0.3 && echo {name} > /out\n"
        )
    };
    let both = [stage("left", "one", "two"), stage("right", "two", "one")].concat();
    let last = "FROM base\nCOPY --from=left /out /left\nCOPY --from=right /out /right\n";
    let said = build(&world, &format!("{both}{last}"), &["--no-cache"]);
    assert!(said.contains("waits: another step has locked a cache"), "{said}");
    assert!(began.elapsed() < PROMPTLY, "it took {:?}", began.elapsed());
}

#[test]
fn a_step_that_waits_for_a_cache_keeps_no_other_from_working() {
    let Some(world) = World::with_base("a_step_that_waits_for_a_cache_keeps_no_other_from_working") else {
        return;
    };
    let (holder, waiter) = (world.path("holder"), world.path("waiter"));
    let locked = "RUN --mount=type=cache,id=x,target=/c,sharing=locked";
    write_files(&holder, &[("Dockerfile", &format!("FROM base\n{locked} echo holding; sleep 600\n"))]);
    let holding = Building::start(world.rbuild().args(["build", "--progress", "plain"]).arg(&holder));
    holding.wait_for("| holding").unwrap();
    let file = format!(
        "FROM base AS stuck\n{locked} true\nFROM base AS free\nRUN echo worked\n\
         FROM base\nCOPY --from=stuck / /1\nCOPY --from=free / /2\n"
    );
    write_files(&waiter, &[("Dockerfile", &file)]);
    let mut command = world.rbuild();
    let waiting = Building::start(command.args(["build", "--jobs", "1", "--progress", "plain"]).arg(&waiter));
    assert!(waiting.wait_for("| worked").is_some(), "the free step waits for the stuck one");
    assert!(waiting.kill() && holding.kill());
    succeed(world.rbuild().arg("prune"));
}
