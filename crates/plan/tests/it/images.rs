//! Images for tests: `testdata/plan/.images/<name>.json` holds the config of `<name>`, with `/` written as `_`.

use std::collections::BTreeSet;

use dockerfile::Span;
use oci::{Config, Digest, ImageId, Platform, Reference};
use plan::{BaseImage, ImageError, ImageErrorCause, Images};

/// Finds images among the recorded configs, and makes sure that each is asked for once.
#[derive(Debug, Default)]
pub(crate) struct RecordedImages {
    asked: BTreeSet<(Reference, Platform)>,
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
}
