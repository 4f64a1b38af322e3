//! The commands that speak to registries.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Compression, FormatArgs};

/// About registries.
#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Say where a name leads, as whom we come there, and which file decided that
    Explain(RegistryExplainArgs),
}

#[derive(Args, Debug)]
pub(crate) struct RegistryExplainArgs {
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// An image's name
    pub(crate) reference: String,
}

/// How registries are spoken to, beside what is configured.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RegistryArgs {
    /// Whether registries must have TLS and prove who they are [default: as configured, and else yes but on this machine]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) tls_verify: Option<bool>,
    /// Trust the authorities (*.crt) in a directory, and show its certificate (*.cert, *.key) to whoever asks for one
    #[arg(long, value_name = "DIR")]
    pub(crate) cert_dir: Option<PathBuf>,
    /// Registries that an output says to believe: `registry.insecure`
    #[arg(skip)]
    pub(crate) insecure: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct PullArgs {
    /// Get every tag of the repository
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Say nothing but the image's id
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Platform of the image, if there are several
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// The image
    pub(crate) reference: String,
}

#[derive(Args, Debug)]
pub(crate) struct PushArgs {
    /// Push every tag of the repository that is here
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Say nothing but what was pushed
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Push one platform of an image that is here for several
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// How to compress layers of our own making [default: gzip]; what came from elsewhere leaves as it came
    #[arg(long, value_name = "CODEC")]
    pub(crate) compression: Option<Compression>,
    /// Compress what came from elsewhere in another way anew, too
    #[arg(long)]
    pub(crate) force_compression: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// The image, named with the registry that it goes to
    pub(crate) reference: String,
}

#[derive(Args)]
pub(crate) struct LoginArgs {
    /// The user's name [default: asked for]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// The password, seen by whoever lists processes
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub(crate) password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// The registry [default: docker.io]
    pub(crate) server: Option<String>,
}

impl std::fmt::Debug for LoginArgs {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginArgs").field("username", &self.username).field("server", &self.server).finish()
    }
}

#[derive(Args, Debug)]
pub(crate) struct LogoutArgs {
    /// Forget all names and passwords, also those that a helper keeps
    #[arg(short, long, conflicts_with = "server")]
    pub(crate) all: bool,
    /// The registry [default: docker.io]
    pub(crate) server: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct CopyArgs {
    /// Copy the image of one platform instead of all that there are
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// Copy what refers to it, too, such as signatures and lists of contents (referrers of the OCI distribution specification)
    #[arg(long)]
    pub(crate) referrers: bool,
    /// Say nothing but what was copied
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// The image, at its registry
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// What it is to be called; may be at another registry
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: String,
}

#[derive(Args, Debug)]
pub(crate) struct SearchArgs {
    /// Only repositories with that many stars, or of the registry's owners; may be given several times
    #[arg(short, long = "filter", value_name = "stars=N|is-official=BOOL")]
    pub(crate) filters: Vec<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) limit: u16,
    /// Show descriptions in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// A word of the name, at Docker Hub or at the registry before it
    #[arg(value_name = "[REGISTRY/]WORD")]
    pub(crate) term: String,
}

/// About manifest lists.
#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Show the manifest or the index that a name stands for, or a list that is not pushed yet
    Inspect(ManifestInspectArgs),
    /// Begin a list of images that are in registries
    Create(ManifestCreateArgs),
    /// Say for which platform an image of a list is
    Annotate(ManifestAnnotateArgs),
    /// Push a list, and before it all that the repository does not have of its images
    Push(ManifestPushArgs),
    /// Remove lists that are not to be pushed
    Rm(ManifestRmArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ManifestInspectArgs {
    /// Write it byte for byte as it is at the registry
    #[arg(long)]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// The image or list
    pub(crate) reference: String,
}

#[derive(Args, Debug)]
pub(crate) struct ManifestCreateArgs {
    /// Add to a list that is there already
    #[arg(short, long)]
    pub(crate) amend: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// What the list is to be called
    pub(crate) list: String,
    /// Images at registries; of an index, all that it has
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ManifestAnnotateArgs {
    /// Its operating system
    #[arg(long)]
    pub(crate) os: Option<String>,
    /// Its processor
    #[arg(long)]
    pub(crate) arch: Option<String>,
    /// Its processor's variant
    #[arg(long)]
    pub(crate) variant: Option<String>,
    /// The version of its operating system
    #[arg(long, value_name = "VERSION")]
    pub(crate) os_version: Option<String>,
    /// What it needs of its operating system
    #[arg(long, value_name = "FEATURE,…", value_delimiter = ',')]
    pub(crate) os_features: Vec<String>,
    /// An annotation of the entry; may be given several times
    #[arg(long = "annotation", value_name = "NAME=VALUE", value_parser = super::pair)]
    pub(crate) annotations: Vec<(String, String)>,
    /// The list
    pub(crate) list: String,
    /// The image, as it was added, or with its digest
    pub(crate) image: String,
}

#[derive(Args, Debug)]
pub(crate) struct ManifestPushArgs {
    /// Remove the list here once it is there
    #[arg(short, long)]
    pub(crate) purge: bool,
    /// Say nothing but what was pushed
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// The list
    pub(crate) list: String,
    /// What it is to be called there [default: its name]
    pub(crate) destination: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ManifestRmArgs {
    /// The lists
    #[arg(required = true, value_name = "LIST")]
    pub(crate) lists: Vec<String>,
}
