//! What a step takes from outside itself: files of contexts and of other steps, and what they add to its keys.

use std::collections::HashMap;

use cache::key::{PartName, source_name};
use cache::{Keys, Parts, Trace};
use context::{Attributes, Counted, Selection};
use layer::{Entry, Merged};
use oci::{Digest, Hasher};
use plan::{ContextName, Copy, Linkage, Mount, Op, Plan, Source, SourcePath, Step, StepId};
use store::RecordKey;
use sys::RootfsPath;

use crate::filesystem::Filesystem;
use crate::select::{Selected, select_in};
use crate::services::SecretInKey;
use crate::{Services, StepError};

/// A step's keys as far as they are known before anything runs, and the context files they stand on.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The parts of the definition key.
    pub(crate) parts: Parts,
    /// Made of them.
    pub(crate) definition: RecordKey,
    /// What stands for the step's filesystem in the definition keys of those that stand on it. Of a linked copy that is more than its own key, which
    /// says nothing of what lies below.
    pub(crate) foundation: RecordKey,
    /// The steps it stands on, with the parts that stand for them.
    pub(crate) inputs: Vec<(PartName, StepId)>,
    /// What each source that is a context selects: one element for each source argument or mount.
    pub(crate) contexts: Vec<ContextFiles>,
}

impl ContextFiles {
    /// Covers everything of the files that can matter.
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// The files one source argument or mount takes from a context.
#[derive(Debug)]
pub(crate) struct ContextFiles {
    /// The context's name in keys.
    pub(crate) name: String,
    /// The context.
    pub(crate) context: ContextName,
    /// The files.
    pub(crate) selection: Selection,
    /// What of them counts.
    pub(crate) counted: Attributes,
    digest: Digest,
}

impl Prepared {
    /// Selects a step's context files and derives its definition key; `foundations` has what stands for all steps before it.
    pub(crate) fn new(
        step: &Step,
        plan: &Plan,
        services: &Services<'_>,
        foundations: &[RecordKey],
    ) -> Result<Self, StepError> {
        let contexts = context_files(step, plan, services)?;
        let sources = step_sources(step, plan).into_iter().map(|(name, id)| (PartName::SourceStep(name), id));
        let parent = looked_at_parent(step).map(|id| (PartName::Parent, id));
        let inputs: Vec<(PartName, StepId)> = sources.chain(parent).collect();
        let mut parts = own_parts(step, &contexts, services);
        for (name, id) in &inputs {
            parts = parts.with_input(name.clone(), foundations[id.index()].digest().clone());
        }
        let definition = parts.definition_key();
        let foundation = match step.op.parent() {
            Some(below) if looked_at_parent(step).is_none() => {
                let below = foundations[below.index()].digest().clone();
                parts.clone().with_input(PartName::Parent, below).definition_key()
            }
            _ => definition.clone(),
        };
        Ok(Self { parts, definition, foundation, inputs, contexts })
    }

    /// Both keys, once the filesystems of all inputs are known.
    pub(crate) fn keys(
        &self,
        step: &Step,
        plan: &Plan,
        services: &Services<'_>,
        filesystem: &dyn Fn(plan::StepId) -> Filesystem,
    ) -> Result<Keys, StepError> {
        let mut parts = own_parts(step, &self.contexts, services);
        for (name, id) in step_sources(step, plan) {
            let digest = source_content(step, id, &name, &filesystem(id), services)?;
            parts = parts.with_input(PartName::Files(name), digest);
        }
        if let Some(parent) = looked_at_parent(step) {
            parts = parts.with_input(PartName::Parent, filesystem(parent).content());
        }
        Ok(Keys { definition: self.definition.clone(), content: parts.content_key() })
    }

