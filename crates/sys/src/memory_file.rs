//! Files in memory: sealed copies of programs, and bytes handed to another process.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use rustix::fs::{MemfdFlags, SealFlags};

/// Copies what is left to read of `source` into a sealed file in memory: nobody, root included, can change it any more.
///
/// It can be executed (`execveat` with an empty path). `name` is seen in `/proc` only.
///
/// # Errors
/// Those of memfd_create(2), and of reading and writing.
pub fn sealed_copy(name: &str, source: &mut File) -> io::Result<File> {
    let mut copy = create(name)?;
    io::copy(source, &mut copy)?;
    seal(&copy)?;
    Ok(copy)
}

/// Makes a sealed file in memory that holds `content`, positioned at its start.
///
/// # Errors
/// Those of memfd_create(2) and of writing.
pub fn sealed(name: &str, content: &[u8]) -> io::Result<File> {
    let mut file = create(name)?;
    file.write_all(content)?;
    seal(&file)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn create(name: &str) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels from 6.3 on may be set up to refuse memory files that do not say whether they are executable; older ones do not know the flag.
    match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => Ok(File::from(rustix::fs::memfd_create(name, flags)?)),
        other => Ok(File::from(other?)),
    }
}

fn seal(file: &File) -> io::Result<()> {
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    Ok(rustix::fs::fcntl_add_seals(file, seals)?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_sealed_file_cannot_be_changed_and_reads_from_its_start() {
        let mut file = sealed("test", b"abc").unwrap();
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(0).is_err());
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }
}
