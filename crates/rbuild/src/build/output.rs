//! `--output`: what becomes of the result.

use std::path::{Path, PathBuf};

use image::export::{self, Destination, ExportError, Exported, Format, Named, Part};
use image::{Assembled, Layers, LocalImage};
use oci::{Compression, Platform};
use sys::RootfsPath;
use sys::root::Time;

use crate::build::request::Asked;
use crate::cli::BuildArgs;
use crate::commands::failures;
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};

/// One `--output`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Output {
    /// An image in the store, with the tags.
    Image,
    /// An archive that other tools load.
    Archive {
        /// What it looks like inside.
        format: Format,
        /// How our own layers are compressed in it.
        compression: Compression,
        /// Where it goes.
        to: Target,
    },
    /// An OCI layout as a directory.
    Layout {
        /// How our own layers are compressed in it.
        compression: Compression,
        /// Where it goes.
        directory: PathBuf,
    },
    /// The root filesystem as a directory.
    Directory(PathBuf),
    /// The root filesystem as a tar.
    Tar(Target),
}

/// A file or standard output.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    File(PathBuf),
    Stdout,
}

const HELP: &str = "write it as type=image, type=oci|docker|tar,dest=FILE (`-` is standard output), or type=local,dest=DIRECTORY";

/// The fields of one `--output` before they are understood.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    destination: Option<String>,
    /// Of an OCI layout: whether it is to be an archive.
    is_tar: Option<bool>,
    compression: Option<Compression>,
    /// Whether files in layers are to be no younger than `SOURCE_DATE_EPOCH`.
    rewrites_times: Option<bool>,
}

/// Whether images are to have files no younger than `SOURCE_DATE_EPOCH`: `rewrite-timestamp` of the outputs, which is of one image and so must
/// be the same for all that have any.
pub(crate) fn rewrites_times(texts: &[String]) -> Result<bool, Failure> {
    let mut asked = None;
    for text in texts.iter().filter(|text| text.contains('=')) {
        let fields = Fields::parse(text)?;
        if matches!(fields.kind.as_deref(), Some("local" | "tar")) {
            continue;
        }
        let here = fields.rewrites_times.unwrap_or(false);
        if asked.is_some_and(|before| before != here) {
            return Err(wrong(
                text,
                "has another `rewrite-timestamp` than an output before it, and it is one image",
            ));
        }
        asked = Some(here);
    }
    Ok(asked.unwrap_or(false))
}

impl Output {
    /// Reads `type=TYPE[,dest=PATH][,tar=false][,compression=CODEC]`; a path alone is a directory for the files, `-` alone a tar.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        if text == "-" {
            return Ok(Self::Tar(Target::Stdout));
        }
        if !text.contains('=') {
            return Ok(Self::Directory(PathBuf::from(text)));
        }
        let fields = Fields::parse(text)?;
        fields.check(text)?;
        let destination =
            || fields.destination.clone().ok_or_else(|| wrong(text, "says not where to: it has no `dest`"));
        let compression = |default: Compression| fields.compression.unwrap_or(default);
        match fields.kind.as_deref() {
            Some("image") => Ok(Self::Image),
            Some("oci") if fields.is_tar == Some(false) => Ok(Self::Layout {
                compression: compression(Compression::Gzip),
                directory: PathBuf::from(destination()?),
            }),
            Some("oci") => Ok(Self::Archive {
                format: Format::Oci,
                compression: compression(Compression::Gzip),
                to: Target::of(destination()?),
            }),
            Some("docker") => Ok(Self::Archive {
                format: Format::Docker,
                compression: compression(Compression::None),
                to: Target::of(destination()?),
            }),
            Some("local") => Ok(Self::Directory(PathBuf::from(destination()?))),
            Some("tar") => Ok(Self::Tar(Target::of(destination()?))),
            Some(_) => Err(wrong(text, "has an unknown type")),
            None => Err(wrong(text, "has no type")),
        }
    }

    fn writes_to_stdout(&self) -> bool {
        matches!(self, Self::Archive { to: Target::Stdout, .. } | Self::Tar(Target::Stdout))
    }
}

impl Target {
    fn of(destination: String) -> Self {
        if destination == "-" { Self::Stdout } else { Self::File(PathBuf::from(destination)) }
    }
}

