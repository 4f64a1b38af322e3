//! [`lower`]: from the file as a whole to the plan as a whole.
//!
//! 1. The global scope is made and every FROM is read ([`crate::stages`]).
//! 2. From the target, the stages it needs are followed. A base image is looked up here, because its ONBUILD triggers may need
//!    stages nobody else needs.
//! 3. Those stages are lowered in the order of the file, which is also topological: a stage can only need earlier ones.
//!
//! A stage whose base cannot be had is lowered upon nothing, so that its other errors are reported in the same run.

use std::collections::BTreeSet;

use dockerfile::{Escape, File, Instruction, MountKey, Span, Spanned, Word};
use oci::{Config, Digest, EmptyObject, Execution, ImageId, Platform, Reference};

use crate::args::{self, BuildArgs};
use crate::contexts::NamedContexts;
use crate::env::Environment;
use crate::epoch;
use crate::finding::{ErrorKind, Fallible, Feature, Finding, PlanError, Warning, WarningKind};
use crate::graph::{self, Graph, Origin};
use crate::instruction::{Item, StageLowering};
use crate::meant::nearest;
use crate::outline::Recorder;
use crate::shell::Watched;
use crate::source::ImageTable;
use crate::stages::{Base, Body, FromScope, Named, Stages};
use crate::state::{BaseKnowledge, StageState};
use crate::trigger::Trigger;
use crate::{
    Archives, BaseImage, BaseLabels, ContextName, Copy, Destination, DestinationForm, HistoryEntry, Image,
    ImageError, ImageErrorCause, ImagePath, Images, Linkage, Op, Outline, Output, Parents, Plan, Request,
    Source, SourcePath, Spot, StageLabel, Step, StepId, VariableOrigin, expand, lint,
};

/// Turns a Dockerfile into the plan of what `request` asks for.
///
/// `file` must come from a parse without errors: what the parser could not understand is not in it. `images` is asked once for
/// each image and platform that the target needs.
///
/// # Errors
/// Everything that is wrong, in the order of the file.
pub fn lower(file: &File, request: &Request, images: &mut dyn Images) -> Result<Plan, Vec<PlanError>> {
    Lowering::new(file, request, images, Purpose::Build).run()
}

/// Everything there is to say about a Dockerfile without building it.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// What is wrong, in the order of the file.
    pub errors: Vec<PlanError>,
    /// What deserves a word, in the order of the file.
    pub warnings: Vec<Warning>,
    /// The steps, as far as they are known, for whoever wants to look what they would copy. They cannot be executed.
    pub steps: Vec<Step>,
    /// The images that could not be looked up, each once. Nothing is said that depends on what is in them, with one exception: they
    /// are taken to have no SHELL of their own, as next to no image has.
    pub unknown_images: Vec<Reference>,
}

/// Checks the stages that `request.target` needs, or all of them without a target. An image that `images` does not have is no error.
///
/// # Errors
/// If there is no such target, or no stage at all.
pub fn check(file: &File, request: &Request, images: &mut dyn Images) -> Result<Checked, Box<PlanError>> {
    Lowering::new(file, request, images, Purpose::Check).check()
}

/// What the build of `request.target` takes from outside, without looking at any image. What else is wrong with the file does not matter
/// here: a required argument that is missing is a reason to ask.
///
/// # Errors
/// If there is no such target, or no stage at all.
pub fn outline(file: &File, request: &Request) -> Result<Outline, Box<PlanError>> {
    Lowering::new(file, request, &mut NoImages, Purpose::Check).outline()
}

/// The plan of a shell: its last step, which is its output, is a RUN of `command` that stands nowhere in the file. It has what a RUN of the
/// stage would have at that moment, and the mounts, network and script of the RUN that the moment belongs to. Without a command it is
/// the stage's shell.
///
/// # Errors
/// As [`lower`](fn@lower), and if the stage has no such moment.
///
/// # Panics
/// If the file has no such stage.
pub fn shell(
    file: &File,
    request: &Request,
    images: &mut dyn Images,
    spot: &Spot,
    command: &[String],
) -> Result<Plan, Vec<PlanError>> {
    Lowering::new(file, request, images, Purpose::Build).shell(spot, command)
}

