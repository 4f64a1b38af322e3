//! What a person reads when a build goes wrong: `testdata/diagnostics/CASE/` is a context; `stderr.txt` is all that is written, with the
//! exit code at the end.
//!
//! `args.txt` has further arguments, one a line. What differs from run to run is replaced, in arguments and output alike: `STORE` is the
//! store's directory, `LOG` the name of a log in it, `REGISTRY` the address of a registry that has the image `there:1` and refuses `secret`.

use std::process::Command;

use testkit::golden::{self, Case};
use testkit::registry::Registry;

use crate::world::World;

#[test]
fn every_failure_reads_as_recorded() {
    let Some(world) = World::with_base("every_failure_reads_as_recorded") else { return };
    let registry = Registry::start();
    registry.on("/v2/secret/", |_, exchange| exchange.respond(403, &[], b"{}"));
    golden::check("diagnostics", |case| {
        let actual = run(case, &world, &registry);
        case.compare("stderr.txt", &actual);
    });
}

fn run(case: &Case, world: &World, registry: &Registry) -> String {
    let host = registry.host();
    let args = case.read_if_present("args.txt").unwrap_or_default().replace("REGISTRY", &host);
    let mut command: Command = world.rbuild();
    command.current_dir(&case.path).args(["build", "."]);
    if !args.contains("--progress") {
        command.arg("--progress=quiet");
    }
    command.args(args.lines());
    let output = command.output().expect("rbuild starts");
    let text = String::from_utf8(output.stderr).expect("messages are UTF-8");
    let text = world.without_paths(&text).replace(&host, "REGISTRY");
    let code = output.status.code().expect("rbuild ends by itself");
    format!("{text}(exit code {code})\n")
}
