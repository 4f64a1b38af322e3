//! Layer tars that somebody else made.
//!
//! Members come in any order, with missing parents, paths through links of this layer or a lower one, and every dialect of tar. All of it is
//! resolved here, in memory, against the merged view of the layers below, to the tree that extracting on top of them would give: what is
//! written to disk later follows no link. A tar that needs no look-up below is *self-contained*; of others, [`Foreign::lookups`] says what they depended on.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Bound;

use oci::{DiffId, Digest, Hasher};
use sys::RootfsPath;
use sys::root::Time;

use crate::entries::{Entries, Entry, FileDigest, Kind, Xattr};
use crate::merged::Merged;
use crate::tar_read::{Member, Members, TarError};
use crate::whiteout::{self, Meaning};
use crate::{Limits, compress};

/// A foreign tar, read to its end.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// What it adds, changes and removes.
    pub entries: Entries,
    /// Of the uncompressed bytes.
    pub diff_id: DiffId,
    /// Uncompressed size in bytes.
    pub tar_bytes: u64,
    /// Digest of what was looked up in the layers below; `None` if nothing was.
    pub lookups: Option<Digest>,
}

/// Whether `.wh.` names hide files, as in a layer, or are ordinary, as in an archive that ADD unpacks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Whiteouts {
    /// A layer's tar.
    Honoured,
    /// Any other archive: there they would be files that no layer can hold, so they are refused.
    Refused,
}

