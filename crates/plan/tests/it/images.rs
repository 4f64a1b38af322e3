//! Images and remote sources for tests: behind a URL is the URL itself, unless it ends in `missing`.
//! `testdata/plan/.images/<name>.json` holds the config of `<name>`, with `/` written as `_`.

use std::collections::{BTreeSet, HashSet};

use dockerfile::Span;
use oci::{Config, Digest, ImageId, Platform, Reference};
use plan::{
    BaseImage, ImageError, ImageErrorCause, Images, RemoteContent, RemoteError, RemoteErrorCause,
    RemoteRequest, TimeSource,
};

/// Finds images among the recorded configs, and makes sure that each is asked for once, as is each remote source.
#[derive(Debug, Default)]
pub(crate) struct RecordedImages {
    asked: BTreeSet<(Reference, Platform)>,
    fetched: HashSet<RemoteRequest>,
}

impl Images for RecordedImages {
    fn resolve(
        &mut self,
        reference: &Reference,
        platform: &Platform,
        _: Span,
    ) -> Result<BaseImage, ImageError> {
        assert!(self.asked.insert((reference.clone(), platform.clone())), "{reference} was looked up twice");
        let directory = testkit::golden::testdata().join("plan/.images");
        let name = reference.familiar().replace('/', "_");
        let platform = platform.to_string().replace('/', "_");
        let candidates = [format!("{name}@{platform}.json"), format!("{name}.json")];
        let Some(json) = candidates.iter().find_map(|file| std::fs::read(directory.join(file)).ok()) else {
            return Err(ImageError {
                cause: ImageErrorCause::NotFound,
                message: format!("no image `{}` is recorded", reference.familiar()),
                notes: Vec::new(),
                help: Some("bring it in with `rbuild import` or `rbuild load`".to_owned()),
            });
        };
        let config = Config::from_json(&json).unwrap_or_else(|e| panic!("{name}: {e}"));
        Ok(BaseImage { image: ImageId::new(Digest::of(&json)), config })
    }

    /// Sources are from 2001, and contexts from a little later.
    fn time(&mut self, source: &TimeSource) -> Result<Option<i64>, RemoteError> {
        Ok(Some(match source {
            TimeSource::Remote(_) => 1_000_000_000,
            TimeSource::Context(_) => 1_000_000_001,
        }))
    }

    fn fetch(&mut self, request: &RemoteRequest) -> Result<RemoteContent, RemoteError> {
        assert!(self.fetched.insert(request.clone()), "{} was looked up twice", request.url());
        let url = request.url();
        if url.ends_with("missing") {
            return Err(RemoteError {
                cause: RemoteErrorCause::Network,
                message: format!("`{url}` is not there"),
                notes: Vec::new(),
                help: None,
            });
        }
        let name = url.rsplit('/').next().map(ToOwned::to_owned);
        Ok(match request {
            RemoteRequest::File { checksum, .. } => {
                let digest = checksum.clone().unwrap_or_else(|| Digest::of(url));
                RemoteContent { digest, file_name: name }
            }
            RemoteRequest::Repository { .. } => {
                RemoteContent { digest: Digest::of(format!("{request:?}")), file_name: None }
            }
        })
    }
}
