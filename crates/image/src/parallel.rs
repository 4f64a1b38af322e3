//! Work on several things at once, for as many at a time as the caller says.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::Error;

/// Calls `work` with every item on at most `threads` threads; the results are in the order of the items. After a failure no further item
/// is begun, and the failure of the first item in order is given.
///
/// For work that waits, for a network or a disk: what only computes belongs into the pool of threads that there is for it.
pub(crate) fn map<T: Sync, R: Send, E: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let has_failed = AtomicBool::new(false);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    let run = || {
        while !has_failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return };
            let result = work(item);
            has_failed.fetch_or(result.is_err(), Ordering::Relaxed);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
        }
    };
    std::thread::scope(|scope| {
        // The calling thread is one of them.
        (1..threads.min(items.len())).for_each(|_| drop(scope.spawn(run)));
        run();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The most threads that compress one layer.
const COMPRESSORS: usize = 8;

/// Calls `work` on a pool of threads of its own: what it puts there, to compress layers, is not before what others have to do in theirs.
///
/// # Errors
/// Those of starting threads.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let resource = |error| Error::Resource { what: "threads", source: io::Error::other(error) };
    // One more, which reads what the others compress.
    let threads = rayon::current_num_threads().min(COMPRESSORS) + 1;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(resource)?;
    Ok(pool.install(work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_a_failure_ends_the_work() {
        let items: Vec<u32> = (0..100).collect();
        assert_eq!(map(4, &items, |n| Ok::<_, ()>(n * 2)).unwrap()[99], 198);
        assert_eq!(map(1, &items, |n| if *n == 7 { Err(*n) } else { Ok(()) }), Err(7));
        assert_eq!(map(4, &[] as &[u32], |_| Ok::<(), ()>(())), Ok(vec![]));
    }
}