/// What the walk over the file is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// A plan that can be executed: every image must be there.
    Build,
    /// Findings: an image that is not there is left open.
    Check,
}

/// Has nothing.
struct NoImages;

impl Images for NoImages {
    fn resolve(&mut self, name: &Reference, _: &Platform, _: Span) -> Result<BaseImage, ImageError> {
        let message = format!("`{}` was not looked up", name.familiar());
        Err(ImageError { cause: ImageErrorCause::NotFound, message, notes: Vec::new(), help: None })
    }
}

/// What all stages share while they are lowered.
pub(crate) struct Lowering<'a> {
    pub(crate) file: &'a File,
    pub(crate) request: &'a Request,
    pub(crate) args: BuildArgs,
    pub(crate) globals: Environment,
    pub(crate) contexts: NamedContexts,
    pub(crate) target_platform: Platform,
    pub(crate) stages: Stages<'a>,
    pub(crate) graph: Graph,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) errors: Vec<PlanError>,
    pub(crate) images: ImageTable<'a>,
    pub(crate) purpose: Purpose,
    pub(crate) outline: Recorder,
    /// `SOURCE_DATE_EPOCH`.
    pub(crate) epoch: Option<i64>,
    unknown_images: Vec<Reference>,
    pub(crate) total: expand::Total,
    /// What somebody wants to look at in one stage.
    pub(crate) watched: Option<Watched>,
    /// By stage; `None` where the target needs none, or not yet.
    states: Vec<Option<StageState>>,
    /// By stage: what its base hands down.
    triggers: Vec<Vec<Trigger<'a>>>,
}

impl<'a> Lowering<'a> {
    fn new(file: &'a File, request: &'a Request, images: &'a mut dyn Images, purpose: Purpose) -> Self {
        let target_platform = request.platform.clone().unwrap_or_else(|| request.build_platform.clone());
        let mut args = BuildArgs::new(&request.build_args);
        let mut images = ImageTable::new(images);
        let contexts = NamedContexts::new(&request.named_contexts);
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        let last_name = file.stages.last().and_then(|stage| stage.name.as_ref()).map(|name| name.as_str());
        let target_name = request.target.as_deref().or(last_name).unwrap_or_default();
        let mut globals = args::platform_scope(request, &target_platform, target_name, &args);
        for global in &file.global_args {
            if let Err(error) = declare_globals(&global.arg, file.escape(), &args, &mut globals) {
                errors.push(*error);
            }
        }
        let scope = FromScope {
            globals: &globals,
            contexts: &contexts,
            target_platform: &target_platform,
            escape: file.escape(),
            declared: &file.global_args,
            first_base: request.first_base.as_ref(),
        };
        let stages = Stages::read(file, &scope, &mut errors, &mut warnings);
        let scope = epoch::Scope {
            purpose,
            stages: &stages,
            contexts: &contexts,
            escape: file.escape(),
            span: epoch::span(file),
        };
        let epoch = epoch::resolve(&scope, &mut images, &mut args, &mut globals).unwrap_or_else(|error| {
            errors.push(*error);
            None
        });
        let mut defaults = args::platform_scope(request, &target_platform, target_name, &BuildArgs::new(&[]));
        warnings.extend(lint::images_by_default(file, &mut defaults));
        Self {
            states: vec![None; stages.len()],
            triggers: vec![Vec::new(); stages.len()],
            images,
            purpose,
            outline: Recorder::default(),
            epoch,
            unknown_images: Vec::new(),
            total: expand::Total::default(),
            watched: None,
            graph: Graph::default(),
            file,
            request,
            args,
            globals,
            contexts,
            target_platform,
            stages,
            warnings,
            errors,
        }
    }

