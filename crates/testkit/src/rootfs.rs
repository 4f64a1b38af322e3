//! A tiny root file system to run commands in: busybox under all its names, accounts, and the usual directories.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Where distributions put a statically linked busybox.
const BUSYBOX: &[&str] = &["/bin/busybox", "/usr/bin/busybox"];

/// Directories and their modes.
const DIRECTORIES: &[(&str, u32)] = &[
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("home/app", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n";
const GROUP: &str = "root:x:0:root\nadm:x:4:root,app\napp:x:1001:\n";

/// The busybox of this machine, if it has one (Debian: package busybox-static).
#[must_use]
pub fn busybox() -> Option<PathBuf> {
    BUSYBOX.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Where a busybox of another processor lies, arm64, once somebody has put it there.
#[must_use]
pub fn foreign_busybox_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/foreign/busybox-arm64")
}

/// Fills the empty directory `root`.
///
/// # Errors
/// If there is no busybox, or files cannot be made.
pub fn make_busybox(root: &Path) -> Result<()> {
    let Some(busybox) = busybox() else { bail!("no busybox here: install busybox-static") };
    make_with(root, &busybox)
}

/// Fills the empty directory `root` with a busybox that this machine runs, if only by emulation.
///
/// # Errors
/// As [`make_busybox`].
pub fn make_with(root: &Path, busybox: &Path) -> Result<()> {
    fs::set_permissions(root, Permissions::from_mode(0o755))?;
    for (path, mode) in DIRECTORIES {
        fs::create_dir(root.join(path))?;
        fs::set_permissions(root.join(path), Permissions::from_mode(*mode))?;
    }
    chown(root.join("home/app"), Some(1000), Some(1001))?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    let listed = Command::new(busybox).arg("--list").output().context("list busybox' names")?;
    for name in String::from_utf8(listed.stdout)?.lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(name))?;
    }
    for (path, text) in [("passwd", PASSWD), ("group", GROUP), ("hosts", ""), ("resolv.conf", "")] {
        fs::write(root.join("etc").join(path), text)?;
    }
    Ok(())
}

/// Copies a program of this machine, and the shared libraries it needs, each to the place where it is here.
///
/// # Errors
/// If it is not there, or files cannot be copied.
pub fn add_program(root: &Path, program: &Path) -> Result<()> {
    add_libraries(root, program)?;
    copy_below(root, program)
}

/// Copies the shared libraries that a program of this machine needs.
///
/// # Errors
/// If `ldd` cannot tell them, or files cannot be copied.
pub fn add_libraries(root: &Path, program: &Path) -> Result<()> {
    let listed = Command::new("ldd").arg(program).output().context("list shared libraries")?;
    // Lines are `name => /path (address)`, or `/path (address)` for the loader itself.
    let listed = String::from_utf8(listed.stdout)?;
    let mut paths = listed.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    paths.try_for_each(|path| copy_below(root, path))
}

fn copy_below(root: &Path, file: &Path) -> Result<()> {
    let target = root.join(file.strip_prefix("/")?);
    fs::create_dir_all(target.parent().context("a file lies in a directory")?)?;
    fs::copy(file, &target).with_context(|| format!("copy {}", file.display()))?;
    Ok(())
}
