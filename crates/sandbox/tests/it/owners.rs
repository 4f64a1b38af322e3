//! Limits, and that nothing is left: of processes, of their owner, of an owner that was killed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use sandbox::{Ending, Machine, Owner, SandboxError};

use testkit::requirements::skip;

use crate::world::{World, base, owner, test_name};

const DRIVER: &str = env!("CARGO_BIN_EXE_sandbox-driver");

#[test]
fn a_process_over_its_memory_limit_is_killed_and_says_so() {
    let Some(world) = World::new() else { return };
    if !world.sandboxes.machine().can_limit("memory") {
        skip(&test_name(), "no memory controller");
        return;
    }
    let mut spec = world.spec("head -c 200m /dev/zero | tail -c 200m > /dev/null; exit 3");
    spec.args = ["/bin/tail", "-c", "200m", "/dev/zero"].map(Into::into).to_vec();
    spec.limits.memory_bytes = Some(16 << 20);
    let exit = world.run(&spec).exit;
    assert_eq!((exit.ending, exit.oom_killed), (Ending::Killed(9), true));
    assert!((8 << 20..=16 << 20).contains(&exit.peak_memory_bytes), "{exit:?}");

    let mut spec = world.spec("cat /proc/self/cgroup | grep memory; ls /sys/fs/cgroup/");
    spec.limits.memory_bytes = Some(64 << 20);
    let ran = world.run(&spec);
    assert!(ran.stdout.contains(":memory:/\n") || ran.stdout.starts_with("0::/\n"), "{ran:?}");
    assert!(!ran.exit.oom_killed);
}

#[test]
fn a_fork_bomb_meets_its_limit() {
    let Some(world) = World::new() else { return };
    if !world.sandboxes.machine().can_limit("pids") {
        skip(&test_name(), "no pids controller");
        return;
    }
    let mut spec = world.spec("for n in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all");
    spec.limits.pids = Some(5);
    let ran = world.run(&spec);
    assert!(!ran.stdout.contains("all") && ran.stderr.contains("fork"), "{ran:?}");
}

#[test]
fn a_limit_that_cannot_be_kept_is_an_error() {
    let Some(world) = World::without(&[sandbox::Feature::Cgroup1, sandbox::Feature::Cgroup2]) else { return };
    let mut spec = world.spec("true");
    spec.limits.memory_bytes = Some(1 << 30);
    let error = world.try_run(&spec).unwrap_err();
    assert!(matches!(error, SandboxError::CannotLimit { resource: "memory" }), "{error}");
}

#[test]
fn a_hundred_processes_leave_nothing() {
    let Some(world) = World::new() else { return };
    let root = world.scratch.path().join("root");
    symlink_to_base(&root);
    let output = Command::new(DRIVER).args(["repeat", root.to_str().unwrap(), "100"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("nothing left\n"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!owners_now().contains(&"repeat".parse().unwrap()));
}

#[test]
fn many_threads_start_at_once() {
    let Some(world) = World::new() else { return };
    std::thread::scope(|scope| {
        for number in 0..24 {
            let world = &world;
            scope.spawn(move || {
                let output = world.output(&format!("echo {number} > /tmp/x; cat /tmp/x"));
                assert_eq!(output, format!("{number}\n"));
            });
        }
    });
}

#[test]
fn a_start_that_fails_leaves_nothing_and_does_not_disturb_the_next() {
    let Some(world) = World::new() else { return };
    for _ in 0..20 {
        let mut spec = world.spec("");
        spec.args = vec!["nosuch".into()];
        assert_eq!(world.try_run(&spec).unwrap_err().exit_code(), 127);
    }
    world.sandboxes.settle();
    let children = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!children.contains(world.scratch.path().to_str().unwrap()));
    assert_eq!(world.output("echo fine"), "fine\n");
}

/// The driver puts its scratch directories beside the root it is given.
fn symlink_to_base(at: &Path) {
    std::os::unix::fs::symlink(base(), at).unwrap();
}

fn owners_now() -> Vec<Owner> {
    sandbox::owners(&Machine::probe(&[]).unwrap()).unwrap()
}

fn hold(world: &World, owner: &Owner) -> (Child, String) {
    let root = world.scratch.path().join("root");
    symlink_to_base(&root);
    let mut driver = Command::new(DRIVER)
        .args(["hold", root.to_str().unwrap(), &owner.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(driver.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (driver, line.trim().to_owned())
}

#[test]
fn a_killed_owner_takes_its_processes_with_it_and_its_groups_are_swept() {
    let Some(world) = World::new() else { return };
    let owner = owner();
    let (mut driver, pid) = hold(&world, &owner);
    let pidfd = sys::process::open(pid.parse().unwrap()).unwrap();
    driver.kill().unwrap();
    driver.wait().unwrap();
    assert!(sys::process::ends_within(&pidfd, std::time::Duration::from_secs(10)).unwrap());
    let machine = Machine::probe(&[]).unwrap();
    if machine.cgroup2.is_some() {
        assert!(owners_now().contains(&owner));
        sandbox::sweep(&machine, &owner).unwrap();
    }
    assert!(!owners_now().contains(&owner));
}

#[test]
fn sweeping_kills_what_survived_its_owner() {
    let Some(world) = World::new() else { return };
    let machine = Machine::probe(&[]).unwrap();
    let Some(cgroup) = machine.cgroup2.clone() else {
        skip(&test_name(), "no cgroup 2");
        return;
    };
    let owner = owner();
    let directory = cgroup.join("rbuild").join(owner.to_string()).join("7");
    fs::create_dir_all(&directory).unwrap();
    let mut survivor = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(directory.join("cgroup.procs"), survivor.id().to_string()).unwrap();
    sandbox::sweep(&machine, &owner).unwrap();
    assert!(!directory.exists());
    assert!(!survivor.wait().unwrap().success());
    drop(world);
}

#[test]
fn owner_names_are_checked() {
    for name in ["", "A", "a/b", "..", &"a".repeat(65)] {
        assert!(name.parse::<Owner>().is_err(), "{name}");
    }
    assert_eq!("pid-12_3".parse::<Owner>().unwrap().to_string(), "pid-12_3");
}
