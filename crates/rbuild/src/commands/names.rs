//! Image names as a person gives them.

use oci::Reference;

use crate::failure::Failure;

/// The name of an image that is elsewhere.
pub(crate) fn name(text: &str) -> Result<Reference, Failure> {
    Reference::parse(text).map_err(|error| {
        let title = format!("`{text}` is no image name: {error}");
        let help = "a name looks like `alpine` or `alpine:3.20`";
        Failure::usage(title, help)
    })
}

/// A name to be given to an image, which therefore cannot have a digest.
pub(crate) fn new_name(text: &str) -> Result<Reference, Failure> {
    let refused = |why: &str, help: &str| {
        let title = format!("`{text}` cannot name an image: {why}");
        Failure::usage(title, help)
    };
    let reference = Reference::parse(text).map_err(|error| {
        refused(
            &error.to_string(),
            "a name looks like `app`, `app:1.2` or `registry.example.com/team/app:1.2`",
        )
    })?;
    match reference.digest() {
        None => Ok(reference),
        Some(_) => Err(refused("a digest follows from the content", "leave out the part from `@`")),
    }
}

/// Whether a name is written with a tag or a digest.
pub(crate) fn has_tag(text: &str) -> bool {
    text.rsplit('/').next().is_some_and(|last| last.contains([':', '@']))
}

/// For `--all-tags`: a name that has one says two things.
pub(crate) fn check_without_tag(text: &str) -> Result<(), Failure> {
    if !has_tag(text) {
        return Ok(());
    }
    let title = format!("`{text}` has a tag, and `--all-tags` is for all of them");
    Err(Failure::usage(title, "leave out one of the two"))
}
