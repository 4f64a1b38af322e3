//! Programs of another processor: an emulator that the kernel knows of, and a shell to run with it.
//!
//! Foreign packages come by an index of their own, so that the machine's list of architectures stays as it is.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{apt, command, repository};

/// Debian's name of the other processor; the tests run on amd64.
const ARCHITECTURE: &str = "arm64";

const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// As the package `qemu-user-static` describes it to systemd, which not every machine has.
const DESCRIPTION: &str = "/usr/lib/binfmt.d/qemu-aarch64.conf";

/// Gets ready what it can; what is missing afterwards, tests are skipped for.
pub(crate) fn prepare() -> Result<()> {
    if !cfg!(target_arch = "x86_64") || !apt::is_root() {
        println!("programs of another processor are for root on an amd64 machine");
        return Ok(());
    }
    apt::install(&["qemu-user-static"])?;
    register()?;
    let busybox = testkit::rootfs::foreign_busybox_path();
    if !busybox.exists() && Path::new("/usr/bin/apt-get").exists() {
        fetch(&busybox)?;
    }
    Ok(())
}

/// Tells the kernel of the emulator unless it knows.
fn register() -> Result<()> {
    if !Path::new(BINFMT).join("register").exists() {
        command::run(Command::new("mount").args(["-t", "binfmt_misc", "binfmt_misc", BINFMT]))?;
    }
    let is_known = Path::new(BINFMT).join("qemu-aarch64").exists();
    if !is_known && let Ok(description) = fs::read_to_string(DESCRIPTION) {
        let register = Path::new(BINFMT).join("register");
        fs::write(&register, description.trim_end()).context("register the emulator")?;
    }
    Ok(())
}

fn fetch(to: &Path) -> Result<()> {
    let work = repository().join("target/foreign");
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.arg("-qq").current_dir(&work);
        for (name, value) in [
            ("APT::Architecture", ARCHITECTURE.to_owned()),
            ("APT::Architectures", ARCHITECTURE.to_owned()),
            ("APT::Sandbox::User", "root".to_owned()),
            ("Dir::State::Lists", work.join("lists").display().to_string()),
            ("Dir::Cache", work.join("cache").display().to_string()),
        ] {
            apt.arg("-o").arg(format!("{name}={value}"));
        }
        command::run(apt.args(arguments))
    };
    fs::create_dir_all(work.join("lists/partial"))?;
    fs::create_dir_all(work.join("cache"))?;
    apt(&["update"])?;
    apt(&["download", "busybox-static"])?;
    let is_package = |path: &Path| path.extension().is_some_and(|extension| extension == "deb");
    let mut entries = fs::read_dir(&work)?.filter_map(|entry| Some(entry.ok()?.path()));
    let package = entries.find(|path| is_package(path)).context("apt-get download leaves a package")?;
    command::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(work.join("files")))?;
    fs::rename(work.join("files/bin/busybox"), to)
        .or_else(|_| fs::rename(work.join("files/usr/bin/busybox"), to))?;
    fs::remove_file(&package)?;
    Ok(())
}
