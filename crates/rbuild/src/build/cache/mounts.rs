//! Cache mounts that travel: what `RUN --mount=type=cache` keeps.
//!
//! One that is not here is filled when a RUN wants it, and else at the end of the build: whoever builds next finds it. One that is here stays as it is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::cache::{Portable, PortableMount};
use image::Layers;
use image::artifact::directory::{self, Before, Chunked, DirectoryError};
use image::artifact::{Loaded, Part, Place};
use oci::{Descriptor, MediaType};
use plan::{CacheMount, Mount, Op, Plan};
use store::{CacheMountRequest, CacheSharing};

use super::import::{Imports, Source};
use super::{KIND, with_causes};
use crate::commands::registry::TRANSFERS;

/// What a cache mount consists of.
const DOCUMENT: &str = "application/vnd.rbuild.cache.mount.v1+json+zstd";

/// Compressed chunks, one behind the other.
const PACK: &str = "application/vnd.rbuild.cache.chunks.v1";

/// Which cache mounts travel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Mounts {
    None,
    /// All that the build's steps have.
    All,
    /// Those of these ids.
    Ids(Vec<String>),
}

impl Mounts {
    fn include(&self, id: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Ids(ids) => ids.iter().any(|wanted| wanted == id),
        }
    }
}

/// The cache mounts of a plan's steps, by id.
pub(super) fn of_plan(plan: &Plan) -> BTreeMap<&str, &CacheMount> {
    let mut found = BTreeMap::new();
    for step in &plan.steps {
        let Op::Run(run) = &step.op else { continue };
        for mount in &run.mounts {
            if let Mount::Cache(cache) = mount {
                found.entry(cache.id.as_str()).or_insert(cache);
            }
        }
    }
    found
}

fn request<'r>(id: &'r str, cache: &CacheMount) -> CacheMountRequest<'r> {
    let CacheMount { mode, uid, gid, .. } = cache;
    let (sharing, seed) = (CacheSharing::Locked, None);
    CacheMountRequest { id, sharing, mode: *mode, uid: *uid, gid: *gid, seed }
}

/// Moves all that is in a directory.
fn move_content(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::rename(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

impl Imports<'_> {
    /// Fills a new directory with what the first cache that has the mount has of it.
    pub(crate) fn fill_cache(&self, id: &str, into: &Path, layers: &Layers<'_>) -> Result<bool, String> {
        let Some(content) = self.restored(id, layers)? else { return Ok(false) };
        move_content(&content, into).map(|()| true).map_err(|error| {
            format!("the cache mount `{id}` begins empty, since it cannot be filled: {error}")
        })
    }

    /// Fills those of a plan's cache mounts that are not here; gives their ids, and why others are not.
    pub(crate) fn fill_missing(&self, plan: &Plan, layers: &Layers<'_>) -> (Vec<String>, Vec<String>) {
        let (mut filled, mut trouble) = (Vec::new(), Vec::new());
        for (id, cache) in of_plan(plan) {
            match self.fill_one(id, cache, layers) {
                Ok(true) => filled.push(id.to_owned()),
                Ok(false) => {}
                Err(message) => trouble.push(message),
            }
        }
        (filled, trouble)
    }

    fn fill_one(&self, id: &str, cache: &CacheMount, layers: &Layers<'_>) -> Result<bool, String> {
        let failed =
            |error: store::Error| format!("the cache mount `{id}` was not filled: {}", with_causes(&error));
        if layers.lease().store().has_cache_mount(id).map_err(failed)? {
            return Ok(false);
        }
        let Some(content) = self.restored(id, layers)? else { return Ok(false) };
        let seed = |directory: &Path| move_content(&content, directory);
        let request = CacheMountRequest { seed: Some(&seed), ..request(id, cache) };
        let claimed = layers.lease().cache_mount(&request, || layers.is_cancelled()).map_err(failed)?;
        Ok(claimed.is_some())
    }

    /// A directory of the lease with what a mount held.
    fn restored(&self, id: &str, layers: &Layers<'_>) -> Result<Option<PathBuf>, String> {
        let Some((source, mount)) = self.mount(id) else { return Ok(None) };
        match source.restore(mount, layers) {
            Ok(directory) => Ok(Some(directory)),
            Err(_) if layers.is_cancelled() => Ok(None),
            Err(error) => {
                let why = with_causes(&error);
                Err(format!("the cache mount `{id}` does not come from the cache {}: {why}", source.name))
            }
        }
    }

    fn mount(&self, id: &str) -> Option<(&Source<'_>, &PortableMount)> {
        let of_source =
            |source: &'_ Source<'_>| source.portable.mounts.iter().position(|mount| mount.id == id);
        let (source, at) = self.sources.iter().find_map(|source| Some((source, of_source(source)?)))?;
        Some((source, &source.portable.mounts[at]))
    }
}

impl Source<'_> {
    fn restore(&self, mount: &PortableMount, layers: &Layers<'_>) -> Result<PathBuf, DirectoryError> {
        let directory = layers.lease().scratch_dir()?;
        let blob = &self.blobs[mount.blob];
        directory::restore(layers, &self.site.place(), blob, &directory, TRANSFERS)?;
        Ok(directory)
    }
}

