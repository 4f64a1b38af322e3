//! `cargo xtask fixtures`: the base images of the tests, made from the machine's static busybox.
//!
//! They are not committed: busybox alone is two megabytes. Tests make them by the same function when they need them.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use testkit::differential::{BUSYBOX, make_bases};

use crate::repository;

/// Makes every base and prints where it lies.
pub(crate) fn run() -> Result<()> {
    for (name, tar) in bases()? {
        println!("{name}\t{}", tar.display());
    }
    Ok(())
}

/// Name and tar of every base image.
pub(crate) fn bases() -> Result<Vec<(String, PathBuf)>> {
    ensure!(PathBuf::from(BUSYBOX).is_file(), "{BUSYBOX} is missing: apt-get install busybox-static");
    make_bases(&corpus(), &repository().join("target/fixtures"))
}

/// The differential corpus.
pub(crate) fn corpus() -> PathBuf {
    repository().join("fixtures/differential")
}
