//! Blobs and manifests into a registry.

use std::cell::Cell;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use expect_test::expect;
use oci::{Digest, Reference};
use registry::{Client, Credentials, Delivery, Growing, Outgoing, PushError, Source};
use testkit::registry::{Access, MANIFEST, Registry};

use crate::world::{Setup, chain, client, limits, login, reference, setup};

/// A blob in memory.
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Source for Bytes {
    fn read(
        &self,
        from: u64,
        consume: &mut dyn FnMut(&mut dyn Read) -> Result<(), PushError>,
    ) -> Result<(), PushError> {
        consume(&mut &self.0[usize::try_from(from).unwrap()..])
    }
}

pub(crate) fn push(
    client: &Client,
    reference: &Reference,
    bytes: &[u8],
    mount_from: Option<&str>,
) -> Result<Delivery, String> {
    let digest = Digest::of(bytes);
    let (source, size) = (Bytes(bytes.to_vec()), bytes.len() as u64);
    let told = Cell::new(0);
    let outgoing =
        Outgoing { digest: &digest, size, source: &source, mount_from, progress: &|bytes| told.set(bytes) };
    let delivery = client.push_blob(reference, &outgoing).map_err(|error| chain(&error))?;
    assert_eq!(told.get(), if delivery == Delivery::Sent { size } else { 0 });
    Ok(delivery)
}

fn large() -> Vec<u8> {
    (0..100_000u32).flat_map(u32::to_le_bytes).collect()
}

