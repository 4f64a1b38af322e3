//! Images in and out through files: `import`, `load`, `save`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use image::export::{self, Destination, Format, Named};
use image::import::ImportOptions;
use image::load::Source;
use image::{Layers, LocalImage};
use oci::{Platform, Reference};

use crate::cli::{ArchiveFormat, Compression, Global, ImportArgs, LoadArgs, SaveArgs};
use crate::commands::{failures, names};
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::listing::write_line;
use crate::session::{Session, now};

/// How many layers of an archive are read at once; hashing and decompressing are what takes the time.
fn readers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Makes an image of a root filesystem.
pub(crate) fn import(args: &ImportArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let name = names::new_name(&args.reference)?;
    let mut tar = open_tar(&args.file, environment)?;
    let session = Session::open(global)?;
    let cancelled = session.cancelled();
    let layers = Layers::new(&session.lease, &cancelled);
    let options = ImportOptions {
        tags: std::slice::from_ref(&name),
        platform: &Platform::host(),
        created: Some(now().text),
        message: format!("Imported from {}", args.file.display()),
    };
    let imported = image::import(&layers, &mut tar, &options).map_err(|error| failures::of_import(&error))?;
    write_line(&imported.id)?;
    session.close()
}

/// The file, or standard input for `-`.
fn open_tar(path: &Path, environment: &Environment) -> Result<Box<dyn Read>, Failure> {
    if path == Path::new("-") {
        return standard_input(environment).map(|input| Box::new(input) as Box<dyn Read>);
    }
    let opened = File::open(path).and_then(|file| match file.metadata()?.is_dir() {
        true => Err(io::ErrorKind::IsADirectory.into()),
        false => Ok(file),
    });
    opened.map(|file| Box::new(file) as Box<dyn Read>).map_err(|error| unreadable(path, &error))
}

/// Standard input, unless nobody has directed anything there.
fn standard_input(environment: &Environment) -> Result<io::StdinLock<'static>, Failure> {
    if environment.stdin_is_terminal {
        let title = "standard input is a terminal, not an archive";
        let help = "name a file, or direct one here with `<`";
        return Err(Failure::usage(title, help));
    }
    Ok(io::stdin().lock())
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let title = format!("cannot read `{}`", path.display());
    Failure::new(Exit::Usage, Diagnostic::error("usage", title).note(error.to_string()))
}

/// Takes images out of an archive.
pub(crate) fn load(args: &LoadArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let mut input;
    let source = match &args.input {
        Some(path) => {
            // Before the store is opened: a misspelt name is the user's business, not the store's.
            std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
            Source::Path(path.clone())
        }
        None => {
            input = standard_input(environment)?;
            Source::Stream(&mut input)
        }
    };
    let session = Session::open(global)?;
    let cancelled = session.cancelled();
    let layers = Layers::new(&session.lease, &cancelled);
    let loaded = image::load(&layers, source, &Platform::host(), readers())
        .map_err(|error| failures::of_load(&error))?;
    for image in loaded {
        match image.names.is_empty() {
            true => write_line(format_args!("Loaded image ID: {}", image.image.id))?,
            false => {
                let mut names = image.names.iter().map(|(name, _)| name.familiar());
                names.try_for_each(|name| write_line(format_args!("Loaded image: {name}")))?;
            }
        }
    }
    session.close()
}

/// Writes images to an archive.
pub(crate) fn save(args: &SaveArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    if args.output.is_none() && environment.stdout_is_terminal {
        let title = "an archive is nothing for a terminal";
        let help = "name a file with `--output FILE`, or direct the output somewhere with `>`";
        return Err(Failure::usage(title, help));
    }
    let session = Session::open(global)?;
    let cancelled = session.cancelled();
    let layers = Layers::new(&session.lease, &cancelled);
    let images = named(&layers, &args.images)?;
    let format = match args.format {
        ArchiveFormat::Oci => Format::Oci,
        ArchiveFormat::Docker => Format::Docker,
    };
    let mut output = io::stdout().lock();
    let destination = match &args.output {
        Some(path) => Destination::File(path.clone()),
        None => Destination::Stream(&mut output),
    };
    export::archive(&layers, &images, format, compression(args.compression, format).into(), destination)
        .map_err(|error| failures::of_export(&error))?;
    session.close()
}

/// The images meant, each once, with the names by which they were meant: an image given by its id has none in the archive.
fn named(layers: &Layers<'_>, texts: &[String]) -> Result<Vec<Named>, Failure> {
    let mut images: Vec<Named> = Vec::new();
    for text in texts {
        let found = image::find_all(layers, text).map_err(|error| failures::of_find(&error))?;
        let ids = |images: &[LocalImage]| images.iter().map(|image| image.id.clone()).collect::<Vec<_>>();
        let is_its_name = |name: &Reference| {
            let tag = layers.lease().store().tag(name).ok().flatten();
            tag.is_some_and(|tag| tag.images().eq(&ids(&found)))
        };
        let name = Reference::parse(text).ok().filter(is_its_name);
        match images.iter_mut().find(|known| ids(&known.images) == ids(&found)) {
            Some(known) => known.names.extend(name.filter(|name| !known.names.contains(name))),
            None => {
                let names = name.into_iter().collect();
                images.push(Named { images: found, names, annotations: Vec::new() });
            }
        }
    }
    Ok(images)
}

/// What was asked for, else what everybody expects in such an archive.
pub(crate) fn compression(asked: Option<Compression>, format: Format) -> oci::Compression {
    match (asked, format) {
        (Some(Compression::Uncompressed), _) | (None, Format::Docker) => oci::Compression::None,
        (Some(Compression::Gzip), _) | (None, Format::Oci) => oci::Compression::Gzip,
        (Some(Compression::Zstd), _) => oci::Compression::Zstd,
    }
}
