//! Writing a manifest's archives: tar members exactly as stated, sane or not.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use tar::{Builder, EntryType, Header};

use super::{Entry, Kind};

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Codec {
    /// A plain tar.
    None,
    /// One gzip member.
    Gzip,
    /// One bzip2 stream.
    Bzip2,
    /// One xz stream.
    Xz,
    /// One zstd frame.
    Zstd,
}

impl FromStr for Codec {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "none" => Self::None,
            "gzip" => Self::Gzip,
            "bzip2" => Self::Bzip2,
            "xz" => Self::Xz,
            "zstd" => Self::Zstd,
            _ => bail!("unknown codec `{text}`"),
        })
    }
}

/// Seconds since 1970 of a member that does not say: archives are the same bytes on every day.
const MEMBER_MTIME: u64 = 1_600_000_000;

pub(super) fn write(path: &Path, codec: Codec, members: &[Entry]) -> Result<()> {
    let file = File::create(path)?;
    match codec {
        Codec::None => drop(write_members(file, members)?),
        Codec::Gzip => {
            let encoder = flate2::write::GzEncoder::new(file, flate2::Compression::default());
            drop(write_members(encoder, members)?.finish()?);
        }
        Codec::Bzip2 => {
            let encoder = bzip2::write::BzEncoder::new(file, bzip2::Compression::default());
            drop(write_members(encoder, members)?.finish()?);
        }
        Codec::Xz => {
            let encoder = liblzma::write::XzEncoder::new(file, 6);
            drop(write_members(encoder, members)?.finish()?);
        }
        Codec::Zstd => drop(write_members(zstd::Encoder::new(file, 3)?, members)?.finish()?),
    }
    Ok(())
}

fn write_members<W: Write>(output: W, members: &[Entry]) -> Result<W> {
    let mut builder = Builder::new(output);
    for member in members {
        write_member(&mut builder, member)?;
    }
    Ok(builder.into_inner()?)
}

fn write_member(builder: &mut Builder<impl Write>, member: &Entry) -> Result<()> {
    let xattrs = member.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value));
    let records: Vec<(String, &Vec<u8>)> = xattrs.collect();
    builder.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))?;
    let (header, content) = header(member)?;
    Ok(builder.append(&header, &*content)?)
}

fn header(member: &Entry) -> Result<(Header, Cow<'_, [u8]>)> {
    let mut header = Header::new_ustar();
    header.set_mode(member.mode);
    header.set_uid(member.uid.into());
    header.set_gid(member.gid.into());
    header.set_mtime(member.mtime.map_or(MEMBER_MTIME, u64::from));
    let mut content = Cow::Borrowed(&[][..]);
    let kind = match &member.kind {
        Kind::Directory => EntryType::Directory,
        Kind::File(source) => {
            content = source.read()?;
            EntryType::Regular
        }
        Kind::Symlink(target) => {
            set_link(&mut header, target)?;
            EntryType::Symlink
        }
        Kind::HardLink(target) => {
            set_link(&mut header, target)?;
            EntryType::Link
        }
        Kind::Fifo => EntryType::Fifo,
        Kind::CharDevice(device) | Kind::BlockDevice(device) => {
            header.set_device_major(device.major)?;
            header.set_device_minor(device.minor)?;
            if matches!(member.kind, Kind::CharDevice(_)) { EntryType::Char } else { EntryType::Block }
        }
        Kind::Socket | Kind::Archive { .. } | Kind::Repository { .. } | Kind::Event(_) => {
            bail!("a tar cannot hold `{}`", member.path.display())
        }
    };
    header.set_entry_type(kind);
    header.set_size(content.len().try_into()?);
    set_name(&mut header, &member.path)?;
    header.set_cksum();
    Ok((header, content))
}

/// The tar crate's own setters refuse `..` and absolute names, which are the point here.
fn set_name(header: &mut Header, path: &Path) -> Result<()> {
    fill(&mut header.as_old_mut().name, path)
}

fn set_link(header: &mut Header, target: &Path) -> Result<()> {
    fill(&mut header.as_old_mut().linkname, target)
}

fn fill(field: &mut [u8; 100], path: &Path) -> Result<()> {
    let bytes = path.as_os_str().as_bytes();
    ensure!(bytes.len() <= field.len(), "`{}` is longer than a header holds", path.display());
    field[..bytes.len()].copy_from_slice(bytes);
    Ok(())
}
