//! Annotations of what is exported: which document or descriptor has which.

use std::collections::BTreeMap;

use oci::Platform;
use serde_json::{Value, json};

/// What an annotation is of (OCI image spec, annotations.md).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AnnotationOf {
    /// The manifest of an image, or of that for one platform.
    Manifest(Option<Platform>),
    /// The entry that leads to it.
    ManifestDescriptor(Option<Platform>),
    /// The index of the images of several platforms.
    Index,
    /// The entry that leads to that.
    IndexDescriptor,
}

/// A word about an image for those who find it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Annotation {
    /// Where it stands.
    pub of: AnnotationOf,
    /// By which it is found.
    pub key: String,
    /// Any text.
    pub value: String,
}

/// Those of which `is_meant` says so; a later one replaces an earlier one.
pub(super) fn select(
    annotations: &[Annotation],
    is_meant: impl Fn(&AnnotationOf) -> bool,
) -> BTreeMap<&str, &str> {
    let meant = annotations.iter().filter(|annotation| is_meant(&annotation.of));
    meant.map(|annotation| (annotation.key.as_str(), annotation.value.as_str())).collect()
}

pub(super) fn of_manifest<'a>(
    annotations: &'a [Annotation],
    platform: &Platform,
) -> BTreeMap<&'a str, &'a str> {
    select(annotations, |of| matches!(of, AnnotationOf::Manifest(asked) if is_for(asked.as_ref(), platform)))
}

pub(super) fn of_descriptor<'a>(
    annotations: &'a [Annotation],
    platform: &Platform,
) -> BTreeMap<&'a str, &'a str> {
    let is_meant = |of: &AnnotationOf| matches!(of, AnnotationOf::ManifestDescriptor(asked) if is_for(asked.as_ref(), platform));
    select(annotations, is_meant)
}

fn is_for(asked: Option<&Platform>, platform: &Platform) -> bool {
    asked.is_none_or(|asked| asked == platform)
}

/// Adds annotations to those of a document or a descriptor.
pub(super) fn add(document: &mut Value, annotations: &BTreeMap<&str, &str>) {
    for (key, value) in annotations {
        document["annotations"][*key] = json!(value);
    }
}
