//! Artifacts in OCI layouts.
//!
//! Blobs are written beside their place and renamed; the index is replaced last. So whoever reads meanwhile finds the artifact of before, and so
//! does whoever comes after a writer that was killed. What only that of before had is removed then. Writers come one after the other.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci::{Descriptor, Digest, ImageManifest, VerifyingReader};
use serde_json::{Value, json};
use sys::lock::{FileLock, LockMode};

use super::{ArtifactError, INDEX, Kind, MANIFEST, MAX_MANIFEST_BYTES};
use crate::Layers;
use crate::export::output::{self, Destination};
use crate::export::{self, ExportError, package};
use crate::oci_layout::{INDEX_FILE, LAYOUT_FILE, REF_NAME, blob_path};

/// The bytes of the manifest of an artifact, or else of whatever has the name.
pub(super) fn manifest(directory: &Path, tag: &str, kind: Kind<'_>) -> Result<Vec<u8>, ArtifactError> {
    let index = index(directory)?.ok_or(ArtifactError::Missing)?;
    let entries = || index["manifests"].as_array().into_iter().flatten();
    let of_kind = entries().find(|entry| is_named(entry, tag, kind));
    let entry = of_kind.or_else(|| entries().find(|entry| has_name(entry, tag)));
    let entry = entry.ok_or(ArtifactError::Missing)?;
    let entry: Descriptor = serde_json::from_value(entry.clone())?;
    if entry.size() > MAX_MANIFEST_BYTES {
        return Err(ArtifactError::TooLarge { bytes: entry.size(), limit: MAX_MANIFEST_BYTES });
    }
    let mut bytes = Vec::new();
    open(directory, &entry)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(ArtifactError::Document)?;
    Ok(bytes)
}