/// Why a tar was refused.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// Reading or decompressing failed, or this is no tar.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A name that climbs out, or is too long.
    #[error("the tar has an impossible path")]
    Path(#[from] sys::PathError),
    /// A `.wh.` name that hides nothing.
    #[error(transparent)]
    Whiteout(#[from] whiteout::InvalidWhiteout),
    /// A `.wh.` name where there may be none.
    #[error("`{0}` cannot be part of a layer: names that begin with `.wh.` mean a removed file there")]
    ReservedName(RootfsPath),
    /// A member below something that is no directory.
    #[error("`{path}` lies below `{above}`, which is not a directory")]
    NotADirectory {
        /// The member.
        path: RootfsPath,
        /// What is in its way.
        above: RootfsPath,
    },
    /// Over 40 links on the way.
    #[error("`{0}` goes through too many symbolic links")]
    TooManyLinks(RootfsPath),
    /// A hard link to something that is not a file of the same tar.
    #[error("hard link `{path}` points at `{target}`, which is not a file of the same tar")]
    HardLink {
        /// The link.
        path: RootfsPath,
        /// Where it points.
        target: RootfsPath,
    },
    /// Something only overlayfs itself may have.
    #[error("`{0}` carries a mark that is reserved for overlayfs")]
    OverlayMark(RootfsPath),
    /// A kind of member that is not a file of a rootfs.
    #[error("`{path}` is a tar member of unknown type {kind:#x}")]
    UnknownKind {
        /// The member.
        path: RootfsPath,
        /// Its type flag.
        kind: u8,
    },
}

/// Reads a tar, packed in any way, as a layer over `lower`.
///
/// # Errors
/// [`ForeignError`].
pub fn read(
    packed: impl Read,
    lower: &Merged,
    whiteouts: Whiteouts,
    limits: &Limits,
) -> Result<Foreign, ForeignError> {
    read_into(packed, &RootfsPath::root(), lower, whiteouts, limits)
}

/// As [`read`], with everything in the tar placed below `directory` of `lower`: what unpacking it there would change.
///
/// # Errors
/// [`ForeignError`].
pub fn read_into(
    packed: impl Read,
    directory: &RootfsPath,
    lower: &Merged,
    whiteouts: Whiteouts,
    limits: &Limits,
) -> Result<Foreign, ForeignError> {
    let unpacked = compress::unpacked(packed, limits).map_err(TarError::Read)?;
    let mut tar = HashingReader { inner: unpacked, hasher: Hasher::sha256(), bytes: 0 };
    let mut layer =
        LayerBuilder { directory, lower, whiteouts, entries: BTreeMap::new(), lookups: BTreeMap::new() };
    read_members(&mut tar, &mut layer, limits)?;
    // Whatever follows the end-of-archive blocks belongs to the DiffID as well.
    io::copy(&mut tar, &mut io::sink()).map_err(TarError::Read)?;
    let lookups = layer.lookups_digest();
    Ok(Foreign {
        entries: layer.finish()?,
        diff_id: DiffId::new(tar.hasher.finish()),
        tar_bytes: tar.bytes,
        lookups,
    })
}

struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

fn read_members(
    tar: &mut impl Read,
    layer: &mut LayerBuilder<'_>,
    limits: &Limits,
) -> Result<(), ForeignError> {
    let mut members = Members::new(tar, limits);
    let mut total = 0_u64;
    for number in 0.. {
        let Some(member) = members.next_member()? else { break };
        if number as usize >= limits.entries {
            return Err(TarError::Limit { what: "entries", limit: limits.entries as u64 }.into());
        }
        total = total.saturating_add(member.size);
        if total > limits.layer_bytes {
            return Err(TarError::Limit { what: "bytes of content", limit: limits.layer_bytes }.into());
        }
        layer.add(read_member(&member, members.content(), number, limits)?)?;
    }
    Ok(())
}

/// A member whose path is not resolved yet.
struct Unresolved {
    entry: Entry,
    /// A hard link's target, as written.
    link: Option<RootfsPath>,
}

fn read_member(
    member: &Member,
    content: impl Read,
    number: u32,
    limits: &Limits,
) -> Result<Unresolved, ForeignError> {
    use tar::EntryType as Type;
    let header = &member.header;
    let mut entry = read_attributes(member, limits)?;
    let mut link = None;
    entry.kind = match header.entry_type() {
        // A trailing slash makes an old-style file a directory.
        Type::Regular | Type::Continuous if member.path.ends_with(b"/") => Kind::Directory { opaque: false },
        Type::Regular | Type::Continuous | Type::GNUSparse => read_file(content, number)?,
        Type::Directory => Kind::Directory { opaque: false },
        Type::Symlink => {
            entry.mode = 0o777;
            Kind::Symlink { target: member.link.clone().into() }
        }
        Type::Link => {
            let target = lexical(&member.link)?;
            link = Some(target.clone());
            Kind::HardLink { target }
        }
        Type::Char => match device(header)? {
            (0, 0) => return Err(ForeignError::OverlayMark(entry.path)),
            (major, minor) => Kind::CharDevice { major, minor },
        },
        Type::Block => {
            let (major, minor) = device(header)?;
            Kind::BlockDevice { major, minor }
        }
        Type::Fifo => Kind::Fifo,
        other => return Err(ForeignError::UnknownKind { path: entry.path, kind: other.as_byte() }),
    };
    Ok(Unresolved { entry, link })
}

fn device(header: &tar::Header) -> Result<(u32, u32), TarError> {
    Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)))
}

fn read_file(mut content: impl Read, number: u32) -> Result<Kind, TarError> {
    let mut hasher = Hasher::sha256();
    let size = io::copy(&mut content, &mut hasher)?;
    let oci::Digest::Sha256(bytes) = hasher.finish() else {
        unreachable!("a sha256 hasher makes sha256 digests")
    };
    Ok(Kind::File { size, digest: FileDigest(bytes), member: number })
}

