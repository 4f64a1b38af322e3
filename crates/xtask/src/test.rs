//! `cargo xtask test`: everything that can be tested on this machine, and a list of what could not.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::{apt, command, foreign, repository};

/// What tests compare with or work on. Without one of them, the tests that need it are skipped.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "docker-registry",
    "e2fsprogs",
    "git",
    "make",
    "mount",
    "openssh-client",
    "perl-base",
    "python3",
    "skopeo",
    "umoci",
];

/// Installs what the tests need where it may, runs them, and says what was skipped. With `CI` set, skipping is failing.
pub(crate) fn run() -> Result<()> {
    apt::install(PACKAGES)?;
    foreign::prepare()?;
    let skipped = repository().join("target/skipped-tests.txt");
    fs::create_dir_all(repository().join("target"))?;
    fs::write(&skipped, "")?;
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--workspace", "--quiet"]).current_dir(repository());
    command::run(cargo.env("RBUILD_SKIPPED", &skipped))?;
    let skipped = fs::read_to_string(&skipped)?;
    match skipped.lines().count() {
        0 => println!("nothing was skipped"),
        count => println!("{skipped}{count} skipped"),
    }
    ensure!(skipped.is_empty() || std::env::var_os("CI").is_none(), "no test may be skipped here");
    Ok(())
}
