//! `--output`: what becomes of the result.

mod annotations;
mod fields;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::export::{
    self, Annotation, AnnotationOf, Destination, Encoding, ExportError, Exported, Format, Named, Part,
};
use image::{Assembled, Layers, LocalImage};
use oci::{Platform, Reference};
use plan::Plan;
use serde_json::Value;
use solver::Cancel;
use source::Access;
use sys::RootfsPath;
use sys::root::Time;

use crate::build::request::Asked;
use crate::cli::{Allowed, BuildArgs, Progress, RegistryArgs};
use crate::commands::failures;
use crate::commands::push::PushError;
use crate::commands::push::ahead::Ahead;
use crate::commands::registry::{ClientError, Mover, View};
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::listing::write_line;

pub(crate) use annotations::annotations;
pub(crate) use fields::{rewrites_times, wrong};

/// One `--output`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Output {
    pub(crate) kind: Kind,
    /// Besides those of `--tag`.
    pub(crate) names: Vec<Reference>,
    /// Besides those of `--annotation`.
    annotations: Vec<Annotation>,
    /// Whether it is sent to the registries that its names say, and how.
    pub(crate) push: Option<Push>,
    /// Whether the files of each platform are in a directory of their own; unless it is said, those of several are.
    splits_platforms: Option<bool>,
    /// Whether its directory is to hold nothing else.
    removes_others: bool,
}

/// How an image is sent to registries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Push {
    /// How layers of our own making are compressed for it.
    pub(crate) encoding: Encoding,
    /// Whether it gets no name there but its digest.
    pub(crate) by_digest: bool,
    /// Whether anybody who answers for the registry is believed.
    pub(crate) is_insecure: bool,
}

impl From<Encoding> for Push {
    fn from(encoding: Encoding) -> Self {
        Self { encoding, by_digest: false, is_insecure: false }
    }
}

/// What is made of the result.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// An image in the store, with the tags.
    Image,
    /// An archive that other tools load.
    Archive {
        /// What it looks like inside.
        format: Format,
        /// How our own layers are compressed in it.
        encoding: Encoding,
        /// Where it goes.
        to: Target,
    },
    /// An OCI layout as a directory.
    Layout {
        /// How our own layers are compressed in it.
        encoding: Encoding,
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

impl Output {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            names: Vec::new(),
            annotations: Vec::new(),
            push: None,
            splits_platforms: None,
            removes_others: false,
        }
    }

    fn writes_to_stdout(&self) -> bool {
        matches!(self.kind, Kind::Archive { to: Target::Stdout, .. } | Kind::Tar(Target::Stdout))
    }

    /// The file that it is.
    fn file(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Archive { to: Target::File(path), .. } | Kind::Tar(Target::File(path)) => Some(path),
            _ => None,
        }
    }

    /// Whether there are manifests in it.
    pub(crate) fn has_manifests(&self) -> bool {
        matches!(self.kind, Kind::Archive { .. } | Kind::Layout { .. }) || self.push.is_some()
    }
}

impl Target {
    fn of(destination: String) -> Self {
        if destination == "-" { Self::Stdout } else { Self::File(PathBuf::from(destination)) }
    }
}