impl Fields {
    fn parse(text: &str) -> Result<Self, Failure> {
        let mut fields = Self::default();
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("type", value)) => fields.kind = Some(value.to_owned()),
                Some(("dest", value)) => fields.destination = Some(value.to_owned()),
                Some(("tar", "true")) => fields.is_tar = Some(true),
                Some(("tar", "false")) => fields.is_tar = Some(false),
                Some(("compression", value)) => {
                    fields.compression = Some(value.parse().map_err(|why: String| wrong(text, &why))?);
                }
                Some(("rewrite-timestamp", value)) => match value.parse() {
                    Ok(value) => fields.rewrites_times = Some(value),
                    Err(_) => {
                        return Err(wrong(text, "has a `rewrite-timestamp` that is neither true nor false"));
                    }
                },
                _ => return Err(wrong(text, &format!("has an unknown field `{field}`"))),
            }
        }
        Ok(fields)
    }

    /// Refuses what would have no effect: whoever wrote it expects one.
    fn check(&self, text: &str) -> Result<(), Failure> {
        match self.kind.as_deref() {
            Some("image") if self.destination.is_some() => {
                Err(wrong(text, "has a `dest`, and the image stays in the store"))
            }
            Some("image" | "local" | "tar") if self.compression.is_some() => {
                Err(wrong(text, "has a `compression`, and has nothing that is compressed"))
            }
            Some("image" | "local" | "tar") if self.is_tar.is_some() => {
                Err(wrong(text, "has a `tar`, which is for OCI layouts"))
            }
            Some("local" | "tar") if self.rewrites_times.is_some() => {
                Err(wrong(text, "has a `rewrite-timestamp`, and files by themselves are always rewritten"))
            }
            Some("docker") if self.is_tar == Some(false) => {
                Err(wrong(text, "asks for a directory, which Docker does not load"))
            }
            Some("local") if self.destination.as_deref() == Some("-") => {
                Err(wrong(text, "asks for files on standard output; `type=tar` goes there"))
            }
            _ => Ok(()),
        }
    }
}

fn wrong(text: &str, why: &str) -> Failure {
    let title = format!("`--output {text}` {why}");
    Failure::new(Exit::Usage, Diagnostic::error("usage", title).help(HELP))
}

/// Refuses two outputs that would mix on standard output.
pub(crate) fn check(outputs: &[Output]) -> Result<(), Failure> {
    if outputs.iter().filter(|output| output.writes_to_stdout()).count() > 1 {
        return Err(wrong("-", "stands twice, and there is one standard output"));
    }
    Ok(())
}

/// Writes every output but the image, which is there; says which manifest an archive got. Files by themselves were last modified at
/// `modified`, if that is given.
pub(crate) fn write(
    asked: &Asked,
    assembled: &[Assembled],
    layers: &Layers<'_>,
    modified: Option<Time>,
) -> Result<Option<Exported>, Failure> {
    let mut exported = None;
    for output in asked.outputs.iter().filter(|output| **output != Output::Image) {
        let written = write_one(output, asked, assembled, layers, modified)
            .map_err(|error| failures::of_export(&error))?;
        exported = exported.or(written);
    }
    Ok(exported)
}

fn write_one(
    output: &Output,
    asked: &Asked,
    assembled: &[Assembled],
    layers: &Layers<'_>,
    modified: Option<Time>,
) -> Result<Option<Exported>, ExportError> {
    let images = images(assembled, layers)?;
    let parts: Vec<Part> = parts(&images)?;
    let named = [Named { images, names: asked.tags.clone() }];
    let mut stdout = std::io::stdout().lock();
    let exported = match output {
        Output::Image => Vec::new(),
        Output::Archive { format, compression, to: target } => {
            export::archive(layers, &named, *format, *compression, destination(target, &mut stdout))?
        }
        Output::Layout { compression, directory } => export::layout(layers, &named, *compression, directory)?,
        Output::Directory(directory) => {
            for part in &parts {
                let directory = directory.join(part.below.as_relative());
                export::rootfs_tree(layers, &part.layers, modified, &directory)?;
            }
            Vec::new()
        }
        Output::Tar(target) => {
            export::rootfs_tar(layers, &parts, modified, destination(target, &mut stdout))?;
            Vec::new()
        }
    };
    Ok(exported.into_iter().next())
}

fn images(assembled: &[Assembled], layers: &Layers<'_>) -> Result<Vec<LocalImage>, ExportError> {
    let image = |assembled: &Assembled| {
        let missing = || store::Error::MissingImage(assembled.id.clone());
        Ok(LocalImage::by_id(layers, &assembled.id)?.ok_or_else(missing)?)
    };
    assembled.iter().map(image).collect()
}

/// The files of the only image, or those of each platform in a directory `OS_ARCHITECTURE` of their own.
fn parts(images: &[LocalImage]) -> Result<Vec<Part>, ExportError> {
    if let [image] = images {
        return Ok(vec![Part { below: RootfsPath::root(), layers: image.layers.clone() }]);
    }
    let part = |image: &LocalImage| {
        let name = image.config.platform().to_string().replace('/', "_");
        Ok(Part { below: RootfsPath::parse(&name)?, layers: image.layers.clone() })
    };
    images.iter().map(part).collect()
}

fn destination<'d>(target: &Target, stdout: &'d mut dyn std::io::Write) -> Destination<'d> {
    match target {
        Target::File(path) => Destination::File(path.clone()),
        Target::Stdout => Destination::Stream(stdout),
    }
}

