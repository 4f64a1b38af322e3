//! What `--cache-to` sends.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

use ::cache::{Cache, Portable, PortableLayer, PortableRecord, RecordedLayer, StepRecord};
use image::artifact::{self, ArtifactError, Part, Stored};
use image::export::{Annotation, Encoding};
use image::{Assembled, Layers};
use oci::LayerId;
use plan::{Linkage, Op, Plan, Step, StepId};
use solver::{Filesystem, Solved};
use store::RecordKey;

use super::import::{Imports, Source};
use super::{CacheTo, KIND, Mode, Site, Where, cache_mounts, mounts, say, warn, with_causes};
use crate::commands::registry::{Connection, TRANSFERS, View};
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::listing::human_bytes;

/// What a build has made, or what there is of it if it failed.
#[derive(Clone, Copy)]
pub(super) struct Made<'m> {
    pub(super) plan: &'m Plan,
    /// Definition keys, by step index.
    pub(super) keys: &'m [RecordKey],
    /// `None` if it failed.
    pub(super) solved: Option<&'m Solved>,
    /// How many outputs of the plan are the image.
    pub(super) images: usize,
    pub(super) layers: &'m Layers<'m>,
    pub(super) cache: &'m Cache<'m>,
    pub(super) imports: &'m Imports<'m>,
}

/// What was sent.
struct Exported {
    steps: usize,
    mounts: usize,
    /// Why cache mounts were not.
    left_out: Vec<String>,
    stored: Stored,
}

impl Exported {
    fn tell(self, name: &str, environment: &Environment, view: View) {
        let Self { steps, mounts, left_out, stored: Stored { sent, sent_bytes, .. } } = self;
        for message in left_out {
            warn(view, environment, &Diagnostic::warning("cache-export", message));
        }
        let (steps, mounts) = (super::steps(steps), cache_mounts(mounts));
        let sent = match sent {
            0 => "nothing new was sent".to_owned(),
            1 => format!("one new blob of {} was sent", human_bytes(sent_bytes)),
            sent => format!("{sent} new blobs of {} were sent", human_bytes(sent_bytes)),
        };
        say(view, format_args!("exported the results of {steps}{mounts} to the cache {name}; {sent}"));
    }
}

/// The result of one step, wherever its layers are.
struct Entry<'e> {
    key: &'e RecordKey,
    record: PortableRecord,
    layers: Origin<'e>,
}

enum Origin<'e> {
    Store(Vec<RecordedLayer>),
    /// In a cache that was imported, and nobody needed them here.
    Cache(&'e Source<'e>, &'e PortableRecord),
}

