//! What a person reads when a build goes wrong: `testdata/diagnostics/CASE/` is a context; `stderr.txt` is all that is written, with the
//! exit code at the end.
//!
//! `args.txt` has further arguments, one a line. Where there is `offline.txt`, the build has no network. What differs from run to run is
//! replaced, in arguments and output alike: `STORE` is the store's directory, `LOG` the name of a log in it, `REGISTRY` the address of a
//! registry that has no image and refuses to speak of `secret`, and has a file `/files/a`; `RESOLVER` what the C library says about a name it cannot find.

use std::process::Command;

use testkit::Need;
use testkit::golden::{self, Case};
use testkit::registry::Registry;

use crate::world::World;

/// What the resolver's words come after.
const LOOKUP: &str = "failed to lookup address information: ";

#[test]
fn every_failure_reads_as_recorded() {
    const NAME: &str = "every_failure_reads_as_recorded";
    if !testkit::can_run(NAME, &[Need::Program("unshare")]) {
        return;
    }
    let Some(world) = World::with_base(NAME) else { return };
    let registry = Registry::start();
    registry.on("/v2/secret/", |_, exchange| exchange.respond(403, &[], b"{}"));
    registry.on("/files/", |seen, exchange| match seen.path.as_str() {
        "/files/a" => exchange.respond(200, &[], b"a"),
        "/files/secret" => exchange.respond(401, &[], b""),
        "/files/away" => exchange.redirect("file:///etc/shadow"),
        _ => exchange.respond(404, &[], b""),
    });
    golden::check("diagnostics", |case| {
        let actual = run(case, &world, &registry);
        case.compare("stderr.txt", &actual);
    });
}

#[test]
fn no_escape_sequence_reaches_a_pipe_or_a_terminal_without_colours() {
    const NAME: &str = "no_escape_sequence_reaches_a_pipe_or_a_terminal_without_colours";
    if !testkit::can_run(NAME, &[Need::Program("script")]) {
        return;
    }
    let Some(world) = World::with_base(NAME) else { return };
    let case = golden::testdata().join("diagnostics/escape-sequences");
    let build = |command: &mut Command| {
        let output = command.current_dir(&case).output().expect("it starts");
        assert!(!output.status.success());
        [output.stdout, output.stderr].concat()
    };
    let piped = build(world.rbuild().args(["build", "--progress=plain", "."]));
    assert!(!piped.contains(&0x1b), "{}", String::from_utf8_lossy(&piped));
    let on_terminal = |variable: &str| {
        let program = env!("CARGO_BIN_EXE_rbuild");
        let store = world.store();
        let line = format!("{program} --root {} build --progress=plain .", store.display());
        let mut command = Command::new("script");
        command.env("TERM", "xterm").env("NO_COLOR", variable).args(["-qec", &line, "/dev/null"]);
        build(&mut command)
    };
    let plain = on_terminal("1");
    assert!(!plain.contains(&0x1b), "{}", String::from_utf8_lossy(&plain));
    let coloured = on_terminal("");
    assert!(coloured.contains(&0x1b), "colours are on by default");
    let text = String::from_utf8_lossy(&coloured);
    assert!(!text.contains("\u{1b}]0;") && !text.contains("\u{1b}[31mred"), "{text}");
}

fn run(case: &Case, world: &World, registry: &Registry) -> String {
    let host = registry.host();
    let args = case.read_if_present("args.txt").unwrap_or_default().replace("REGISTRY", &host);
    let mut command = world.rbuild();
    if case.path.join("offline.txt").exists() {
        command = without_network(&command);
    }
    command.current_dir(&case.path).args(["build", "."]);
    if !args.contains("--progress") {
        command.arg("--progress=quiet");
    }
    command.args(args.lines());
    let output = command.output().expect("rbuild starts");
    let text = String::from_utf8(output.stderr).expect("messages are UTF-8");
    let text = world.without_paths(&text).replace(&host, "REGISTRY");
    let code = output.status.code().expect("rbuild ends by itself");
    let without_resolver = |line: &str| match line.split_once(LOOKUP) {
        Some((before, _)) => format!("{before}{LOOKUP}RESOLVER\n"),
        None => format!("{line}\n"),
    };
    let text: String = text.lines().map(without_resolver).collect();
    format!("{text}(exit code {code})\n")
}

/// The same command in a network namespace that has nothing.
fn without_network(command: &Command) -> Command {
    let mut wrapped = Command::new("unshare");
    wrapped.arg("--net").arg(command.get_program()).args(command.get_args());
    wrapped.env_clear();
    for (name, value) in command.get_envs() {
        wrapped.env(name, value.unwrap_or_default());
    }
    wrapped
}
