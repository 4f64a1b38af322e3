//! What every command that touches the store begins with.

use std::sync::Arc;

use jiff::Timestamp;
use solver::{Cancel, Now};
use store::{Lease, Store};
use sys::root::Time;

use crate::cli::Global;
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};
use crate::signals::Relay;

/// An open store, this process' lease on it, and the flag that Ctrl-C raises.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) lease: Lease,
    pub(crate) cancel: Arc<Cancel>,
}

impl Session {
    pub(crate) fn open(global: &Global) -> Result<Self, Failure> {
        let lease =
            Store::open(&global.root).and_then(|store| store.lease()).map_err(|e| store_failure(&e))?;
        let cancel = Arc::new(Cancel::default());
        crate::signals::cancel_on_interrupt(&cancel)?;
        Ok(Self { lease, cancel })
    }

    /// The same for a command that starts a process, which gets the signals once it runs.
    pub(crate) fn open_with_relay(global: &Global) -> Result<(Self, Relay), Failure> {
        let lease =
            Store::open(&global.root).and_then(|store| store.lease()).map_err(|e| store_failure(&e))?;
        let cancel = Arc::new(Cancel::default());
        let relay = Relay::start(&cancel)?;
        Ok((Self { lease, cancel }, relay))
    }

    /// Gives the lease back and says what could not be given back; what was done stays done.
    pub(crate) fn close(self) -> Result<(), Failure> {
        self.lease.close().map_err(|error| store_failure(&error))
    }

    /// What library calls ask whether to go on.
    pub(crate) fn cancelled(&self) -> impl Fn() -> bool + Sync + 'static {
        let cancel = Arc::clone(&self.cancel);
        move || cancel.is_cancelled()
    }

    pub(crate) fn store(&self) -> &Store {
        self.lease.store()
    }
}

/// What fails because everything ends is no news.
pub(crate) fn unless_cancelled(cancel: &Cancel, failure: Failure) -> Failure {
    if cancel.is_cancelled() { Failure::cancelled() } else { failure }
}

/// The moment, for inodes and for histories.
pub(crate) fn now() -> Now {
    let now = Timestamp::now();
    let time = Time { seconds: now.as_second(), nanos: u32::try_from(now.subsec_nanosecond()).unwrap_or(0) };
    Now { time, text: now.to_string() }
}

/// A failure of the store or the machine, with the way out that the error itself knows.
pub(crate) fn store_failure(error: &store::Error) -> Failure {
    let mut diagnostic = Diagnostic::from_error(store_code(error), error);
    diagnostic.help = error.remedy().map(|remedy| remedy_text(remedy).to_owned());
    Failure::new(Exit::Machine, diagnostic)
}

/// What scripts look for.
fn store_code(error: &store::Error) -> &'static str {
    match error {
        store::Error::NoSpace { .. } => "no-space",
        store::Error::NotAStore { .. } => "not-a-store",
        store::Error::UnknownFormat { .. } => "unknown-store-format",
        store::Error::Damaged { .. }
        | store::Error::LayerConflict { .. }
        | store::Error::MissingLayer(_)
        | store::Error::MissingBlob(_)
        | store::Error::MissingImage(_)
        | store::Error::MissingLog(_) => "damaged-store",
        store::Error::Io { .. }
        | store::Error::Blob(_)
        | store::Error::NoEntries(_)
        | store::Error::Random(_) => "store",
    }
}

fn remedy_text(remedy: store::Remedy) -> &'static str {
    use store::Remedy;
    match remedy {
        Remedy::FreeSpace => {
            "`rbuild prune` frees what no image needs; `rbuild du` shows what takes the space"
        }
        Remedy::OtherRoot => "choose another directory with `--root`",
        Remedy::Permission => "run rbuild as root, or give a directory of your own with `--root`",
        Remedy::RemountWritable => "make the file system writable, or choose another directory with `--root`",
        Remedy::RaiseFileLimit => "raise the limit on open files: `ulimit -n`",
        Remedy::OtherVersion => {
            "use the version of rbuild that made this store, or another directory with `--root`"
        }
        Remedy::Fsck => "`rbuild fsck --repair` drops what can be made again and says what cannot",
    }
}
