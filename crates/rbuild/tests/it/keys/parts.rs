//! What is part of a key.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use sys::xattr;
use testkit::site::Site;

use super::{Bench, KEY, Row, Side, args, files, instructions, report};
use crate::world::succeed;

/// The parts that the table of keys names, with the step whose they are, by rows such as `| RUN | `command` | … |`.
fn documented() -> Vec<String> {
    let lines = KEY.lines().map_while(|line| line.strip_prefix("//!"));
    let rows = lines.filter_map(|line| {
        let mut cells = line.split('|').skip(1);
        Some((cells.next()?.trim(), cells.next()?))
    });
    let parts = |(step, cell): (&str, &str)| -> Vec<String> {
        cell.split('`').skip(1).step_by(2).map(|part| format!("{step}: {part}")).collect()
    };
    rows.flat_map(parts).collect()
}

#[test]
fn every_part_of_a_key_has_a_row() {
    let tables = [run(), mounts(), copy(), directories(), flags(), contexts()];
    let elsewhere = [IMAGE, URL, PLATFORM];
    let rows: Vec<&str> = tables.iter().flatten().map(|(row, _)| row.documented).chain(elsewhere).collect();
    for part in documented() {
        assert!(rows.contains(&part.as_str()), "no row is about `{part}`");
    }
    for row in rows {
        assert!(documented().iter().any(|part| part == row), "there is no part `{row}`");
    }
}

/// Rows of which a change of the Dockerfile, the command line and the context is not all; each has a test of its own.
const IMAGE: &str = "image: image";
const URL: &str = "URL: URL";
const PLATFORM: &str = "RUN: platform";

#[track_caller]
fn check(test: &str, rows: Vec<(Row, &str)>) {
    let Some(bench) = Bench::new(test) else { return };
    report(rows.iter().map(|(row, parts)| bench.misses(row, parts)));
}

#[test]
fn a_command_runs_again_for_what_it_is_given() {
    check("a_command_runs_again_for_what_it_is_given", run());
}

fn run() -> Vec<(Row, &'static str)> {
    let env = "ENV A=1\nRUN echo $A > /x";
    let arg = "ARG A=1\nRUN echo $A > /x";
    let script = |interpreter: &str, line: &str| format!("RUN <<EOF\n#!/bin/{interpreter}\n{line}\nEOF");
    let shell = "SHELL [\"/bin/sh\", \"-c\"]\nRUN echo $- > /x";
    let hosts = "RUN cat /etc/hosts > /x";
    let name = "RUN hostname > /x";
    let allowed = |flag: &str| {
        let instructions = format!("RUN {flag} grep CapEff /proc/self/status > /x");
        Side::new(&instructions).with_args(&["--allow=security.insecure"])
    };
    let insecure =
        Row { documented: "RUN: security", before: allowed(""), after: allowed("--security=insecure") };
    let epochs = (&["--build-arg=SOURCE_DATE_EPOCH=5"], &["--build-arg=SOURCE_DATE_EPOCH=6"]);
    let time = |instructions: &str| args(TIME, instructions, epochs.0, epochs.1);
    vec![
        (instructions("RUN: command", "RUN echo 1 > /x", "RUN echo 2 > /x"), "command"),
        (instructions("RUN: command", shell, &shell.replace("-c", "-uc")), "command"),
        (
            instructions("RUN: command", "RUN [\"touch\", \"/x\"]", "RUN [\"touch\", \"/x\", \"/y\"]"),
            "command",
        ),
        (instructions("RUN: command", "RUN <<E\necho 1 > /x\nE", "RUN <<E\necho 2 > /x\nE"), "command"),
        (instructions("RUN: ENV NAME", env, &env.replace('1', "2")), "ENV A"),
        (instructions("RUN: ENV NAME", "RUN env > /x", "ENV A=1\nRUN env > /x"), "ENV A"),
        (instructions("RUN: ENV NAME", "ENV A=1\nRUN env > /x", "RUN env > /x"), "ENV A"),
        (instructions("RUN: ARG NAME", arg, &arg.replace('1', "2")), "ARG A"),
        (args("RUN: ARG NAME", arg, &[], &["--build-arg=A=2"]), "ARG A"),
        (args("RUN: ARG NAME", "ARG A\nRUN env > /x", &[], &["--build-arg=A="]), "ARG A"),
        (
            args(
                "RUN: ARG NAME",
                &format!("ARG A=0\nFROM base\n{}", "ARG A\nRUN echo $A > /x"),
                &[],
                &["--build-arg=A=1"],
            ),
            "ARG A",
        ),
        (
            instructions(
                "RUN: working directory",
                "WORKDIR /tmp\nRUN pwd > /x",
                "WORKDIR /var\nRUN pwd > /x",
            ),
            "working directory, parent",
        ),
        (instructions("RUN: user", "USER 1\nRUN id > /tmp/x", "USER 2\nRUN id > /tmp/x"), "user"),
        (instructions("RUN: user", "USER 1\nRUN id > /tmp/x", "USER 1:5\nRUN id > /tmp/x"), "user"),
        (
            args(
                "RUN: network",
                "RUN wc -l < /proc/net/dev > /x; ls -l /proc/self/ns/net | wc -l >> /x; readlink /proc/self/ns/net >> /x",
                &[],
                &["--network=none"],
            ),
            "network",
        ),
        (
            instructions(
                "RUN: network",
                "RUN readlink /proc/self/ns/net > /x",
                "RUN --network=none readlink /proc/self/ns/net > /x",
            ),
            "network",
        ),
        (args("RUN: host name", name, &[], &["--build-arg=BUILDKIT_SANDBOX_HOSTNAME=other"]), "host name"),
        (insecure, "security"),
        (time("WORKDIR /x"), "time"),
        (time("COPY f /x"), "time"),
        (time("COPY f /x\nRUN stat -c %Y /x > /y"), "time, parent"),
        (args("RUN: extra hosts", hosts, &[], &["--add-host=db:10.0.0.1"]), "extra hosts"),
        (
            args("RUN: extra hosts", hosts, &["--add-host=a:10.0.0.1"], &["--add-host=b:10.0.0.1"]),
            "extra hosts",
        ),
        (instructions("RUN: script", &script("sh", "echo 1 > /x"), &script("sh", "echo 2 > /x")), "script"),
        (
            instructions(
                "RUN: script",
                &script("sh", "echo $0 > /x; echo $- >> /x"),
                &script("sh -u", "echo $0 > /x; echo $- >> /x"),
            ),
            "script",
        ),
        (
            instructions(
                "all but image and URL: parent",
                "RUN echo 1 > /x\nRUN cp /x /y",
                "RUN echo 2 > /x\nRUN cp /x /y",
            ),
            "parent",
        ),
        (
            instructions(
                "all but image and URL: parent",
                "COPY one /d\nWORKDIR /e",
                "COPY two /d\nWORKDIR /e",
            ),
            "parent",
        ),
    ]
}

