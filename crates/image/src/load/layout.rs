//! OCI layouts (OCI image spec, "Image Layout").
//!
//! `index.json` refers to images, or to indexes of them. Of entries with one name, and of an index' entries, the best for the platform is taken.
//! Attestations, which BuildKit files beside the images they are about, are passed over.

use std::collections::BTreeMap;

use oci::{
    Config, Descriptor, Digest, ImageId, ImageIndex, ImageManifest, ManifestKind, Platform, Reference,
};

use super::bundle::Bundle;
use super::{Described, DocumentName, LoadError, Pick, reference};
use crate::oci_layout::{IMAGE_NAME, INDEX_FILE, LAYOUT_FILE, REF_NAME, blob_path};
use crate::receive::{self, DescriptorError};

/// Where a layout begins.
pub(super) const INDEX: DocumentName = DocumentName(INDEX_FILE);

/// What says that a directory is a layout.
const LAYOUT: DocumentName = DocumentName(LAYOUT_FILE);

/// BuildKit's annotation of entries that are about other entries.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Indexes within indexes that are followed.
const MAX_DEPTH: u32 = 4;

/// Reads the documents of every image of a layout.
pub(super) fn describe(bundle: &Bundle, platform: &Platform) -> Result<Vec<Described>, LoadError> {
    // A layout must say that it is one; without this an archive that is cut short after the index would pass for whole.
    bundle.read_document(&LAYOUT.path()?, None)?;
    let (index, _): (ImageIndex, _) = bundle.read_json(&INDEX.path()?, None)?;
    let mut images: Vec<Described> = Vec::new();
    for (name, entries) in by_name(index.manifests()) {
        let names = name.as_deref().map(full_name).transpose()?.flatten();
        let names: Vec<Reference> = names.into_iter().collect();
        let chosen = match name {
            // Without a name each is an image of its own, but for the variants of one that differ in platform.
            None if entries.iter().all(|entry| entry.platform().is_none()) => entries,
            _ => vec![choose(&entries, platform)?],
        };
        for entry in chosen {
            let image = follow(bundle, entry, platform, names.clone())?;
            match images.iter_mut().find(|known| known.documents.id == image.documents.id) {
                Some(known) => known.add_names(image.names),
                None => images.push(image),
            }
        }
    }
    Ok(images)
}

/// Reads the documents of one image of a layout.
pub(super) fn describe_one(
    bundle: &Bundle,
    wanted: &Pick,
    platform: &Platform,
) -> Result<Described, LoadError> {
    bundle.read_document(&LAYOUT.path()?, None)?;
    let (index, _): (ImageIndex, _) = bundle.read_json(&INDEX.path()?, None)?;
    let entries = by_name(index.manifests());
    let is_wanted = |name: Option<&str>, entry: &Descriptor| match wanted {
        Pick::Tag(tag) => name.is_some_and(|name| name == tag || name.ends_with(&format!(":{tag}"))),
        Pick::Digest(wanted) => digest(entry).is_ok_and(|digest| digest == *wanted),
    };
    let all = entries.iter().flat_map(|(name, entries)| entries.iter().map(move |entry| (name, *entry)));
    let found = all.filter(|(name, entry)| is_wanted(name.as_deref(), entry));
    let found: Vec<&Descriptor> = found.map(|(_, entry)| entry).collect();
    if found.is_empty() {
        let digests = index.manifests().iter().map(|entry| entry.digest().to_string());
        let available = match wanted {
            Pick::Tag(_) => entries.into_keys().flatten().collect(),
            Pick::Digest(_) => digests.collect(),
        };
        return Err(LoadError::NotInLayout { wanted: wanted.clone(), available });
    }
    follow(bundle, choose(&found, platform)?, platform, Vec::new())
}

/// The entries that may be images, by the name they have.
fn by_name(entries: &[Descriptor]) -> BTreeMap<Option<String>, Vec<&Descriptor>> {
    let mut named: BTreeMap<Option<String>, Vec<&Descriptor>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| is_image(entry)) {
        let annotation = |key| entry.annotations().as_ref().and_then(|all| all.get(key)).cloned();
        named.entry(annotation(IMAGE_NAME).or_else(|| annotation(REF_NAME))).or_default().push(entry);
    }
    named
}

