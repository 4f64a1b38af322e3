//! One build by BuildKit, through `docker buildx`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result};
use testkit::differential::{Case, Prepared};

use super::engine::Engine;
use crate::command;

/// What came of a build.
pub(super) enum Outcome {
    /// The image, an OCI archive.
    Built(PathBuf),
    /// BuildKit's message.
    Refused(String),
}

/// Imports a root filesystem as the image `name`.
pub(super) fn import(engine: &Engine, tar: &Path, name: &str) -> Result<()> {
    let copy = engine.exchange().join("base.tar");
    std::fs::copy(tar, copy)?;
    command::read(engine.command("docker").args(["import", "base.tar", name])).map(drop)
}

/// Builds the images a case needs, and then the case.
pub(super) fn build(engine: &Engine, case: &Case, prepared: &Prepared) -> Result<Outcome> {
    for (tag, dockerfile) in &prepared.images {
        let mut build = docker_build(engine, case)?;
        build.arg("--tag").arg(tag).arg("--file").arg(inside(engine, dockerfile)?);
        command::read(build.arg(inside(engine, &prepared.context)?))?;
    }
    let archive = engine.exchange().join("image.tar");
    let mut build = docker_build(engine, case)?;
    add_arguments(&mut build, engine, case, prepared)?;
    build.args(["--output", "type=oci,dest=image.tar,compression=uncompressed,force-compression=true"]);
    let output = command::capture(build.arg(inside(engine, &prepared.context)?))?;
    Ok(if output.status.success() { Outcome::Built(archive) } else { Outcome::Refused(message(&output)) })
}

/// Without network, since the engine's namespace has none, and without provenance, which would make the image an index.
fn docker_build(engine: &Engine, case: &Case) -> Result<Command> {
    let mut build = engine.command("env");
    build.args(case.arguments.environment.iter().map(|(name, value)| format!("{name}={value}")));
    build.args([
        "docker",
        "buildx",
        "build",
        "--progress=plain",
        "--network=none",
        "--no-cache",
        "--provenance=false",
    ]);
    Ok(build)
}

fn add_arguments(build: &mut Command, engine: &Engine, case: &Case, prepared: &Prepared) -> Result<()> {
    build.arg("--file").arg(inside(engine, &prepared.dockerfile)?);
    let arguments = &case.arguments;
    if let Some(target) = &arguments.target {
        build.args(["--target", target]);
    }
    for (name, value) in &arguments.build_args {
        let text = value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}"));
        build.args(["--build-arg", &text]);
    }
    for (name, value) in &prepared.contexts {
        let value = if value.contains("://") { value.clone() } else { inside(engine, Path::new(value))? };
        build.args(["--build-context", &format!("{name}={value}")]);
    }
    for (name, value) in &arguments.labels {
        build.args(["--label", &format!("{name}={value}")]);
    }
    for (id, path) in &prepared.secrets {
        build.args(["--secret", &format!("id={id},src={}", inside(engine, path)?)]);
    }
    for (name, address) in &arguments.hosts {
        build.args(["--add-host", &format!("{name}:{address}")]);
    }
    Ok(())
}

/// A path of the exchange directory as the engine names it.
fn inside(engine: &Engine, path: &Path) -> Result<String> {
    let below =
        path.strip_prefix(engine.exchange()).with_context(|| format!("`{}` lies outside", path.display()))?;
    Ok(format!("/exchange/{}", below.display()))
}

/// The words a message begins with, depending on where in the daemon it was noticed, which is not always the same.
const PREFIXES: &[&str] = &["failed to build: ", "failed to solve: ", "failed to run Build function: "];

/// The message behind the last `ERROR:`, without [`PREFIXES`] and without what changes from run to run: names of
/// snapshots and temporary mounts, and which of two equally near names is suggested.
fn message(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.rsplit_once("ERROR: ").map_or(&*text, |(_, message)| message);
    let message =
        PREFIXES.iter().fold(last.trim(), |message, prefix| message.strip_prefix(prefix).unwrap_or(message));
    let message = message.split_once(" (did you mean").map_or(message, |(message, _)| message);
    let steady: Vec<&str> = message.split(' ').map(without_volatile_parts).collect();
    steady.join(" ") + "\n"
}

fn without_volatile_parts(word: &str) -> &str {
    if let Some((_, mount)) = word.split_once("/cachemounts/buildkit") {
        return mount.trim_start_matches(|letter: char| letter.is_ascii_digit());
    }
    if word.contains("::") && word.ends_with(':') { "SNAPSHOT:" } else { word }
}
