//! What is measured.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, bail};

/// Something to time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Workload {
    /// Twelve instructions in two stages, nothing changed since the last build.
    CachedRebuild,
    /// Twenty times `RUN true`, without cache.
    TrivialRuns,
    /// `COPY` of 50,000 files, nothing known of them.
    ColdCopy,
    /// The same, nothing changed.
    UnchangedContext,
    /// The same, one file changed.
    OneFileChanged,
    /// Eight stages of `sleep 1`, without cache.
    IndependentStages,
    /// An image of 1 GB as an OCI archive, layers compressed by gzip.
    Export,
    /// The same by zstd.
    ExportZstd,
    /// `true` in a container.
    Run,
    /// An image of 300 MB in seven layers from a registry, unpacked.
    Pull,
    /// An image of those 300 MB, one layer of 50 MB new, by a name that says no registry.
    BuildLocal,
    /// The same by the name that it is pushed by.
    BuildNamed,
    /// What that left, to a registry.
    Push,
    /// An image of which nobody has compressed the new layer before, to a registry.
    PushCompressing,
    /// A build and a push in one command.
    BuildPush,
}

/// What goes before each measured command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Before {
    /// Nothing.
    Nothing,
    /// Everything built so far is forgotten, but for the base image.
    Forget,
    /// Everything is forgotten, then the image is built.
    ForgetAndBuild,
    /// One file of the context changes.
    ChangeOneFile,
    /// One layer of the image changes.
    ChangeOneLayer,
    /// The same, and it is built by the name that it is pushed by.
    ChangeAndBuildNamed,
    /// The same, so that nothing is compressed.
    ChangeAndBuild,
}

/// A compression that all builders have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Codec {
    /// RFC 1952, at each builder's own level.
    Gzip,
    /// RFC 8878, likewise.
    Zstd,
}

impl Codec {
    /// As all of them write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The measured command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Measured {
    /// A build that may use what is cached.
    Build,
    /// A build that may not.
    BuildWithoutCache,
    /// An image, built before, as an OCI archive with layers in a compression.
    Export(Codec),
    /// A container.
    Run,
    /// An image from a registry.
    Pull,
    /// A build of the image that is pushed.
    BuildNamed,
    /// An image to a registry.
    Push,
    /// The same, of one that is not compressed.
    PushCompressing,
    /// A build, and what it gives to a registry.
    BuildPush,
}

impl Workload {
    /// All, in the order of a whole run.
    pub const ALL: [Self; 15] = [
        Self::CachedRebuild,
        Self::TrivialRuns,
        Self::IndependentStages,
        Self::Run,
        Self::ColdCopy,
        Self::UnchangedContext,
        Self::OneFileChanged,
        Self::Export,
        Self::ExportZstd,
        Self::Pull,
        Self::BuildLocal,
        Self::BuildNamed,
        Self::Push,
        Self::PushCompressing,
        Self::BuildPush,
    ];