/// Refuses what cannot be done together, or here.
pub(crate) fn check(asked: &Asked, environment: &Environment) -> Result<(), Failure> {
    let outputs = &asked.outputs;
    outputs.iter().filter(|output| output.push.is_some()).try_for_each(|output| check_push(output, asked))?;
    if environment.stdout_is_terminal && outputs.iter().any(Output::writes_to_stdout) {
        return Err(wrong(
            "-",
            "is a terminal, and an archive is nothing for one: direct it somewhere with `>`",
        ));
    }
    outputs.iter().try_for_each(|output| check_removal(output, asked))?;
    let is_one = asked.platforms.len() <= 1;
    if !asked.annotations.is_empty() && !outputs.iter().any(Output::has_manifests) {
        let title = "`--annotation` has nowhere to stand: the image is kept without a manifest";
        let help = "push it, or write an archive with `--output type=oci,dest=FILE`, or use `--label`";
        return Err(Failure::new(Exit::Usage, Diagnostic::error("usage", title).help(help)));
    }
    let all = outputs.iter().flat_map(|output| &output.annotations).chain(&asked.annotations);
    let is_built = |platform: &Platform| match &asked.platforms[..] {
        [] => *platform == Platform::host(),
        platforms => platforms.contains(platform),
    };
    for annotation in all.clone() {
        let (AnnotationOf::Manifest(platform) | AnnotationOf::ManifestDescriptor(platform)) = &annotation.of
        else {
            continue;
        };
        if let Some(platform) = platform.as_ref().filter(|platform| !is_built(platform)) {
            let title = format!("the annotation `{}` is for {platform}, which is not built", annotation.key);
            let help = "name the platform with `--platform`, too";
            return Err(Failure::new(Exit::Usage, Diagnostic::error("usage", title).help(help)));
        }
    }
    let is_of_index = |of: &AnnotationOf| matches!(of, AnnotationOf::Index | AnnotationOf::IndexDescriptor);
    if let Some(annotation) = all.into_iter().find(|annotation| is_one && is_of_index(&annotation.of)) {
        let title = format!("the annotation `{}` is of an index, and one platform has none", annotation.key);
        let help = "name several platforms with `--platform`, or annotate the manifest";
        return Err(Failure::new(Exit::Usage, Diagnostic::error("usage", title).help(help)));
    }
    if outputs.iter().any(|output| output.splits_platforms == Some(false) && !is_one) {
        return Err(wrong("platform-split=false", "would mix the files of several platforms"));
    }
    if outputs.iter().filter(|output| output.writes_to_stdout()).count() > 1 {
        return Err(wrong("-", "stands twice, and there is one standard output"));
    }
    let mut files = BTreeSet::new();
    if let Some(twice) = outputs.iter().filter_map(Output::file).find(|file| !files.insert(*file)) {
        return Err(wrong(
            &format!("dest={}", twice.display()),
            "stands twice, and one would overwrite the other",
        ));
    }
    Ok(())
}

/// What a build has made.
#[derive(Clone, Copy)]
pub(crate) struct Made<'m> {
    /// One for each platform.
    pub(crate) images: &'m [Assembled],
    pub(crate) layers: &'m Layers<'m>,
    /// What stands in their manifests besides what is asked for.
    pub(crate) annotations: &'m [Annotation],
}

/// Writes every output but the image, which is there; says which manifest an archive got. Files by themselves were last modified at
/// `modified`, if that is given.
pub(crate) fn write(
    asked: &Asked,
    made: Made<'_>,
    modified: Option<Time>,
) -> Result<Option<Exported>, Failure> {
    let mut exported = None;
    for output in asked.outputs.iter().filter(|output| output.kind != Kind::Image) {
        let written =
            write_one(output, asked, made, modified).map_err(|error| failures::of_export(&error))?;
        exported = exported.or(written);
    }
    Ok(exported)
}

/// What images are sent with.
pub(crate) struct Movers<'m> {
    usual: Mover<'m>,
    /// Believes anybody.
    insecure: Mover<'m>,
}

impl<'m> Movers<'m> {
    pub(crate) fn new(
        layers: &'m Layers<'m>,
        cancel: &'m Arc<Cancel>,
        environment: &'m Environment,
        args: &RegistryArgs,
        view: View,
    ) -> Self {
        let insecure = RegistryArgs { tls_verify: Some(false), ..args.clone() };
        Self {
            usual: Mover::new(layers, cancel, environment, args, view),
            insecure: Mover::new(layers, cancel, environment, &insecure, view),
        }
    }

    fn of(&self, push: Push) -> &Mover<'m> {
        if push.is_insecure { &self.insecure } else { &self.usual }
    }
}

