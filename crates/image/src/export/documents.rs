//! The JSON documents of a layout: manifest, index, and Docker's `manifest.json`.
//!
//! Written by hand into ordered objects, since the vocabulary crate's types write maps in random order.

use std::collections::BTreeMap;

use oci::{Digest, ImageId, Platform, Reference};
use serde_json::{Value, json};
use sys::RootfsPath;

use super::annotations::{self, AnnotationOf};
use super::package::{File, Group, Manifest, Package, PackedLayer};
use super::{Annotation, ExportError, Format};
use crate::oci_layout::{IMAGE_NAME, INDEX_FILE, LAYOUT_FILE, REF_NAME, blob_path};

/// The OCI image manifest's media type.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The manifest of an image.
pub(super) fn manifest(
    image: &ImageId,
    config_bytes: usize,
    layers: &[PackedLayer],
    annotations: &BTreeMap<&str, &str>,
) -> Vec<u8> {
    let layer = |layer: &PackedLayer| {
        let media_type = layer.compression.layer_media_type().to_string();
        json!({ "mediaType": media_type, "digest": layer.digest, "size": layer.file.size })
    };
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": image.digest(), "size": config_bytes },
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    });
    annotations::add(&mut document, annotations);
    document.to_string().into_bytes()
}

/// The index of the images of several platforms.
pub(super) fn index(packages: &[Package], annotations: &[Annotation]) -> Manifest {
    let manifests: Vec<Value> = packages.iter().map(|package| of_platform(package, annotations)).collect();
    let mut document = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    annotations::add(&mut document, &annotations::select(annotations, |of| *of == AnnotationOf::Index));
    let bytes = document.to_string().into_bytes();
    Manifest { digest: Digest::of(&bytes), media_type: INDEX.to_owned(), bytes }
}

/// The documents at the top of an archive.
pub(super) fn of(groups: &[Group], format: Format) -> Result<BTreeMap<RootfsPath, File>, ExportError> {
    let mut documents = of_layout(groups, None)?;
    if format == Format::Docker {
        documents.push(("manifest.json", docker_manifest(groups)?));
    }
    documents.into_iter().map(|(name, bytes)| Ok((RootfsPath::parse(name)?, File::of(bytes)))).collect()
}

/// The documents at the top of a layout, in the order in which they are to be written. Entries of an index that is there stay, but for those
/// with a name that is given again.
pub(super) fn of_layout(
    groups: &[Group],
    existing: Option<Value>,
) -> Result<Vec<(&'static str, Vec<u8>)>, ExportError> {
    let own: Vec<Value> = groups.iter().flat_map(entries).collect();
    let mut index = existing.unwrap_or_else(|| json!({ "schemaVersion": 2, "mediaType": INDEX }));
    let mut manifests: Vec<Value> = index["manifests"].as_array().cloned().unwrap_or_default();
    manifests.retain(|old| !own.iter().any(|new| replaces(new, old)));
    manifests.extend(own);
    index["manifests"] = Value::Array(manifests);
    let layout = json!({ "imageLayoutVersion": "1.0.0" });
    Ok(vec![(LAYOUT_FILE, layout.to_string().into_bytes()), (INDEX_FILE, index.to_string().into_bytes())])
}

fn replaces(new: &Value, old: &Value) -> bool {
    let name = |entry: &Value| entry["annotations"].get(IMAGE_NAME).cloned();
    match (name(new), name(old)) {
        (None, None) => new["digest"] == old["digest"],
        (new, old) => new == old,
    }
}

/// An entry for each name, or one without a name.
fn entries(group: &Group) -> Vec<Value> {
    let entry = match (&group.index, &group.packages[..]) {
        (Some(index), _) => {
            let mut entry = descriptor(index);
            let own = annotations::select(&group.annotations, |of| *of == AnnotationOf::IndexDescriptor);
            annotations::add(&mut entry, &own);
            entry
        }
        (None, [package, ..]) => of_platform(package, &group.annotations),
        (None, []) => return Vec::new(),
    };
    if group.names.is_empty() {
        return vec![entry];
    }
    group.names.iter().map(|name| named(entry.clone(), name)).collect()
}

fn named(mut entry: Value, name: &Reference) -> Value {
    entry["annotations"][IMAGE_NAME] = json!(name.to_string());
    entry["annotations"][REF_NAME] = json!(name.tag().unwrap_or_default());
    entry
}

fn descriptor(manifest: &Manifest) -> Value {
    let Manifest { digest, media_type, bytes } = manifest;
    json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}

fn of_platform(package: &Package, annotations: &[Annotation]) -> Value {
    let platform = package.image.config.platform();
    let mut entry = descriptor(&package.manifest);
    entry["platform"] = json!({ "architecture": platform.architecture, "os": platform.os });
    if let Some(variant) = platform.variant {
        entry["platform"]["variant"] = Value::String(variant);
    }
    annotations::add(&mut entry, &annotations::of_descriptor(annotations, &package.image.config.platform()));
    entry
}

/// Docker's own document has no platforms: of several it names the image for this machine's.
fn docker_manifest(groups: &[Group]) -> Result<Vec<u8>, ExportError> {
    let mut images = Vec::with_capacity(groups.len());
    for group in groups {
        let fit = |package: &&Package| package.image.config.platform().fit(&Platform::host());
        let fitting = group.packages.iter().filter(|package| fit(package).is_some()).min_by_key(fit);
        let Some(package) = fitting.or(group.packages.first()) else { continue };
        let path =
            |digest: &Digest| blob_path(digest).map(|path| path.as_relative().to_string_lossy().into_owned());
        let layers: Result<Vec<String>, _> = package.layers.iter().map(|layer| path(&layer.digest)).collect();
        let tags: Vec<String> = group.names.iter().map(Reference::familiar).collect();
        images.push(json!({
            "Config": path(package.image.id.digest())?,
            "RepoTags": if tags.is_empty() { Value::Null } else { json!(tags) },
            "Layers": layers?,
        }));
    }
    Ok(Value::Array(images).to_string().into_bytes())
}