    /// The name on the command line and in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CachedRebuild => "cached-rebuild",
            Self::TrivialRuns => "trivial-runs",
            Self::ColdCopy => "cold-copy",
            Self::UnchangedContext => "unchanged-context",
            Self::OneFileChanged => "one-file-changed",
            Self::IndependentStages => "independent-stages",
            Self::Export => "export",
            Self::ExportZstd => "export-zstd",
            Self::Run => "run",
            Self::Pull => "pull",
            Self::BuildLocal => "build-local",
            Self::BuildNamed => "build-named",
            Self::Push => "push",
            Self::PushCompressing => "push-compressing",
            Self::BuildPush => "build-push",
        }
    }

    /// Its directory below `benches/builds`.
    #[must_use]
    pub fn directory(self) -> &'static str {
        match self {
            Self::ColdCopy | Self::UnchangedContext | Self::OneFileChanged => "large-context",
            Self::Run => "base",
            Self::ExportZstd => "export",
            Self::Pull
            | Self::BuildLocal
            | Self::BuildNamed
            | Self::Push
            | Self::PushCompressing
            | Self::BuildPush => "layers",
            other => other.name(),
        }
    }

    /// What it measures, for a reader.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::CachedRebuild => "12 instructions, two stages, all cached",
            Self::TrivialRuns => "20 × `RUN true`, no cache, no network",
            Self::ColdCopy => "COPY of 50,000 files (500 MB, 2,550 directories), empty cache",
            Self::UnchangedContext => "the same, nothing changed",
            Self::OneFileChanged => "the same, one file changed",
            Self::IndependentStages => "8 independent stages of `sleep 1`, no cache",
            Self::Export => "OCI archive of a 1 GB image, gzip",
            Self::ExportZstd => "the same, zstd",
            Self::Run => "`true` in a container, no network",
            Self::Pull => "pull and unpack an image of 300 MB in 7 gzip layers",
            Self::BuildLocal => "build that image, one layer of 50 MB new, by a name that says no registry",
            Self::BuildNamed => "the same by the name that it is pushed by",
            Self::Push => "push what `build-named` left, one layer of 50 MB new, the others there",
            Self::PushCompressing => "push that layer when nobody has compressed it before",
            Self::BuildPush => "build that layer and push the image, in one command",
        }
    }

    /// Which figure is to be reached, in seconds of wall time.
    #[must_use]
    pub fn bar_seconds(self) -> Option<f64> {
        match self {
            Self::CachedRebuild => Some(0.010),
            Self::TrivialRuns => Some(20.0 * 0.008),
            Self::ColdCopy => Some(4.0),
            Self::OneFileChanged => Some(1.5),
            Self::IndependentStages => Some(1.15),
            Self::Run => Some(0.020),
            // Of an unchanged context the CPU time counts, against a statx pass in the same run.
            Self::UnchangedContext | Self::Export | Self::ExportZstd => None,
            Self::Pull => Some(2.2),
            Self::BuildLocal | Self::BuildNamed | Self::Push | Self::PushCompressing | Self::BuildPush => {
                None
            }
        }
    }

    /// What goes before each measured command.
    #[must_use]
    pub fn before(self) -> Before {
        match self {
            Self::ColdCopy | Self::Pull => Before::Forget,
            Self::Push => Before::ChangeAndBuildNamed,
            Self::PushCompressing => Before::ChangeAndBuild,
            Self::BuildLocal | Self::BuildNamed | Self::BuildPush => Before::ChangeOneLayer,
            Self::Export | Self::ExportZstd => Before::ForgetAndBuild,
            Self::OneFileChanged => Before::ChangeOneFile,
            _ => Before::Nothing,
        }
    }

    /// Whether a build goes before the first measured command.
    #[must_use]
    pub fn wants_first_build(self) -> bool {
        matches!(self.before(), Before::Nothing | Before::ChangeOneFile) && self != Self::Run
    }

    /// Whether a registry has a part in it.
    #[must_use]
    pub fn wants_registry(self) -> bool {
        matches!(self.directory(), "layers")
    }

    /// The measured command.
    #[must_use]
    pub fn measured(self) -> Measured {
        match self {
            Self::TrivialRuns | Self::IndependentStages | Self::ColdCopy => Measured::BuildWithoutCache,
            Self::CachedRebuild | Self::UnchangedContext | Self::OneFileChanged | Self::BuildLocal => {
                Measured::Build
            }
            Self::Export => Measured::Export(Codec::Gzip),
            Self::ExportZstd => Measured::Export(Codec::Zstd),
            Self::Run => Measured::Run,
            Self::Pull => Measured::Pull,
            Self::Push => Measured::Push,
            Self::PushCompressing => Measured::PushCompressing,
            Self::BuildNamed => Measured::BuildNamed,
            Self::BuildPush => Measured::BuildPush,
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Workload {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let Some(found) = Self::ALL.into_iter().find(|workload| workload.name() == text) else {
            let names: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
            bail!("there is no workload `{text}`; there are {}", names.join(", "));
        };
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_is_found_by_its_name_and_has_a_directory() {
        let builds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("builds");
        for workload in Workload::ALL {
            assert_eq!(workload.name().parse::<Workload>().unwrap(), workload);
            assert!(builds.join(workload.directory()).join("Dockerfile").is_file(), "{workload}");
        }
        assert!("nonsense".parse::<Workload>().is_err());
    }
}