/// Method and path of each request, and how long its body is.
fn seen(registry: &Registry) -> String {
    let requests = registry.requests();
    let line = |seen: &testkit::registry::Seen| {
        let path = seen.path.split("sha256:").next().unwrap_or_default();
        let from = seen.header("content-range").map(|range| format!(" at {range}")).unwrap_or_default();
        format!("{} {path} {}{from}", seen.method, seen.body.len())
    };
    requests.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_pushed_can_be_pulled_and_is_not_pushed_again() {
    let registry = Registry::start();
    let (client, app) = (client(), reference(&registry, "team/app"));
    assert_eq!(push(&client, &app, b"small", None), Ok(Delivery::Sent));
    assert_eq!(push(&client, &app, &large(), None), Ok(Delivery::Sent));
    assert_eq!(push(&client, &app, &large(), None), Ok(Delivery::Existed));
    let manifest = format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{}},"layers":[]}}"#);
    client.push_manifest(&app, MANIFEST, manifest.as_bytes()).unwrap();
    assert_eq!(client.manifest(&app).unwrap().bytes, manifest.as_bytes());
    expect![[r#"
        GET /v2/ 0
        HEAD /v2/team/app/blobs/ 0
        POST /v2/team/app/blobs/uploads/ 0
        PUT /v2/team/app/blobs/uploads/0 5
        HEAD /v2/team/app/blobs/ 0
        POST /v2/team/app/blobs/uploads/ 0
        PATCH /v2/team/app/blobs/uploads/1 400000
        PUT /v2/team/app/blobs/uploads/1 0
        HEAD /v2/team/app/blobs/ 0
        PUT /v2/team/app/manifests/latest 100
        GET /v2/team/app/manifests/latest 0"#]]
    .assert_eq(&seen(&registry));
}

#[test]
fn a_blob_of_another_repository_is_taken_over_from_there() {
    let registry = Registry::start();
    registry.set_access(Access::Token(Some(("hub", "pw"))));
    let client = Setup { credentials: login(&registry.host(), "hub", "pw"), ..setup() }.client().0;
    push(&client, &reference(&registry, "team/base"), &large(), None).unwrap();
    let app = reference(&registry, "team/app");
    assert_eq!(push(&client, &app, &large(), Some("team/base")), Ok(Delivery::Mounted));
    // Where it is not, it is sent.
    let other = reference(&registry, "team/other");
    assert_eq!(push(&client, &other, &large(), Some("team/nothing")), Ok(Delivery::Sent));
    let scopes = registry.requests().into_iter().filter(|seen| seen.path == "/token");
    let scopes: Vec<String> = scopes.map(|seen| seen.query.replace("%3A", ":").replace("%2F", "/")).collect();
    expect![[r#"
        service=testkit&scope=repository:team/base:pull%2Cpush&account=hub
        service=testkit&scope=repository:team/app:pull%2Cpush&account=hub
        service=testkit&scope=repository:team/app:pull%2Cpush&scope=repository:team/base:pull&account=hub
        service=testkit&scope=repository:team/other:pull%2Cpush&account=hub
        service=testkit&scope=repository:team/other:pull%2Cpush&scope=repository:team/nothing:pull&account=hub"#]]
    .assert_eq(&scopes.join("\n"));
}

#[test]
fn an_upload_that_breaks_off_goes_on_where_it_was() {
    let registry = Registry::start();
    registry.on("/v2/team/app/blobs/uploads/", |seen, exchange| match (&*seen.method, seen.earlier) {
        ("PATCH", 0 | 2) => {
            exchange.break_off_after(150_000);
            Ok(())
        }
        _ => exchange.serve(),
    });
    assert_eq!(push(&client(), &reference(&registry, "team/app"), &large(), None), Ok(Delivery::Sent));
    expect![[r#"
        GET /v2/ 0
        HEAD /v2/team/app/blobs/ 0
        POST /v2/team/app/blobs/uploads/ 0
        PATCH /v2/team/app/blobs/uploads/0 400000
        GET /v2/team/app/blobs/uploads/0 0
        PATCH /v2/team/app/blobs/uploads/0 250000 at 150000-399999
        GET /v2/team/app/blobs/uploads/0 0
        PATCH /v2/team/app/blobs/uploads/0 100000 at 300000-399999
        PUT /v2/team/app/blobs/uploads/0 0"#]]
    .assert_eq(&seen(&registry));
}

#[test]
fn an_upload_that_is_gone_begins_anew() {
    let registry = Registry::start();
    registry.on("/v2/team/app/blobs/uploads/0", |seen, exchange| match &*seen.method {
        "PATCH" => Ok(()),
        _ => exchange.respond(404, &[], b""),
    });
    assert_eq!(push(&client(), &reference(&registry, "team/app"), &large(), None), Ok(Delivery::Sent));
    assert_eq!(registry.requests().iter().filter(|seen| seen.method == "POST").count(), 2);
}

#[test]
fn an_upload_that_never_gets_anywhere_ends() {
    let registry = Registry::start();
    registry.on("/v2/team/app/blobs/uploads/", |seen, exchange| match &*seen.method {
        "PATCH" => Ok(()),
        _ => exchange.serve(),
    });
    let result = push(&client(), &reference(&registry, "team/app"), &large(), None);
    let error = result.unwrap_err().replace(&registry.host(), "HOST");
    expect!["`HOST` broke the connection (tried 3 times)"].assert_eq(&error);
}

#[test]
fn a_token_that_runs_out_within_an_upload_is_asked_for_anew() {
    let registry = Registry::start();
    registry.set_access(Access::Token(None));
    let has_run_out = AtomicUsize::new(0);
    registry.on("/v2/team/app/blobs/uploads/", move |seen, exchange| match &*seen.method {
        "PATCH" if has_run_out.fetch_add(1, Ordering::Relaxed) == 0 => exchange.respond(401, &[], b""),
        _ => exchange.serve(),
    });
    assert_eq!(push(&client(), &reference(&registry, "team/app"), &large(), None), Ok(Delivery::Sent));
}

#[test]
fn who_may_not_push_is_told_so() {
    let registry = Registry::start();
    registry.set_access(Access::Basic("hub", "pw"));
    let error = |credentials: Credentials| {
        let client = Setup { credentials, ..setup() }.client().0;
        let result = push(&client, &reference(&registry, "team/app"), b"x", None);
        result.unwrap_err().replace(&registry.host(), "HOST")
    };
    expect!["`HOST` refuses `team/app` without a login (status 401; it may also not exist)"]
        .assert_eq(&error(Credentials::none()));
    expect!["`HOST` refuses `team/app` to `hub` (status 401; it may also not exist)"]
        .assert_eq(&error(login(&registry.host(), "hub", "guess")));
}

#[test]
fn what_the_registry_says_must_fit_what_was_sent() {
    let registry = Registry::start();
    let app = reference(&registry, "team/app");
    registry.on("/v2/team/app/blobs/uploads/", |seen, exchange| match &*seen.method {
        "POST" if seen.earlier == 0 => exchange.respond(202, &[], b""),
        "POST" if seen.earlier == 1 => exchange.respond(202, &[("Location", "ftp://elsewhere/")], b""),
        "POST" if seen.earlier == 2 => exchange.redirect("/v2/other/blobs/uploads/"),
        "PUT" => {
            let other = Digest::of(b"other").to_string();
            exchange.respond(201, &[("Docker-Content-Digest", &other)], b"")
        }
        _ => exchange.serve(),
    });
    let mut errors = String::new();
    for _ in 0..4 {
        errors += &push(&client(), &app, b"x", None).unwrap_err().replace(&registry.host(), "HOST");
        errors += "\n";
    }
    expect![[r#"
        `HOST` does not say where an upload goes on
        `HOST` redirects to where it may not: `ftp://elsewhere/` is neither https nor http
        `HOST` redirects to where it may not: a request that is no GET is not repeated elsewhere
        `HOST` was given sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 and calls it sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa
    "#]].assert_eq(&errors);
}

#[test]
fn an_upload_elsewhere_gets_no_credentials() {
    let (registry, elsewhere) = (Registry::start(), Registry::start());
    registry.set_access(Access::Basic("hub", "pw"));
    let location = format!("http://{}/upload", elsewhere.host());
    registry.on("/v2/team/app/blobs/uploads/", move |_, exchange| {
        exchange.respond(202, &[("Location", &location)], b"")
    });
    elsewhere.on("/upload", |_, exchange| exchange.respond(201, &[("Location", "/upload")], b""));
    let client = Setup { credentials: login(&registry.host(), "hub", "pw"), ..setup() }.client().0;
    for bytes in [b"small".to_vec(), large()] {
        assert_eq!(push(&client, &reference(&registry, "team/app"), &bytes, None), Ok(Delivery::Sent));
    }
    let requests = elsewhere.requests();
    assert_eq!(requests.iter().map(|seen| seen.body.len()).collect::<Vec<_>>(), [5, 400_000, 0]);
    assert!(requests.iter().all(|seen| seen.header("authorization").is_none()));
}

#[test]
fn who_refuses_to_take_a_blob_over_is_sent_it() {
    for status in [401, 403, 404, 405] {
        let registry = Registry::start();
        registry.on("/v2/team/app/blobs/uploads/", move |seen, exchange| match &*seen.query {
            query if query.contains("mount=") => exchange.respond(status, &[], b""),
            _ => exchange.serve(),
        });
        let app = reference(&registry, "team/app");
        assert_eq!(push(&client(), &app, &large(), Some("team/base")), Ok(Delivery::Sent), "{status}");
    }
    // An answer to something else: nothing was asked to be taken over.
    let registry = Registry::start();
    registry.on("/v2/team/app/blobs/uploads/", |_, exchange| exchange.respond(201, &[], b""));
    assert!(push(&client(), &reference(&registry, "team/app"), b"x", None).is_err());
}

#[test]
fn an_upload_whose_place_is_not_told_begins_anew() {
    for status in [416, 400, 403, 405] {
        let registry = Registry::start();
        registry.on("/v2/team/app/blobs/uploads/", move |seen, exchange| match &*seen.method {
            "PATCH" if seen.path.ends_with("/0") => {
                exchange.break_off_after(100_000);
                Ok(())
            }
            "GET" => exchange.respond(status, &[], b""),
            _ => exchange.serve(),
        });
        let app = reference(&registry, "team/app");
        assert_eq!(push(&client(), &app, &large(), None), Ok(Delivery::Sent), "{status}");
    }
}

#[test]
fn an_upload_that_comes_and_goes_ends() {
    let registry = Registry::start();
    let asked = AtomicUsize::new(0);
    registry.on("/v2/team/app/blobs/uploads/", move |seen, exchange| match &*seen.method {
        "PATCH" => Ok(()),
        "GET" => {
            let range =
                if asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) { "0-99999" } else { "0-0" };
            exchange.respond(204, &[("Range", range)], b"")
        }
        _ => exchange.serve(),
    });
    let error = push(&client(), &reference(&registry, "team/app"), &large(), None).unwrap_err();
    assert!(error.contains("broke the connection (tried 3 times)"), "{error}");
}

#[test]
fn what_was_taken_without_an_answer_is_there() {
    for bytes in [b"small".to_vec(), large()] {
        let registry = Registry::start();
        registry.on("/v2/team/app/blobs/uploads/", |seen, exchange| match &*seen.method {
            "PUT" => {
                exchange.take_silently();
                Ok(())
            }
            _ => exchange.serve(),
        });
        assert_eq!(push(&client(), &reference(&registry, "team/app"), &bytes, None), Ok(Delivery::Sent));
        let puts = registry.requests().iter().filter(|seen| seen.method == "PUT").count();
        assert_eq!(puts, 1);
    }
}

#[test]
fn an_upload_that_was_joined_wrongly_begins_anew() {
    let registry = Registry::start();
    registry.on("/v2/team/app/blobs/uploads/", |seen, exchange| match (&*seen.method, seen.earlier) {
        ("PATCH", 0) if seen.path.ends_with("/0") => {
            exchange.break_off_after(100_000);
            Ok(())
        }
        // It says that it has less than it has.
        ("GET", _) if seen.path.ends_with("/0") => exchange.respond(204, &[("Range", "0-89999")], b""),
        ("PATCH", _) if seen.path.ends_with("/0") => exchange.append(),
        _ => exchange.serve(),
    });
    assert_eq!(push(&client(), &reference(&registry, "team/app"), &large(), None), Ok(Delivery::Sent));
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let registry = Registry::start();
    registry.answer_before_the_body("/v2/team/app/blobs/uploads/0");
    registry.on("/v2/team/app/blobs/uploads/0", |_, exchange| exchange.respond(413, &[], b""));
    let error = push(&client(), &reference(&registry, "team/app"), &large(), None).unwrap_err();
    assert!(error.ends_with("answered with status 413"), "{error}");
}

/// A blob of which only the first half can be read.
struct Half(Vec<u8>);

impl Source for Half {
    fn read(
        &self,
        from: u64,
        consume: &mut dyn FnMut(&mut dyn Read) -> Result<(), PushError>,
    ) -> Result<(), PushError> {
        consume(&mut &self.0[usize::try_from(from).unwrap()..self.0.len() / 2])
    }
}

#[test]
fn a_blob_that_cannot_be_read_to_its_end_ends_the_push() {
    let registry = Registry::start();
    let bytes = large();
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    let source = Half(bytes);
    let outgoing = Outgoing { digest: &digest, size, source: &source, mount_from: None, progress: &|_| {} };
    let result = client().push_blob(&reference(&registry, "team/app"), &outgoing);
    assert!(matches!(result, Err(PushError::Source(_))), "{result:?}");
}

#[test]
fn a_registry_that_says_nothing_about_a_blob_is_sent_it() {
    let (registry, elsewhere) = (Registry::start(), Registry::start());
    let location = format!("http://{}/blob", elsewhere.host());
    elsewhere.on("/blob", |_, exchange| exchange.respond(403, &[], b""));
    registry.on("/v2/team/app/blobs/sha256:", move |_, exchange| exchange.redirect(&location));
    assert_eq!(push(&client(), &reference(&registry, "team/app"), &large(), None), Ok(Delivery::Sent));
}

#[test]
fn an_answer_to_a_blob_may_take_longer_than_others() {
    let registry = Registry::start();
    registry.on("/v2/team/app/blobs/uploads/", |seen, exchange| {
        if seen.method == "PATCH" || seen.method == "PUT" {
            std::thread::sleep(Duration::from_millis(600));
        }
        exchange.serve()
    });
    let brief = registry::Limits {
        first_byte: Duration::from_millis(200),
        stall: Duration::from_millis(200),
        taken: Duration::from_secs(20),
        ..limits()
    };
    let client = Setup { limits: brief, ..setup() }.client().0;
    assert_eq!(push(&client, &reference(&registry, "team/app"), &large(), None), Ok(Delivery::Sent));
    assert_eq!(seen(&registry).matches("PATCH").count(), 1);
}

#[test]
fn who_never_says_that_he_took_a_blob_is_not_asked_again() {
    let registry = Registry::start();
    registry.on("/v2/team/app/", |seen, exchange| match &*seen.method {
        "PATCH" | "PUT" => {
            exchange.hold();
            Ok(())
        }
        _ => exchange.serve(),
    });
    let brief = registry::Limits { taken: Duration::from_millis(300), ..limits() };
    let client = Setup { limits: brief, ..setup() }.client().0;
    let app = reference(&registry, "team/app");
    for bytes in [b"small".to_vec(), large()] {
        let error = push(&client, &app, &bytes, None).unwrap_err();
        assert!(error.contains("did not say that it took what was sent within 300ms"), "{error}");
    }
    let error = client.push_manifest(&app, MANIFEST, b"{}").unwrap_err();
    assert!(error.to_string().contains("did not say"), "{error}");
    let sent = registry.requests().iter().filter(|seen| ["PATCH", "PUT"].contains(&&*seen.method)).count();
    assert_eq!(sent, 3);
}

#[test]
fn a_manifest_that_is_called_something_else_is_an_error() {
    let registry = Registry::start();
    let other = Digest::of(b"other").to_string();
    registry.on("/v2/team/app/manifests/", move |_, exchange| {
        exchange.respond(201, &[("Docker-Content-Digest", &other)], b"")
    });
    let result = client().push_manifest(&reference(&registry, "team/app"), MANIFEST, b"{}");
    assert!(matches!(result, Err(PushError::WrongDigest { .. })), "{result:?}");
}

/// Pushes a blob whose name is known when so much of it has been read.
fn push_growing(
    client: &Client,
    reference: &Reference,
    bytes: &[u8],
    known_from: u64,
) -> Result<Delivery, String> {
    let told = Cell::new(0);
    let known = || (told.get() >= known_from).then(|| (Digest::of(bytes), bytes.len() as u64));
    let growing = Growing {
        source: &Bytes(bytes.to_vec()),
        known: &known,
        wait: &|| {},
        progress: &|sent| told.set(sent.max(told.get())),
    };
    client.push_growing(reference, &growing).map_err(|error| chain(&error))
}

#[test]
fn what_is_still_made_is_sent_before_it_has_a_name() {
    let registry = Registry::start();
    let app = reference(&registry, "team/app");
    assert_eq!(push_growing(&client(), &app, &large(), 400_000), Ok(Delivery::Sent));
    expect![[r#"
        GET /v2/ 0
        POST /v2/team/app/blobs/uploads/ 0
        PATCH /v2/team/app/blobs/uploads/0 400000
        PUT /v2/team/app/blobs/uploads/0 0"#]]
    .assert_eq(&seen(&registry));
    assert!(client().has_blob(&app, &Digest::of(large())).unwrap());
}

#[test]
fn what_was_sent_without_a_name_goes_on_where_it_broke_off() {
    let registry = Registry::start();
    registry.on("/v2/team/app/blobs/uploads/", |seen, exchange| match (&*seen.method, seen.earlier) {
        ("PATCH", 0) => {
            exchange.break_off_after(150_000);
            Ok(())
        }
        _ => exchange.serve(),
    });
    let app = reference(&registry, "team/app");
    assert_eq!(push_growing(&client(), &app, &large(), 1), Ok(Delivery::Sent));
    expect![[r#"
        GET /v2/ 0
        POST /v2/team/app/blobs/uploads/ 0
        PATCH /v2/team/app/blobs/uploads/0 400000
        GET /v2/team/app/blobs/uploads/0 0
        PATCH /v2/team/app/blobs/uploads/0 250000 at 150000-399999
        PUT /v2/team/app/blobs/uploads/0 0"#]]
    .assert_eq(&seen(&registry));
}

#[test]
fn who_wants_to_know_the_length_is_told_it() {
    let registry = Registry::start();
    registry.on("/v2/team/app/blobs/uploads/", |seen, exchange| match seen.header("transfer-encoding") {
        Some(_) => exchange.respond(411, &[], b""),
        None => exchange.serve(),
    });
    let app = reference(&registry, "team/app");
    assert_eq!(push_growing(&client(), &app, &large(), 1), Ok(Delivery::Sent));
    assert!(client().has_blob(&app, &Digest::of(large())).unwrap());
}

#[test]
fn who_refuses_what_is_still_made_is_not_waited_for() {
    let registry = Registry::start();
    let app = reference(&registry, "team/app");
    for (status, waits) in [(403, false), (404, true), (413, true), (503, true)] {
        let has_waited = Cell::new(false);
        registry.on("/v2/team/app/blobs/uploads/", move |seen, exchange| match &*seen.method {
            "PATCH" => exchange.respond(status, &[], b""),
            _ => exchange.serve(),
        });
        let growing = Growing {
            source: &Bytes(large()),
            known: &|| None,
            wait: &|| has_waited.set(true),
            progress: &|_| {},
        };
        assert!(client().push_growing(&app, &growing).is_err(), "{status}");
        assert_eq!(has_waited.get(), waits, "{status}");
    }
}

#[test]
fn a_token_that_runs_out_while_a_blob_is_made_is_asked_for_anew() {
    let registry = Registry::start();
    registry.set_access(Access::Token(None));
    let has_run_out = AtomicUsize::new(0);
    registry.on("/v2/team/app/blobs/uploads/", move |seen, exchange| match &*seen.method {
        "PATCH" if has_run_out.fetch_add(1, Ordering::Relaxed) == 0 => exchange.respond(401, &[], b""),
        _ => exchange.serve(),
    });
    assert_eq!(push_growing(&client(), &reference(&registry, "team/app"), &large(), 1), Ok(Delivery::Sent));
}

#[test]
fn what_turns_out_to_be_there_is_not_sent_to_its_end() {
    let registry = Registry::start();
    let app = reference(&registry, "team/app");
    let bytes: Vec<u8> = large().repeat(10);
    registry.add_blob(bytes.clone());
    assert_eq!(push_growing(&client(), &app, &bytes, 1), Ok(Delivery::Existed));
    let requests = registry.requests();
    assert!(requests.iter().all(|seen| seen.method != "PUT"), "{requests:?}");
    assert!(requests.iter().all(|seen| seen.body.len() < bytes.len()), "{requests:?}");
}

#[test]
fn what_is_never_made_becomes_no_blob() {
    let registry = Registry::start();
    let growing = Growing { source: &Broken, known: &|| None, wait: &|| {}, progress: &|_| {} };
    let result = client().push_growing(&reference(&registry, "team/app"), &growing);
    assert!(matches!(result, Err(PushError::Source(_))), "{result:?}");
    assert!(registry.requests().iter().all(|seen| seen.method != "PUT"));
}

/// A blob that cannot be made to its end.
struct Broken;

impl Source for Broken {
    fn read(
        &self,
        _: u64,
        consume: &mut dyn FnMut(&mut dyn Read) -> Result<(), PushError>,
    ) -> Result<(), PushError> {
        consume(&mut (&[1; 100_000][..]).chain(Failing))
    }
}

/// Fails whenever it is read.
struct Failing;

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("no more"))
    }
}