    fn run(mut self) -> Result<Plan, Vec<PlanError>> {
        let target = self.lower_target(None)?;
        self.warn_of_unused_args();
        let outputs = vec![self.output(target)];
        self.warnings.sort_by_key(|warning| warning.span);
        Ok(Plan { steps: self.graph.finish(), outputs, warnings: self.warnings })
    }

    fn shell(mut self, spot: &Spot, command: &[String]) -> Result<Plan, Vec<PlanError>> {
        self.watched = Some(Watched::default());
        let stage = self.lower_target(spot.stage)?;
        let (run, origin, place) =
            self.shell_at(stage, spot.moment, command).map_err(|error| vec![*error])?;
        let output = self.output(stage);
        let id = self.graph.push(Op::Run(Box::new(run)), origin);
        let mut steps = self.graph.finish();
        steps[id.index()].place = place;
        let (steps, step) = graph::needed_by(steps, id);
        let outputs = vec![Output { step, history: Vec::new(), ..output }];
        Ok(Plan { steps, outputs, warnings: self.warnings })
    }

    /// Lowers the stages that the target needs: the stage that is `given`, else the request's.
    fn lower_target(&mut self, given: Option<usize>) -> Result<usize, Vec<PlanError>> {
        self.check_frontend();
        self.check_system();
        let target = match given.map_or_else(|| self.stages.target(self.request.target.as_deref()), Ok) {
            Ok(target) => target,
            Err(error) => {
                self.errors.push(*error);
                return Err(std::mem::take(&mut self.errors));
            }
        };
        if let Some(watched) = &mut self.watched {
            watched.stage = target;
        }
        for index in self.needed_stages(target) {
            self.lower_stage(index);
        }
        if self.errors.is_empty() {
            return Ok(target);
        }
        self.errors.sort_by_key(|error| error.span);
        Err(std::mem::take(&mut self.errors))
    }

    fn check(mut self) -> Result<Checked, Box<PlanError>> {
        self.check_frontend();
        self.check_system();
        let asked = self.request.target.as_deref().filter(|target| !target.is_empty());
        let target = self.stages.target(asked)?;
        let mut wanted = self.needed_stages(target);
        if asked.is_none() {
            for index in 0..self.stages.len() {
                if wanted.insert(index) {
                    self.triggers[index] = self.find_triggers(index);
                }
            }
            let needed = (0..self.stages.len()).flat_map(|index| self.direct_needs(index)).collect();
            self.warnings.extend(lint::unused_stages(&self.stages, target, &needed));
        }
        for index in &wanted {
            self.lower_stage(*index);
        }
        // A trigger of an image could declare them.
        if self.unknown_images.is_empty() {
            self.warn_of_unused_args();
        }
        let checked: Vec<_> = wanted.iter().map(|index| self.stages.get(*index)).collect();
        self.warnings.extend(lint::unpinned(&checked, &self.contexts, &self.target_platform));
        self.warnings.extend(lint::args(self.file));
        self.errors.sort_by_key(|error| error.span);
        self.warnings.sort_by_key(|warning| warning.span);
        Ok(Checked {
            errors: self.errors,
            warnings: self.warnings,
            steps: self.graph.finish(),
            unknown_images: self.unknown_images,
        })
    }

    fn outline(mut self) -> Result<Outline, Box<PlanError>> {
        let target = self.stages.target(self.request.target.as_deref())?;
        let needed = self.needed_stages(target);
        for index in &needed {
            self.lower_stage(*index);
        }
        let stages: Vec<_> = needed.iter().map(|index| self.stages.get(*index).syntax).collect();
        let syntax = self.stages.get(target).syntax;
        let name = self.stages.get(target).label.name.clone();
        let recorded = self.outline.finish(self.file, &stages, &self.globals);
        Ok(Outline { name, description: syntax.doc.clone(), ..recorded })
    }

