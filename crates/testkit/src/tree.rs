//! Large file trees of a known shape, for benches and tests of scanning.

use std::fs;
use std::io;
use std::path::Path;

/// The shape of a tree. The same shape is the same tree, byte for byte.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Directories directly in the top.
    pub top_directories: usize,
    /// Directories in each of those.
    pub directories_each: usize,
    /// Files in all, spread evenly over the directories of the second level.
    pub files: usize,
    /// Bytes in all files together.
    pub size_bytes: u64,
}

impl Shape {
    /// The context by which large builds are judged: 50,000 files of 10 kB in 2,550 directories.
    pub const LARGE_CONTEXT: Self =
        Self { top_directories: 50, directories_each: 50, files: 50_000, size_bytes: 500_000_000 };
}

/// Makes the tree in an existing directory.
///
/// # Errors
/// The first that is met.
pub fn plant(top: &Path, shape: Shape) -> io::Result<()> {
    let leaves = shape.top_directories * shape.directories_each;
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    let mut content = Vec::new();
    for leaf in 0..leaves {
        let directory = top
            .join(format!("module-{:03}", leaf / shape.directories_each))
            .join(format!("package-{:03}", leaf % shape.directories_each));
        fs::create_dir_all(&directory)?;
        for file in share(shape.files as u64, leaf as u64, leaves as u64) {
            let bytes = share(shape.size_bytes, file, shape.files as u64);
            noise.fill(&mut content, (bytes.end - bytes.start) as usize);
            fs::write(directory.join(format!("source-{file:06}.txt")), &content)?;
        }
    }
    Ok(())
}

/// The part of `0..total` that falls to one of `parts` equal ones.
fn share(total: u64, part: u64, parts: u64) -> std::ops::Range<u64> {
    total * part / parts..total * (part + 1) / parts
}

/// xorshift64: reproducible, and fast enough that the disk is what is waited for.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, into: &mut Vec<u8>, length: usize) {
        into.clear();
        while into.len() < length {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            into.extend_from_slice(&self.0.to_le_bytes());
        }
        into.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_the_files_and_bytes_of_its_shape() {
        let base = tempfile::tempdir().unwrap();
        let shape = Shape { top_directories: 3, directories_each: 2, files: 20, size_bytes: 1001 };
        plant(base.path(), shape).unwrap();
        let (mut files, mut bytes) = (0, 0);
        for module in fs::read_dir(base.path()).unwrap() {
            for package in fs::read_dir(module.unwrap().path()).unwrap() {
                for file in fs::read_dir(package.unwrap().path()).unwrap() {
                    files += 1;
                    bytes += file.unwrap().metadata().unwrap().len();
                }
            }
        }
        assert_eq!((files, bytes), (20, 1001));
    }
}
