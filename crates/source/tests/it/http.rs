//! What is fetched, when, and who is told what.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use oci::Digest;
use source::Authorization;
use source::http::{Ask, Body, Client, HttpError, Limits, Options, Place, RedirectError};
use tempfile::TempDir;
use testkit::proxy::Proxy;
use testkit::site::{Site, Validators};
use web::{Proxies, Roots, Url};

/// The address that no redirect may lead to.
const INNER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A client that does not wait, and a place.
struct World {
    client: Client,
    directory: TempDir,
    site: Site,
}

impl World {
    fn new() -> Self {
        Self::with(Limits::DEFAULT)
    }

    fn with(limits: Limits) -> Self {
        Self::with_proxies(limits, Proxies::none())
    }

    fn with_proxies(limits: Limits, proxies: Proxies) -> Self {
        let client = Client::new(Options {
            limits,
            roots: Roots::Compiled,
            proxies,
            user_agent: "test".to_owned(),
            leads: |_, to| to != INNER,
            pause: Box::new(|_| {}),
        });
        Self { client: client.unwrap(), directory: tempfile::tempdir().unwrap(), site: Site::start() }
    }

    fn ask<T>(
        &self,
        url: &str,
        token: Option<&str>,
        what: impl FnOnce(&Ask<'_>) -> Result<T, HttpError>,
    ) -> Result<T, HttpError> {
        let (url, place) = (Url::parse(url).unwrap(), Place::new(self.directory.path().to_owned()));
        let authorization = token.map(|token| Authorization::bearer(token.as_bytes()).unwrap());
        let never = || false;
        what(&Ask { url: &url, authorization: authorization.as_ref(), place: &place, is_cancelled: &never })
    }

    fn resolve(&self, url: &str) -> Result<Digest, HttpError> {
        self.ask(url, None, |ask| self.client.resolve(ask))
    }

    fn obtain(&self, url: &str, content: &[u8]) -> Result<Body, HttpError> {
        self.ask(url, None, |ask| self.client.obtain(ask, &Digest::of(content)))
    }
}

#[test]
fn what_is_unchanged_is_asked_about_and_not_read() {
    for validators in [Validators::Tag, Validators::Date("Sun, 06 Nov 1994 08:49:37 GMT".to_owned())] {
        let world = World::new();
        let url = world.site.url("/f");
        world.site.put_with("/f", b"content", validators.clone());
        for _ in 0..3 {
            assert_eq!(world.resolve(&url).unwrap(), Digest::of(b"content"));
        }
        assert_eq!(world.site.sent_bytes(), 7, "{validators:?}");
        assert_eq!(world.site.requests("/f").len(), 3);
        world.obtain(&url, b"content").unwrap();
        assert_eq!(world.site.requests("/f").len(), 3, "what is here is not asked for");
    }
}

#[test]
fn what_cannot_be_recognised_is_read_each_time() {
    let world = World::new();
    world.site.put_with("/f", b"content", Validators::None);
    for _ in 0..2 {
        assert_eq!(world.resolve(&world.site.url("/f")).unwrap(), Digest::of(b"content"));
    }
    assert_eq!(world.site.sent_bytes(), 14);
}

#[test]
fn what_changed_is_read_again() {
    let world = World::new();
    let url = world.site.url("/f");
    world.site.put("/f", b"one");
    world.resolve(&url).unwrap();
    world.site.put("/f", b"two!");
    assert_eq!(world.resolve(&url).unwrap(), Digest::of(b"two!"));
    let body = world.obtain(&url, b"two!").unwrap();
    assert_eq!(std::fs::read(body.path).unwrap(), b"two!");
}

#[test]
fn a_body_is_private_and_as_old_as_the_server_says() {
    let world = World::new();
    let date = Validators::Date("Sun, 06 Nov 1994 08:49:37 GMT".to_owned());
    world.site.put_with("/f", b"x", date);
    let body = world.obtain(&world.site.url("/f"), b"x").unwrap();
    let found = body.path.metadata().unwrap();
    assert_eq!((found.permissions().mode() & 0o7777, found.mtime()), (0o600, 784_111_777));
}

#[test]
fn other_bytes_than_those_asked_for_are_refused_with_both_digests() {
    let world = World::new();
    world.site.put("/f", b"evil");
    let error = world.obtain(&world.site.url("/f"), b"good").unwrap_err();
    let HttpError::WrongDigest { expected, got, .. } = &error else { panic!("{error}") };
    assert_eq!((expected, got), (&Digest::of(b"good"), &Digest::of(b"evil")));
    assert!(
        error.to_string().contains(&expected.to_string()) && error.to_string().contains(&got.to_string())
    );
}

#[test]
fn a_kept_body_that_was_damaged_is_fetched_again() {
    let world = World::new();
    let url = world.site.url("/f");
    world.site.put("/f", b"content");
    let body = world.obtain(&url, b"content").unwrap();
    std::fs::write(&body.path, b"damaged").unwrap();
    let body = world.obtain(&url, b"content").unwrap();
    assert_eq!(std::fs::read(body.path).unwrap(), b"content");
    std::fs::remove_file(world.directory.path().join("body")).unwrap();
    assert_eq!(
        world.resolve(&url).unwrap(),
        Digest::of(b"content"),
        "without a body, nothing is conditional"
    );
}

#[test]
fn credentials_go_to_their_origin_only() {
    let world = World::new();
    let site = &world.site;
    site.redirect("/start", &site.url("/same"));
    site.redirect("/same", &site.other_url("/other"));
    site.redirect("/other", &site.url("/end"));
    site.guard("/end", "Bearer abc", b"secret");
    let digest = world.ask(&site.url("/start"), Some("abc"), |ask| world.client.resolve(ask)).unwrap();
    assert_eq!(digest, Digest::of(b"secret"));
    let sent = |path: &str| site.requests(path)[0].header("authorization").map(ToOwned::to_owned);
    assert_eq!(sent("/start").as_deref(), Some("Bearer abc"));
    assert_eq!(sent("/same").as_deref(), Some("Bearer abc"));
    assert_eq!(sent("/other"), None, "another origin");
    let error = world.resolve(&site.url("/end")).unwrap_err();
    assert!(matches!(error, HttpError::Status { status: 401, .. }), "{error}");
}

#[test]
fn redirects_lead_nowhere_that_only_we_can_reach() {
    let world = World::new();
    world.site.redirect("/in", "http://127.0.0.2:1/");
    let error = world.resolve(&world.site.url("/in")).unwrap_err();
    let HttpError::Redirect { source: RedirectError::Inward { address, .. }, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*address, INNER);
    let error = world.resolve("http://127.0.0.2:1/").unwrap_err();
    assert!(matches!(error, HttpError::Exchange { .. }), "what the user names is asked: {error}");
}

#[test]
fn redirects_end() {
    let world = World::new();
    world.site.redirect("/loop", &world.site.url("/loop"));
    let error = world.resolve(&world.site.url("/loop")).unwrap_err();
    assert!(matches!(error, HttpError::Redirect { source: RedirectError::TooMany(10), .. }), "{error}");
    world.site.redirect("/file", "file:///etc/passwd");
    let error = world.resolve(&world.site.url("/file")).unwrap_err();
    assert!(matches!(error, HttpError::Redirect { source: RedirectError::Url(_), .. }), "{error}");
}

#[test]
fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
    let world = World::new();
    let server = world.site.server();
    server.on("/flaky", |seen, exchange| match seen.earlier {
        0 => exchange.respond(503, &[], b""),
        1 => exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut"),
        _ => exchange.respond(200, &[], b"whole"),
    });
    assert_eq!(world.resolve(&world.site.url("/flaky")).unwrap(), Digest::of(b"whole"));
    assert_eq!(world.site.requests("/flaky").len(), 3);
    server.on("/down", |_, exchange| exchange.respond(503, &[], b""));
    assert!(matches!(world.resolve(&world.site.url("/down")), Err(HttpError::Status { status: 503, .. })));
    assert_eq!(world.site.requests("/down").len(), 4);
    assert!(matches!(world.resolve(&world.site.url("/none")), Err(HttpError::Status { status: 404, .. })));
    assert_eq!(world.site.requests("/none").len(), 1);
}

