//! COPY and ADD: sources placed into a destination, as one layer.
//!
//! Nothing is mounted. Where a path lands, which directories it needs and whose attributes they have follows from the merged view of the
//! layers below; the result is an entry list, and its contents are packed straight into the form that is needed next: a tree
//! if something will mount it, else a tar, which is many times cheaper to write.
//!
//! Rules (spec of the reference builder's copy): a directory source gives its contents; a file goes into the destination if that is, or is
//! written as, a directory; an existing destination directory keeps its attributes, directories below it get the source's; a file replaces
//! a file or link, never a directory; links are followed in the destination as written and nowhere below it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use context::{Context, Node};
use layer::foreign::{self, Whiteouts};
use layer::merged::{Follow, Found, Merged};
use layer::pack::{Contents, FileDigests, Form, pack};
use layer::tar_read::Members;
use layer::unpack::unpack;
use layer::{Entry, FileDigest, Kind, Limits, Xattr, compress};
use oci::{Digest, LayerId};
use plan::{Archives, Copy, DestinationForm, InlineFile, Mode, Parents, Source, SourcePath, StepId};
use store::Layer;
use sys::RootfsPath;
use sys::directory::open_file_below;
use sys::root::{Dir, Time};

use crate::filesystem::Filesystem;
use crate::inputs::Prepared;
use crate::owner::{self, Ids};
use crate::select::select_in;
use crate::{Event, Services, StepError};

/// Which form the layer is made in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wanted {
    /// Something will mount it.
    Tree,
    /// Nothing will, as far as the plan says.
    Tar,
}

/// Bytes between two progress events.
const PROGRESS_BYTES: u64 = 4 << 20;

/// What a copy needs besides the plan.
pub(crate) struct CopyContext<'c> {
    pub(crate) step: StepId,
    pub(crate) services: &'c Services<'c>,
    /// The context files, if the source is a context.
    pub(crate) prepared: &'c Prepared,
    /// The source's filesystem, if it is a step.
    pub(crate) source: Option<Filesystem>,
    /// The source's name for messages.
    pub(crate) place: String,
    pub(crate) wanted: Wanted,
    pub(crate) time: Time,
    pub(crate) cancelled: &'c (dyn Fn() -> bool + Sync),
}

/// Makes the layer over `below`, which is empty for `--link`.
pub(crate) fn execute(
    copy: &Copy,
    below: &Filesystem,
    fetched: &BTreeMap<StepId, Filesystem>,
    context: &CopyContext<'_>,
) -> Result<Layer, StepError> {
    let services = context.services;
    let layers = below.ids();
    let merged = services.layers.merged(&layers)?;
    let owner =
        copy.owner.as_ref().map(|owner| owner::of_owner(owner, &layers, &merged, services)).transpose()?;
    let view = |filesystem: &Filesystem| View::new(filesystem, services);
    let source = context.source.as_ref().map(view).transpose()?;
    let fetched = fetched.iter().map(|(id, filesystem)| Ok((*id, view(filesystem)?)));
    let fetched = fetched.collect::<Result<BTreeMap<StepId, View>, StepError>>()?;
    let sources = sources(copy, context, source.as_ref(), &fetched)?;

    let mut layer = Placing {
        merged: &merged,
        owner,
        mode: copy.mode.as_ref(),
        time: context.time,
        times: if copy.time.is_some() { Times::OfStep } else { Times::OfSource },
        entries: BTreeMap::new(),
    };
    let destination = layer.destination(copy, &sources)?;
    for (number, mut source) in sources.into_iter().enumerate() {
        match archive_in(&mut source, context)? {
            Some(archive) => layer.unpack(&archive, &destination, services)?,
            None => layer.place_source(source, number, &destination)?,
        }
    }
    publish(layer.entries, context)
}

/// The layer of a bind mount of context files: the selection at the root, or a single file under its own name.
pub(crate) fn context_layer(
    index: usize,
    context: &CopyContext<'_>,
    name: &plan::ContextName,
) -> Result<Layer, StepError> {
    let merged = Merged::default();
    let mut layer = Placing::as_they_are(&merged, context.time);
    let files = &context.prepared.contexts[index];
    for source in context_sources(&files.selection, &context.services.contexts[name], Archives::Copied) {
        let destination = Landing { path: RootfsPath::root(), is_directory: true };
        layer.place_source(source, 0, &destination)?;
    }
    publish(layer.entries, context)
}

