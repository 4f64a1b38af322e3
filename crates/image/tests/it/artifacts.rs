//! Artifacts in OCI layouts and in a registry in this process, and directories in them.

use std::fs;
use std::path::{Path, PathBuf};

use image::artifact::directory::{Before, chunk, restore};
use image::artifact::{ArtifactError, Kind, Options, Part, Place, Stored, receive};
use image::{Layers, ReceiveError};
use layer::compress::compress;
use oci::{Compression, Descriptor, DiffId, Digest, MediaType};
use serde_json::{Value, json};
use testkit::registry::Registry;

use crate::pulls::client;
use crate::world::{World, reference, tar};

const KIND: Kind<'_> = Kind { artifact: "a/test", document: "a/document+zstd", annotation: "a.document" };
const PACK: &str = "a/pack";
const OPTIONS: Options<'_> = Options { transfers: 2, progress: &|_| {} };

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    compress(bytes, Compression::Zstd, &mut packed).unwrap();
    packed
}

fn bytes(media_type: &str, bytes: &[u8]) -> Part<'static> {
    Part::Bytes { media_type: MediaType::from(media_type), bytes: bytes.to_vec() }
}

/// Stores parts with a document that says nothing.
fn store(layers: &Layers<'_>, place: Place<'_>, parts: &[Part<'_>]) -> Result<Stored, ArtifactError> {
    place.store(layers, KIND, parts, &|_| b"document".to_vec(), 2)
}

fn blobs(place: Place<'_>) -> Vec<Descriptor> {
    place.load(KIND, &[]).unwrap().remove(0).blobs
}

/// Stores a directory under `before`'s name; gives how many bytes of packs were new.
fn store_directory(layers: &Layers<'_>, place: Place<'_>, directory: &Path) -> u64 {
    let known = place.load(KIND, &[]).ok().map(|mut loaded| loaded.remove(0).blobs);
    let before = known.map(|blobs| Before::load(place, &blobs[0], &blobs).unwrap());
    let chunked = chunk(layers, directory, before.as_ref(), &MediaType::from(PACK)).unwrap();
    let new = |part: &Part<'_>| if let Part::File { size, .. } = part { *size } else { 0 };
    let sent = chunked.packs.iter().map(new).sum();
    let parts: Vec<Part<'_>> =
        std::iter::once(bytes("a/list", &chunked.document)).chain(chunked.packs).collect();
    store(layers, place, &parts).unwrap();
    sent
}

/// Bytes without any order, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn directory(world: &World, files: &[(&str, Vec<u8>)]) -> PathBuf {
    let path = world.path("directory");
    fs::create_dir_all(&path).unwrap();
    for (name, content) in files {
        fs::write(path.join(name), content).unwrap();
    }
    path
}

#[test]
fn what_is_stored_is_loaded_from_layouts_and_registries() {
    let world = World::new();
    let registry = Registry::start();
    let (client, name) = (client(), reference(&registry.reference("cache:1")));
    let layout = world.path("layout");
    let places = [
        Place::Registry { client: &client, reference: &name },
        Place::Layout { directory: &layout, tag: "x" },
    ];
    for place in places {
        assert!(matches!(place.load(KIND, &[]), Err(ArtifactError::Missing)));
        world.run(|layers| {
            assert_eq!(store(layers, place, &[]).unwrap().sent, 2, "the document, and something empty");
            let parts = [bytes("a/b", b"one"), bytes("a/c", b"two")];
            let sent = |stored: Stored| (stored.sent, stored.sent_bytes);
            assert_eq!(sent(store(layers, place, &parts).unwrap()), (2, 6));
            assert_eq!(sent(store(layers, place, &parts).unwrap()), (0, 0));
        });
        let mut loaded = place.load(KIND, &[]).unwrap();
        let loaded = loaded.remove(0);
        assert_eq!(loaded.document, b"document");
        let mut two = String::new();
        place.open(&loaded.blobs[1]).unwrap().read_to_string(&mut two).unwrap();
        assert_eq!((loaded.blobs.len(), two.as_str()), (2, "two"));
        let other = Kind { document: "another", ..KIND };
        assert!(matches!(place.load(other, &[]), Err(ArtifactError::OtherKind { .. })));
    }
}

