//! What a store's processes may leave on a machine: mounts, control groups, namespaces, processes, files.
//!
//! Everything is searched for by the store's root: tests run in parallel, and other programs come and go, so comparing the machine before and
//! after would say little. A mount shows the root in its source, its options or its place; a group is named after it; a process has it
//! in its root, its directory, its open files, its command line or its mounts, and so keeps every namespace that is left alive;
//! a namespace without a process needs a mount of `nsfs`.
//!
//! ```no_run
//! # let root = std::path::Path::new("/tmp/store");
//! let guard = testkit::leftovers::Guard::of(root);
//! // … the test …
//! guard.check();
//! ```

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

/// How long something that is just ending may take: the kernel tears namespaces and groups down after the last process is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// Checks, when told to or else when it is dropped, that nothing is left of the processes of one store.
#[derive(Debug)]
pub struct Guard {
    root: PathBuf,
    is_checked: bool,
}

impl Guard {
    /// A guard over the store at `root`, which need not be there yet.
    #[must_use]
    pub fn of(root: &Path) -> Self {
        Self { root: root.to_owned(), is_checked: false }
    }

    /// Checks now.
    ///
    /// # Panics
    /// If anything is left, naming all of it.
    #[track_caller]
    pub fn check(mut self) {
        self.is_checked = true;
        assert_nothing_left(&self.root);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A second panic would hide the first, which is the better explanation.
        if !self.is_checked && !std::thread::panicking() {
            assert_nothing_left(&self.root);
        }
    }
}

/// Fails if anything of the processes of the store at `root` is left. To be called when none of them is meant to live.
///
/// # Panics
/// If anything is left, naming all of it.
#[track_caller]
pub fn assert_nothing_left(root: &Path) {
    let start = Instant::now();
    loop {
        let left = find(root);
        if left.is_empty() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "left of `{}`:\n{left}", root.display());
        std::thread::sleep(INTERVAL);
    }
}

/// Fails if a process of the store at `root` lives on. What the next command sweeps may still be there.
///
/// # Panics
/// If one does, naming all of them.
#[track_caller]
pub fn assert_no_process(root: &Path) {
    let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let start = Instant::now();
    loop {
        let left = processes(&root);
        if left.is_empty() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "left of `{}`:\n{}", root.display(), left.join("\n"));
        std::thread::sleep(INTERVAL);
    }
}

/// Everything that is left, one line each.
///
/// # Panics
/// If `/proc` or the store cannot be read.
#[must_use]
pub fn find(root: &Path) -> String {
    let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let mut left = String::new();
    let mut tell = |what: &str, which: &str| writeln!(left, "{what}: {which}").expect("a string takes all");
    mounts(&root).iter().for_each(|line| tell("mount", line));
    groups(&root).iter().for_each(|path| tell("group", &path.to_string_lossy()));
    processes(&root).iter().for_each(|process| tell("process", process));
    files(&root).iter().for_each(|path| tell("file", &path.to_string_lossy()));
    left
}

/// The mounts of this namespace that name the root or its owner's namespaces.
fn mounts(root: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("this process has mounts");
    let root = root.to_string_lossy();
    // The root itself may lie on a mount of its own that a test made.
    let is_left = |line: &&str| {
        let place = line.split(' ').nth(4).unwrap_or_default();
        line.contains(&*root) && place != root && !root.starts_with(&format!("{place}/"))
    };
    table.lines().filter(is_left).map(ToOwned::to_owned).collect()
}

/// The control groups named after the store, in every hierarchy.
fn groups(root: &Path) -> Vec<PathBuf> {
    let name: String = Sha256::digest(root.as_os_str().as_encoded_bytes())
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let table = fs::read_to_string("/proc/self/mountinfo").expect("this process has mounts");
    let hierarchies = table.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup").then(|| PathBuf::from(before.split(' ').nth(4).unwrap_or_default()))
    });
    let owned = |hierarchy: PathBuf| names(&hierarchy.join("rbuild"));
    let is_of_root = |path: &PathBuf| {
        path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}-")))
    };
    hierarchies.flat_map(owned).filter(is_of_root).collect()
}

/// The processes that hold on to anything below the root, other than the one that asks.
fn processes(root: &Path) -> Vec<String> {
    let own = std::process::id().to_string();
    names(Path::new("/proc"))
        .into_iter()
        .filter(|process| {
            let name = process.file_name().unwrap_or_default().to_string_lossy();
            name.parse::<u32>().is_ok() && name != own
        })
        .filter_map(|process| Some(format!("{} {}", process.display(), what_of(&process, root)?)))
        .collect()
}

/// What a process has to do with the root; `None` if nothing, or if it is gone by now.
fn what_of(process: &Path, root: &Path) -> Option<String> {
    let text = root.to_string_lossy();
    // A test's own process was told the root, too, by its environment or its arguments; its children are another matter.
    let read = |file: &str| fs::read(process.join(file)).unwrap_or_default();
    let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
    if command.contains(&*text) {
        return Some(format!("runs `{}`", command.trim()));
    }
    let links = ["root", "cwd", "exe"].map(|link| process.join(link)).into_iter();
    let open = links.chain(names(&process.join("fd"))).find_map(|link| {
        let target = fs::read_link(&link).ok()?;
        target
            .to_string_lossy()
            .contains(&*text)
            .then(|| format!("{} -> {}", link.display(), target.display()))
    });
    if let Some(open) = open {
        return Some(format!("`{}` holds {open}", command.trim()));
    }
    // Of another namespace, since those of ours are told once.
    let is_ours = fs::read_link(process.join("ns/mnt")).ok() == fs::read_link("/proc/self/ns/mnt").ok();
    let mounts = String::from_utf8_lossy(&read("mountinfo")).into_owned();
    let mount = mounts.lines().find(|line| line.contains(&*text)).filter(|_| !is_ours)?;
    Some(format!("`{}` has the mount {mount}", command.trim()))
}

/// The files of processes that should be gone: private areas, leases, locks of steps.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut left = names(&root.join("tmp"));
    left.extend(names(&root.join("leases")));
    let is_of_step =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-"));
    left.extend(names(&root.join("locks")).into_iter().filter(is_of_step));
    left
}

/// The entries of a directory; none if it is not there.
fn names(directory: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Vec::new(),
        Err(error) => panic!("{}: {error}", directory.display()),
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// Whether a directory is not there, or was of a process that is not there any more.
fn is_gone(error: &io::Error) -> bool {
    const ESRCH: i32 = 3;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_below_the_root_and_its_files_are_found_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find(root.path()), "");
        let mut child = Command::new("sleep").arg("1000").current_dir(root.path()).spawn().unwrap();
        fs::create_dir_all(root.path().join("leases/one")).unwrap();
        let left = find(root.path());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(left.contains(&format!("process: /proc/{} ", child.id())), "{left}");
        assert!(left.contains("leases/one") && left.lines().count() == 2, "{left}");
        fs::remove_dir(root.path().join("leases/one")).unwrap();
        assert_nothing_left(root.path());
    }
}