/// The layer of everything in a directory of the machine, owned by root.
pub(crate) fn directory_layer(path: &Path, context: &CopyContext<'_>) -> Result<Layer, StepError> {
    let directory = Context::open(path, context::Ignore::none(), None)?;
    let everything = context::Source {
        pattern: b"",
        excludes: &context::Ignore::none(),
        parents: context::Parents::Dropped,
    };
    let selection = directory.select(&everything)?;
    // Reads the files, whose digests the layer needs.
    selection.digest(context::Attributes::ALL)?;
    let merged = Merged::default();
    let mut layer = Placing::as_they_are(&merged, context.time);
    for source in context_sources(&selection, &directory, Archives::Copied) {
        layer.place_source(source, 0, &Landing { path: RootfsPath::root(), is_directory: true })?;
    }
    publish(layer.entries, context)
}

/// Writes what is below a path of a filesystem into an empty directory of the machine: how a cache mount begins.
pub(crate) fn write_tree(
    filesystem: &Filesystem,
    path: &RootfsPath,
    directory: &Path,
    services: &Services<'_>,
) -> Result<(), StepError> {
    let layers = filesystem.ids();
    let merged = services.layers.merged(&layers)?;
    let base = merged.resolve(path, Follow::Last)?.path;
    let empty = Merged::default();
    let mut layer = Placing::as_they_are(&empty, Time::default());
    let items = merged
        .below(&base)
        .into_iter()
        .filter_map(|(path, found)| Some(layer_item(&merged, &layers, found, path.below(&base)?)));
    let source = SourceFiles {
        name: path.to_string(),
        is_directory: true,
        archives: Archives::Copied,
        items: self::items(items),
    };
    layer.place_source(source, 0, &Landing { path: RootfsPath::root(), is_directory: true })?;
    let dir =
        Dir::open(directory).map_err(|source| StepError::Prepare { path: directory.to_owned(), source })?;
    let (list, contents) = split(layer.entries);
    let contents = CopyContents { contents, services, step: None, done: AtomicU64::new(0), total: 0 };
    pack(list, &contents, FileDigests::Known, Form::Tree(&dir), services.jobs.min(4), &|| false)?;
    Ok(())
}

/// One source: a file, or a directory with what is in it.
struct SourceFiles<'c> {
    name: String,
    is_directory: bool,
    /// What becomes of it if it is an archive.
    archives: Archives,
    items: Items<'c>,
}

/// Another step's filesystem, to take files from.
struct View {
    layers: Vec<LayerId>,
    merged: Merged,
}

impl View {
    fn new(filesystem: &Filesystem, services: &Services<'_>) -> Result<Self, StepError> {
        let layers = filesystem.ids();
        Ok(Self { merged: services.layers.merged(&layers)?, layers })
    }
}

/// The entries of a source in order, made one at a time: there may be many.
type Items<'c> = Peekable<Box<dyn Iterator<Item = Item<'c>> + 'c>>;

fn items<'c>(items: impl Iterator<Item = Item<'c>> + 'c) -> Items<'c> {
    (Box::new(items) as Box<dyn Iterator<Item = Item<'c>> + 'c>).peekable()
}

/// One entry of a source; its path is relative to the destination.
struct Item<'c> {
    entry: Entry,
    content: FileContent<'c>,
    /// Equal for names of one file.
    same_file: Option<(u64, u64)>,
}

/// Where a file's bytes are.
enum FileContent<'c> {
    None,
    Context(&'c Context, &'c Node),
    Layer { layers: &'c [LayerId], merged: &'c Merged, found: Found<'c> },
    Inline(&'c [u8]),
    Unpacked(std::sync::Arc<Dir>),
}

fn sources<'c>(
    copy: &'c Copy,
    context: &'c CopyContext<'_>,
    source: Option<&'c View>,
    fetched: &'c BTreeMap<StepId, View>,
) -> Result<Vec<SourceFiles<'c>>, StepError> {
    let mut sources = Vec::new();
    let mut of_context = context.prepared.contexts.iter();
    for path in &copy.paths {
        match (&path.fetched, &copy.from) {
            (Some(one), _) => {
                let view = &fetched[&one.step];
                sources.extend(step_sources(view, path, copy, one.archives, &context.place)?);
            }
            (None, Source::Context(name)) => {
                let files = of_context.next().expect("each path in a context was selected");
                let context = &context.services.contexts[name];
                sources.extend(context_sources(&files.selection, context, copy.archives));
            }
            (None, Source::Step(_)) => {
                let view = source.expect("the source's filesystem is known before the step begins");
                sources.extend(step_sources(view, path, copy, copy.archives, &context.place)?);
            }
        }
    }
    for file in &copy.inline {
        sources.push(inline_source(file, context.time)?);
    }
    Ok(sources)
}

