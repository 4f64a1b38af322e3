//! A blob that somebody reads while it is written.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use oci::Digest;
use store::{Blob, BlobWriter};

/// What has been written so far, for those who read it.
#[derive(Debug)]
pub(crate) struct GrowingBlob {
    file: File,
    state: Mutex<State>,
    changed: Condvar,
    /// Whether nobody wants it any more.
    is_abandoned: AtomicBool,
}

#[derive(Debug)]
struct State {
    bytes: u64,
    end: End,
}

#[derive(Clone, Debug)]
enum End {
    /// There may be more.
    Open,
    /// It is complete.
    Complete(Digest),
    /// It will never be complete.
    GivenUp,
}

/// Writes a blob that others read. Dropped before it is finished, it tells them that there is no more.
pub(crate) struct GrowingWriter<'l> {
    writer: Option<BlobWriter<'l>>,
    growing: Arc<GrowingBlob>,
    has_failed: bool,
}

impl<'l> GrowingWriter<'l> {
    pub(crate) fn new(writer: BlobWriter<'l>) -> Result<Self, store::Error> {
        let state = Mutex::new(State { bytes: 0, end: End::Open });
        let growing = Arc::new(GrowingBlob {
            file: writer.reader()?,
            state,
            changed: Condvar::new(),
            is_abandoned: AtomicBool::new(false),
        });
        Ok(Self { writer: Some(writer), growing, has_failed: false })
    }

    pub(crate) fn growing(&self) -> &Arc<GrowingBlob> {
        &self.growing
    }

    /// Whether something could not be written.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    pub(crate) fn finish(mut self) -> Result<Blob, store::Error> {
        let writer = self.writer.take().expect("it is finished once");
        let blob = writer.finish()?;
        self.growing.change(|state| state.end = End::Complete(blob.digest.clone()));
        Ok(blob)
    }
}

impl Write for GrowingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.growing.is_abandoned.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let writer = self.writer.as_mut().expect("it is not finished");
        let written = writer.write(bytes).inspect_err(|_| self.has_failed = true)?;
        self.growing.change(|state| state.bytes += written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for GrowingWriter<'_> {
    fn drop(&mut self) {
        self.growing.change(|state| {
            if matches!(state.end, End::Open) {
                state.end = End::GivenUp;
            }
        });
    }
}

impl GrowingBlob {
    /// Digest and length, in bytes, once it is complete.
    pub(crate) fn known(&self) -> Option<(Digest, u64)> {
        let state = self.state();
        match &state.end {
            End::Complete(digest) => Some((digest.clone(), state.bytes)),
            End::Open | End::GivenUp => None,
        }
    }

    /// Whoever writes it need not go on.
    pub(crate) fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }

    /// Whether it will never be complete.
    pub(crate) fn is_given_up(&self) -> bool {
        matches!(self.state().end, End::GivenUp)
    }

    /// Waits until it is complete, or never will be.
    pub(crate) fn wait(&self) {
        let is_open = |state: &mut State| matches!(state.end, End::Open);
        drop(self.changed.wait_while(self.state(), is_open));
    }

    /// What begins `from` bytes into it. At the end of what there is it waits for more.
    pub(crate) fn read_from(&self, from: u64) -> impl Read + '_ {
        Following { growing: self, at: from }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Following<'g> {
    growing: &'g GrowingBlob,
    at: u64,
}

impl Read for Following<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let GrowingBlob { file, changed, .. } = self.growing;
        let is_behind = |state: &mut State| state.bytes <= self.at && matches!(state.end, End::Open);
        let state = changed.wait_while(self.growing.state(), is_behind);
        let (bytes, end) = {
            let state = state.unwrap_or_else(PoisonError::into_inner);
            (state.bytes, state.end.clone())
        };
        match end {
            End::GivenUp => Err(io::Error::other("what was to be read is given up")),
            _ => {
                let left = usize::try_from(bytes.saturating_sub(self.at)).unwrap_or(usize::MAX);
                let length = buffer.len().min(left);
                let read = file.read_at(&mut buffer[..length], self.at)?;
                self.at += read as u64;
                // The end is where it was written to.
                if read == 0 && length > 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(read) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    use store::Store;

    #[test]
    fn whoever_reads_along_gets_all_of_it_and_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let lease = store.lease().unwrap();
        let mut writer = GrowingWriter::new(lease.blob_writer(None).unwrap()).unwrap();
        let growing = Arc::clone(writer.growing());
        let read = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut read = Vec::new();
                growing.read_from(3).read_to_end(&mut read).map(|_| read)
            });
            for part in [&b"ab"[..], b"cd", b"ef"] {
                assert_eq!(growing.known(), None);
                writer.write_all(part).unwrap();
            }
            let blob = writer.finish().unwrap();
            assert_eq!(growing.known(), Some((blob.digest, 6)));
            reader.join().unwrap()
        });
        assert_eq!(read.unwrap(), b"def");
    }

    #[test]
    fn what_is_given_up_does_not_look_complete() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let lease = store.lease().unwrap();
        let mut writer = GrowingWriter::new(lease.blob_writer(None).unwrap()).unwrap();
        writer.write_all(b"ab").unwrap();
        let growing = Arc::clone(writer.growing());
        growing.abandon();
        assert!(writer.write_all(b"c").is_err());
        drop(writer);
        assert!(growing.read_from(0).read_to_end(&mut Vec::new()).is_err());
        assert_eq!(growing.known(), None);
    }
}