    /// Only our own reading of Dockerfiles is built in; another frontend's file may mean anything.
    fn check_frontend(&mut self) {
        let directive = self.file.directives.syntax.as_ref();
        let span = directive.map(|syntax| syntax.span).unwrap_or_default();
        let given = self.args.get("BUILDKIT_SYNTAX").filter(|frontend| !frontend.is_empty());
        let frontend = given.or_else(|| directive.map(|syntax| syntax.frontend.as_str()));
        let Some(frontend) = frontend.filter(|frontend| !is_builtin_frontend(frontend)) else { return };
        let kind = ErrorKind::Unsupported(Feature::Frontend(frontend.to_owned()));
        let error = Finding::new(kind, span)
            .help("only `docker/dockerfile` is built in: ask for no other if the file is a usual Dockerfile");
        let by_arg = given.is_some();
        self.errors.push(if by_arg {
            error.note("`--build-arg BUILDKIT_SYNTAX=…` asks for it")
        } else {
            error
        });
    }

    fn check_system(&mut self) {
        if self.target_platform.os != "linux" {
            let kind = ErrorKind::Unsupported(Feature::System(self.target_platform.to_string()));
            let span = self.file.stages.last().map(|stage| stage.span).unwrap_or_default();
            self.errors.push(
                Finding::new(kind, span).help("build for a Linux platform, such as `--platform linux/amd64`"),
            );
        }
    }

    /// The stages that `target` needs, itself included, in the order of the file.
    fn needed_stages(&mut self, target: usize) -> BTreeSet<usize> {
        let mut needed = BTreeSet::new();
        let mut waiting = vec![target];
        while let Some(index) = waiting.pop() {
            if needed.insert(index) {
                self.triggers[index] = self.find_triggers(index);
                waiting.extend(self.direct_needs(index).into_iter().filter(|other| *other < index));
            }
        }
        needed
    }

