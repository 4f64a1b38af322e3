//! The options of `build`, `shell` and `lint`, and those of the steps that all of them have.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use dockerfile::{Level, Rule, UnknownLevel, UnknownRule};
use plan::{Entitlement, NetworkMode};
use suggest::nearest;

use super::{Format, FormatArgs, PullPolicy, RegistryArgs, with_name};
use crate::build::Names;
use crate::build::artifacts::Artifact;
use crate::limits::{LimitArgs, ResourceArgs};

/// How a build shows what it does.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Progress {
    /// `tty` on a terminal, else `plain`.
    Auto,
    /// A live view of the steps at work.
    Tty,
    /// One line for each thing that happens.
    Plain,
    /// Nothing but errors and the image's id.
    Quiet,
    /// Nothing but errors.
    None,
    /// A record for each thing that happens, as BuildKit writes them: JSON for programs.
    #[value(name = "rawjson")]
    RawJson,
}

impl Progress {
    /// Whether a person is to read what is written.
    pub(crate) fn is_for_people(self) -> bool {
        matches!(self, Self::Auto | Self::Tty | Self::Plain)
    }
}

/// Which network a process sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum BuildNetwork {
    /// What the builder gives to everybody: the machine's own, until there is a bridge.
    Default,
    /// Only a loopback interface.
    None,
    /// The machine's own.
    Host,
}

impl From<BuildNetwork> for NetworkMode {
    fn from(network: BuildNetwork) -> Self {
        match network {
            BuildNetwork::Default => Self::Default,
            BuildNetwork::None => Self::None,
            BuildNetwork::Host => Self::Host,
        }
    }
}

/// What decides how the steps of a Dockerfile come out, and how they are worked on.
#[derive(Args, Debug)]
pub(crate) struct StepArgs {
    /// The Dockerfile; `-` is standard input [default: Dockerfile, dockerfile or Containerfile of the context]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Build this stage instead of the last
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Build for these platforms instead of this machine's, such as linux/arm64; several become one image with an index. Foreign RUNs need an
    /// emulator that is registered with binfmt_misc, such as Debian's qemu-user-static
    #[arg(long = "platform", value_name = "OS/ARCH[/VARIANT],…", value_delimiter = ',')]
    pub(crate) platforms: Vec<String>,
    /// Set an ARG; without a value, it is taken from the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]", value_parser = with_name)]
    pub(crate) build_args: Vec<String>,
    /// Set ARGs from a file of lines NAME=VALUE; those of --build-arg count for more
    #[arg(long = "build-arg-file", value_name = "FILE")]
    pub(crate) build_arg_files: Vec<PathBuf>,
    /// Take this image for the first FROM, whatever that says
    #[arg(long, value_name = "IMAGE")]
    pub(crate) from: Option<String>,
    /// Leave out of the context what this file says [default: DOCKERFILE.dockerignore, .containerignore or .dockerignore]
    #[arg(long = "ignorefile", value_name = "FILE")]
    pub(crate) ignore_file: Option<PathBuf>,
    /// Let a name in FROM, --from or a mount mean a directory, a git repository, a file behind a URL (then named `context`), or an
    /// image (`docker-image://NAME`, `oci-layout://DIRECTORY[:TAG][@DIGEST]`)
    #[arg(long = "build-context", value_name = "NAME=SOURCE")]
    pub(crate) build_contexts: Vec<String>,
    /// Give a secret to steps that mount it: id=ID[,src=FILE|,env=VARIABLE], with ,cache=hash behind it if another value is to run them again
    #[arg(long = "secret", value_name = "id=ID,…")]
    pub(crate) secrets: Vec<String>,
    /// Let steps that mount it, and ADD of repositories by ssh (default), use an ssh agent: that of SSH_AUTH_SOCK, of a socket, or one with these keys
    #[arg(long = "ssh", value_name = "default|ID[=SOCKET|KEYFILE,…]")]
    pub(crate) ssh: Vec<String>,
    /// Network of the RUN steps that name none
    #[arg(long, value_enum, default_value = "default", value_name = "MODE")]
    pub(crate) network: BuildNetwork,
    /// Let the Dockerfile have what it asks for: network.host for RUN --network=host, security.insecure for RUN --security=insecure, which
    /// is as good as root on this machine. buildx.local.delete lets --output with mode=delete clear a directory that is not below this one
    #[arg(long = "allow", value_name = "ENTITLEMENT,…", value_delimiter = ',', value_parser = allowed)]
    pub(crate) allowed: Vec<Allowed>,
    /// Show a file or directory of this machine to every RUN step. Where it lies is part of what a step is made from, what it holds is not
    #[arg(short, long = "volume", value_name = "SOURCE:TARGET[:ro]")]
    pub(crate) volumes: Vec<String>,
    /// Add a line to /etc/hosts of the RUN steps
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    pub(crate) add_hosts: Vec<String>,
    /// Ask this server for names in RUN steps, instead of those in the machine's resolv.conf; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns: Vec<IpAddr>,
    /// Look for names in this domain in RUN steps, instead of those in the machine's resolv.conf; `.` for none
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// Set an option of the resolver in RUN steps, instead of those in the machine's resolv.conf
    #[arg(long = "dns-option", value_name = "OPTION")]
    pub(crate) dns_options: Vec<String>,
    /// Run steps again whose results are older, such as 24h or 7d
    #[arg(long, value_name = "DURATION")]
    pub(crate) cache_ttl: Option<String>,
    /// Run every step, whatever is recorded
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run every step of these stages, whatever is recorded
    #[arg(long, value_name = "STAGE,…", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// When to ask the registry for base images: without a value, always
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_value = "missing", default_missing_value = "always")]
    pub(crate) pull: PullPolicy,
    /// Ask nobody what a name means: take images, files behind URLs and repositories from the store, as they were when they were last fetched.
    /// RUN steps keep their network
    #[arg(long)]
    pub(crate) offline: bool,
    /// Take images, files behind URLs and commits as the lock file says, whatever their names mean by now; what is not in it is an error
    /// [default: rbuild.lock beside the Dockerfile, or NAME.rbuild.lock for one of another name than Dockerfile and Containerfile]
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub(crate) locked: Option<Option<PathBuf>>,
    /// How to show what happens [default: what BUILDKIT_PROGRESS says, else auto]
    #[arg(long, value_enum)]
    pub(crate) progress: Option<Progress>,
    /// How many steps work at once
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

