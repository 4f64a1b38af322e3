//! Which repositories a registry has for a word.
//!
//! Docker Hub, and what speaks its old API, searches itself (`GET /v1/search`, with descriptions and stars). Any other registry at most lists what it
//! has (OCI distribution specification: `GET /v2/_catalog`, optional), and is looked through for the word.

use oci::Reference;
use serde::Deserialize;
use ureq::http::Method;
use web::Url;

use crate::auth::Access;
use crate::client::{Client, Location, Question};
use crate::error::{Failure, RequestError};
use crate::tags::next_page;

/// Where Docker Hub searches.
const HUB_SEARCH: &str = "https://index.docker.io/v1/search";

/// How many names a catalog is asked for at once, and how often.
const PAGE: &str = "1000";
const MOST_PAGES: usize = 100;

/// A repository that was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// As in a reference to it, without the registry.
    pub name: String,
    /// What its owner says of it.
    pub description: String,
    /// How many people like it.
    pub stars: u64,
    /// Whether the registry's owners stand by it.
    pub is_official: bool,
}

/// Who answered a search, and with what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Search {
    /// The registry searched.
    Ranked(Vec<Found>),
    /// It only lists what it has, which was looked through.
    Listed(Vec<Found>),
}

/// Why a search gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// A request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The registry neither searches nor lists.
    #[error("`{host}` neither searches nor lists what it has")]
    Unable {
        /// Who answered.
        host: String,
        /// What it said to the last question.
        #[source]
        source: RequestError,
    },
    /// Not JSON, or not of the right shape.
    #[error("`{host}` does not answer with a list of repositories")]
    Malformed {
        /// Who answered.
        host: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Deserialize)]
struct Results {
    results: Vec<ResultEntry>,
}

#[derive(Deserialize)]
struct ResultEntry {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    star_count: u64,
    #[serde(default)]
    is_official: bool,
}

#[derive(Deserialize)]
struct Catalog {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

impl Client {
    /// Looks for repositories of a registry (that of `registry`) with a word in their names, at most `limit`.
    ///
    /// # Errors
    /// [`SearchError`].
    pub fn search(&self, registry: &Reference, term: &str, limit: usize) -> Result<Search, SearchError> {
        let query = web::form(&[("q", term), ("n", &limit.to_string())]);
        let is_hub = registry.registry() == "docker.io";
        let place = match is_hub {
            true => Location::At(hub(&query)?),
            false => Location::Root(format!("/v1/search?{query}")),
        };
        let refusal = match self.ask_for_json::<Results>(registry, place, Access::Login) {
            Ok((_, _, Results { mut results })) => {
                results.truncate(limit);
                return Ok(Search::Ranked(results.into_iter().map(ResultEntry::found).collect()));
            }
            Err(error) if is_hub || !error.may_list() => return Err(error),
            Err(error) => error,
        };
        tracing::debug!(%refusal, "the registry does not search");
        self.look_through(registry, term, limit).map(Search::Listed)
    }

    fn look_through(
        &self,
        registry: &Reference,
        term: &str,
        limit: usize,
    ) -> Result<Vec<Found>, SearchError> {
        let mut found = Vec::new();
        let mut place = Location::Root(format!("/v2/_catalog?{}", web::form(&[("n", PAGE)])));
        for _ in 0..MOST_PAGES {
            let asked = self.ask_for_json::<Catalog>(registry, place, Access::Catalog);
            let (url, next, catalog) = asked.map_err(|error| match error {
                SearchError::Request(source) if source.status().is_some() => {
                    SearchError::Unable { host: registry.registry().to_owned(), source }
                }
                error => error,
            })?;
            let names = catalog.repositories.unwrap_or_default();
            let is_last = names.is_empty();
            found.extend(names.into_iter().filter(|name| name.contains(term)).map(Found::named));
            if found.len() >= limit {
                found.truncate(limit);
                break;
            }
            match next {
                Some(next) if !is_last && next.full() != url.full() => place = Location::At(next),
                _ => break,
            }
        }
        Ok(found)
    }

    /// Asks a question that is about no repository; gives where the answer came from, where it goes on, and what it is.
    fn ask_for_json<T: serde::de::DeserializeOwned>(
        &self,
        registry: &Reference,
        place: Location,
        access: Access,
    ) -> Result<(Url, Option<Url>, T), SearchError> {
        let question = Question {
            method: Method::GET,
            place,
            access,
            ..Question::get(String::new(), "search".to_owned(), "application/json")
        };
        let (url, headers, bytes) = self.ask(registry, &question, |answer| {
            Ok((answer.url, answer.headers, answer.body.read_all("list", self.limits().manifest_bytes)?))
        })?;
        let host = url.origin().to_string();
        let read =
            serde_json::from_slice(&bytes).map_err(|source| SearchError::Malformed { host, source })?;
        let next = next_page(&headers, &url)?;
        Ok((url, next, read))
    }
}

impl SearchError {
    /// Whether the registry is there, and does not know what a search is.
    fn may_list(&self) -> bool {
        match self {
            Self::Request(error) => matches!(error.status(), Some(400..=499)),
            Self::Malformed { .. } => true,
            Self::Unable { .. } => false,
        }
    }
}

impl ResultEntry {
    fn found(self) -> Found {
        let Self { name, description, star_count: stars, is_official } = self;
        Found { name, description: description.unwrap_or_default(), stars, is_official }
    }
}

impl Found {
    fn named(name: String) -> Self {
        Self { name, description: String::new(), stars: 0, is_official: false }
    }
}

fn hub(query: &str) -> Result<Url, RequestError> {
    Url::parse(&format!("{HUB_SEARCH}?{query}"))
        .map_err(|error| RequestError::new("docker.io", Failure::Redirect(error.into())))
}
