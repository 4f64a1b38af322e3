//! A root file system, sandboxes over it, and short ways to run something and look at it.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use sandbox::{
    Access, Durability, Exit, Feature, HelperProgram, Layers, Limits, Machine, MissingCwd, Network,
    NewPrivileges, Output, Owner, PidOne, SandboxError, Sandboxes, Spec, Stdio, Upper, User,
};
use sys::RootfsPath;
use tempfile::TempDir;
use testkit::requirements::{Need, can_run, skip};

/// The read-only bottom of every test's root. It is kept between runs, below the target directory.
static BASE: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let kept = target.join("busybox-root");
    if !kept.exists() {
        let made = TempDir::new_in(target).unwrap();
        testkit::rootfs::make_busybox(made.path()).unwrap();
        // Whoever comes second in a race keeps the first one's.
        if let Err(error) = fs::rename(made.path(), &kept) {
            assert!(kept.exists(), "{error}");
        }
    }
    kept
});

static NEXT: AtomicU64 = AtomicU64::new(0);

pub(crate) struct World {
    pub(crate) scratch: TempDir,
    pub(crate) sandboxes: Sandboxes,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    /// `None`, with a word why, where these tests cannot run.
    pub(crate) fn new() -> Option<Self> {
        Self::without(&[])
    }

    pub(crate) fn without(disabled: &[Feature]) -> Option<Self> {
        let test = test_name();
        if !can_run(&test, &[Need::Root, Need::Busybox]) {
            return None;
        }
        match Machine::probe(disabled) {
            Err(SandboxError::NeedsRoot) => {
                skip(&test, "needs CAP_SYS_ADMIN");
                None
            }
            other => Some(Self {
                scratch: TempDir::new().unwrap(),
                sandboxes: Sandboxes::open(other.unwrap(), owner(), driver()).unwrap(),
            }),
        }
    }

    /// A directory of this name below the scratch directory.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.scratch.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A new upper and work directory.
    pub(crate) fn upper(&self) -> Upper {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Upper {
            directory: self.directory(&format!("{number}/upper")),
            work: self.directory(&format!("{number}/work")),
            durability: Durability::Volatile,
        }
    }

    /// A shell script as root, with what a RUN has.
    pub(crate) fn spec(&self, script: &str) -> Spec {
        Spec {
            root: Layers { lower: vec![base().to_owned()], upper: Some(self.upper()) },
            root_access: Access::ReadWrite,
            mounts: Vec::new(),
            args: ["/bin/sh", "-c", script].map(OsString::from).to_vec(),
            env: vec![("PATH".into(), "/bin".into())],
            cwd: RootfsPath::root(),
            missing_cwd: MissingCwd::Fail,
            user: User::default(),
            hostname: "buildkitsandbox".to_owned(),
            network: Network::Host,
            limits: Limits::default(),
            stdio: Stdio::Captured,
            pid_one: PidOne::Command,
            new_privileges: NewPrivileges::Allowed,
            posture: sandbox::Posture::Confined,
        }
    }

    pub(crate) fn try_run(&self, spec: &Spec) -> Result<Ran, SandboxError> {
        let (process, output) = self.sandboxes.start(spec)?;
        let Output::Captured { mut stdout, mut stderr } = output else { panic!("not captured") };
        let mut ran = (String::new(), String::new());
        std::thread::scope(|scope| {
            scope.spawn(|| stdout.read_to_string(&mut ran.0).unwrap());
            stderr.read_to_string(&mut ran.1).unwrap();
        });
        Ok(Ran { exit: process.wait()?, stdout: ran.0, stderr: ran.1 })
    }

    #[track_caller]
    pub(crate) fn run(&self, spec: &Spec) -> Ran {
        self.try_run(spec).unwrap()
    }

    /// Runs a script and gives its output, errors included.
    #[track_caller]
    pub(crate) fn output(&self, script: &str) -> String {
        self.output_of(&self.spec(script))
    }

    #[track_caller]
    pub(crate) fn output_of(&self, spec: &Spec) -> String {
        let ran = self.run(spec);
        ran.stdout + &ran.stderr
    }
}

/// The test that this thread runs.
pub(crate) fn test_name() -> String {
    std::thread::current().name().unwrap_or("sandbox").to_owned()
}

pub(crate) fn base() -> &'static Path {
    &BASE
}

pub(crate) fn driver() -> HelperProgram {
    HelperProgram::File(env!("CARGO_BIN_EXE_sandbox-driver").into())
}

/// A name that no other test or run has.
pub(crate) fn owner() -> Owner {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("test-{}-{number}", std::process::id()).parse().unwrap()
}

pub(crate) fn path(text: &str) -> RootfsPath {
    RootfsPath::parse(text).unwrap()
}
