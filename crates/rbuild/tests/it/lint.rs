//! `rbuild lint` and the other things than building that `build` does: `testdata/lint/CASE/` is a context. Each line of `args.txt` is a
//! command; without it, `Dockerfile` is linted, which breaks the rule that the case is named after, and `fixed.Dockerfile`, which does
//! not. `output.txt` is what the commands write.
//!
//! The store's directory does not exist, so that nothing can depend on it.

use std::fmt::Write as _;
use std::process::Command;

use dockerfile::Rule;
use testkit::golden::{self, Case};

use crate::world::{World, write_files};

const WITHOUT_ARGS: &str = "lint\nlint -f fixed.Dockerfile\n";

#[test]
fn lint_says_what_is_recorded() {
    golden::check("lint", |case| {
        let args = case.read_if_present("args.txt").unwrap_or_else(|| WITHOUT_ARGS.to_owned());
        let actual: String = args.lines().map(|line| run(case, line)).collect();
        case.compare("output.txt", &actual);
    });
}

fn run(case: &Case, line: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
    command
        .env_clear()
        .current_dir(&case.path)
        .args(["--root", "/nonexistent"])
        .args(line.split_whitespace());
    let output = command.output().expect("rbuild starts");
    let mut text = format!("$ rbuild {line}\n");
    text.push_str(std::str::from_utf8(&output.stdout).expect("findings are UTF-8"));
    for line in std::str::from_utf8(&output.stderr).expect("messages are UTF-8").lines() {
        writeln!(text, "{}", format!("stderr: {line}").trim_end()).unwrap();
    }
    let code = output.status.code().expect("rbuild ends by itself");
    writeln!(text, "(exit code {code})\n").unwrap();
    text
}

#[test]
fn every_rule_of_lint_has_a_case_that_breaks_it_and_one_that_does_not() {
    // Without a store, no base image is known; `platform-mismatch` of `testdata/plan` has it.
    for rule in Rule::ALL.iter().filter(|rule| **rule != Rule::InvalidBaseImagePlatform) {
        let path = golden::testdata().join("lint").join(rule.as_str()).join("output.txt");
        let output = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (broken, fixed) = output.split_once("fixed.Dockerfile").expect("a case has both");
        let told = format!("[{rule}]");
        assert!(broken.contains(&told), "{rule} is not broken");
        let fixed = fixed.split("\n$ ").next().unwrap_or_default();
        assert!(!fixed.contains(&told), "{rule} is broken where it should not be");
    }
}

#[test]
fn lint_looks_into_base_images_that_are_in_the_store() {
    let Some(world) = World::with_base("lint_looks_into_base_images_that_are_in_the_store") else { return };
    let context = world.path("context");
    write_files(&context, &[("Dockerfile", "FROM base:latest\nLABEL a=$NOWHERE path=$PATH\n")]);
    let says = |command: &mut Command, code| {
        let output = command.args(["build", "--check"]).arg(&context).output().expect("rbuild starts");
        assert_eq!(output.status.code(), Some(code));
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (stdout, stderr)
    };
    let (told, unknown) = says(&mut world.rbuild(), 1);
    assert!(
        told.contains("[UndefinedVar]") && told.contains("$NOWHERE") && !told.contains("variable `$PATH`"),
        "{told}"
    );
    assert_eq!(unknown, "");
    let mut elsewhere = Command::new(env!("CARGO_BIN_EXE_rbuild"));
    let (told, unknown) = says(elsewhere.env_clear().args(["--root", "/nonexistent"]), 0);
    assert_eq!(told, "nothing found\n");
    assert!(unknown.contains("`base:latest`"), "{unknown}");
}
