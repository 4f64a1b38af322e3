//! What other people's tars mean.

use expect_test::{Expect, expect};
use layer::merged::Merged;

use crate::support::{read_tar, read_tar_over, show, tar_of};

#[track_caller]
fn check(lower: &[(char, &str, &str)], members: &[(char, &str, &str)], expected: Expect) {
    let lower = if lower.is_empty() {
        Merged::default()
    } else {
        Merged::new(vec![read_tar(&tar_of(lower)).entries])
    };
    let shown = match read_tar_over(&tar_of(members), &lower) {
        Ok(read) => show(&read.entries),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&shown);
}

#[test]
fn missing_parents_are_made_or_taken_from_below() {
    check(
        &[],
        &[('f', "a/b/c", "x")],
        expect![[r#"
            /a 755 0:0 dir
            /a/b 755 0:0 dir
            /a/b/c 644 3:4 file 1 2d7116
        "#]],
    );
    check(
        &[('d', "a/", ""), ('d', "a/b/", "")],
        &[('f', "a/b/c", "x")],
        expect![[r#"
            /a 755 3:4 dir implied
            /a/b 755 3:4 dir implied
            /a/b/c 644 3:4 file 1 2d7116
        "#]],
    );
}

#[test]
fn a_path_through_a_link_lands_where_the_link_leads() {
    let usr_merged =
        [('d', "usr/", ""), ('d', "usr/lib/", ""), ('l', "lib", "usr/lib"), ('l', "abs", "/usr/lib")];
    check(
        &usr_merged,
        &[('f', "lib/x", "1"), ('f', "abs/y", "2")],
        expect![[r#"
            /usr 755 3:4 dir implied
            /usr/lib 755 3:4 dir implied
            /usr/lib/x 644 3:4 file 1 6b86b2
            /usr/lib/y 644 3:4 file 1 d4735e
        "#]],
    );
    check(
        &[],
        &[('d', "usr/", ""), ('l', "bin", "usr/../../usr"), ('f', "bin/x", "1")],
        expect![[r#"
            /bin 777 3:4 -> usr/../../usr
            /usr 755 3:4 dir
            /usr/x 644 3:4 file 1 6b86b2
        "#]],
    );
    check(
        &usr_merged,
        &[('d', "lib/", "")],
        expect![[r#"
        /lib 755 3:4 dir
    "#]],
    );
}

#[test]
fn whiteouts_hide_lower_layers_only_whatever_their_order() {
    check(
        &[('f', "a", "1")],
        &[('f', ".wh.a", "")],
        expect![[r#"
        /a whiteout
    "#]],
    );
    check(
        &[('d', "d/", "")],
        &[('d', "d/", ""), ('f', ".wh.d", "")],
        expect![[r#"
        /d 755 3:4 dir opaque
    "#]],
    );
    check(
        &[('d', "d/", "")],
        &[('f', ".wh.d", ""), ('d', "d/", ""), ('f', "d/x", "")],
        expect![[r#"
        /d 755 3:4 dir opaque
        /d/x 644 3:4 file 0 e3b0c4
    "#]],
    );
    check(
        &[('d', "d/", "")],
        &[('f', "d/.wh..wh..opq", ""), ('f', "d/x", "")],
        expect![[r#"
        /d 755 3:4 dir opaque
        /d/x 644 3:4 file 0 e3b0c4
    "#]],
    );
    check(&[], &[('f', "d/.wh..", "")], expect!["`/d/.wh..` is not a whiteout of anything"]);
}

#[test]
fn the_last_member_of_a_name_counts() {
    check(
        &[],
        &[('d', "d/", ""), ('f', "d/x", "1"), ('f', "d", "2")],
        expect![[r#"
        /d 644 3:4 file 1 d4735e
    "#]],
    );
    check(
        &[],
        &[('f', "d", "2"), ('d', "d/", ""), ('f', "d/x", "1")],
        expect![[r#"
        /d 755 3:4 dir
        /d/x 644 3:4 file 1 6b86b2
    "#]],
    );
}

#[test]
fn hard_links_stay_inside_their_tar() {
    check(
        &[],
        &[('f', "z", "1"), ('h', "a", "z"), ('h', "b", "./z")],
        expect![[r#"
            /a 644 3:4 file 1 6b86b2
            /b 644 3:4 hard link to /a
            /z 644 3:4 hard link to /a
        "#]],
    );
    check(
        &[('f', "low", "1")],
        &[('h', "a", "low")],
        expect!["hard link `/a` points at `/low`, which is not a file of the same tar"],
    );
    check(&[], &[('h', "a", "../../etc/passwd")], expect!["the tar has an impossible path"]);
}

#[test]
fn hostile_members_are_refused() {
    check(&[], &[('f', "../x", "")], expect!["the tar has an impossible path"]);
    check(&[], &[('f', "a/../../x", "")], expect!["the tar has an impossible path"]);
    check(&[], &[('c', "x", "0")], expect!["`/x` carries a mark that is reserved for overlayfs"]);
    check(
        &[],
        &[('f', "f", ""), ('f', "f/x", "")],
        expect!["`/f/x` lies below `/f`, which is not a directory"],
    );
    check(
        &[],
        &[('l', "a", "b"), ('l', "b", "a"), ('f', "a/x", "")],
        expect!["`/a/x` goes through too many symbolic links"],
    );
    assert!(
        read_tar_over(b"this is no tar at all, but long enough".repeat(20).as_slice(), &Merged::default())
            .is_err()
    );
}

#[test]
fn lawful_odd_names_are_cleaned() {
    check(
        &[],
        &[('d', "./", ""), ('f', "/abs", ""), ('f', "./a/.././b", "")],
        expect![[r#"
        / 755 3:4 dir
        /abs 644 3:4 file 0 e3b0c4
        /b 644 3:4 file 0 e3b0c4
    "#]],
    );
}

#[test]
fn the_answer_from_below_is_part_of_what_was_looked_up() {
    let over = |lower: &[(char, &str, &str)]| {
        let lower = Merged::new(vec![read_tar(&tar_of(lower)).entries]);
        read_tar_over(&tar_of(&[('f', "a/x", "")]), &lower).unwrap().lookups.unwrap()
    };
    assert_ne!(over(&[('d', "a/", "")]), over(&[('l', "a", "b"), ('d', "b/", "")]));
    assert_eq!(over(&[('d', "a/", "")]), over(&[('d', "a/", ""), ('f', "elsewhere", "")]));
}
