//! What the machine itself needs to look at a context: each directory listed once, each entry's status asked for once, on one thread.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sys::directory::{self, Kind};
use sys::root::Dir;

use crate::builder::Site;
use crate::sample::Sample;

/// One pass over the large context, with its CPU time.
pub(crate) fn measure_pass(site: &Site<'_>) -> Result<Sample> {
    let top = Dir::open(&site.material.context("large-context"))?;
    let (began, cpu) = (Instant::now(), thread_time()?);
    pass(&top)?;
    Ok(Sample { wall: began.elapsed(), cpu: thread_time()?.saturating_sub(cpu), peak_bytes: 0 })
}

/// Counts the entries below a directory, asking for the status of each.
fn pass(dir: &Dir) -> io::Result<usize> {
    let (mut below, mut count) = (Vec::<CString>::new(), 0);
    directory::for_each_entry(dir, |entry| {
        count += 1;
        if directory::status_at(dir, entry.name)?.kind == Kind::Directory {
            below.push(entry.name.to_owned());
        }
        Ok::<(), io::Error>(())
    })?;
    for name in below {
        count += pass(&dir.open_dir(OsStr::from_bytes(name.as_bytes()))?)?;
    }
    Ok(count)
}

/// CPU time of this thread.
fn thread_time() -> Result<Duration> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = schedstat.split(' ').next().context("schedstat has three fields")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_meets_every_entry() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(base.path().join("a/b")).unwrap();
        std::fs::write(base.path().join("a/b/c"), "").unwrap();
        assert_eq!(pass(&Dir::open(base.path()).unwrap()).unwrap(), 3);
    }
}
