//! The help of every command, as `testdata/cli/COMMAND/help.txt` has it. `rbuild` itself is the directory `rbuild`, and `registry explain` is
//! `registry-explain`.

use std::collections::BTreeSet;
use std::process::Command;

use testkit::golden;

fn help(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
    // Without a terminal, lines are as wide as clap's own limit says.
    let output = command.env_clear().args(args).arg("--help").output().expect("rbuild starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

/// The commands that `rbuild --help` lists, in its order, each followed by those below it.
fn commands() -> Vec<Vec<String>> {
    below(&[])
}

fn below(command: &[&str]) -> Vec<Vec<String>> {
    let text = help(command);
    let listed = text.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let full = names.map(|name| [command, &[name]].concat());
    full.flat_map(|full| {
        let own = full.iter().map(|word| (*word).to_owned()).collect();
        std::iter::once(own).chain(below(&full))
    })
    .collect()
}

#[test]
fn help_reads_as_recorded() {
    golden::check("cli", |case| {
        let name = case.name.clone();
        let args: Vec<&str> = if name == "rbuild" { Vec::new() } else { name.split('-').collect() };
        case.compare("help.txt", &help(&args));
    });
}

#[test]
fn every_command_has_recorded_help() {
    let recorded: BTreeSet<String> = golden::directories("cli").into_iter().map(|case| case.name).collect();
    let expected: BTreeSet<String> =
        commands().into_iter().map(|words| words.join("-")).chain(["rbuild".to_owned()]).collect();
    assert_eq!(recorded, expected);
}

#[test]
fn every_option_is_explained() {
    for name in commands() {
        let text = help(&name.iter().map(String::as_str).collect::<Vec<_>>());
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        let options = lines.iter().enumerate().filter(|(_, line)| line.starts_with('-'));
        for (at, option) in options.filter(|(_, line)| !is_possible_value(line)) {
            // Beside it, or on the line below.
            let beside = option.split_once("  ").map_or("", |(_, text)| text.trim());
            let below = lines.get(at + 1).map_or("", |line| line.trim());
            assert!(!beside.is_empty() || !below.is_empty(), "{name:?}: {option}");
        }
    }
}

/// `- json:  One JSON document`
fn is_possible_value(line: &str) -> bool {
    line.starts_with("- ")
}

#[test]
fn every_command_is_completed_and_has_a_page() {
    let rbuild = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
        command.env_clear();
        command
    };
    for shell in ["bash", "zsh", "fish"] {
        let output = rbuild().args(["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        for name in commands() {
            assert!(
                output.status.success() && name.iter().all(|word| script.contains(word)),
                "{shell} does not know {name:?}"
            );
        }
    }
    let pages = tempfile::tempdir().unwrap();
    let directory = pages.path().join("man1");
    assert!(rbuild().arg("man").arg(&directory).status().unwrap().success());
    let names = commands().into_iter().map(|words| format!("rbuild-{}.1", words.join("-")));
    for name in names.chain(["rbuild.1".to_owned()]) {
        let page = std::fs::read_to_string(directory.join(&name)).unwrap_or_default();
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}");
    }
    let output = rbuild().args(["man", "/dev/null/here"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
}