#[test]
fn blobs_go_from_place_to_place_and_lost_ones_are_left_out() {
    let world = World::new();
    let (from, to) = (world.path("from"), world.path("to"));
    let from = Place::Layout { directory: &from, tag: "x" };
    let to = Place::Layout { directory: &to, tag: "x" };
    world.run(|layers| {
        store(layers, from, &[bytes("a/b", b"one"), bytes("a/b", b"two")]).unwrap();
        let blobs = blobs(from);
        let of = |blob: &Descriptor| Part::Of { place: from, blob: Box::new(blob.clone()) };
        let lost = Descriptor::new(MediaType::from("a/b"), 5, &Digest::of("lost!"));
        let parts = [of(&lost), of(&blobs[1]), of(&blobs[0])];
        let told = std::sync::Mutex::new(Vec::new());
        let document = |positions: &[Option<usize>]| {
            *told.lock().unwrap() = positions.to_vec();
            Vec::new()
        };
        to.store(layers, KIND, &parts, &document, 2).unwrap();
        assert_eq!(told.into_inner().unwrap(), [None, Some(0), Some(1)]);
    });
    assert_eq!(blobs(to).iter().map(Descriptor::size).collect::<Vec<_>>(), [3, 3]);
}

#[test]
fn a_layer_that_is_not_what_is_said_of_it_is_refused() {
    let world = World::new();
    let layout = world.path("layout");
    let place = Place::Layout { directory: &layout, tag: "x" };
    let layer = tar("file a content=a");
    let (own, gzip) = (DiffId::new(Digest::of(&layer)), MediaType::ImageLayer.to_string());
    world.run(|layers| {
        store(layers, place, &[bytes(&gzip, &layer), bytes("a/b", &layer), bytes(&gzip, b"no tar at all")])
            .unwrap();
        let blobs = blobs(place);
        let other = DiffId::new(Digest::of("other"));
        let wrong = receive(layers, &place, &[], &[(other.clone(), blobs[0].clone())], OPTIONS).unwrap_err();
        assert!(matches!(wrong, ReceiveError::WrongDiffId { .. }), "{wrong:?}");
        for blob in [&blobs[1], &blobs[2]] {
            receive(layers, &place, &[], &[(own.clone(), blob.clone())], OPTIONS).unwrap_err();
        }
        let absent = Descriptor::new(MediaType::ImageLayer, 9, &Digest::of("absent"));
        receive(layers, &place, &[], &[(other, absent)], OPTIONS).unwrap_err();
        assert_eq!(layers.lease().store().layer_ids().unwrap(), []);
        assert_eq!(receive(layers, &place, &[], &[(own, blobs[0].clone())], OPTIONS).unwrap().len(), 1);
    });
    world.assert_clean();
}

#[test]
fn a_directory_of_almost_the_same_content_sends_almost_nothing() {
    let world = World::new();
    let layout = world.path("layout");
    let place = Place::Layout { directory: &layout, tag: "x" };
    let (large, later) = (noise(1, 6 << 20), noise(2, 6 << 20));
    let path = directory(&world, &[("large", large.clone()), ("later", later)]);
    let send = || world.run(|layers| store_directory(layers, place, &path));
    assert!(send() > 12 << 20);
    assert!(blobs(place).len() <= 6, "few blobs");
    assert_eq!(send(), 0);
    // In the midst of it, and with all behind it elsewhere.
    let mut changed = large.clone();
    changed.splice(3 << 20..3 << 20, *b"something new");
    directory(&world, &[("large", changed), ("a", b"first".to_vec())]);
    let sent = send();
    assert!(sent < 1 << 20, "{sent} bytes");
    let into = world.path("into");
    fs::create_dir(&into).unwrap();
    let list = &blobs(place)[0];
    world.run(|layers| restore(layers, &place, list, &into, 2)).unwrap();
    for name in ["a", "large", "later"] {
        assert!(fs::read(into.join(name)).unwrap() == fs::read(path.join(name)).unwrap(), "{name}");
    }
    // Packs that are mostly waste by now do not stay.
    fs::write(path.join("later"), b"").unwrap();
    send();
    send();
    let left: u64 = blobs(place).iter().map(Descriptor::size).sum();
    assert!(left < 10 << 20, "{left} bytes");
}

#[test]
fn small_packs_become_large_ones() {
    let world = World::new();
    let layout = world.path("layout");
    let place = Place::Layout { directory: &layout, tag: "x" };
    let mut most = 0;
    for number in 0..40_u8 {
        let path = directory(&world, &[(&format!("f{number:02}"), noise(number.into(), 200_000))]);
        world.run(|layers| store_directory(layers, place, &path));
        most = most.max(blobs(place).len());
    }
    assert!(most <= 22, "{most} blobs");
}

