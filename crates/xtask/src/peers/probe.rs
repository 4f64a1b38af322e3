//! `cargo xtask peers --record-probe`: what a process may do and sees under docker, in a RUN and in a container.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use testkit::probe;

use super::buildkit;
use super::engine::Engine;
use crate::command;

/// Beside what the other recordings store, so that they may go on meanwhile.
const DATA_ROOT: &str = "/var/lib/docker-probe";

/// Without network, since the engine's own namespace has none; ours is compared without one, too.
const BUILD: &[&str] = &[
    "docker",
    "buildx",
    "build",
    "--no-cache",
    "--network=none",
    "--provenance=false",
    "--tag=told",
    "probe-context",
];

const RUN: &[&str] = &["run", "--rm", "--network=none", "probe", "/probe"];

/// Writes `docker-build.txt` and `docker-run.txt`.
pub(super) fn record(root: &Path) -> Result<()> {
    let work = tempfile::tempdir()?;
    let (tree, tar) = (work.path().join("root"), work.path().join("root.tar"));
    fs::create_dir(&tree)?;
    probe::make_root(&tree)?;
    command::run(std::process::Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&tree).arg("."))?;
    let engine = Engine::start(root, DATA_ROOT, &root.with_file_name("engine.log"))?;
    let told = tell(&engine, &tar);
    engine.stop()?;
    let (build, run) = told?;
    fs::create_dir_all(probe::directory())?;
    fs::write(probe::directory().join("docker-build.txt"), build)?;
    fs::write(probe::directory().join("docker-run.txt"), run).context("write the recording")
}

fn tell(engine: &Engine, tar: &Path) -> Result<(String, String)> {
    buildkit::import(engine, tar, "probe")?;
    let context = engine.exchange().join("probe-context");
    fs::create_dir_all(&context)?;
    fs::write(context.join("Dockerfile"), probe::DOCKERFILE)?;
    command::read(engine.command("env").args(BUILD))?;
    fs::remove_dir_all(context)?;
    let build = command::read(engine.command("docker").args([
        "run",
        "--rm",
        "--network=none",
        "told",
        "cat",
        "/told",
    ]))?;
    let run = command::read(engine.command("docker").args(RUN))?;
    Ok((build, run))
}
