//! `--output`: what becomes of the result.

use std::path::PathBuf;

use image::{Assembled, Layers};
use plan::Plan;

use crate::build::request::Asked;
use crate::cli::BuildArgs;
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};

/// One `--output`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Output {
    /// An image in the store, with the tags.
    Image,
}

impl Output {
    /// Reads `type=TYPE[,dest=PATH]`.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        match text {
            "type=image" => Ok(Self::Image),
            _ => Err(Failure::new(
                Exit::Usage,
                Diagnostic::error("usage", format!("`--output {text}` is not understood"))
                    .help("write it as type=image|oci|docker|local, with dest=PATH for all but image"),
            )),
        }
    }
}

/// Writes every output but the image, which is there.
pub(crate) fn write(
    _asked: &Asked,
    _assembled: &Assembled,
    _plan: &Plan,
    _layers: &Layers<'_>,
) -> Result<(), Failure> {
    Ok(())
}

/// Writes `--iidfile` and `--metadata-file`.
pub(crate) fn write_files(args: &BuildArgs, assembled: &Assembled, asked: &Asked) -> Result<(), Failure> {
    if let Some(path) = &args.iidfile {
        write_file(path, assembled.id.to_string().as_bytes())?;
    }
    if let Some(path) = &args.metadata_file {
        let names: Vec<String> = asked.tags.iter().map(ToString::to_string).collect();
        let metadata = serde_json::json!({
            "containerimage.config.digest": assembled.id.to_string(),
            "image.name": names.join(","),
        });
        write_file(path, format!("{metadata:#}\n").as_bytes())?;
    }
    if args.quiet {
        println!("{}", assembled.id);
    }
    Ok(())
}

fn write_file(path: &PathBuf, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|error| {
        let title = format!("cannot write `{}`", path.display());
        Failure::new(Exit::Machine, Diagnostic::error("output", title).note(error.to_string()))
    })
}