fn is_image(entry: &Descriptor) -> bool {
    let is_about_others =
        entry.annotations().as_ref().is_some_and(|annotations| annotations.contains_key(REFERENCE_TYPE));
    !is_about_others && ManifestKind::of(entry.media_type().as_ref()).is_ok()
}

/// A name that is a tag alone says nothing of the repository, so the image stays without a name.
fn full_name(annotation: &str) -> Result<Option<Reference>, LoadError> {
    if annotation.contains(['/', ':']) { reference(annotation).map(Some) } else { Ok(None) }
}

/// The entry that fits best, the first of equals; one without a platform if no other fits.
fn choose<'e>(entries: &[&'e Descriptor], wanted: &Platform) -> Result<&'e Descriptor, LoadError> {
    let with_platform = entries.iter().filter_map(|entry| Some((*entry, platform_of(entry)?)));
    let best = with_platform
        .filter_map(|(entry, platform)| Some((platform.fit(wanted)?, entry)))
        .min_by_key(|(fit, _)| *fit);
    let best = best.map(|(_, entry)| entry);
    let unknown = || entries.iter().find(|entry| entry.platform().is_none()).copied();
    best.or_else(unknown).ok_or_else(|| {
        let mut available: Vec<Platform> = entries.iter().filter_map(|entry| platform_of(entry)).collect();
        available.sort();
        available.dedup();
        LoadError::NoPlatform { wanted: wanted.clone(), available }
    })
}

fn platform_of(entry: &Descriptor) -> Option<Platform> {
    let platform = entry.platform().as_ref()?;
    let (os, architecture) = (platform.os().to_string(), platform.architecture().to_string());
    Some(Platform::new(&os, &architecture, platform.variant().as_deref()))
}

/// Goes from an entry, through indexes, to an image's documents.
fn follow(
    bundle: &Bundle,
    entry: &Descriptor,
    platform: &Platform,
    names: Vec<Reference>,
) -> Result<Described, LoadError> {
    let mut indexes = Vec::new();
    let mut entry = entry.clone();
    while kind(&entry)? == ManifestKind::Index {
        if indexes.len() as u64 >= u64::from(MAX_DEPTH) {
            return Err(LoadError::TooDeep(MAX_DEPTH));
        }
        let named = digest(&entry)?;
        let (index, bytes): (ImageIndex, _) =
            bundle.read_json(&blob_path(&named)?, Some((&named, entry.size())))?;
        let images: Vec<&Descriptor> = index.manifests().iter().filter(|entry| is_image(entry)).collect();
        entry = choose(&images, platform)?.clone();
        indexes.push((named, bytes));
    }
    let named = digest(&entry)?;
    let (manifest, bytes): (ImageManifest, _) =
        bundle.read_json(&blob_path(&named)?, Some((&named, entry.size())))?;
    indexes.push((named, bytes));
    let mut described = describe_image(bundle, &manifest, names)?;
    described.documents.manifests = receive::known_manifests(&manifest, indexes)?;
    Ok(described)
}

fn describe_image(
    bundle: &Bundle,
    manifest: &ImageManifest,
    names: Vec<Reference>,
) -> Result<Described, LoadError> {
    let config = manifest.config();
    let named = digest(config)?;
    let name = blob_path(&named)?;
    let bytes = bundle.read_document(&name, Some((&named, config.size())))?;
    let parsed = Config::from_json(&bytes).map_err(|source| LoadError::Config { name, source })?;
    let mut layers = Vec::with_capacity(manifest.layers().len());
    for layer in manifest.layers() {
        let expected = receive::layer_bytes(layer)?;
        layers.push((blob_path(&expected.digest)?, Some(expected)));
    }
    Described::new(ImageId::new(named), (parsed, bytes), layers, names)
}

fn kind(entry: &Descriptor) -> Result<ManifestKind, DescriptorError> {
    Ok(ManifestKind::of(entry.media_type().as_ref())?)
}

fn digest(entry: &Descriptor) -> Result<Digest, DescriptorError> {
    Ok(entry.digest().try_into()?)
}
