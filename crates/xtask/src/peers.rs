//! `cargo xtask peers`: the reference builders beside us, from Debian's packages alone.
//!
//! Debian *sid* has a current BuildKit (inside docker.io), buildah and podman; they live in a root of their own (`root`)
//! and run in namespaces of their own (`engine`), so that nothing of the machine, a docker of its own included, is
//! touched. All of it lies below [`HOME`]; removing that directory undoes the set-up.

use std::path::{Path, PathBuf};

use anyhow::Result;

mod buildah;
mod buildkit;
mod engine;
mod probe;
mod record;
mod root;

pub(crate) use engine::Engine;

/// Where the peers live: 0.9 GB of programs, and what the engine stores.
const HOME: &str = "/var/lib/rbuild-peers";

/// Sets the peers up if they are not, and prints their versions.
pub(crate) fn report() -> Result<()> {
    let root = root::ensure(Path::new(HOME))?;
    for (package, version) in root::versions(&root)? {
        println!("{package}\t{version}");
    }
    println!("root\t{}", root.display());
    Ok(())
}

/// The peers' root file system, set up if it is not.
pub(crate) fn root() -> Result<PathBuf> {
    root::ensure(Path::new(HOME))
}

/// Name and version of every peer.
pub(crate) fn versions(root: &Path) -> Result<Vec<(String, String)>> {
    Ok(root::versions(root)?.into_iter().collect())
}

/// Records the named cases of the differential corpus, or all of them.
pub(crate) fn record(names: &[&str]) -> Result<()> {
    let root = root::ensure(Path::new(HOME))?;
    record::run(&root, names)
}

/// Says where buildah makes something else of the corpus, or of the named cases.
pub(crate) fn compare_buildah(names: &[&str]) -> Result<()> {
    buildah::run(&root()?, names)
}

/// Records what a process may do and sees under docker.
pub(crate) fn record_probe() -> Result<()> {
    probe::record(&root()?)
}
