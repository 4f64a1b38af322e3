//! Images as far as they are known without asking anybody: those of the store, if there is one that may be opened.

use dockerfile::Span;
use image::Layers;
use oci::{Platform, Reference};
use plan::{BaseImage, ImageError, ImageErrorCause, Images};

use crate::cli::Global;
use crate::failure::Failure;
use crate::session::Session;

/// Calls `work` with the images that are here. A check must work for everybody, so that a store which is not there, or belongs to
/// somebody else, is as good as an empty one.
pub(crate) fn with_known<T>(
    global: &Global,
    work: impl FnOnce(&mut dyn Images) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let session =
        if global.root.is_dir() { Session::open(global) } else { return work(&mut Known { layers: None }) };
    let session = match session {
        Ok(session) => session,
        Err(failure) => {
            tracing::debug!(?failure, "the store cannot be opened: its images are not known");
            return work(&mut Known { layers: None });
        }
    };
    let cancelled = session.cancelled();
    let layers = Layers::new(&session.lease, &cancelled);
    let result = work(&mut Known { layers: Some(&layers) })?;
    session.close()?;
    Ok(result)
}

struct Known<'k> {
    layers: Option<&'k Layers<'k>>,
}

impl Images for Known<'_> {
    fn resolve(
        &mut self,
        reference: &Reference,
        platform: &Platform,
        _: Span,
    ) -> Result<BaseImage, ImageError> {
        let error = |cause, message| ImageError { cause, message, notes: Vec::new(), help: None };
        let not_found =
            || error(ImageErrorCause::NotFound, format!("`{}` is not here", reference.familiar()));
        let layers = self.layers.ok_or_else(not_found)?;
        let found = image::local(layers, reference, platform)
            .map_err(|source| error(ImageErrorCause::Store, source.to_string()))?;
        let found = found.ok_or_else(not_found)?;
        Ok(BaseImage { image: found.id, config: found.config })
    }
}