impl StepArgs {
    pub(crate) fn names<'n>(&'n self, context: &'n Path) -> Names<'n> {
        let (file, ignore_file) = (self.file.as_deref(), self.ignore_file.as_deref());
        Names { file, context, ignore_file }
    }
}

/// What `--allow` allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Allowed {
    /// Something to the Dockerfile.
    Entitlement(Entitlement),
    /// An output to clear any directory.
    LocalDelete,
}

impl Allowed {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Entitlement(entitlement) => entitlement.as_str(),
            Self::LocalDelete => "buildx.local.delete",
        }
    }

    pub(crate) fn entitlement(self) -> Option<Entitlement> {
        match self {
            Self::Entitlement(entitlement) => Some(entitlement),
            Self::LocalDelete => None,
        }
    }
}

fn allowed(text: &str) -> Result<Allowed, String> {
    let all: Vec<Allowed> =
        Entitlement::ALL.into_iter().map(Allowed::Entitlement).chain([Allowed::LocalDelete]).collect();
    let known = all.iter().find(|known| known.as_str() == text).copied();
    let names = || all.iter().map(|known| known.as_str()).collect::<Vec<_>>().join(", ");
    known.ok_or_else(|| format!("there are {}", names()))
}

/// Which layers become one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Squash {
    /// Those above the base image.
    New,
    /// Those of the base image, too.
    All,
    /// Those above a stage that the target stands on.
    From(String),
}

/// Why a text is no [`Squash`].
#[derive(Debug, thiserror::Error)]
#[error("write `new`, `all` or `from:STAGE`")]
pub(crate) struct SquashError;

impl FromStr for Squash {
    type Err = SquashError;

    fn from_str(text: &str) -> Result<Self, SquashError> {
        match (text, text.strip_prefix("from:")) {
            // As docker and podman write it.
            ("new" | "true", _) => Ok(Self::New),
            ("all", _) => Ok(Self::All),
            (_, Some(stage)) if !stage.is_empty() => Ok(Self::From(stage.to_lowercase())),
            _ => Err(SquashError),
        }
    }
}

