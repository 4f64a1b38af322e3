//! `--cache-from` and `--cache-to`: results of steps from elsewhere, and to elsewhere.
//!
//! What travels is an artifact: the records of steps ([`::cache::Portable`]) as its document, and their compressed layers. Of what is imported, the
//! records come at the start; layers only with a record that a step takes.

mod export;
mod import;
mod mounts;
mod options;

use ::cache::Cache;
use image::artifact::{Kind, Place};
use image::export::Annotation;
use image::{Assembled, Layers};
use oci::{Platform, Reference};
use plan::Plan;
use registry::Client;
use solver::{CacheMode, Hook, Solved};
use source::Access;
use store::RecordKey;
use suggest::nearest;

use crate::build::output::Output;
use crate::build::request::Asked;
use crate::commands::registry::{ClientError, Connection, View};
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::listing;

use export::Made;
pub(crate) use import::Imports;
use mounts::Mounts;
use options::Mode;
pub(crate) use options::{CacheFrom, CacheTo, Where};

/// What a cache is told from other artifacts by.
const KIND: Kind<'_> = Kind {
    artifact: "application/vnd.rbuild.cache.v1",
    document: "application/vnd.rbuild.cache.records.v1+json+zstd",
    annotation: "vnd.rbuild.cache.v1",
};

/// A place that a cache is in, with what it takes to get there.
#[derive(Clone, Debug)]
enum Site<'s> {
    Registry { client: Client, reference: &'s Reference },
    Layout { directory: &'s std::path::Path, tag: &'s str },
}

impl<'s> Site<'s> {
    fn of(place: &'s Where, connection: &Connection<'_>) -> Result<Self, Failure> {
        Ok(match place {
            Where::Registry(reference) => {
                let (client, _) = connection.client().map_err(ClientError::into_failure)?;
                Self::Registry { client: client.clone(), reference }
            }
            Where::Local { directory, tag } => Self::Layout { directory, tag },
        })
    }

    fn place(&self) -> Place<'_> {
        match self {
            Self::Registry { client, reference } => Place::Registry { client, reference },
            Self::Layout { directory, tag } => Place::Layout { directory, tag },
        }
    }
}

/// Refuses a cache at a registry when nobody may be asked.
pub(crate) fn check_access(asked: &Asked) -> Result<(), Failure> {
    let from = asked.cache_from.iter().map(|from| ("--cache-from", &from.place));
    let to = asked.cache_to.iter().filter_map(|to| Some(("--cache-to", to.place.as_ref()?)));
    let is_remote = |(_, place): &(&str, &Where)| matches!(place, Where::Registry(_));
    match from.chain(to).find(is_remote) {
        Some((option, place)) if asked.access == Access::KeptOnly => {
            let title =
                format!("`{option}` is about `{place}`, and `--offline` lets nobody speak to a registry");
            let help = "leave out one of the two; `type=local` needs no registry";
            Err(Failure::usage(title, help))
        }
        _ => Ok(()),
    }
}

/// The caches of one build.
pub(crate) struct Transport<'t> {
    imports: Imports<'t>,
    wanted: &'t [CacheTo],
    connection: &'t Connection<'t>,
    environment: &'t Environment,
    view: View,
    /// How many outputs of the plan are the image.
    images: usize,
    #[expect(dead_code, reason = "held for its drop")]
    hook: Option<Hook<'t>>,
}

impl<'t> Transport<'t> {
    /// Reads what records there are elsewhere.
    pub(crate) fn open(
        asked: &'t Asked,
        plan: &Plan,
        connection: &'t Connection<'t>,
        environment: &'t Environment,
        view: View,
    ) -> Result<Self, Failure> {
        let places = asked.cache_from.iter().map(|from| &from.place);
        let mut places = places.chain(asked.cache_to.iter().filter_map(|to| to.place.as_ref()));
        let hook = match places.any(|place| matches!(place, Where::Registry(_))) {
            true => Some(connection.client().map_err(ClientError::into_failure)?.1),
            false => None,
        };
        let mut imports = match asked.cache_mode {
            CacheMode::Off => Imports::default(),
            _ => {
                let host = [Platform::host()];
                let platforms = if asked.platforms.is_empty() { &host } else { &asked.platforms[..] };
                Imports::open(&asked.cache_from, connection, platforms, environment, view)?
            }
        };
        imports.leave_out(plan);
        let is_inline = asked.cache_to.iter().any(|to| to.place.is_none());
        if is_inline && !asked.outputs.iter().any(Output::has_manifests) {
            let title = "`--cache-to type=inline` has no effect: the image is kept without a manifest";
            let help = "push it, or write an archive with `--output type=oci,dest=FILE`";
            warn(view, environment, &Diagnostic::warning("cache-export", title).help(help));
        }
        let images = asked.platforms.len().max(1);
        Ok(Self { imports, wanted: &asked.cache_to, connection, environment, view, images, hook })
    }

