//! Layers of our own in each of their forms, and work that is ended early.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};

use image::export::{Destination, ExportError, Format, Part};
use image::import::{ImportError, ImportOptions};
use image::load::{LoadError, Source};
use image::{Error, Layers};
use layer::entries::{Entry, FileDigest, Kind};
use layer::pack::{Contents, FileDigests, Form, Packed, pack};
use oci::{Compression, DiffId};
use store::LayerDraft;
use sys::RootfsPath;
use sys::root::{Dir, Time};

use crate::archives::{named, save};
use crate::world::{ROOTFS, World, amd64, import, is_root, never, reference, tar};

/// Every file's content is its path, over and over.
struct Paths;

impl Contents for Paths {
    fn open(&self, _: usize, entry: &Entry) -> io::Result<Box<dyn Read + '_>> {
        let bytes: Vec<u8> = entry.path.as_bytes().to_vec();
        let size = usize::try_from(entry.size()).unwrap();
        Ok(Box::new(io::Cursor::new(bytes.into_iter().cycle().take(size).collect::<Vec<u8>>())))
    }
}

fn entries(size: u64) -> Vec<Entry> {
    let path = |text: &str| RootfsPath::parse(text).unwrap();
    let time = Time { seconds: 1_700_000_000, nanos: 5 };
    let file = |name: &str| {
        let kind = Kind::File { size, digest: FileDigest([0; 32]), member: 0 };
        Entry { kind, mode: 0o644, ..Entry::directory(path(name), time) }
    };
    let opaque = Entry { kind: Kind::Directory { opaque: true }, ..Entry::directory(path("d"), time) };
    let implied = Entry { implied: true, mode: 0o711, ..Entry::directory(path("usr"), time) };
    vec![opaque, file("d/a"), Entry::whiteout(path("gone")), implied, file("usr/b")]
}

fn packed(form: Form<'_>, size: u64) -> Packed {
    pack(entries(size), &Paths, FileDigests::Compute, form, 2, &never).unwrap()
}

/// Publishes the same layer, in the form that `fill` gives it.
fn publish(layers: &Layers<'_>, fill: impl Fn(&LayerDraft) -> Packed) -> (oci::LayerId, DiffId) {
    let draft = layers.lease().layer_draft().unwrap();
    let packed = fill(&draft);
    let layer = layers.publish(draft, &packed).unwrap();
    assert_eq!(layer.diff_id(), Some(&packed.diff_id));
    (layer.id().clone(), packed.diff_id)
}

fn with_tar(draft: &LayerDraft) -> Packed {
    packed(Form::Tar(File::create(draft.tar_path()).unwrap()), 3000)
}

fn with_tree(draft: &LayerDraft) -> Packed {
    packed(Form::Tree(&Dir::open(&draft.make_fs().unwrap()).unwrap()), 3000)
}

/// A layer's tar, as read.
fn tar_of(layers: &Layers<'_>, id: &oci::LayerId) -> Vec<u8> {
    let read = layers.read_tar(id, |tar| {
        let mut bytes = Vec::new();
        tar.read_to_end(&mut bytes).map(|_| bytes).map_err(|source| Error::Read { layer: id.clone(), source })
    });
    let read = read.unwrap();
    assert_eq!(DiffId::new(oci::Digest::of(&read.value)), read.diff_id);
    read.value
}

#[test]
fn a_layer_is_the_same_whichever_form_it_was_made_in() {
    if !is_root("a_layer_is_the_same_whichever_form_it_was_made_in") {
        return;
    }
    let (one, other) = (World::new(), World::new());
    let from_tar = one.run(|layers| {
        let (id, diff_id) = publish(layers, with_tar);
        // The tree is made of the tar, with what the tar does not say.
        let tree = layers.tree(&id).unwrap();
        let mode = std::os::unix::fs::MetadataExt::mode(&tree.join("usr").metadata().unwrap());
        assert_eq!(mode & 0o7777, 0o711);
        (id.clone(), diff_id, tar_of(layers, &id))
    });
    let from_tree = other.run(|layers| {
        let (id, diff_id) = publish(layers, with_tree);
        (id.clone(), diff_id, tar_of(layers, &id))
    });
    assert!(from_tar == from_tree);
    other.run(|layers| {
        // The form that was missing is added to the layer that is there.
        publish(layers, with_tar);
        let layer = layers.layer(&from_tree.0).unwrap();
        assert!(layer.fs_path().is_some() && layer.tar_path().is_some());
    });
    one.assert_clean();
    other.assert_clean();
}

