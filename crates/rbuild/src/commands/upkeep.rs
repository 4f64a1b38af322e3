//! Looking after the store: `du`, `prune`, `fsck`.

use std::collections::BTreeMap;
use std::error::Error;

use image::LayerDamage;
use oci::Reference;
use sandbox::{Machine, SandboxError};
use serde_json::{Value, json};
use store::{
    CacheMountInfo, Found, FsckMode, ImageUsage, Kind, KindUsage, LayerUsage, Outcome, PrunePolicy, Pruned,
    Report, Severity, Usage,
};

use crate::cli::{Format, FormatArgs, FsckArgs, Global, PruneArgs};
use crate::commands::sandbox::sweep;
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};
use crate::listing::{self, human_bytes, write_line};
use crate::session::{Session, store_failure};

/// Shows what takes how much of the disk, and how much of it the two ways to prune would free.
pub(crate) fn du(args: &FormatArgs, global: &Global) -> Result<(), Failure> {
    let session = Session::open(global)?;
    let measure = |policy: PrunePolicy| session.store().usage(&policy).map_err(|error| store_failure(&error));
    let (careful, thorough) = (measure(PrunePolicy::unneeded())?, measure(PrunePolicy::everything())?);
    let rows: Vec<_> = careful.kinds.iter().map(|(kind, usage)| du_row(*kind, usage, &thorough)).collect();
    let headings = ["KIND", "COUNT", "SIZE", "PRUNE FREES", "PRUNE --ALL FREES"];
    listing::print(args.format, &headings, &rows, &du_document(&careful, &thorough))?;
    session.close()
}

fn du_row(kind: Kind, usage: &KindUsage, thorough: &Usage) -> Vec<String> {
    let all = thorough.kinds.get(&kind).copied().unwrap_or_default();
    vec![
        kind_name(kind).to_owned(),
        usage.total.count.to_string(),
        human_bytes(usage.total.bytes),
        human_bytes(usage.reclaimable.bytes),
        human_bytes(all.reclaimable.bytes),
    ]
}

fn du_document(careful: &Usage, thorough: &Usage) -> Value {
    let kinds: BTreeMap<&str, Value> = careful
        .kinds
        .iter()
        .map(|(kind, usage)| (kind_name(*kind), du_kind(usage, thorough.kinds.get(kind))))
        .collect();
    let image = |image: &ImageUsage| {
        json!({
            "id": image.id.to_string(),
            "names": image.tags.iter().map(Reference::familiar).collect::<Vec<_>>(),
            "bytes": image.disk_bytes,
            "unique_bytes": image.unique_bytes,
        })
    };
    let layer = |layer: &LayerUsage| {
        json!({
            "id": layer.id.to_string(),
            "bytes": layer.disk_bytes,
            "images": layer.images,
            "records": layer.records,
        })
    };
    let cache =
        |cache: &CacheMountInfo| json!({ "id": cache.id, "number": cache.number, "bytes": cache.disk_bytes });
    json!({
        "kinds": kinds,
        "images": careful.images.iter().map(image).collect::<Vec<_>>(),
        "layers": careful.layers.iter().map(layer).collect::<Vec<_>>(),
        "cache_mounts": careful.cache_mounts.iter().map(cache).collect::<Vec<_>>(),
    })
}

fn du_kind(careful: &KindUsage, thorough: Option<&KindUsage>) -> Value {
    json!({
        "count": careful.total.count,
        "bytes": careful.total.bytes,
        "prune_frees_bytes": careful.reclaimable.bytes,
        "prune_all_frees_bytes": thorough.copied().unwrap_or_default().reclaimable.bytes,
    })
}

/// What a person calls a kind of things; also its key in documents.
fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Images => "images",
        Kind::Layers => "layers",
        Kind::Blobs => "blobs",
        Kind::Records => "cache records",
        Kind::CacheMounts => "cache mounts",
        Kind::Sources => "fetched sources",
        Kind::Logs => "logs",
        Kind::Reports => "build reports",
        Kind::Contexts => "context indexes",
        Kind::Damaged => "put aside",
        Kind::Locks => "locks",
        Kind::Leftovers => "leftovers",
    }
}

/// Removes what nothing needs, and what dead processes left on the machine.
pub(crate) fn prune(args: &PruneArgs, global: &Global) -> Result<(), Failure> {
    let session = Session::open(global)?;
    // Before files go: a process that outlived its owner may still write.
    let swept = sweep_machine(&session)?;
    let policy = if args.all { PrunePolicy::everything() } else { PrunePolicy::unneeded() };
    let pruned = session.store().prune(&policy).map_err(|error| store_failure(&error))?;
    let rows = prune_rows(&pruned, swept);
    listing::print(
        args.format.format,
        &["KIND", "REMOVED", "FREED"],
        &rows,
        &prune_document(&pruned, swept),
    )?;
    session.close()
}

