//! Ctrl-C and its kin: they end what rbuild does, or reach the process that it runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sandbox::Signaller;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;
use solver::Cancel;
use sys::terminal::WindowSize;

use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};

/// Signals that ask a program to end.
const ENDING: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Signals that a process we run gets besides those. Of the rest, some cannot be caught, and some are about rbuild itself: job control,
/// its own children, its own faults.
const PASSED_ON: [i32; 5] = [SIGQUIT, SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH];

/// How often a process may be asked to end before it is killed. The first process of a sandbox does not get signals that it does not
/// handle, so a person at the keyboard needs a way out.
const PATIENCE: u32 = 3;

/// Raises the flag at the first signal that asks to end, and ends the process at the second: whoever presses twice means it.
pub(crate) fn cancel_on_interrupt(cancel: &Arc<Cancel>) -> Result<(), Failure> {
    let mut signals = listen(&ENDING)?;
    let cancel = Arc::clone(cancel);
    std::thread::spawn(move || {
        for signal in signals.forever() {
            cancel_or_exit(&cancel, signal);
        }
    });
    Ok(())
}

fn listen(which: &[i32]) -> Result<Signals, Failure> {
    Signals::new(which)
        .map_err(|error| Failure::new(Exit::Machine, Diagnostic::from_error("signals", &error)))
}

fn cancel_or_exit(cancel: &Cancel, signal: i32) {
    if !ENDING.contains(&signal) {
        return;
    }
    if cancel.is_cancelled() {
        std::process::exit(i32::from(Exit::Cancelled as u8));
    }
    cancel.cancel();
}

/// Passes signals on to one process as soon as there is one; before, they cancel.
#[derive(Debug)]
pub(crate) struct Relay(Arc<Mutex<Option<Target>>>);

/// A process that gets our signals.
#[derive(Debug)]
struct Target {
    process: Signaller,
    size: fn() -> Option<WindowSize>,
    asked_to_end: u32,
}

impl Relay {
    /// Starts to listen.
    pub(crate) fn start(cancel: &Arc<Cancel>) -> Result<Self, Failure> {
        let mut signals = listen(&[&ENDING[..], &PASSED_ON[..]].concat())?;
        let relay = Self(Arc::default());
        let (target, cancel) = (Arc::clone(&relay.0), Arc::clone(cancel));
        std::thread::spawn(move || {
            for signal in signals.forever() {
                match &mut *lock(&target) {
                    Some(target) => target.take(signal),
                    None => cancel_or_exit(&cancel, signal),
                }
            }
        });
        Ok(relay)
    }

    /// From now on `process` gets the signals; where it has a terminal, that gets the `size` of ours whenever ours changes.
    pub(crate) fn pass_on_to(&self, process: Signaller, size: fn() -> Option<WindowSize>) {
        *lock(&self.0) = Some(Target { process, size, asked_to_end: 0 });
    }
}

impl Target {
    fn take(&mut self, signal: i32) {
        let done = match (signal, (self.size)()) {
            (SIGWINCH, Some(size)) => self.process.resize(size),
            _ if ENDING.contains(&signal) && self.has_lost_patience() => self.process.kill(),
            _ => self.process.signal(signal),
        };
        if let Err(error) = done {
            tracing::warn!(%error, signal, "a signal was not passed on");
        }
    }

    fn has_lost_patience(&mut self) -> bool {
        self.asked_to_end += 1;
        self.asked_to_end >= PATIENCE
    }
}

fn lock(target: &Mutex<Option<Target>>) -> MutexGuard<'_, Option<Target>> {
    target.lock().unwrap_or_else(PoisonError::into_inner)
}
