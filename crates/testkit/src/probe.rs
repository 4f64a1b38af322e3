//! The program `probe` (`src/bin/probe.rs`) and what it is told under: an image of its own, one Dockerfile, one command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::rootfs::{add_libraries, make_busybox};

/// Runs the probe as a RUN and keeps what it tells in the image's `/told`. The base is called `probe`.
pub const DOCKERFILE: &str = "FROM probe\nRUN [\"/probe\", \"/told\"]\n";

/// Where the recorded tellings of the reference engine lie: `docker-build.txt` and `docker-run.txt`, and what is to be said of the differences.
#[must_use]
pub fn directory() -> PathBuf {
    crate::golden::testdata().join("probe")
}

/// Fills the empty directory `root` with the probe, its libraries and busybox.
///
/// # Errors
/// If the probe cannot be built, or files cannot be made.
pub fn make_root(root: &Path) -> Result<()> {
    make_busybox(root)?;
    let program = build()?;
    add_libraries(root, &program)?;
    fs::copy(&program, root.join("probe")).context("copy the probe")?;
    Ok(())
}

/// Builds the probe: another package's tests cannot name it as theirs.
fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args([
        "build",
        "--package",
        "testkit",
        "--bin",
        "probe",
        "--quiet",
        "--message-format",
        "json-render-diagnostics",
    ]);
    let output = build.current_dir(env!("CARGO_MANIFEST_DIR")).output().context("start cargo")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout)?;
    let executable = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    executable.context("cargo names what it has built")
}

/// The lines that only one of two tellings has: `- ` before theirs, `+ ` before ours, in their order.
#[must_use]
pub fn differences(theirs: &str, ours: &str) -> Vec<String> {
    let only = |one: &str, other: &str, sign: &str| {
        let lines = one.lines().filter(|line| !other.lines().any(|other| other == *line));
        lines.map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    let mut all = only(theirs, ours, "-");
    all.extend(only(ours, theirs, "+"));
    all
}
