//! `cargo xtask fuzz`: libFuzzer, on the stable compiler, with what it found before kept below `target/fuzz`.
//!
//! What `cargo fuzz` would do with a nightly compiler is to add a sanitizer of memory, and there is no `unsafe` in what is read here. Coverage,
//! which finds the way into a parser, needs passes of LLVM that every compiler has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use testkit::fuzz;

use crate::{command, repository};

/// A target, and the package of its program, `fuzz-TARGET`, or of `fuzz` in place of the program of that name.
const TARGETS: &[(&str, &str, &str)] = &[
    ("dockerfile", "fuzz", "fuzz-dockerfile"),
    ("ignore", "fuzz", "fuzz-ignore"),
    ("reference", "fuzz", "fuzz-reference"),
    ("flags", "rbuild", "rbuild"),
];

/// As `cargo fuzz` has it.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// What is a mistake in a test is one here, and linking together would undo what was instrumented apart.
const PROFILE: &[(&str, &str)] = &[
    ("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true"),
    ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_STRIP", "none"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only"),
];

/// Longest input; the targets grow some of them to 64 KiB by themselves.
const MAX_BYTES: usize = 8 << 10;

/// Looks for inputs that make a target fail: `TARGET [--minutes=N]`.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let (name, minutes) = match words {
        [name] => (*name, 15),
        [name, minutes] => {
            let number = minutes.strip_prefix("--minutes=").and_then(|number| number.parse().ok());
            (*name, number.with_context(|| format!("`{minutes}` is not of the form `--minutes=N`"))?)
        }
        _ => bail!("one target is needed: {}", names()),
    };
    let target = TARGETS.iter().find(|(target, _, _)| *target == name);
    let (_, package, binary) = target.with_context(|| format!("there are {}", names()))?;
    let program = build(package, binary)?;
    search(name, &program, minutes)
}

fn names() -> String {
    TARGETS.iter().map(|(name, _, _)| *name).collect::<Vec<_>>().join(", ")
}

/// Builds with coverage, apart from everything else that is built here.
fn build(package: &str, binary: &str) -> Result<PathBuf> {
    // With a target of its own, build scripts and macros are left without coverage, which they could not be linked with.
    let triple = host()?;
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--features=libfuzzer", "--target", &triple]);
    cargo.args(["--package", package, "--bin", binary]).arg("--target-dir").arg(directory());
    cargo.env("RUSTFLAGS", COVERAGE).envs(PROFILE.iter().copied()).current_dir(repository());
    command::run(&mut cargo)?;
    Ok(directory().join(triple).join("release").join(binary))
}

fn host() -> Result<String> {
    let said = command::read(Command::new("rustc").arg("-vV"))?;
    let line = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc names its host")?.to_owned())
}

fn directory() -> PathBuf {
    repository().join("target/fuzz")
}

fn search(name: &str, program: &Path, minutes: u64) -> Result<()> {
    let [corpus, found, empty] = ["corpus", "found", "empty"].map(|kind| directory().join(kind).join(name));
    for directory in [&corpus, &found, &empty] {
        fs::create_dir_all(directory)?;
    }
    for (index, seed) in fuzz::seeds(name).iter().enumerate() {
        fs::write(corpus.join(format!("seed-{index}")), seed)?;
    }
    let mut fuzzer = Command::new(program);
    fuzzer.arg(&corpus).arg(format!("-artifact_prefix={}/", found.display()));
    fuzzer.arg(format!("-dict={}", fuzz::dictionary(name).display()));
    fuzzer.arg(format!("-max_total_time={}", minutes * 60)).arg(format!("-max_len={MAX_BYTES}"));
    fuzzer.args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    // Relative paths lead to nothing.
    let status = fuzzer.current_dir(&empty).status().context("the fuzzer starts")?;
    ensure!(
        status.success(),
        "an input made `{name}` fail; it lies in {}: mend what it shows, and add it to testdata/fuzz/{name}",
        found.display()
    );
    Ok(())
}
