//! The command line, as data.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use dockerfile::{Level, Rule, UnknownLevel, UnknownRule};
use plan::Entitlement;

use crate::diagnostic::nearest;
use crate::failure::Exit;
use crate::limits::{LimitArgs, ResourceArgs};

/// Turns Dockerfiles into OCI images and runs them: one program, no daemon.
#[derive(Debug, Parser)]
#[command(name = "rbuild", version, propagate_version = false, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Below which heading the options of every command stand.
const GLOBAL: &str = "Options of every command";

/// Options of every command.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Where images, layers and the build cache are kept
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/rbuild", help_heading = GLOBAL)]
    pub(crate) root: PathBuf,
    /// Tell on standard error what is decided and why
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) debug: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// Say what could be better about a Dockerfile
    Lint(LintArgs),
    /// Say why each step of the last build ran or was reused
    Explain(ExplainArgs),
    /// Run a command in a container made from an image, and remove the container
    Run(Box<RunArgs>),
    /// Make an image of a root filesystem's tar
    Import(ImportArgs),
    /// Take images out of an archive that `save`, docker or another tool wrote
    Load(LoadArgs),
    /// Write images to an archive
    Save(SaveArgs),
    /// Get an image from a registry
    Pull(PullArgs),
    /// List images
    Images(ListArgs),
    /// Remove image names, and images that have none left
    Rmi(RmiArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Show what made each layer of an image
    History(HistoryArgs),
    /// Show everything known about images, as JSON
    Inspect(InspectArgs),
    /// Show the store, and what the machine allows
    Info(FormatArgs),
    /// Show what takes how much of the disk
    Du(FormatArgs),
    /// Remove what no image needs
    Prune(PruneArgs),
    /// Check every byte of the store
    Fsck(FsckArgs),
    /// Show the version
    Version(FormatArgs),
    /// Write what a shell needs to complete command lines
    Completions(CompletionsArgs),
    /// Write the manual as pages for man
    Man(ManArgs),
}

/// How a listing is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for a person.
    Table,
    /// One JSON document.
    Json,
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct FormatArgs {
    /// How to write it
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

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

#[derive(Args, Debug)]
pub(crate) struct BuildArgs {
    /// Name the image; may be given several times
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub(crate) tags: Vec<String>,
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
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) build_args: Vec<String>,
    /// Let a name in FROM, --from or a mount mean a directory, a git repository, a file behind a URL (then named `context`), or an
    /// image (`docker-image://NAME`, `oci-layout://DIRECTORY[:TAG][@DIGEST]`)
    #[arg(long = "build-context", value_name = "NAME=SOURCE")]
    pub(crate) build_contexts: Vec<String>,
    /// Set a label of the image
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Give a secret to steps that mount it: id=ID[,src=FILE|,env=VARIABLE], with ,cache=hash behind it if another value is to run them again
    #[arg(long = "secret", value_name = "id=ID,…")]
    pub(crate) secrets: Vec<String>,
    /// Let steps that mount it use an ssh agent: that of SSH_AUTH_SOCK, of a socket, or one with these keys
    #[arg(long = "ssh", value_name = "default|ID[=SOCKET|KEYFILE,…]")]
    pub(crate) ssh: Vec<String>,
    /// Network of the RUN steps that name none
    #[arg(long, value_enum, default_value = "default", value_name = "MODE")]
    pub(crate) network: BuildNetwork,
    /// Let the Dockerfile have what it asks for: network.host for RUN --network=host, security.insecure for RUN --security=insecure, which
    /// is as good as root on this machine
    #[arg(long = "allow", value_name = "ENTITLEMENT,…", value_delimiter = ',', value_parser = entitlement)]
    pub(crate) allowed: Vec<Entitlement>,
    /// Add a line to /etc/hosts of the RUN steps
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    pub(crate) add_hosts: Vec<String>,
    /// Run every step, whatever is recorded
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run every step of these stages, whatever is recorded
    #[arg(long, value_name = "STAGE,…", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// Ask the registry for base images even if they are here
    #[arg(long)]
    pub(crate) pull: bool,
    /// How to show what happens
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) progress: Progress,
    /// Write nothing but the image's id
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// What to make of the result: type=image|oci|docker|local|tar[,dest=PATH][,compression=CODEC][,rewrite-timestamp=true]; may be given several times
    #[arg(short, long = "output", value_name = "type=TYPE,…")]
    pub(crate) outputs: Vec<String>,
    /// How many steps work at once
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// Build, or only say something about the Dockerfile: check, outline or targets; `,format=json` for a program
    #[arg(long, value_name = "METHOD[,format=json]", default_value = "build")]
    pub(crate) call: Call,
    /// Only check the Dockerfile: the same as --call=check
    #[arg(long, conflicts_with = "call")]
    pub(crate) check: bool,
    /// The directory that COPY and ADD take files from, or a git repository (https://HOST/PATH.git#REF:DIRECTORY); `-` reads a
    /// Dockerfile or a context's tar, packed or not, from standard input, and an http or https URL is read like that
    pub(crate) context: PathBuf,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
}

