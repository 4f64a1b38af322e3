//! Directory trees as text: what git cannot hold, described line by line and made on disk when a test needs it.
//!
//! Git keeps an executable bit and nothing else: no owners, no setuid, no empty directories, fifos, sockets, devices,
//! extended attributes, hard links or odd names, and no archive a reviewer can read. A manifest states them:
//!
//! ```text
//! # a comment, or an empty line
//! dir      empty            mode=0700
//! file     bin/tool         mode=4755 owner=1000:1001 content="#!/bin/sh\n" xattr.user.note="hello"
//! file     big              size=100000
//! hardlink bin/other        to=bin/tool
//! symlink  current          to=bin/tool
//! fifo     pipe
//! socket   sock
//! char     null             dev=1:3 mode=0666
//! block    disk             dev=7:0
//! tar      data.tar.gz      codec=gzip
//!   dir    d/
//!   file   "d/with space"   content=x
//! git      r.git
//!   file   a                content=1
//!   commit first
//!   tag    v1
//!   branch side
//!   submodule sub           to=../other.git commit=0123456789abcdef0123456789abcdef01234567
//!   commit second
//! ```
//!
//! * A line is a kind, a path and `key=value` words. Defaults: mode 0755 for directories and 0644 for the rest, owner 0:0.
//! * Words may be quoted; inside quotes `\n`, `\t`, `\\`, `\"` and `\xNN` (any byte, so names need not be UTF-8) are escapes.
//! * A file's bytes are `content=`, or `size=N` bytes of a fixed pattern, or those of the machine's file `source=/path`.
//!   Missing parents are made 0755. `mtime=SECONDS` is when it changed; by default, when it is made.
//! * Indented lines are the members of the archive above, stored in the order given and under the name given: absolute
//!   names, `..` and the same name twice are what archives are tested with. Codecs: `none` (default), `gzip`, `bzip2`, `xz`, `zstd`.
//! * Below `git`, a bare repository, they are what happens to it, from a `branch main` on: files change, `commit` keeps all that there is under
//!   that message, `tag` and `branch` name the last commit, the latter for the commits to come; `main` stays the one that is checked out. `submodule` names a repository and the
//!   commit of it. The same lines give the same commits, whose ids may be written down.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

mod archive;
mod disk;
mod repository;
mod words;

pub use archive::Codec;

/// A parsed manifest: entries in the order of their lines.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    entries: Vec<Entry>,
}

/// One line of a manifest.
#[derive(Clone, Debug)]
struct Entry {
    path: PathBuf,
    kind: Kind,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Seconds since 1970; `None` is when it is made.
    mtime: Option<u32>,
    /// Name (with its `user.` or other prefix) and value.
    xattrs: Vec<(String, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum Kind {
    Directory,
    File(Content),
    Symlink(PathBuf),
    HardLink(PathBuf),
    Fifo,
    Socket,
    CharDevice(Device),
    BlockDevice(Device),
    Archive { codec: Codec, members: Vec<Entry> },
    Repository { events: Vec<Entry> },
    Event(Event),
}

/// What happens to a repository beside changes of files.
#[derive(Clone, Debug)]
enum Event {
    Commit,
    Tag,
    Branch,
    Submodule { url: PathBuf, commit: String },
}

#[derive(Clone, Debug)]
enum Content {
    Bytes(Vec<u8>),
    /// A file of this machine: a static busybox is too big to be written down.
    Machine(PathBuf),
}

#[derive(Clone, Copy, Debug)]
struct Device {
    major: u32,
    minor: u32,
}

impl Content {
    fn read(&self) -> Result<Cow<'_, [u8]>> {
        match self {
            Self::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::Machine(path) => {
                let bytes =
                    std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
                Ok(Cow::Owned(bytes))
            }
        }
    }
}

impl Manifest {
    /// Parses a manifest; see the module's page for the form.
    ///
    /// # Errors
    /// The first line that is not understood, by number.
    pub fn parse(text: &str) -> Result<Self> {
        let mut entries = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let content = line.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let is_member = line.starts_with([' ', '\t']);
            add_line(&mut entries, content, is_member)
                .with_context(|| format!("manifest line {}: `{content}`", index + 1))?;
        }
        Ok(Self { entries })
    }

    /// Makes the tree below `root`, which must exist. Owners, devices and `trusted.` attributes need root.
    ///
    /// # Errors
    /// The entry that could not be made, and why.
    pub fn materialise(&self, root: &Path) -> Result<()> {
        self.entries.iter().try_for_each(|entry| {
            disk::make(root, entry).with_context(|| format!("cannot make `{}`", entry.path.display()))
        })
    }
}