    /// What the base of a stage hands down. Looks up the base if it is an image.
    fn find_triggers(&mut self, index: usize) -> Vec<Trigger<'a>> {
        let stage = self.stages.get(index);
        if stage.body == Body::Replaced {
            return Vec::new();
        }
        match &stage.base {
            Base::Stage(base) if self.stages.get(*base).body == Body::Own => {
                Trigger::of_stage(self.stages.get(*base).syntax)
            }
            Base::Image(reference) => self.image_triggers(index, &reference.clone()),
            _ => Vec::new(),
        }
    }

    fn image_triggers(&mut self, index: usize, reference: &Reference) -> Vec<Trigger<'a>> {
        let (platform, span) = (self.stage_platform(index), self.stages.get(index).syntax.image.span);
        // Whoever lowers the stage reports a failed look-up.
        let Ok(base) = self.images.find(reference, &platform, span) else { return Vec::new() };
        let image = reference.familiar();
        let texts = base.config.execution.on_build;
        let parsed = texts.iter().map(|text| Trigger::of_image(text, &image, span));
        let (triggers, errors): (Vec<_>, Vec<_>) = parsed.partition(Result::is_ok);
        self.errors.extend(errors.into_iter().filter_map(Result::err).map(|error| *error));
        triggers.into_iter().flatten().collect()
    }

    /// The stages that a stage names, later ones and itself included if it names those by mistake.
    pub(crate) fn direct_needs(&self, index: usize) -> Vec<usize> {
        let stage = self.stages.get(index);
        let mut needs = Vec::new();
        if let Base::Stage(base) = stage.base {
            needs.push(base);
        }
        if stage.body == Body::Own {
            let own = stage.syntax.instructions.iter().map(|statement| &statement.instruction);
            let handed_down = self.triggers[index].iter().map(|trigger| &*trigger.instruction);
            let scope = self.scope();
            for name in handed_down.chain(own).flat_map(names_behind_from) {
                if let Ok(Named::Stage(other)) = self.stages.resolve(name, index, &scope) {
                    needs.push(other);
                }
            }
        }
        needs
    }

    fn lower_stage(&mut self, index: usize) {
        let state = match self.begin_stage(index) {
            Ok(state) => state,
            Err(error) => {
                self.errors.push(*error);
                self.placeholder(index)
            }
        };
        let stage = self.stages.get(index);
        let (body, syntax) = (stage.body, stage.syntax);
        let triggers = self.triggers[index].clone();
        let mut lowering = StageLowering { shared: self, index, state };
        let mut errors = Vec::new();
        if body == Body::Own {
            let handed_down = triggers
                .iter()
                .map(|trigger| Item::of_trigger(trigger, syntax, lowering.shared.file.escape()));
            let own = syntax
                .instructions
                .iter()
                .map(|statement| Item::of_statement(statement, lowering.shared.file.escape()));
            let items: Vec<_> = handed_down.chain(own).collect();
            for item in &items {
                lowering.watch();
                errors.extend(lowering.lower(item).err());
            }
        }
        lowering.watch();
        let state = lowering.state;
        self.states[index] = Some(state);
        self.errors.extend(errors.into_iter().map(|error| *error));
    }

    /// The state a stage begins with, which is its base's.
    fn begin_stage(&mut self, index: usize) -> Fallible<StageState> {
        let stage = self.stages.get(index);
        let span = stage.syntax.span;
        let platform = self.target_platform.clone();
        match stage.base.clone() {
            Base::Scratch => {
                let step = self.graph.scratch(&platform, span);
                Ok(StageState::new(StageState::scratch_config(&platform), step, platform))
            }
            Base::Stage(base) => Ok(self.state(base).derive()),
            Base::Directory(name) => Ok(self.begin_on_directory(index, name)),
            Base::Image(reference) => self.begin_on_image(index, reference),
            // `Stages::read` has said what is wrong.
            Base::Broken => Ok(self.placeholder(index)),
        }
    }

    fn begin_on_image(&mut self, index: usize, reference: Reference) -> Fallible<StageState> {
        let platform = self.stage_platform(index);
        let syntax = self.stages.get(index).syntax;
        let found = self.images.find(&reference, &platform, syntax.image.span);
        let (base, knowledge) = match found {
            Err(error) if self.purpose == Purpose::Check => {
                (self.unknown_image(*error, &platform), BaseKnowledge::Unknown)
            }
            found => (
                found.map_err(|error| self.explain_image(*error, &syntax.image, index))?,
                BaseKnowledge::Known,
            ),
        };
        self.check_base_platform(&reference, &base, &platform, syntax.image.span);
        let origin = self.origin(index, platform.clone(), syntax.span, &syntax.text);
        let step =
            self.graph.image(Image { reference, platform: platform.clone(), image: base.image }, origin);
        let mut config = base.config;
        if self.request.base_labels == BaseLabels::Dropped {
            config.execution.labels.clear();
        }
        Ok(StageState { base: knowledge, ..StageState::new(config, step, platform) })
    }

    /// Stands for an image that cannot be had when that does not matter.
    pub(crate) fn unknown_image(&mut self, error: PlanError, platform: &Platform) -> BaseImage {
        if let ErrorKind::Image { reference, .. } = error.kind
            && !self.unknown_images.contains(&reference)
        {
            self.unknown_images.push(reference);
        }
        BaseImage { image: ImageId::new(Digest::of([])), config: Config::empty(platform) }
    }

    /// A directory as a base: its whole content, copied into nothing.
    fn begin_on_directory(&mut self, index: usize, name: String) -> StageState {
        let platform = self.stage_platform(index);
        let syntax = self.stages.get(index).syntax;
        let parent = self.graph.scratch(&platform, syntax.span);
        let copy = Copy {
            parent,
            linkage: Linkage::OnParent,
            from: Source::Context(ContextName::Named(name)),
            paths: vec![SourcePath {
                written: "/".to_owned(),
                pivot: String::new(),
                pattern: String::new(),
                fetched: None,
            }],
            inline: Vec::new(),
            destination: Destination { path: ImagePath::root(), form: DestinationForm::Directory },
            owner: None,
            mode: None,
            exclude: Vec::new(),
            parents: Parents::Dropped,
            archives: Archives::Copied,
            time: self.epoch,
        };
        let origin = self.origin(index, platform.clone(), syntax.span, &syntax.text);
        let step = self.graph.push(Op::Copy(Box::new(copy)), origin);
        let mut state = StageState::new(StageState::scratch_config(&platform), step, platform);
        state.advance(step, format!("{} # buildkit", syntax.text));
        state
    }

    /// Stands for a state that cannot be known; the plan is dropped in the end.
    fn placeholder(&mut self, index: usize) -> StageState {
        let platform = self.stage_platform(index);
        let step = self.graph.scratch(&platform, self.stages.get(index).syntax.span);
        let state = StageState::new(StageState::scratch_config(&platform), step, platform);
        StageState { base: BaseKnowledge::Unknown, ..state }
    }

    fn check_base_platform(
        &mut self,
        reference: &Reference,
        base: &BaseImage,
        wanted: &Platform,
        span: Span,
    ) {
        let found = base.config.platform();
        if found.os == wanted.os && found.architecture == wanted.architecture {
            return;
        }
        let kind = WarningKind::BaseImagePlatform {
            reference: reference.familiar(),
            found: found.to_string(),
            wanted: wanted.to_string(),
        };
        self.warnings.push(
            Finding::new(kind, span)
                .help(format!("say so with `FROM --platform={found} …` if that is meant")),
        );
    }

    fn warn_of_unused_args(&mut self) {
        let declared = declared_args(self.file);
        let last = self.file.stages.last().map(|stage| stage.span).unwrap_or_default();
        let mut seen = BTreeSet::new();
        for arg in &self.request.build_args {
            let name = arg.name.as_str();
            let used =
                args::is_predefined(name) || declared.contains(name) || self.is_declared_by_trigger(name);
            if !used && arg.value.is_some() && seen.insert(name) {
                let meant = nearest(name, declared.iter().copied());
                let warning = Finding::new(WarningKind::UnusedBuildArg(name.to_owned()), last);
                self.warnings.push(warning.meant(meant, |meant| format!("`--build-arg {meant}=…`")));
            }
        }
    }

    fn is_declared_by_trigger(&self, name: &str) -> bool {
        self.states.iter().flatten().any(|state| state.declares(name))
    }

    fn output(&self, target: usize) -> Output {
        let stage = self.stages.get(target);
        let (label, span) = (stage.label.clone(), stage.syntax.span);
        let state = self.state(target);
        let mut config = state.config.clone();
        config.execution.exposed_ports.extend(state.ports.names().map(|name| (name, EmptyObject)));
        self.change(&mut config.execution);
        let platform = self.request.platform.clone().unwrap_or_else(|| config.platform());
        config.os = platform.os;
        config.architecture = platform.architecture;
        config.variant = platform.variant;
        Output {
            stage: label,
            span,
            step: state.step,
            config,
            history: self.history(target),
            epoch: self.epoch,
            bases: self.bases(target),
        }
    }

    /// A stage, what it is made FROM if that is a stage, and so on.
    fn standing_on(&self, stage: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(stage), |index| match self.stages.get(*index).base {
            Base::Stage(base) => Some(base),
            _ => None,
        })
    }

    /// The stages that one is made FROM, the nearest first, and where they end.
    fn bases(&self, target: usize) -> Vec<(StageLabel, StepId)> {
        let chain = self.standing_on(target).skip(1);
        chain.map(|index| (self.stages.get(index).label.clone(), self.state(index).step)).collect()
    }

    /// What the command line has to say of how the image runs.
    fn change(&self, execution: &mut Execution) {
        let Request { labels, unset_labels, env, unset_env, .. } = self.request;
        execution.labels.extend(labels.iter().cloned());
        execution.labels.retain(|name, _| !unset_labels.contains(name));
        env.iter().for_each(|(name, value)| execution.set_env(name, value));
        let is_unset = |pair: &String| unset_env.iter().any(|name| pair.split('=').next() == Some(name));
        execution.env.retain(|pair| !is_unset(pair));
    }

    /// The history of a stage behind that of its base image: each stage knows only its own part.
    fn history(&self, target: usize) -> Vec<HistoryEntry> {
        let mut chain: Vec<_> = self.standing_on(target).collect();
        chain.reverse();
        chain.into_iter().flat_map(|index| self.state(index).history.iter().cloned()).collect()
    }

    pub(crate) fn origin(&self, index: usize, platform: Platform, span: Span, title: &str) -> Origin {
        Origin { platform, stage: Some(self.stages.get(index).label.clone()), span, title: title.to_owned() }
    }

    pub(crate) fn state(&self, index: usize) -> &StageState {
        let state = self.states[index].as_ref();
        state.expect("stages are lowered in the order of the file, and all that is named was followed before")
    }

    fn stage_platform(&self, index: usize) -> Platform {
        self.stages.get(index).platform.clone().unwrap_or_else(|| self.target_platform.clone())
    }

    pub(crate) fn scope(&self) -> FromScope<'_> {
        FromScope {
            globals: &self.globals,
            contexts: &self.contexts,
            target_platform: &self.target_platform,
            escape: self.file.escape(),
            declared: &self.file.global_args,
            first_base: self.request.first_base.as_ref(),
        }
    }
}

