//! `rbuild diff`: two images, or what two steps of a build made, beside each other.
//!
//! Entry lists know the digest of every file, so nothing is read but the lists themselves.

mod config;
mod show;
mod side;

use image::Layers;
use layer::compare::{Times, compare};

use crate::cli::{DiffArgs, Format, Global};
use crate::commands::diff::side::Side;
use crate::commands::failures;
use crate::failure::{Exit, Failure};
use crate::listing::print_json;
use crate::session::Session;

/// What `diff` exits with when something differs, as diff(1) does.
const DIFFERENT: u8 = 1;

/// Compares, and gives the exit code.
pub(crate) fn diff(args: &DiffArgs, global: &Global) -> Result<u8, Failure> {
    look(args, global).map_err(|failure| match failure.exit {
        // That code says something else here.
        Exit::Build => Failure { exit: Exit::Machine, ..failure },
        _ => failure,
    })
}

fn look(args: &DiffArgs, global: &Global) -> Result<u8, Failure> {
    let session = Session::open(global)?;
    let cancelled = session.cancelled();
    let layers = Layers::new(&session.lease, &cancelled);
    let find = |name: &str| Side::find(name, args.file.as_deref(), &layers);
    let (old, new) = (find(&args.old)?, find(&args.new)?);
    let fields = config::compare(&old, &new);
    let times = if args.mtime { Times::Compared } else { Times::Ignored };
    let merged = |side: &Side| layers.merged(&side.layers).map_err(|error| failures::of_image(&error));
    let files = match old.layers == new.layers {
        true => Vec::new(),
        false => compare(&merged(&old)?, &merged(&new)?, times),
    };
    match args.format.format {
        Format::Json => print_json(&show::document(&fields, &files))?,
        Format::Table => show::print(&fields, &files)?,
    }
    session.close()?;
    Ok(if fields.is_empty() && files.is_empty() { 0 } else { DIFFERENT })
}
