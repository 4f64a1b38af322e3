//! What is no part of a key.

use std::fs::{self, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::SystemTime;

use super::{Bench, KEY, Row, Side, args, files, instructions, report};

/// What the table of keys says is left out, in its clauses.
fn documented() -> Vec<String> {
    let page: Vec<&str> = KEY.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
    let page = page.join(" ");
    let (_, text) = page.split_once("Left out, since").expect("the page says so");
    let (_, list) = text.split_once(": ").expect("a list follows");
    list.split(';').map(|clause| clause.trim().trim_end_matches('.').to_owned()).collect()
}

#[test]
fn everything_that_is_left_out_has_a_row() {
    let tables = [sources(), surroundings(), mounts(), image(), spelling()];
    let rows: Vec<&str> = tables.iter().flatten().map(|row| row.documented).chain([SERVER]).collect();
    let documented = documented();
    for clause in &documented {
        assert!(rows.iter().any(|row| clause.contains(row)), "no row is about `{clause}`");
    }
    for row in rows {
        assert!(documented.iter().any(|clause| clause.contains(row)), "`{row}` is not documented");
    }
}

/// Has its own tests, in `sources`: what a URL's query or headers say is no cause.
const SERVER: &str = "what a server says of a file besides its bytes";

#[track_caller]
fn check(test: &str, rows: Vec<Row>) {
    let Some(bench) = Bench::new(test) else { return };
    report(rows.iter().map(|row| bench.reuses(row)));
}

#[test]
fn a_copy_is_reused_whatever_does_not_reach_the_layer() {
    check("a_copy_is_reused_whatever_does_not_reach_the_layer", sources());
}

fn sources() -> Vec<Row> {
    const CONTEXT: &str = "other mtimes, inode numbers and owners of context files";
    const REPLACED: &str = "mode and owner of files where `--chmod` and `--chown` replace them";
    const HIDDEN: &str = "files that no source names or an ignore file hides";
    let of_stage = |flag: &str, before: &str, after: &str| {
        let copy = |made: &str| {
            format!(
                "FROM base AS s\nRUN mkdir /s && touch /s/f && {made}\nFROM base\nCOPY {flag} --from=s /s /x"
            )
        };
        instructions(REPLACED, &copy(before), &copy(after))
    };
    let set_mode = |at: &Path| fs::set_permissions(at.join("f"), Permissions::from_mode(0o755)).unwrap();
    vec![
        files(CONTEXT, "COPY . /x", |at| set_time(&at.join("f"))),
        files(CONTEXT, "COPY . /x", |at| set_time(&at.join("d"))),
        files(CONTEXT, "COPY . /x", |at| move_copy(&at.join("f"))),
        files(CONTEXT, "COPY . /x", |at| chown(at.join("f"), Some(7), Some(8)).unwrap()),
        files(CONTEXT, "COPY . /x", |at| write_in_another_order(&at.join("d"))),
        files(CONTEXT, "RUN --mount=target=/m cp -r /m /x", |at| set_time(&at.join("f"))),
        files(CONTEXT, "RUN --mount=target=/m cp -r /m /x", |at| chown(at.join("f"), Some(7), None).unwrap()),
        files(REPLACED, "COPY --chmod=600 f /x", set_mode),
        of_stage("--chmod=640", "true", "chmod 755 /s/f"),
        of_stage("--chown=1:2", "true", "chown 7:8 /s/f"),
        // Of context files that is so in any case.
        files(REPLACED, "COPY --chown=1:2 f /x", |at| chown(at.join("f"), Some(7), Some(8)).unwrap()),
        files(HIDDEN, "COPY f /x", |at| fs::write(at.join("d/a"), "two\n").unwrap()),
        files(HIDDEN, "COPY d /x", |at| fs::write(at.join("f"), "two\n").unwrap()),
        files(HIDDEN, "COPY . /x", |at| fs::write(at.join("ignored"), "two\n").unwrap()),
        files(HIDDEN, "COPY --exclude=f . /x", |at| fs::write(at.join("f"), "two\n").unwrap()),
        files(HIDDEN, "COPY d/a* /x/", |at| fs::write(at.join("d/b"), "two\n").unwrap()),
        files(HIDDEN, "RUN --mount=source=d,target=/m cp -r /m /x", |at| {
            fs::remove_file(at.join("f")).unwrap()
        }),
        files(HIDDEN, "COPY d /x", |at| fs::write(at.join(".dockerignore"), "ignored\none\n").unwrap()),
        of_a_stage_that_gives_the_same(),
    ]
}

/// The stage runs again, and what is copied of it is what it was.
fn of_a_stage_that_gives_the_same() -> Row {
    let copy = |made: &str| format!("FROM base AS s\nRUN mkdir /s && {made}\nFROM base\nCOPY --from=s /s /x");
    instructions(
        "files that no source names",
        &copy("echo 1 > /s/f"),
        &copy("echo 1 > /s/f && echo 2 > /other"),
    )
}

fn set_time(path: &Path) {
    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    fs::File::open(path).unwrap().set_times(times).unwrap();
}

/// The same file under another number.
fn move_copy(path: &Path) {
    let copy = path.with_extension("copy");
    fs::copy(path, &copy).unwrap();
    fs::rename(copy, path).unwrap();
}

fn write_in_another_order(directory: &Path) {
    fs::remove_dir_all(directory).unwrap();
    fs::create_dir(directory).unwrap();
    fs::write(directory.join("b"), "b\n").unwrap();
    fs::write(directory.join("a"), "a\n").unwrap();
}

#[test]
fn a_command_is_reused_whatever_it_is_not_to_depend_on() {
    check("a_command_is_reused_whatever_it_is_not_to_depend_on", surroundings());
}

fn surroundings() -> Vec<Row> {
    const LIMITS: &str = "resource limits";
    const PROXY: &str = "proxy variables";
    const UNSEEN: &str = "variables that a step does not see";
    let run = "RUN echo x > /x";
    vec![
        args(PROXY, run, &[], &["--build-arg=HTTP_PROXY=http://one"]),
        args(PROXY, run, &["--build-arg=no_proxy=one"], &["--build-arg=no_proxy=two"]),
        args(PROXY, "RUN echo x > /x", &["--build-arg=FTP_PROXY=one"], &["--build-arg=ALL_PROXY=two"]),
        args("addresses of extra hosts", run, &["--add-host=a:10.0.0.1"], &["--add-host=a:10.0.0.2"]),
        args(LIMITS, run, &[], &["--ulimit=nofile=100:100"]),
        args(LIMITS, run, &[], &["--shm-size=1m"]),
        args(LIMITS, run, &[], &["--memory=100m", "--cpus=0.5"]),
        args(LIMITS, run, &[], &["--jobs=1"]),
        args(UNSEEN, run, &[], &["--build-arg=NOBODY=1"]),
        args(UNSEEN, "RUN echo x > /x\nARG A", &[], &["--build-arg=A=1"]),
        args(UNSEEN, "FROM base AS s\nARG A\nFROM base\nRUN echo x > /x", &[], &["--build-arg=A=1"]),
        args(UNSEEN, "ARG A\nFROM base\nRUN echo x > /x", &[], &["--build-arg=A=1"]),
        args(UNSEEN, "ARG A\nCOPY f /x", &[], &["--build-arg=A=1"]),
        args(UNSEEN, "ARG A\nWORKDIR /x", &[], &["--build-arg=A=1"]),
        args(UNSEEN, "ARG A\nENV B=$A\nARG B=2\nCOPY f /x", &[], &["--build-arg=A=1"]),
        args(UNSEEN, "ARG A\nENV A=1\nRUN echo $A > /x", &[], &["--build-arg=A=2"]),
        args(UNSEEN, run, &["--build-arg=SOURCE_DATE_EPOCH=5"], &["--build-arg=SOURCE_DATE_EPOCH=6"]),
        instructions(UNSEEN, "COPY f /x", "ENV A=1\nCOPY f /x"),
        instructions(UNSEEN, "ENV A=1\nCOPY f /$A", "ENV A=2\nCOPY f /1"),
        instructions("what a COPY is not made by", "COPY f /x", "USER 1\nCOPY f /x"),
        instructions("what a COPY is not made by", "COPY f /x", "SHELL [\"/x\"]\nCOPY f /x"),
        args("what a COPY is not made by", "COPY f /x", &[], &["--network=none", "--add-host=a:10.0.0.1"]),
        args(
            "what a COPY is not made by",
            "FROM scratch\nCOPY f /x",
            &["--platform=linux/amd64"],
            &["--platform=linux/arm64"],
        ),
    ]
}

#[test]
fn a_command_is_reused_whatever_its_mounts_give_it_in_trust() {
    check("a_command_is_reused_whatever_its_mounts_give_it_in_trust", mounts());
}

fn mounts() -> Vec<Row> {
    const CACHE: &str = "the identity, sharing and content of cache mounts";
    let cache =
        |options: &str| format!("RUN --mount=type=cache,target=/c{options} echo x >> /c/n; echo x > /x");
    let other = |options: &str| instructions(CACHE, &cache(""), &cache(options));
    let secret = "RUN --mount=type=secret,id=s test -f /run/secrets/s && echo x > /x";
    let variable = "RUN --mount=type=secret,id=s,env=S test -n \"$S\" && echo x > /x";
    let value = |file: &str| format!("--secret=id=s,src={file}");
    const SHOWN: &str = "what is in a directory of the machine that `--volume` shows";
    let showing = || Side::new("RUN test -s /v/f && echo x > /x").with_args(&["--volume=.:/v"]);
    let write_two = |at: &Path| fs::write(at.join("f"), "two\n").unwrap();
    let agent = "RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo x > /x";
    let with_sockets = |socket: &str| Side {
        change: Box::new(make_sockets),
        ..Side::new(agent).with_args(&[&format!("--ssh=default={socket}")])
    };
    vec![
        // The second build finds what the first one has written.
        other(""),
        other(",id=other"),
        other(",sharing=private"),
        other(",sharing=locked"),
        other(",mode=700,uid=1,gid=2"),
        args("values of other secrets", secret, &[&value("one")], &[&value("two")]),
        args("values of other secrets", variable, &[&value("one")], &[&value("two")]),
        Row {
            documented: "what an ssh agent has",
            before: with_sockets("first.sock"),
            after: with_sockets("second.sock"),
        },
        Row {
            documented: SHOWN,
            before: showing(),
            after: Side { change: Box::new(write_two), ..showing() },
        },
    ]
}

/// Addresses that nobody listens at: no command of these rows speaks to its agent.
fn make_sockets(context: &Path) {
    for name in ["first.sock", "second.sock"] {
        drop(UnixListener::bind(context.join(name)).unwrap());
    }
}

#[test]
fn a_step_is_reused_whatever_becomes_of_the_config() {
    check("a_step_is_reused_whatever_becomes_of_the_config", image());
}

fn image() -> Vec<Row> {
    const CONFIG: &str = "LABEL, CMD and everything else that only the image's config has";
    const NAME: &str = "the name of a stage or tag";
    let then = |instruction: &str| {
        instructions(CONFIG, "RUN echo x > /x", &format!("RUN echo x > /x\n{instruction}"))
    };
    let first = |instruction: &str| {
        instructions(CONFIG, "RUN echo x > /x", &format!("{instruction}\nRUN echo x > /x"))
    };
    let with_stage = |name: &str| {
        format!("FROM base AS {name}\nRUN echo x > /x\nFROM base\nCOPY --from={name} /x /y\nRUN cp /y /z")
    };
    vec![
        first("LABEL a=1"),
        first("CMD [\"x\"]"),
        first("ENTRYPOINT [\"x\"]"),
        first("EXPOSE 80"),
        first("VOLUME /v"),
        first("STOPSIGNAL 9"),
        first("HEALTHCHECK CMD x"),
        first("MAINTAINER me"),
        first("ONBUILD RUN x"),
        then("ENV A=1"),
        then("USER 1"),
        then("SHELL [\"/x\"]"),
        args(CONFIG, "RUN echo x > /x", &[], &["--label=a=1"]),
        instructions(NAME, "FROM base AS a\nRUN echo x > /x", "FROM base AS b\nRUN echo x > /x"),
        instructions(NAME, &with_stage("a"), &with_stage("b")),
        instructions(NAME, "FROM base\nRUN echo x > /x", "FROM scratch AS other\nFROM base\nRUN echo x > /x"),
        args(NAME, "FROM base AS a\nRUN echo x > /x", &[], &["--target=a"]),
        args(NAME, "RUN echo x > /x", &[], &["--tag=one"]),
    ]
}

#[test]
fn a_step_is_reused_however_it_is_spelled() {
    check("a_step_is_reused_however_it_is_spelled", spelling());
}

fn spelling() -> Vec<Row> {
    const LAYOUT: &str = "how the Dockerfile is laid out";
    let same = |before: &str, after: &str| instructions(LAYOUT, before, after);
    let run = "RUN echo x > /x";
    vec![
        same(run, "# a comment\n\n\nRUN echo x > /x\n\n"),
        same(run, "run echo x > /x"),
        same(run, "  RUN   echo x > /x  "),
        same(run, "RUN \\\n# a comment\n\\\necho x > /x"),
        same(run, "RUN [\"/bin/sh\", \"-c\", \"echo x > /x\"]"),
        same(run, "# escape=`\nFROM base\nRUN echo x > `\n/x"),
        same("COPY f /x", "COPY [\"f\", \"/x\"]"),
        same("COPY f /x", "COPY ./f /x"),
        same("COPY f /x", "COPY f x"),
        same("COPY f /x", "COPY /f /a/../x"),
        same("WORKDIR /x", "WORKDIR x"),
        same("WORKDIR /x", "WORKDIR /x/"),
        same("ENV A=1 B=2\nRUN echo $A > /x", "ENV A=1\nENV B=2\nRUN echo $A > /x"),
        same("RUN --mount=type=tmpfs,target=/m echo x > /x", "RUN --mount=target=/m,type=tmpfs echo x > /x"),
        same("COPY --chmod=0640 --chown=1 f /x", "COPY --chown=1 --chmod=640 f /x"),
    ]
}

/// The key of a COPY has how it is written, and these make one again that comes out the same. That is all they do: whatever stands on it goes
/// by what it contains.
#[test]
fn what_stands_on_a_copy_is_reused_however_that_is_written() {
    check("what_stands_on_a_copy_is_reused_however_that_is_written", copies());
}

fn copies() -> Vec<Row> {
    let above = |before: &str, after: &str| {
        let then = |copy: &str| format!("{copy}\nRUN cp -r /x /y");
        instructions("a copy that comes out the same", &then(before), &then(after))
    };
    vec![
        above("COPY d/* /x/", "COPY d/? /x/"),
        above("COPY d/a d/b /x/", "COPY d/b d/a /x/"),
        above("COPY d /x", "COPY --exclude=nothing d /x"),
        above("COPY --chmod=644 f /x", "COPY --chmod=u=rw,go=r f /x"),
        above("COPY --chown=app f /x", "COPY --chown=1000:1001 f /x"),
        above("COPY f /x", "ADD f /x"),
        above("COPY f /x", "COPY --link f /x"),
        above("COPY <<x /\none\nx", "COPY one /x"),
    ]
}
