//! `--allow`: what a Dockerfile gets only if the person who builds says so.

use crate::world::{World, check_code, succeed, write_files};

fn build(world: &World, run: &str, args: &[&str]) -> (Option<i32>, String) {
    write_files(&world.path("context"), &[("Dockerfile", &format!("FROM base\nRUN {run}\n"))]);
    let mut command = world.rbuild();
    command.args(["build", "--progress=plain", "-t", "app"]).args(args).arg(world.path("context"));
    let output = command.output().expect("rbuild starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_insecure_run_has_to_be_allowed() {
    let Some(world) = World::with_base("an_insecure_run_has_to_be_allowed") else { return };
    let run = "--security=insecure mkdir /m && mount -t tmpfs none /m && touch /m/f && ls /m > /seen";
    let (code, said) = build(&world, run, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("error[not-allowed]") && said.contains("Dockerfile:2:16"), "{said}");
    assert!(said.contains("--allow security.insecure"), "{said}");
    let (code, said) = build(&world, run, &["--allow", "security.insecure"]);
    assert_eq!(code, Some(0), "{said}");
    let seen = succeed(world.rbuild().args(["run", "app", "sh", "-c", "cat /seen; ls /m"])).stdout;
    assert_eq!(seen, b"f\n", "what was mounted is no part of the image");
    let (_, said) = build(&world, "--security=insecure true", &["--allow=security.insecure"]);
    assert!(said.contains("ran"), "{said}");
    // Another posture is another step.
    let (code, said) = build(&world, "true", &[]);
    assert!(code == Some(0) && said.contains("ran"), "{said}");
    world.assert_sound();
}

#[test]
fn the_network_of_the_machine_has_to_be_allowed_unless_the_build_has_it() {
    const NAME: &str = "the_network_of_the_machine_has_to_be_allowed_unless_the_build_has_it";
    let Some(world) = World::with_base(NAME) else { return };
    for (args, expected) in [
        (&[][..], Some(1)),
        (&["--allow=network.host"], Some(0)),
        (&["--network=host"], Some(0)),
        (&["--allow=network"], Some(2)),
    ] {
        let (code, said) = build(&world, "--network=host true", args);
        assert_eq!(code, expected, "{args:?}\n{said}");
    }
    // Who only looks allows nothing.
    let mut command = world.rbuild();
    succeed(command.args(["build", "--check"]).arg(world.path("context")));
}

#[test]
fn what_has_no_effect_on_a_shell_is_refused() {
    let Some(world) = World::with_base("what_has_no_effect_on_a_shell_is_refused") else { return };
    write_files(&world.path("context"), &[("Dockerfile", "FROM base\n")]);
    let mut shell = world.rbuild();
    shell.args(["shell", "--allow=buildx.local.delete"]).arg(world.path("context"));
    assert!(check_code(&mut shell, 125).contains("is for outputs"));
}
