//! `cargo xtask bench`: rbuild and the reference builders, side by side on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use benches::builder::{Builder, Peers, Site};
use benches::material::Material;
use benches::registry::Registry;
use benches::report;
use benches::run::{Rounds, run as measure};
use benches::workload::Workload;

use crate::peers::{self, Engine};
use crate::{command, repository};

/// The engine's data; apart from what recordings leave, since a full store is slower than an empty one.
const DATA_ROOT: &str = "/var/lib/docker-bench";

/// What the command line says.
struct Asked {
    workloads: Vec<Workload>,
    rounds: Rounds,
    has_peers: bool,
    left_out: Vec<Builder>,
    /// Another rbuild than that of this tree.
    rbuild: Option<PathBuf>,
}

/// Measures, and records what is measured so far after each workload: a whole run takes most of an hour.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let asked = read(words)?;
    let rbuild = asked.rbuild.clone().map_or_else(build_rbuild, Ok)?;
    if asked.has_peers { beside_peers(&asked, &rbuild) } else { alone(&asked, &rbuild) }
}

fn read(words: &[&str]) -> Result<Asked> {
    let mut asked = Asked {
        workloads: Vec::new(),
        rounds: Rounds { usual: 5, slow: 3 },
        has_peers: true,
        left_out: Vec::new(),
        rbuild: None,
    };
    for word in words {
        if let Some(count) = word.strip_prefix("--rounds=") {
            asked.rounds.usual = count.parse()?;
            asked.rounds.slow = asked.rounds.slow.min(asked.rounds.usual);
        } else if let Some(path) = word.strip_prefix("--rbuild=") {
            asked.rbuild = Some(fs::canonicalize(path).with_context(|| format!("there is no `{path}`"))?);
        } else if let Some(builder) = word.strip_prefix("--without=") {
            asked.left_out.push(builder.parse()?);
        } else if *word == "--alone" {
            asked.has_peers = false;
        } else if word.starts_with('-') {
            bail!("`{word}` is not an option of `bench`");
        } else {
            asked.workloads.push(word.parse()?);
        }
    }
    if asked.workloads.is_empty() {
        asked.workloads = Workload::ALL.to_vec();
    }
    Ok(asked)
}

fn build_rbuild() -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    command::run(
        cargo.args(["build", "--quiet", "--release", "--package", "rbuild"]).current_dir(repository()),
    )?;
    Ok(repository().join("target/release/rbuild"))
}

fn beside_peers(asked: &Asked, rbuild: &Path) -> Result<()> {
    let root = peers::root()?;
    let log = root.with_file_name("bench-engine.log");
    let engine = Engine::start(&root, DATA_ROOT, &log)?;
    let result = measure_all(asked, rbuild, &engine, &root);
    engine.stop()?;
    fs::remove_dir_all(root.join(DATA_ROOT.trim_start_matches('/')))?;
    result
}

fn measure_all(asked: &Asked, rbuild: &Path, engine: &Engine, root: &Path) -> Result<()> {
    let program = |name: &str| engine.command(name);
    let peers = Peers {
        command: &program,
        exchange: engine.exchange(),
        init: engine.init(),
        versions: peers::versions(root)?,
    };
    measure_in(asked, rbuild, Some(&peers), &engine.exchange())
}

/// On a directory below the target directory: the same file system as a user's builds, most likely.
fn alone(asked: &Asked, rbuild: &Path) -> Result<()> {
    measure_in(asked, rbuild, None, &repository().join("target"))
}

fn measure_in(asked: &Asked, rbuild: &Path, peers: Option<&Peers<'_>>, below: &Path) -> Result<()> {
    let work = tempfile::Builder::new().prefix("bench-").tempdir_in(below)?;
    let contexts = work.path().join("contexts");
    fs::create_dir(&contexts)?;
    let material = Material::make(&contexts, &asked.workloads)?;
    let wants_registry = asked.workloads.iter().any(|workload| workload.wants_registry());
    let registry = match wants_registry {
        true => Some(Registry::start(work.path(), peers.map(|peers| peers.init))?),
        false => None,
    };
    let (left_out, registry) = (&*asked.left_out, registry.as_ref());
    let site = Site { rbuild, peers, left_out, work: work.path(), material: &material, registry };
    let mut title = title()?;
    if asked.workloads.len() < Workload::ALL.len() {
        // A part must not take the place of the whole.
        title = asked.workloads.iter().fold(title, |title, workload| format!("{title} {workload}"));
    }
    let path = repository().join("benches/results").join(format!("{}.md", title.replace(' ', "-")));
    measure(&site, &asked.workloads, asked.rounds, &mut |outcomes| {
        Ok(fs::write(&path, report::render(outcomes, peers, work.path(), &title)?)?)
    })?;
    println!("\n{}\nwritten to {}", fs::read_to_string(&path)?, path.display());
    work.close().context("cannot remove the bench's files")
}

/// `2026-11-22 hostname`.
fn title() -> Result<String> {
    let date = command::read(Command::new("date").arg("+%Y-%m-%d"))?;
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    Ok(format!("{} {}", date.trim(), host.trim()))
}
