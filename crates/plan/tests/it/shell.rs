//! The plan of a shell: which steps it needs, and what it has.

use dockerfile::Source;
use expect_test::{Expect, expect};
use plan::{Moment, Spot};

use crate::flags::request;
use crate::images::RecordedImages;

const DOCKERFILE: &[u8] = b"FROM scratch AS lib
COPY a /
FROM scratch AS unused
COPY b /
FROM lib AS app
SHELL [\"/bin/bash\", \"-ec\"]
ARG V=1
ENV E=first
RUN --mount=type=bind,from=lib,target=/mnt --network=none make
ENV E=second
USER app
WORKDIR /w
COPY --from=unused /b /
";

#[track_caller]
fn check(moment: Moment, command: &[&str], expected: Expect) {
    let parsed = dockerfile::parse(&Source::new("Dockerfile", DOCKERFILE));
    let command: Vec<String> = command.iter().map(ToString::to_string).collect();
    let spot = Spot { stage: None, moment };
    let planned = plan::shell(
        &parsed.file,
        &request("--build-arg V=2"),
        &mut RecordedImages::default(),
        &spot,
        &command,
    );
    let text = planned.map_or_else(
        |errors| errors.iter().map(ToString::to_string).collect(),
        |plan| plan.steps.iter().map(ToString::to_string).collect::<String>(),
    );
    expected.assert_eq(&text);
}

#[test]
fn before_a_run_is_what_the_run_has_and_no_more() {
    check(
        Moment::Before(1),
        &[],
        expect![[r#"
        step 0 "FROM scratch" at 0..19, linux/amd64
          scratch
        step 1 [lib 1/1] "COPY a /" at 20..28, linux/amd64
          copy to directory / on step 0
            from the context
            source "a"
        step 2 [app 1/3] "shell" at 124..186, linux/amd64
          run ["/bin/bash"] on step 1
            env PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            arg V="2"
            env E="first"
            cwd /
            mount bind / of step 1 at /mnt, read-only
            network none, hostname buildkitsandbox
            command "/bin/bash"
    "#]],
    );
}

#[test]
fn after_a_step_is_what_stands_right_below_it() {
    check(
        Moment::After(2),
        &["ls", "-l"],
        expect![[r#"
        step 0 "FROM scratch" at 0..19, linux/amd64
          scratch
        step 1 [lib 1/1] "COPY a /" at 20..28, linux/amd64
          copy to directory / on step 0
            from the context
            source "a"
        step 2 [app 1/3] "RUN --mount=type=bind,from=lib,target=/mnt --network=none make" at 124..186, linux/amd64
          run ["/bin/bash", "-ec", "make"] on step 1
            env PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            arg V="2"
            env E="first"
            cwd /
            mount bind / of step 1 at /mnt, read-only
            network none, hostname buildkitsandbox
            command "make"
        step 3 [app 2/3] "WORKDIR /w" at 209..219, linux/amd64
          workdir /w on step 2
            user "app"
        step 4 [app 2/3] "shell" at 209..219, linux/amd64
          run ["ls", "-l"] on step 3
            env PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            arg V="2"
            env E="second"
            cwd /w
            user "app"
            network default, hostname buildkitsandbox
            command "ls -l"
    "#]],
    );
}

#[test]
fn at_the_end_is_everything() {
    check(
        Moment::End,
        &[],
        expect![[r#"
        step 0 "FROM scratch" at 0..19, linux/amd64
          scratch
        step 1 [lib 1/1] "COPY a /" at 20..28, linux/amd64
          copy to directory / on step 0
            from the context
            source "a"
        step 2 [unused 1/1] "COPY b /" at 52..60, linux/amd64
          copy to directory / on step 0
            from the context
            source "b"
        step 3 [app 1/3] "RUN --mount=type=bind,from=lib,target=/mnt --network=none make" at 124..186, linux/amd64
          run ["/bin/bash", "-ec", "make"] on step 1
            env PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            arg V="2"
            env E="first"
            cwd /
            mount bind / of step 1 at /mnt, read-only
            network none, hostname buildkitsandbox
            command "make"
        step 4 [app 2/3] "WORKDIR /w" at 209..219, linux/amd64
          workdir /w on step 3
            user "app"
        step 5 [app 3/3] "COPY --from=unused /b /" at 220..243, linux/amd64
          copy to directory / on step 4
            from step 2
            source "b"
        step 6 "shell" at 61..76, linux/amd64
          run ["/bin/bash"] on step 5
            env PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            arg V="2"
            env E="second"
            cwd /w
            user "app"
            network default, hostname buildkitsandbox
            command "/bin/bash"
    "#]],
    );
}

#[test]
fn what_is_not_there_has_no_plan() {
    check(Moment::Before(4), &[], expect!["there is no step 4 in stage `app`, which has 3"]);
    check(Moment::After(0), &[], expect!["there is no step 0 in stage `app`, which has 3"]);
}
