//! Ctrl-C and its kin.

use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use solver::Cancel;

use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};

/// Raises the flag at the first signal that asks to end, and ends the process at the second: whoever presses twice means it.
pub(crate) fn cancel_on_interrupt(cancel: &Arc<Cancel>) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Failure::new(Exit::Machine, Diagnostic::from_error("signals", &error)))?;
    let cancel = Arc::clone(cancel);
    std::thread::spawn(move || {
        let mut seen = signals.forever();
        seen.next();
        cancel.cancel();
        seen.next();
        std::process::exit(i32::from(Exit::Cancelled as u8));
    });
    Ok(())
}
