//! Logs of steps, build reports, and where the stat caches of contexts lie: files whose contents are somebody else's.

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;

use crate::envelope::Envelope;
use crate::{Error, Lease, LogId, Object, Store, file_name, files};

const BUILD: &str = "build";

impl Store {
    /// Opens a log for reading, also while it is being written; `None` if it is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open_log(&self, id: &LogId) -> Result<Option<File>, Error> {
        files::open_if_exists(&self.log_path(id))
    }

    /// Where a log lies, to be told to a person.
    #[must_use]
    pub fn log_path(&self, id: &LogId) -> PathBuf {
        self.layout().log(id)
    }

    /// Where the stat cache of a context belongs, whose name (its path, for example) may be any text.
    #[must_use]
    pub fn context_path(&self, name: &str) -> PathBuf {
        self.layout().context(name)
    }

    /// The report of a build, as it was put; `None` if there is none or it is damaged.
    ///
    /// # Errors
    /// What the file system says.
    pub fn build_report(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.layout().build(name);
        let bytes = files::read_if_exists(&path)?;
        let report = bytes.and_then(|bytes| open_report(path.file_name()?, &bytes));
        Ok(report.map(|envelope| envelope.payload))
    }
}

impl Lease {
    /// Begins a log that everybody may read while it grows. Pinned by the lease; afterwards it stays as long as a record or a build
    /// report needs it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create_log(&self) -> Result<(LogId, File), Error> {
        let id = LogId::random()?;
        let gc = self.store().gc_shared()?;
        self.pin_under(&gc, &[Object::Log(id.clone())])?;
        let file = files::create_file(&self.store().log_path(&id))?;
        Ok((id, file))
    }

    /// Keeps the report of a build under a name of the caller's, in place of the one before. `logs` are kept with it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn put_build_report(&self, name: &str, logs: &[LogId], report: &[u8]) -> Result<(), Error> {
        let needs = logs.iter().cloned().map(Object::Log).collect();
        let bytes = Envelope { needs, payload: report.to_vec() }.seal(BUILD, &file_name::encode(name));
        let path = self.store().layout().build(name);
        files::replace(&path, &self.temporary("report")?, &bytes)
    }
}

/// Opens the file of a build report, given its file name and its bytes.
pub(crate) fn open_report(file_name: &OsStr, bytes: &[u8]) -> Option<Envelope> {
    Envelope::open(BUILD, file_name.to_str()?, bytes)
}