/// Has layers of the image that is pushed first sent while it is still built, unless they become others in the end.
pub(crate) fn ahead<'m>(
    asked: &Asked,
    plan: &Plan,
    movers: &'m Movers<'_>,
) -> Result<Option<Ahead<'m>>, Failure> {
    let pushed = asked.outputs.iter().find_map(|output| Some((output, output.push?)));
    let Some((output, push)) = pushed.filter(|_| asked.squash.is_none() && !asked.rewrites_times) else {
        return Ok(None);
    };
    let of_target = plan.outputs.iter().take(asked.platforms.len().max(1));
    let steps = of_target.flat_map(|output| plan.chain(output.step)).collect();
    let ahead =
        |name| Ahead::new(movers.of(push), name, push.encoding, steps).map_err(ClientError::into_failure);
    asked.names_of(output).into_iter().next().map(ahead).transpose()
}

/// Sends the image wherever it is to be sent; says which manifest it got.
pub(crate) fn push(
    asked: &Asked,
    made: Made<'_>,
    movers: &Movers<'_>,
    ahead: Option<&Ahead<'_>>,
) -> Result<Option<Exported>, Failure> {
    let mut exported = None;
    for output in &asked.outputs {
        let Some(push) = output.push else { continue };
        let images = images(made.images, made.layers).map_err(|error| failures::of_export(&error))?;
        let annotations = made.annotations_of(asked, output);
        for name in asked.names_of(output) {
            let ahead = ahead.filter(|ahead| ahead.is_for(&name, push.encoding));
            let pushed = movers.of(push).push(images.clone(), &name, push, &annotations, ahead);
            let pushed = pushed.map_err(PushError::into_failure)?;
            exported.get_or_insert(Exported { manifest: pushed.digest });
        }
    }
    Ok(exported)
}

fn write_one(
    output: &Output,
    asked: &Asked,
    made: Made<'_>,
    modified: Option<Time>,
) -> Result<Option<Exported>, ExportError> {
    let layers = made.layers;
    let images = images(made.images, layers)?;
    let parts: Vec<Part> = parts(&images, output.splits_platforms)?;
    let names = asked.names_of(output);
    let annotations = made.annotations_of(asked, output);
    let named = [Named { images, names, annotations }];
    let mut stdout = std::io::stdout().lock();
    let exported = match &output.kind {
        Kind::Image => Vec::new(),
        Kind::Archive { format, encoding, to: target } => {
            export::archive(layers, &named, *format, *encoding, destination(target, &mut stdout))?
        }
        Kind::Layout { encoding, directory } => export::layout(layers, &named, *encoding, directory)?,
        Kind::Directory(directory) => {
            if output.removes_others {
                export::remove_others(layers, &parts, directory)?;
            }
            for Part { below, layers: ids } in &parts {
                let below =
                    if below.is_root() { directory.clone() } else { directory.join(below.as_relative()) };
                export::rootfs_tree(layers, ids, modified, &below)?;
            }
            Vec::new()
        }
        Kind::Tar(target) => {
            export::rootfs_tar(layers, &parts, modified, destination(target, &mut stdout))?;
            Vec::new()
        }
    };
    Ok(exported.into_iter().next())
}

impl Made<'_> {
    fn annotations_of(self, asked: &Asked, output: &Output) -> Vec<Annotation> {
        asked.annotations.iter().chain(&output.annotations).chain(self.annotations).cloned().collect()
    }
}

fn images(assembled: &[Assembled], layers: &Layers<'_>) -> Result<Vec<LocalImage>, ExportError> {
    let image = |assembled: &Assembled| {
        let missing = || store::Error::MissingImage(assembled.id.clone());
        Ok(LocalImage::by_id(layers, &assembled.id)?.ok_or_else(missing)?)
    };
    assembled.iter().map(image).collect()
}

