//! What the command line asks for, understood.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use image::load::Pick;
use oci::{Platform, Reference};
use plan::{BuildArg, ContextKind, ExtraHost, NamedContext, NetworkMode, Request};
use sandbox::Limits;
use solver::{CacheMode, Secret, SecretInKey};

use crate::build::input::Place;
use crate::build::output::{self, Output};
use crate::cli::{BuildArgs, BuildNetwork};
use crate::commands::names;
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};

/// Steps that work at once unless `--jobs` says otherwise, for each processor. Most steps wait for the network or the disk most of the time.
const JOBS_PER_PROCESSOR: usize = 8;

/// Everything but paths of the Dockerfile and the context.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) tags: Vec<Reference>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) secrets: BTreeMap<String, Secret>,
    /// Named contexts that are, or become, directories.
    pub(crate) contexts: BTreeMap<String, Place>,
    /// Named contexts that are images in OCI layouts, by the names they have in the plan.
    pub(crate) layouts: BTreeMap<Reference, Layout>,
    pub(crate) cache_mode: CacheMode,
    pub(crate) jobs: usize,
    /// Of each RUN.
    pub(crate) limits: Limits,
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
        let Named { contexts: named_contexts, places: contexts, layouts } = named_contexts(args)?;
        let request = Request {
            target: args.target.clone(),
            build_args: args.build_args.iter().map(|text| build_arg(text, environment)).collect(),
            platform: None,
            build_platform: Platform::host(),
            named_contexts,
            labels: args
                .labels
                .iter()
                .map(|text| split(text, '='))
                .map(|(k, v)| (k, v.unwrap_or_default()))
                .collect(),
            network: match args.network {
                BuildNetwork::Default => NetworkMode::Default,
                BuildNetwork::None => NetworkMode::None,
                BuildNetwork::Host => NetworkMode::Host,
            },
            extra_hosts: args.add_hosts.iter().map(|text| extra_host(text)).collect::<Result<_, _>>()?,
        };
        let outputs = args.outputs.iter().map(|text| Output::parse(text)).collect::<Result<Vec<_>, _>>()?;
        output::check(&outputs)?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            request,
            tags: args.tags.iter().map(|text| names::new_name(text)).collect::<Result<_, _>>()?,
            outputs: if outputs.is_empty() { vec![Output::Image] } else { outputs },
            secrets: args.secrets.iter().map(|text| secret(text, environment)).collect::<Result<_, _>>()?,
            contexts,
            layouts,
            cache_mode: cache_mode(args),
            limits: args.limits.read()?,
            jobs: args.jobs.unwrap_or(processors * JOBS_PER_PROCESSOR).max(1),
        })
    }
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
                return Err(usage(title, "write it as oci-layout://DIRECTORY:TAG or …@sha256:DIGEST"));
            }
            None => Pick::Tag(tag.to_owned()),
        };
        Ok(Self { directory: PathBuf::from(directory), pick })
    }
}

fn usage(title: String, help: &str) -> Failure {
    Failure::new(Exit::Usage, Diagnostic::error("usage", title).help(help))
}

/// Splits at the first separator.
fn split(text: &str, separator: char) -> (String, Option<String>) {
    match text.split_once(separator) {
        Some((before, after)) => (before.to_owned(), Some(after.to_owned())),
        None => (text.to_owned(), None),
    }
}

/// `NAME=VALUE`, or a name whose value the environment has.
pub(super) fn build_arg(text: &str, environment: &Environment) -> BuildArg {
    let (name, value) = split(text, '=');
    let value = value.or_else(|| environment.variable(&name).map(ToOwned::to_owned));
    BuildArg { name, value }
}

fn extra_host(text: &str) -> Result<ExtraHost, Failure> {
    let separator = if text.contains('=') { '=' } else { ':' };
    let (name, address) = split(text, separator);
    let address = address.unwrap_or_default();
    let address: Result<IpAddr, _> = address.trim_start_matches('[').trim_end_matches(']').parse();
    match address {
        Ok(address) if !name.is_empty() => Ok(ExtraHost { name, address }),
        _ => Err(usage(
            format!("`--add-host {text}` names no address"),
            "write it as NAME:ADDRESS, such as `db:10.0.0.2`",
        )),
    }
}

fn cache_mode(args: &BuildArgs) -> CacheMode {
    if args.no_cache {
        return CacheMode::Off;
    }
    let stages: BTreeSet<String> = args.no_cache_filter.iter().map(|stage| stage.to_lowercase()).collect();
    if stages.is_empty() { CacheMode::On } else { CacheMode::OffFor(stages) }
}

fn named_contexts(args: &BuildArgs) -> Result<Named, Failure> {
    let mut named = Named::default();
    for text in &args.build_contexts {
        let (name, Some(value)) = split(text, '=') else {
            return Err(usage(
                format!("`--build-context {text}` has no source"),
                "write it as NAME=DIRECTORY, NAME=URL, NAME=docker-image://IMAGE or NAME=oci-layout://DIRECTORY",
            ));
        };
        let image = value.strip_prefix("docker-image://").map(tag_or_digest).transpose()?;
        let layout = value.strip_prefix("oci-layout://").map(Layout::parse).transpose()?;
        let kind = match (image, layout) {
            (Some(image), _) => ContextKind::Image(image),
            (None, Some(layout)) => {
                // The image goes by the name that it stands for.
                let reference = tag_or_digest(&name)?;
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
    Reference::parse(text)
        .map_err(|error| usage(format!("`{text}` is no image name: {error}"), "a name looks like `app:1.2`"))
}

/// `id=ID[,src=FILE|,env=VARIABLE][,type=file|env][,cache=hash]`; without either, the variable ID if there is one, else the file ID.
fn secret(text: &str, environment: &Environment) -> Result<(String, Secret), Failure> {
    const HELP: &str = "write it as id=ID,src=FILE or id=ID,env=VARIABLE, with `,cache=hash` if another value is to run steps again";
    let (mut id, mut file, mut variable, mut in_key) = (None, None, None, SecretInKey::Ignored);
    for field in text.split(',') {
        let (key, value) = split(field, '=');
        match (key.as_str(), value) {
            ("id", Some(value)) => id = Some(value),
            ("src" | "source", Some(value)) => file = Some(value),
            ("env", Some(value)) => variable = Some(value),
            ("type", Some(value)) if value == "file" || value == "env" => {}
            ("cache", Some(value)) if value == "hash" => in_key = SecretInKey::Counted,
            _ => return Err(usage(format!("`--secret {text}` has an unknown field `{field}`"), HELP)),
        }
    }
    let id = id.ok_or_else(|| usage(format!("`--secret {text}` has no id"), HELP))?;
    let from_environment = |name: &str| environment.variable(name).map(|value| value.as_bytes().to_vec());
    let value = match (file, variable) {
        (Some(file), _) => std::fs::read(&file).map_err(|error| {
            usage(format!("secret `{id}`: cannot read `{file}`: {error}"), "check the path behind `src=`")
        })?,
        (None, Some(name)) => from_environment(&name).ok_or_else(|| {
            usage(format!("secret `{id}`: the variable `{name}` is not set"), "export it before the build")
        })?,
        (None, None) => match from_environment(&id) {
            Some(value) => value,
            None => std::fs::read(&id).map_err(|_| {
                usage(format!("secret `{id}`: there is neither a variable nor a file of that name"), HELP)
            })?,
        },
    };
    Ok((id, Secret { value, in_key }))
}
