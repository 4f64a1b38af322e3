//! What a process may do and sees here, beside what it may do and sees under docker (`cargo xtask peers --record-probe`).
//!
//! Every difference is in `testdata/probe/NAME-differences.txt`, below the reason for it; a difference without a reason fails the
//! test, and so does a reason without its difference, unless a `?` before it says that it depends on the machine.

use std::fs;
use std::process::Stdio;

use testkit::{Need, probe};

use crate::world::{World, succeed, write_files};

/// A store with the image `probe`.
fn probe_world(test: &str) -> Option<World> {
    if cfg!(not(target_arch = "x86_64")) {
        testkit::skip(test, "needs the machine whose calls were recorded: x86-64");
        return None;
    }
    if !testkit::can_run(test, &[Need::Root, Need::Busybox]) {
        return None;
    }
    let world = World::new();
    let (root, tar) = (world.path("probe-root"), world.path("probe.tar"));
    fs::create_dir(&root).unwrap();
    probe::make_root(&root).unwrap();
    succeed(std::process::Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&root).arg("."));
    succeed(world.rbuild().arg("import").arg(&tar).arg("probe"));
    Some(world)
}

/// Compares with the recording `docker-NAME.txt`.
#[track_caller]
fn check(name: &str, told: &str) {
    let directory = probe::directory();
    let theirs = fs::read_to_string(directory.join(format!("docker-{name}.txt"))).unwrap();
    let found = probe::differences(&theirs, told);
    let argued = fs::read_to_string(directory.join(format!("{name}-differences.txt"))).unwrap_or_default();
    let argued = argued.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (possible, certain): (Vec<&str>, Vec<&str>) = argued.partition(|line| line.starts_with('?'));
    let is_argued =
        |line: &&String| certain.contains(&line.as_str()) || possible.contains(&format!("?{line}").as_str());
    let new: Vec<&String> = found.iter().filter(|line| !is_argued(line)).collect();
    let gone: Vec<&&str> = certain.iter().filter(|line| !found.iter().any(|found| found == **line)).collect();
    assert!(new.is_empty() && gone.is_empty(), "not argued: {new:#?}\nargued, and not there: {gone:#?}");
}

#[test]
fn a_run_step_differs_from_dockers_only_where_there_is_a_reason() {
    let test = "a_run_step_differs_from_dockers_only_where_there_is_a_reason";
    let Some(world) = probe_world(test) else { return };
    let context = world.path("context");
    write_files(&context, &[("Dockerfile", probe::DOCKERFILE)]);
    succeed(world.rbuild().args(["build", "--quiet", "--network=none", "--tag=told"]).arg(context));
    let told = succeed(world.rbuild().args(["run", "told", "cat", "/told"]));
    check("build", &String::from_utf8(told.stdout).unwrap());
}

#[test]
fn a_container_differs_from_dockers_only_where_there_is_a_reason() {
    let test = "a_container_differs_from_dockers_only_where_there_is_a_reason";
    let Some(world) = probe_world(test) else { return };
    let mut run = world.rbuild();
    run.args(["run", "--network=none", "probe", "/probe"]).stdin(Stdio::null());
    check("run", &String::from_utf8(succeed(&mut run).stdout).unwrap());
}