/// What builders before had a need for, as command lines still have it.
#[derive(Args, Debug)]
pub(crate) struct LegacyArgs {
    /// Remove what a step leaves besides its layer
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) rm: Option<bool>,
    /// The same, of steps that fail, too
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) force_rm: Option<bool>,
    /// Compress the context on its way to a daemon
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) compress: Option<bool>,
    /// Believe images without a signature of Docker's old kind
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) disable_content_trust: Option<bool>,
    /// How containers are kept apart on Windows
    #[arg(long, hide = true, value_name = "NAME")]
    pub(crate) isolation: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct BuildArgs {
    /// Name the image, or with STAGE= that of another stage, which is built for it; may be given several times
    #[arg(short, long = "tag", value_name = "[STAGE=]NAME[:TAG]")]
    pub(crate) tags: Vec<String>,
    #[command(flatten)]
    pub(crate) steps: StepArgs,
    /// Set a label of the image
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = with_name)]
    pub(crate) labels: Vec<String>,
    /// Remove a label from the image
    #[arg(long = "unsetlabel", value_name = "NAME")]
    pub(crate) unset_labels: Vec<String>,
    /// Whether the labels of base images are the image's, too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) inherit_labels: bool,
    /// Set a variable of the image that no step sees; without a value, it is taken from the environment
    #[arg(long = "env", value_name = "NAME[=VALUE]", value_parser = with_name)]
    pub(crate) env: Vec<String>,
    /// Remove a variable from the image
    #[arg(long = "unsetenv", value_name = "NAME")]
    pub(crate) unset_env: Vec<String>,
    /// Leave the history out of the image
    #[arg(long)]
    pub(crate) omit_history: bool,
    /// Let the image, and every file of the layers that are made, be of this time, in seconds since 1970: SOURCE_DATE_EPOCH with
    /// rewrite-timestamp=true
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) timestamp: Option<i64>,
    /// Build the stages, too, that the target does not need
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) skip_unused_stages: bool,
    /// Write to this file, behind what it has, instead of standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) logfile: Option<PathBuf>,
    /// Write nothing but the image's id
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// What to make of the result: type=image|registry|oci|docker|local|tar[,dest=PATH]; other fields are name=NAME, push=true,
    /// compression=CODEC, rewrite-timestamp=true, annotation.KEY=VALUE, platform-split=true, mode=delete, push-by-digest=true, name-canonical=true and registry.insecure=true; may be given several times.
    /// With a tag of a registry other than Docker Hub and localhost/, layers are compressed for a push later:
    /// type=image,compression=uncompressed leaves that to the push, compression=gzip does it for any tag
    #[arg(short, long = "output", value_name = "type=TYPE,…")]
    pub(crate) outputs: Vec<String>,
    /// Say something about the image in its manifest, or as TYPE:KEY=VALUE in another place: manifest, index, manifest-descriptor or
    /// index-descriptor, the first and the third with [OS/ARCH] if only for one platform. It stands in what --output writes
    #[arg(long = "annotation", value_name = "[TYPE:]KEY=VALUE")]
    pub(crate) annotations: Vec<String>,
    /// Write what is at PATH in a stage into a directory, the files that are there by then if the build fails; may be given several times
    #[arg(long = "artifact", value_name = "STAGE:/PATH=DIRECTORY")]
    pub(crate) artifacts: Vec<Artifact>,
    /// When all is done, write to a lock file what each image, URL, and branch or tag of a repository meant, for --locked to take it as it was.
    /// With --pull, as it is now [default: as for --locked]
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, conflicts_with = "locked")]
    pub(crate) lock: Option<Option<PathBuf>>,
    /// Make one layer of what the build adds, of all (all), or of what is above a stage (from:STAGE). The cache keeps the layers of the steps, and images of --tag STAGE=NAME keep theirs
    #[arg(long, value_name = "new|all|from:STAGE", num_args = 0..=1, require_equals = true, default_missing_value = "new")]
    pub(crate) squash: Option<Squash>,
    /// Send the image to the registries that its names say; it is kept in the store, too
    #[arg(long)]
    pub(crate) push: bool,
    /// Take results of steps from elsewhere: NAME of a cache or an image in a registry, type=registry,ref=NAME or type=local,src=DIRECTORY[,tag=TAG]. Layers come when they are
    /// needed; a cache that is not there is none; may be given several times
    #[arg(long, value_name = "NAME|type=TYPE,…")]
    pub(crate) cache_from: Vec<String>,
    /// Send results of steps elsewhere, also when the build fails: type=registry,ref=NAME, type=local,dest=DIRECTORY[,tag=TAG] or
    /// type=inline, into the image that is pushed; other fields are mode=min (steps whose layers the image has) or mode=max (all), mounts=all|ID,… (cache mounts),
    /// compression=CODEC and ignore-error=true; may be given several times
    #[arg(long, value_name = "NAME|type=TYPE,…")]
    pub(crate) cache_to: Vec<String>,
    /// Keep the image in the store besides what --output makes of it; without --output it is kept anyway
    #[arg(long)]
    pub(crate) load: bool,
    #[command(flatten)]
    pub(crate) legacy: LegacyArgs,
    /// Build, or only say something about the Dockerfile: check, outline or targets; `,format=json` for a program
    #[arg(long, value_name = "METHOD[,format=json]", default_value = "build")]
    pub(crate) call: Call,
    /// Only check the Dockerfile: the same as --call=check
    #[arg(long, conflicts_with = "call")]
    pub(crate) check: bool,
    /// The directory that COPY and ADD take files from, or a git repository (https://HOST/PATH.git#REF:DIRECTORY); `-` reads a
    /// Dockerfile or a context's tar, packed or not, from standard input, and an http or https URL is read like that
    pub(crate) context: PathBuf,
}