impl Made<'_> {
    /// Writes all caches that are asked for. One that cannot be written fails the build, unless it is said that it does not.
    pub(super) fn export(
        self,
        wanted: &[CacheTo],
        connection: &Connection<'_>,
        environment: &Environment,
        view: View,
    ) -> Result<(), Failure> {
        let (mut failures, mut written) = (Vec::new(), Vec::new());
        for to in wanted {
            let Some(place) = &to.place else { continue };
            let name = place.to_string();
            say(view, format_args!("exporting to the cache {name}"));
            let error = match self.export_one(to, place, connection) {
                Ok(exported) => {
                    written.push((place, exported.stored.clone()));
                    exported.tell(&name, environment, view);
                    continue;
                }
                Err(_) if connection.is_cancelled() => return Err(Failure::cancelled()),
                Err(error) => error,
            };
            let title = format!("cannot export the cache to `{name}`");
            if to.ignores_error {
                let warning = Diagnostic::warning("cache-export", title).note(error.text());
                warn(view, environment, &warning);
            } else {
                failures.push(error.into_failure(title));
            }
        }
        // Only now: one place may have been copied from another.
        for (place, stored) in written {
            let site = Site::of(place, connection)?;
            site.place().remove_unused(&stored);
        }
        let mut failures = failures.into_iter();
        let Some(mut first) = failures.next() else { return Ok(()) };
        first.diagnostics.extend(failures.flat_map(|failure| failure.diagnostics));
        Err(first)
    }

    fn export_one(
        self,
        to: &CacheTo,
        place: &Where,
        connection: &Connection<'_>,
    ) -> Result<Exported, ExportError> {
        let site = Site::of(place, connection).map_err(ExportError::Client)?;
        let entries = self.entries(to.mode).map_err(ExportError::store)?;
        let steps = entries.len();
        let (mut portable, mut parts) = self.parts(entries, to.encoding).map_err(ExportError::Image)?;
        let mut left_out =
            mounts::add(&to.mounts, self.plan, self.layers, site.place(), &mut portable, &mut parts);
        let kept = Cell::new((0, 0));
        let document = |positions: &[Option<usize>]| {
            let written = portable.with_blobs(positions);
            kept.set((written.records.len(), written.mounts.len()));
            written.to_json()
        };
        let stored = site.place().store(self.layers, KIND, &parts, &document, TRANSFERS);
        let stored = stored.map_err(ExportError::Artifact)?;
        let (exported, mounts) = kept.get();
        let (fewer, fewer_mounts) = (steps - exported, portable.mounts.len() - mounts);
        if fewer + fewer_mounts > 0 {
            let (lost, lost_mounts) = (super::steps(fewer), cache_mounts(fewer_mounts));
            left_out.push(format!(
                "the results of {lost}{lost_mounts} are left out: what they are made of does not come"
            ));
        }
        Ok(Exported { steps: exported, mounts, left_out, stored })
    }

    /// The records of the steps of images, to stand in their manifests; `None` if the layers of one are not those of its steps.
    pub(super) fn inline(self, images: &[Assembled]) -> Result<Option<Vec<Annotation>>, ExportError> {
        let shown = self.shown();
        let mut annotations = Vec::with_capacity(images.len());
        for (output, image) in self.plan.outputs.iter().zip(images) {
            let stored = self.layers.lease().image(&image.id).map_err(ExportError::store)?;
            let ids = stored.map(|image| image.layers).unwrap_or_default();
            let mut portable = Portable::default();
            let mut known = HashMap::new();
            let (chain, bound) = (self.plan.chain(output.step), self.plan.bound_to_machine());
            let travels = |step: &&Step| has_layer(step) && !bound[step.id.index()];
            for step in chain.iter().map(|id| self.plan.step(*id)).filter(travels) {
                let entry = self.entry(step, &shown).map_err(ExportError::store)?;
                let Some(Entry { mut record, layers: Origin::Store(layers), .. }) = entry else { continue };
                for RecordedLayer { id, created, .. } in layers {
                    let Some(blob) = ids.iter().position(|other| *other == id) else { return Ok(None) };
                    let diff_id = self.layers.diff_id(&id).map_err(ExportError::Image)?;
                    record
                        .layers
                        .push(portable.add_layer(PortableLayer { diff_id, created, blob }, &mut known));
                }
                portable.records.push(record);
            }
            let platform = image.config.platform();
            let made = artifact::inline::annotation(KIND, platform, &portable.to_json());
            annotations.push(made.map_err(ExportError::Artifact)?);
        }
        Ok(Some(annotations))
    }

    /// What there is of the steps that are to travel.
    fn entries(&self, mode: Mode) -> Result<Vec<Entry<'_>>, store::Error> {
        let shown = self.shown();
        let images: Vec<StepId> =
            self.plan.outputs.iter().take(self.images).map(|output| output.step).collect();
        let of_images: Vec<StepId> = images.iter().flat_map(|step| self.plan.chain(*step)).collect();
        let mut entries = Vec::new();
        let bound = self.plan.bound_to_machine();
        let travels = |step: &&Step| has_layer(step) && !bound[step.id.index()];
        for step in self.plan.steps.iter().filter(travels) {
            if mode == Mode::Max || of_images.contains(&step.id) {
                entries.extend(self.entry(step, &shown)?);
            }
        }
        Ok(entries)
    }

    /// The filesystems of the steps that outputs stand on: what is below an output is what its steps gave, whatever is recorded under their own keys.
    fn shown(&self) -> BTreeMap<StepId, Vec<RecordedLayer>> {
        let mut shown = BTreeMap::new();
        let Some(solved) = self.solved else { return shown };
        for (output, Filesystem { layers }) in self.plan.outputs.iter().zip(&solved.filesystems) {
            let all = self.plan.own_layers(output.step);
            let Some(base) = layers.len().checked_sub(all) else { continue };
            for id in self.plan.chain(output.step) {
                let own = &layers[base..base + self.plan.own_layers(id)];
                shown.entry(id).or_insert_with(|| own.to_vec());
            }
        }
        shown
    }

    fn entry(
        &self,
        step: &Step,
        shown: &BTreeMap<StepId, Vec<RecordedLayer>>,
    ) -> Result<Option<Entry<'_>>, store::Error> {
        let key = &self.keys[step.id.index()];
        let own = if is_linked(step) { 1 } else { self.plan.own_layers(step.id) };
        let recorded = self.cache.find(key)?;
        let known = self.imports.known(key, own);
        let top =
            |layers: &[RecordedLayer]| layers.len().checked_sub(own).map(|below| layers[below..].to_vec());
        let of_output = shown.get(&step.id).and_then(|layers| top(layers));
        let of_record = recorded.as_ref().and_then(|record| top(&record.layers));
        let known_record = known.map(|(_, record)| record);
        let mut record = record_of(key, recorded.as_ref(), known_record);
        let layers = match (of_output, of_record, known) {
            (Some(layers), of_record, _) => {
                // What is recorded may be of another run of the step, upon other files.
                let is_same = of_record.is_some_and(|other| other == layers);
                record.content = record.content.filter(|_| is_same);
                Origin::Store(layers)
            }
            (None, Some(layers), _) => Origin::Store(layers),
            (None, None, Some((source, known))) => {
                record.content.clone_from(&known.content);
                Origin::Cache(source, known)
            }
            (None, None, None) => return Ok(None),
        };
        Ok(Some(Entry { key, record, layers }))
    }

    /// The document and what stands beside it; positions of blobs are those of the parts.
    fn parts<'e>(
        &self,
        entries: Vec<Entry<'e>>,
        encoding: Encoding,
    ) -> Result<(Portable, Vec<Part<'e>>), image::Error> {
        let mut portable = Portable::default();
        let mut known = HashMap::new();
        let mut parts: Parts<'e> = Parts::default();
        for Entry { key, mut record, layers } in entries {
            tracing::debug!(%key, "exporting a result");
            match layers {
                Origin::Store(layers) => {
                    for RecordedLayer { id, created, .. } in layers {
                        let blob = parts.add_layer(&id, encoding);
                        let layer = PortableLayer { diff_id: self.layers.diff_id(&id)?, created, blob };
                        record.layers.push(portable.add_layer(layer, &mut known));
                    }
                }
                Origin::Cache(source, of_source) => {
                    for layer in source.portable.layers_of(of_source) {
                        let blob = parts.add_blob(source, layer.blob);
                        let layer = PortableLayer { blob, ..layer.clone() };
                        record.layers.push(portable.add_layer(layer, &mut known));
                    }
                }
            }
            portable.records.push(record);
        }
        Ok((portable, parts.list))
    }
}