/// Ends the processes and removes the cgroups of dead owners. Without the right to do so there cannot be any of ours.
fn sweep_machine(session: &Session) -> Result<usize, Failure> {
    let swept = Machine::probe(&[]).and_then(|machine| sweep(session, &machine));
    match swept {
        Err(SandboxError::NeedsRoot) => Ok(0),
        swept => {
            swept.map_err(|error| Failure::new(Exit::Machine, Diagnostic::from_error("sandbox", &error)))
        }
    }
}

fn prune_rows(pruned: &Pruned, swept: usize) -> Vec<Vec<String>> {
    let row = |name: &str, count: u64, bytes: String| vec![name.to_owned(), count.to_string(), bytes];
    let mut rows: Vec<_> = pruned
        .kinds
        .iter()
        .map(|(kind, tally)| row(kind_name(*kind), tally.count, human_bytes(tally.bytes)))
        .collect();
    if swept > 0 {
        rows.push(row("sandboxes of dead processes", swept as u64, String::new()));
    }
    let count = pruned.kinds.values().map(|tally| tally.count).sum::<u64>() + swept as u64;
    rows.push(row("in all", count, human_bytes(pruned.bytes())));
    rows
}

fn prune_document(pruned: &Pruned, swept: usize) -> Value {
    let kinds: BTreeMap<&str, Value> = pruned
        .kinds
        .iter()
        .map(|(kind, tally)| (kind_name(*kind), json!({ "count": tally.count, "bytes": tally.bytes })))
        .collect();
    let images: Vec<_> = pruned.images.iter().map(ToString::to_string).collect();
    json!({ "freed_bytes": pruned.bytes(), "kinds": kinds, "images": images, "sandboxes": swept })
}

/// Checks the store. Gives 0 if nothing is lost, else 4, also where a repair has put aside what is.
pub(crate) fn fsck(args: &FsckArgs, global: &Global) -> Result<u8, Failure> {
    let session = Session::open(global)?;
    let mode = if args.repair { FsckMode::Repair } else { FsckMode::Check };
    let report = image::fsck(session.store(), mode).map_err(|error| store_failure(&error))?;
    match args.format.format {
        Format::Json => listing::print_json(&fsck_document(&report))?,
        Format::Table => print_report(&report, mode)?,
    }
    session.close()?;
    Ok(match report.worst() {
        Some(Severity::Damage) => Exit::Machine as u8,
        Some(Severity::Reclaimable) | None => 0,
    })
}

fn print_report(report: &Report<LayerDamage>, mode: FsckMode) -> Result<(), Failure> {
    for found in &report.found {
        let outcome = outcome(&found.outcome, mode);
        write_line(format_args!("{}: {}{outcome}", severity(found), told(found)))?;
    }
    let count = |wanted| report.found.iter().filter(|found| found.finding.severity() == wanted).count();
    write_line(format_args!(
        "checked {} layers and {} blobs of {}: {} damaged, {} to be reclaimed",
        report.layers,
        report.blobs,
        human_bytes(report.blob_bytes),
        count(Severity::Damage),
        count(Severity::Reclaimable),
    ))?;
    if mode == FsckMode::Check && !report.found.is_empty() {
        write_line("`rbuild fsck --repair` removes what can be made again, and puts the rest aside")?;
    }
    Ok(())
}

fn severity(found: &Found<LayerDamage>) -> &'static str {
    match found.finding.severity() {
        Severity::Damage => "damage",
        Severity::Reclaimable => "reclaimable",
    }
}

/// A finding and its causes on one line.
fn told(found: &Found<LayerDamage>) -> String {
    let causes = std::iter::successors(found.finding.source(), |error| (**error).source());
    let all = std::iter::once(found.finding.to_string()).chain(causes.map(ToString::to_string));
    all.collect::<Vec<_>>().join(": ")
}

fn outcome(outcome: &Outcome, mode: FsckMode) -> String {
    match outcome {
        Outcome::Left if mode == FsckMode::Check => String::new(),
        Outcome::Left => " (left)".to_owned(),
        Outcome::Removed => " (removed)".to_owned(),
        Outcome::MovedAside(path) => format!(" (put aside: {})", path.display()),
    }
}

fn fsck_document(report: &Report<LayerDamage>) -> Value {
    let found: Vec<_> = report
        .found
        .iter()
        .map(|found| {
            let (outcome, path) = match &found.outcome {
                Outcome::Left => ("left", None),
                Outcome::Removed => ("removed", None),
                Outcome::MovedAside(path) => ("put aside", Some(path.display().to_string())),
            };
            json!({ "severity": severity(found), "finding": told(found), "outcome": outcome, "path": path })
        })
        .collect();
    json!({ "layers": report.layers, "blobs": report.blobs, "blob_bytes": report.blob_bytes, "found": found })
}