/// The layout's index, if there is one.
fn index(directory: &Path) -> Result<Option<Value>, ArtifactError> {
    match read(&directory.join(INDEX_FILE)) {
        // Whatever it is else, nothing could be added to it.
        Ok(bytes) => Ok(Some(Value::Object(serde_json::from_slice(&bytes)?))),
        Err(ArtifactError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a blob, to be verified while it is read.
pub(super) fn open<'r>(directory: &Path, blob: &Descriptor) -> io::Result<Box<dyn Read + 'r>> {
    let digest = Digest::try_from(blob.digest()).map_err(io::Error::other)?;
    let path = path_of(directory, &digest);
    let file = File::open(&path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot open `{}`: {error}", path.display()))
    })?;
    Ok(Box::new(VerifyingReader::new(file, digest, Some(blob.size()))))
}

/// Whether a blob is there, by its length: whoever reads it looks at the rest.
pub(super) fn has(directory: &Path, blob: &Descriptor) -> Result<bool, ArtifactError> {
    let path = path_of(directory, &Digest::try_from(blob.digest())?);
    Ok(fs::metadata(path).is_ok_and(|found| found.len() == blob.size()))
}

/// Makes the directory, and lets no other writer in as long as the lock is held. Refuses a directory in which something else is.
pub(super) fn lock(directory: &Path) -> Result<FileLock, ArtifactError> {
    fs::create_dir_all(directory).map_err(ArtifactError::at("create", directory))?;
    let file = File::open(directory).map_err(ArtifactError::at("open", directory))?;
    let lock = FileLock::acquire(file, LockMode::Exclusive).map_err(ArtifactError::at("lock", directory))?;
    if !directory.join("blobs").exists() {
        export::existing_index(directory)?;
    }
    Ok(lock)
}

/// Writes a blob, unless one of its length is there: a blob is complete or absent.
pub(super) fn write(
    layers: &Layers<'_>,
    directory: &Path,
    digest: &Digest,
    file: &package::File,
) -> Result<bool, ArtifactError> {
    let path = path_of(directory, digest);
    if fs::metadata(&path).is_ok_and(|found| found.len() == file.size) {
        return Ok(false);
    }
    output::create_parents(&path)?;
    output::write(Destination::File(path), |to| file.copy(layers, to))?;
    Ok(true)
}

/// Lets a tag stand for a manifest whose blobs are there; gives what it stood for before.
pub(super) fn name(
    directory: &Path,
    tag: &str,
    kind: Kind<'_>,
    manifest: &[u8],
) -> Result<Vec<Value>, ArtifactError> {
    let digest = Digest::of(manifest);
    write_bytes(&path_of(directory, &digest), manifest)?;
    let mut index = index(directory)?.unwrap_or_else(|| json!({ "schemaVersion": 2, "mediaType": INDEX }));
    let all: Vec<Value> = index["manifests"].as_array().cloned().unwrap_or_default();
    let (replaced, mut kept): (Vec<Value>, Vec<Value>) =
        all.into_iter().partition(|entry| is_named(entry, tag, kind));
    kept.push(json!({
        "mediaType": MANIFEST,
        "artifactType": kind.artifact,
        "digest": digest,
        "size": manifest.len(),
        "annotations": { REF_NAME: tag },
    }));
    index["manifests"] = Value::Array(kept);
    write_bytes(
        &directory.join(LAYOUT_FILE),
        json!({ "imageLayoutVersion": "1.0.0" }).to_string().as_bytes(),
    )?;
    write_bytes(&directory.join(INDEX_FILE), index.to_string().as_bytes())?;
    Ok(replaced)
}

/// Removes the blobs of manifests that no other manifest has by now. Where it is not plain what those have, nothing is removed.
pub(super) fn remove_unused(directory: &Path, replaced: &[Value]) -> Result<(), ArtifactError> {
    let _lock = lock(directory)?;
    let index = index(directory)?.unwrap_or_default();
    let kept: Vec<Value> = index["manifests"].as_array().cloned().unwrap_or_default();
    let Some(used) = blobs_of(directory, &kept) else { return Ok(()) };
    // One that cannot be read any more leaves its blobs.
    for entry in replaced {
        let of_entry = blobs_of(directory, std::slice::from_ref(entry)).unwrap_or_default();
        for digest in of_entry.difference(&used) {
            let path = path_of(directory, digest);
            if let Err(error) = fs::remove_file(&path) {
                tracing::debug!(path = %path.display(), %error, "a blob that nobody needs stays");
            }
        }
    }
    Ok(())
}

/// All that these entries of an index need; `None` if one of them cannot be read, or is an index itself.
fn blobs_of(directory: &Path, entries: &[Value]) -> Option<HashSet<Digest>> {
    let mut blobs = HashSet::new();
    for entry in entries {
        let digest: Digest = entry["digest"].as_str()?.parse().ok()?;
        let manifest: ImageManifest =
            serde_json::from_slice(&read(&path_of(directory, &digest)).ok()?).ok()?;
        let named = manifest.layers().iter().chain([manifest.config()]);
        blobs.extend(named.filter_map(|blob| Digest::try_from(blob.digest()).ok()));
        blobs.insert(digest);
    }
    Some(blobs)
}

/// Whether an entry is an artifact of this kind and name. An image of the same name is another thing.
fn is_named(entry: &Value, tag: &str, kind: Kind<'_>) -> bool {
    has_name(entry, tag) && entry["artifactType"] == kind.artifact
}

fn has_name(entry: &Value, tag: &str) -> bool {
    entry["annotations"][REF_NAME] == tag
}

fn path_of(directory: &Path, digest: &Digest) -> PathBuf {
    let below = blob_path(digest).expect("a digest has no characters that a path cannot have");
    directory.join(below.as_relative())
}

/// Reads a document, unless it is too long to be one.
fn read(path: &Path) -> Result<Vec<u8>, ArtifactError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(ArtifactError::at("open", path))?;
    file.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes).map_err(ArtifactError::at("read", path))?;
    let (read, limit) = (bytes.len() as u64, MAX_MANIFEST_BYTES);
    if read > limit { Err(ArtifactError::TooLarge { bytes: read, limit }) } else { Ok(bytes) }
}

fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), ArtifactError> {
    output::create_parents(path)?;
    let to = Destination::File(path.to_path_buf());
    Ok(output::write(to, |to| to.write_all(bytes).map_err(ExportError::Write))?)
}