/// Of several platforms, the image for this machine's, or else the first.
pub(crate) fn main(assembled: &[Assembled]) -> &Assembled {
    let fit = |image: &&Assembled| image.config.platform().fit(&Platform::host());
    let fitting = assembled.iter().filter(|image| fit(image).is_some()).min_by_key(fit);
    fitting.or(assembled.first()).expect("a build makes an image for one platform at least")
}

/// Writes `--iidfile` and `--metadata-file`, and the id where nothing else is asked for.
pub(crate) fn write_files(
    args: &BuildArgs,
    assembled: &[Assembled],
    asked: &Asked,
    exported: Option<&Exported>,
) -> Result<(), Failure> {
    let id = main(assembled).id.to_string();
    if let Some(path) = &args.iidfile {
        write_file(path, id.as_bytes())?;
    }
    if let Some(path) = &args.metadata_file {
        let names: Vec<String> = asked.tags.iter().map(ToString::to_string).collect();
        let mut metadata = serde_json::json!({
            "containerimage.config.digest": id,
            "image.name": names.join(","),
        });
        if let Some(exported) = exported {
            metadata["containerimage.digest"] = exported.manifest.to_string().into();
        }
        write_file(path, format!("{metadata:#}\n").as_bytes())?;
    }
    if args.quiet && !asked.outputs.iter().any(Output::writes_to_stdout) {
        println!("{id}");
    }
    Ok(())
}

/// Whoever waits for the file finds it whole.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!(".{name}.rbuild-{}", std::process::id()));
    let is_special = std::fs::metadata(path).is_ok_and(|found| !found.is_file());
    let written = if is_special {
        std::fs::write(path, bytes)
    } else {
        std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path))
    };
    written.map_err(|error| {
        let title = format!("cannot write `{}`", path.display());
        Failure::new(Exit::Machine, Diagnostic::error("output", title).note(error.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        let shown = Output::parse(text).map_or_else(|f| f.diagnostics[0].title.clone(), |o| format!("{o:?}"));
        expected.assert_eq(&shown);
    }

    #[test]
    fn outputs_are_read_as_buildx_reads_them() {
        check("type=image", expect!["Image"]);
        check("out", expect![[r#"Directory("out")"#]]);
        check("-", expect!["Tar(Stdout)"]);
        check("type=local,dest=out", expect![[r#"Directory("out")"#]]);
        check(
            "type=oci,dest=a.tar",
            expect![[r#"Archive { format: Oci, compression: Gzip, to: File("a.tar") }"#]],
        );
        check(
            "type=oci,dest=a,tar=false,compression=zstd",
            expect![[r#"Layout { compression: Zstd, directory: "a" }"#]],
        );
        check("type=docker,dest=-", expect!["Archive { format: Docker, compression: None, to: Stdout }"]);
        check(
            "type=docker,dest=a,tar=false",
            expect![
                "`--output type=docker,dest=a,tar=false` asks for a directory, which Docker does not load"
            ],
        );
        check(
            "type=image,dest=x",
            expect!["`--output type=image,dest=x` has a `dest`, and the image stays in the store"],
        );
        check(
            "type=local,dest=x,compression=gzip",
            expect![
                "`--output type=local,dest=x,compression=gzip` has a `compression`, and has nothing that is compressed"
            ],
        );
        check(
            "type=tar,dest=x,tar=true",
            expect!["`--output type=tar,dest=x,tar=true` has a `tar`, which is for OCI layouts"],
        );
        check(
            "type=local,dest=-",
            expect!["`--output type=local,dest=-` asks for files on standard output; `type=tar` goes there"],
        );
        check(
            "type=oci,dest=x,rewrite-timestamp=maybe",
            expect![
                "`--output type=oci,dest=x,rewrite-timestamp=maybe` has a `rewrite-timestamp` that is neither true nor false"
            ],
        );
        check(
            "type=tar,dest=x,rewrite-timestamp=true",
            expect![
                "`--output type=tar,dest=x,rewrite-timestamp=true` has a `rewrite-timestamp`, and files by themselves are always rewritten"
            ],
        );
        check("type=oci", expect!["`--output type=oci` says not where to: it has no `dest`"]);
        check("type=oci,dets=x", expect!["`--output type=oci,dets=x` has an unknown field `dets=x`"]);
        check("dest=x", expect!["`--output dest=x` has no type"]);
        check("type=registry,dest=x", expect!["`--output type=registry,dest=x` has an unknown type"]);
    }

    #[test]
    fn outputs_of_one_image_agree_on_its_times() {
        let check = |texts: &[&str], expected: Option<bool>| {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            assert_eq!(rewrites_times(&texts).ok(), expected, "{texts:?}");
        };
        check(&[], Some(false));
        check(&["type=image,rewrite-timestamp=true", "type=local,dest=x", "out"], Some(true));
        check(&["type=image,rewrite-timestamp=true", "type=oci,dest=x,rewrite-timestamp=true"], Some(true));
        check(&["type=image,rewrite-timestamp=true", "type=oci,dest=x"], None);
    }
}
