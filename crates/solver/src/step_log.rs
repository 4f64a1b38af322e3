//! The two streams of a process on their way to its log and to whoever watches.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};

use crate::Stream;

/// How many of a process' last lines are kept for an error.
const LAST_LINES: usize = 12;

/// Of a line without end this many bytes are kept.
const LINE_BYTES: usize = 4096;

/// Reads both streams to their ends, whatever goes wrong, since the process waits when nobody reads. Gives the last lines, and the first error
/// of reading or of writing the log.
pub(crate) fn keep(
    stdout: File,
    stderr: File,
    log: &File,
    told: &dyn Fn(Stream, Vec<u8>),
) -> (Vec<String>, io::Result<()>) {
    let mut streams = vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
    let mut lines = LastLines::default();
    let mut kept = Ok(());
    let mut buffer = vec![0; 64 << 10];
    while !streams.is_empty() {
        let readable = match sys::poll::readable(streams.iter().map(|(_, file)| file)) {
            Ok(readable) => readable,
            Err(error) => {
                kept = kept.and(Err(error));
                break;
            }
        };
        let mut readable = readable.into_iter();
        streams.retain_mut(|(stream, file)| {
            if readable.next() != Some(true) {
                return true;
            }
            match file.read(&mut buffer) {
                Ok(0) => false,
                Ok(read) => {
                    let mut log = log;
                    let written = log.write_all(&buffer[..read]);
                    kept = std::mem::replace(&mut kept, Ok(())).and(written);
                    lines.push(&buffer[..read]);
                    told(*stream, buffer[..read].to_vec());
                    true
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
                Err(error) => {
                    kept = std::mem::replace(&mut kept, Ok(())).and(Err(error));
                    false
                }
            }
        });
    }
    (lines.finish(), kept)
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
        let (lines, kept) = keep(stdout, stderr, &log, &tell);
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
        let (lines, kept) = keep(stdout, stderr, &full, &|_, _| {});
        writer.join().unwrap();
        assert_eq!(kept.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(lines[0].len() >= LINE_BYTES && lines[0].len() < LINE_BYTES + (64 << 10));
    }
}
