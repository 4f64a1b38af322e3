use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::scenario::{self, Child};
use crate::support::{Fixture, key};

#[test]
fn a_step_is_run_by_one_at_a_time() {
    let fixture = Fixture::new();
    let lease = fixture.store.lease().unwrap();
    let (log, _file) = lease.create_log().unwrap();
    let held = fixture.store.try_step_lock(&key("a")).unwrap().unwrap();
    assert_eq!(fixture.store.step_log(&key("a")).unwrap(), None);
    held.announce_log(&log).unwrap();
    assert!(fixture.store.try_step_lock(&key("a")).unwrap().is_none());
    assert!(fixture.store.try_step_lock(&key("b")).unwrap().is_some());
    assert_eq!(fixture.store.step_log(&key("a")).unwrap(), Some(log));
    drop(held);
    assert!(fixture.store.try_step_lock(&key("a")).unwrap().is_some());
    assert_eq!(fixture.store.step_log(&key("a")).unwrap(), None);
}

#[test]
fn waiting_for_a_step_ends_when_it_is_cancelled() {
    let fixture = Fixture::new();
    let _held = fixture.store.try_step_lock(&key("a")).unwrap().unwrap();
    let mut asked = 0;
    let waited = fixture.store.wait_step_lock(&key("a"), || {
        asked += 1;
        asked == 3
    });
    assert!(waited.unwrap().is_none());
}

#[test]
fn a_lock_dies_with_its_process() {
    let fixture = Fixture::new();
    let mut child = Child::start(&fixture.root(), scenario::HOLD_A_STEP);
    child.wait_for_line();
    assert!(fixture.store.try_step_lock(&key("step")).unwrap().is_none());
    let start = Instant::now();
    child.kill();
    let lock = fixture.store.wait_step_lock(&key("step"), || start.elapsed().as_secs() > 10).unwrap();
    assert!(lock.is_some());
}

#[test]
fn removing_lock_files_never_lets_two_in() {
    let fixture = Fixture::new();
    let inside = AtomicU32::new(0);
    let entered = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while entered.load(Ordering::SeqCst) < 3000 {
                    let Some(lock) = fixture.store.try_step_lock(&key("a")).unwrap() else { continue };
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    entered.fetch_add(1, Ordering::SeqCst);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(lock);
                }
            });
        }
    });
    assert_eq!(
        std::fs::read_dir(fixture.root().join("locks"))
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("step-") })
            .count(),
        0
    );
}
