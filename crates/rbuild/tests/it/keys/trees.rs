//! Trees that nobody thought of: one change of one file, which may change nothing.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use sys::xattr;

use super::{Bench, Side};

/// How many trees: each takes three builds.
const TREES: u32 = 24;

/// Where files may be besides those that every context of these tests has.
const PATHS: &[&str] = &["a", "b", "e/a", "e/b", "e/g/a"];

#[derive(Clone, Debug)]
struct Tree {
    /// Paths with contents and modes.
    files: Vec<(&'static str, &'static str, u32)>,
    links: Vec<(&'static str, &'static str)>,
}

/// To one of the paths, if it is there.
#[derive(Clone, Copy, Debug)]
enum Change {
    Content(&'static str),
    Mode(u32),
    Owner(u32),
    Time,
    Attribute,
    Name(&'static str),
    Target(&'static str),
    Removal,
    Directory,
    OtherFile,
}

fn trees() -> impl Strategy<Value = Tree> {
    let file = (prop::sample::select(PATHS), prop::sample::select(&["", "x", "y"][..]), modes());
    let link = (prop::sample::select(&["l", "m"][..]), targets());
    let files = prop::collection::vec(file, 1..5);
    (files, prop::collection::vec(link, 0..2)).prop_map(|(files, links)| Tree { files, links })
}

fn modes() -> impl Strategy<Value = u32> {
    prop::sample::select(&[0o644, 0o600, 0o755][..])
}

fn targets() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["a", "e", "/nowhere"][..])
}

fn changes() -> impl Strategy<Value = (&'static str, Change)> {
    let path = prop::sample::select(&["a", "b", "e/a", "e", "l"][..]);
    let change = prop_oneof![
        prop::sample::select(&["", "x", "y"][..]).prop_map(Change::Content),
        modes().prop_map(Change::Mode),
        (0..2u32).prop_map(Change::Owner),
        Just(Change::Time),
        Just(Change::Attribute),
        prop::sample::select(PATHS).prop_map(Change::Name),
        targets().prop_map(Change::Target),
        Just(Change::Removal),
        Just(Change::Directory),
        Just(Change::OtherFile),
    ];
    (path, change)
}

impl Tree {
    fn write(&self, context: &Path) {
        for (path, content, mode) in &self.files {
            let path = context.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(*mode)).unwrap();
        }
        for (path, target) in &self.links {
            drop(fs::remove_file(context.join(path)));
            symlink(target, context.join(path)).unwrap();
        }
    }
}

impl Change {
    fn make(self, context: &Path, path: &str) {
        let path: PathBuf = context.join(path);
        let Ok(found) = fs::symlink_metadata(&path) else { return };
        match self {
            Self::Content(text) if found.is_file() => fs::write(path, text).unwrap(),
            Self::Mode(mode) if !found.is_symlink() => {
                fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            }
            Self::Owner(uid) if !found.is_symlink() => chown(path, Some(uid), None).unwrap(),
            Self::Time if !found.is_symlink() => {
                let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
                File::open(path).unwrap().set_times(times).unwrap();
            }
            Self::Attribute if found.is_file() => {
                xattr::set(File::open(path).unwrap(), "user.x".as_ref(), b"1").unwrap();
            }
            // Where there is a directory of that name, or it is its own, nothing becomes of it.
            Self::Name(name) => drop(fs::rename(&path, context.join(name))),
            Self::Target(target) if found.is_symlink() => {
                fs::remove_file(&path).unwrap();
                symlink(target, path).unwrap();
            }
            Self::Removal if !found.is_dir() => fs::remove_file(path).unwrap(),
            Self::Directory if found.is_file() => {
                fs::remove_file(&path).unwrap();
                fs::create_dir(path).unwrap();
            }
            Self::OtherFile => fs::write(context.join("ignored"), "other").unwrap(),
            _ => {}
        }
    }
}

#[test]
fn a_copy_is_made_again_if_and_only_if_it_comes_out_another() {
    let Some(bench) = Bench::new("a_copy_is_made_again_if_and_only_if_it_comes_out_another") else { return };
    let config = ProptestConfig {
        cases: TREES,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    };
    let check = |(tree, (path, change)): (Tree, (&'static str, Change))| {
        let side = |changed: bool| {
            let tree = tree.clone();
            let write = move |context: &Path| {
                tree.write(context);
                if changed {
                    change.make(context, path);
                }
            };
            Side { change: Box::new(write), ..Side::new("COPY . /x") }
        };
        bench.forget();
        let (before, after) = (bench.build(&side(false), &[]), bench.build(&side(true), &[]));
        let new = bench.build(&side(true), &["--no-cache"]);
        let (_, differs) = bench.compare(&before, &new, &[]);
        prop_assert_eq!(after.verdict == "ran", !differs.is_empty(), "{:?}", differs);
        prop_assert_eq!(bench.compare(&after, &new, &[]).1, [] as [serde_json::Value; 0]);
        Ok(())
    };
    TestRunner::new(config).run(&(trees(), changes()), check).unwrap();
}