fn step_sources<'c>(
    view: &'c View,
    path: &'c SourcePath,
    copy: &Copy,
    archives: Archives,
    place: &str,
) -> Result<impl Iterator<Item = SourceFiles<'c>> + use<'c>, StepError> {
    let matches = select_in(&view.merged, path, copy, place)?.matches;
    Ok(matches.into_iter().map(move |matched| {
        let found = matched.items.into_iter();
        let found = found.map(|item| layer_item(&view.merged, &view.layers, item.found, item.destination));
        let (name, is_directory) = (matched.name.to_string(), matched.is_directory);
        SourceFiles { name, is_directory, archives, items: items(found) }
    }))
}

fn context_sources<'c>(
    selection: &'c context::Selection,
    context: &'c Context,
    archives: Archives,
) -> impl Iterator<Item = SourceFiles<'c>> {
    selection.matches().iter().map(move |matched| SourceFiles {
        name: String::from_utf8_lossy(matched.name.as_bytes()).into_owned(),
        is_directory: matched.is_directory,
        archives,
        items: items(matched.entries().map(|entry| context_item(context, entry))),
    })
}

/// A context's file as it will be in the layer, owned by 0:0.
fn context_item<'c>(context: &'c Context, entry: context::Entry<'c>) -> Item<'c> {
    let node = entry.node;
    let mut content = FileContent::None;
    let mut mode = node.mode();
    let kind = match node.kind() {
        // As the reference builder has it: nobody listens on a socket in an image.
        context::Kind::Socket => {
            content = FileContent::Inline(&[]);
            Kind::File { size: 0, digest: file_digest(&[]), member: 0 }
        }
        context::Kind::Directory => Kind::Directory { opaque: false },
        context::Kind::File { size_bytes } => {
            content = FileContent::Context(context, node);
            let digest = FileDigest(node.digest().map(|digest| digest.0).unwrap_or_default());
            Kind::File { size: size_bytes, digest, member: 0 }
        }
        context::Kind::Symlink { target } => {
            mode = 0o777;
            Kind::Symlink { target: target.into() }
        }
        context::Kind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
        context::Kind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
        context::Kind::Fifo => Kind::Fifo,
    };
    let xattrs =
        node.xattrs().iter().map(|x| Xattr { name: x.name.clone(), value: x.value.clone() }).collect();
    let base = Entry::directory(entry.destination, node.modified());
    Item { entry: Entry { kind, mode, xattrs, ..base }, content, same_file: node.hard_link() }
}

/// A step's file as it will be in the layer; it keeps its owner.
fn layer_item<'c>(
    merged: &'c Merged,
    layers: &'c [LayerId],
    found: Found<'c>,
    destination: RootfsPath,
) -> Item<'c> {
    let source = merged.content_of(found);
    let mut entry = Entry { path: destination, implied: false, ..source.entry.clone() };
    if let Kind::Directory { opaque } = &mut entry.kind {
        *opaque = false;
    }
    let is_file = matches!(entry.kind, Kind::File { .. });
    let content =
        if is_file { FileContent::Layer { layers, merged, found: source } } else { FileContent::None };
    let name = Digest::of(source.entry.path.as_bytes());
    let inode =
        u64::from_le_bytes(name.as_bytes()[..8].try_into().expect("a digest has more than eight bytes"));
    Item { entry, content, same_file: is_file.then_some((source.layer as u64, inode)) }
}

fn file_digest(content: &[u8]) -> FileDigest {
    match Digest::of(content) {
        Digest::Sha256(bytes) => FileDigest(bytes),
        Digest::Sha512(_) => unreachable!("Digest::of makes sha256 digests"),
    }
}

