//! `--artifact STAGE:/PATH=DIRECTORY`: files of a stage on this machine, whether the build succeeds or not.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use image::Layers;
use image::export::{self, ExportError};
use plan::Plan;
use solver::Filesystem;
use sys::RootfsPath;

use crate::build::output::platform_directory;
use crate::build::request::Asked;
use crate::commands::failures;
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};

/// One `--artifact`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Artifact {
    /// In lower case.
    pub(crate) stage: String,
    path: RootfsPath,
    directory: PathBuf,
}

/// Why a text is no [`Artifact`].
#[derive(Debug, thiserror::Error)]
#[error("write it as STAGE:/PATH=DIRECTORY, such as `test:/reports=out`")]
pub(crate) struct ArtifactError;

impl FromStr for Artifact {
    type Err = ArtifactError;

    fn from_str(text: &str) -> Result<Self, ArtifactError> {
        let (from, directory) = text.rsplit_once('=').ok_or(ArtifactError)?;
        let (stage, path) = from.split_once(':').ok_or(ArtifactError)?;
        if stage.is_empty() || directory.is_empty() || !path.starts_with('/') {
            return Err(ArtifactError);
        }
        let path = RootfsPath::parse(path).map_err(|_| ArtifactError)?;
        Ok(Self { stage: stage.to_lowercase(), path, directory: PathBuf::from(directory) })
    }
}

/// Writes all artifacts; says of each that is not there that it is not. The filesystems are those of the plan's outputs, as far as there is one.
pub(super) fn write(
    asked: &Asked,
    plan: &Plan,
    layers: &Layers<'_>,
    filesystems: &[Option<Filesystem>],
) -> Result<Vec<String>, Failure> {
    let platforms = asked.platforms.len().max(1);
    let outputs: Vec<_> = plan.outputs.iter().zip(filesystems).collect();
    // Theirs stand behind all others.
    let own = outputs.rchunks(platforms).take(asked.artifacts.len()).rev();
    let mut missing = Vec::new();
    for (artifact, of_stage) in asked.artifacts.iter().zip(own) {
        for (output, filesystem) in of_stage {
            let platform = output.config.platform();
            let (directory, of_platform) = match platforms {
                1 => (artifact.directory.clone(), String::new()),
                _ => (artifact.directory.join(platform_directory(&platform)), format!(" for {platform}")),
            };
            if !artifact.write(layers, filesystem.as_ref(), &directory)? {
                missing.push(format!(
                    "there is no `{}` in stage `{}`{of_platform}",
                    artifact.path, artifact.stage
                ));
            }
        }
    }
    Ok(missing)
}

impl Artifact {
    /// Where it goes.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn write(
        &self,
        layers: &Layers<'_>,
        filesystem: Option<&Filesystem>,
        directory: &Path,
    ) -> Result<bool, Failure> {
        let Some(filesystem) = filesystem else { return Ok(false) };
        match export::rootfs_part(layers, &filesystem.ids(), &self.path, directory) {
            Ok(found) => Ok(found),
            Err(ExportError::Resolve(_)) => Ok(false),
            Err(error) => Err(failures::of_export(&error)),
        }
    }
}

/// Of a build that succeeded all artifacts are there.
pub(super) fn must_be_there(missing: &[String]) -> Result<(), Failure> {
    if missing.is_empty() {
        return Ok(());
    }
    let diagnostic =
        |title: &String| Diagnostic::error("artifact", title).help("check the path in `--artifact`");
    Err(Failure { exit: Exit::Build, diagnostics: missing.iter().map(diagnostic).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifacts_have_a_stage_a_path_and_a_directory() {
        let read = |text: &str| {
            let read = text.parse::<Artifact>().ok();
            read.map(|read| (read.stage, read.path.to_string(), read.directory.display().to_string()))
        };
        let some = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(read("Test:/a/b=out/x"), some("test", "/a/b", "out/x"));
        assert_eq!(read("0:/=."), some("0", "/", "."));
        assert_eq!(read("t:/a=b=c"), some("t", "/a=b", "c"));
        for wrong in ["", "t", "t:/a", "t:/a=", ":/a=b", "t:a=b", "/a=b"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