#[test]
fn a_directory_that_nobody_would_make_is_refused() {
    let world = World::new();
    let layout = world.path("layout");
    let place = Place::Layout { directory: &layout, tag: "x" };
    let inner = tar("file a content=a");
    let (good, escaping) = (zstd(&inner), zstd(&tar("file ../a content=a")));
    let (whiteout, text) = (zstd(&tar("file .wh.a")), zstd(b"no tar"));
    let packs = [good.clone(), zstd(&vec![0; 4 << 20]), escaping, whiteout, text, b"not compressed".to_vec()];
    let pack = |bytes: &[u8]| json!([Digest::of(bytes), bytes.len()]);
    let with =
        |tar: &Value, packs: &Value, chunks: &Value| json!({ "tar": tar, "packs": packs, "chunks": chunks });
    let own = json!(Digest::of(&inner));
    let chunk = |pack: usize, offset: u64, length: u64| json!([[pack, offset, length, Digest::of("x")]]);
    let whole = good.len() as u64;
    // A little that gives a terabyte.
    let zeros = zstd(&vec![0; 4 << 20]);
    let bomb = json!(vec![json!([0, 0, zeros.len(), Digest::of("x")]); 250_000]);
    let mut documents = vec![
        with(&own, &json!([pack(&good)]), &chunk(0, 0, whole)),
        with(&own, &json!([pack(&zeros)]), &bomb),
        with(&own, &json!([pack(&good)]), &chunk(1, 0, whole)),
        with(&own, &json!([pack(&good)]), &chunk(0, 1, whole)),
        with(&own, &json!([pack(&good)]), &chunk(0, u64::MAX, 2)),
        with(&own, &json!([pack(&good)]), &chunk(0, 0, 0)),
        with(&own, &json!([pack(&good)]), &json!([])),
        with(&own, &json!([[Digest::of(&good), 1_u64 << 40]]), &chunk(0, 0, whole)),
        with(&own, &json!([[Digest::of("absent"), 6]]), &chunk(0, 0, 6)),
        with(&own, &json!([pack(&good), pack(&good)]), &chunk(0, 0, whole)),
        with(&Value::Null, &json!([pack(&good)]), &chunk(0, 0, whole)),
        with(&json!(Digest::of("other")), &json!([pack(&good)]), &chunk(0, 0, whole)),
        json!([]),
        json!({ "chunks": 7 }),
    ];
    for packed in &packs[2..] {
        documents.push(with(&own, &json!([pack(packed)]), &chunk(0, 0, packed.len() as u64)));
    }
    for (number, document) in documents.iter().enumerate() {
        let into = world.path(&format!("into-{number}"));
        fs::create_dir(&into).unwrap();
        world.run(|layers| {
            let parts = packs.iter().map(|pack| bytes(PACK, pack));
            let parts: Vec<_> = std::iter::once(bytes("a/list", &zstd(document.to_string().as_bytes())))
                .chain(parts)
                .collect();
            store(layers, place, &parts).unwrap();
            let list = &blobs(place)[0];
            let restored = restore(layers, &place, list, &into, 2);
            assert_eq!(restored.is_ok(), number == 0, "{document}: {restored:?}");
        });
    }
    assert_eq!(fs::read(world.path("into-0").join("a")).unwrap(), b"a");
    assert!(!world.path("a").exists());
}

#[test]
fn an_image_of_the_same_name_in_a_layout_stays() {
    let world = World::new();
    let layout = world.path("layout");
    let (place, other) =
        (Place::Layout { directory: &layout, tag: "x" }, Kind { artifact: "a/other", ..KIND });
    let files = || fs::read_dir(layout.join("blobs/sha256")).unwrap().count();
    world.run(|layers| {
        place.store(layers, other, &[bytes("a/b", b"other")], &|_| b"another".to_vec(), 1).unwrap();
        let before = files();
        store(layers, place, &[bytes("a/b", b"one")]).unwrap();
        let stored = store(layers, place, &[bytes("a/b", b"two")]).unwrap();
        place.remove_unused(&stored);
        assert_eq!(files(), before + 3, "what it needs stays, and of ours only the last");
    });
    for (kind, document) in [(KIND, "document"), (other, "another")] {
        assert_eq!(place.load(kind, &[]).unwrap()[0].document, document.as_bytes());
    }
}

#[test]
fn a_layout_that_is_none_is_refused_and_stays_as_it_is() {
    let world = World::new();
    let layout = world.path("layout");
    let place = Place::Layout { directory: &layout, tag: "x" };
    world.run(|layers| store(layers, place, &[bytes("a/b", b"one")]).unwrap());
    let index = layout.join("index.json");
    for text in ["[]", "7", "", "{", r#""text""#] {
        fs::write(&index, text).unwrap();
        place.load(KIND, &[]).unwrap_err();
        world.run(|layers| store(layers, place, &[bytes("a/b", b"two")]).unwrap_err());
        assert_eq!(fs::read_to_string(&index).unwrap(), text);
    }
    // These are layouts in which nothing of the name is, or nothing that can be read.
    for text in ["{}", r#"{"manifests":7}"#, r#"{"manifests":[7,{},{"annotations":7},{"digest":"x"}]}"#] {
        fs::write(&index, text).unwrap();
        assert!(matches!(place.load(KIND, &[]), Err(ArtifactError::Missing)), "{text}");
        world.run(|layers| store(layers, place, &[bytes("a/b", b"two")]).unwrap());
        assert_eq!(blobs(place).len(), 1);
    }
}
