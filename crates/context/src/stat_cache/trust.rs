//! Up to which time a file may have changed last for its record to be sound; the argument is in the module above.

use std::io;
use std::path::Path;

use sys::directory;
use sys::root::{Dir, Time};

use crate::node::{Node, Stamp};

/// Coarsest granularity of stamps among file systems in use (FAT), in seconds.
const COARSEST_SECONDS: i64 = 2;

/// Which files may be recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Trust {
    /// Those that changed last before this time.
    Before(Time),
    /// None: no time is known that has passed on the context's file system.
    Nothing,
}

impl Trust {
    /// Finds the bound for files that will be read from now on.
    pub(crate) fn now<'a>(
        root: &Dir,
        device: u64,
        cache: &Path,
        nodes: impl Iterator<Item = &'a Node>,
    ) -> Self {
        match bound(root, device, cache) {
            Ok(Some(time)) => Self::Before(time),
            Ok(None) => newest(nodes.map(|node| node.stamp().changed)),
            Err(error) => {
                tracing::debug!(%error, cache = %cache.display(), "no time from the stat cache's file system");
                newest(nodes.map(|node| node.stamp().changed))
            }
        }
    }

    /// Whether a file with these attributes may be recorded.
    pub(crate) fn covers(self, stamp: &Stamp) -> bool {
        match self {
            Self::Before(time) => stamp.cacheable && stamp.modified < time && stamp.changed < time,
            Self::Nothing => false,
        }
    }
}

/// A time by the clock that stamps the context's files; `None` if that clock is not at hand.
fn bound(root: &Dir, device: u64, cache: &Path) -> io::Result<Option<Time>> {
    let beside = Dir::open(cache)?;
    let Some(now) = directory::file_system_time(&beside)? else { return Ok(None) };
    if directory::status(&beside)?.device == device {
        return Ok(Some(now));
    }
    let one_clock =
        directory::is_stamped_by_this_kernel(root)? && directory::is_stamped_by_this_kernel(&beside)?;
    Ok(one_clock.then(|| earlier(now)))
}

fn newest(stamps: impl Iterator<Item = Time>) -> Trust {
    stamps.max().map_or(Trust::Nothing, |newest| Trust::Before(earlier(newest)))
}

fn earlier(time: Time) -> Time {
    Time { seconds: time.seconds.saturating_sub(COARSEST_SECONDS), ..time }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn stamp(path: &Path, name: &std::ffi::CStr) -> Stamp {
        Stamp::new(&directory::status_at(Dir::open(path).unwrap(), name).unwrap(), true)
    }

    #[test]
    fn on_one_file_system_a_file_of_the_same_tick_is_not_covered() {
        let base = tempfile::tempdir().unwrap();
        let root = Dir::open(base.path()).unwrap();
        let device = directory::status(&root).unwrap().device;
        // Until the file and the bound fall into the same tick: a few milliseconds long, so at once but for bad luck.
        for _ in 0..1000 {
            fs::write(base.path().join("file"), "x").unwrap();
            let trust = Trust::now(&root, device, base.path(), [].into_iter());
            let Trust::Before(time) = trust else { return eprintln!("skipped: no unnamed files here") };
            let stamp = stamp(base.path(), c"file");
            assert_eq!(trust.covers(&stamp), stamp.changed < time);
            if stamp.changed == time {
                return;
            }
        }
        panic!("no two stamps of one tick in 1000 tries");
    }

    #[test]
    fn without_the_clock_only_what_is_older_than_the_newest_is_covered() {
        let time = |seconds| Time { seconds, nanos: 5 };
        assert_eq!(newest([time(10), time(20), time(15)].into_iter()), Trust::Before(time(18)));
        assert_eq!(newest([].into_iter()), Trust::Nothing);
    }

    #[test]
    fn a_time_set_to_the_future_is_never_covered() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("file"), "x").unwrap();
        let mut stamp = stamp(base.path(), c"file");
        let trust = Trust::Before(Time { seconds: stamp.changed.seconds + 1, nanos: 0 });
        assert!(trust.covers(&stamp));
        stamp.modified.seconds += 100;
        assert!(!trust.covers(&stamp));
    }
}
