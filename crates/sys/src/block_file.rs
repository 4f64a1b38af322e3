//! Writing a large file in blocks, around the page cache where the file system allows that (open(2), `O_DIRECT`).
//!
//! What a build writes must be on the disk at its end in any case. Written directly it is there at once, is not copied once more on the way,
//! and does not push out of memory what will be read again.

use std::fs::File;
use std::io::{self, Write};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};

/// What buffers, lengths and positions of direct writes must be multiples of; enough for every disk.
const ALIGNMENT: usize = 4096;

/// A buffer of fixed capacity at an address that suits the disk.
#[derive(Debug)]
pub struct Block {
    /// Filler up to `start`, then the content. Never grows, so it never moves.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Block {
    /// An empty one for `capacity` bytes, a multiple of 4096.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let mut bytes: Vec<u8> = Vec::with_capacity(capacity + ALIGNMENT);
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        bytes.resize(start, 0);
        Self { bytes, start, end: start + capacity }
    }

    /// The content.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Whether nothing more fits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes.len() == self.end
    }

    /// Takes as much of `bytes` as fits, and gives the rest.
    #[must_use]
    pub fn fill<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(self.end - self.bytes.len()));
        self.bytes.extend_from_slice(taken);
        rest
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }
}

/// A file that is written from its start, block by block.
#[derive(Debug)]
pub struct BlockFile {
    file: File,
    is_direct: bool,
}

impl BlockFile {
    /// Takes over a file, or a pipe, nothing of which is written yet.
    #[must_use]
    pub fn new(file: File) -> Self {
        let is_regular = fstat(&file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
        let is_direct = is_regular && set_direct(&file, true).is_ok();
        Self { file, is_direct }
    }

    /// Appends a block. All but the last must be full.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn append(&mut self, block: &Block) -> io::Result<()> {
        let mut rest = block.as_slice();
        if self.is_direct && !rest.len().is_multiple_of(ALIGNMENT) {
            self.write_buffered_from_here()?;
        }
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // From a file system that takes the flag and not the write, or after a write that was cut short.
                Err(error) if self.is_direct && error.kind() == io::ErrorKind::InvalidInput => {
                    self.write_buffered_from_here()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_buffered_from_here(&mut self) -> io::Result<()> {
        self.is_direct = false;
        set_direct(&self.file, false)
    }
}

fn set_direct(file: &File, direct: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, direct);
    Ok(fcntl_setfl(file, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[track_caller]
    fn write(file: &File, content: &[u8]) {
        let mut to = BlockFile::new(file.try_clone().unwrap());
        let mut block = Block::new(2 * ALIGNMENT);
        let mut rest = content;
        while !rest.is_empty() {
            rest = block.fill(rest);
            to.append(&block).unwrap();
            block.clear();
        }
    }

    #[test]
    fn every_length_arrives_whole_on_disks_and_in_memory() {
        let content: Vec<u8> = (0..5 * ALIGNMENT + 7).map(|n| (n % 251) as u8).collect();
        for directory in ["/var/tmp", "/dev/shm"] {
            for length in [0, 1, ALIGNMENT, 2 * ALIGNMENT, 4 * ALIGNMENT, content.len()] {
                let file = tempfile::NamedTempFile::new_in(directory).unwrap();
                write(file.as_file(), &content[..length]);
                assert_eq!(std::fs::read(file.path()).unwrap(), &content[..length], "{directory} {length}");
            }
        }
    }

    #[test]
    fn a_pipe_is_written_like_any_other() {
        let (mut reader, writer) = io::pipe().unwrap();
        let writer = File::from(std::os::fd::OwnedFd::from(writer));
        let thread = std::thread::spawn(move || write(&writer, &[7; 3 * ALIGNMENT]));
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        thread.join().unwrap();
        assert_eq!(got, [7; 3 * ALIGNMENT]);
    }

    #[test]
    fn a_block_lies_where_the_disk_wants_it_and_takes_no_more_than_it_holds() {
        let mut block = Block::new(ALIGNMENT);
        assert_eq!(block.as_slice().as_ptr().align_offset(ALIGNMENT), 0);
        assert_eq!(block.fill(&[1; ALIGNMENT + 3]), [1; 3]);
        assert!(block.is_full());
        block.clear();
        assert!(block.as_slice().is_empty());
    }
}