/// What the place has by now that is written to.
pub(super) struct Present {
    portable: Portable,
    blobs: Vec<Descriptor>,
}

impl Present {
    /// Nothing, if it cannot be read: then all is sent.
    pub(super) fn load(place: &Place<'_>) -> Option<Self> {
        let loaded = place.load(KIND, &[]).inspect_err(|error| {
            tracing::debug!(%error, "what is there is not looked at");
        });
        let Loaded { document, blobs } = loaded.ok()?.into_iter().next()?;
        let portable = Portable::from_json(&document, blobs.len()).ok()?;
        Some(Self { portable, blobs })
    }

    fn before<'p>(&self, place: Place<'p>, id: &str) -> Option<Before<'p>> {
        let mount = self.portable.mounts.iter().find(|mount| mount.id == id)?;
        Before::load(place, &self.blobs[mount.blob], &self.blobs).ok()
    }
}

/// Adds the cache mounts that are to travel; gives why others do not.
pub(super) fn add<'p>(
    wanted: &Mounts,
    plan: &Plan,
    layers: &Layers<'_>,
    place: Place<'p>,
    portable: &mut Portable,
    parts: &mut Vec<Part<'p>>,
) -> Vec<String> {
    let mut trouble = Vec::new();
    let all = of_plan(plan);
    let all: Vec<_> = all.into_iter().filter(|(id, _)| wanted.include(id)).collect();
    let present = if all.is_empty() { None } else { Present::load(&place) };
    for (id, cache) in all {
        let before = present.as_ref().and_then(|present| present.before(place, id));
        match chunked(id, cache, layers, before.as_ref()) {
            Ok(Some(Chunked { document, packs })) => {
                let blob = parts.len();
                parts.push(Part::Bytes { media_type: MediaType::from(DOCUMENT), bytes: document });
                let first = parts.len();
                parts.extend(packs);
                let packs = (first..parts.len()).collect();
                portable.mounts.push(PortableMount { id: id.to_owned(), blob, packs });
            }
            Ok(None) if layers.is_cancelled() => {}
            // What the place has of it stays.
            Ok(None) => carry(id, present.as_ref(), place, portable, parts),
            Err(error) => {
                trouble.push(format!("the cache mount `{id}` is not exported: {error}"));
                carry(id, present.as_ref(), place, portable, parts);
            }
        }
    }
    trouble
}

/// Leaves a cache mount as the place has it.
fn carry<'p>(
    id: &str,
    present: Option<&Present>,
    place: Place<'p>,
    portable: &mut Portable,
    parts: &mut Vec<Part<'p>>,
) {
    let Some(present) = present else { return };
    let Some(mount) = present.portable.mounts.iter().find(|mount| mount.id == id) else { return };
    let mut of = |blob: usize| {
        parts.push(Part::Of { place, blob: Box::new(present.blobs[blob].clone()) });
        parts.len() - 1
    };
    let (blob, packs) = (of(mount.blob), mount.packs.iter().map(|pack| of(*pack)).collect());
    portable.mounts.push(PortableMount { id: id.to_owned(), blob, packs });
}

/// How long another build may use a cache mount before it is not exported.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cache mount in chunks, if it is here. Nobody else uses it meanwhile. The error says why it is not to be had.
fn chunked<'p>(
    id: &str,
    cache: &CacheMount,
    layers: &Layers<'_>,
    before: Option<&Before<'p>>,
) -> Result<Option<Chunked<'p>>, String> {
    if !layers.lease().store().has_cache_mount(id).map_err(|error| with_causes(&error))? {
        return Ok(None);
    }
    let began = Instant::now();
    let is_over = || layers.is_cancelled() || began.elapsed() > PATIENCE;
    let claimed = layers.lease().cache_mount(&request(id, cache), is_over);
    match claimed.map_err(|error| with_causes(&error))? {
        Some(claimed) => {
            let chunked = directory::chunk(layers, claimed.path(), before, &MediaType::from(PACK));
            chunked.map(Some).map_err(|error| with_causes(&error))
        }
        None if layers.is_cancelled() => Ok(None),
        None => Err(format!("another build has been using it for {} s", PATIENCE.as_secs())),
    }
}
