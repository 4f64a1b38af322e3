//! What source arguments select.

use context::{ContextError, Missing, Parents};
use expect_test::{Expect, expect};

use crate::world::{World, select, select_with, shown};

#[track_caller]
fn check(world: &World, pattern: &str, expected: Expect) {
    expected.assert_eq(&shown(select(&world.context(), pattern)));
}

#[test]
fn a_file_keeps_its_name_and_a_directory_gives_its_contents() {
    let world = World::new(&["a/b/c.txt", "a/d.txt", "a-b", "empty/"]);
    check(
        &world,
        "a/b/c.txt",
        expect![[r#"
        f /c.txt  from /a/b/c.txt
    "#]],
    );
    check(
        &world,
        "/../a/",
        expect![[r#"
        d /  from /a
        d /b  from /a/b
        f /b/c.txt  from /a/b/c.txt
        f /d.txt  from /a/d.txt
    "#]],
    );
    check(
        &world,
        ".",
        expect![[r#"
        d /
        d /a
        d /a/b
        f /a/b/c.txt
        f /a/d.txt
        f /a-b
        d /empty
    "#]],
    );
    check(
        &world,
        "empty",
        expect![[r#"
        d /  from /empty
    "#]],
    );
}

#[test]
fn a_wildcard_takes_files_and_flattens_directories() {
    let world = World::new(&["x/1", "x/2", "y/1", "z.txt", ".hid", "y/deep/1"]);
    check(
        &world,
        "*",
        expect![[r#"
        f /.hid
        d /  from /x
        f /1  from /x/1
        f /2  from /x/2
        d /  from /y
        f /1  from /y/1
        d /deep  from /y/deep
        f /deep/1  from /y/deep/1
        f /z.txt
    "#]],
    );
    check(
        &world,
        "*/1",
        expect![[r#"
        f /1  from /x/1
        f /1  from /y/1
    "#]],
    );
    check(
        &world,
        "?/d*",
        expect![[r#"
        d /  from /y/deep
        f /1  from /y/deep/1
    "#]],
    );
    check(&world, "nothing*", expect!["nothing\n"]);
    check(&world, "nowhere/*.txt", expect!["nothing\n"]);
    check(&world, "z.txt/*", expect!["nothing\n"]);
    check(&world, "a[", expect!["`a[` is no valid pattern\n"]);
}

#[test]
fn ignored_files_do_not_exist() {
    let world = World::new(&["a/keep", "a/drop", "b/drop", "c.log", "d.txt", "into -> b/drop"]);
    std::fs::write(world.path(".dockerignore"), "a/*\n!a/keep\nb\n*.log\n").unwrap();
    check(
        &world,
        ".",
        expect![[r#"
        d /
        f /.dockerignore
        d /a
        f /a/keep
        f /d.txt
        l(b/drop) /into
    "#]],
    );
    check(&world, "c.log", expect!["`c.log` is excluded by line 4 of .dockerignore\n"]);
    check(&world, "b/drop", expect!["`b/drop` is excluded by line 3 of .dockerignore\n"]);
    check(&world, "b", expect!["`b` is excluded by line 3 of .dockerignore\n"]);
    check(&world, "into", expect!["`b/drop` is excluded by line 3 of .dockerignore\n"]);
    check(&world, "*.log", expect!["nothing: line 4 of .dockerignore\n"]);
    check(
        &world,
        "a/*",
        expect![[r#"
        f /keep  from /a/keep
    "#]],
    );
}

#[test]
fn an_ignored_directory_shows_only_what_is_brought_back_below_it() {
    let world = World::new(&["m/a/keep.c", "m/a/x", "m/b/x", "n/x", "src/y"]);
    std::fs::write(world.path(".dockerignore"), "*\n!m/*/keep.c\n!src\n").unwrap();
    check(
        &world,
        ".",
        expect![[r#"
        d /
        d /m
        d /m/a
        f /m/a/keep.c
        d /src
        f /src/y
    "#]],
    );
    check(
        &world,
        "m",
        expect![[r#"
        d /  from /m
        d /a  from /m/a
        f /a/keep.c  from /m/a/keep.c
    "#]],
    );
    check(&world, "m/b", expect!["`m/b` is excluded by line 1 of .dockerignore\n"]);
    check(
        &world,
        "m*",
        expect![[r#"
        d /  from /m
        d /a  from /m/a
        f /a/keep.c  from /m/a/keep.c
    "#]],
    );
}

#[test]
fn links_that_a_source_names_are_followed_within_the_context() {
    let world = World::new(&[
        "real/dir/file",
        "real/dir/inner -> file",
        "to-dir -> real/dir",
        "to-file -> /real/dir/file",
        "chain -> to-dir/inner",
        "up -> real/../to-dir",
        "above -> ../../../real/dir/file",
        "root -> /",
    ]);
    check(
        &world,
        "to-dir",
        expect![[r#"
        d /  from /real/dir
        f /file  from /real/dir/file
        l(file) /inner  from /real/dir/inner
    "#]],
    );
    check(
        &world,
        "to-file",
        expect![[r#"
        f /to-file  from /real/dir/file
    "#]],
    );
    check(
        &world,
        "to-dir/file",
        expect![[r#"
        f /file  from /real/dir/file
    "#]],
    );
    check(
        &world,
        "chain",
        expect![[r#"
        f /chain  from /real/dir/file
    "#]],
    );
    check(
        &world,
        "up/file",
        expect![[r#"
        f /file  from /real/dir/file
    "#]],
    );
    check(
        &world,
        "above",
        expect![[r#"
        f /above  from /real/dir/file
    "#]],
    );
    check(
        &world,
        "root/real/dir/f*",
        expect![[r#"
        f /file  from /real/dir/file
    "#]],
    );
    check(
        &world,
        "to-f*",
        expect![[r#"
        f /to-file  from /real/dir/file
    "#]],
    );
}

#[test]
fn links_that_lead_nowhere_or_round_in_circles_are_errors() {
    let world = World::new(&[
        "dangling -> gone/away",
        "escape -> ../../etc/passwd",
        "absolute -> /etc/passwd",
        "a -> b",
        "b -> a",
        "file",
        "self -> self/x",
    ]);
    let gone = "is a symbolic link to";
    for (name, target) in
        [("dangling", "gone/away"), ("escape", "../../etc/passwd"), ("absolute", "/etc/passwd")]
    {
        let expected = format!("`{name}` {gone} `{target}`, which is not in the build context\n");
        assert_eq!(shown(select(&world.context(), name)), expected);
    }
    check(&world, "a", expect!["`a` leads through more than 40 symbolic links\n"]);
    check(&world, "self/y", expect!["`self/y` leads through more than 40 symbolic links\n"]);
    check(&world, "file/below", expect!["`file/below` lies below `/file`, which is not a directory\n"]);
}

#[test]
fn a_missing_source_says_what_else_is_there() {
    let world = World::new(&["src/main.c", "src/mail.c", "src/secret", "other"]);
    std::fs::write(world.path(".dockerignore"), "**/secret\n").unwrap();
    let error = select(&world.context(), "src/sub/man.c").unwrap_err();
    let ContextError::Missing { name, why: Missing::Absent { candidates } } = error else {
        panic!("{error}")
    };
    let candidates: Vec<String> = candidates.iter().map(ToString::to_string).collect();
    assert_eq!(name, "src/sub/man.c");
    assert_eq!(candidates, ["/src/mail.c", "/src/main.c"]);
}

#[track_caller]
fn check_excludes(world: &World, pattern: &str, excludes: &[&str], expected: Expect) {
    expected.assert_eq(&shown(select_with(&world.context(), pattern, excludes, Parents::Dropped)));
}

#[test]
fn excludes_are_relative_to_the_directory_copied() {
    let world = World::new(&["d/a.txt", "d/e/b.txt", "d/e/c.md", "d/f/g.txt", "home.txt", "home.md"]);
    check_excludes(
        &world,
        "d",
        &["*.txt", "e/b*"],
        expect![[r#"
        d /  from /d
        d /e  from /d/e
        f /e/c.md  from /d/e/c.md
        d /f  from /d/f
        f /f/g.txt  from /d/f/g.txt
    "#]],
    );
    check_excludes(
        &world,
        "d",
        &["*", "!e/*.md"],
        expect![[r#"
        d /  from /d
        d /e  from /d/e
        f /e/c.md  from /d/e/c.md
    "#]],
    );
    check_excludes(
        &world,
        "ho*",
        &["*.txt"],
        expect![[r#"
            f /home.md
            f /home.txt
        "#]],
    );
    check_excludes(
        &world,
        "home.md",
        &["*.md"],
        expect![[r#"
        f /home.md
    "#]],
    );
}

#[track_caller]
fn check_parents(world: &World, pattern: &str, expected: Expect) {
    expected.assert_eq(&shown(select_with(&world.context(), pattern, &["**/*.skip"], Parents::Kept)));
}

#[test]
fn parents_are_kept_below_the_pivot() {
    let world = World::new(&["x/y/a.txt", "x/y/b.md", "x/z/c.txt", "x/z/d.skip", "w/a.txt", "link -> x"]);
    check_parents(
        &world,
        "./x/y/a.txt",
        expect![[r#"
        d /
        d /x
        d /x/y
        f /x/y/a.txt
    "#]],
    );
    check_parents(
        &world,
        "x/./y/a.txt",
        expect![[r#"
        d /  from /x
        d /y  from /x/y
        f /y/a.txt  from /x/y/a.txt
    "#]],
    );
    check_parents(
        &world,
        "link/./z",
        expect![[r#"
        d /  from /x
        d /z  from /x/z
        f /z/c.txt  from /x/z/c.txt
    "#]],
    );
    check_parents(
        &world,
        "**/*.txt",
        expect![[r#"
        d /
        d /w
        f /w/a.txt
        d /x
        d /x/y
        f /x/y/a.txt
        d /x/z
        f /x/z/c.txt
    "#]],
    );
    check_parents(
        &world,
        "x/*/*.md",
        expect![[r#"
        d /
        d /x
        d /x/y
        f /x/y/b.md
    "#]],
    );
    check_parents(&world, "x/none*", expect!["nothing\n"]);
    check_parents(&world, "v/*", expect!["nothing\n"]);
    check_parents(&world, "x/none", expect!["`x/none` is not in the build context\n"]);
    check_parents(
        &world,
        "link/y/a.txt",
        expect!["`link/y/a.txt` lies below `/link`, which is not a directory\n"],
    );
}
