//! The program that sets up sandboxes for the tests of this crate, and a process of theirs that can be counted and killed.
//!
//! `sandbox-driver repeat ROOT N` starts `true` N times and prints what each start cost and what is left;
//! `sandbox-driver hold ROOT OWNER` starts a sleeping tree, prints its process number and waits.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for tests only")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sandbox::{
    Access, Durability, HelperProgram, Layers, Limits, Machine, MissingCwd, Network, NewPrivileges, PidOne,
    Sandboxes, Spec, Stdio, Upper, User,
};
use sys::RootfsPath;

fn main() {
    sandbox::helper_main();
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "repeat", root, count] => repeat(Path::new(root), count.parse().unwrap()),
        [_, "hold", root, owner] => hold(Path::new(root), owner),
        _ => std::process::exit(2),
    }
}

/// What a process of ours can leave behind.
#[derive(Debug, Eq, PartialEq)]
struct Traces {
    descriptors: usize,
    children: String,
    mounts: usize,
}

fn traces() -> Traces {
    let me = std::process::id();
    Traces {
        descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
        children: std::fs::read_to_string(format!("/proc/{me}/task/{me}/children")).unwrap(),
        // Others may mount things at the same time; these are ours.
        mounts: std::fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .matches("dir=/proc/self/fd/")
            .count(),
    }
}

fn repeat(root: &Path, count: u32) {
    let before = traces();
    let opened = Instant::now();
    let sandboxes = open("repeat");
    println!("open {:?}", opened.elapsed());
    let mut times: Vec<[Duration; 2]> = Vec::new();
    for number in 0..count {
        let scratch = root.with_extension(format!("scratch-{number}"));
        let spec = spec(root, &scratch, "true");
        let started = Instant::now();
        let (process, output) = sandboxes.start(&spec).unwrap();
        let start = started.elapsed();
        let exit = process.wait().unwrap();
        times.push([start, started.elapsed()]);
        assert_eq!(exit.code(), 0);
        drop(output);
        sandboxes.settle();
        std::fs::remove_dir_all(&scratch).unwrap();
    }
    drop(sandboxes);
    times.sort_by_key(|[_, whole]| *whole);
    println!(
        "fastest {:?} median {:?} slowest {:?}",
        times[0],
        times[times.len() / 2],
        times[times.len() - 1]
    );
    let after = traces();
    println!("{}", if before == after { "nothing left".to_owned() } else { format!("{before:?} {after:?}") });
}

fn hold(root: &Path, owner: &str) {
    let sandboxes = open(owner);
    let scratch = root.with_extension("scratch-hold");
    let (process, _output) = sandboxes.start(&spec(root, &scratch, "sleep 1000 & sleep 1000")).unwrap();
    println!("{}", process.pid());
    process.wait().unwrap();
}

fn open(owner: &str) -> Sandboxes {
    let owner = owner.parse().unwrap();
    Sandboxes::open(Machine::probe(&[]).unwrap(), owner, HelperProgram::ThisProgram).unwrap()
}

fn spec(root: &Path, scratch: &Path, script: &str) -> Spec {
    let upper = |name: &str| -> PathBuf {
        let path = scratch.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    let upper = Upper { directory: upper("upper"), work: upper("work"), durability: Durability::Volatile };
    Spec {
        root: Layers { lower: vec![root.to_owned()], upper: Some(upper) },
        root_access: Access::ReadWrite,
        mounts: Vec::new(),
        args: ["/bin/sh", "-c", script].map(OsString::from).to_vec(),
        env: vec![("PATH".into(), "/bin".into())],
        cwd: RootfsPath::root(),
        missing_cwd: MissingCwd::Fail,
        user: User::default(),
        hostname: "buildkitsandbox".to_owned(),
        network: Network::Host,
        limits: Limits::default(),
        stdio: Stdio::Captured,
        pid_one: PidOne::Command,
        new_privileges: NewPrivileges::Allowed,
        posture: sandbox::Posture::Confined,
    }
}
