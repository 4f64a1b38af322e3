//! What a test needs of the machine, and what happens where it is missing.
//!
//! A test that cannot run says so and passes: a laptop without root can still run the rest. Nothing is lost, since the line also
//! goes to the file that `RBUILD_SKIPPED` names: `cargo xtask test` shows it at the end, and `cargo xtask ci` fails if it is not empty.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Something that not every machine has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// To run as root, with the capabilities of a container's host.
    Root,
    /// The static `/bin/busybox` of Debian's `busybox-static`.
    Busybox,
    /// A busybox of another processor, and a kernel that knows how to run it: `cargo xtask test` sees to both.
    ForeignBusybox,
    /// A program found in `PATH`.
    Program(&'static str),
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Root => Path::new("/proc/self").metadata().is_ok_and(|process| process.uid() == 0),
            Self::Busybox => Path::new(crate::differential::BUSYBOX).is_file(),
            Self::ForeignBusybox => {
                let busybox = crate::rootfs::foreign_busybox_path();
                std::process::Command::new(busybox).arg("true").status().is_ok_and(|status| status.success())
            }
            Self::Program(name) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
            }
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Busybox => f.write_str("busybox-static"),
            Self::ForeignBusybox => f.write_str("an emulator for arm64 and a busybox to run with it"),
            Self::Program(name) => write!(f, "the program `{name}`"),
        }
    }
}

/// Whether the machine has everything that `test` needs; if not, says that it is skipped.
#[must_use]
pub fn can_run(test: &str, needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter(|need| !need.is_met()).map(ToString::to_string).collect();
    if !missing.is_empty() {
        skip(test, &format!("needs {}", missing.join(", ")));
    }
    missing.is_empty()
}

/// Says that a test, or a part of one, is skipped, and why.
///
/// # Panics
/// If the file that `RBUILD_SKIPPED` names cannot be written.
#[expect(clippy::print_stderr, reason = "this is how a person who runs the tests learns of it")]
pub fn skip(test: &str, reason: &str) {
    let line = format!("skipped: {test}: {reason}");
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("RBUILD_SKIPPED") {
        let mut file =
            OpenOptions::new().create(true).append(true).open(path).expect("the list of skipped tests opens");
        writeln!(file, "{line}").expect("the list of skipped tests can be written");
    }
}