#[test]
fn a_layer_without_content_needs_no_form() {
    if !is_root("a_layer_without_content_needs_no_form") {
        return;
    }
    let world = World::new();
    world.run(|layers| {
        let (id, _) = publish(layers, |_| packed(Form::DiffIdOnly, 0));
        assert!(!tar_of(layers, &id).is_empty());
        assert!(layers.tree(&id).unwrap().join("d/a").is_file());
    });
    world.assert_clean();
    let lost = World::new();
    lost.run(|layers| {
        let (id, _) = publish(layers, |_| packed(Form::DiffIdOnly, 1));
        assert!(matches!(layers.tree(&id), Err(Error::NoContents(_))));
    });
}

/// Asks to stop at each of the first questions in turn; whatever was not done then has left nothing.
#[track_caller]
fn check_cancelled(work: impl Fn(&World, &Layers<'_>) -> Result<(), bool>) {
    for patience in 0.. {
        let world = World::new();
        let before = world.contents();
        let asked = AtomicUsize::new(0);
        let cancelled = || asked.fetch_add(1, Ordering::SeqCst) >= patience;
        let lease = world.lease();
        let done = work(&world, &Layers::new(&lease, &cancelled));
        lease.close().unwrap();
        match done {
            Ok(()) => {
                assert!(patience > 0, "nobody asked");
                return;
            }
            Err(is_cancelled) => assert!(is_cancelled, "after {patience} questions: another error"),
        }
        assert_eq!(world.contents(), before, "after {patience} questions");
    }
}

#[test]
fn an_import_that_is_cancelled_leaves_nothing() {
    let bytes = tar("dir d\nfile d/a size=3000\nfile d/b size=3000");
    check_cancelled(|_, layers| {
        let platform = amd64();
        let tags = [reference("x")];
        let options =
            ImportOptions { tags: &tags, platform: &platform, created: None, message: String::new() };
        match image::import(layers, &bytes[..], &options) {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(matches!(error, ImportError::Image(error) if matches!(*error, Error::Cancelled)))
            }
        }
    });
}

#[test]
fn a_load_that_is_cancelled_leaves_nothing() {
    let source = World::new();
    let archive = source.run(|layers| {
        import(layers, &tar("dir d\nfile d/a size=3000"), "x");
        save(layers, &["x"], Format::Oci, Compression::Gzip)
    });
    check_cancelled(|_, layers| match image::load(layers, Source::Stream(&mut &archive[..]), &amd64(), 1) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error {
            LoadError::Image(error) => matches!(*error, Error::Cancelled),
            LoadError::Layer(image::ReceiveError::Image(error)) => matches!(*error, Error::Cancelled),
            _ => false,
        }),
    });
}

#[test]
fn an_export_that_is_cancelled_leaves_no_file() {
    if !is_root("an_export_that_is_cancelled_leaves_no_file") {
        return;
    }
    let world = World::new();
    world.run(|layers| import(layers, &tar(ROOTFS), "x"));
    let (images, ids) = world.run(|layers| {
        let named = named(layers, "x");
        (vec![named.clone()], named.images[0].layers.clone())
    });
    let out = world.path("out");
    std::fs::create_dir(&out).unwrap();
    type Work<'w> = Box<dyn Fn(&Layers<'_>) -> Result<(), ExportError> + 'w>;
    let archive: Work<'_> = Box::new(|layers| {
        let to = Destination::File(out.join("file"));
        image::export::archive(layers, &images, Format::Oci, Compression::None.into(), to).map(drop)
    });
    let tar: Work<'_> = Box::new(|layers| {
        image::export::rootfs_tar(
            layers,
            &[Part { below: RootfsPath::root(), layers: ids.clone() }],
            None,
            Destination::File(out.join("file")),
        )
    });
    let tree: Work<'_> = Box::new(|layers| image::export::rootfs_tree(layers, &ids, None, &out.join("tree")));
    for work in [archive, tar, tree] {
        let lease = world.lease();
        let error = work(&Layers::new(&lease, &|| true)).unwrap_err();
        assert!(matches!(error, ExportError::Image(error) if matches!(*error, Error::Cancelled)));
        lease.close().unwrap();
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0);
    }
}