/// A step of a build, or the end of a stage.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct StepName {
    /// A stage's name, its number counted from 0, or `stage-N`.
    pub(crate) stage: String,
    /// Counted from 1, as progress shows it; `None` is the end of the stage.
    pub(crate) number: Option<usize>,
}

impl StepName {
    /// Which of these stages is meant: the last one of that name, or that of the number, which progress shows as `stage-N` where there
    /// is no name. The names stand beside the stages' numbers, counted from 0.
    pub(crate) fn stage_among(&self, stages: &[(usize, Option<&str>)]) -> Option<usize> {
        let lower = self.stage.to_lowercase();
        let number = lower.strip_prefix("stage-").unwrap_or(&lower).parse().ok();
        let by_name = stages.iter().rfind(|(_, name)| *name == Some(lower.as_str()));
        by_name.or_else(|| stages.iter().find(|(index, _)| Some(*index) == number)).map(|(index, _)| *index)
    }
}

/// Why a text is no [`StepName`].
#[derive(Debug, thiserror::Error)]
#[error("write it as STAGE or STAGE@STEP, such as `app@4` for step 4 of stage `app`")]
pub(crate) struct StepNameError;

impl FromStr for StepName {
    type Err = StepNameError;

    fn from_str(text: &str) -> Result<Self, StepNameError> {
        let (stage, number) = match text.rsplit_once('@') {
            Some((stage, number)) => (stage, Some(number.parse().map_err(|_| StepNameError)?)),
            None => (text, None),
        };
        if stage.is_empty() {
            return Err(StepNameError);
        }
        Ok(Self { stage: stage.to_owned(), number })
    }
}

#[derive(Args, Debug)]
#[command(after_long_help = ABOUT_SHELLS)]
pub(crate) struct ShellArgs {
    /// The step, counted as the progress of a build shows it: `app@4` is just before step 4 of stage `app`, `app` at the end of that stage
    /// [default: the step that the last build failed at, else the end of the last stage]
    #[arg(value_name = "STAGE[@STEP]")]
    pub(crate) step: Option<StepName>,
    /// A program with its arguments instead of the stage's shell
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// Look at what the step made instead of what it starts from; of a RUN that fails, at what it left
    #[arg(long)]
    pub(crate) after: bool,
    /// The directory that COPY and ADD take files from, or a URL, as for `build`
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) context: PathBuf,
    #[command(flatten)]
    pub(crate) steps: StepArgs,
}

