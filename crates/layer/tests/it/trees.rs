//! seal, pack and unpack are inverses of one another.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use layer::merged::Merged;
use layer::pack::{FileDigests, Form, pack};
use layer::seal::{TreeContents, seal};
use layer::unpack::unpack;
use sys::root::Node;

use crate::support::{dir, is_root, never, read_tar, show};

/// A tree with one of everything.
fn everything(at: &Path) {
    fs::set_permissions(at, fs::Permissions::from_mode(0o555)).unwrap();
    fs::create_dir_all(at.join("usr/lib")).unwrap();
    fs::write(at.join("usr/lib/big"), vec![7_u8; 3_000_000]).unwrap();
    fs::write(at.join("usr/lib/empty"), "").unwrap();
    fs::write(at.join("usr/suid"), "#!").unwrap();
    lchown(at.join("usr/suid"), Some(5), Some(6)).unwrap();
    fs::set_permissions(at.join("usr/suid"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(at.join("usr/lib/big"), at.join("usr/another")).unwrap();
    symlink("usr/lib", at.join("lib")).unwrap();
    lchown(at.join("lib"), Some(1), Some(2)).unwrap();
    for number in 0..300 {
        fs::write(at.join(format!("usr/small-{number}")), format!("content {number}")).unwrap();
    }
    let root = dir(at);
    let user = root.open_dir("usr".as_ref()).unwrap();
    user.create_node("fifo".as_ref(), Node::Fifo).unwrap();
    user.create_node("null".as_ref(), Node::CharDevice { major: 1, minor: 3 }).unwrap();
    user.create_node("socket".as_ref(), Node::Socket).unwrap();
    sys::xattr::set_at(&root, "usr".as_ref(), "user.colour".as_ref(), b"blue").unwrap();
    sys::xattr::set_at(&root, "usr".as_ref(), "trusted.overlay.origin".as_ref(), b"x").unwrap();
    fs::write(at.join("usr/").join("n".repeat(200)), "long").unwrap();
}

#[test]
fn a_tree_survives_tar_and_back() {
    if !is_root("a_tree_survives_tar_and_back") {
        return;
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    everything(from.path());
    let sealed = seal(&dir(from.path()), &Merged::default(), 2, &never).unwrap();
    let tar_path = to.path().join("tar");
    let root = dir(from.path());
    let list = sealed.entries.as_slice().to_vec();
    let contents = TreeContents { tree: &root };
    let form = Form::Tar(File::create(&tar_path).unwrap());
    let packed = pack(list, &contents, FileDigests::Known, form, 2, &never).unwrap();
    assert_eq!(packed.diff_id, sealed.diff_id);
    let bytes = fs::read(&tar_path).unwrap();
    assert_eq!(oci::Digest::of(&bytes), *packed.diff_id.digest());
    assert_eq!(bytes.len() as u64, packed.tar_bytes);

    let read = read_tar(&bytes);
    assert_eq!(show(&read.entries), show(&sealed.entries));
    assert_eq!(read.entries, packed.entries);
    assert_eq!(read.lookups, None);

    let tree = to.path().join("tree");
    fs::create_dir(&tree).unwrap();
    unpack(&bytes[..], &read.entries, &dir(&tree)).unwrap();
    let again = seal(&dir(&tree), &Merged::default(), 1, &never).unwrap();
    assert_eq!(again.entries, sealed.entries);
    assert_eq!(again.diff_id, sealed.diff_id);
    assert_eq!(fs::metadata(&tree).unwrap().mode() & 0o7777, 0o555);
}

#[test]
fn packing_into_a_tree_gives_the_same_tree_and_diff_id() {
    if !is_root("packing_into_a_tree_gives_the_same_tree_and_diff_id") {
        return;
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    everything(from.path());
    let root = dir(from.path());
    let sealed = seal(&root, &Merged::default(), 3, &never).unwrap();
    let list = sealed.entries.as_slice().to_vec();
    let tree = dir(to.path());
    let contents = TreeContents { tree: &root };
    let packed = pack(list, &contents, FileDigests::Compute, Form::Tree(&tree), 3, &never).unwrap();
    assert_eq!((&packed.diff_id, &packed.entries), (&sealed.diff_id, &sealed.entries));
    assert_eq!(seal(&tree, &Merged::default(), 1, &never).unwrap().entries, sealed.entries);
}

#[test]
fn sealing_cleans_what_overlayfs_left_and_drops_sockets() {
    if !is_root("sealing_cleans_what_overlayfs_left_and_drops_sockets") {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    everything(base.path());
    let root = dir(base.path());
    root.create_node("gone".as_ref(), Node::CharDevice { major: 0, minor: 0 }).unwrap();
    let sealed = seal(&root, &Merged::default(), 1, &never).unwrap();
    let shown = show(&sealed.entries);
    assert!(!shown.contains("socket") && !shown.contains("gone") && !shown.contains("overlay"), "{shown}");
    assert!(shown.contains("/usr 755 0:0 dir user.colour"), "{shown}");
    assert!(shown.contains("/usr/lib/big 644 0:0 hard link to /usr/another"), "{shown}");
    assert!(!base.path().join("usr/socket").exists() && !base.path().join("gone").exists());
    assert_eq!(sys::xattr::get_at(&root, "usr".as_ref(), "trusted.overlay.origin".as_ref()).unwrap(), None);
}

#[test]
fn a_directory_is_opaque_only_over_another_one() {
    if !testkit::can_run("a_directory_is_opaque_only_over_another_one", &[testkit::Need::Root]) {
        return;
    }
    let (below, above) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(below.path().join("old")).unwrap();
    let lower = Merged::new(vec![seal(&dir(below.path()), &Merged::default(), 1, &never).unwrap().entries]);
    let tree = dir(above.path());
    for name in ["old", "new"] {
        fs::create_dir(above.path().join(name)).unwrap();
        sys::xattr::set_at(&tree, name.as_ref(), "trusted.overlay.opaque".as_ref(), b"y").unwrap();
    }
    let shown = show(&seal(&tree, &lower, 1, &never).unwrap().entries);
    assert!(shown.contains("/old 755 0:0 dir opaque\n") && shown.contains("/new 755 0:0 dir\n"), "{shown}");
    let mark =
        |name: &str| sys::xattr::get_at(&tree, name.as_ref(), "trusted.overlay.opaque".as_ref()).unwrap();
    assert_eq!((mark("old").as_deref(), mark("new").as_deref()), (Some(&b"y"[..]), None));
}

#[test]
fn a_directory_that_only_carries_a_change_is_implied() {
    if !is_root("a_directory_that_only_carries_a_change_is_implied") {
        return;
    }
    let (below, above) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(below.path().join("a/b")).unwrap();
    fs::set_permissions(below.path().join("a"), fs::Permissions::from_mode(0o1777)).unwrap();
    let lower = Merged::new(vec![seal(&dir(below.path()), &Merged::default(), 1, &never).unwrap().entries]);
    fs::create_dir_all(above.path().join("a/b")).unwrap();
    fs::write(above.path().join("a/b/new"), "x").unwrap();
    fs::set_permissions(above.path().join("a"), fs::Permissions::from_mode(0o1777)).unwrap();
    for name in ["a/b", "a", "."] {
        let times = fs::metadata(below.path().join(name)).unwrap();
        let file = File::open(above.path().join(name)).unwrap();
        file.set_modified(times.modified().unwrap()).unwrap();
    }
    let root_mode = fs::metadata(below.path()).unwrap().permissions();
    fs::set_permissions(above.path(), root_mode).unwrap();
    let sealed = seal(&dir(above.path()), &lower, 1, &never).unwrap();
    let implied: Vec<_> =
        sealed.entries.as_slice().iter().filter(|e| e.implied).map(|e| e.path.to_string()).collect();
    assert_eq!(implied, ["/", "/a", "/a/b"]);
    let (tar_dir, root) = (tempfile::tempdir().unwrap(), dir(above.path()));
    let path = tar_dir.path().join("tar");
    let form = Form::Tar(File::create(&path).unwrap());
    let list = sealed.entries.as_slice().to_vec();
    pack(list, &TreeContents { tree: &root }, FileDigests::Known, form, 1, &never).unwrap();
    let mut archive = tar::Archive::new(File::open(&path).unwrap());
    let names: Vec<_> =
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(names, ["a/b/new"]);
}

#[test]
fn a_file_that_shrinks_while_it_is_packed_is_an_error_that_names_it() {
    let base = tempfile::tempdir().unwrap();
    fs::write(base.path().join("f"), "long content").unwrap();
    let root = dir(base.path());
    let list = seal(&root, &Merged::default(), 1, &never).unwrap().entries.as_slice().to_vec();
    for changed in ["short", "much longer content"] {
        fs::write(base.path().join("f"), changed).unwrap();
        let contents = TreeContents { tree: &root };
        let error =
            pack(list.clone(), &contents, FileDigests::Known, Form::DiffIdOnly, 2, &never).unwrap_err();
        assert_eq!(error.to_string(), "`/f` changed while it was read");
    }
}

#[test]
fn packing_can_be_cancelled() {
    let base = tempfile::tempdir().unwrap();
    fs::write(base.path().join("f"), "x").unwrap();
    let cancelled = || true;
    let error = seal(&dir(base.path()), &Merged::default(), 1, &cancelled).unwrap_err();
    assert_eq!(error.to_string(), "cancelled");
    // In the midst of a large file, too.
    fs::write(base.path().join("large"), vec![1; 16 << 20]).unwrap();
    let asked = AtomicUsize::new(0);
    let cancelled = || asked.fetch_add(1, Ordering::Relaxed) == 8;
    let error = seal(&dir(base.path()), &Merged::default(), 1, &cancelled).unwrap_err();
    assert_eq!(error.to_string(), "cancelled");
}

#[test]
fn a_name_that_means_a_whiteout_cannot_be_sealed() {
    let base = tempfile::tempdir().unwrap();
    fs::create_dir(base.path().join("d")).unwrap();
    fs::write(base.path().join("d/.wh.x"), "").unwrap();
    let error = seal(&dir(base.path()), &Merged::default(), 1, &never).unwrap_err();
    assert!(error.to_string().starts_with("`/d/.wh.x` cannot be part of a layer"), "{error}");
}

#[test]
fn large_and_small_files_keep_their_order_with_any_number_of_readers() {
    let base = tempfile::tempdir().unwrap();
    for number in 0..40_usize {
        let size = [0, 10, 300_000, 600_000, 2_000_000][number % 5];
        let content: Vec<u8> = (0..size).map(|at| ((at * 31 + number) % 251) as u8).collect();
        fs::write(base.path().join(format!("{number:02}")), content).unwrap();
    }
    let root = dir(base.path());
    let one = seal(&root, &Merged::default(), 1, &never).unwrap();
    let many = seal(&root, &Merged::default(), 8, &never).unwrap();
    assert_eq!((&one.diff_id, &one.entries), (&many.diff_id, &many.entries));
    for entry in one.entries.as_slice().iter().filter(|e| e.size() > 0) {
        let mut content = Vec::new();
        File::open(base.path().join(entry.path.as_relative())).unwrap().read_to_end(&mut content).unwrap();
        let layer::Kind::File { digest, .. } = entry.kind else { continue };
        assert_eq!(digest.to_digest(), oci::Digest::of(&content));
    }
}
