//! Golden directories: one directory per case below `testdata/<suite>/`, holding inputs and expected outputs.
//!
//! Adding a case is adding a directory with its inputs; `UPDATE_GOLDEN=1 cargo test -p …` writes the outputs, which are then read
//! by eye like code. Outputs must be stable at their source: nothing is replaced or sorted here.
//!
//! ```no_run
//! testkit::golden::check("dockerfile", |case| {
//!     let text = case.read("Dockerfile");
//!     case.compare("lines.txt", &format!("{}\n", text.lines().count()));
//! });
//! ```
//!
//! [`check`] runs every case and then reports all that differ. [`directories`] and [`compare`] are its parts, for tests with
//! another shape.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One directory of a suite.
#[derive(Debug)]
pub struct Case {
    /// The directory's name.
    pub name: String,
    /// The directory.
    pub path: PathBuf,
    mismatches: Vec<String>,
}

impl Case {
    /// The text of one of its files.
    ///
    /// # Panics
    /// If there is no such file or if it is not UTF-8.
    #[track_caller]
    pub fn read(&self, file: &str) -> String {
        String::from_utf8(self.read_bytes(file)).unwrap_or_else(|e| panic!("{}/{file}: {e}", self.name))
    }

    /// The bytes of one of its files.
    ///
    /// # Panics
    /// If there is no such file.
    #[track_caller]
    pub fn read_bytes(&self, file: &str) -> Vec<u8> {
        fs::read(self.path.join(file)).unwrap_or_else(|e| panic!("{}/{file}: {e}", self.name))
    }

    /// The text of one of its files, `None` if the case has none of that name.
    ///
    /// # Panics
    /// If it is there and cannot be read.
    #[track_caller]
    pub fn read_if_present(&self, file: &str) -> Option<String> {
        self.path.join(file).exists().then(|| self.read(file))
    }

    /// Compares `actual` with the case's file, as [`compare`] does, but remembers a difference for [`check`] to report.
    pub fn compare(&mut self, file: &str, actual: &str) {
        self.mismatches.extend(difference(&self.path.join(file), actual));
    }
}

/// Runs `test` on every case of `testdata/<suite>/` and reports all differences together.
///
/// # Panics
/// If a case differs, or if the suite has no case.
#[track_caller]
pub fn check(suite: &str, mut test: impl FnMut(&mut Case)) {
    let mut mismatches = Vec::new();
    for mut case in directories(suite) {
        test(&mut case);
        mismatches.append(&mut case.mismatches);
    }
    assert!(
        mismatches.is_empty(),
        "{} golden files differ (UPDATE_GOLDEN=1 rewrites them)\n\n{}",
        mismatches.len(),
        mismatches.join("\n")
    );
}

/// The cases of `testdata/<suite>/`, in the order of their names. Plain files beside them, and directories whose name begins
/// with a dot, are no cases.
///
/// # Panics
/// If there is no case: a suite that tests nothing is a mistake.
#[track_caller]
pub fn directories(suite: &str) -> Vec<Case> {
    let root = testdata().join(suite);
    let mut cases: Vec<Case> = fs::read_dir(&root)
        .unwrap_or_else(|e| panic!("{}: {e}", root.display()))
        .map(|entry| entry.unwrap_or_else(|e| panic!("{}: {e}", root.display())).path())
        .filter(|path| path.is_dir())
        .map(|path| Case { name: file_name(&path), path, mismatches: Vec::new() })
        .filter(|case| !case.name.starts_with('.'))
        .collect();
    assert!(!cases.is_empty(), "{} holds no case", root.display());
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

/// Compares `actual` with the file at `path`; an empty `actual` stands for a file that is not there. With `UPDATE_GOLDEN` set in
/// the environment it writes (or removes) the file instead.
///
/// # Panics
/// If they differ, showing the lines that do.
#[track_caller]
pub fn compare(path: &Path, actual: &str) {
    if let Some(difference) = difference(path, actual) {
        panic!("a golden file differs (UPDATE_GOLDEN=1 rewrites it)\n\n{difference}");
    }
}

/// The repository's `testdata` directory.
pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn difference(path: &Path, actual: &str) -> Option<String> {
    let difference = unlike(path, actual)?;
    if std::env::var_os("UPDATE_GOLDEN").is_none() {
        return Some(difference);
    }
    rewrite(path, actual).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    None
}

fn unlike(path: &Path, actual: &str) -> Option<String> {
    let expected = match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.unwrap_or_else(|e| panic!("{}: {e}", path.display())),
    };
    (expected != actual).then(|| format!("--- {}\n{}", path.display(), changed_lines(&expected, actual)))
}

fn rewrite(path: &Path, actual: &str) -> io::Result<()> {
    if actual.is_empty() { fs::remove_file(path) } else { fs::write(path, actual) }
}

/// The lines between the common beginning and the common end: `-` expected, `+` actual.
fn changed_lines(expected: &str, actual: &str) -> String {
    let expected: Vec<&str> = expected.split_inclusive('\n').collect();
    let actual: Vec<&str> = actual.split_inclusive('\n').collect();
    let same = |(a, b): &(&&str, &&str)| a == b;
    let head = expected.iter().zip(&actual).take_while(same).count();
    let tail = expected[head..].iter().rev().zip(actual[head..].iter().rev()).take_while(same).count();
    let mut lines = format!("@@ line {}\n", head + 1);
    let show = |sign: char, line: &&str| format!("{sign} {}\n", line.strip_suffix('\n').unwrap_or(line));
    lines.extend(expected[head..expected.len() - tail].iter().map(|line| show('-', line)));
    lines.extend(actual[head..actual.len() - tail].iter().map(|line| show('+', line)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_that_differ_are_shown() {
        assert_eq!(changed_lines("a\nb\nc\n", "a\nx\ny\nc\n"), "@@ line 2\n- b\n+ x\n+ y\n");
        assert_eq!(changed_lines("a\n", "a\na\n"), "@@ line 2\n+ a\n");
    }

    #[test]
    fn an_absent_file_is_equal_to_nothing_and_differs_from_anything_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("absent.txt");
        assert_eq!(unlike(&path, ""), None);
        assert!(unlike(&path, "text\n").is_some_and(|difference| difference.ends_with("+ text\n")));
    }
}
