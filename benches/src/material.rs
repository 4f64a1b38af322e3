//! What the builds work on: generated, the same on every machine.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use testkit::tree::{self, Shape};

use crate::workload::Workload;

/// Files of the fully cached build's context.
const SMALL: Shape = Shape { top_directories: 5, directories_each: 4, files: 100, size_bytes: 200_000 };

/// Files of the export, and the bytes of each: 1 GB.
const EXPORTED: (usize, u64) = (250, 4_000_000);

/// Files of the image that is pulled and pushed, one in each layer, and the bytes of each: 300 MB.
const LAYERS: (usize, u64) = (6, 50_000_000);

/// A directory with every context in it.
#[derive(Clone, Debug)]
pub struct Material {
    top: PathBuf,
}

impl Material {
    /// Makes, below the empty directory `top`, what the workloads need.
    ///
    /// # Errors
    /// The first that is met.
    pub fn make(top: &Path, workloads: &[Workload]) -> Result<Self> {
        let material = Self { top: top.to_owned() };
        fs::create_dir_all(material.context("base"))?;
        testkit::rootfs::make_busybox(&material.context("base"))?;
        for workload in workloads {
            material.make_context(workload.directory())?;
        }
        Ok(material)
    }

    /// The context of the build in `builds/NAME`.
    #[must_use]
    pub fn context(&self, name: &str) -> PathBuf {
        self.top.join(name)
    }

    /// Gives one file of the large context a content it never had.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn change_one_file(&self, serial: usize) -> Result<()> {
        let path = self.context("large-context").join("module-025/package-025/source-025500.txt");
        fs::metadata(&path).context("the large context has no such file")?;
        Ok(fs::write(path, format!("change {serial}\n"))?)
    }

    /// Gives the last layer a content it never had.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn change_one_layer(&self, serial: usize) -> Result<()> {
        write_mixed(&self.context("layers").join("part-5"), 1000 + serial, LAYERS.1)
    }

    fn make_context(&self, name: &str) -> Result<()> {
        let directory = self.context(name);
        if directory.exists() {
            return Ok(());
        }
        fs::create_dir(&directory)?;
        match name {
            "cached-rebuild" => {
                tree::plant(&directory, SMALL)?;
                fs::write(directory.join("manifest.txt"), "b 2\na 1\n")?;
            }
            "large-context" => tree::plant(&directory, Shape::LARGE_CONTEXT)?,
            "export" => (0..EXPORTED.0).try_for_each(|file| {
                write_mixed(&directory.join(format!("part-{file:04}")), file, EXPORTED.1)
            })?,
            "layers" => (0..LAYERS.0)
                .try_for_each(|file| write_mixed(&directory.join(format!("part-{file}")), file, LAYERS.1))?,
            _ => {}
        }
        // The disk's own work must not fall on whoever builds first.
        rustix::fs::sync();
        Ok(())
    }
}

/// Three quarters words, one quarter noise: what compresses like a real image. Each number gives another content.
fn write_mixed(path: &Path, number: usize, bytes: u64) -> Result<()> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(number as u64 + 1);
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut to = BufWriter::new(File::create(path)?);
    for word in 0..bytes / 8 {
        let random = next();
        // Pieces of 64 KiB, of which every fourth is noise.
        if (word >> 13) % 4 == 0 {
            to.write_all(&random.to_le_bytes())?;
        } else {
            // 4,096 different words of seven letters.
            let chosen = random % 4096;
            to.write_all(format!("{:07x} ", chosen.wrapping_mul(0x9E_3779) & 0xFFF_FFFF).as_bytes())?;
        }
    }
    Ok(to.flush()?)
}
