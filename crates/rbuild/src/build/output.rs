//! `--output`: what becomes of the result.

mod annotations;
mod fields;

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use image::export::{
    self, Annotation, AnnotationOf, Destination, Encoding, ExportError, Exported, Format, Named, Part,
};
use image::{Assembled, Layers, LocalImage};
use oci::{Compression, Platform, Reference};
use plan::Plan;
use serde_json::Value;
use source::Access;
use sys::RootfsPath;
use sys::root::Time;

use crate::build::artifacts::Artifact;
use crate::build::cache::Where;
use crate::build::request::Asked;
use crate::cli::{Allowed, BuildArgs, Progress};
use crate::commands::failures;
use crate::commands::push::Push;
use crate::commands::push::PushError;
use crate::commands::push::ahead::{Ahead, Remote};
use crate::commands::registry::{ClientError, Mover};
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
    /// Those of them that were written with a tag.
    pub(crate) tagged: Vec<String>,
    /// Besides those of `--annotation`.
    annotations: Vec<Annotation>,
    /// Whether it is sent to the registries that its names say, and how.
    pub(crate) push: Option<Push>,
    /// Whether layers of an image that is only kept are compressed; `None`: if its names say that it will be pushed.
    compresses: Option<bool>,
    /// Whether whoever answers for those registries is believed.
    pub(crate) is_insecure: bool,
    /// Whether the files of each platform are in a directory of their own; unless it is said, those of several are.
    splits_platforms: Option<bool>,
    /// Whether its directory is to hold nothing else.
    removes_others: bool,
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
            tagged: Vec::new(),
            annotations: Vec::new(),
            push: None,
            compresses: None,
            is_insecure: false,
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

    /// What it writes.
    fn place(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Layout { directory, .. } | Kind::Directory(directory) => Some(directory),
            _ => self.file(),
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
    check_kept(outputs)?;
    let is_one = asked.platforms.len() <= 1;
    if !asked.annotations.is_empty() && !outputs.iter().any(Output::has_manifests) {
        let title = "`--annotation` has nowhere to stand: the image is kept without a manifest";
        let help = "push it, or write an archive with `--output type=oci,dest=FILE`, or use `--label`";
        return Err(Failure::usage(title, help));
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
            return Err(Failure::usage(title, help));
        }
    }
    let is_of_index = |of: &AnnotationOf| matches!(of, AnnotationOf::Index | AnnotationOf::IndexDescriptor);
    if let Some(annotation) = all.into_iter().find(|annotation| is_one && is_of_index(&annotation.of)) {
        let title = format!("the annotation `{}` is of an index, and one platform has none", annotation.key);
        let help = "name several platforms with `--platform`, or annotate the manifest";
        return Err(Failure::usage(title, help));
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
    // The build may have taken long.
    check_removals(asked)?;
    let mut exported = None;
    for output in asked.outputs.iter().filter(|output| output.kind != Kind::Image) {
        let written =
            write_one(output, asked, made, modified).map_err(|error| failures::of_export(&error))?;
        exported = exported.or(written);
    }
    Ok(exported)
}

/// Whether layers of an image with these names are compressed before it is there, for somebody who pushes it later. A name that says a registry
/// is there for that; `app` and `team/app`, which are Docker Hub's when they are pushed, mostly stay where they are, and so does podman's
/// `localhost/app`.
pub(crate) fn compresses(outputs: &[Output], names: &[Reference]) -> bool {
    let is_pushed = || outputs.iter().any(|output| output.push.is_some());
    let says_registry = |name: &Reference| !matches!(name.registry(), "docker.io" | "localhost");
    let is_said = outputs.iter().find_map(|output| output.compresses);
    is_said.unwrap_or_else(|| !is_pushed() && names.iter().any(says_registry))
}

/// Has layers sent, of the image that is pushed first, while it is still built; or compressed, of those that are pushed later. Not while it is
/// built if they become others in the end.
pub(crate) fn ahead<'m>(
    asked: &Asked,
    plan: &Plan,
    mover: &'m Mover<'_>,
) -> Result<Option<Ahead<'m>>, Failure> {
    let changes_layers = asked.squash.is_some() || asked.rewrites_times;
    let pushed = asked.outputs.iter().find_map(|output| Some((output, output.push?)));
    let Some((output, push)) = pushed else {
        let of_targets = plan.outputs.chunks(asked.platforms.len().max(1)).zip(asked.names_of_targets());
        let wanted: Vec<_> = of_targets.filter(|(_, names)| compresses(&asked.outputs, names)).collect();
        let known = wanted.iter().filter(|_| !changes_layers).flat_map(|(outputs, _)| *outputs);
        let steps = known.flat_map(|output| plan.chain(output.step)).collect();
        return Ok((!wanted.is_empty()).then(|| Ahead::new(Compression::Gzip.into(), steps, None)));
    };
    let name = asked.names_of(output).into_iter().next().filter(|_| !changes_layers);
    let Some(name) = name else { return Ok(None) };
    let of_target = plan.outputs.iter().take(asked.platforms.len().max(1));
    let steps = of_target.flat_map(|output| plan.chain(output.step)).collect();
    let remote = Remote::new(mover, name).map_err(ClientError::into_failure)?;
    Ok(Some(Ahead::new(push.encoding, steps, Some(remote))))
}

