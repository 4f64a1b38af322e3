//! ADD of what lies elsewhere: fetched once, asked about every time, and never trusted.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use testkit::site::Validators;

use crate::scene::{Scene, Upstream};
use crate::world::{succeed, write_files};

#[test]
fn an_unchanged_file_is_asked_about_and_not_fetched_again() {
    let Some(scene) = Scene::new("an_unchanged_file_is_asked_about_and_not_fetched_again") else { return };
    scene.site.put("/f.txt", b"content");
    let add = format!("ADD {} /d/", scene.site.url("/f.txt"));
    scene.build(&add, &[]);
    assert_eq!(scene.read("d/f.txt"), "content");
    let again = scene.build(&add, &[]);
    assert!(!again.contains("ran: ") && !again.contains("first time"), "{again}");
    assert_eq!(scene.read("d/f.txt"), "content");
    scene.build(&add, &["--no-cache"]);
    assert_eq!(scene.site.sent_bytes(), 7);
    assert_eq!(scene.site.requests("/f.txt").len(), 3);
    scene.world.assert_sound();
}

#[test]
fn a_changed_file_is_the_cause_of_a_rebuild() {
    let Some(scene) = Scene::new("a_changed_file_is_the_cause_of_a_rebuild") else { return };
    let url = scene.site.url("/f.txt");
    scene.site.put("/f.txt", b"one");
    scene.build(&format!("ADD {url} /f"), &[]);
    scene.site.put("/f.txt", b"two");
    let said = scene.build(&format!("ADD {url} /f"), &[]);
    assert!(said.contains(&format!("ran: {url} changed (ADD Dockerfile:2)")), "{said}");
    assert_eq!(scene.read("f"), "two");
    // Back again: nothing runs, since it was built before.
    scene.site.put("/f.txt", b"one");
    let said = scene.build(&format!("ADD {url} /f"), &[]);
    assert!(!said.contains("ran: "), "{said}");
    assert_eq!(scene.read("f"), "one");
}

#[test]
fn a_signature_in_a_url_is_neither_shown_as_a_cause_nor_one() {
    let Some(scene) = Scene::new("a_signature_in_a_url_is_neither_shown_as_a_cause_nor_one") else { return };
    scene.site.put("/f.txt", b"one");
    let add = |query: &str| format!("ADD {} /f", scene.site.url(&format!("/f.txt{query}")));
    scene.build(&add("?sig=first"), &[]);
    let said = scene.build(&add("?sig=second"), &[]);
    assert!(!said.contains("ran: "), "the content is the same: {said}");
    scene.site.put("/f.txt", b"two");
    let said = scene.build(&add("?sig=third"), &[]);
    let cause = format!("ran: {} changed (ADD Dockerfile:2)", scene.site.url("/f.txt"));
    assert!(said.contains(&cause), "{said}");
    assert_eq!(scene.read("f"), "two");
}

#[test]
fn a_file_is_private_as_old_as_the_server_says_and_named_by_its_url() {
    let Some(scene) = Scene::new("a_file_is_private_as_old_as_the_server_says_and_named_by_its_url") else {
        return;
    };
    scene.site.put_with("/a%5B1%5D.txt", b"x", Validators::Date("Sun, 06 Nov 1994 08:49:37 GMT".to_owned()));
    scene.site.put("/", b"unnamed");
    let (odd, bare) = (scene.site.url("/a%5B1%5D.txt"), scene.site.url("/"));
    scene.build(
        &format!("ADD {odd}?q=1 /d/\nADD {odd} {bare} /e/\nADD --chmod=640 --chown=7:8 {odd} /given"),
        &[],
    );
    let found = fs::metadata(scene.out().join("d/a[1].txt")).expect("the file");
    assert_eq!((found.permissions().mode() & 0o7777, found.mtime(), found.uid()), (0o600, 784_111_777, 0));
    assert_eq!(scene.read("e/__unnamed__"), "unnamed");
    let given = fs::metadata(scene.out().join("given")).expect("the file");
    assert_eq!((given.permissions().mode() & 0o7777, given.uid(), given.gid()), (0o640, 7, 8));
}