fn inline_source(file: &InlineFile, time: Time) -> Result<SourceFiles<'_>, StepError> {
    let digest = file_digest(file.content.as_bytes());
    let kind = Kind::File { size: file.content.len() as u64, digest, member: 0 };
    let entry = Entry { kind, mode: 0o644, ..Entry::directory(RootfsPath::parse(&file.name)?, time) };
    let content = FileContent::Inline(file.content.as_bytes());
    let items = items(std::iter::once(Item { entry, content, same_file: None }));
    let name = format!("<<{}", file.name);
    Ok(SourceFiles { name, is_directory: false, archives: Archives::Copied, items })
}

/// Where a copy lands: links in the destination's own path are followed already.
struct Landing {
    path: RootfsPath,
    is_directory: bool,
}

/// The layer as it is put together.
struct Placing<'c> {
    merged: &'c Merged,
    owner: Option<Ids>,
    mode: Option<&'c Mode>,
    /// What is new was made then.
    time: Time,
    times: Times,
    /// Boxed, since half of a tree's places are empty when it was filled in order.
    entries: BTreeMap<RootfsPath, Box<Placed<'c>>>,
}

/// When copied files were last modified.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Times {
    /// As their source says.
    OfSource,
    /// All at [`Placing::time`].
    OfStep,
}

struct Placed<'c> {
    entry: Entry,
    content: FileContent<'c>,
    same_file: Option<(usize, u64, u64)>,
}

impl<'c> Placing<'c> {
    /// Nothing of the sources is changed.
    fn as_they_are(merged: &'c Merged, time: Time) -> Self {
        let (owner, mode, times) = (None, None, Times::OfSource);
        Self { merged, owner, mode, time, times, entries: BTreeMap::new() }
    }

