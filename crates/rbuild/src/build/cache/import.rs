//! What `--cache-from` brings.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ::cache::{Cache, Portable, PortableRecord, RecordedLayer, StepRecord};
use image::Layers;
use image::artifact::{self, ArtifactError, Loaded, Options};
use oci::{Descriptor, DiffId, Digest, Platform};
use plan::Plan;
use solver::Sought;
use store::RecordKey;

use super::{CacheFrom, KIND, Site, cache_mounts, say, warn, with_causes};
use crate::commands::registry::{Connection, TRANSFERS, View};
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::Failure;

/// All caches that results may come from, the first one asked first.
#[derive(Debug, Default)]
pub(crate) struct Imports<'i> {
    pub(super) sources: Vec<Source<'i>>,
    /// Steps, by their index, whose results are no other machine's.
    bound: Vec<bool>,
}

/// One cache, without its layers.
#[derive(Debug)]
pub(super) struct Source<'i> {
    pub(super) name: String,
    pub(super) site: Site<'i>,
    pub(super) portable: Portable,
    pub(super) blobs: Vec<Descriptor>,
    by_key: HashMap<RecordKey, usize>,
    /// Of the records.
    document: Digest,
    /// Held while layers come, several at once: whoever wants the same ones waits, and then finds them here. That is why it is held for as long as the
    /// registry takes; a cancelled client ends that.
    fetching: Mutex<()>,
}

impl<'i> Imports<'i> {
    /// Reads the records of all caches. One that is not there, or cannot be read, is told and passed over: the build does without it.
    pub(crate) fn open(
        wanted: &'i [CacheFrom],
        connection: &Connection<'_>,
        platforms: &[Platform],
        environment: &Environment,
        view: View,
    ) -> Result<Self, Failure> {
        let mut sources = Vec::with_capacity(wanted.len());
        for CacheFrom { place } in wanted {
            let name = place.to_string();
            let site = Site::of(place, connection)?;
            match Source::load(&name, &site, platforms) {
                Ok(found) => {
                    let count: usize = found.iter().map(|source| source.portable.records.len()).sum();
                    let mounts: usize = found.iter().map(|source| source.portable.mounts.len()).sum();
                    let (count, mounts) = (super::steps(count), cache_mounts(mounts));
                    say(view, format_args!("found the results of {count}{mounts} in the cache {name}"));
                    sources.extend(found);
                }
                Err(_) if connection.is_cancelled() => return Err(Failure::cancelled()),
                Err(LoadError::Artifact(ArtifactError::Missing)) => {
                    let title = format!("there is no cache at `{name}` yet");
                    let warning = Diagnostic::warning("cache-import", title);
                    warn(view, environment, &warning.note("the build goes on without it"));
                }
                Err(error) => {
                    let title = format!("cannot import the cache at `{name}`");
                    let warning = Diagnostic::warning("cache-import", title).note(with_causes(&error));
                    warn(view, environment, &warning.note("the build goes on without it"));
                }
            }
        }
        Ok(Self { sources, bound: Vec::new() })
    }

    /// Says which steps are not to be looked for.
    pub(super) fn leave_out(&mut self, plan: &Plan) {
        self.bound = plan.bound_to_machine();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Brings a result here, with its layers, and records it. The text says why what a cache has does not come.
    pub(crate) fn find(
        &self,
        sought: &Sought<'_>,
        layers: &Layers<'_>,
        cache: &Cache<'_>,
    ) -> Result<Option<StepRecord>, String> {
        let mut trouble = Ok(None);
        if self.bound.get(sought.step.index()).copied().unwrap_or(false) {
            return trouble;
        }
        for source in &self.sources {
            let Some(record) = source.record(sought.key, sought.own) else { continue };
            if !cache.is_wanted(source.portable.layers_of(record).map(|layer| layer.created.as_str())) {
                continue;
            }
            match source.fetch(record, sought, layers, cache) {
                Ok(found) => return Ok(Some(found)),
                Err(_) if layers.is_cancelled() => return Ok(None),
                Err(error) => {
                    let why = with_causes(&error);
                    trouble = Err(format!("its result does not come from the cache {}: {why}", source.name));
                }
            }
        }
        trouble
    }

    /// What a cache has under a definition key, wherever its layers are.
    pub(super) fn known(&self, definition: &RecordKey, own: usize) -> Option<(&Source<'i>, &PortableRecord)> {
        self.sources.iter().find_map(|source| Some((source, source.record(definition, own)?)))
    }
}

/// Why there are no records.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Portable(#[from] ::cache::PortableError),
}

/// Why a result does not come.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Receive(#[from] image::ReceiveError),
    #[error(transparent)]
    Image(#[from] image::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Whoever recorded it did so for other files.
    #[error("it stands on other files than it should")]
    OtherBelow,
}

impl<'i> Source<'i> {
    /// What is at a place: several of an image for several platforms.
    fn load(name: &str, site: &Site<'i>, platforms: &[Platform]) -> Result<Vec<Self>, LoadError> {
        let read = |Loaded { document, blobs }| {
            let portable = Portable::from_json(&document, blobs.len())?;
            let by_key = portable.by_key();
            let (name, site, document) = (name.to_owned(), site.clone(), Digest::of(&document));
            Ok(Self { name, site, portable, blobs, by_key, document, fetching: Mutex::default() })
        };
        site.place().load(KIND, platforms)?.into_iter().map(read).collect()
    }

    /// A record, if it is of a step with so many layers.
    fn record(&self, key: &RecordKey, own: usize) -> Option<&PortableRecord> {
        let record = &self.portable.records[*self.by_key.get(key)?];
        (record.layers.len() == own).then_some(record)
    }

    fn fetch(
        &self,
        record: &PortableRecord,
        sought: &Sought<'_>,
        layers: &Layers<'_>,
        cache: &Cache<'_>,
    ) -> Result<StepRecord, FetchError> {
        let of_layer =
            |layer: &::cache::PortableLayer| (layer.diff_id.clone(), self.blobs[layer.blob].clone());
        let wanted: Vec<(DiffId, Descriptor)> = self.portable.layers_of(record).map(of_layer).collect();
        let all = wanted.iter().fold(0, |all: u64, (_, blob)| all.saturating_add(blob.size()));
        let come = AtomicU64::new(0);
        let progress = |more| (sought.progress)(come.fetch_add(more, Ordering::Relaxed) + more, all);
        let options = Options { transfers: TRANSFERS, progress: &progress };
        let below: Vec<_> = sought.base.iter().map(|layer| layer.id.clone()).collect();
        let ids = {
            let _fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
            artifact::receive(layers, &self.site.place(), &below, &wanted, options)?
        };
        let mut made = sought.base.clone();
        for (id, layer) in ids.into_iter().zip(self.portable.layers_of(record)) {
            let content = layers.layer(&id)?.facts().content.clone();
            made.push(RecordedLayer { id, content, created: layer.created.clone() });
        }
        if let (Some(expected), Some((_, below))) = (&sought.below, made.split_last())
            && ::cache::key::content_of(below.iter().map(|layer| &layer.content)) != *expected
        {
            return Err(FetchError::OtherBelow);
        }
        let found = StepRecord {
            layers: made,
            millis: record.millis,
            log: None,
            upstream: record.upstream.clone(),
            content: record.content.clone(),
            origin: Some(self.document.clone()),
        };
        // Under this key alone: that it is right for another one is no more than a word of whoever wrote it.
        cache.put_under(sought.key, &found)?;
        Ok(found)
    }
}
