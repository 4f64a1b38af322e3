//! Where the figures come from.

use std::fs;
use std::path::Path;
use std::thread;

use anyhow::Result;

/// Kernel, processor, memory and file system, one line each.
pub(crate) fn describe(work: &Path) -> Result<Vec<String>> {
    let kernel = rustix::system::uname();
    let processors = thread::available_parallelism()?;
    Ok(vec![
        format!("kernel: {} {}", kernel.sysname().to_string_lossy(), kernel.release().to_string_lossy()),
        format!("processor: {} × {}", processors, field("/proc/cpuinfo", "model name")?),
        format!("memory: {}", field("/proc/meminfo", "MemTotal")?),
        format!("load in the last 1, 5 and 15 minutes, this bench's included: {}", load()?),
        format!("storage: overlay on {} for every builder", file_system(work)?),
    ])
}

/// What a reader judges the wall times by.
fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(", "))
}

fn field(file: &str, name: &str) -> Result<String> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    Ok(line.unwrap_or("unknown").trim().to_owned())
}

/// The type of the file system that holds `path`, and its device.
fn file_system(path: &Path) -> Result<String> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let path = fs::canonicalize(path)?;
    let holding = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        path.starts_with(point).then(|| (point.len(), format!("{kind} ({device})")))
    });
    // Of mounts one over the other, the last is seen.
    Ok(holding.max_by_key(|(length, _)| *length).map_or_else(|| "unknown".to_owned(), |(_, text)| text))
}
