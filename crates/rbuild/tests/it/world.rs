//! A store of its own for each test, with an image `base` made of busybox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use testkit::Need;
use testkit::leftovers::Guard;

/// A store in a directory that goes away with it, and room for contexts beside it.
#[derive(Debug)]
pub(crate) struct World {
    /// Checked before the directory goes.
    _guard: Guard,
    directory: TempDir,
}

impl World {
    /// An empty store.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { _guard: Guard::of(&directory.path().join("store")), directory }
    }

    /// A store with the image `base`; `None`, with a word about it, where `test` cannot run.
    pub(crate) fn with_base(test: &str) -> Option<Self> {
        if !testkit::can_run(test, &[Need::Root, Need::Busybox]) {
            return None;
        }
        let world = Self::new();
        world.make_base("base", "");
        Some(world)
    }

    /// Builds an image from a busybox root and further instructions.
    pub(crate) fn make_base(&self, name: &str, instructions: &str) {
        let root = self.path("base-root");
        if !root.exists() {
            fs::create_dir(&root).expect("a directory");
            testkit::rootfs::make_busybox(&root).expect("a busybox root");
        }
        let dockerfile = self.path("base.Dockerfile");
        let text = format!("FROM scratch\nCOPY . /\nENV PATH=/bin\n{instructions}");
        fs::write(&dockerfile, text).expect("a Dockerfile");
        let mut command = self.rbuild();
        command.args(["build", "-q", "-t", name, "-f"]).arg(&dockerfile).arg(&root);
        succeed(&mut command);
    }

    /// A path beside the store.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The store's directory.
    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// rbuild on this store, in an environment without anything of the person who tests.
    pub(crate) fn rbuild(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
        command.env_clear().env("HOME", self.directory.path());
        command.arg("--root").arg(self.store());
        command
    }

    /// Fails unless `rbuild fsck` finds nothing but what a prune would take.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        let checked = succeed(self.rbuild().arg("fsck"));
        assert!(!checked.stdout.is_empty() || !checked.stderr.is_empty(), "the check says nothing");
    }

    /// Text with the store's directory as `STORE`, and names of logs as `LOG`.
    pub(crate) fn without_paths(&self, text: &str) -> String {
        let text = text.replace(&self.store().display().to_string(), "STORE");
        let mut parts = text.split("STORE/logs/");
        let mut replaced = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            replaced.push_str("STORE/logs/LOG");
            replaced.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
        }
        replaced
    }
}

/// Writes files below a directory, which is made.
pub(crate) fn write_files(directory: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().expect("a file lies in a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
}

/// Runs a command that must succeed.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// All that a command wrote.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a command that must end with this code; gives all that it wrote.
#[track_caller]
pub(crate) fn check_code(command: &mut Command, code: i32) -> String {
    let output = command.output().expect("the program starts");
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{}", said(&output));
    said(&output)
}

/// What a command that must succeed writes to standard output.
#[track_caller]
pub(crate) fn stdout(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}\n{}", said(&output));
    String::from_utf8(output.stdout).expect("text")
}
