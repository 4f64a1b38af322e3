//! Starting commands: codes, signals, what cannot be started.

use std::ffi::OsString;

use expect_test::{Expect, expect};
use sandbox::Ending;

use crate::world::World;

#[test]
fn a_command_gives_its_output_and_code() {
    let Some(world) = World::new() else { return };
    let ran = world.run(&world.spec("echo out; echo err >&2; exit 7"));
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(ran.exit.ending, Ending::Exited(7));
    assert!(ran.exit.peak_memory_bytes > 0);
}
