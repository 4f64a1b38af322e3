//! One build by BuildKit, through `docker buildx`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::Result;
use testkit::differential::Prepared;

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

/// Builds what a case needs to have been built before, and then the case.
pub(super) fn build(engine: &Engine, prepared: &Prepared) -> Result<Outcome> {
    for image in &prepared.images {
        let mut build = docker_build(engine, prepared, Cache::Unused);
        command::read(build.args(image.command_line(&|path| inside(engine, path))))?;
    }
    if let Some(earlier) = &prepared.earlier {
        let mut build = docker_build(engine, earlier, Cache::Unused);
        command::read(
            build.args(earlier.command_line(&|path| inside(engine, path))).stdin(earlier.stdin()?),
        )?;
    }
    let cache = if prepared.earlier.is_some() { Cache::Used } else { Cache::Unused };
    let mut build = docker_build(engine, prepared, cache);
    build.arg(format!("{},force-compression=true", prepared.output("image.tar")));
    build.args(prepared.command_line(&|path| inside(engine, path))).stdin(prepared.stdin()?);
    let output = command::capture(&mut build)?;
    let archive = engine.exchange().join("image.tar");
    Ok(if output.status.success() { Outcome::Built(archive) } else { Outcome::Refused(message(&output)) })
}

/// Whether a build may reuse the steps of others.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Cache {
    Used,
    Unused,
}

/// Without network, since the engine's namespace has none, and without provenance, which would make the image an index.
fn docker_build(engine: &Engine, prepared: &Prepared, cache: Cache) -> Command {
    let mut build = engine.command("env");
    build.args(prepared.arguments.environment.iter().map(|(name, value)| format!("{name}={value}")));
    build.args(["docker", "buildx", "build", "--progress=plain", "--network=none", "--provenance=false"]);
    if cache == Cache::Unused {
        build.arg("--no-cache");
    }
    build
}

/// A path of the exchange directory as the engine names it; every path of a case is one.
fn inside(engine: &Engine, path: &Path) -> String {
    let below = path.strip_prefix(engine.exchange()).expect("cases are laid out in the exchange directory");
    format!("/exchange/{}", below.display())
}

/// The words a message begins with, depending on where in the daemon it was noticed, which is not always the same.
const PREFIXES: &[&str] = &["failed to build: ", "failed to solve: ", "failed to run Build function: "];

/// Where what depends on chance or on the machine begins: which of two equally near names is suggested, which resolver was asked.
const VOLATILE_ENDS: &[&str] = &[" (did you mean", ": dial "];

/// The message behind the last `ERROR:`, without [`PREFIXES`] and without what changes from run to run:
/// [`VOLATILE_ENDS`], names of snapshots and temporary mounts.
fn message(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.rsplit_once("ERROR: ").map_or(&*text, |(_, message)| message);
    let message =
        PREFIXES.iter().fold(last.trim(), |message, prefix| message.strip_prefix(prefix).unwrap_or(message));
    let message = VOLATILE_ENDS
        .iter()
        .fold(message, |message, end| message.split_once(end).map_or(message, |(start, _)| start));
    let steady: Vec<&str> = message.split(' ').map(without_volatile_parts).collect();
    steady.join(" ") + "\n"
}

fn without_volatile_parts(word: &str) -> &str {
    if let Some((_, mount)) = word.split_once("/cachemounts/buildkit") {
        return mount.trim_start_matches(|letter: char| letter.is_ascii_digit());
    }
    if word.contains("::") && word.ends_with(':') { "SNAPSHOT:" } else { word }
}