/// The time of files is what differs.
const TIME: &str = "COPY, RUN, WORKDIR: time";

#[test]
fn a_command_runs_again_for_what_is_mounted_and_how() {
    check("a_command_runs_again_for_what_is_mounted_and_how", mounts());
}

fn mounts() -> Vec<(Row, &'static str)> {
    let given = ["--secret=id=one,src=one", "--secret=id=two,src=two"];
    let counted = |file: &str| format!("--secret=id=s,src={file},cache=hash");
    let mount = |before: &str, after: &str| {
        let command = "{ stat -c '%a %u %g' /m; cat /m; df -k /m | tail -n 1; echo $A; touch /m && echo w; } > /x 2>&1; true";
        let side = |options: &str| format!("RUN --mount={options} {command}");
        instructions("RUN: mount TARGET", &side(before), &side(after))
    };
    let secret = |before: &str, after: &str| {
        let mut row = mount(before, after);
        for side in [&mut row.before, &mut row.after] {
            side.args = given.map(ToOwned::to_owned).into();
        }
        row
    };
    let read = "RUN --mount=type=secret,id=s cp /run/secrets/s /x";
    vec![
        (mount("source=one,target=/m", "source=two,target=/m"), "mount /m, files of context"),
        (mount("source=one,target=/m", "source=one,target=/m,rw"), "mount /m"),
        (
            args(
                "RUN: mount TARGET",
                "RUN (touch /m/new 2>/dev/null && echo written || echo refused) > /x",
                &["--volume=./d:/m:ro"],
                &["--volume=./d:/m"],
            ),
            "mount /m",
        ),
        (mount("type=tmpfs,target=/m", "type=tmpfs,target=/m,size=1m"), "mount /m"),
        (mount("type=tmpfs,target=/m", "type=cache,target=/m,mode=1777"), "mount /m"),
        (secret("type=secret,id=one,target=/m", "type=secret,id=two,target=/m"), "mount /m"),
        (secret("type=secret,id=one,target=/m", "type=secret,id=one,target=/m,mode=0444"), "mount /m"),
        (secret("type=secret,id=one,target=/m", "type=secret,id=one,target=/m,uid=7"), "mount /m"),
        (secret("type=secret,id=one,target=/m", "type=secret,id=one,target=/m,gid=7"), "mount /m"),
        (secret("type=secret,id=one,target=/m", "type=secret,id=one,target=/m,env=A"), "mount /m"),
        (args("RUN: secret ID", read, &[&counted("one")], &[&counted("two")]), "secret s"),
    ]
}

