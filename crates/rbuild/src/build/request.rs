//! What the command line asks for, understood.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum as _;
use image::export::{Annotation, Encoding};
use image::load::Pick;
use jiff::{Span, SpanRelativeTo, Timestamp};
use oci::{Platform, Reference};
use plan::{BaseLabels, BuildArg, ContextKind, ExtraHost, HostMount, ImagePath, NamedContext, Request};
use sandbox::Limits;
use solver::{CacheMode, Secret, SecretInKey};
use source::Access;

use crate::build::artifacts::Artifact;
use crate::build::cache::{self, CacheFrom, CacheTo};
use crate::build::input::Place;
use crate::build::legacy;
use crate::build::lock;
use crate::build::output::{self, Kind, Output};
use crate::build::resolver::Resolver;
use crate::cli::{Allowed, BuildArgs, Progress, PullPolicy, RegistryArgs, Squash, StepArgs};
use crate::commands::names;
use crate::commands::run::request::Volume;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::network;

/// Steps that work at once unless `--jobs` says otherwise, for each processor. Most steps wait for the network or the disk most of the time.
const JOBS_PER_PROCESSOR: usize = 8;

const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Everything but paths of the Dockerfile and the context.
#[derive(Debug)]
pub(crate) struct Asked {
    /// For the only platform, or the first.
    pub(crate) request: Request,
    /// Those that were asked for, each once.
    pub(crate) platforms: Vec<Platform>,
    pub(crate) tags: Vec<Reference>,
    /// Those of them that were written with a tag.
    pub(crate) tagged: Vec<String>,
    /// Names of the images of other stages, by stage.
    pub(crate) stage_tags: BTreeMap<String, Vec<Reference>>,
    pub(crate) squash: Option<Squash>,
    /// Files of stages that are to be on this machine.
    pub(crate) artifacts: Vec<Artifact>,
    pub(crate) outputs: Vec<Output>,
    /// Whether they may clear any directory.
    pub(crate) may_delete: bool,
    /// What they must not clear: what else this build reads and writes.
    pub(crate) precious: Vec<PathBuf>,
    /// Of all outputs that have manifests.
    pub(crate) annotations: Vec<Annotation>,
    pub(crate) omits_history: bool,
    pub(crate) skips_unused_stages: bool,
    /// What `/etc/resolv.conf` of RUNs says instead of what the machine's does.
    pub(crate) names: Resolver,
    /// What was made before is made again.
    pub(crate) oldest: Option<Timestamp>,
    /// Whether files in layers are to be no younger than `SOURCE_DATE_EPOCH`.
    pub(crate) rewrites_times: bool,
    pub(crate) secrets: BTreeMap<String, Secret>,
    /// Named contexts that are, or become, directories.
    pub(crate) contexts: BTreeMap<String, Place>,
    /// Named contexts that are images in OCI layouts, by the names they have in the plan.
    pub(crate) layouts: BTreeMap<Reference, Layout>,
    pub(crate) cache_mode: CacheMode,
    /// Where results of steps may come from, besides the store.
    pub(crate) cache_from: Vec<CacheFrom>,
    /// Where they go.
    pub(crate) cache_to: Vec<CacheTo>,
    pub(crate) jobs: usize,
    pub(crate) progress: Progress,
    /// Of each RUN.
    pub(crate) limits: Limits,
    /// When a registry is asked.
    pub(crate) pull: PullPolicy,
    /// Whether anybody is asked anything.
    pub(crate) access: Access,
    /// In which control group those of RUNs are made.
    pub(crate) cgroup_parent: Option<PathBuf>,
    pub(crate) registry: RegistryArgs,
}

/// An image in an OCI layout.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Layout {
    pub(crate) directory: PathBuf,
    pub(crate) pick: Pick,
}

/// What `--build-context` says.
#[derive(Debug, Default)]
struct Named {
    contexts: Vec<NamedContext>,
    places: BTreeMap<String, Place>,
    layouts: BTreeMap<Reference, Layout>,
}

