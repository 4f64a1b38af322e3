//! Measures scanning: `scan plant DIR` makes the large context, `scan floor DIR` walks it with getdents64 and statx on one thread, `scan
//! select DIR CACHE` does what a build does with `COPY . .`. Decides whether the scan keeps within 1.5 times the floor.

#![expect(clippy::print_stdout, reason = "it is a program that prints figures")]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use context::{Attributes, Context, Ignore, Parents, Source};
use sys::directory;
use sys::root::Dir;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["plant", top] => testkit::tree::plant(Path::new(top), testkit::tree::Shape::LARGE_CONTEXT)?,
        ["floor", top] => timed("floor", || Ok(format!("{} files", floor(&Dir::open(Path::new(top))?)?)))?,
        ["select", top, cache] => timed("select", || select(Path::new(top), Path::new(cache)))?,
        _ => return Err("usage: scan plant DIR | floor DIR | select DIR CACHE".into()),
    }
    Ok(())
}

fn select(top: &Path, cache: &Path) -> Result<String, Box<dyn Error>> {
    let context = Context::open(top, Ignore::find(top, None)?, Some(cache))?;
    let excludes = Ignore::none();
    let begun = cpu_time()?;
    let selection =
        context.select(&Source { pattern: b".", excludes: &excludes, parents: Parents::Dropped })?;
    let scanned = cpu_time()?;
    let digest = selection.digest(Attributes::ALL)?;
    let digested = cpu_time()?;
    context.save()?;
    let phase = |from: Duration, to: Duration| millis(to.saturating_sub(from));
    Ok(format!(
        "{} files {:.12} (scan {:.1}, digest {:.1}, save {:.1} ms)",
        selection.len(),
        digest.to_string(),
        phase(begun, scanned),
        phase(scanned, digested),
        phase(digested, cpu_time()?),
    ))
}

fn floor(dir: &Dir) -> std::io::Result<usize> {
    let (mut below, mut count) = (Vec::new(), 1);
    directory::for_each_entry(dir, |entry| {
        count += 1;
        if directory::status_at(dir, entry.name)?.kind == directory::Kind::Directory {
            below.push(entry.name.to_owned());
        }
        Ok::<(), std::io::Error>(())
    })?;
    for name in below {
        count += floor(&dir.open_dir(std::ffi::OsStr::new(name.to_str().unwrap_or_default()))?)?;
    }
    Ok(count)
}

fn timed(what: &str, work: impl FnOnce() -> Result<String, Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    let (wall, cpu) = (Instant::now(), cpu_time()?);
    let said = work()?;
    let (wall, cpu) = (wall.elapsed(), cpu_time()?.saturating_sub(cpu));
    let peak = std::fs::read_to_string("/proc/self/status")?;
    let peak = peak.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().replace('\t', " ");
    println!("{what}: {said}, cpu {:.1} ms, wall {:.1} ms, {peak}", millis(cpu), millis(wall));
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Of all threads that live: rayon's do until the end.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let mut nanos = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let schedstat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += schedstat.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}