    fn destination(&self, copy: &Copy, sources: &[SourceFiles<'_>]) -> Result<Landing, StepError> {
        let written = RootfsPath::parse(copy.destination.path.as_str())?;
        let followed = self.merged.resolve(&written, Follow::Last)?;
        let is_directory = written.is_root()
            || followed.found.is_some_and(|found| found.entry.is_directory())
            || copy.destination.form == DestinationForm::Directory
            || copy.parents == Parents::Kept
            || sources.iter().any(|source| source.is_directory);
        // Several files under one name: the last would win without a word.
        if !is_directory && (sources.len() > 1 || copy.destination.form == DestinationForm::ExistingDirectory)
        {
            return Err(StepError::ManyOntoOne { target: followed.path, count: sources.len() });
        }
        Ok(Landing { path: followed.path, is_directory })
    }

    fn place_source(
        &mut self,
        source: SourceFiles<'c>,
        number: usize,
        landing: &Landing,
    ) -> Result<(), StepError> {
        for item in source.items {
            let goes_inside = source.is_directory || landing.is_directory;
            let path = if goes_inside { landing.path.join(&item.entry.path)? } else { landing.path.clone() };
            if path.is_root() {
                continue;
            }
            let is_top = item.entry.path.is_root();
            self.place(item, path, number, is_top, &source.name)?;
        }
        Ok(())
    }

    fn place(
        &mut self,
        item: Item<'c>,
        path: RootfsPath,
        number: usize,
        is_top: bool,
        source: &str,
    ) -> Result<(), StepError> {
        self.make_parents(&path)?;
        let is_directory = item.entry.is_directory();
        let existing = self.existing(&path);
        match &existing {
            Some(old) if is_directory && !old.is_directory() => {
                let what = if matches!(old.kind, Kind::Symlink { .. }) {
                    "a symbolic link"
                } else {
                    "not a directory"
                };
                return Err(StepError::OntoNonDirectory { from: source.to_owned(), target: path, what });
            }
            Some(old) if !is_directory && old.is_directory() => {
                return Err(StepError::OntoDirectory { from: source.to_owned(), target: path });
            }
            // The destination itself never takes the source's attributes: it keeps its own, or is made like any missing parent.
            _ if is_top && is_directory => return self.make_directory(path),
            _ => {}
        }
        let mut entry = Entry { path: path.clone(), ..item.entry };
        if self.times == Times::OfStep {
            entry.mtime = self.time;
        }
        self.set_owner(&mut entry);
        self.set_mode(&mut entry);
        let same_file = item.same_file.map(|(a, b)| (number, a, b));
        self.entries.insert(path, Box::new(Placed { entry, content: item.content, same_file }));
        Ok(())
    }

    /// What is at a path by now.
    fn existing(&self, path: &RootfsPath) -> Option<Entry> {
        match self.entries.get(path) {
            Some(placed) => Some(placed.entry.clone()),
            None => self.merged.lookup(path).map(|found| found.entry.clone()),
        }
    }

    /// Makes sure that every directory above a path is part of the layer: as it is below, or new.
    fn make_parents(&mut self, path: &RootfsPath) -> Result<(), StepError> {
        let missing = path.ancestors().filter(|parent| !parent.is_root());
        missing.into_iter().try_for_each(|parent| self.make_directory(parent))
    }

    /// Makes sure that a directory, whose parents are there, is part of the layer.
    fn make_directory(&mut self, path: RootfsPath) -> Result<(), StepError> {
        let not_a_directory = |path| Err(layer::merged::ResolveError::NotADirectory(path).into());
        if let Some(placed) = self.entries.get(&path) {
            return if placed.entry.is_directory() { Ok(()) } else { not_a_directory(path) };
        }
        let entry = match self.merged.lookup(&path) {
            Some(found) if found.entry.is_directory() => {
                Entry { implied: true, kind: Kind::Directory { opaque: false }, ..found.entry.clone() }
            }
            Some(_) => return not_a_directory(path),
            None => self.new_directory(path.clone()),
        };
        self.entries.insert(path, Box::new(Placed { entry, content: FileContent::None, same_file: None }));
        Ok(())
    }

    /// A directory that no source brings: 0755, or the octal `--chmod` as mkdir(2) under umask 022 takes it, owned as `--chown` says.
    fn new_directory(&self, path: RootfsPath) -> Entry {
        let mut entry = Entry::directory(path, self.time);
        self.set_owner(&mut entry);
        if let Some(Mode::Octal(mode)) = self.mode {
            entry.mode = mode & 0o777 & !0o022;
        }
        entry
    }

    fn set_owner(&self, entry: &mut Entry) {
        if let Some(Ids { uid, gid }) = self.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
    }

    fn set_mode(&self, entry: &mut Entry) {
        let kind = match entry.kind {
            Kind::Symlink { .. } => return,
            Kind::Directory { .. } => plan::EntryKind::Directory,
            _ => plan::EntryKind::File,
        };
        if let Some(mode) = self.mode {
            entry.mode = mode.apply(entry.mode, kind);
        }
    }

    /// Unpacks an archive below the destination. Its members keep their modes; `--chown` applies.
    fn unpack(
        &mut self,
        archive: &Archive,
        landing: &Landing,
        services: &Services<'_>,
    ) -> Result<(), StepError> {
        let failed = |source| StepError::Archive { path: archive.name.clone(), source };
        let wrong = |error: io::Error| failed(foreign::ForeignError::Tar(error.into()));
        let lower = self.view();
        let file = archive.open().map_err(wrong)?;
        let read = foreign::read_into(file, &landing.path, &lower, Whiteouts::Refused, &Limits::STANDARD);
        let entries = read.map_err(failed)?.entries;
        let scratch = services.lease.scratch_dir()?;
        let dir =
            Dir::open(&scratch).map_err(|source| StepError::Prepare { path: scratch.clone(), source })?;
        let tar = compress::unpacked(archive.open().map_err(wrong)?, &Limits::STANDARD).map_err(wrong)?;
        unpack(tar, &entries, &dir)?;
        let dir = std::sync::Arc::new(dir);
        for entry in entries.as_slice().iter().filter(|entry| !entry.path.is_root()) {
            if entry.implied && self.entries.contains_key(&entry.path) {
                continue;
            }
            let mut entry = entry.clone();
            if !entry.implied {
                self.set_owner(&mut entry);
            }
            let is_file = matches!(entry.kind, Kind::File { .. });
            let content = if is_file { FileContent::Unpacked(dir.clone()) } else { FileContent::None };
            self.entries.insert(entry.path.clone(), Box::new(Placed { entry, content, same_file: None }));
        }
        Ok(())
    }

    /// The layers below with what was placed so far.
    fn view(&self) -> Merged {
        self.merged.with(self.entries.values().map(|placed| placed.entry.clone()).collect())
    }
}

/// A file of a source that ADD unpacks.
struct Archive {
    name: String,
    file: File,
}

impl Archive {
    /// The file from its start: it is read twice.
    fn open(&self) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        Ok(file)
    }
}

