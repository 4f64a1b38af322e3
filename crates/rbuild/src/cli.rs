//! The command line, as data.

mod build;
mod registry;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::failure::Exit;
use crate::limits::LimitArgs;

pub(crate) use build::*;
pub(crate) use registry::*;

/// Turns Dockerfiles into OCI images and runs them: one program, no daemon.
#[derive(Debug, Parser)]
#[command(name = "rbuild", version, propagate_version = false, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where everything lies unless `--root` says otherwise.
pub(crate) const DEFAULT_ROOT: &str = "/var/lib/rbuild";

/// Below which heading the options of every command stand.
const GLOBAL: &str = "Options of every command";

/// Options of every command.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Where images, layers and the build cache are kept
    #[arg(long, global = true, value_name = "DIR", default_value = DEFAULT_ROOT, help_heading = GLOBAL)]
    pub(crate) root: PathBuf,
    /// Tell on standard error what is decided and why
    #[arg(short = 'D', long, global = true, help_heading = GLOBAL)]
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
    /// Open a shell before or after any step of a build, with its mounts and environment
    Shell(Box<ShellArgs>),
    /// Say what differs between two images, or between what two steps made
    Diff(DiffArgs),
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
    /// Send an image to a registry
    Push(PushArgs),
    /// Copy an image from one registry to another, with all its platforms and every digest
    Copy(CopyArgs),
    /// Put images of several platforms under one name, and look at manifests
    #[command(subcommand)]
    Manifest(ManifestCommand),
    /// Look for images at a registry
    Search(SearchArgs),
    /// Keep a name and password for a registry, where docker and podman look for them, too
    Login(LoginArgs),
    /// Forget the name and password for a registry
    Logout(LogoutArgs),
    /// What is configured about registries
    #[command(subcommand)]
    Registry(RegistryCommand),
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

/// The options of a command, `--` before each.
pub(crate) fn option_names(command: &str) -> Vec<String> {
    let ours = Cli::command();
    let options = ours.find_subcommand(command).into_iter().flat_map(clap::Command::get_arguments);
    options.filter_map(clap::Arg::get_long).map(|name| format!("--{name}")).collect()
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

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// The Dockerfile whose last build is meant [default: the last build of all]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// What a listing of differences leaves open.
const ABOUT_DIFFERENCES: &str = "\
The marks are those of `docker diff`: A is only in B, D is only in A, C is in both and differs. Images are compared with all that \
their configs say but times and history; what steps made, by files alone.

The exit code is 0 if nothing differs, 1 if something does, and more if it could not be found out.";

#[derive(Args, Debug)]
#[command(after_long_help = ABOUT_DIFFERENCES)]
pub(crate) struct DiffArgs {
    /// The Dockerfile whose last build STAGE@STEP means [default: the last build of all]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Tell of files of which only the time of modification differs, too
    #[arg(long)]
    pub(crate) mtime: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// An image's name or id; or STAGE@STEP for what that step of the last build made, counted as the progress of a build shows it
    #[arg(value_name = "A")]
    pub(crate) old: String,
    /// What to compare it with
    #[arg(value_name = "B")]
    pub(crate) new: String,
}

/// When an image is asked of its registry.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// If it is not in the store.
    #[value(alias = "false")]
    Missing,
    /// Each time; what is the same there is not fetched again. One that no registry has may be in the store.
    #[value(alias = "true")]
    Always,
    /// Each time, but one in the store does if the registry cannot be asked.
    Newer,
    /// It must be in the store.
    Never,
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
#[command(trailing_var_arg = true, override_usage = "rbuild run [OPTIONS] IMAGE [COMMAND]...")]
pub(crate) struct RunArgs {
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set an environment variable; without a value, it is taken from the environment
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = with_name)]
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
    /// When to ask the registry for the image
    #[arg(long, value_enum, value_name = "WHEN", default_value = "missing")]
    pub(crate) pull: PullPolicy,
    /// Ask nobody: the image must be in the store. The process keeps its network
    #[arg(long)]
    pub(crate) offline: bool,
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
    /// The image, and behind it the command and its arguments if they are to be others than the image's own
    #[arg(required = true, allow_hyphen_values = true, value_name = "IMAGE [COMMAND]")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

impl RunArgs {
    pub(crate) fn image(&self) -> &str {
        self.words.first().map(String::as_str).unwrap_or_default()
    }

    pub(crate) fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
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

/// `NAME[=VALUE]`.
fn with_name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.starts_with('=') { Err("it has no name") } else { Ok(text.to_owned()) }
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("it has no value")?;
    with_name(text)?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Prints clap's own words; help and version are no errors.
pub(crate) fn report_usage(error: &clap::Error) -> ExitCode {
    // These two give their process' own codes, of which 2 is one.
    let wrong = if asks_for_process() { Exit::RunFailed } else { Exit::Usage };
    match error.print() {
        Ok(()) if !error.use_stderr() => ExitCode::SUCCESS,
        _ => ExitCode::from(wrong as u8),
    }
}

/// Whether the command is `run` or `shell`, however wrong the rest is.
fn asks_for_process() -> bool {
    let matches = Cli::command().ignore_errors(true).try_get_matches();
    matches.is_ok_and(|matches| matches!(matches.subcommand_name(), Some("run" | "shell")))
}