fn add_line(entries: &mut Vec<Entry>, content: &str, is_member: bool) -> Result<()> {
    let entry = parse_entry(content)?;
    if !is_member {
        entries.push(entry);
        return Ok(());
    }
    match entries.last_mut() {
        Some(Entry { kind: Kind::Archive { members, .. }, .. }) => members.push(entry),
        Some(Entry { kind: Kind::Repository { events }, .. }) => events.push(entry),
        _ => bail!("an indented line needs a `tar` or `git` line above it"),
    }
    Ok(())
}

fn parse_entry(line: &str) -> Result<Entry> {
    let mut words = words::split(line)?.into_iter();
    let kind = words.next().context("the kind is missing")?;
    let path = words.next().context("the path is missing")?;
    let mut attributes = Attributes::default();
    for word in words {
        attributes.set(&word)?;
    }
    attributes.into_entry(&kind, path_from(path))
}

/// The `key=value` words of a line, before the kind says which of them it wants.
#[derive(Default)]
struct Attributes {
    mode: Option<u32>,
    owner: (u32, u32),
    content: Option<Content>,
    target: Option<PathBuf>,
    device: Option<Device>,
    codec: Option<Codec>,
    commit: Option<String>,
    mtime: Option<u32>,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Attributes {
    fn set(&mut self, word: &[u8]) -> Result<()> {
        let equals = word.iter().position(|byte| *byte == b'=').context("a word has no `=`")?;
        let (key, value) = (std::str::from_utf8(&word[..equals])?, &word[equals + 1..]);
        match key {
            "mode" => self.mode = Some(u32::from_str_radix(std::str::from_utf8(value)?, 8)?),
            "owner" => self.owner = pair(value)?,
            "content" => self.content = Some(Content::Bytes(value.to_vec())),
            "size" => self.content = Some(Content::Bytes(filler(std::str::from_utf8(value)?.parse()?))),
            "source" => self.content = Some(Content::Machine(path_from(value.to_vec()))),
            "to" => self.target = Some(path_from(value.to_vec())),
            "dev" => self.device = Some(pair(value).map(|(major, minor)| Device { major, minor })?),
            "codec" => self.codec = Some(std::str::from_utf8(value)?.parse()?),
            "commit" => self.commit = Some(String::from_utf8(value.to_vec())?),
            "mtime" => self.mtime = Some(std::str::from_utf8(value)?.parse()?),
            _ => match key.strip_prefix("xattr.") {
                Some(name) => self.xattrs.push((name.to_owned(), value.to_vec())),
                None => bail!("unknown key `{key}`"),
            },
        }
        Ok(())
    }

    fn into_entry(mut self, kind: &[u8], path: PathBuf) -> Result<Entry> {
        let kind = match kind {
            b"dir" => Kind::Directory,
            b"file" => Kind::File(self.content.take().unwrap_or(Content::Bytes(Vec::new()))),
            b"symlink" => Kind::Symlink(self.target.take().context("`to=` is missing")?),
            b"hardlink" => Kind::HardLink(self.target.take().context("`to=` is missing")?),
            b"fifo" => Kind::Fifo,
            b"socket" => Kind::Socket,
            b"char" => Kind::CharDevice(self.device.take().context("`dev=` is missing")?),
            b"block" => Kind::BlockDevice(self.device.take().context("`dev=` is missing")?),
            b"tar" => Kind::Archive { codec: self.codec.take().unwrap_or(Codec::None), members: Vec::new() },
            b"git" => Kind::Repository { events: Vec::new() },
            b"commit" => Kind::Event(Event::Commit),
            b"tag" => Kind::Event(Event::Tag),
            b"branch" => Kind::Event(Event::Branch),
            b"submodule" => Kind::Event(Event::Submodule {
                url: self.target.take().context("`to=` is missing")?,
                commit: self.commit.take().context("`commit=` is missing")?,
            }),
            _ => bail!("unknown kind `{}`", String::from_utf8_lossy(kind)),
        };
        let unused = self.content.is_some()
            || self.target.is_some()
            || self.device.is_some()
            || self.codec.is_some()
            || self.commit.is_some();
        ensure!(!unused, "a key does not belong to this kind");
        let default_mode = if matches!(kind, Kind::Directory) { 0o755 } else { 0o644 };
        let (uid, gid) = self.owner;
        let mode = self.mode.unwrap_or(default_mode);
        Ok(Entry { path, kind, mode, uid, gid, mtime: self.mtime, xattrs: self.xattrs })
    }
}

fn pair(value: &[u8]) -> Result<(u32, u32)> {
    let (left, right) =
        std::str::from_utf8(value)?.split_once(':').context("expected two numbers joined by `:`")?;
    Ok((left.parse()?, right.parse()?))
}

fn filler(size: usize) -> Vec<u8> {
    // 251 is prime: no block of the pattern equals its neighbour, so that a misplaced block shows in a digest.
    (0..251u8).cycle().take(size).collect()
}

fn path_from(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[track_caller]
    fn refused(text: &str) -> String {
        format!("{:#}", Manifest::parse(text).expect_err("the manifest is wrong"))
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number() {
        assert_eq!(refused("# x\nfile a\nfiel b"), "manifest line 3: `fiel b`: unknown kind `fiel`");
        assert_eq!(
            refused("dir a to=b"),
            "manifest line 1: `dir a to=b`: a key does not belong to this kind"
        );
        assert_eq!(
            refused("file a\n  file b"),
            "manifest line 2: `file b`: an indented line needs a `tar` or `git` line above it"
        );
        assert_eq!(refused("symlink a"), "manifest line 1: `symlink a`: `to=` is missing");
    }

    #[test]
    fn a_tree_has_what_its_manifest_says() {
        let root = tempfile::tempdir().unwrap();
        let text = concat!(
            "file deep/a mode=4750 content=\"x\\n\"\n",
            "hardlink b to=deep/a\n",
            "symlink l to=nowhere\n",
            "file \"odd\\xff name\" size=300\n",
            "fifo p mode=0600\nsocket s\n",
        );
        Manifest::parse(text).unwrap().materialise(root.path()).unwrap();
        let stat = |name: &[u8]| root.path().join(path_from(name.to_vec())).symlink_metadata().unwrap();
        assert_eq!(stat(b"deep/a").mode(), 0o104_750);
        assert_eq!(stat(b"deep").mode(), 0o040_755);
        assert_eq!(stat(b"b").ino(), stat(b"deep/a").ino());
        assert_eq!(std::fs::read_link(root.path().join("l")).unwrap(), Path::new("nowhere"));
        assert_eq!(stat(b"odd\xff name").size(), 300);
        assert_eq!(stat(b"p").mode(), 0o010_600);
        assert_eq!(stat(b"s").mode() & 0o170_000, 0o140_000);
    }

    #[test]
    fn archive_members_keep_their_odd_names() {
        let root = tempfile::tempdir().unwrap();
        let text =
            "tar t.tar\n  file ../up content=1\n  file /abs content=2\n  file x mode=2755 xattr.user.k=v\n";
        Manifest::parse(text).unwrap().materialise(root.path()).unwrap();
        let mut archive = tar::Archive::new(std::fs::File::open(root.path().join("t.tar")).unwrap());
        let mut members = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let extensions = entry.pax_extensions().unwrap().into_iter().flatten();
            let keys: Vec<String> =
                extensions.map(|extension| extension.unwrap().key().unwrap().to_owned()).collect();
            members.push((entry.path_bytes().into_owned(), entry.header().mode().unwrap(), keys));
        }
        assert_eq!(members[0], (b"../up".to_vec(), 0o644, vec![]));
        assert_eq!(members[1], (b"/abs".to_vec(), 0o644, vec![]));
        assert_eq!(members[2], (b"x".to_vec(), 0o2755, vec!["SCHILY.xattr.user.k".to_owned()]));
    }

    #[test]
    fn a_repository_is_the_same_commits_each_time() {
        if !crate::can_run("a_repository_is_the_same_commits_each_time", &[crate::Need::Program("git")]) {
            return;
        }
        let text = concat!(
            "git r.git\n  file a mode=0755 content=1\n  commit first\n  tag v1\n  branch side\n  file d/b content=2\n",
            "  submodule s to=../o.git commit=0123456789abcdef0123456789abcdef01234567\n  commit second\n",
        );
        let root = tempfile::tempdir().unwrap();
        Manifest::parse(text).unwrap().materialise(root.path()).unwrap();
        let refs = std::fs::read_to_string(root.path().join("r.git/packed-refs")).unwrap();
        let refs: Vec<&str> = refs.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            refs,
            [
                "c790b626f485a15bca9d22b37f0222b2104d5ebf refs/heads/main",
                "2a3c5ec3562ce2dd9b055fb791d2e45afb19c506 refs/heads/side",
                "c790b626f485a15bca9d22b37f0222b2104d5ebf refs/tags/v1",
            ]
        );
    }
}