/// Everything but the kind. What PAX records say goes over what the header says (pax(1), "pax Extended Header").
fn read_attributes(member: &Member, limits: &Limits) -> Result<Entry, ForeignError> {
    let header = &member.header;
    let id = |number: io::Result<u64>| number.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    let mtime = Time { seconds: header.mtime().map_err(TarError::Read)?.cast_signed(), nanos: 0 };
    let mut entry = Entry::directory(lexical(&member.path)?, mtime);
    entry.mode = header.mode().map_err(TarError::Read)? & 0o7777;
    entry.uid = id(header.uid()).map_err(TarError::Read)?;
    entry.gid = id(header.gid()).map_err(TarError::Read)?;
    let mut xattrs: BTreeMap<Box<[u8]>, Box<[u8]>> = BTreeMap::new();
    for (key, value) in &member.records {
        let text = || std::str::from_utf8(value).map(str::trim).map_err(|_| TarError::Records);
        let number = || text().and_then(|text| text.parse::<u32>().map_err(|_| TarError::Records));
        match key.as_slice() {
            b"uid" => entry.uid = number()?,
            b"gid" => entry.gid = number()?,
            b"mtime" => entry.mtime = parse_time(text()?).ok_or(TarError::Records)?,
            key => {
                let Some(name) = key.strip_prefix(b"SCHILY.xattr.") else { continue };
                check_xattr(&entry, name, value, limits)?;
                xattrs.insert(name.into(), value.as_slice().into());
            }
        }
    }
    entry.xattrs = xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect();
    Ok(entry)
}

fn check_xattr(entry: &Entry, name: &[u8], value: &[u8], limits: &Limits) -> Result<(), ForeignError> {
    use std::os::unix::ffi::OsStrExt;
    if whiteout::is_overlay_xattr(std::ffi::OsStr::from_bytes(name)) {
        return Err(ForeignError::OverlayMark(entry.path.clone()));
    }
    if value.len() > limits.xattr_bytes {
        let limit = limits.xattr_bytes as u64;
        return Err(TarError::Limit { what: "bytes in one xattr", limit }.into());
    }
    Ok(())
}

/// Decimal seconds with a fraction, perhaps negative.
fn parse_time(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    let is_negative = whole.starts_with('-') && nanos > 0;
    Some(if is_negative {
        Time { seconds: seconds.checked_sub(1)?, nanos: 1_000_000_000 - nanos }
    } else {
        Time { seconds, nanos }
    })
}

/// Cleans a member's name as text, as Go's `filepath.Clean` does; climbing above the root is refused.
fn lexical(name: &[u8]) -> Result<RootfsPath, sys::PathError> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for component in name.split(|&b| b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                if kept.pop().is_none() {
                    return Err(sys::PathError::Climbs(String::from_utf8_lossy(name).into_owned()));
                }
            }
            other => kept.push(other),
        }
    }
    RootfsPath::parse(kept.join(&b'/'))
}

/// How many links one path may go through (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// The layer as read so far, over what is below.
struct LayerBuilder<'l> {
    /// Where the tar's root is.
    directory: &'l RootfsPath,
    lower: &'l Merged,
    whiteouts: Whiteouts,
    entries: BTreeMap<RootfsPath, Entry>,
    /// What was asked of the layers below, and the answer in brief.
    lookups: BTreeMap<RootfsPath, Option<Entry>>,
}

