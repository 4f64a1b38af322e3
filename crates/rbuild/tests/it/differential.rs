//! The differential corpus: config, history and tree of every Dockerfile are those that the reference builder gives.
//!
//! Where rbuild differs on purpose, the case has a directory `ours/` with the files that differ, and a row in the corpus's README that
//! says why; `UPDATE_GOLDEN=1` rewrites what is in `ours/` and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::differential::{Case, Prepared, known_files, make_bases};
use testkit::observed::{KnownFiles, Observed};

/// Differences shown of one file.
const SHOWN_LINES: usize = 8;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/differential")
}

fn rbuild(root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
    // As bare as what the reference builder gets; git is found by its PATH.
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("--root").arg(root);
    command
}

#[track_caller]
fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn every_case_gives_what_the_reference_builder_gives() {
    if !testkit::can_run(
        "every_case_gives_what_the_reference_builder_gives",
        &[testkit::Need::Root, testkit::Need::Busybox, testkit::Need::Program("git")],
    ) {
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("store");
    for (name, tar) in make_bases(&corpus(), &work.path().join("bases")).unwrap() {
        succeed(rbuild(&root).arg("import").arg(tar).arg(name));
    }
    let known = known_files().unwrap();
    let only = std::env::var("CASE").ok();
    let mut cases = Case::all(&corpus()).unwrap();
    cases.retain(|case| only.as_ref().is_none_or(|only| case.name.contains(only.as_str())));
    let failures = Mutex::new(BTreeMap::new());
    let next = AtomicUsize::new(0);
    // Cases call their images alike, and share one store: one of them at a time may have its images there.
    let image_names = Mutex::new(());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let has_images = case.directory.join("images").is_dir();
                    let _own_names = has_images.then(|| image_names.lock().unwrap());
                    if let Err(difference) = run(case, &root, &known) {
                        failures.lock().unwrap().insert(case.name.clone(), difference);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let shown: String = failures.iter().map(|(name, what)| format!("== {name}\n{what}\n")).collect();
    assert!(failures.is_empty(), "{shown}{} of {} cases differ", failures.len(), cases.len());
}

/// Builds one case and compares what came out; `Err` is the difference in words.
fn run(case: &Case, root: &Path, known: &KnownFiles) -> Result<(), String> {
    let work = tempfile::tempdir().unwrap();
    let prepared = case.prepare(work.path(), || TcpListener::bind(("127.0.0.1", 0))).unwrap();
    let archive = work.path().join("image.tar");
    let output = build(&prepared, root, &archive);
    let stderr = prepared.without_places(&String::from_utf8_lossy(&output.stderr));
    match (output.status.success(), should_be_refused(case)) {
        (true, false) => {
            let observed = prepared.observe(&archive, known).map_err(|e| format!("{e:#}"))?;
            compare(case, &observed)
        }
        (true, true) => Err("was built, and should be refused".to_owned()),
        (false, false) => Err(format!("was refused, and should be built:\n{stderr}")),
        (false, true) if matches!(output.status.code(), Some(1..=3)) => compare_refusal(case, &stderr),
        (false, true) => Err(format!("was refused with {:?}:\n{stderr}", output.status)),
    }
}

fn should_be_refused(case: &Case) -> bool {
    let ours = case.directory.join("ours");
    let is_built_by_us = ours.join("tree.txt").exists();
    ours.join("error.txt").exists() || (case.arguments.fails && !is_built_by_us)
}

/// Where we alone refuse, the words are held, too.
fn compare_refusal(case: &Case, stderr: &str) -> Result<(), String> {
    if !case.directory.join("ours/error.txt").exists() {
        return Ok(());
    }
    let title = stderr.lines().find(|line| line.starts_with("error")).unwrap_or_default();
    difference(case, "error.txt", &format!("{title}\n")).map_or(Ok(()), Err)
}

fn build(prepared: &Prepared, root: &Path, archive: &Path) -> Output {
    let path = |path: &Path| path.display().to_string();
    for image in &prepared.images {
        succeed(rbuild(root).args(["build", "--quiet", "--network=none"]).args(image.command_line(&path)));
    }
    let command = |prepared: &Prepared| {
        let mut command = rbuild(root);
        command.envs(&prepared.arguments.environment).stdin(prepared.stdin().unwrap());
        command.args(["build", "--quiet", "--network=none"]).args(prepared.command_line(&path));
        command
    };
    let mut build = command(prepared);
    match &prepared.earlier {
        Some(earlier) => drop(succeed(command(earlier).arg("--no-cache"))),
        None => drop(build.arg("--no-cache")),
    }
    build.arg(prepared.output(&path(archive))).output().unwrap()
}

fn compare(case: &Case, observed: &Observed) -> Result<(), String> {
    let files = [
        ("config.json", &observed.config),
        ("history.json", &observed.history),
        ("tree.txt", &observed.tree),
    ];
    let differences: Vec<String> =
        files.iter().filter_map(|(file, got)| difference(case, file, got)).collect();
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
}

fn difference(case: &Case, file: &str, got: &str) -> Option<String> {
    let ours = case.directory.join("ours").join(file);
    if ours.exists() && std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&ours, got).unwrap();
    }
    let path = if ours.exists() { ours } else { case.directory.join("expected").join(file) };
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected == got {
        return None;
    }
    let missing = expected
        .lines()
        .filter(|line| !got.lines().any(|other| other == *line))
        .map(|line| format!("- {line}"));
    let added = got
        .lines()
        .filter(|line| !expected.lines().any(|other| other == *line))
        .map(|line| format!("+ {line}"));
    let lines: Vec<String> = missing.take(SHOWN_LINES).chain(added.take(SHOWN_LINES)).collect();
    Some(format!("{file}:\n{}", lines.join("\n")))
}

#[test]
fn every_difference_has_a_row_in_the_readme() {
    let readme = fs::read_to_string(corpus().join("README.md")).unwrap();
    let table = readme.split("## Explained differences").nth(1).unwrap().split("\n## ").next().unwrap();
    for case in Case::all(&corpus()).unwrap() {
        let differs = case.directory.join("ours").exists();
        let has_row = table.contains(&format!("`{}`", case.name));
        assert_eq!(
            differs, has_row,
            "{}: a directory `ours/` and a row of the table belong together",
            case.name
        );
    }
}
