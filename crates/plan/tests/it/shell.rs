//! The plan of a shell: which steps it needs, and what it has.

use dockerfile::Source;
use expect_test::{Expect, expect};
use plan::{Moment, Spot};

use crate::flags::request;
use crate::images::RecordedImages;

const DOCKERFILE: &[u8] = b"FROM scratch AS last
COPY b /
FROM scratch AS lib
COPY a /
FROM lib AS app
SHELL [\"/bin/bash\", \"-ec\"]
ARG V=1
ENV E=first
RUN --mount=type=bind,from=lib,target=/mnt --network=none make
ENV E=second
USER app
WORKDIR /w
ADD https://example.com/c /
RUN --mount=type=cache,from=lib,target=/cache true
COPY --from=last /b /
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
            step 0 "FROM scratch" at 0..20, linux/amd64
              scratch
            step 1 [lib 1/1] "COPY a /" at 50..58, linux/amd64
              copy to directory / on step 0
                from the context
                source "a"
            step 2 [app 1/5] "shell" at 122..184, linux/amd64
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
        Moment::After(4),
        &["ls", "-l"],
        expect![[r#"
            step 0 "FROM scratch" at 0..20, linux/amd64
              scratch
            step 1 [lib 1/1] "COPY a /" at 50..58, linux/amd64
              copy to directory / on step 0
                from the context
                source "a"
            step 2 [app 1/5] "RUN --mount=type=bind,from=lib,target=/mnt --network=none make" at 122..184, linux/amd64
              run ["/bin/bash", "-ec", "make"] on step 1
                env PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
                arg V="2"
                env E="first"
                cwd /
                mount bind / of step 1 at /mnt, read-only
                network none, hostname buildkitsandbox
                command "make"
            step 3 [app 2/5] "WORKDIR /w" at 207..217, linux/amd64
              workdir /w on step 2
                user "app"
            step 4 "ADD https://example.com/c" at 222..243, linux/amd64
              fetch https://example.com/c as "c", sha256:b67d422a613047e3305b0e6ee377a787da94edb84b745d60b22d5ac1e7085b04
            step 5 [app 3/5] "ADD https://example.com/c /" at 218..245, linux/amd64
              copy to directory / on step 3
                from the context
                source "c" of step 4
                archives unpacked
            step 6 [app 4/5] "RUN --mount=type=cache,from=lib,target=/cache true" at 246..296, linux/amd64
              run ["/bin/bash", "-ec", "true"] on step 5
                env PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
                arg V="2"
                env E="second"
                cwd /w
                user "app"
                mount cache "/cache" at /cache, shared, read-write, mode 0755 owner 0:0, begins as step 1
                network default, hostname buildkitsandbox
                command "true"
            step 7 [app 4/5] "shell" at 246..296, linux/amd64
              run ["ls", "-l"] on step 6
                env PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
                arg V="2"
                env E="second"
                cwd /w
                user "app"
                mount cache "/cache" at /cache, shared, read-write, mode 0755 owner 0:0, begins as step 1
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
            step 0 "FROM scratch" at 0..20, linux/amd64
              scratch
            step 1 [last 1/1] "COPY b /" at 21..29, linux/amd64
              copy to directory / on step 0
                from the context
                source "b"
            step 2 [lib 1/1] "COPY a /" at 50..58, linux/amd64
              copy to directory / on step 0
                from the context
                source "a"
            step 3 [app 1/5] "RUN --mount=type=bind,from=lib,target=/mnt --network=none make" at 122..184, linux/amd64
              run ["/bin/bash", "-ec", "make"] on step 2
                env PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
                arg V="2"
                env E="first"
                cwd /
                mount bind / of step 2 at /mnt, read-only
                network none, hostname buildkitsandbox
                command "make"
            step 4 [app 2/5] "WORKDIR /w" at 207..217, linux/amd64
              workdir /w on step 3
                user "app"
            step 5 "ADD https://example.com/c" at 222..243, linux/amd64
              fetch https://example.com/c as "c", sha256:b67d422a613047e3305b0e6ee377a787da94edb84b745d60b22d5ac1e7085b04
            step 6 [app 3/5] "ADD https://example.com/c /" at 218..245, linux/amd64
              copy to directory / on step 4
                from the context
                source "c" of step 5
                archives unpacked
            step 7 [app 4/5] "RUN --mount=type=cache,from=lib,target=/cache true" at 246..296, linux/amd64
              run ["/bin/bash", "-ec", "true"] on step 6
                env PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
                arg V="2"
                env E="second"
                cwd /w
                user "app"
                mount cache "/cache" at /cache, shared, read-write, mode 0755 owner 0:0, begins as step 2
                network default, hostname buildkitsandbox
                command "true"
            step 8 [app 5/5] "COPY --from=last /b /" at 297..318, linux/amd64
              copy to directory / on step 7
                from step 1
                source "b"
            step 9 "shell" at 59..74, linux/amd64
              run ["/bin/bash"] on step 8
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
    check(Moment::Before(6), &[], expect!["there is no step 6 in stage `app`, which has 5"]);
    check(Moment::After(0), &[], expect!["there is no step 0 in stage `app`, which has 5"]);
}