/// Adds the arguments of one global ARG to the scope, each visible to the next.
pub(crate) fn declare_globals(
    arg: &dockerfile::Arg,
    escape: Escape,
    given: &BuildArgs,
    globals: &mut Environment,
) -> Fallible<()> {
    for declaration in &arg.declarations {
        let name = declaration.name.as_str();
        let value = match (given.get(name), &declaration.default) {
            (Some(value), _) => Some(value.to_owned()),
            (None, Some(default)) => {
                let expanded = expand::word(default.as_str(), escape, globals);
                Some(expanded.map_err(|error| Finding::new(ErrorKind::Expand(error), default.span))?.value)
            }
            (None, None) => None,
        };
        if let Some(value) = value {
            globals.set(name, value, VariableOrigin::Arg);
        }
    }
    Ok(())
}

/// The names that ARGs of the file declare, in stages nobody needs as well.
fn declared_args(file: &File) -> BTreeSet<&str> {
    let in_stages = file.stages.iter().flat_map(|stage| &stage.instructions).filter_map(|statement| {
        match &statement.instruction {
            Instruction::Arg(arg) => Some(arg),
            Instruction::Onbuild(onbuild) => match &*onbuild.instruction.node {
                Instruction::Arg(arg) => Some(arg),
                _ => None,
            },
            _ => None,
        }
    });
    let all = file.global_args.iter().map(|global| &global.arg).chain(in_stages);
    all.flat_map(|arg| &arg.declarations).map(|declaration| declaration.name.as_str()).collect()
}

/// The names behind `--from` and `--mount=from=` of an instruction.
fn names_behind_from(instruction: &Instruction) -> Vec<&Spanned<Word>> {
    match instruction {
        Instruction::Copy(copy) => copy.from.iter().collect(),
        Instruction::Run(run) => run.mounts.iter().filter_map(|mount| mount.value(MountKey::From)).collect(),
        _ => Vec::new(),
    }
}

/// The reference frontend by any of its names, mirrors included.
fn is_builtin_frontend(frontend: &str) -> bool {
    frontend == "dockerfile.v0"
        || Reference::parse(frontend).is_ok_and(|reference| {
            let repository = reference.repository();
            ["docker/dockerfile", "docker/dockerfile-upstream"]
                .iter()
                .any(|known| repository == *known || repository.ends_with(&format!("/{known}")))
        })
}