/// The archive that a source is, if it is one that is to be unpacked.
fn archive_in(source: &mut SourceFiles<'_>, context: &CopyContext<'_>) -> Result<Option<Archive>, StepError> {
    if source.archives == Archives::Copied || source.is_directory {
        return Ok(None);
    }
    let Some(item) = source.items.peek() else { return Ok(None) };
    let name = source.name.clone();
    let file = match &item.content {
        FileContent::Context(context, node) => context.open_file(node)?.file,
        FileContent::Layer { layers, merged, found } => {
            context.services.layers.open_file(layers, merged, *found)?
        }
        _ => return Ok(None),
    };
    let archive = Archive { name, file };
    let is_tar =
        archive.open().and_then(|file| compress::unpacked(file, &Limits::STANDARD)).is_ok_and(|unpacked| {
            Members::new(unpacked, &Limits::STANDARD).next_member().is_ok_and(|member| member.is_some())
        });
    Ok(is_tar.then_some(archive))
}

/// Separates the entry list from where the contents are.
fn split(placed: BTreeMap<RootfsPath, Box<Placed<'_>>>) -> (Vec<Entry>, Vec<FileContent<'_>>) {
    let mut first: HashMap<(usize, u64, u64), RootfsPath> = HashMap::new();
    placed
        .into_values()
        .map(|placed| {
            let Placed { mut entry, content, same_file } = *placed;
            match same_file.map(|file| (first.get(&file).cloned(), file)) {
                Some((Some(target), _)) => {
                    entry.kind = Kind::HardLink { target };
                    return (entry, FileContent::None);
                }
                Some((None, file)) => drop(first.insert(file, entry.path.clone())),
                None => {}
            }
            (entry, content)
        })
        .unzip()
}

fn publish(
    entries: BTreeMap<RootfsPath, Box<Placed<'_>>>,
    context: &CopyContext<'_>,
) -> Result<Layer, StepError> {
    let services = context.services;
    let (list, contents) = split(entries);
    let total = list.iter().map(Entry::size).sum();
    let contents =
        CopyContents { contents, services, step: Some(context.step), done: AtomicU64::new(0), total };
    let draft = services.lease.layer_draft()?;
    let threads = services.jobs.min(4);
    let failed = |path: PathBuf| move |source| StepError::Prepare { path, source };
    let packed = match context.wanted {
        Wanted::Tree => {
            let tree = draft.make_fs()?;
            let dir = Dir::open(&tree).map_err(failed(tree))?;
            pack(list, &contents, FileDigests::Known, Form::Tree(&dir), threads, context.cancelled)?
        }
        Wanted::Tar => {
            let path = draft.tar_path();
            let file = File::create_new(&path).map_err(failed(path))?;
            pack(list, &contents, FileDigests::Known, Form::Tar(file), threads, context.cancelled)?
        }
    };
    Ok(services.layers.publish(draft, &packed)?)
}

/// Opens contents for packing, and says how far it is.
struct CopyContents<'c> {
    contents: Vec<FileContent<'c>>,
    services: &'c Services<'c>,
    step: Option<StepId>,
    done: AtomicU64,
    total: u64,
}

impl Contents for CopyContents<'_> {
    fn open(&self, index: usize, entry: &Entry) -> io::Result<Box<dyn Read + '_>> {
        self.advance(entry.size());
        Ok(match &self.contents[index] {
            FileContent::None => return Err(io::ErrorKind::NotFound.into()),
            FileContent::Context(context, node) => {
                Box::new(context.open_file(node).map_err(io::Error::other)?)
            }
            FileContent::Layer { layers, merged, found } => {
                Box::new(self.services.layers.open_file(layers, merged, *found).map_err(io::Error::other)?)
            }
            FileContent::Inline(bytes) => Box::new(*bytes),
            FileContent::Unpacked(dir) => Box::new(open_file_below(dir.as_ref(), &entry.path)?),
        })
    }
}

impl CopyContents<'_> {
    fn advance(&self, bytes: u64) {
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        let Some(step) = self.step else { return };
        if before / PROGRESS_BYTES != (before + bytes) / PROGRESS_BYTES {
            (self.services.events)(Event::Progress { step, bytes: before + bytes, total_bytes: self.total });
        }
    }
}
