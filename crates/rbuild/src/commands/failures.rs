//! Errors of image operations as failures: one match for each kind of error.

use image::FindError;
use image::NameError;
use image::export::ExportError;
use image::import::ImportError;
use image::load::LoadError;

use crate::build::errors::{is_disk_full, no_space};
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};

pub(crate) use crate::build::errors::of_image;

/// A name that means no image.
pub(crate) fn of_find(error: &FindError) -> Failure {
    let diagnostic = Diagnostic::from_error("no-image", error);
    let help = match error {
        FindError::Image(error) => return of_image(error),
        FindError::NotFound { similar: Some(similar), .. } => format!("did you mean `{similar}`?"),
        FindError::NotFound { similar: None, .. } => "`rbuild images` lists those that are here".to_owned(),
        FindError::Ambiguous { .. } => "give more of the id".to_owned(),
        FindError::Malformed { .. } => "a name looks like `app:1.2`, an id is made of hex digits".to_owned(),
    };
    Failure::new(Exit::Usage, diagnostic.help(help))
}

/// A name that cannot be given or taken away.
pub(crate) fn of_name(error: &NameError) -> Failure {
    let usage = |help: &str| Failure::new(Exit::Usage, Diagnostic::from_error("name", error).help(help));
    match error {
        NameError::Find(error) => of_find(error),
        NameError::Image(error) => of_image(error),
        NameError::Malformed { .. } => {
            usage("a name looks like `app`, `app:1.2` or `registry.example.com/team/app:1.2`")
        }
        NameError::Pinned(_) => usage("leave out the part from `@`"),
        NameError::SeveralNames { .. } => {
            usage("remove them one by one, or all of them with the image: `--force`")
        }
    }
}

/// A root filesystem that cannot be imported.
pub(crate) fn of_import(error: &ImportError) -> Failure {
    if is_disk_full(error) {
        return Failure::new(Exit::Machine, no_space(error));
    }
    let refused = |help: &str| Failure::new(Exit::Build, Diagnostic::from_error("import", error).help(help));
    match error {
        ImportError::Image(error) => of_image(error),
        ImportError::Read(_) | ImportError::Unpack(_) => {
            Failure::new(Exit::Machine, Diagnostic::from_error("import", error))
        }
        ImportError::Tar(_) | ImportError::Empty => refused(
            "`import` takes the tar of a root filesystem, plain or compressed with gzip, zstd, xz or bzip2",
        ),
        ImportError::ArchiveOfImages => refused("take images out of an archive with `rbuild load -i FILE`"),
    }
}

/// An archive that cannot be loaded.
pub(crate) fn of_load(error: &LoadError) -> Failure {
    if is_disk_full(error) {
        return Failure::new(Exit::Machine, no_space(error));
    }
    let diagnostic = Diagnostic::from_error("load", error);
    match error {
        LoadError::Image(error) => of_image(error),
        LoadError::Read(_) => Failure::new(Exit::Machine, diagnostic),
        LoadError::RootFilesystem => Failure::new(
            Exit::Build,
            diagnostic.help("make an image of a root filesystem with `rbuild import FILE NAME`"),
        ),
        LoadError::NoImages => Failure::new(
            Exit::Build,
            diagnostic.help("`load` takes what `rbuild save`, `docker save` or `skopeo copy` wrote"),
        ),
        LoadError::Member { .. }
        | LoadError::Tar(_)
        | LoadError::Missing(_)
        | LoadError::Path(_)
        | LoadError::Sparse(_)
        | LoadError::TooLarge { .. }
        | LoadError::Document { .. }
        | LoadError::Config { .. }
        | LoadError::WrongName { .. }
        | LoadError::Descriptor(_)
        | LoadError::TooDeep(_)
        | LoadError::NoPlatform { .. }
        | LoadError::NotInLayout { .. }
        | LoadError::Reference { .. }
        | LoadError::LayerCount { .. }
        | LoadError::TooManyLayers { .. }
        | LoadError::Layer(_) => Failure::new(Exit::Build, diagnostic),
    }
}

/// An output that cannot be written.
pub(crate) fn of_export(error: &ExportError) -> Failure {
    let diagnostic = Diagnostic::from_error("export", error);
    match error {
        ExportError::Image(error) => of_image(error),
        ExportError::InTheWay { .. } => {
            Failure::new(Exit::Usage, diagnostic.help("choose another place, or remove what is there"))
        }
        ExportError::Index { .. } => {
            Failure::new(Exit::Usage, diagnostic.help("choose another directory, or remove what is there"))
        }
        ExportError::LayerCount { .. }
        | ExportError::WrongLayer { .. }
        | ExportError::Blob { .. }
        | ExportError::TarSize { .. } => Failure::new(
            Exit::Machine,
            diagnostic.help("`rbuild fsck` says what is damaged, `rbuild fsck --repair` puts it aside"),
        ),
        ExportError::Resolve(_) => Failure::new(Exit::Build, diagnostic),
        ExportError::Place { .. }
        | ExportError::Write(_)
        | ExportError::Pack(_)
        | ExportError::Tree(_)
        | ExportError::Path(_) => Failure::new(Exit::Machine, diagnostic),
    }
}
