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
#[test]
fn dump() {
    let Some(world) = World::new() else { return };
    eprintln!("{}", world.sandboxes.machine());
    eprintln!("{}", world.output("cat /proc/self/mountinfo; cat /proc/self/status | grep -E 'Cap|Seccomp|NoNew|Groups|NSpid'; ls -la /dev /dev/pts /proc/self/fd /; env; umask; ulimit -n; cat /proc/self/cgroup; ls /sys/fs/cgroup; hostname; id; cat /proc/1/comm; ps; ls /sys/class/net; mknod /tmp/x b 8 0; cat /tmp/x | head -c 1; mknod /tmp/n c 1 3; echo hi > /tmp/n; echo $?; echo a > /proc/sys/kernel/domainname; cat /proc/kcore | wc -c; ls /sys/firmware; df /dev/shm; touch /sys/x; pwd; ls -ld ."));
}