    /// Where results come from, if from anywhere.
    pub(crate) fn imports(&self) -> Option<&Imports<'t>> {
        (!self.imports.is_empty()).then_some(&self.imports)
    }

    /// Fills those cache mounts that were imported and that no RUN has wanted.
    pub(crate) fn fill_caches(&self, plan: &Plan, layers: &Layers<'_>) {
        let (filled, trouble) = self.imports.fill_missing(plan, layers);
        for id in filled {
            say(self.view, format_args!("filled the cache mount {id}"));
        }
        for message in trouble {
            warn(self.view, self.environment, &Diagnostic::warning("cache-import", message));
        }
    }

    /// Warns of cache mounts that are to travel and that nobody has.
    pub(crate) fn check_mounts(&self, plan: &Plan) {
        let known = mounts::of_plan(plan);
        for to in self.wanted {
            let Mounts::Ids(ids) = &to.mounts else { continue };
            for id in ids.iter().filter(|id| !known.contains_key(id.as_str())) {
                let mut warning = Diagnostic::warning(
                    "cache-export",
                    format!("no RUN of this build mounts a cache `{id}`"),
                );
                if let Some(meant) = nearest(id, known.keys().copied()) {
                    warning = warning.help(format!("did you mean `{meant}`?"));
                }
                warn(self.view, self.environment, &warning);
            }
        }
    }

    /// Whether anything is to be sent.
    pub(crate) fn exports(&self) -> bool {
        self.wanted.iter().any(|to| to.place.is_some())
    }

    /// What the manifests of the images get, if records are to stand there.
    pub(crate) fn inline(
        &self,
        plan: &Plan,
        solved: &Solved,
        images: &[Assembled],
        layers: &Layers<'_>,
        cache: &Cache<'_>,
    ) -> Result<Vec<Annotation>, Failure> {
        if self.wanted.iter().all(|to| to.place.is_some()) {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = solved.reports.iter().map(|report| report.key.clone()).collect();
        let (keys, solved) = (&keys[..], Some(solved));
        let made = Made { plan, keys, solved, images: self.images, layers, cache, imports: &self.imports };
        match made.inline(images) {
            Ok(Some(annotations)) => Ok(annotations),
            Ok(None) => {
                let title = "`--cache-to type=inline` has no effect: the layers of the image are not those of its steps";
                let warning = Diagnostic::warning("cache-export", title)
                    .help("use type=registry, or leave the layers as they are");
                warn(self.view, self.environment, &warning);
                Ok(Vec::new())
            }
            Err(error) => Err(error.into_failure("cannot write the cache into the image".to_owned())),
        }
    }

    /// Sends what there is of a build. `keys` are the definition keys, by step index; `solved` is `None` of a build that failed.
    pub(crate) fn export(
        &self,
        plan: &Plan,
        keys: &[RecordKey],
        solved: Option<&Solved>,
        layers: &Layers<'_>,
        cache: &Cache<'_>,
    ) -> Result<(), Failure> {
        if self.wanted.iter().any(|to| to.mounts != Mounts::None) {
            self.fill_caches(plan, layers);
        }
        let made = Made { plan, keys, solved, images: self.images, layers, cache, imports: &self.imports };
        made.export(self.wanted, self.connection, self.environment, self.view)
    }
}

/// `3 steps`.
fn steps(count: usize) -> String {
    if count == 1 { "one step".to_owned() } else { format!("{count} steps") }
}

/// ` and 2 cache mounts`, or nothing.
fn cache_mounts(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => " and one cache mount".to_owned(),
        count => format!(" and {count} cache mounts"),
    }
}

/// Says something to a person, if one is there.
fn say(view: View, text: std::fmt::Arguments<'_>) {
    if view != View::Quiet {
        listing::tell(text);
    }
}

/// Warns a person, if one is there.
fn warn(view: View, environment: &Environment, diagnostic: &Diagnostic) {
    if view != View::Quiet {
        listing::tell(diagnostic.render(environment.has_colour()));
    }
}

/// An error's message with those of its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |error| error.source()) {
        text.push_str(": ");
        text.push_str(&cause.to_string());
    }
    text
}