fn entitlement(text: &str) -> Result<Entitlement, String> {
    let known = Entitlement::ALL.iter().find(|known| known.as_str() == text).copied();
    let names = || Entitlement::ALL.map(Entitlement::as_str).join(" and ");
    known.ok_or_else(|| format!("there are {}", names()))
}

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// For which shell; its manual says where the file goes
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Where the pages go, such as /usr/local/share/man/man1
    pub(crate) directory: PathBuf,
}

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
    /// Leave a rule out, report it, or let it fail: off, warn or error; may be given several times
    #[arg(long = "rule", value_name = "NAME=LEVEL")]
    pub(crate) rules: Vec<RuleLevel>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// The directory that COPY and ADD take files from
    #[arg(default_value = ".")]
    pub(crate) context: PathBuf,
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

    /// Whether nothing but the image's id and errors is to be written.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet || self.progress == Progress::Quiet
    }
}

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// The Dockerfile whose last build is meant [default: the last build of all]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// Which network a container sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum RunNetwork {
    /// Only a loopback interface.
    None,
    /// The machine's own.
    Host,
}

#[derive(Args, Debug)]
#[command(trailing_var_arg = true)]
pub(crate) struct RunArgs {
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set an environment variable; without a value, it is taken from the environment
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Mount a directory or file of the machine
    #[arg(short, long = "volume", value_name = "SOURCE:TARGET[:ro]")]
    pub(crate) volumes: Vec<String>,
    /// Directory to start in
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Of an image for several platforms, the one to run [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// Run this program instead of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Which network the process sees
    #[arg(long, value_enum, default_value = "host", value_name = "MODE")]
    pub(crate) network: RunNetwork,
    /// Let nothing be written to the image's files
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Mount an empty filesystem in memory
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    pub(crate) tmpfs: Vec<String>,
    /// Run a small init that passes signals on and reaps orphans
    #[arg(long)]
    pub(crate) init: bool,
    /// The image
    pub(crate) image: String,
    /// Command and arguments instead of the image's own
    #[arg(allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// A tar, perhaps compressed; `-` is standard input
    pub(crate) file: PathBuf,
    /// What to name the image
    pub(crate) reference: String,
}

#[derive(Args, Debug)]
pub(crate) struct LoadArgs {
    /// The archive [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
}

/// What an archive looks like inside.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum ArchiveFormat {
    /// An OCI image layout.
    Oci,
    /// What `docker save` writes.
    Docker,
}

/// How layers are compressed in an archive.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Compression {
    /// Not at all.
    Uncompressed,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

#[derive(Args, Debug)]
pub(crate) struct SaveArgs {
    /// The archive [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What the archive looks like inside
    #[arg(long, value_enum, default_value = "docker")]
    pub(crate) format: ArchiveFormat,
    /// How layers are compressed [default: gzip for oci, uncompressed for docker]
    #[arg(long, value_enum)]
    pub(crate) compression: Option<Compression>,
    /// The images
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct PullArgs {
    /// Platform of the image, if there are several
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// The image
    pub(crate) reference: String,
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Write nothing but ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RmiArgs {
    /// Remove an image by id even if it has several names
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names or ids
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct TagArgs {
    /// The image
    pub(crate) source: String,
    /// Its further name
    pub(crate) target: String,
}

#[derive(Args, Debug)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// The image
    pub(crate) image: String,
}

#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// Names or ids
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    /// Remove the build cache, cache mounts and fetched sources, too: everything that no named image needs
    #[arg(short, long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

#[derive(Args, Debug)]
pub(crate) struct FsckArgs {
    /// Drop what can be made again, and put aside what cannot be used
    #[arg(long)]
    pub(crate) repair: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// Prints clap's own words; help and version are no errors.
pub(crate) fn report_usage(error: &clap::Error) -> ExitCode {
    // `run` gives its process' own codes, of which 2 is one.
    let wrong = if asks_for_run() { Exit::RunFailed } else { Exit::Usage };
    match error.print() {
        Ok(()) if !error.use_stderr() => ExitCode::SUCCESS,
        _ => ExitCode::from(wrong as u8),
    }
}

/// Whether the command is `run`, however wrong the rest is.
fn asks_for_run() -> bool {
    let matches = Cli::command().ignore_errors(true).try_get_matches();
    matches.is_ok_and(|matches| matches.subcommand_name() == Some("run"))
}
