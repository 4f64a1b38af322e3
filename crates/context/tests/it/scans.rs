//! Unusual trees.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use context::{Attributes, Context, ContextError, Ignore};
use expect_test::expect;
use sys::root::Dir;

use crate::world::{World, select, shown};

#[test]
fn special_files_and_strange_names_are_listed() {
    let world = World::new(&["plain", "dir/link -> nowhere", " ", "new\nline"]);
    let made = Command::new("mkfifo").arg(world.path("fifo")).status().unwrap();
    assert!(made.success());
    UnixListener::bind(world.path("socket")).unwrap();
    fs::write(world.top.path().join(OsStr::from_bytes(b"\xFFnot text")), "").unwrap();
    let context = world.context();
    expect![[r#"
        d /
        f / 
        d /dir
        l(nowhere) /dir/link
        p /fifo
        f /new
        line
        f /plain
        s /socket
        f /�not text
    "#]]
    .assert_eq(&shown(select(&context, ".")));
    // Reading opens no fifo and waits for nobody.
    select(&context, ".").unwrap().digest(Attributes::ALL).unwrap();
}

#[test]
fn names_that_begin_alike_are_in_order_and_each_is_remembered() {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for stem in [&b"eight.."[..], b"eight...", b"eight...\xFF", b"e", b"\x01", b"\xFE"] {
        names.push(stem.to_vec());
        names.extend([b'\x01', b'-', b'0', b'z', b'\x80'].map(|last| [stem, &[last]].concat()));
    }
    let world = World::new(&["directory/below"]);
    for name in &names {
        fs::write(world.top.path().join(OsStr::from_bytes(name)), name).unwrap();
    }
    names.push(b"directory".to_vec());
    names.sort();
    names.dedup();
    let context = world.context();
    let selection = select(&context, "*").unwrap();
    let top = selection.entries().map(|entry| entry.node.path().as_bytes().to_vec());
    assert_eq!(top.filter(|path| !path.contains(&b'/')).collect::<Vec<_>>(), names);
    world.settle();
}

#[test]
fn links_within_a_tree_may_form_circles() {
    let world = World::new(&["a/up -> ..", "a/self -> self", "a/b/top -> /"]);
    expect![[r#"
        d /
        d /a
        d /a/b
        l(/) /a/b/top
        l(self) /a/self
        l(..) /a/up
    "#]]
    .assert_eq(&shown(select(&world.context(), ".")));
}

/// A directory whose contents have paths that are longer than the kernel takes.
fn add_bottomless(world: &World, name: &str) {
    let mut dir = Dir::open(world.top.path()).unwrap();
    let long = "x".repeat(250);
    for name in std::iter::once(name).chain(std::iter::repeat_n(&*long, 20)) {
        dir.create_dir(OsStr::new(name)).unwrap();
        dir = dir.open_dir(OsStr::new(name)).unwrap();
    }
}

#[test]
fn only_what_is_asked_for_is_looked_at() {
    let world = World::new(&["src/a", "b"]);
    add_bottomless(&world, "bottomless");
    let context = world.context();
    assert!(matches!(select(&context, ".").unwrap_err(), ContextError::Path(_)));
    assert_eq!(select(&context, "src").unwrap().len(), 2);
    assert_eq!(select(&context, "b").unwrap().len(), 1);
    assert_eq!(select(&context, "sr?/*").unwrap().len(), 1);
    // Ignored, it is not even opened.
    fs::write(world.path(".dockerignore"), "bottomless\n!src/bottom*\n").unwrap();
    assert_eq!(select(&world.context(), ".").unwrap().len(), 5);
    sys::Root::open(world.top.path()).unwrap().dir().remove_all(OsStr::new("bottomless")).unwrap();
}

#[test]
fn threads_share_one_scan_and_agree() {
    let world = World::new(&[]);
    let shape =
        testkit::tree::Shape { top_directories: 4, directories_each: 5, files: 300, size_bytes: 90_000 };
    testkit::tree::plant(world.top.path(), shape).unwrap();
    let context = world.context();
    let digests: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|at| {
                let context = &context;
                let source = if at % 2 == 0 { "." } else { "module-00?" };
                scope.spawn(move || {
                    (at % 2, select(context, source).unwrap().digest(Attributes::ALL).unwrap())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (which, digest) in &digests {
        assert_eq!(*digest, digests[*which].1);
    }
    assert_eq!(digests[0].1, world.digest());
}

#[test]
fn a_cancelled_context_gives_up() {
    let world = World::new(&["a"]);
    let context = world.context();
    let selection = select(&context, "a").unwrap();
    context.cancel();
    assert!(matches!(selection.digest(Attributes::ALL), Err(ContextError::Cancelled)));
    assert!(matches!(select(&context, "."), Err(ContextError::Cancelled)));
}

#[test]
fn a_context_must_be_a_directory() {
    let world = World::new(&["file"]);
    for name in ["file", "absent"] {
        let error = Context::open(&world.path(name), Ignore::none(), None).unwrap_err();
        assert!(matches!(error, ContextError::Open { .. }));
    }
}

#[test]
fn what_may_not_be_read_is_named() {
    use std::os::unix::fs::PermissionsExt;
    const CHILD: &str = "CONTEXT_TEST_UNREADABLE";
    if let Some(top) = std::env::var_os(CHILD) {
        let context = Context::open(top.as_ref(), Ignore::none(), None).unwrap();
        let error = select(&context, ".").unwrap_err();
        assert_eq!(error.to_string(), "cannot read `/closed` in the build context");
        let secret = select(&context, "secret").unwrap().digest(Attributes::ALL).unwrap_err();
        assert_eq!(secret.to_string(), "cannot read `/secret` in the build context");
        return;
    }
    let world = World::new(&["closed/x", "secret"]);
    for (name, mode) in [("", 0o755), ("closed", 0), ("secret", 0)] {
        fs::set_permissions(world.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "scans::what_may_not_be_read_is_named"]).env(CHILD, world.top.path());
    if sys::directory::status(Dir::open(world.store.path()).unwrap()).unwrap().uid == 0 {
        // Root may read everything, nobody may not.
        child.uid(65534).gid(65534);
    }
    let done = child.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}