#[test]
fn local_fetched_and_inline_sources_stand_side_by_side() {
    let Some(scene) = Scene::new("local_fetched_and_inline_sources_stand_side_by_side") else { return };
    scene.site.put("/far", b"far");
    write_files(&scene.world.path("context"), &[("near", "near")]);
    let url = scene.site.url("/far");
    scene.build(&format!("ADD near {url} <<inline /d/\ntext\ninline"), &["-t", "app"]);
    assert_eq!(
        [scene.read("d/near"), scene.read("d/far"), scene.read("d/inline")],
        ["near", "far", "text\n"]
    );
    scene.build(&format!("ADD near {url} <<inline /d/\ntext\ninline"), &["-t", "app", "-o", "type=image"]);
    let history = succeed(scene.world.rbuild().args(["history", "--format=json", "app"]));
    let history = String::from_utf8_lossy(&history.stdout).into_owned();
    assert!(history.contains(&format!("ADD near {url} <<inline /d/ # buildkit")), "{history}");
}

#[test]
fn only_what_is_asked_for_is_unpacked() {
    let Some(scene) = Scene::new("only_what_is_asked_for_is_unpacked") else { return };
    let files = scene.world.path("files");
    write_files(&files, &[("inner", "inner")]);
    let tar = succeed(Command::new("tar").arg("-C").arg(&files).args(["-czf", "-", "inner"])).stdout;
    scene.site.put("/far.tgz", &tar);
    fs::create_dir_all(scene.world.path("context")).expect("a directory");
    fs::write(scene.world.path("context/near.tgz"), &tar).expect("a file");
    let url = scene.site.url("/far.tgz");
    let both = |flag: &str| format!("ADD {flag} near.tgz /near/\nADD {flag} {url} /far/");
    let is = |path: &str| scene.out().join(path).exists();
    scene.build(&both(""), &[]);
    assert_eq!([is("near/inner"), is("far/far.tgz"), is("far/inner")], [true, true, false]);
    scene.build(&both("--unpack=true"), &[]);
    assert_eq!([is("near/inner"), is("far/far.tgz"), is("far/inner")], [true, false, true]);
    scene.build(&both("--unpack=false"), &[]);
    assert_eq!([is("near/near.tgz"), is("far/far.tgz"), is("far/inner")], [true, true, false]);
}

#[test]
fn a_checksum_that_is_right_needs_no_server_and_a_wrong_one_is_refused() {
    let Some(scene) = Scene::new("a_checksum_that_is_right_needs_no_server") else { return };
    scene.site.put("/f", b"content");
    let url = scene.site.url("/f");
    let right = testkit::registry::digest(b"content");
    let add = |sum: &str| format!("ADD --checksum={sum} {url} /f");
    scene.build(&add(&right), &[]);
    scene.build(&add(&right), &[]);
    assert_eq!(scene.site.requests("/f").len(), 1, "the digest says what it is");
    let wrong = testkit::registry::digest(b"other");
    let said = scene.refused(&add(&wrong), &[], 1);
    assert!(said.contains("error[wrong-checksum]") && said.contains("Dockerfile:2:16"), "{said}");
    assert!(said.contains(&wrong) && said.contains(&right), "{said}");
    scene.build(&add("$SUM").replace("ADD", &format!("ARG SUM={right}\nADD")), &[]);
    assert_eq!(scene.read("f"), "content");
}

#[test]
fn a_secret_named_after_the_host_goes_to_the_host_and_nowhere_else() {
    let Some(scene) = Scene::new("a_secret_named_after_the_host_goes_to_the_host_and_nowhere_else") else {
        return;
    };
    scene.site.guard("/f", "Bearer abc", b"guarded");
    scene.site.guard("/g", "Basic xyz", b"by header");
    scene.site.redirect("/away", &scene.site.other_url("/open"));
    scene.site.put("/open", b"open");
    let token = scene.secret("HTTP_AUTH_TOKEN_127.0.0.1", "abc\n");
    let said = scene.refused(&format!("ADD {} /f", scene.site.url("/f")), &[], 3);
    assert!(said.contains("status 401") && said.contains("HTTP_AUTH_TOKEN_"), "{said}");
    scene.build(&format!("ADD {} {} /d/", scene.site.url("/f"), scene.site.url("/away")), &[&token]);
    assert_eq!([scene.read("d/f"), scene.read("d/away")], ["guarded", "open"]);
    assert_eq!(scene.site.requests("/away")[0].header("authorization"), Some("Bearer abc"));
    assert_eq!(scene.site.requests("/open")[0].header("authorization"), None);
    let header = scene.secret("HTTP_AUTH_HEADER_127.0.0.1", "Basic xyz");
    scene.build(&format!("ADD {} /g", scene.site.url("/g")), &[&header]);
    assert_eq!(scene.read("g"), "by header");
    let other = scene.secret("HTTP_AUTH_TOKEN_localhost", "abc");
    scene.refused(&format!("ADD {} /f", scene.site.url("/f")), &[&other], 3);
}

