//! `cargo xtask peers --record`: what BuildKit makes of the differential corpus, written as golden data.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use testkit::differential::{BUSYBOX, Case, known_files};
use testkit::observed::{KnownFiles, Observed};

use super::buildkit::{self, Outcome};
use super::engine::{self, Engine};
use super::root;
use crate::{command, fixtures};

/// Records the named cases, or every case and the versions.
pub(super) fn run(root: &Path, names: &[&str]) -> Result<()> {
    let cases = select(names)?;
    let known = known_files()?;
    let bases = fixtures::bases()?;
    let engine = Engine::start(root, "/var/lib/docker", &root.with_file_name("engine.log"))?;
    engine::forget_builds(&engine)?;
    for (name, tar) in bases {
        buildkit::import(&engine, &tar, &name).with_context(|| format!("base image `{name}`"))?;
    }
    let failures = record_all(&engine, &cases, &known);
    engine.stop()?;
    if names.is_empty() {
        write_versions(root)?;
    }
    ensure!(failures == 0, "{failures} of {} cases could not be recorded", cases.len());
    Ok(())
}

/// The named cases, or all.
pub(super) fn select(names: &[&str]) -> Result<Vec<Case>> {
    let mut cases = Case::all(&fixtures::corpus())?;
    for name in names {
        ensure!(cases.iter().any(|case| case.name == *name), "there is no case `{name}`");
    }
    cases.retain(|case| names.is_empty() || names.contains(&case.name.as_str()));
    Ok(cases)
}

/// Records what can be recorded, says what cannot, and counts it: one wrong case should not hide the next.
fn record_all(engine: &Engine, cases: &[Case], known: &KnownFiles) -> usize {
    let mut failures = 0;
    for case in cases {
        let start = Instant::now();
        match record_case(engine, case, known) {
            Ok(()) => println!("{}\t{:.1} s", case.name, start.elapsed().as_secs_f32()),
            Err(error) => {
                println!("{}\tnot recorded: {error:#}", case.name);
                failures += 1;
            }
        }
    }
    failures
}

fn record_case(engine: &Engine, case: &Case, known: &KnownFiles) -> Result<()> {
    ensure!(case.directory.join("README").is_file(), "it has no README");
    let work = tempfile::tempdir_in(engine.exchange())?;
    let prepared = case.prepare(work.path(), || engine.listen())?;
    let outcome = buildkit::build(engine, &prepared)?;
    let files = match (&outcome, case.arguments.fails) {
        (Outcome::Built(archive), false) => observed_files(prepared.observe(archive, known)?),
        (Outcome::Refused(message), true) => {
            BTreeMap::from([("error.txt", prepared.without_places(message))])
        }
        (Outcome::Built(_), true) => bail!("it should fail and was built"),
        (Outcome::Refused(message), false) => bail!("{message}"),
    };
    write_expected(&case.directory.join("expected"), &files)
}

fn observed_files(observed: Observed) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("config.json", observed.config),
        ("history.json", observed.history),
        ("tree.txt", observed.tree),
    ])
}

/// Replaces the directory, so that no file of an earlier kind of outcome stays.
fn write_expected(directory: &Path, files: &BTreeMap<&'static str, String>) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir(directory)?;
    for (name, text) in files {
        fs::write(directory.join(name), text)?;
    }
    Ok(())
}

fn write_versions(root: &Path) -> Result<()> {
    let mut versions = root::versions(root)?;
    versions.insert("busybox of the base images".to_owned(), busybox_version()?);
    let mut text = serde_json::to_string_pretty(&versions)?;
    text.push('\n');
    Ok(fs::write(fixtures::corpus().join("versions.json"), text)?)
}

/// The first line of busybox's own help: it is what runs in the RUN steps, and it is this machine's, not the peers'.
fn busybox_version() -> Result<String> {
    let help = command::read(Command::new(BUSYBOX).arg("--help"))?;
    let line = help.lines().next().context("busybox says nothing")?;
    Ok(line.trim_end_matches(" multi-call binary.").to_owned())
}