    /// What the step is made of, for later builds to compare with. Dear for large contexts, so made on a miss only.
    pub(crate) fn trace(
        &self,
        step: &Step,
        all: &[Self],
        services: &Services<'_>,
    ) -> Result<Trace, StepError> {
        let inputs =
            self.inputs.iter().map(|(name, id)| (name.to_string(), all[id.index()].definition.clone()));
        let files =
            self.contexts.iter().map(|source| Ok(source.selection.file_digests(source.counted)?.to_bytes()));
        Ok(Trace {
            title: step.title.clone(),
            parts: services.cache.keyed(&self.parts),
            inputs: inputs.collect(),
            files: files.collect::<Result<_, StepError>>()?,
        })
    }
}

/// What a step says itself, the secrets that count, and the context's files.
fn own_parts(step: &Step, contexts: &[ContextFiles], services: &Services<'_>) -> Parts {
    let mut parts = Parts::of(step);
    let mounts = if let Op::Run(run) = &step.op { run.mounts.as_slice() } else { &[] };
    for mount in mounts {
        let Mount::Secret(mount) = mount else { continue };
        let secret = services.secrets.get(&mount.id);
        if let Some(secret) = secret.filter(|secret| secret.in_key == SecretInKey::Counted) {
            let digest = services.cache.secret_digest(&secret.value);
            parts = parts.with_input(PartName::Secret(mount.id.clone()), digest);
        }
    }
    for files in contexts {
        parts = parts.with_input(PartName::Files(files.name.clone()), files.digest.clone());
    }
    parts
}

/// The parent, unless the step's layer is made without looking at it.
pub(crate) fn looked_at_parent(step: &Step) -> Option<plan::StepId> {
    match &step.op {
        Op::Copy(copy) if copy.linkage == Linkage::Independent => None,
        op => op.parent(),
    }
}

/// Steps that files come from, with the names of their parts in keys.
fn step_sources(step: &Step, plan: &Plan) -> Vec<(String, plan::StepId)> {
    let named = |source: &Source, suffix: &str| {
        let name = source_name(source, &plan.steps);
        source.step().map(|id| (format!("{name}{suffix}"), id))
    };
    match &step.op {
        Op::Copy(copy) => {
            let fetched = copy.fetched().into_iter().map(Source::Step);
            let all = std::iter::once(copy.from.clone()).chain(fetched);
            all.filter_map(|source| named(&source, "")).collect()
        }
        Op::Run(run) => {
            let mounts = run.mounts.iter().filter_map(|mount| Some((mount.source()?, mount.target()?)));
            mounts.filter_map(|(source, target)| named(source, &format!(" at {target}"))).collect()
        }
        Op::Scratch | Op::Image(_) | Op::Remote(_) | Op::Workdir(_) => Vec::new(),
    }
}

/// Which attributes of the sources reach the image.
pub(crate) fn counted(copy: &Copy) -> Attributes {
    let replaced = |is_replaced: bool| if is_replaced { Counted::Replaced } else { Counted::Yes };
    Attributes {
        mode: replaced(matches!(copy.mode, Some(plan::Mode::Octal(_)))),
        owner: replaced(copy.owner.is_some()),
    }
}

/// The mounts of a RUN that show files of a context, with its name: [`Prepared::contexts`] has an element for each.
pub(crate) fn context_mounts(run: &plan::Run) -> impl Iterator<Item = (&Mount, &ContextName)> {
    run.mounts.iter().filter_map(|mount| Some((mount, mount.source()?.context()?)))
}

fn context_files(step: &Step, plan: &Plan, services: &Services<'_>) -> Result<Vec<ContextFiles>, StepError> {
    match &step.op {
        Op::Copy(copy) => {
            let Source::Context(name) = &copy.from else { return Ok(Vec::new()) };
            let excludes = context::Ignore::from_flags(copy.exclude.iter().map(String::as_bytes))?;
            let parents = match copy.parents {
                plan::Parents::Dropped => context::Parents::Dropped,
                plan::Parents::Kept => context::Parents::Kept,
            };
            let select = |path: &SourcePath| {
                let source =
                    context::Source { pattern: path.written.as_bytes(), excludes: &excludes, parents };
                files_of(name, &source, counted(copy), plan, services)
            };
            copy.paths.iter().filter(|path| path.fetched.is_none()).map(select).collect()
        }
        Op::Run(run) => {
            let mounted = |(mount, name): (&Mount, &ContextName)| {
                let path = match mount {
                    Mount::Bind(bind) => &bind.path,
                    Mount::Cache(cache) => &cache.path,
                    Mount::Tmpfs(_) | Mount::Secret(_) | Mount::Ssh(_) | Mount::Host(_) => {
                        unreachable!("only these two have a source")
                    }
                };
                let source = context::Source {
                    pattern: path.as_str().as_bytes(),
                    excludes: &context::Ignore::none(),
                    parents: context::Parents::Dropped,
                };
                files_of(name, &source, Attributes::ALL, plan, services)
            };
            context_mounts(run).map(mounted).collect()
        }
        Op::Scratch | Op::Image(_) | Op::Remote(_) | Op::Workdir(_) => Ok(Vec::new()),
    }
}

fn files_of(
    name: &ContextName,
    source: &context::Source<'_>,
    counted: Attributes,
    plan: &Plan,
    services: &Services<'_>,
) -> Result<ContextFiles, StepError> {
    let context = services.contexts.get(name).ok_or_else(|| StepError::NoContext(name.clone()))?;
    let selection = context.select(source)?;
    let digest = Digest::Sha256(selection.digest(counted)?.0);
    let context = name.clone();
    let name = source_name(&Source::Context(context.clone()), &plan.steps);
    Ok(ContextFiles { name, context, selection, counted, digest })
}

/// What a step takes from another one's filesystem, by content.
fn source_content(
    step: &Step,
    source: plan::StepId,
    name: &str,
    filesystem: &Filesystem,
    services: &Services<'_>,
) -> Result<Digest, StepError> {
    let Op::Copy(copy) = &step.op else {
        // A mount shows the whole filesystem below its path; its layers say it without looking in.
        return Ok(filesystem.content());
    };
    let merged = services.layers.merged(&filesystem.ids())?;
    let mut hasher = Hasher::sha256();
    let is_of_source = |path: &&SourcePath| {
        path.fetched.map_or(copy.from.step(), |fetched| Some(fetched.step)) == Some(source)
    };
    for path in copy.paths.iter().filter(is_of_source) {
        let selected = select_in(&merged, path, copy, name)?;
        hash_selected(&merged, &selected, counted(copy), &mut hasher);
    }
    Ok(hasher.finish())
}

/// What is copied counts, not how the source has it: of a hard link the file behind it, and which names of the selection are one file.
fn hash_selected(merged: &Merged, selected: &Selected<'_>, counted: Attributes, hasher: &mut Hasher) {
    let mut first: HashMap<(usize, &RootfsPath), u64> = HashMap::new();
    for matched in &selected.matches {
        hasher.update([u8::from(matched.is_directory)]);
        for (number, item) in (1..).zip(&matched.items) {
            let content = merged.content_of(item.found);
            let mut entry = Entry { path: item.destination.clone(), ..content.entry.clone() };
            if counted.mode == Counted::Replaced {
                entry.mode = 0;
            }
            if counted.owner == Counted::Replaced {
                (entry.uid, entry.gid) = (0, 0);
            }
            entry.hash_into(hasher);
            if matches!(entry.kind, layer::Kind::File { .. }) {
                let same = *first.entry((content.layer, &content.entry.path)).or_insert(number);
                hasher.update(same.to_le_bytes());
            }
        }
        // A copy links names of one source only.
        first.clear();
    }
}
