//! What the stat cache remembers, and that it never remembers wrongly.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Barrier;

use context::{Attributes, Context, Ignore, SelectionDigest};
use sys::xattr;

use crate::world::{World, edit_unnoticeably, select};

#[test]
fn what_did_not_change_is_not_read_again() {
    let world = World::new(&["a/b", "c", "link -> c"]);
    let (first, unread) = world.build();
    assert_eq!(unread, 5);
    world.settle();
    assert_eq!(world.build(), (first, 0));
    fs::write(world.path("a/b"), "x").unwrap();
    let (changed, unread) = world.build();
    assert_eq!(unread, 1);
    assert_ne!(changed, first);
}

#[test]
fn an_edit_of_equal_size_with_restored_time_is_seen() {
    let world = World::new(&["file"]);
    world.settle();
    let (before, _) = world.build();
    edit_unnoticeably(&world.path("file"), b"FILE").unwrap();
    let (after, unread) = world.build();
    assert_eq!(unread, 1);
    assert_ne!(before, after);
}

#[test]
fn an_edit_in_the_same_tick_is_seen() {
    let world = World::new(&["file"]);
    let expected = [b"AAAA", b"BBBB"].map(|bytes| {
        fs::write(world.path("file"), bytes).unwrap();
        world.digest()
    });
    // Many ticks fall between edit and build, and some edits within the tick of the build before them: those are the test.
    for round in 0..400 {
        edit_unnoticeably(&world.path("file"), b"AAAA").unwrap();
        assert_eq!(world.build().0, expected[0], "round {round}");
        edit_unnoticeably(&world.path("file"), b"BBBB").unwrap();
        assert_eq!(world.build().0, expected[1], "round {round}");
    }
}

#[test]
fn a_writer_beside_us_leaves_nothing_wrong_behind() {
    let world = World::new(&["file"]);
    let expected = [b"AAAA", b"BBBB"].map(|bytes| {
        fs::write(world.path("file"), bytes).unwrap();
        world.digest()
    });
    for round in 0..100 {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for bytes in [b"AAAA", b"BBBB", b"AAAA", b"BBBB"] {
                    // In place, so that the inode stays the same.
                    let file = fs::File::options().write(true).open(world.path("file")).unwrap();
                    std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).unwrap();
                }
            });
            for _ in 0..4 {
                let context = world.context();
                // It may never hold still; but what is said of it must be true.
                if select(&context, ".").unwrap().digest(Attributes::ALL).is_ok() {
                    context.save().unwrap();
                }
            }
        });
        assert_eq!(world.build().0, expected[1], "round {round}");
    }
}

#[test]
fn changed_links_modes_and_attributes_are_seen() {
    let world = World::new(&["file", "other", "link -> file"]);
    world.settle();
    let (before, _) = world.build();
    fs::remove_file(world.path("link")).unwrap();
    world.add("link -> other");
    let (relinked, _) = world.build();
    assert_ne!(relinked, before);
    world.settle();
    let file = fs::File::open(world.path("file")).unwrap();
    xattr::set(&file, "user.probe".as_ref(), b"1").unwrap();
    let (marked, unread) = world.build();
    assert_eq!(unread, 1);
    assert_ne!(marked, relinked);
    world.settle();
    assert_eq!(world.build(), (marked, 0), "attributes come from the cache too");
}

#[test]
fn it_is_written_only_when_there_is_something_to_remember() {
    let world = World::new(&["file"]);
    world.settle();
    let inode = || fs::metadata(world.cache()).unwrap().ino();
    let before = inode();
    world.build();
    assert_eq!(inode(), before);
    assert_eq!(fs::read_dir(world.store.path()).unwrap().count(), 1, "nothing else is written");
    world.add("new");
    world.settle();
    assert_ne!(inode(), before);
    assert_eq!(fs::read_dir(world.store.path()).unwrap().count(), 1);
}

/// Builds with a stat cache of these bytes, which must change no result and be remembered anew; how many files were forgotten.
#[track_caller]
fn forgotten(world: &World, digest: SelectionDigest, cache: &[u8]) -> usize {
    fs::write(world.cache(), cache).unwrap();
    let (found, unread) = world.build();
    assert_eq!(found, digest);
    assert_eq!(world.build(), (digest, 0));
    unread
}

#[test]
fn what_is_damaged_is_read_anew_and_remembered_again() {
    let world = World::new(&["a/b", "c"]);
    world.settle();
    let (digest, _) = world.build();
    let bytes = fs::read(world.cache()).unwrap();
    let flipped = (0..bytes.len()).map(|at| {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        forgotten(&world, digest, &damaged)
    });
    // What is in `a`, what is in the root with the root, and everything if the index is damaged.
    assert_eq!(flipped.collect::<BTreeSet<_>>(), BTreeSet::from([1, 3, 4]));
    for length in 0..bytes.len() {
        assert_eq!(forgotten(&world, digest, &bytes[..length]), 4);
    }
    assert_eq!(forgotten(&world, digest, &vec![0; bytes.len()]), 4);
}

