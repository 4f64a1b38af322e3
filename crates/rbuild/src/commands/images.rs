//! Images by name: `images`, `rmi`, `tag`, `history`, `inspect`.

use image::{HistoryLine, Layers, Listed, RemoveMode, Removed};
use jiff::Timestamp;
use oci::Reference;
use serde_json::json;

use crate::cli::{Global, HistoryArgs, InspectArgs, ListArgs, RmiArgs, TagArgs};
use crate::commands::failures;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::listing::{self, human_age, human_bytes};
use crate::session::Session;
use crate::terminal::{cut, one_line};

/// How much of an instruction fits beside the other columns on most terminals.
const INSTRUCTION_WIDTH: usize = 60;

/// What stands for a name that is not there.
const NONE: &str = "<none>";

/// Lists all images.
pub(crate) fn images(args: &ListArgs, global: &Global) -> Result<(), Failure> {
    let session = Session::open(global)?;
    let cancelled = session.cancelled();
    let layers = Layers::new(&session.lease, &cancelled);
    let listed = image::list(&layers).map_err(|error| failures::of_image(&error))?;
    if args.quiet {
        listed.iter().try_for_each(|image| listing::write_line(image.id.digest().short()))?;
        return session.close();
    }
    let now = Timestamp::now();
    let rows: Vec<Vec<String>> = listed.iter().flat_map(|image| image_rows(image, now)).collect();
    let document: Vec<_> = listed.iter().map(image_document).collect();
    listing::print(
        args.format.format,
        &["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"],
        &rows,
        &document,
    )?;
    session.close()
}

/// A row for each name, as with Docker.
fn image_rows(image: &Listed, now: Timestamp) -> Vec<Vec<String>> {
    let row = |name: Option<&Reference>| {
        let tag = name.and_then(Reference::tag).map(ToOwned::to_owned);
        vec![
            name.map_or_else(|| NONE.to_owned(), Reference::familiar_repository),
            tag.unwrap_or_else(|| NONE.to_owned()),
            image.id.digest().short(),
            image.created.as_deref().map_or_else(String::new, |created| human_age(created, now)),
            human_bytes(image.size_bytes),
        ]
    };
    match &image.names[..] {
        [] => vec![row(None)],
        names => names.iter().map(|name| row(Some(name))).collect(),
    }
}

fn image_document(image: &Listed) -> serde_json::Value {
    json!({
        "id": image.id.to_string(),
        "names": image.names.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "created": image.created,
        "platform": image.platform.to_string(),
        "size_bytes": image.size_bytes,
        "digests": image.manifests.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// Removes names and images. One that cannot be removed does not keep the others.
pub(crate) fn rmi(args: &RmiArgs, global: &Global) -> Result<(), Failure> {
    let session = Session::open(global)?;
    let cancelled = session.cancelled();
    let layers = Layers::new(&session.lease, &cancelled);
    let mode = if args.force { RemoveMode::Force } else { RemoveMode::Careful };
    let mut failures = Vec::new();
    for name in &args.images {
        match image::remove(&layers, name, mode) {
            Ok(removed) => removed.iter().try_for_each(print_removed)?,
            Err(error) => failures.push(failures::of_name(&error)),
        }
    }
    session.close()?;
    first_of(failures)
}

fn print_removed(removed: &Removed) -> Result<(), Failure> {
    match removed {
        Removed::Untagged(name) => listing::write_line(format_args!("Untagged: {}", name.familiar())),
        Removed::Deleted(id) => listing::write_line(format_args!("Deleted: {id}")),
    }
}

/// One failure that tells of all, with the exit code of the first.
fn first_of(failures: Vec<Failure>) -> Result<(), Failure> {
    let Some(exit) = failures.first().map(|failure| failure.exit) else { return Ok(()) };
    Err(Failure { exit, diagnostics: failures.into_iter().flat_map(|failure| failure.diagnostics).collect() })
}

/// Gives an image a further name.
pub(crate) fn tag(args: &TagArgs, global: &Global) -> Result<(), Failure> {
    let session = Session::open(global)?;
    let cancelled = session.cancelled();
    let layers = Layers::new(&session.lease, &cancelled);
    image::tag(&layers, &args.source, &args.target).map_err(|error| failures::of_name(&error))?;
    session.close()
}

/// Shows what made an image, the last step first.
pub(crate) fn history(args: &HistoryArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let session = Session::open(global)?;
    let cancelled = session.cancelled();
    let layers = Layers::new(&session.lease, &cancelled);
    let image = image::find(&layers, &args.image).map_err(|error| failures::of_find(&error))?;
    let lines = image::history(&layers, &image).map_err(|error| failures::of_image(&error))?;
    let now = Timestamp::now();
    let width = if environment.stdout_is_terminal { INSTRUCTION_WIDTH } else { usize::MAX };
    let rows: Vec<_> = lines.iter().map(|line| history_row(line, now, width)).collect();
    let document: Vec<_> = lines.iter().map(history_document).collect();
    listing::print(args.format.format, &["CREATED", "CREATED BY", "SIZE", "COMMENT"], &rows, &document)?;
    session.close()
}

fn history_row(line: &HistoryLine, now: Timestamp, width: usize) -> Vec<String> {
    vec![
        line.created.as_deref().map_or_else(String::new, |created| human_age(created, now)),
        cut(&one_line(&line.created_by), width),
        line.layer.as_ref().map_or_else(String::new, |_| human_bytes(line.size_bytes)),
        one_line(&line.comment),
    ]
}

fn history_document(line: &HistoryLine) -> serde_json::Value {
    json!({
        "created": line.created,
        "created_by": line.created_by,
        "comment": line.comment,
        "layer": line.layer.as_ref().map(ToString::to_string),
        "size_bytes": line.size_bytes,
    })
}

/// Shows everything about images; those that are not there do not keep the others from being shown.
pub(crate) fn inspect(args: &InspectArgs, global: &Global) -> Result<(), Failure> {
    let session = Session::open(global)?;
    let cancelled = session.cancelled();
    let layers = Layers::new(&session.lease, &cancelled);
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in &args.images {
        match image::find(&layers, name) {
            Ok(image) => {
                found.push(image::inspect(&layers, &image).map_err(|error| failures::of_image(&error))?)
            }
            Err(error) => failures.push(failures::of_find(&error)),
        }
    }
    listing::print_json(&found)?;
    session.close()?;
    first_of(failures)
}