impl LayerBuilder<'_> {
    fn add(&mut self, mut member: Unresolved) -> Result<(), ForeignError> {
        let meaning = whiteout::meaning(&member.entry.path)?;
        if meaning != Meaning::Path && self.whiteouts == Whiteouts::Refused {
            return Err(ForeignError::ReservedName(member.entry.path));
        }
        match meaning {
            Meaning::Hides(path) => self.hide(&path, member.entry.mtime),
            Meaning::Opaque(path) => self.make_opaque(&path, member.entry.mtime),
            Meaning::Path => {
                let path = self.resolve_parent(&member.entry.path, member.entry.mtime)?;
                if path == *self.directory && !path.is_root() {
                    // An archive says nothing about the directory it is unpacked into.
                    return Ok(());
                }
                if let Some(target) = member.link {
                    member.entry = self.link_to(&path, &target, member.entry)?;
                }
                member.entry.path = path;
                self.insert(member.entry);
                Ok(())
            }
        }
    }

    /// Puts an entry over what the layer has there: a directory over a directory keeps what is in it, all else replaces the whole tree.
    fn insert(&mut self, mut entry: Entry) {
        let old = self.entries.get(&entry.path).map(|old| old.kind.clone());
        match (&mut entry.kind, old) {
            (Kind::Directory { opaque }, Some(Kind::Directory { opaque: was })) => *opaque = was,
            // The path was hidden by this layer already, so its new directory shows nothing from below.
            (Kind::Directory { opaque }, Some(Kind::Whiteout)) => *opaque = true,
            (_, Some(_)) => self.remove_below(&entry.path),
            (_, None) => {}
        }
        self.entries.insert(entry.path.clone(), entry);
    }

    fn remove_below(&mut self, path: &RootfsPath) {
        let doomed: Vec<_> = self
            .entries
            .range::<RootfsPath, _>((Bound::Excluded(path), Bound::Unbounded))
            .map(|(below, _)| below)
            .take_while(|below| below.is_at_or_below(path))
            .cloned()
            .collect();
        for below in doomed {
            self.entries.remove(&below);
        }
    }

    fn hide(&mut self, path: &RootfsPath, mtime: Time) -> Result<(), ForeignError> {
        let path = self.resolve_parent(path, mtime)?;
        match self.entries.get_mut(&path) {
            // Whiteouts concern lower layers only: what this layer has here itself stays, and shows nothing from below.
            Some(Entry { kind: Kind::Directory { opaque }, .. }) => *opaque = true,
            Some(_) => {}
            None => drop(self.entries.insert(path.clone(), Entry::whiteout(path))),
        }
        Ok(())
    }

    fn make_opaque(&mut self, path: &RootfsPath, mtime: Time) -> Result<(), ForeignError> {
        let inside = path.join_name(".wh")?;
        let directory = self.resolve_parent(&inside, mtime)?.parent().unwrap_or_default();
        if directory.is_root() {
            let below = self.lower.root_entry();
            self.lookups.insert(directory.clone(), Some(below.clone()));
            self.entries.entry(directory.clone()).or_insert(below);
        }
        if let Some(Entry { kind: Kind::Directory { opaque }, implied, .. }) =
            self.entries.get_mut(&directory)
        {
            (*opaque, *implied) = (true, false);
        }
        Ok(())
    }

    /// What a hard link is: another name of a file of this layer, which takes the attributes that the link's member has. Links to other
    /// things become copies of them.
    fn link_to(
        &mut self,
        path: &RootfsPath,
        target: &RootfsPath,
        member: Entry,
    ) -> Result<Entry, ForeignError> {
        let resolved = self.resolve_parent(target, member.mtime)?;
        let missing = || ForeignError::HardLink { path: path.clone(), target: target.clone() };
        let mut first = self.entries.get(&resolved).ok_or_else(missing)?;
        if let Kind::HardLink { target } = &first.kind {
            first = self.entries.get(target).ok_or_else(missing)?;
        }
        let attributes_of_member = |kind: Kind, at: RootfsPath| Entry { kind, path: at, ..member.clone() };
        match first.kind.clone() {
            Kind::Directory { .. } | Kind::Whiteout | Kind::HardLink { .. } => Err(missing()),
            Kind::File { .. } if first.path == *path => Ok(first.clone()),
            kind @ Kind::File { .. } => {
                let at = first.path.clone();
                self.entries.insert(at.clone(), attributes_of_member(kind, at.clone()));
                Ok(attributes_of_member(Kind::HardLink { target: at }, path.clone()))
            }
            _ => Ok(first.clone()),
        }
    }

    /// Resolves all but the last component of a path below [`Self::directory`], making the directories that are missing. That directory is the
    /// root of every link on the way.
    fn resolve_parent(&mut self, path: &RootfsPath, mtime: Time) -> Result<RootfsPath, ForeignError> {
        let top = self.directory.clone();
        // The way to the top holds no link any more.
        for above in top.ancestors().filter(|above| !above.is_root()) {
            self.enter(above, mtime, path)?;
        }
        let Some(parent) = path.parent() else { return Ok(top) };
        if !top.is_root() {
            self.enter(top.clone(), mtime, path)?;
        }
        let mut todo: Vec<Vec<u8>> = parent.components().rev().map(<[u8]>::to_vec).collect();
        let mut at = top.clone();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                at = if at == top { at } else { at.parent().unwrap_or_default() };
                continue;
            }
            let next = at.join_name(&name)?;
            let Some(target) = self.enter(next.clone(), mtime, path)? else {
                at = next;
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(ForeignError::TooManyLinks(path.clone()));
            }
            if target.starts_with(b"/") {
                at = top.clone();
            }
            let parts = target.split(|&b| b == b'/').filter(|c| !matches!(*c, b"" | b"."));
            todo.extend(parts.rev().map(<[u8]>::to_vec));
        }
        Ok(at.join_name(path.file_name().unwrap_or_default())?)
    }

    /// Goes into a directory, which is made if nothing is there; a link's target if it is one.
    fn enter(
        &mut self,
        at: RootfsPath,
        mtime: Time,
        path: &RootfsPath,
    ) -> Result<Option<Box<[u8]>>, ForeignError> {
        match self.seen(&at).map(|entry| entry.kind) {
            Some(Kind::Directory { .. }) => Ok(None),
            Some(Kind::Symlink { target }) => Ok(Some(target)),
            Some(_) => Err(ForeignError::NotADirectory { path: path.clone(), above: at }),
            None => {
                self.insert(Entry::directory(at, mtime));
                Ok(None)
            }
        }
    }

    /// What shows at a path: of this layer, else of those below. A directory from below becomes an implied entry of this layer.
    fn seen(&mut self, path: &RootfsPath) -> Option<Entry> {
        if let Some(entry) = self.entries.get(path) {
            return Some(entry.clone()).filter(|entry| entry.kind != Kind::Whiteout);
        }
        let hidden = path
            .ancestors()
            .filter_map(|above| self.entries.get(&above))
            .any(|above| matches!(above.kind, Kind::Directory { opaque: true } | Kind::Whiteout));
        if hidden {
            return None;
        }
        let below = self.lower.lookup(path).map(|found| found.entry.clone());
        self.lookups.insert(path.clone(), below.clone());
        if let Some(directory) = below.as_ref().filter(|entry| entry.is_directory()) {
            let implied =
                Entry { kind: Kind::Directory { opaque: false }, implied: true, ..directory.clone() };
            self.entries.insert(path.clone(), implied);
        }
        below
    }

    fn lookups_digest(&self) -> Option<Digest> {
        if self.lookups.is_empty() {
            return None;
        }
        let mut hasher = Hasher::sha256();
        for (path, entry) in &self.lookups {
            hasher.update_field(path.as_bytes());
            match entry {
                Some(entry) => entry.hash_into(&mut hasher),
                None => hasher.update(b"absent"),
            }
        }
        Some(hasher.finish())
    }

    /// Sorts, and makes the first name of each file the file.
    fn finish(self) -> Result<Entries, ForeignError> {
        let mut entries = self.entries;
        let links: Vec<(RootfsPath, RootfsPath)> = entries
            .values()
            .filter_map(|entry| match &entry.kind {
                Kind::HardLink { target } => Some((entry.path.clone(), target.clone())),
                _ => None,
            })
            .collect();
        let mut moved: BTreeMap<RootfsPath, RootfsPath> = BTreeMap::new();
        for (path, target) in links {
            let target = moved.get(&target).unwrap_or(&target).clone();
            let file = entries.get(&target).filter(|entry| matches!(entry.kind, Kind::File { .. }));
            let Some(file) = file.cloned() else { return Err(ForeignError::HardLink { path, target }) };
            if path < target {
                let link = Entry {
                    kind: Kind::HardLink { target: path.clone() },
                    path: target.clone(),
                    ..file.clone()
                };
                entries.insert(target.clone(), link);
                entries.insert(path.clone(), Entry { path: path.clone(), ..file });
                moved.insert(target, path);
            } else {
                entries.insert(path.clone(), Entry { path, kind: Kind::HardLink { target }, ..file });
            }
        }
        Ok(entries.into_values().collect())
    }
}
