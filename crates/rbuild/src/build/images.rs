//! Which image a name in a Dockerfile means: the one that is here, else the registry's.

use dockerfile::Span;
use image::Layers;
use oci::{Platform, Reference};
use plan::{BaseImage, ImageError, ImageErrorCause, Images};

use crate::commands::pull;
use crate::environment::Environment;

/// Looks images up for one build.
pub(crate) struct Resolver<'r> {
    layers: &'r Layers<'r>,
    /// Ask the registry even for what is here.
    pull: bool,
    environment: &'r Environment,
}

impl<'r> Resolver<'r> {
    pub(crate) fn new(layers: &'r Layers<'r>, pull: bool, environment: &'r Environment) -> Self {
        Self { layers, pull, environment }
    }

    fn local(&self, reference: &Reference, platform: &Platform) -> Result<Option<BaseImage>, ImageError> {
        let found = image::local(self.layers, reference, platform).map_err(|error| store_error(&error))?;
        Ok(found.map(|found| BaseImage { image: found.id, config: found.config }))
    }
}

impl Images for Resolver<'_> {
    fn resolve(
        &mut self,
        reference: &Reference,
        platform: &Platform,
        _: Span,
    ) -> Result<BaseImage, ImageError> {
        let here = self.local(reference, platform)?;
        if let Some(here) = here.as_ref().filter(|_| !self.pull) {
            return Ok(here.clone());
        }
        let pulled = pull::pull_image(self.layers, reference, platform, self.environment);
        match (pulled, here) {
            (Ok(()), _) => self.local(reference, platform)?.ok_or_else(|| not_found(reference, Vec::new())),
            // An image that only exists here cannot be pulled; that is no reason not to build on it.
            (Err(error), Some(here)) if self.pull && error.is_not_found() => Ok(here),
            (Err(error), _) => Err(pull_error(reference, &error)),
        }
    }
}

fn store_error(error: &image::Error) -> ImageError {
    ImageError { cause: ImageErrorCause::Store, message: error.to_string(), notes: causes(error), help: None }
}

fn not_found(reference: &Reference, notes: Vec<String>) -> ImageError {
    ImageError {
        cause: ImageErrorCause::NotFound,
        message: format!("there is no image `{}`", reference.familiar()),
        notes,
        help: Some(way_out(reference)),
    }
}

fn pull_error(reference: &Reference, error: &pull::PullError) -> ImageError {
    let mut notes = vec![format!(
        "no image of that name is in the store; tried to pull it from {}",
        reference.registry()
    )];
    notes.push(error.to_string());
    notes.extend(causes(error));
    let cause = if error.is_not_found() { ImageErrorCause::NotFound } else { ImageErrorCause::Registry };
    ImageError { cause, ..not_found(reference, notes) }
}

fn way_out(reference: &Reference) -> String {
    let name = reference.familiar();
    format!(
        "bring it in with `rbuild load -i ARCHIVE`, or make it of a root filesystem with `rbuild import ROOTFS.tar {name}`"
    )
}

fn causes(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(error.source(), |error| error.source()).map(ToString::to_string).collect()
}
