//! `cargo xtask ci`: what must hold of the text of the program, whatever it does.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{command, repository};

/// Licences that may be linked into an Apache-2.0 program.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "NCSA",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

/// Formatting, lints, documentation, licences: with every warning an error.
pub(crate) fn run() -> Result<()> {
    cargo(&["fmt", "--all", "--check"], &[])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"], &[])?;
    // Private items are documented too, so links to them lead somewhere.
    cargo(
        &["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"],
        &[("RUSTDOCFLAGS", "--deny warnings --allow rustdoc::private_intra_doc_links")],
    )?;
    check_licences()
}

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    println!("cargo {}", arguments.join(" "));
    let mut cargo = Command::new("cargo");
    command::run(cargo.args(arguments).envs(environment.iter().copied()).current_dir(repository()))
}

fn check_licences() -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--format-version=1", "--locked"]).current_dir(repository());
    let metadata: Value = serde_json::from_str(&command::read(&mut cargo)?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(is_allowed))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    ensure!(refused.is_empty(), "licences that are not on the list:\n{}", refused.join("\n"));
    println!("licences of {} packages are on the list", packages.len());
    Ok(())
}

/// Whether one alternative of an SPDX expression is made of allowed licences only.
fn is_allowed(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], "").replace('/', " OR ");
    flat.split(" OR ")
        .any(|alternative| alternative.split(" AND ").all(|licence| ALLOWED.contains(&licence.trim())))
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn one_allowed_alternative_is_enough_and_all_of_it_must_be_allowed() {
        for (expression, expected) in [
            ("MIT OR Apache-2.0", true),
            ("MIT/Apache-2.0", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("MIT AND GPL-2.0", false),
        ] {
            assert_eq!(is_allowed(expression), expected, "{expression}");
        }
    }
}
