//! `cargo xtask quickstart`: from a fresh clone to a running container in one command, without any registry.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{apt, command, repository};

/// Builds rbuild, makes a base image of the machine's busybox, builds and runs an image, and builds it again.
pub(crate) fn run() -> Result<()> {
    ensure!(apt::is_root(), "rbuild needs root until it uses user namespaces: run this as root");
    section("building rbuild");
    let rbuild = build_release()?;
    let store = repository().join("target/quickstart");

    section("making a base image of busybox, without a registry");
    make_base(&rbuild, &store)?;

    section("building fixtures/quickstart");
    let context = repository().join("fixtures/quickstart");
    let build = || {
        let mut build = rbuild_in(&rbuild, &store);
        build.args(["build", "--progress=plain", "-t", "quickstart"]).arg(&context);
        command::run(&mut build)
    };
    build()?;

    section("running it");
    command::run(rbuild_in(&rbuild, &store).args(["run", "quickstart"]))?;

    section("building it again: nothing changed, so nothing runs");
    let began = Instant::now();
    build()?;
    println!(
        "\nThat took {} ms with starting the program. It is {}",
        began.elapsed().as_millis(),
        rbuild.display()
    );
    println!("Its images of this tour are in {}: remove that directory when you are done.", store.display());
    Ok(())
}

/// The program as users get it.
pub(crate) fn build_release() -> Result<PathBuf> {
    command::run(
        Command::new("cargo").args(["build", "--release", "--package", "rbuild"]).current_dir(repository()),
    )?;
    Ok(repository().join("target/release/rbuild"))
}

fn rbuild_in(rbuild: &Path, store: &Path) -> Command {
    let mut command = Command::new(rbuild);
    command.arg("--root").arg(store);
    command
}

/// The machine's static busybox as an image; Debian's package if there is none; else the image of a registry.
fn make_base(rbuild: &Path, store: &Path) -> Result<()> {
    if testkit::rootfs::busybox().is_none() {
        apt::install(&["busybox-static"])?;
    }
    if testkit::rootfs::busybox().is_none() {
        return command::run(rbuild_in(rbuild, store).args(["pull", "busybox"]));
    }
    let rootfs = tempfile::tempdir()?;
    testkit::rootfs::make_busybox(rootfs.path()).context("the root filesystem of the base image")?;
    let tar = repository().join("target/busybox.tar");
    command::run(Command::new("tar").arg("-C").arg(rootfs.path()).arg("-cf").arg(&tar).arg("."))?;
    command::run(rbuild_in(rbuild, store).arg("import").arg(tar).arg("busybox"))
}

fn section(title: &str) {
    println!("\n== {title}");
}
