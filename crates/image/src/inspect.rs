//! One image in all detail, in the shape in which Docker's `image inspect` gives it.

use oci::{Config, DiffId, Execution, ImageId, Reference};
use serde::Serialize;
use store::Tag;

use crate::{Error, Layers, LocalImage, list};

/// An image as Docker's API describes it (Docker Engine API, `ImageInspect`).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspected {
    /// The digest of its config.
    pub id: ImageId,
    /// Names with a tag.
    pub repo_tags: Vec<String>,
    /// Names with a digest: by which it was pulled, or what its names' manifests are.
    pub repo_digests: Vec<String>,
    /// The comment of the last line of its history.
    pub comment: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Set by `MAINTAINER`.
    pub author: String,
    /// How to run it.
    pub config: Execution,
    /// Go's name of the processor.
    pub architecture: String,
    /// Processor variant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Go's name of the operating system.
    pub os: String,
    /// The sum of its files' sizes in bytes.
    pub size: u64,
    /// Its layers.
    #[serde(rename = "RootFS")]
    pub root_fs: InspectedRootFs,
}

/// The layers of an image as Docker's API describes them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InspectedRootFs {
    /// Always `layers`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Lowest first.
    pub layers: Vec<DiffId>,
}

/// Describes an image.
///
/// # Errors
/// [`Error`].
pub fn inspect(layers: &Layers<'_>, image: &LocalImage) -> Result<Inspected, Error> {
    let tags = layers.lease().store().tags()?;
    let names: Vec<Reference> = tags.into_iter().filter(|tag| tag.has(&image.id)).map(name_of).collect();
    let Config { created, author, architecture, os, variant, rootfs, history, execution, .. } =
        image.config.clone();
    Ok(Inspected {
        id: image.id.clone(),
        repo_tags: names.iter().filter(|name| name.digest().is_none()).map(Reference::familiar).collect(),
        repo_digests: digests(image, &names),
        comment: history.last().map(|last| last.comment.clone()).unwrap_or_default(),
        created,
        author,
        config: execution,
        architecture,
        variant,
        os,
        size: list::size_bytes(layers, image)?,
        root_fs: InspectedRootFs { kind: rootfs.kind, layers: rootfs.diff_ids },
    })
}

fn name_of(tag: Tag) -> Reference {
    tag.reference
}

/// Every repository the image has a name in, with every manifest that is known.
fn digests(image: &LocalImage, names: &[Reference]) -> Vec<String> {
    let known = image.manifests.iter().map(|known| &known.digest);
    let mut all: Vec<String> =
        known.flat_map(|digest| names.iter().map(|name| name.at_digest(digest.clone()).familiar())).collect();
    all.sort();
    all.dedup();
    all
}