#[test]
fn what_was_fetched_is_counted_and_pruned() {
    let Some(scene) = Scene::new("what_was_fetched_is_counted_and_pruned") else { return };
    scene.site.put("/f", &[1; 100_000]);
    let add = format!("ADD {} /f", scene.site.url("/f"));
    scene.build(&add, &[]);
    let du = succeed(scene.world.rbuild().args(["du", "--format=json"]));
    let du: serde_json::Value = serde_json::from_slice(&du.stdout).expect("JSON");
    assert!(du["kinds"]["fetched sources"]["bytes"].as_u64().expect("a number") >= 100_000, "{du}");
    succeed(scene.world.rbuild().arg("prune"));
    scene.build(&add, &[]);
    assert_eq!(scene.site.sent_bytes(), 100_000, "a careful prune keeps it");
    succeed(scene.world.rbuild().args(["prune", "--all"]));
    scene.build(&add, &[]);
    assert_eq!(scene.site.sent_bytes(), 200_000);
    scene.world.assert_sound();
}

#[test]
fn a_repository_is_added_and_not_fetched_again_until_it_changes() {
    let Some(scene) = Scene::new("a_repository_is_added_and_not_fetched_again_until_it_changes") else {
        return;
    };
    let Some(upstream) = Upstream::new(&scene, None) else { return };
    let add = format!("ADD {} /src", upstream.url(""));
    scene.build(&add, &[]);
    assert_eq!([scene.read("src/a"), scene.read("src/d/b")], ["one", "b"]);
    assert!(!scene.out().join("src/.git").exists());
    let again = scene.build(&add, &[]);
    assert!(!again.contains("ran"), "{again}");
    // Another name for the same commit, and --no-cache, move nothing either.
    scene.build(&format!("ADD {} /src", upstream.url("#main")), &[]);
    scene.build(&add, &["--no-cache"]);
    assert_eq!(upstream.transfers(), 1);
    upstream.push(&[("a", "two")]);
    let said = scene.build(&add, &[]);
    assert!(said.contains(&format!("ran: {} changed (ADD Dockerfile:2)", upstream.url(""))), "{said}");
    assert_eq!(scene.read("src/a"), "two");
    scene.world.assert_sound();
}

#[test]
fn what_of_a_repository_is_meant_and_kept_is_as_asked() {
    let Some(scene) = Scene::new("what_of_a_repository_is_meant_and_kept_is_as_asked") else { return };
    let Some(upstream) = Upstream::new(&scene, None) else { return };
    let first = upstream.head();
    upstream.push(&[("a", "two")]);
    let mode =
        |path: &str| fs::metadata(scene.out().join(path)).expect("it is there").permissions().mode() & 0o7777;
    scene.build(
        &format!("ADD {} /d/\nADD {} /old", upstream.url("#main:d"), upstream.url(&format!("#{first}"))),
        &[],
    );
    assert_eq!([scene.read("d/b"), scene.read("old/a")], ["b", "one"]);
    assert_eq!([mode("old/a"), mode("old/d")], [0o644, 0o755]);
    scene.build(
        &format!(
            "ADD --keep-git-dir {} /flag\nADD {} /url",
            upstream.url(""),
            upstream.url("?keep-git-dir=true")
        ),
        &[],
    );
    assert!(scene.out().join("flag/.git/HEAD").exists() && scene.out().join("url/.git/HEAD").exists());
    scene.build(&format!("ADD --keep-git-dir=false --exclude=d {} /x", upstream.url("")), &[]);
    assert!(!scene.out().join("x/.git").exists() && !scene.out().join("x/d").exists());
}