impl Asked {
    pub(crate) fn read(args: &BuildArgs, environment: &Environment) -> Result<Self, Failure> {
        let outputs =
            args.outputs.iter().map(|text| Output::parse(text, args.push)).collect::<Result<Vec<_>, _>>()?;
        let mut asked = Self::of_steps(&args.steps, environment)?;
        asked.read_config(args, environment);
        let labels = args.labels.iter().map(|text| split(text, '='));
        asked.request.labels = labels.map(|(k, v)| (k, v.unwrap_or_default())).collect();
        for text in &args.tags {
            match text.split_once('=') {
                Some(("", _)) => {
                    return Err(Failure::usage(
                        format!("`--tag {text}` names no stage"),
                        "write it as STAGE=NAME or NAME",
                    ));
                }
                Some((stage, name)) => {
                    asked.stage_tags.entry(stage.to_lowercase()).or_default().push(names::new_name(name)?);
                }
                None => {
                    asked.tags.push(names::new_name(text)?);
                    asked.tagged.extend(names::has_tag(text).then(|| text.clone()));
                }
            }
        }
        asked.squash.clone_from(&args.squash);
        asked.artifacts.clone_from(&args.artifacts);
        if args.quiet {
            asked.progress = Progress::Quiet;
        }
        legacy::check(&args.legacy)?;
        asked.rewrites_times = output::rewrites_times(&args.outputs)? || args.timestamp.is_some();
        asked.outputs = outputs;
        asked.believe(args.steps.registry.tls_verify)?;
        let written = [&args.logfile, &args.iidfile, &args.metadata_file, &args.steps.file];
        asked.precious = written.into_iter().flatten().cloned().chain([args.context.clone()]).collect();
        if args.push && asked.outputs.iter().all(|output| output.kind != Kind::Image) {
            let mut image = Output::new(Kind::Image);
            image.push = Some(Encoding::from(oci::Compression::Gzip).into());
            asked.outputs.push(image);
        }
        let is_kept = asked.outputs.is_empty() || args.load;
        if is_kept && asked.outputs.iter().all(|output| output.kind != Kind::Image) {
            asked.outputs.push(Output::new(Kind::Image));
        }
        for text in &args.annotations {
            asked.annotations.extend(output::annotations(text)?);
        }
        asked.cache_from =
            args.cache_from.iter().map(|text| CacheFrom::parse(text)).collect::<Result<_, _>>()?;
        asked.cache_to = args.cache_to.iter().map(|text| CacheTo::parse(text)).collect::<Result<_, _>>()?;
        cache::check_access(&asked)?;
        output::check(&asked, environment)?;
        asked.check_names()?;
        Ok(asked)
    }

    /// The steps alone, of which nothing is made.
    pub(crate) fn of_steps(args: &StepArgs, environment: &Environment) -> Result<Self, Failure> {
        let Named { contexts: named_contexts, places: contexts, layouts } = named_contexts(args)?;
        let platforms = platforms(args, environment)?;
        let request = Request {
            target: args.target.clone(),
            build_args: build_args(args, environment)?,
            platform: platforms.first().cloned(),
            named_contexts,
            first_base: args.from.as_deref().map(tag_or_digest).transpose()?,
            network: args.network.into(),
            allowed: args.allowed.iter().filter_map(|allowed| allowed.entitlement()).collect(),
            volumes: args.volumes.iter().map(|text| host_mount(text)).collect::<Result<_, _>>()?,
            extra_hosts: args.add_hosts.iter().map(|text| extra_host(text)).collect::<Result<_, _>>()?,
            ..Request::plain(Platform::host())
        };
        if let Some(volume) = twice(&request.volumes) {
            let title = format!("two volumes are to be at `{}`", volume.target);
            return Err(Failure::usage(title, "leave one of them out"));
        }
        let limits = args.resources.over(&args.limits)?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            request,
            platforms,
            tags: Vec::new(),
            stage_tags: BTreeMap::new(),
            squash: None,
            artifacts: Vec::new(),
            rewrites_times: false,
            omits_history: false,
            skips_unused_stages: true,
            names: Resolver {
                servers: args.dns.clone(),
                search: args.dns_search.clone(),
                options: args.dns_options.clone(),
            },
            oldest: args.cache_ttl.as_deref().map(oldest).transpose()?,
            outputs: Vec::new(),
            precious: Vec::new(),
            tagged: Vec::new(),
            may_delete: args.allowed.contains(&Allowed::LocalDelete),
            annotations: Vec::new(),
            secrets: args.secrets.iter().map(|text| secret(text, environment)).collect::<Result<_, _>>()?,
            contexts,
            layouts,
            cache_mode: cache_mode(args),
            pull: lock::pull_policy(args)?,
            access: if args.offline { Access::KeptOnly } else { Access::Network },
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            limits: limits.read()?,
            cgroup_parent: limits.cgroup_parent()?,
            registry: args.registry.clone(),
            progress: progress(args, environment)?,
            jobs: args.jobs.unwrap_or(processors * JOBS_PER_PROCESSOR).max(1),
        })
    }
}