#[test]
fn a_copy_is_made_again_for_how_it_is_written() {
    check("a_copy_is_made_again_for_how_it_is_written", copy());
}

fn copy() -> Vec<(Row, &'static str)> {
    let linked = "RUN ln -s tmp /l\nCOPY --link f /l/";
    let inline = |text: &str| format!("COPY <<name /x/\n{text}\nname");
    vec![
        (instructions("COPY: sources", "COPY d/* /x/", "COPY d/a* /x/"), "sources, files of context"),
        (
            instructions("COPY: sources", "COPY --parents d/a /x/", "COPY --parents d/./a /x/"),
            "sources, files of context",
        ),
        (instructions("COPY: sources", "COPY one f /x/", "COPY two f /x/"), "sources, files of context"),
        (instructions("COPY: destination", "COPY f /x", "COPY f /y"), "destination"),
        (instructions("COPY: destination", "COPY f /x", "COPY f /x/"), "destination"),
        (instructions("COPY: owner", "COPY f /x", "COPY --chown=1 f /x"), "owner, files of context"),
        (instructions("COPY: owner", "COPY --chown=1 f /x", "COPY --chown=1:2 f /x"), "owner"),
        (instructions("COPY: owner", "COPY --chown=root f /x", "COPY --chown=app f /x"), "owner"),
        (instructions("COPY: mode", "COPY --chmod=600 f /x", "COPY --chmod=700 f /x"), "mode"),
        (instructions("COPY: mode", "COPY --chmod=a+x f /x", "COPY --chmod=u+x f /x"), "mode"),
        (instructions("COPY: mode", "COPY f /x", "COPY --chmod=700 f /x"), "mode, files of context"),
        (
            instructions(
                "COPY: excludes",
                "COPY --exclude=d/a . /x",
                "COPY --exclude=d/a --exclude=!d/a . /x",
            ),
            "excludes, files of context",
        ),
        (instructions("COPY: heredoc NAME", &inline("one"), &inline("two")), "heredoc name"),
        (
            instructions("all but image and URL: parent", linked, &linked.replace("--link ", "")),
            "flags, parent",
        ),
    ]
}

#[test]
fn a_directory_is_made_again_for_its_name_and_owner() {
    check("a_directory_is_made_again_for_its_name_and_owner", directories());
}

fn directories() -> Vec<(Row, &'static str)> {
    vec![
        (instructions("WORKDIR: directory", "WORKDIR /x", "WORKDIR /y"), "directory"),
        (instructions("WORKDIR: directory", "WORKDIR /x", "WORKDIR /x/y"), "directory"),
        (instructions("WORKDIR: user", "USER 1\nWORKDIR /x", "USER 2\nWORKDIR /x"), "user"),
    ]
}

#[test]
fn a_copy_is_made_again_for_its_flags() {
    check("a_copy_is_made_again_for_its_flags", flags());
}

fn flags() -> Vec<(Row, &'static str)> {
    let archive = |dockerfile: &str| {
        let pack = |context: &Path| {
            let tar = context.join("a.tar");
            // The same bytes each time.
            let mut command = Command::new("tar");
            succeed(command.args(["--mtime=@0", "-C"]).arg(context).arg("-cf").arg(tar).arg("one"));
        };
        let mut row = files("COPY: flags", dockerfile, pack);
        row.before.change = Box::new(pack);
        row
    };
    let mut unpacked = archive("ADD a.tar /x/");
    unpacked.after.dockerfile = unpacked.after.dockerfile.replace("ADD", "ADD --unpack=false");
    vec![(unpacked, "flags")]
}

#[test]
fn a_copy_is_made_again_for_what_its_sources_are() {
    check("a_copy_is_made_again_for_what_its_sources_are", contexts());
}

