//! What a process may use: each option of `build` and `run` arrives in the sandbox, and a mistake in one is told.

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
        (vec!["--ulimit", "files=1"], "nofile"),
        (vec!["--ulimit", "nofile=2:1"], "above the hard one"),
    ] {
        let output = world.rbuild().arg("build").args(&options).arg(".").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}\n{said}");
        assert!(said.contains(expected), "{options:?} says not `{expected}`:\n{said}");
    }
}