/// What the options alone do not tell.
const ABOUT_SHELLS: &str = "\
Everything that the step stands on is built first, as `rbuild build` does it with the same options, or comes from the cache. \
What is written in the shell goes away with it, but for what is written to cache mounts; builds that lock one of those wait \
for its end.

Examples:
  rbuild shell                            where the last build failed
  rbuild shell app@4 -- ls -l /src        one command just before step 4 of stage app
  rbuild shell --after app@4 < script.sh  a script upon what step 4 made or left

The exit code is that of the shell; 125 if it could not be opened, 126 if it cannot be executed, 127 if there is none.";

/// What `build` does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Method {
    Build,
    /// Findings of all stages, or of those that the target needs.
    Check,
    /// Arguments, secrets, ssh keys and caches of the target.
    Outline,
    /// The stages.
    Targets,
}

/// `--call`: a method, and how to write what it gives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) format: Format,
}

/// Why a text is no `--call`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the method is one of `build`, `check`, `outline` and `targets`, not `{0}`")]
    Method(String),
    #[error("behind the method stands `format=json` or `format=text`, not `{0}`")]
    Attribute(String),
    #[error("`build` writes no document, so it has no `{0}`")]
    OfBuild(String),
}

impl FromStr for Call {
    type Err = CallError;

    fn from_str(text: &str) -> Result<Self, CallError> {
        let mut parts = text.split(',');
        let method = match parts.next().unwrap_or_default() {
            "build" => Method::Build,
            "check" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            other => return Err(CallError::Method(other.to_owned())),
        };
        let format = |_, attribute: &str| match (method, attribute) {
            (Method::Build, other) => Err(CallError::OfBuild(other.to_owned())),
            (_, "format=json") => Ok(Format::Json),
            (_, "format=text") => Ok(Format::Table),
            (_, other) => Err(CallError::Attribute(other.to_owned())),
        };
        Ok(Self { method, format: parts.try_fold(Format::Table, format)? })
    }
}

#[derive(Args, Debug)]
pub(crate) struct LintArgs {
    /// The Dockerfile [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Leave out of the context what this file says [default: DOCKERFILE.dockerignore, .containerignore or .dockerignore]
    #[arg(long = "ignorefile", value_name = "FILE")]
    pub(crate) ignore_file: Option<PathBuf>,
    /// Leave a rule out, report it, or let it fail: off, warn or error; may be given several times
    #[arg(long = "rule", value_name = "NAME=LEVEL")]
    pub(crate) rules: Vec<RuleLevel>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// The directory that COPY and ADD take files from
    #[arg(default_value = ".")]
    pub(crate) context: PathBuf,
}

impl LintArgs {
    pub(crate) fn names(&self) -> Names<'_> {
        let (file, ignore_file) = (self.file.as_deref(), self.ignore_file.as_deref());
        Names { file, context: &self.context, ignore_file }
    }
}

/// `--rule`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RuleLevel {
    pub(crate) rule: Rule,
    pub(crate) level: Level,
}

/// Why a text is no `--rule`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuleLevelError {
    #[error("write it as NAME=off, NAME=warn or NAME=error")]
    NoLevel,
    #[error("{unknown}{}", meant(.unknown))]
    Rule { unknown: UnknownRule },
    #[error(transparent)]
    Level(#[from] UnknownLevel),
}

/// `, did you mean …?`
fn meant(unknown: &UnknownRule) -> String {
    let names = Rule::ALL.iter().map(|rule| rule.as_str());
    nearest(&unknown.0, names).map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

impl FromStr for RuleLevel {
    type Err = RuleLevelError;

    fn from_str(text: &str) -> Result<Self, RuleLevelError> {
        let (rule, level) = text.split_once('=').ok_or(RuleLevelError::NoLevel)?;
        let rule = rule.parse().map_err(|unknown| RuleLevelError::Rule { unknown })?;
        Ok(Self { rule, level: level.parse::<Level>()? })
    }
}

impl BuildArgs {
    /// What is to be done, by either of the two options.
    pub(crate) fn call(&self) -> Call {
        if self.check { Call { method: Method::Check, format: Format::Table } } else { self.call }
    }

    pub(crate) fn names(&self) -> Names<'_> {
        self.steps.names(&self.context)
    }
}
