//! Names of images, platforms, digests and addresses.

use std::hint::black_box;

use oci::{Digest, Platform, Reference};
use source::git::Repository;
use web::Url;

/// Reads a text as each of the names there are. What is read and written again is read as the same.
///
/// # Panics
/// If it is not.
pub fn reference(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(reference) = Reference::parse(&text) {
        assert_eq!(Reference::parse(&reference.to_string()).as_ref(), Ok(&reference));
        assert_eq!(Reference::parse(&reference.familiar()).as_ref(), Ok(&reference));
        assert!(Reference::parse(&reference.without_digest().to_string()).is_ok());
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse::<Platform>().as_ref(), Ok(&platform));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse::<Digest>().as_ref(), Ok(&digest));
    }
    if let Ok(repository) = Repository::parse(&text) {
        assert!(!repository.remote().starts_with('-') && !repository.host().is_empty());
    }
    if let Ok(url) = Url::parse(&text) {
        address(&url, &text);
    }
    black_box(plan::RemoteKind::of(&text));
}

fn address(url: &Url, text: &str) {
    assert_eq!(Url::parse(&url.full()).as_ref(), Ok(url), "read again");
    assert!(!url.host().is_empty() && !url.full().contains('@') || url.full().contains('/'));
    let name = source::http::file_name(url);
    assert!(!name.contains(['/', '\0']) && name != "..", "{name:?} is no name of a file");
    for location in [text, "/x", "//h/y", "?z", ""] {
        if let Ok(joined) = url.join(location) {
            black_box(joined.origin());
        }
    }
}