/// Sends the image wherever it is to be sent; says which manifest it got.
pub(crate) fn push(
    asked: &Asked,
    made: Made<'_>,
    mover: &Mover<'_>,
    ahead: Option<&Ahead<'_>>,
) -> Result<Option<Exported>, Failure> {
    let mut exported = None;
    for output in &asked.outputs {
        let Some(push) = output.push else { continue };
        let images = images(made.images, made.layers).map_err(|error| failures::of_export(&error))?;
        let annotations = made.annotations_of(asked, output);
        for name in asked.names_of(output) {
            let ahead = ahead.filter(|ahead| ahead.is_for(&name, push.encoding));
            let pushed = mover.push(images.clone(), &name, push, &annotations, ahead);
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
        Kind::Directory(directory) if output.removes_others => {
            let directory = resolved(directory)
                .map_err(|source| ExportError::Place { path: directory.clone(), source })?;
            export::rootfs_mirror(layers, &parts, modified, &directory)?;
            Vec::new()
        }
        Kind::Directory(directory) => {
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

/// Refuses to clear a directory that is not below the one where the person is, unless that is allowed, and any in which there is something else
/// that this build reads or writes.
pub(crate) fn check_removals(asked: &Asked) -> Result<(), Failure> {
    asked.outputs.iter().filter(|output| output.removes_others).try_for_each(|output| {
        let Kind::Directory(directory) = &output.kind else { return Ok(()) };
        check_removal(directory, output, asked)
    })
}

fn check_removal(directory: &Path, output: &Output, asked: &Asked) -> Result<(), Failure> {
    let refused = |title: String, help: &str| Err(Failure::usage(title, help));
    let shown = directory.display();
    let Ok(place) = resolved(directory) else {
        return refused(format!("nobody can tell where `{shown}` is"), "write the path without `..`");
    };
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    let is_below = here.is_ok_and(|here| place.starts_with(&here) && place != here);
    if !is_below && !asked.may_delete {
        let title = format!("`mode=delete` would clear `{shown}`, which is not below this directory");
        return refused(title, &format!("allow it with `--allow={}`", Allowed::LocalDelete.as_str()));
    }
    let others = asked.outputs.iter().filter(|other| *other != output).filter_map(Output::place);
    let artifacts = asked.artifacts.iter().map(Artifact::directory);
    let caches = asked
        .cache_from
        .iter()
        .map(|from| &from.place)
        .chain(asked.cache_to.iter().filter_map(|to| to.place.as_ref()));
    let caches = caches.filter_map(Where::directory);
    let mut all = others.chain(artifacts).chain(caches).chain(asked.precious.iter().map(PathBuf::as_path));
    match all.find(|other| resolved(other).is_ok_and(|other| other.starts_with(&place))) {
        Some(other) => refused(
            format!("`mode=delete` would clear `{shown}`, and `{}` is in it", other.display()),
            "choose another directory for one of them",
        ),
        None => Ok(()),
    }
}

/// A path without links, of which the end need not be there.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let there = path.ancestors().find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    let (ancestor, canonical) = there.ok_or(io::ErrorKind::NotFound)?;
    let rest = path.strip_prefix(ancestor).map_err(io::Error::other)?;
    if rest.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(if rest.as_os_str().is_empty() { canonical } else { canonical.join(rest) })
}

/// What is said of the one image that is kept must be one thing, and of use.
fn check_kept(outputs: &[Output]) -> Result<(), Failure> {
    let mut said = outputs.iter().filter_map(|output| output.compresses);
    let Some(first) = said.next() else { return Ok(()) };
    if said.any(|other| other != first) {
        let title = "one `--output` has the image compressed, another one has it not, and it is one image";
        return Err(Failure::usage(title, "say it once"));
    }
    if outputs.iter().any(|output| output.push.is_some()) {
        let title = "one `--output` says whether the image is compressed for a push later, and another one pushes it now";
        return Err(Failure::usage(title, "say `compression=` of the one that pushes"));
    }
    Ok(())
}

fn check_push(output: &Output, asked: &Asked) -> Result<(), Failure> {
    let refused = |title: &str, help: &str| Err(Failure::usage(title, help));
    if asked.names_of(output).is_empty() {
        let title = "there is no name under which the image could be pushed";
        return refused(title, "name it with its registry: `--tag registry.example.com/team/app:1.2`");
    }
    let mut tagged = asked.tagged.iter().chain(&output.tagged);
    if let (true, Some(name)) = (output.push.is_some_and(|push| push.by_digest), tagged.next()) {
        let title = format!("`{name}` has a tag, and `push-by-digest=true` gives none");
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