impl Asked {
    /// What is to be otherwise with the image than the Dockerfile has it.
    fn read_config(&mut self, args: &BuildArgs, environment: &Environment) {
        let env = args.env.iter().map(|text| build_arg(text, environment));
        self.request.env = env.filter_map(|variable| Some((variable.name, variable.value?))).collect();
        self.request.unset_env.clone_from(&args.unset_env);
        self.request.unset_labels.clone_from(&args.unset_labels);
        if !args.inherit_labels {
            self.request.base_labels = BaseLabels::Dropped;
        }
        self.omits_history = args.omit_history;
        self.skips_unused_stages = args.skip_unused_stages;
        if let Some(seconds) = args.timestamp {
            self.request.build_args.retain(|arg| arg.name != EPOCH);
            self.request
                .build_args
                .push(BuildArg { name: EPOCH.to_owned(), value: Some(seconds.to_string()) });
        }
    }

    /// What the image of the target is called in the store.
    pub(crate) fn kept_names(&self) -> Vec<Reference> {
        let mut names = Vec::new();
        for output in self.outputs.iter().filter(|output| output.kind == Kind::Image) {
            names.extend(self.names_of(output));
        }
        names.sort();
        names.dedup();
        names
    }

    /// What the image of the target is called in the store, and then those of the stages with names of their own, in the order of the plan.
    pub(crate) fn names_of_targets(&self) -> impl Iterator<Item = Vec<Reference>> {
        std::iter::once(self.kept_names()).chain(self.stage_tags.values().cloned())
    }

    /// What the image of the target is called in an output.
    pub(crate) fn names_of(&self, output: &Output) -> Vec<Reference> {
        let more = output.names.iter().filter(|name| !self.tags.contains(name));
        self.tags.iter().chain(more).cloned().collect()
    }

    /// What the image of the target is called anywhere, in the order of the command line.
    pub(crate) fn all_names(&self) -> Vec<Reference> {
        let mut names = Vec::new();
        for output in &self.outputs {
            let new: Vec<_> =
                self.names_of(output).into_iter().filter(|name| !names.contains(name)).collect();
            names.extend(new);
        }
        names
    }

    /// Takes note of the registries that outputs say to believe.
    fn believe(&mut self, verify: Option<bool>) -> Result<(), Failure> {
        let insecure = self.outputs.iter().filter(|output| output.is_insecure);
        let names = insecure.flat_map(|output| match &output.names[..] {
            [] => self.tags.iter(),
            own => own.iter(),
        });
        let registries: Vec<String> = names.map(|name| name.registry().to_owned()).collect();
        if !registries.is_empty() && verify == Some(true) {
            let title = "`registry.insecure=true` and `--tls-verify=true` say two things".to_owned();
            return Err(Failure::usage(title, "leave out one of the two"));
        }
        self.registry.insecure = registries;
        Ok(())
    }

    /// A name is of one stage.
    fn check_names(&self) -> Result<(), Failure> {
        let mut seen = self.kept_names();
        for (stage, names) in &self.stage_tags {
            if let Some(name) = names.iter().find(|name| seen.contains(name)) {
                let title = format!("`--tag {stage}={}`: another stage has that name, too", name.familiar());
                return Err(Failure::usage(title, "give each stage a name of its own"));
            }
            seen.extend(names.iter().cloned());
        }
        Ok(())
    }

