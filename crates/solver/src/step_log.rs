//! The two streams of a process on their way to its log and to whoever watches.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use crate::Stream;

/// How many of a process' last lines are kept for an error.
const LAST_LINES: usize = 12;

/// Of a line without end this many bytes are kept.
const LINE_BYTES: usize = 4096;

/// What a process wrote, as far as somebody wants it later.
#[derive(Debug)]
pub(crate) struct Written {
    /// The end of it.
    pub(crate) last_lines: Vec<String>,
    /// The first error of reading it or of writing the log.
    pub(crate) kept: io::Result<()>,
}

/// Takes what a process writes to its log and to whoever watches.
pub(crate) struct StepLog<'l> {
    streams: Vec<(Stream, File)>,
    log: &'l File,
    told: &'l dyn Fn(Stream, Vec<u8>),
    lines: LastLines,
    kept: io::Result<()>,
    buffer: Vec<u8>,
}

impl<'l> StepLog<'l> {
    pub(crate) fn new(stdout: File, stderr: File, log: &'l File, told: &'l dyn Fn(Stream, Vec<u8>)) -> Self {
        let streams = vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
        Self { streams, log, told, lines: LastLines::default(), kept: Ok(()), buffer: vec![0; 64 << 10] }
    }

    /// The streams that have not ended.
    pub(crate) fn open_streams(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.streams.iter().map(|(_, file)| file.as_fd())
    }

    /// Reads once from those of [`StepLog::open_streams`] that can be read. What goes wrong is kept: the process waits when nobody reads.
    pub(crate) fn read(&mut self, readable: &[bool]) {
        let mut readable = readable.iter();
        let mut streams = std::mem::take(&mut self.streams);
        streams.retain_mut(|(stream, file)| readable.next() != Some(&true) || self.read_one(*stream, file));
        self.streams = streams;
    }

    /// `false` at the end of the stream.
    fn read_one(&mut self, stream: Stream, file: &mut File) -> bool {
        let read = match file.read(&mut self.buffer) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) => {
                self.note(Err(error));
                return false;
            }
        };
        let mut log = self.log;
        let written = log.write_all(&self.buffer[..read]);
        self.note(written);
        self.lines.push(&self.buffer[..read]);
        (self.told)(stream, self.buffer[..read].to_vec());
        true
    }

    /// Keeps the first error.
    pub(crate) fn note(&mut self, result: io::Result<()>) {
        if self.kept.is_ok() {
            self.kept = result;
        }
    }

    pub(crate) fn finish(self) -> Written {
        Written { last_lines: self.lines.finish(), kept: self.kept }
    }
}

#[derive(Default)]
struct LastLines {
    lines: VecDeque<String>,
    /// The end of the text so far that no newline has ended.
    open: Vec<u8>,
}

impl LastLines {
    fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.open.len() < LINE_BYTES {
                self.open.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    /// Moves the line so far, if there is one, to the others.
    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.open);
        if line.is_empty() {
            return;
        }
        self.lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
        if self.lines.len() > LAST_LINES {
            self.lines.pop_front();
        }
    }

    fn finish(mut self) -> Vec<String> {
        self.end_line();
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::sync::Mutex;

    fn pipe() -> (File, File) {
        let (reader, writer) = io::pipe().unwrap();
        (OwnedFd::from(reader).into(), OwnedFd::from(writer).into())
    }

    fn read_all(mut log: StepLog<'_>) -> Written {
        while log.open_streams().next().is_some() {
            let readable = sys::poll::readable(&log.open_streams().collect::<Vec<_>>(), None).unwrap();
            log.read(&readable);
        }
        log.finish()
    }

    #[test]
    fn both_streams_are_kept_and_told_and_the_last_lines_given() {
        let ((stdout, mut out), (stderr, mut err)) = (pipe(), pipe());
        let log = tempfile::tempfile().unwrap();
        let told = Mutex::new(Vec::new());
        let writer = std::thread::spawn(move || {
            (0..20).for_each(|number| writeln!(out, "line {number}").unwrap());
            drop(out);
            write!(err, "no newline").unwrap();
        });
        let tell = |stream, bytes: Vec<u8>| told.lock().unwrap().push((stream, bytes));
        let Written { last_lines: lines, kept } = read_all(StepLog::new(stdout, stderr, &log, &tell));
        writer.join().unwrap();
        kept.unwrap();
        assert_eq!(lines.len(), LAST_LINES);
        assert_eq!(lines[LAST_LINES - 1], "no newline");
        let told = told.into_inner().unwrap();
        let of =
            |wanted| told.iter().filter(|(stream, _)| *stream == wanted).map(|(_, b)| b.len()).sum::<usize>();
        assert_eq!((of(Stream::Stdout), of(Stream::Stderr)), (150, 10));
        let mut log = log;
        io::Seek::rewind(&mut log).unwrap();
        assert_eq!(io::read_to_string(log).unwrap().len(), 160);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_told_and_the_process_goes_on() {
        let ((stdout, mut out), (stderr, err)) = (pipe(), pipe());
        drop(err);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let writer = std::thread::spawn(move || out.write_all(&[b'x'; 1 << 20]).unwrap());
        let Written { last_lines: lines, kept } = read_all(StepLog::new(stdout, stderr, &full, &|_, _| {}));
        writer.join().unwrap();
        assert_eq!(kept.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(lines[0].len() >= LINE_BYTES && lines[0].len() < LINE_BYTES + (64 << 10));
    }
}
