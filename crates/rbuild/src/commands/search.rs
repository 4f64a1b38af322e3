//! `rbuild search`.

use std::sync::Arc;

use oci::Reference;
use registry::{Found, Search};
use serde::Serialize;

use crate::cli::SearchArgs;
use crate::commands::registry::{ClientError, Connection};
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::listing::{print, tell};
use crate::session::unless_cancelled;
use crate::signals;
use crate::terminal::one_line;

/// How much of a description a table shows.
const DESCRIPTION_CHARS: usize = 45;

/// What is looked for.
#[derive(Debug, Default)]
struct Filters {
    stars: u64,
    is_official: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Row<'r> {
    name: String,
    description: &'r str,
    stars: u64,
    official: bool,
}

/// Looks for repositories.
pub(crate) fn search(args: &SearchArgs, environment: &Environment) -> Result<(), Failure> {
    let filters = Filters::parse(&args.filters)?;
    let (registry, term) = place(&args.term)?;
    let cancel = Arc::default();
    signals::cancel_on_interrupt(&cancel)?;
    let connection = Connection::new(&cancel, environment, &args.registry);
    let (client, _hook) = connection.client().map_err(ClientError::into_failure)?;
    let found = client.search(&registry, term, usize::from(args.limit)).map_err(|error| {
        let diagnostic = Diagnostic::from_error("search", &error);
        unless_cancelled(&cancel, Failure::new(Exit::Network, diagnostic))
    })?;
    let found = match found {
        Search::Ranked(found) => found,
        Search::Listed(found) => {
            tell(format_args!(
                "{} does not search: these are of its list of repositories",
                registry.registry()
            ));
            found
        }
    };
    let host = if registry.registry() == "docker.io" { "" } else { registry.registry() };
    let rows: Vec<Row<'_>> =
        found.iter().filter(|found| filters.fit(found)).map(|found| Row::new(found, host)).collect();
    let cells: Vec<_> = rows.iter().map(|row| row.cells(args.no_trunc)).collect();
    print(args.format.format, &["NAME", "DESCRIPTION", "STARS", "OFFICIAL"], &cells, &rows)
}

/// The registry, as a reference to something of it, and the word.
fn place(term: &str) -> Result<(Reference, &str), Failure> {
    let is_host = |first: &str| first.contains(['.', ':']) || first == "localhost";
    let (host, word) = match term.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => ("docker.io", term),
    };
    if word.is_empty() {
        return Err(Failure::usage(
            format!("`{term}` has no word to look for"),
            "give one, as in `registry.lan/app`",
        ));
    }
    let reference = Reference::parse(&format!("{host}/x"));
    let reference = reference
        .map_err(|error| Failure::usage(format!("`{host}` is no registry: {error}"), "check the name"))?;
    Ok((reference, word))
}

impl Filters {
    fn parse(texts: &[String]) -> Result<Self, Failure> {
        let mut filters = Self::default();
        for text in texts {
            let wrong = || {
                Failure::usage(format!("`--filter {text}` is none"), "write `stars=N` or `is-official=true`")
            };
            let (name, value) = text.split_once('=').ok_or_else(wrong)?;
            match name {
                "stars" => filters.stars = value.parse().map_err(|_| wrong())?,
                "is-official" => filters.is_official = Some(value.parse().map_err(|_| wrong())?),
                _ => return Err(wrong()),
            }
        }
        Ok(filters)
    }

    fn fit(&self, found: &Found) -> bool {
        found.stars >= self.stars && self.is_official.is_none_or(|wanted| wanted == found.is_official)
    }
}

impl<'r> Row<'r> {
    fn new(found: &'r Found, host: &str) -> Self {
        let name = if host.is_empty() { found.name.clone() } else { format!("{host}/{}", found.name) };
        Self { name, description: &found.description, stars: found.stars, official: found.is_official }
    }

    fn cells(&self, is_full: bool) -> Vec<String> {
        let line = one_line(self.description);
        let description = match line.char_indices().nth(DESCRIPTION_CHARS) {
            Some((end, _)) if !is_full => format!("{}…", &line[..end]),
            _ => line,
        };
        let official = if self.official { "[OK]" } else { "" };
        vec![one_line(&self.name), description, self.stars.to_string(), official.to_owned()]
    }
}