    /// A request for each platform, and behind those for the target the same for each stage whose image gets a name, and for that of each
    /// artifact. Between those stand the requests for all stages, if none is to be left out.
    pub(crate) fn requests(&self, file: &dockerfile::File) -> Vec<Request> {
        let of_stage = |stage: &String| Request { target: Some(stage.clone()), ..self.request.clone() };
        let of_artifacts = self.artifacts.iter().map(|artifact| &artifact.stage);
        let all: Vec<String> = match self.skips_unused_stages {
            true => Vec::new(),
            false => (0..file.stages.len()).map(|index| index.to_string()).collect(),
        };
        let stages = self.stage_tags.keys().chain(&all).chain(of_artifacts);
        let targets = std::iter::once(self.request.clone()).chain(stages.map(of_stage));
        targets.flat_map(|target| self.for_platforms(&target)).collect()
    }

    fn for_platforms(&self, request: &Request) -> Vec<Request> {
        let of = |platform: &Platform| Request { platform: Some(platform.clone()), ..request.clone() };
        match &self.platforms[..] {
            [] => vec![request.clone()],
            platforms => platforms.iter().map(of).collect(),
        }
    }
}

/// `--progress`, or else what buildx' command line goes by, `BUILDKIT_PROGRESS`.
fn progress(args: &StepArgs, environment: &Environment) -> Result<Progress, Failure> {
    const VARIABLE: &str = "BUILDKIT_PROGRESS";
    let named = environment.variable(VARIABLE).filter(|text| !text.is_empty());
    match (args.progress, named) {
        (Some(progress), _) => Ok(progress),
        (None, None) => Ok(Progress::Auto),
        (None, Some(text)) => Progress::from_str(text, true).map_err(|_| {
            let title = format!("the variable `{VARIABLE}` is `{text}`, which is no kind of progress");
            Failure::usage(title, "there are auto, tty, plain, quiet, none and rawjson")
        }),
    }
}