#[test]
fn damage_in_a_part_that_is_not_looked_at_is_not_passed_on() {
    let world = World::new(&["a/1", "b/2", "b/3", "c"]);
    world.settle();
    let (digest, _) = world.build();
    let mut bytes = fs::read(world.cache()).unwrap();
    let at = bytes.windows(3).position(|window| window == [1, 0, b'2']).unwrap();
    bytes[at + 2] = b'9';
    fs::write(world.cache(), bytes).unwrap();
    edit_unnoticeably(&world.path("a/1"), b"a/1").unwrap();
    settle_part(&world, "a");
    let unread = |pattern| select(&world.context(), pattern).unwrap().unread();
    assert_eq!((unread("b"), unread("c")), (2, 0));
    assert_eq!(world.build().0, digest);
}

#[test]
fn files_looked_at_one_by_one_are_remembered_in_any_order() {
    let world = World::new(&["a", "c", "e", "g", "i", "k", "other/a", "other/c", "other/e"]);
    world.settle();
    for new in ["f", "g1", "g2", "g3", "z"] {
        world.add(new);
    }
    let context = world.context();
    let unread = |pattern| select(&context, pattern).unwrap().unread();
    // Forwards, over names without a record; back; and from one directory to another and back again.
    let forwards = ["e", "f", "g", "g*", "i", "z"].map(unread);
    assert_eq!(forwards, [0, 1, 0, 3, 0, 1]);
    assert_eq!(["c", "other/c", "other/a", "a", "k", "other/e"].map(unread), [0; 6]);
}

#[test]
fn an_attribute_of_the_context_itself_counts() {
    let world = World::new(&["file"]);
    world.settle();
    let (before, _) = world.build();
    let top = fs::File::open(world.top.path()).unwrap();
    xattr::set(&top, "user.probe".as_ref(), b"1").unwrap();
    let (marked, unread) = world.build();
    assert_eq!(unread, 1);
    assert_ne!(marked, before);
}

/// Builds a part of the context until it is remembered.
#[track_caller]
fn settle_part(world: &World, pattern: &str) {
    for _ in 0..10_000 {
        let context = world.context();
        let selection = select(&context, pattern).unwrap();
        if selection.unread() == 0 {
            return;
        }
        selection.read().unwrap();
        context.save().unwrap();
    }
    panic!("the stat cache does not remember {pattern}");
}

#[test]
fn a_part_looked_at_does_not_forget_the_rest() {
    let world = World::new(&["a/1", "b/2", "b/3", "c"]);
    world.settle();
    world.add("a/4");
    settle_part(&world, "a");
    let selection = select(&world.context(), "b").unwrap();
    assert_eq!((selection.len(), selection.unread()), (3, 0));
    world.settle();
    edit_unnoticeably(&world.path("c"), b"c").unwrap();
    settle_part(&world, "c");
    assert_eq!(world.build().1, 0);
}

#[test]
fn files_that_are_gone_are_forgotten() {
    let world = World::new(&["a/1", "a/2-with-a-name-to-look-for"]);
    world.settle();
    let remembers = || {
        let bytes = fs::read(world.cache()).unwrap();
        bytes.windows(15).any(|window| window == b"2-with-a-name-t")
    };
    assert!(remembers());
    fs::remove_file(world.path("a/2-with-a-name-to-look-for")).unwrap();
    world.settle();
    assert!(!remembers());
}

#[test]
fn on_another_file_system_fresh_files_are_not_yet_remembered() {
    let Ok(store) = tempfile::tempdir_in("/dev/shm") else { return eprintln!("skipped: no /dev/shm") };
    let world = World::new(&["file"]);
    if fs::metadata(store.path()).unwrap().dev() == fs::metadata(world.top.path()).unwrap().dev() {
        return eprintln!("skipped: /dev/shm is no other file system");
    }
    let cache = store.path().join("cache");
    for _ in 0..2 {
        let context = open(&world, &cache);
        let selection = select(&context, ".").unwrap();
        assert_eq!(selection.unread(), 2, "two seconds have not passed");
        selection.read().unwrap();
        context.save().unwrap();
    }
    assert!(!cache.exists());
}

fn open(world: &World, cache: &Path) -> Context {
    Context::open(world.top.path(), Ignore::none(), Some(cache)).unwrap()
}

#[test]
fn two_builds_that_save_at_once_leave_a_whole_file() {
    let world = World::new(&["a/1", "b/2", "c"]);
    world.settle();
    // No file changes while a build looks at it, which a build would say.
    let turn = Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (world, turn) = (&world, &turn);
            scope.spawn(move || {
                for round in 0..50 {
                    fs::write(world.path(&format!("own-{thread}")), round.to_string()).unwrap();
                    turn.wait();
                    world.build();
                    turn.wait();
                }
            });
        }
    });
    world.settle();
    assert_eq!(fs::read_dir(world.store.path()).unwrap().count(), 1);
}

#[test]
fn a_cache_that_cannot_be_written_is_an_error_that_names_it() {
    let world = World::new(&["file"]);
    let context = open(&world, Path::new("/proc/nowhere/cache"));
    select(&context, ".").unwrap().read().unwrap();
    // No clock there, so nothing may be remembered and nothing is written.
    context.save().unwrap();
    let in_the_way = world.store.path().join("directory");
    fs::create_dir(&in_the_way).unwrap();
    for _ in 0..10_000 {
        let context = open(&world, &in_the_way);
        select(&context, ".").unwrap().read().unwrap();
        if let Err(error) = context.save() {
            assert_eq!(error.to_string(), format!("cannot write the stat cache `{}`", in_the_way.display()));
            return;
        }
    }
    panic!("a directory was replaced by a file");
}