#[test]
fn files_of_a_repository_are_as_old_as_the_checkout_or_the_commit() {
    const NAME: &str = "files_of_a_repository_are_as_old_as_the_checkout_or_the_commit";
    // Each in a store of its own: times are no content, so that what was built once with others would be reused.
    for (query, is_of_commit) in [("", false), ("?mtime=commit", true)] {
        let Some(scene) = Scene::new(NAME) else { return };
        let Some(upstream) = Upstream::new(&scene, None) else { return };
        scene.build(&format!("ADD {} /t", upstream.url(query)), &[]);
        let time = fs::metadata(scene.out().join("t/a")).expect("a file").mtime();
        assert_eq!(
            time.to_string() == upstream.git(&["show", "-s", "--format=%ct"]),
            is_of_commit,
            "{query}"
        );
    }
}

#[test]
fn a_commit_that_is_insisted_on_is_the_one_or_refused() {
    let Some(scene) = Scene::new("a_commit_that_is_insisted_on_is_the_one_or_refused") else { return };
    let Some(upstream) = Upstream::new(&scene, None) else { return };
    let (right, wrong) = (upstream.head(), "0123456789abcdef0123456789abcdef01234567");
    let add = |sum: &str| format!("ADD --checksum={sum} {} /src", upstream.url("#main"));
    scene.build(&add(&right), &[]);
    scene.build(&add(&right[..8]), &[]);
    let said = scene.refused(&add(wrong), &[], 1);
    assert!(said.contains("error[wrong-checksum]") && said.contains("Dockerfile:2:16"), "{said}");
    assert!(said.contains(wrong) && said.contains(&right), "{said}");
    assert!(scene.refused(&add("abc"), &[], 1).contains("`abc` is no commit's id"));
    // With the whole id and no branch, nobody is asked.
    let asked = scene.site.requests("/git/r.git/info/refs").len();
    scene.build(&format!("ADD --checksum={right} {} /src", upstream.url("")), &[]);
    assert_eq!(scene.site.requests("/git/r.git/info/refs").len(), asked);
}

#[test]
fn a_private_repository_opens_with_a_token_for_its_host() {
    let Some(scene) = Scene::new("a_private_repository_opens_with_a_token_for_its_host") else { return };
    let Some(upstream) = Upstream::new(&scene, Some("basic eC1hY2Nlc3MtdG9rZW46YWJj")) else { return };
    let add = format!("ADD {} /src", upstream.url(""));
    let said = scene.refused(&add, &[], 3);
    assert!(said.contains("GIT_AUTH_TOKEN"), "{said}");
    let host = scene.site.server().host();
    for (id, value) in [
        ("GIT_AUTH_TOKEN".to_owned(), "abc"),
        (format!("GIT_AUTH_TOKEN.{host}"), "abc\n"),
        ("GIT_AUTH_HEADER".to_owned(), "basic eC1hY2Nlc3MtdG9rZW46YWJj"),
    ] {
        scene.build(&add, &[&scene.secret(&id, value)]);
        assert_eq!(scene.read("src/a"), "one", "{id}");
    }
    scene.refused(&add, &[&scene.secret("GIT_AUTH_TOKEN.example.com", "abc")], 3);
}

#[test]
fn linked_and_inherited_instructions_fetch_as_well() {
    let Some(scene) = Scene::new("linked_and_inherited_instructions_fetch_as_well") else { return };
    scene.site.put("/f", b"one");
    let url = scene.site.url("/f");
    let context = scene.world.path("context");
    let text =
        format!("FROM scratch AS base\nADD --link {url} /linked\nONBUILD ADD {url} /inherited\nFROM base\n");
    write_files(&context, &[("Dockerfile", &text)]);
    let build = || {
        let output = format!("type=local,dest={}", scene.out().display());
        let mut command = scene.world.rbuild();
        command.args(["build", "--progress=plain", "-o", &output]).arg(&context);
        String::from_utf8_lossy(&succeed(&mut command).stderr).into_owned()
    };
    build();
    assert_eq!([scene.read("linked"), scene.read("inherited")], ["one", "one"]);
    fs::remove_dir_all(scene.out()).expect("the last result goes");
    let again = build();
    assert!(!again.contains("ran"), "{again}");
    fs::remove_dir_all(scene.out()).expect("the last result goes");
    scene.site.put("/f", b"two");
    build();
    assert_eq!([scene.read("linked"), scene.read("inherited")], ["two", "two"]);
    assert_eq!(scene.site.requests("/f").len(), 3, "each build asks once for what it adds twice");
}