/// `--platform`, or else what Docker's command line goes by, `DOCKER_DEFAULT_PLATFORM`.
fn platforms(args: &StepArgs, environment: &Environment) -> Result<Vec<Platform>, Failure> {
    let by_environment = environment.variable("DOCKER_DEFAULT_PLATFORM").filter(|text| !text.is_empty());
    let texts: Vec<&str> = match &args.platforms[..] {
        [] => by_environment.into_iter().collect(),
        given => given.iter().map(String::as_str).collect(),
    };
    let mut platforms = Vec::with_capacity(texts.len());
    for text in texts {
        let platform = platform(text)?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

/// A platform, or `local` for this machine's.
pub(crate) fn platform(text: &str) -> Result<Platform, Failure> {
    if text == "local" {
        return Ok(Platform::host());
    }
    text.parse().map_err(|error| {
        Failure::usage(format!("`--platform {text}`: {error}"), "write it as OS/ARCH, such as `linux/arm64`")
    })
}

impl Layout {
    /// `DIRECTORY[:TAG][@DIGEST]`; the digest counts, and without either the tag is `latest`.
    fn parse(text: &str) -> Result<Self, Failure> {
        let (rest, digest) = text.split_once('@').map_or((text, None), |(rest, digest)| (rest, Some(digest)));
        let is_tag = |tag: &str| !tag.is_empty() && !tag.contains('/');
        let tagged = rest.rsplit_once(':').filter(|(_, tag)| is_tag(tag));
        let (directory, tag) = tagged.unwrap_or((rest, "latest"));
        let pick = match digest.map(str::parse) {
            Some(Ok(digest)) => Pick::Digest(digest),
            Some(Err(_)) => {
                let title = format!("`oci-layout://{text}` ends in no digest");
                return Err(Failure::usage(
                    title,
                    "write it as oci-layout://DIRECTORY:TAG or …@sha256:DIGEST",
                ));
            }
            None => Pick::Tag(tag.to_owned()),
        };
        Ok(Self { directory: PathBuf::from(directory), pick })
    }
}

/// Splits at the first separator.
fn split(text: &str, separator: char) -> (String, Option<String>) {
    match text.split_once(separator) {
        Some((before, after)) => (before.to_owned(), Some(after.to_owned())),
        None => (text.to_owned(), None),
    }
}

/// What the command line gives, and the environment's `SOURCE_DATE_EPOCH` unless that is given, too.
fn build_args(args: &StepArgs, environment: &Environment) -> Result<Vec<BuildArg>, Failure> {
    let mut given = Vec::new();
    for file in &args.build_arg_files {
        let text = std::fs::read_to_string(file).map_err(|error| {
            let title = format!("cannot read `{}`: {error}", file.display());
            Failure::usage(title, "check the path behind `--build-arg-file`")
        })?;
        // As buildah reads them: a line is what `--build-arg` would be given.
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            if line.starts_with('=') {
                let title = format!("`{}`: `{line}` has no name", file.display());
                return Err(Failure::usage(title, "write each line as NAME=VALUE"));
            }
            given.push(build_arg(line, environment));
        }
    }
    given.extend(args.build_args.iter().map(|text| build_arg(text, environment)));
    let configured = network::proxies_of_containers(environment).into_iter();
    let unsaid = configured.filter(|(name, _)| given.iter().all(|arg| !arg.name.eq_ignore_ascii_case(name)));
    let unsaid: Vec<_> = unsaid.map(|(name, value)| BuildArg { name, value: Some(value) }).collect();
    given.extend(unsaid);
    let epoch = environment.variable(EPOCH).filter(|value| !value.is_empty());
    if let Some(value) = epoch.filter(|_| given.iter().all(|arg| arg.name != EPOCH)) {
        given.push(BuildArg { name: EPOCH.to_owned(), value: Some(value.to_owned()) });
    }
    Ok(given)
}

/// The time from which on results count, if they may be as old as this.
fn oldest(text: &str) -> Result<Timestamp, Failure> {
    let wrong =
        || Failure::usage(format!("`--cache-ttl {text}` is no duration"), "write it as `90m`, `24h` or `7d`");
    let age: Span = text.parse().map_err(|_| wrong())?;
    // A day has 24 hours.
    let age = age.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    if age.is_negative() {
        return Err(wrong());
    }
    Timestamp::now().checked_sub(age).map_err(|_| wrong())
}

/// `NAME=VALUE`, or a name whose value the environment has.
pub(super) fn build_arg(text: &str, environment: &Environment) -> BuildArg {
    let (name, value) = split(text, '=');
    let value = value.or_else(|| environment.variable(&name).map(ToOwned::to_owned));
    BuildArg { name, value }
}

/// The first volume whose target another one has, too.
fn twice(volumes: &[HostMount]) -> Option<&HostMount> {
    volumes
        .iter()
        .enumerate()
        .find(|(at, one)| volumes[..*at].iter().any(|other| other.target == one.target))
        .map(|(_, one)| one)
}

fn host_mount(text: &str) -> Result<HostMount, Failure> {
    let Volume { source, target, access } = Volume::parse(text)?;
    if let Err(error) = std::fs::metadata(&source) {
        let title = format!("`--volume {text}`: cannot use `{}`: {error}", source.display());
        return Err(Failure::usage(title, "give a directory or file that is there"));
    }
    let access = match access {
        sandbox::Access::ReadOnly => plan::Access::ReadOnly,
        sandbox::Access::ReadWrite => plan::Access::ReadWrite,
    };
    Ok(HostMount { target: ImagePath::rooted(&target.to_string()), source, access })
}

fn extra_host(text: &str) -> Result<ExtraHost, Failure> {
    let separator = if text.contains('=') { '=' } else { ':' };
    let (name, address) = split(text, separator);
    let address = address.unwrap_or_default();
    let address: Result<IpAddr, _> = address.trim_start_matches('[').trim_end_matches(']').parse();
    match address {
        Ok(address) if !name.is_empty() => Ok(ExtraHost { name, address }),
        _ => Err(Failure::usage(
            format!("`--add-host {text}` names no address"),
            "write it as NAME:ADDRESS, such as `db:10.0.0.2`",
        )),
    }
}

fn cache_mode(args: &StepArgs) -> CacheMode {
    if args.no_cache {
        return CacheMode::Off;
    }
    let stages: BTreeSet<String> = args.no_cache_filter.iter().map(|stage| stage.to_lowercase()).collect();
    if stages.is_empty() { CacheMode::On } else { CacheMode::OffFor(stages) }
}

fn named_contexts(args: &StepArgs) -> Result<Named, Failure> {
    let mut named = Named::default();
    for text in &args.build_contexts {
        let (name, Some(value)) = split(text, '=') else {
            return Err(Failure::usage(
                format!("`--build-context {text}` has no source"),
                "write it as NAME=DIRECTORY, NAME=URL, NAME=docker-image://IMAGE or NAME=oci-layout://DIRECTORY",
            ));
        };
        let image = value.strip_prefix("docker-image://").map(tag_or_digest).transpose()?;
        let layout = value.strip_prefix("oci-layout://").map(Layout::parse).transpose()?;
        let kind = match (image, layout) {
            (Some(image), _) => ContextKind::Image(image),
            (None, Some(layout)) => {
                // The image goes by the name that it stands for, one for each platform if there are several.
                let lower = name.to_lowercase();
                let reference = tag_or_digest(&match lower.split_once("::") {
                    Some((name, platform)) => format!("{name}-{}", platform.replace('/', "-")),
                    None => lower,
                })?;
                named.layouts.insert(reference.clone(), layout);
                ContextKind::Image(reference)
            }
            (None, None) => {
                named.places.insert(name.clone(), Place::of(Path::new(&value))?);
                ContextKind::Directory
            }
        };
        named.contexts.push(NamedContext { name, kind });
    }
    Ok(named)
}

fn tag_or_digest(text: &str) -> Result<Reference, Failure> {
    Reference::parse(text).map_err(|error| {
        Failure::usage(format!("`{text}` is no image name: {error}"), "a name looks like `app:1.2`")
    })
}

/// `id=ID[,src=FILE|,env=VARIABLE|,type=env,src=VARIABLE][,cache=hash]`; without any, the variable ID if there is one, else the file ID.
fn secret(text: &str, environment: &Environment) -> Result<(String, Secret), Failure> {
    const HELP: &str = "write it as id=ID,src=FILE or id=ID,env=VARIABLE, with `,cache=hash` if another value is to run steps again";
    let (mut id, mut file, mut variable, mut in_key) = (None, None, None, SecretInKey::Ignored);
    let mut is_variable = false;
    for field in crate::fields::split(text) {
        let (key, value) = split(&field, '=');
        match (key.as_str(), value) {
            ("id", Some(value)) => id = Some(value),
            ("src" | "source", Some(value)) => file = Some(value),
            ("env", Some(value)) => variable = Some(value),
            ("type", Some(value)) if value == "file" || value == "env" => is_variable = value == "env",
            ("cache", Some(value)) if value == "hash" => in_key = SecretInKey::Counted,
            _ => {
                return Err(Failure::usage(
                    format!("`--secret {text}` has an unknown field `{field}`"),
                    HELP,
                ));
            }
        }
    }
    let id = id.ok_or_else(|| Failure::usage(format!("`--secret {text}` has no id"), HELP))?;
    // As buildx has it: of the type `env`, a source is a variable.
    if is_variable && variable.is_none() {
        variable = file.take();
    }
    let from_environment = |name: &str| environment.variable(name).map(|value| value.as_bytes().to_vec());
    let value = match (file, variable) {
        (Some(file), _) => std::fs::read(&file).map_err(|error| {
            Failure::usage(
                format!("secret `{id}`: cannot read `{file}`: {error}"),
                "check the path behind `src=`",
            )
        })?,
        (None, Some(name)) => from_environment(&name).ok_or_else(|| {
            Failure::usage(
                format!("secret `{id}`: the variable `{name}` is not set"),
                "export it before the build",
            )
        })?,
        (None, None) => match from_environment(&id) {
            Some(value) => value,
            None => std::fs::read(&id).map_err(|_| {
                Failure::usage(
                    format!("secret `{id}`: there is neither a variable nor a file of that name"),
                    HELP,
                )
            })?,
        },
    };
    Ok((id, Secret { value, in_key }))
}
