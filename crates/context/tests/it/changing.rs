//! Files that change while we look at them.

use std::fs;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use context::{Attributes, Context, ContextError, Selection};

use crate::world::{World, edit_unnoticeably, select};

fn read_first(context: &Context, selection: &Selection) -> Result<Vec<u8>, ContextError> {
    let entry = selection.entries().next().unwrap();
    let mut bytes = Vec::new();
    context.open_file(entry.node)?.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

#[test]
fn a_change_between_scan_and_digest_is_taken_in() {
    let world = World::new(&["file"]);
    let context = world.context();
    let selection = select(&context, "file").unwrap();
    fs::write(world.path("file"), "other and longer").unwrap();
    let digest = selection.digest(Attributes::ALL).unwrap();
    assert_eq!(selection.size_bytes(), 16);
    assert_eq!(read_first(&context, &selection).unwrap(), b"other and longer");
    assert_eq!(select(&world.context(), "file").unwrap().digest(Attributes::ALL).unwrap(), digest);
}

#[test]
fn a_file_that_was_replaced_by_another_is_read_as_it_is() {
    let world = World::new(&["file", "new one"]);
    let context = world.context();
    let selection = select(&context, "file").unwrap();
    fs::rename(world.path("new one"), world.path("file")).unwrap();
    selection.read().unwrap();
    assert_eq!(read_first(&context, &selection).unwrap(), b"new one");
}

#[test]
fn a_change_between_digest_and_copy_is_an_error_that_names_the_file() {
    let world = World::new(&["file"]);
    let context = world.context();
    let selection = select(&context, "file").unwrap();
    selection.read().unwrap();
    edit_unnoticeably(&world.path("file"), b"FILE").unwrap();
    let error = read_first(&context, &selection).unwrap_err();
    assert_eq!(error.to_string(), "`/file` in the build context changed while it was read");
    fs::remove_file(world.path("file")).unwrap();
    assert!(matches!(read_first(&context, &selection), Err(ContextError::Changed { .. })));
}

#[test]
fn a_log_that_grows_is_copied_as_far_as_its_digest_goes() {
    let world = World::new(&["file"]);
    let context = world.context();
    let selection = select(&context, "file").unwrap();
    selection.read().unwrap();
    fs::File::options().append(true).open(world.path("file")).unwrap().write_all(b" and more").unwrap();
    assert_eq!(read_first(&context, &selection).unwrap(), b"file");
}

#[test]
fn a_file_that_becomes_a_link_or_directory_is_not_followed() {
    let world = World::new(&["file", "secret"]);
    let context = world.context();
    let selection = select(&context, "file").unwrap();
    fs::remove_file(world.path("file")).unwrap();
    world.add("file -> secret");
    assert!(matches!(selection.read(), Err(ContextError::Changed { .. })));
    fs::remove_file(world.path("file")).unwrap();
    fs::create_dir(world.path("file")).unwrap();
    assert!(matches!(selection.read(), Err(ContextError::Changed { .. })));
}

#[test]
fn a_directory_exchanged_for_a_link_is_not_a_way_out() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "secret").unwrap();
    let world = World::new(&["dir/file"]);
    let context = world.context();
    let selection = select(&context, "dir").unwrap();
    fs::rename(world.path("dir"), world.path("moved")).unwrap();
    std::os::unix::fs::symlink(outside.path(), world.path("dir")).unwrap();
    assert!(matches!(selection.read(), Err(ContextError::Changed { .. })));
}

#[test]
fn files_that_come_and_go_do_not_stop_a_scan() {
    let world = World::new(&["kept/file"]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let scans = scope.spawn(|| {
            for _ in 0..200 {
                let selection = select(&world.context(), ".").unwrap();
                assert!(selection.entries().any(|entry| entry.destination.as_bytes() == b"kept/file"));
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for at in 0..20 {
                    world.add(&format!("temporary-{at}/file"));
                }
                for at in 0..20 {
                    fs::remove_dir_all(world.path(&format!("temporary-{at}"))).unwrap();
                }
            }
        });
        let result = scans.join();
        done.store(true, Ordering::Relaxed);
        result.unwrap();
    });
}
