//! What a process may use: each option of `build` and `run` arrives in the sandbox, and a mistake in one is told.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::world::{World, succeed, write_files};

/// Prints the first of these files that there is: that of cgroup 1 or that of cgroup 2.
fn first_of(files: &str) -> String {
    format!("for f in {files}; do cat /sys/fs/cgroup/$f 2>/dev/null && break; done")
}

/// What a script writes as a RUN of a build with these options.
fn built(world: &World, options: &[&str], script: &str) -> String {
    let context = world.path("context");
    write_files(&context, &[("Dockerfile", &format!("FROM base\nRUN ({script}) > /out\nCMD cat /out\n"))]);
    succeed(
        world.rbuild().args(["build", "--quiet", "--no-cache", "--tag", "app"]).args(options).arg(context),
    );
    String::from_utf8(succeed(world.rbuild().args(["run", "app"])).stdout).unwrap()
}

/// What it writes in a container with these options.
fn ran(world: &World, options: &[&str], script: &str) -> String {
    let output = succeed(world.rbuild().arg("run").args(options).args(["base", "sh", "-c", script]));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn check(world: &World, options: &[&str], script: &str, expected: &[&str]) {
    for (command, text) in [("build", built(world, options, script)), ("run", ran(world, options, script))] {
        assert!(expected.contains(&text.trim()), "{command} {options:?}: {text:?} is none of {expected:?}");
    }
}

#[test]
fn memory_processors_files_and_shm_are_limited_as_asked() {
    let Some(world) = World::with_base("memory_processors_files_and_shm_are_limited_as_asked") else {
        return;
    };
    let memory = first_of("memory/memory.limit_in_bytes memory.max");
    check(&world, &["--memory", "64m"], &memory, &["67108864"]);
    let swap = first_of("memory/memory.memsw.limit_in_bytes memory.swap.max");
    check(&world, &["-m", "64m", "--memory-swap", "96m"], &swap, &["100663296", "33554432"]);
    let cpu = first_of("cpu/cpu.cfs_quota_us cpu.max");
    check(&world, &["--cpus", "0.5"], &cpu, &["50000", "50000 100000"]);
    check(&world, &["--cpu-quota", "30000", "--cpu-period", "60000"], &cpu, &["50000", "50000 100000"]);
    check(&world, &["--ulimit", "nofile=100:200"], "echo $(ulimit -n) $(ulimit -Hn)", &["100 200"]);
    check(&world, &[], "ulimit -n", &["1024"]);
    check(&world, &["--ulimit", "core=0", "--ulimit", "core=512"], "ulimit -c", &["1", "512"]);
    let shm = "df -k /dev/shm | tail -n 1 | awk '{print $2}'";
    check(&world, &["--shm-size", "8m"], shm, &["8192"]);
    check(&world, &[], shm, &["65536"]);
    world.assert_sound();
}

#[test]
fn processors_are_chosen_and_weighed_as_asked() {
    let Some(world) = World::with_base("processors_are_chosen_and_weighed_as_asked") else { return };
    let shares = first_of("cpu/cpu.shares cpu.weight");
    check(&world, &["--cpu-shares", "512"], &shares, &["512", "20"]);
    check(
        &world,
        &["--cpuset-cpus", "0"],
        "nproc; grep Cpus_allowed_list /proc/self/status | cut -f 2",
        &["1\n0"],
    );
    check(&world, &["--cpuset-mems", "0"], &first_of("cpuset/cpuset.mems cpuset.mems"), &["0"]);
    world.assert_sound();
}

#[test]
fn resources_are_limits_by_other_names() {
    let Some(world) = World::with_base("resources_are_limits_by_other_names") else { return };
    let cpu = first_of("cpu/cpu.cfs_quota_us cpu.max");
    for (resources, script, expected) in [
        (&["memory=64m"][..], first_of("memory/memory.limit_in_bytes memory.max"), &["67108864"][..]),
        (
            &["memory=64m", "memory-swap=96m"],
            first_of("memory/memory.memsw.limit_in_bytes memory.swap.max"),
            &["100663296", "33554432"],
        ),
        (&["cpu-quota=30000", "cpu-period=60000"], cpu, &["50000", "50000 100000"]),
        (&["cpu-shares=512"], first_of("cpu/cpu.shares cpu.weight"), &["512", "20"]),
        (&["cpuset-cpus=0", "cpuset-mems=0"], "nproc".to_owned(), &["1"]),
    ] {
        let options: Vec<String> =
            resources.iter().map(|resource| format!("--resource={resource}")).collect();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let text = built(&world, &options, &script);
        assert!(expected.contains(&text.trim()), "{options:?}: {text:?} is none of {expected:?}");
    }
}

#[test]
fn groups_are_made_where_they_are_asked_for_and_removed() {
    let Some(world) = World::with_base("groups_are_made_where_they_are_asked_for_and_removed") else {
        return;
    };
    let parent = format!("rbuild-test-{}", std::process::id());
    let groups = || {
        let roots = ["memory", "pids", "cpu", "cpuset", "unified", ""];
        let roots = roots.iter().map(|name| Path::new("/sys/fs/cgroup").join(name).join(&parent));
        roots.filter(|path| path.exists()).collect::<Vec<_>>()
    };
    let mut command = world.rbuild();
    command.args(["run", "-i", "--cgroup-parent", &parent, "base", "sh", "-c", "echo up; cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    // Members of a group are seen from outside by the numbers that they have there.
    let members = |path: &Path| {
        let below = Command::new("find").arg(path).args(["-name", "cgroup.procs"]).output().unwrap().stdout;
        let files = String::from_utf8(below).unwrap();
        files.lines().map(|file| fs::read_to_string(file).unwrap_or_default().lines().count()).sum::<usize>()
    };
    let all = groups();
    assert!(!all.is_empty(), "there is a group `{parent}`");
    assert!(all.iter().any(|path| members(path) == 1), "the process is in it: {all:?}");
    child.stdin.take();
    assert!(child.wait().unwrap().success());
    assert_eq!(groups(), Vec::<PathBuf>::new(), "nobody else wanted it");
    world.assert_sound();
}

#[test]
fn a_run_out_of_its_memory_is_told_as_that() {
    let Some(world) = World::with_base("a_run_out_of_its_memory_is_told_as_that") else { return };
    let context = world.path("context");
    write_files(&context, &[("Dockerfile", "FROM base\nRUN x=$(head -c 200m /dev/zero | tr '\\0' x)\n")]);
    let output = world.rbuild().args(["build", "--memory", "32m"]).arg(context).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("out of memory"), "{said}");
}

#[test]
fn impossible_limits_are_refused_with_the_way_out() {
    let world = World::new();
    for (options, expected) in [
        (vec!["--memory", "1k"], "6 MiB"),
        (vec!["--memory", "lots"], "64m"),
        (vec!["--memory-swap", "1g"], "needs `--memory`"),
        (vec!["--memory", "2g", "--memory-swap", "1g"], "the larger one"),
        (vec!["--cpus", "0"], "at least 0.01"),
        (vec!["--cpus", "1", "--cpu-quota", "1000"], "cannot be used with"),
        (vec!["--cpu-shares", "1"], "2..="),
        (vec!["--cpuset-cpus", "3-1"], "no list such as"),
        (vec!["--cgroup-parent", "../x"], "no control group"),
        (vec!["--resource", "memory"], "has no value"),
        (vec!["--resource", "disk=1g"], "no resource `disk`"),
        (vec!["--ulimit", "files=1"], "nofile"),
        (vec!["--ulimit", "nofile=2:1"], "above the hard one"),
    ] {
        let output = world.rbuild().arg("build").args(&options).arg(".").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}\n{said}");
        assert!(said.contains(expected), "{options:?} says not `{expected}`:\n{said}");
    }
}
