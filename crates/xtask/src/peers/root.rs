//! The root file system of the peers: a minimal Debian sid with the builders installed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command;

/// The builders, and what they need at run time.
const PACKAGES: &[&str] = &[
    "buildah",
    "skopeo",
    "containerd",
    "crun",
    "docker-buildx",
    "docker-cli",
    "docker.io",
    "git",
    "iptables",
    "podman",
    "runc",
    "xz-utils",
];

/// A package script that starts a service would start it on the machine, outside of every namespace.
const NO_SERVICES: &str = "#!/bin/sh\nexit 101\n";

/// Written last: a root with it is complete, and complete for this list of packages.
const STAMP: &str = "var/lib/rbuild-peers-packages";

/// Installs the packages `$2…` below `$1`. /dev and /proc are mounted in a namespace that ends with the installation.
const INSTALL: &str = r#"
root=$1; shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
chroot "$root" apt-get update
DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install --yes --no-install-recommends "$@"
chroot "$root" apt-get clean
"#;

/// The root below `home`, made or completed if need be.
pub(super) fn ensure(home: &Path) -> Result<PathBuf> {
    let root = home.join("root");
    if fs::read_to_string(root.join(STAMP)).is_ok_and(|listed| listed == PACKAGES.join("\n")) {
        return Ok(root);
    }
    if !root.join("usr/bin/apt-get").exists() {
        bootstrap(home, &root)?;
    }
    install(&root)?;
    fs::write(root.join(STAMP), PACKAGES.join("\n"))?;
    Ok(root)
}

/// Name and version of every peer.
pub(super) fn versions(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut query = Command::new("chroot");
    query.arg(root).args(["dpkg-query", "--show", "--showformat=${Package} ${Version}\\n"]).args(PACKAGES);
    let lines = command::read(&mut query)?;
    Ok(lines
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, version)| (name.into(), version.into()))
        .collect())
}

fn bootstrap(home: &Path, root: &Path) -> Result<()> {
    fs::create_dir_all(home)?;
    // Renamed when complete: an interrupted bootstrap is begun anew, not continued.
    let partial = home.join("root.partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", "sid"]).arg(&partial).arg(mirror()?);
    command::run(&mut debootstrap).context("debootstrap is Debian's package of that name")?;
    Ok(fs::rename(&partial, root)?)
}

fn install(root: &Path) -> Result<()> {
    write(root, "usr/sbin/policy-rc.d", NO_SERVICES)?;
    command::run(Command::new("chmod").arg("0755").arg(root.join("usr/sbin/policy-rc.d")))?;
    // A mirror that stands still (a snapshot, a cache) outlives the date its index is signed for.
    write(
        root,
        "etc/apt/apt.conf.d/80valid-until",
        "Acquire::Check-Valid-Until \"false\";\nAcquire::Check-Date \"false\";\n",
    )?;
    for name in ["hosts", "resolv.conf"] {
        fs::copy(Path::new("/etc").join(name), root.join("etc").join(name))?;
    }
    let mut install = Command::new("unshare");
    install.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", INSTALL, "install"]);
    command::run(install.arg(root).args(PACKAGES))
}

fn write(root: &Path, path: &str, text: &str) -> Result<()> {
    let path = root.join(path);
    fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

/// The Debian mirror this machine's apt uses.
fn mirror() -> Result<String> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(RELEASE)", "Created-By: Packages"]);
    let lines = command::read(&mut targets)?;
    let mut mirrors = lines.lines().filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        // `bookworm-updates` lies on the same mirror; `bookworm-security` does not have sid.
        [uri, "Debian", release] if !release.contains('-') => Some(uri.to_owned()),
        _ => None,
    });
    let mirror = mirrors.next();
    ensure!(mirror.is_some(), "apt knows no Debian mirror: run `apt-get update`");
    mirror.context("checked above")
}