/// The files of the only image, or those of each platform in a directory `OS_ARCHITECTURE` of their own.
fn parts(images: &[LocalImage], splits_platforms: Option<bool>) -> Result<Vec<Part>, ExportError> {
    if let [image] = images
        && splits_platforms != Some(true)
    {
        return Ok(vec![Part { below: RootfsPath::root(), layers: image.layers.clone() }]);
    }
    let part = |image: &LocalImage| {
        Ok(Part {
            below: RootfsPath::parse(platform_directory(&image.config.platform()))?,
            layers: image.layers.clone(),
        })
    };
    images.iter().map(part).collect()
}

/// What a platform's own directory is called.
pub(crate) fn platform_directory(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
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
    warnings: Option<Value>,
) -> Result<(), Failure> {
    let id = main(assembled).id.to_string();
    if let Some(path) = &args.iidfile {
        write_file(path, id.as_bytes())?;
    }
    if let Some(path) = &args.metadata_file {
        let names: Vec<String> = asked.all_names().iter().map(ToString::to_string).collect();
        let mut metadata = serde_json::json!({
            "containerimage.config.digest": id,
            "image.name": names.join(","),
        });
        if let Some(exported) = exported {
            metadata["containerimage.digest"] = exported.manifest.to_string().into();
        }
        if let Some(warnings) = warnings {
            metadata["buildx.build.warnings"] = warnings;
        }
        write_file(path, format!("{metadata:#}\n").as_bytes())?;
    }
    if asked.progress == Progress::Quiet && !asked.outputs.iter().any(Output::writes_to_stdout) {
        write_line(id)?;
    }
    Ok(())
}

/// Only what lies below where the person is may be cleared without a word.
fn check_removal(output: &Output, asked: &Asked) -> Result<(), Failure> {
    let Kind::Directory(directory) = &output.kind else { return Ok(()) };
    if !output.removes_others || asked.may_delete {
        return Ok(());
    }
    // What is not there yet has nothing to lose.
    let Ok(directory) = directory.canonicalize() else { return Ok(()) };
    let is_below = std::env::current_dir()
        .and_then(|here| here.canonicalize())
        .is_ok_and(|here| directory.starts_with(&here) && directory != here);
    if is_below {
        return Ok(());
    }
    let title =
        format!("`mode=delete` would clear `{}`, which is not below this directory", directory.display());
    let help = format!("allow it with `--allow={}`", Allowed::LocalDelete.as_str());
    Err(Failure::new(Exit::Usage, Diagnostic::error("usage", title).help(help)))
}

fn check_push(output: &Output, asked: &Asked) -> Result<(), Failure> {
    let refused = |title: &str, help: &str| {
        Err(Failure::new(Exit::Usage, Diagnostic::error("usage", title).help(help)))
    };
    if asked.names_of(output).is_empty() {
        let title = "there is no name under which the image could be pushed";
        return refused(title, "name it with its registry: `--tag registry.example.com/team/app:1.2`");
    }
    let by_digest = output.push.is_some_and(|push| push.by_digest);
    let is_tagged = |name: &&Reference| by_digest && name.tag().is_some_and(|tag| tag != "latest");
    if let Some(name) = asked.names_of(output).iter().find(is_tagged) {
        let title = format!("`{}` has a tag, and `push-by-digest=true` gives none", name.familiar());
        return refused(&title, "leave out the tag, or `push-by-digest=true`");
    }
    if asked.access == Access::KeptOnly {
        let title = "the image is to be pushed, and `--offline` lets nobody speak to a registry";
        return refused(title, "build first, and push it later with `rbuild push`");
    }
    Ok(())
}

/// Whoever waits for the file finds it whole.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!(".{name}.rbuild-{}", std::process::id()));
    let is_special = std::fs::metadata(path).is_ok_and(|found| !found.is_file());
    let written = if is_special {
        std::fs::write(path, bytes)
    } else {
        std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path)).inspect_err(|_| {
            // It may not even be there.
            drop(std::fs::remove_file(&temporary));
        })
    };
    written.map_err(|error| {
        let title = format!("cannot write `{}`", path.display());
        Failure::new(Exit::Machine, Diagnostic::error("output", title).note(error.to_string()))
    })
}