/// What is told of a result besides its layers: by the store, or else by the cache that it came with.
fn record_of(key: &RecordKey, here: Option<&StepRecord>, known: Option<&PortableRecord>) -> PortableRecord {
    let (millis, upstream, content) = match (here, known) {
        (Some(here), _) => (here.millis, here.upstream.clone(), here.content.clone()),
        (None, Some(known)) => (known.millis, known.upstream.clone(), None),
        (None, None) => (0, Vec::new(), None),
    };
    PortableRecord { definition: key.digest().clone(), content, layers: Vec::new(), millis, upstream }
}

/// Parts of an artifact, each once.
#[derive(Default)]
struct Parts<'e> {
    list: Vec<Part<'e>>,
    layers: HashMap<LayerId, usize>,
    blobs: HashMap<String, usize>,
}

impl<'e> Parts<'e> {
    fn add_layer(&mut self, id: &LayerId, encoding: Encoding) -> usize {
        let list = &mut self.list;
        *self.layers.entry(id.clone()).or_insert_with(|| {
            list.push(Part::Layer { id: id.clone(), encoding });
            list.len() - 1
        })
    }

    fn add_blob(&mut self, source: &'e Source<'e>, blob: usize) -> usize {
        let (list, blob) = (&mut self.list, &source.blobs[blob]);
        *self.blobs.entry(blob.digest().to_string()).or_insert_with(|| {
            list.push(Part::Of { place: source.site.place(), blob: Box::new(blob.clone()) });
            list.len() - 1
        })
    }
}

/// Why a cache was not written.
pub(super) enum ExportError {
    Client(Failure),
    Image(image::Error),
    Artifact(ArtifactError),
}

impl ExportError {
    fn store(error: store::Error) -> Self {
        Self::Image(error.into())
    }

    fn text(&self) -> String {
        match self {
            Self::Client(failure) => {
                failure.diagnostics.first().map_or_else(String::new, |first| first.title.clone())
            }
            Self::Image(error) => with_causes(error),
            Self::Artifact(error) => with_causes(error),
        }
    }

    pub(super) fn into_failure(self, title: String) -> Failure {
        let exit = match &self {
            Self::Client(failure) => failure.exit,
            Self::Artifact(ArtifactError::Push(_) | ArtifactError::Manifest(_)) => Exit::Network,
            Self::Image(_) | Self::Artifact(_) => Exit::Machine,
        };
        let diagnostic = Diagnostic::error("cache-export", title).note(self.text());
        Failure::new(exit, diagnostic.help("with `ignore-error=true` behind it, the build does without"))
    }
}

fn has_layer(step: &Step) -> bool {
    !matches!(step.op, Op::Scratch | Op::Image(_))
}

fn is_linked(step: &Step) -> bool {
    matches!(&step.op, Op::Copy(copy) if copy.linkage == Linkage::Independent)
}
