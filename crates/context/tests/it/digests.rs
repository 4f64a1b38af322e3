//! What is in a selection's digest, and what tells two digests apart.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::time::{Duration, SystemTime};

use context::{Attributes, Counted, FileDigests, FileDigestsError, Parents};
use expect_test::expect;
use sys::xattr;

use crate::world::{World, select, select_with};

fn world() -> World {
    World::new(&["file", "dir/inner", "link -> file", "twin"])
}

fn set_mode(world: &World, name: &str, mode: u32) {
    fs::set_permissions(world.path(name), Permissions::from_mode(mode)).unwrap();
}

/// Whether the digest is another after `change`.
#[track_caller]
fn check(what: &str, change: impl Fn(&World), is_seen: bool) {
    let world = world();
    for name in ["file", "twin", "dir/inner"] {
        set_mode(&world, name, 0o644);
    }
    let before = world.digest();
    change(&world);
    assert_eq!(world.digest() != before, is_seen, "{what}");
}

/// They are in the keys of what users have built: a change here lets every COPY run again once.
#[test]
fn digests_stay_what_they_are() {
    let world = World::new(&["top", "a/b/c", "a/d", "a/link -> b/c", "e/"]);
    let modes = [("", 0o755), ("top", 0o644), ("a", 0o755), ("a/b", 0o750), ("a/b/c", 0o755), ("a/d", 0o600)];
    for (path, mode) in modes.into_iter().chain([("e", 0o1777)]) {
        set_mode(&world, path, mode);
    }
    let context = world.context();
    let sources = [".", "a", "a/b", "a/b/c", "a/link", "a/*", "*"].map(|source| (source, Parents::Dropped));
    let with_parents = ["a/b/c", "a/./b", "a/*/c", "."].map(|source| (source, Parents::Kept));
    let digests = sources.into_iter().chain(with_parents).map(|(source, parents)| {
        let selection = select_with(&context, source, &[], parents).unwrap();
        format!("{source} {:.16}\n", selection.digest(Attributes::ALL).unwrap().to_string())
    });
    expect![[r#"
        . 2d22c79841b93e83
        a 662bc3a08960eac1
        a/b 0bdf9e5157f11846
        a/b/c d5522035062056f8
        a/link 0691da4b74041547
        a/* 76ee718c6a41a1f7
        * fd94717d8b9fd380
        a/b/c 155da2835a71a6a3
        a/./b e758e51043bee61e
        a/*/c 155da2835a71a6a3
        . 2d22c79841b93e83
    "#]]
    .assert_eq(&digests.collect::<String>());
}

#[test]
fn everything_that_reaches_the_image_is_in_the_digest() {
    check("content", |world| fs::write(world.path("file"), "FILE").unwrap(), true);
    check("length", |world| fs::write(world.path("file"), "longer").unwrap(), true);
    check("a new file", |world| world.add("dir/new"), true);
    check("a new empty directory", |world| world.add("empty/"), true);
    check("a removed file", |world| fs::remove_file(world.path("twin")).unwrap(), true);
    check("a name", |world| fs::rename(world.path("twin"), world.path("Twin")).unwrap(), true);
    check("a file's mode", |world| set_mode(world, "file", 0o755), true);
    check("a set-uid bit", |world| set_mode(world, "file", 0o4644), true);
    check("a directory's mode", |world| set_mode(world, "dir", 0o700), true);
    check("the context's own mode", |world| set_mode(world, "", 0o711), true);
    let retarget = |world: &World| {
        fs::remove_file(world.path("link")).unwrap();
        symlink("twin", world.path("link")).unwrap();
    };
    check("a link's target", retarget, true);
    let copy_in_place = |world: &World| {
        fs::remove_file(world.path("link")).unwrap();
        fs::copy(world.path("file"), world.path("link")).unwrap();
    };
    check("a type", copy_in_place, true);
    let link_hard = |world: &World| {
        fs::write(world.path("twin"), "file").unwrap();
        let before = world.digest();
        fs::remove_file(world.path("twin")).unwrap();
        fs::hard_link(world.path("file"), world.path("twin")).unwrap();
        assert_ne!(world.digest(), before, "equal files are linked");
    };
    check("a hard link", link_hard, true);
    let attribute = |world: &World| {
        let file = fs::File::open(world.path("file")).unwrap();
        xattr::set(&file, "user.probe".as_ref(), b"1").unwrap();
    };
    check("an extended attribute", attribute, true);
}

#[test]
fn what_does_not_reach_the_image_is_not_in_the_digest() {
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let touch = |world: &World| {
        fs::File::options().write(true).open(world.path("file")).unwrap().set_modified(old).unwrap();
    };
    check("a modification time", touch, false);
    let rewrite = |world: &World| {
        fs::write(world.path("new"), "file").unwrap();
        set_mode(world, "new", 0o644);
        fs::rename(world.path("new"), world.path("file")).unwrap();
    };
    check("an inode number", rewrite, false);
    check(
        "a hard link from outside",
        |w| fs::hard_link(w.path("file"), w.store.path().join("x")).unwrap(),
        false,
    );
    let is_root = chown(world().path("file"), Some(0), Some(0)).is_ok();
    if is_root {
        check("the host's owner", |world| chown(world.path("file"), Some(1000), Some(1000)).unwrap(), false);
        let overlay = |world: &World| {
            let dir = fs::File::open(world.path("dir")).unwrap();
            xattr::set(&dir, "trusted.overlay.opaque".as_ref(), b"y").unwrap();
        };
        check("overlayfs' own attributes", overlay, false);
    }
}

#[test]
fn what_a_flag_replaces_is_not_in_the_digest() {
    let world = world();
    let of = |mode, owner| select(&world.context(), ".").unwrap().digest(Attributes { mode, owner }).unwrap();
    let all = of(Counted::Yes, Counted::Yes);
    let without_mode = of(Counted::Replaced, Counted::Yes);
    let without_owner = of(Counted::Yes, Counted::Replaced);
    assert!(all != without_mode && all != without_owner && without_mode != without_owner);
    set_mode(&world, "file", 0o600);
    assert_eq!(of(Counted::Replaced, Counted::Yes), without_mode);
    assert_ne!(of(Counted::Yes, Counted::Yes), all);
}

#[test]
fn the_name_a_file_gets_is_in_the_digest_and_its_directory_is_not() {
    let world = World::new(&["a/x/1", "b/x/1", "c/y/1"]);
    for name in ["a/x/1", "b/x/1", "c/y/1"] {
        fs::write(world.path(name), "same").unwrap();
    }
    let of = |source: &str| select(&world.context(), source).unwrap().digest(Attributes::ALL).unwrap();
    assert_eq!(of("a/x/1"), of("b/x/1"));
    assert_eq!(of("a"), of("b"));
    assert_ne!(of("a"), of("c"));
    assert_eq!(of("a/x"), of("c/y"));
    assert_ne!(of("a/x"), of("a/x/1"));
    let excluded = select_with(&world.context(), "a", &["x/1"], context::Parents::Dropped).unwrap();
    assert_ne!(excluded.digest(Attributes::ALL).unwrap(), of("a"));
}

fn file_digests(world: &World) -> FileDigests {
    select(&world.context(), ".").unwrap().file_digests(Attributes::ALL).unwrap()
}

#[test]
fn file_digests_tell_what_changed_and_survive_being_kept() {
    let world = world();
    set_mode(&world, "file", 0o644);
    world.add("mode");
    set_mode(&world, "mode", 0o644);
    let before = file_digests(&world);
    let kept = FileDigests::from_bytes(&before.to_bytes()).unwrap();
    assert_eq!(kept, before);
    assert_eq!(file_digests(&world).changes_since(&kept), []);

    fs::write(world.path("file"), "FILE").unwrap();
    set_mode(&world, "mode", 0o755);
    fs::remove_file(world.path("twin")).unwrap();
    fs::remove_file(world.path("link")).unwrap();
    fs::create_dir(world.path("link")).unwrap();
    world.add("dir/another");
    let changes = file_digests(&world).changes_since(&kept);
    let shown: String = changes.iter().map(|change| format!("{change}\n")).collect();
    expect![[r#"
        dir/another is new
        file changed
        link is of another type
        mode has mode 0755, was 0644
        twin is gone
    "#]]
    .assert_eq(&shown);
}

#[test]
fn file_digests_that_are_damaged_are_refused() {
    let bytes = file_digests(&world()).to_bytes();
    let whole = FileDigests::from_bytes(&bytes).unwrap();
    for length in 0..bytes.len() {
        // Cut between two files it is a shorter list, cut anywhere else nothing.
        if let Ok(fewer) = FileDigests::from_bytes(&bytes[..length]) {
            assert!(fewer.len() < whole.len());
        }
    }
    assert_eq!(FileDigests::from_bytes(&[9]).unwrap_err(), FileDigestsError::Version(9));
    assert_eq!(FileDigests::from_bytes(&[1, 5, 0]).unwrap_err(), FileDigestsError::CutShort);
    assert!(matches!(
        FileDigests::from_bytes(&[1, 0, 2, b'.', b'.', b'f', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap_err(),
        FileDigestsError::Path(_)
    ));
}