#[test]
fn size_and_silence_are_bounded() {
    let limits = Limits { body_bytes: 10, stall: Duration::from_millis(200), attempts: 1, ..Limits::DEFAULT };
    let world = World::with(limits);
    world.site.put("/large", b"eleven byte");
    let error = world.resolve(&world.site.url("/large")).unwrap_err();
    assert!(matches!(error, HttpError::TooLarge { limit_bytes: 10, .. }), "{error}");
    world.site.server().on("/silent", |_, exchange| {
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")?;
        exchange.hold();
        Ok(())
    });
    let error = world.resolve(&world.site.url("/silent")).unwrap_err();
    assert!(matches!(error, HttpError::Cut { .. }), "{error}");
}

#[test]
fn a_proxy_is_asked_for_what_is_not_here_and_not_led_inward() {
    let proxy = Proxy::start();
    let address = format!("http://me:secret@{}", proxy.address());
    let world = World::with_proxies(
        Limits::DEFAULT,
        Proxies::from_variables(|name| (name == "http_proxy").then_some(&*address)).unwrap(),
    );
    world.site.put("/a", b"a");
    world.site.redirect("/inward", &format!("http://{INNER}/a"));
    // The proxy knows the name; we need not.
    let far = |path: &str| world.site.url(path).replace("127.0.0.1", "far.test");
    assert_eq!(world.resolve(&far("/a")).unwrap(), Digest::of(b"a"));
    let error = world.resolve(&far("/inward")).unwrap_err();
    assert!(matches!(error, HttpError::Redirect { source: RedirectError::Inward { .. }, .. }), "{error:?}");
    assert_eq!(proxy.tunnels().len(), 2);
    assert!(proxy.tunnels().iter().all(|tunnel| tunnel.to.starts_with("far.test:")));
    // A proxy that refuses is named, and asked once.
    let error = world.resolve("http://far.test:1/a").unwrap_err();
    assert!(
        matches!(&error, HttpError::Proxy { proxy: named, .. } if *named == proxy.address()),
        "{error:?}"
    );
    assert_eq!(proxy.tunnels().len(), 3);
    // This machine is asked directly.
    world.resolve(&world.site.url("/a")).unwrap();
    assert_eq!(proxy.tunnels().len(), 3);
}
