//! Many builds in one store at once, and files that change behind a build's back.

use std::fs;
use std::process::Child;
use std::time::SystemTime;

use testkit::leftovers;

use crate::world::{World, succeed, write_files};

const BUILDS: usize = 32;

/// The first so many are one and the same build.
const IDENTICAL: usize = 4;

#[test]
fn of_thirty_two_builds_at_once_each_is_right_and_what_is_the_same_runs_once() {
    let Some(world) =
        World::with_base("of_thirty_two_builds_at_once_each_is_right_and_what_is_the_same_runs_once")
    else {
        return;
    };
    for number in 0..BUILDS {
        let number = number.saturating_sub(IDENTICAL - 1);
        let name = format!("context-{number}");
        // The second step of each is told apart by its file alone.
        let dockerfile = "FROM base\n\
            RUN --mount=type=cache,id=counts,target=/c echo x >> /c/shared; sleep 0.2; echo shared > /shared\n\
            COPY number /number\n\
            RUN --mount=type=cache,id=counts,target=/c cat /number >> /c/own; sleep 0.2; cat /number /number > /twice\n";
        write_files(&world.path(&name), &[("Dockerfile", dockerfile), ("number", &format!("{number}\n"))]);
    }
    let builds: Vec<(usize, Child)> = (0..BUILDS)
        .map(|number| {
            let context = world.path(&format!("context-{}", number.saturating_sub(IDENTICAL - 1)));
            let mut build = world.rbuild();
            build.args(["build", "--quiet", "--tag", &format!("image-{number}")]).arg(context);
            (number, build.stdout(std::process::Stdio::null()).spawn().unwrap())
        })
        .collect();
    for (number, mut build) in builds {
        assert!(build.wait().unwrap().success(), "build {number}");
    }
    for number in 0..BUILDS {
        let image = format!("image-{number}");
        let shown = succeed(world.rbuild().args(["run", &image, "cat", "/shared", "/twice"]));
        let own = number.saturating_sub(IDENTICAL - 1);
        assert_eq!(String::from_utf8(shown.stdout).unwrap(), format!("shared\n{own}\n{own}\n"), "{image}");
    }
    assert_eq!(counted(&world, "shared"), ["x"]);
    let mut own: Vec<usize> = counted(&world, "own").iter().map(|line| line.parse().unwrap()).collect();
    own.sort_unstable();
    assert_eq!(own, (0..=BUILDS - IDENTICAL).collect::<Vec<_>>());
    world.assert_sound();
    leftovers::assert_nothing_left(&world.store());
}

/// The lines of a file in the cache directory `counts`.
fn counted(world: &World, file: &str) -> Vec<String> {
    let text = fs::read_to_string(world.store().join("cache-mounts/counts/0").join(file)).unwrap();
    text.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn a_failure_is_not_shared_and_the_next_in_line_runs_the_step_itself() {
    let Some(world) = World::with_base("a_failure_is_not_shared_and_the_next_in_line_runs_the_step_itself")
    else {
        return;
    };
    let context = world.path("context");
    // Whoever comes first fails.
    let dockerfile = "FROM base\nRUN --mount=type=cache,id=counts,target=/c echo x >> /c/runs; sleep 0.3; test $(wc -l < /c/runs) -gt 1\n";
    write_files(&context, &[("Dockerfile", dockerfile)]);
    let start = || {
        let mut build = world.rbuild();
        build.args(["build", "--quiet"]).arg(&context);
        build.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut builds = [start(), start(), start()];
    let mut codes: Vec<Option<i32>> = builds.iter_mut().map(|build| build.wait().unwrap().code()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(0), Some(1)]);
    assert_eq!(counted(&world, "runs"), ["x", "x"]);
}

#[test]
fn a_file_of_the_same_size_and_time_but_other_content_is_seen() {
    let Some(world) = World::with_base("a_file_of_the_same_size_and_time_but_other_content_is_seen") else {
        return;
    };
    let context = world.path("context");
    write_files(&context, &[("Dockerfile", "FROM base\nCOPY f /f\nRUN cat /f > /g\n")]);
    let path = context.join("f");
    let long_ago = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for content in ["one", "two", "six", "ten"] {
        fs::write(&path, content).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        succeed(world.rbuild().args(["build", "--quiet", "--tag", "app"]).arg(&context));
        let shown = succeed(world.rbuild().args(["run", "app", "cat", "/g"]));
        assert_eq!(String::from_utf8(shown.stdout).unwrap(), content);
    }
}