fn contexts() -> Vec<(Row, &'static str)> {
    const FILES: &str = "COPY, RUN: files of SOURCE";
    let context = |change: fn(&Path)| (files(FILES, "COPY . /x", change), "files of context");
    let mounted =
        |change: fn(&Path)| (files(FILES, "RUN --mount=target=/m cp -a /m /x", change), "files of context");
    let of_stage = |before: &str, after: &str| {
        let side =
            |made: &str| format!("FROM base AS s\nRUN mkdir /s && {made}\nFROM base\nCOPY --from=s /s /x");
        (instructions("COPY, RUN: step SOURCE", &side(before), &side(after)), "step s")
    };
    vec![
        context(|at| fs::write(at.join("f"), "two\n").unwrap()),
        context(|at| fs::set_permissions(at.join("f"), Permissions::from_mode(0o755)).unwrap()),
        context(|at| fs::set_permissions(at.join("d"), Permissions::from_mode(0o700)).unwrap()),
        context(|at| fs::set_permissions(at.join("f"), Permissions::from_mode(0o4644)).unwrap()),
        context(|at| fs::rename(at.join("f"), at.join("g")).unwrap()),
        context(|at| fs::remove_file(at.join("f")).unwrap()),
        context(|at| fs::create_dir(at.join("new")).unwrap()),
        context(|at| symlink("f", at.join("l")).unwrap()),
        context(|at| xattr::set(File::open(at.join("f")).unwrap(), "user.x".as_ref(), b"1").unwrap()),
        context(|at| fs::hard_link(at.join("f"), at.join("g")).unwrap()),
        mounted(|at| fs::write(at.join("f"), "two\n").unwrap()),
        mounted(|at| fs::set_permissions(at.join("f"), Permissions::from_mode(0o755)).unwrap()),
        of_stage("echo 1 > /s/f", "echo 2 > /s/f"),
        of_stage("touch /s/f", "touch /s/f && chmod 600 /s/f"),
        of_stage("touch /s/f", "touch /s/f && chown 1 /s/f"),
        of_stage("ln -s a /s/l", "ln -s b /s/l"),
        of_stage("touch /s/f /s/g", "touch /s/f && ln /s/f /s/g"),
        of_stage("touch /s/f", "mkdir /s/f"),
        of_stage("touch /s/f", "touch /s/g"),
        of_stage("mknod /s/f p", "touch /s/f"),
    ]
}

#[test]
fn whatever_stands_on_an_image_is_made_again_upon_another() {
    let Some(bench) = Bench::new("whatever_stands_on_an_image_is_made_again_upon_another") else { return };
    let side = Side::new("COPY f /x");
    let before = bench.build(&side, &[]);
    bench.world.make_base("base", "RUN touch /new\n");
    let after = bench.build(&side, &[]);
    assert_eq!((after.verdict.as_str(), after.changed.join(", ")), ("ran", "parent".to_owned()));
    assert_eq!(bench.compare(&before, &after, &[]).1[0]["path"], "/new");
}

#[test]
fn a_fetched_file_is_added_again_for_its_bytes_and_name() {
    let Some(bench) = Bench::new("a_fetched_file_is_added_again_for_its_bytes_and_name") else { return };
    let site = Site::start();
    site.put("/f", b"one");
    site.put("/g", b"one");
    let add = |path: &str| Side::new(&format!("ADD {} /x/", site.url(path)));
    let before = bench.build(&add("/f"), &[]);
    let named = bench.build(&add("/g"), &[]);
    assert_eq!(named.verdict, "ran");
    assert_eq!(bench.compare(&before, &named, &[]).1[0]["path"], "/x/f");
    site.put("/f", b"two");
    let after = bench.build(&add("/f"), &[]);
    assert_eq!(after.verdict, "ran", "{:?}", after.changed);
    assert_eq!(bench.compare(&before, &after, &[]).1[0]["path"], "/x/f");
}

/// That the result can differ takes an emulator to show: see `platforms`.
#[test]
fn a_command_runs_again_on_another_platform() {
    let Some(bench) = Bench::new("a_command_runs_again_on_another_platform") else { return };
    let build = |platform: &str| {
        let dockerfile = "FROM scratch\nCOPY busybox /\nRUN [\"/busybox\", \"touch\", \"/x\"]";
        let copy = |context: &Path| {
            let busybox = testkit::rootfs::busybox().expect("the base image is made of it");
            fs::copy(busybox, context.join("busybox")).expect("a copy");
        };
        bench.build(&Side { change: Box::new(copy), ..Side::new(dockerfile).with_args(&[platform]) }, &[])
    };
    build("--platform=linux/amd64");
    let after = build("--platform=linux/386");
    assert_eq!((after.verdict.as_str(), after.changed.join(", ")), ("ran", "platform".to_owned()));
}
