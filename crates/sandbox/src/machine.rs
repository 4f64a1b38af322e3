//! What the machine allows: probed once, printed, and lowered with a word rather than in silence.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use sys::capability::Capabilities;

use crate::SandboxError;
use crate::cgroup::DEVICE_RULES;

/// Facilities with a fallback, which a test can switch off to get the fallback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Feature {
    /// overlayfs takes lower directories one by one; else they must fit one option string.
    LowerdirAppend,
    /// System call filters.
    Seccomp,
    /// A cgroup 2 hierarchy that we can make groups in.
    Cgroup2,
    /// cgroup 1 hierarchies that we can make groups in.
    Cgroup1,
    /// Device access by a program on a cgroup 2; else every file system inside is `nodev`.
    DeviceFilter,
}

/// What the machine allows.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// See [`Feature::LowerdirAppend`].
    pub lowerdir_append: bool,
    /// See [`Feature::Seccomp`].
    pub seccomp: bool,
    /// Where the cgroup 2 hierarchy is mounted, if it is and can be written.
    pub cgroup2: Option<PathBuf>,
    /// The controllers of the cgroup 2 hierarchy.
    pub cgroup2_controllers: Vec<String>,
    /// Where each controller of cgroup 1 is mounted, if it is and can be written.
    pub cgroup1: BTreeMap<String, PathBuf>,
    /// The group in each hierarchy in which all groups are made; `None` for the root.
    pub cgroup_parent: Option<PathBuf>,
    /// See [`Feature::DeviceFilter`].
    pub device_filter: bool,
}

impl Machine {
    /// Where groups are made in the hierarchy that is mounted at `mount`.
    pub(crate) fn groups_at(&self, mount: &Path) -> PathBuf {
        self.cgroup_parent.as_ref().map_or_else(|| mount.to_owned(), |parent| mount.join(parent))
    }

    /// Finds out what the machine allows, as if it lacked what is in `disabled`.
    ///
    /// # Errors
    /// [`SandboxError::NeedsRoot`] and [`SandboxError::Unsupported`], for what has no fallback.
    pub fn probe(disabled: &[Feature]) -> Result<Self, SandboxError> {
        let capabilities = sys::capability::effective()
            .map_err(|source| SandboxError::Prepare { step: "read our own capabilities", source })?;
        if !capabilities.contains(Capabilities::SYS_ADMIN) {
            return Err(SandboxError::NeedsRoot);
        }
        let has = |feature| !disabled.contains(&feature);
        let lowerdir_append = sys::mount::overlay_appends_lower()
            .map_err(|source| SandboxError::Unsupported { facility: "overlayfs", source })?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|source| SandboxError::Prepare { step: "read /proc/self/mountinfo", source })?;
        let cgroups = CgroupMounts::parse(&mounts);
        let cgroup2 = cgroups.unified.filter(|at| has(Feature::Cgroup2) && is_writable(at));
        let cgroup2_controllers = cgroup2.as_deref().map(controllers).unwrap_or_default();
        let device_filter = has(Feature::DeviceFilter)
            && cgroup2.is_some()
            && sys::device_filter::load(&DEVICE_RULES.program()).is_ok();
        Ok(Self {
            kernel: sys::this_process::kernel_release(),
            lowerdir_append: lowerdir_append && has(Feature::LowerdirAppend),
            seccomp: has(Feature::Seccomp) && sys::seccomp::is_available(),
            cgroup2,
            cgroup2_controllers,
            cgroup1: cgroups
                .by_controller
                .into_iter()
                .filter(|(_, at)| has(Feature::Cgroup1) && is_writable(at))
                .collect(),
            cgroup_parent: None,
            device_filter,
        })
    }

    /// What a sandbox on this machine does without, one sentence each; empty where everything is there.
    #[must_use]
    pub fn lowered(&self) -> Vec<&'static str> {
        let mut lowered = Vec::new();
        if !self.seccomp {
            lowered.push("the kernel cannot filter system calls: commands run without a filter");
        }
        if !self.device_filter {
            lowered.push("device nodes made inside a sandbox cannot be opened (no cgroup 2 device filter)");
        }
        if !self.can_limit("memory") {
            lowered.push("memory cannot be limited (no writable cgroup controller)");
        }
        lowered
    }

    /// Whether a cgroup controller can be used for limits.
    #[must_use]
    pub fn can_limit(&self, controller: &str) -> bool {
        self.cgroup2_controllers.iter().any(|name| name == controller)
            || self.cgroup1.contains_key(controller)
    }
}

impl fmt::Display for Machine {
    /// One `name: value` line per facility.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes_no = |flag: bool| if flag { "yes" } else { "no" };
        let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(" ") };
        writeln!(f, "kernel: {}", self.kernel)?;
        writeln!(f, "overlay lowerdir+: {}", yes_no(self.lowerdir_append))?;
        writeln!(f, "seccomp: {}", yes_no(self.seccomp))?;
        writeln!(f, "cgroup 2: {}", yes_no(self.cgroup2.is_some()))?;
        let second = self.cgroup2_controllers.iter().map(String::as_str).collect();
        writeln!(f, "cgroup 2 controllers: {}", list(second))?;
        writeln!(f, "cgroup 1 controllers: {}", list(self.cgroup1.keys().map(String::as_str).collect()))?;
        writeln!(f, "device filter: {}", yes_no(self.device_filter))
    }
}

/// The cgroup file systems among the mounts of a process.
#[derive(Debug, Default)]
struct CgroupMounts {
    unified: Option<PathBuf>,
    by_controller: BTreeMap<String, PathBuf>,
}

/// Options of a cgroup 1 mount that are no controllers.
const CGROUP1_OPTIONS: &[&str] = &["rw", "ro", "noprefix", "xattr", "clone_children", "favordynmods"];

impl CgroupMounts {
    /// Parses `/proc/PID/mountinfo` (proc(5)).
    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
            let Some(at) = mount.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut fields = filesystem.split(' ');
            match (fields.next(), fields.nth(1)) {
                (Some("cgroup2"), _) => found.unified = found.unified.or(Some(at)),
                (Some("cgroup"), Some(options)) => {
                    let controllers =
                        options.split(',').filter(|o| !CGROUP1_OPTIONS.contains(o) && !o.contains('='));
                    for controller in controllers {
                        found.by_controller.entry(controller.to_owned()).or_insert_with(|| at.clone());
                    }
                }
                _ => {}
            }
        }
        found
    }
}

/// Whether groups can be made there: root may write any directory, unless the mount is read-only.
fn is_writable(at: &Path) -> bool {
    sys::mount::is_writable(at)
}

fn controllers(at: &Path) -> Vec<String> {
    // A hierarchy whose file cannot be read has nothing to offer.
    let text = fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn hybrid_cgroup_mounts_are_found() {
        let found = CgroupMounts::parse(
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
        );
        expect![[r#"
            CgroupMounts {
                unified: Some(
                    "/sys/fs/cgroup/unified",
                ),
                by_controller: {
                    "cpu": "/sys/fs/cgroup/cpu,cpuacct",
                    "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
                },
            }
        "#]]
        .assert_debug_eq(&found);
    }
}
