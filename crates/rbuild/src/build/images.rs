//! What a name in a Dockerfile means: the image that is here, else the registry's; and what is behind a URL.

use std::collections::BTreeMap;
use std::path::Path;

use dockerfile::Span;
use image::load::LoadError;
use image::{Layers, LocalImage};
use oci::{Digest, Platform, Reference};
use plan::{
    BaseImage, ContextName, GitDir, ImageError, ImageErrorCause, Images, RemoteContent, RemoteError,
    RemoteRequest, TimeSource,
};
use source::Access;

use crate::build::fetch::Fetcher;
use crate::build::input::{Place, archive};
use crate::build::lock::{LockedImage, Pins};
use crate::build::request::Layout;
use crate::cli::PullPolicy;
use crate::commands::pull::PullError;
use crate::commands::registry::{Mover, way_to_trust};

/// Layers of a layout that are read at once.
const READERS: usize = 4;

/// Where the contexts come from.
pub(crate) struct Places<'p> {
    pub(crate) main: Place,
    pub(crate) named: &'p BTreeMap<String, Place>,
    /// What standard input had for the main one.
    pub(crate) archive: Option<&'p Path>,
}

impl Places<'_> {
    fn of(&self, name: &ContextName) -> Option<&Place> {
        match name {
            ContextName::Main => Some(&self.main),
            ContextName::Named(name) => self.named.get(name),
        }
    }
}

/// Looks images up for one build.
pub(crate) struct Resolver<'r> {
    pub(crate) layers: &'r Layers<'r>,
    pub(crate) mover: Mover<'r>,
    pub(crate) fetcher: &'r Fetcher<'r>,
    pub(crate) layouts: &'r BTreeMap<Reference, Layout>,
    pub(crate) places: &'r Places<'r>,
    /// When the registry is asked.
    pub(crate) pull: PullPolicy,
    pub(crate) access: Access,
    /// What names are to mean.
    pub(crate) pins: &'r Pins,
}

impl Resolver<'_> {
    fn local(&self, reference: &Reference, platform: &Platform) -> Result<Option<LocalImage>, ImageError> {
        image::local(self.layers, reference, platform).map_err(|error| store_error(&error))
    }

    /// What a name means here and now.
    fn current(&self, reference: &Reference, platform: &Platform) -> Result<LocalImage, ImageError> {
        let found = match self.local(reference, platform)? {
            Some(here) if !self.asks_always() && fits(&here, platform) => here,
            Some(here) if self.pull == PullPolicy::Never => {
                let own = here.config.platform();
                let note = format!("the image of that name in the store is for {own}, not for {platform}");
                return Err(self.never_pulled(reference, platform, ImageErrorCause::NoSuchPlatform, &note));
            }
            None if self.pull == PullPolicy::Never => {
                let note = "no image of that name is in the store";
                return Err(self.never_pulled(reference, platform, ImageErrorCause::NotFound, note));
            }
            here => self.pulled(reference, platform, here)?,
        };
        let digest = self.digest(reference, &found)?;
        self.pins.found_image(reference, platform, LockedImage { digest, id: found.id.clone() });
        Ok(found)
    }

    /// What a registry has an image under that a name means here: the digest that the name has, or that it was pulled with, or one that is known
    /// for the image from elsewhere.
    fn digest(&self, reference: &Reference, image: &LocalImage) -> Result<Option<Digest>, ImageError> {
        let tag = self.layers.lease().store().tag(reference);
        let tag = tag.map_err(|error| store_error(&error.into()))?.filter(|tag| tag.has(&image.id));
        let pulled = reference.digest().cloned().or_else(|| tag?.pulled);
        Ok(pulled.or_else(|| image.manifests.first().map(|known| known.digest.clone())))
    }

    /// The image that is written down for a name: that in the store, else that of its digest in the name's repository.
    fn locked(
        &self,
        reference: &Reference,
        platform: &Platform,
        locked: &LockedImage,
    ) -> Result<LocalImage, ImageError> {
        let here = LocalImage::by_id(self.layers, &locked.id).map_err(|error| store_error(&error))?;
        if let Some(here) = here {
            return Ok(here);
        }
        let Some(digest) = &locked.digest else { return Err(only_here(reference, locked)) };
        let pinned = reference.at_digest(digest.clone());
        if self.pull == PullPolicy::Never {
            let note = format!("the image that it is locked to, {}, is not in the store", locked.id);
            return Err(self.never_pulled(&pinned, platform, ImageErrorCause::NotFound, &note));
        }
        let pulled = self.mover.pull(&pinned, platform);
        let image =
            pulled.map_err(|error| ImageError { help: self.pins.help(), ..pull_error(&pinned, &error) })?;
        if image.image.id == locked.id {
            return Ok(image.image);
        }
        let message = format!("`{}` for {platform} is not the image that is locked", pinned.familiar());
        let notes = vec![message.clone(), format!("its id is {}, not {}", image.image.id, locked.id)];
        Err(ImageError { cause: ImageErrorCause::NotFound, message, notes, help: self.pins.help() })
    }

    /// That an image is not here, of which nobody may be asked.
    fn never_pulled(
        &self,
        reference: &Reference,
        platform: &Platform,
        cause: ImageErrorCause,
        note: &str,
    ) -> ImageError {
        let option = match self.access {
            Access::Network => "--pull=never",
            Access::KeptOnly => "--offline",
        };
        let notes = vec![format!("{note}, and `{option}` lets nobody ask a registry")];
        let name = reference.familiar();
        let message = format!("there is no image `{name}`");
        let of_platform =
            if *platform == Platform::host() { String::new() } else { format!(" --platform {platform}") };
        let help = format!(
            "get it first with `rbuild pull{of_platform} {name}`, or load it with `rbuild load -i ARCHIVE`"
        );
        ImageError { cause, message, notes, help: Some(help) }
    }

    fn asks_always(&self) -> bool {
        matches!(self.pull, PullPolicy::Always | PullPolicy::Newer)
    }

    /// Pulls an image; `here` is what its name means without that.
    fn pulled(
        &self,
        reference: &Reference,
        platform: &Platform,
        here: Option<LocalImage>,
    ) -> Result<LocalImage, ImageError> {
        let error = match self.mover.pull(reference, platform) {
            Ok(pulled) => return Ok(pulled.image),
            Err(error) => error,
        };
        match here {
            // An image that only exists here cannot be pulled; that is no reason not to build on it.
            Some(here) if fits(&here, platform) && error.is_not_found() => Ok(here),
            Some(here) if fits(&here, platform) && self.pull == PullPolicy::Newer => {
                tracing::warn!(%error, "the image in the store is used");
                Ok(here)
            }
            Some(here) if !fits(&here, platform) => Err(other_platform(reference, &here, platform, &error)),
            _ => Err(pull_error(reference, &error)),
        }
    }
}

impl Images for Resolver<'_> {
    fn resolve(
        &mut self,
        reference: &Reference,
        platform: &Platform,
        _: Span,
    ) -> Result<BaseImage, ImageError> {
        if let Some(layout) = self.layouts.get(reference) {
            let picked = image::load::pick(self.layers, &layout.directory, &layout.pick, platform, READERS);
            let found = picked.map_err(|error| layout_error(layout, &error))?;
            return Ok(BaseImage { image: found.id, config: found.config });
        }
        let found = match self.pins.image(reference, platform)? {
            Some(locked) => self.locked(reference, platform, locked)?,
            None => self.current(reference, platform)?,
        };
        Ok(BaseImage { image: found.id, config: found.config })
    }

    fn fetch(&mut self, request: &RemoteRequest) -> Result<RemoteContent, RemoteError> {
        self.fetcher.resolve(request)
    }

    fn time(&mut self, source: &TimeSource) -> Result<Option<i64>, RemoteError> {
        match source {
            TimeSource::Remote(request) => self.fetcher.time(request),
            TimeSource::Context(name) => match self.places.of(name) {
                Some(Place::File(url)) => {
                    self.fetcher.time(&RemoteRequest::File { url: url.clone(), checksum: None })
                }
                Some(Place::Repository(url)) => {
                    let (url, git_dir) = (url.clone(), GitDir::Dropped);
                    let request = RemoteRequest::Repository { url, checksum: None, git_dir };
                    self.fetcher.of_user().time(&request)
                }
                Some(Place::Stdin) => Ok(self.places.archive.and_then(archive::youngest)),
                Some(Place::Directory(_)) | None => Ok(None),
            },
        }
    }
}

fn fits(image: &LocalImage, platform: &Platform) -> bool {
    image.config.platform().fit(platform).is_some()
}

fn store_error(error: &image::Error) -> ImageError {
    ImageError { cause: ImageErrorCause::Store, message: error.to_string(), notes: causes(error), help: None }
}

fn layout_error(layout: &Layout, error: &LoadError) -> ImageError {
    let cause = match error {
        // What cannot be read because it is not there is no trouble of the store.
        LoadError::Image(_) if layout.directory.is_dir() => ImageErrorCause::Store,
        LoadError::NoPlatform { .. } => ImageErrorCause::NoSuchPlatform,
        _ => ImageErrorCause::NotFound,
    };
    let mut notes = vec![error.to_string()];
    notes.extend(causes(error));
    let message = format!("there is no image `{}` in `{}`", layout.pick, layout.directory.display());
    let help = "give the directory of an OCI layout, and a tag or digest in it".to_owned();
    ImageError { cause, message, notes, help: Some(help) }
}

fn only_here(reference: &Reference, locked: &LockedImage) -> ImageError {
    let (name, id) = (reference.familiar(), &locked.id);
    let message = format!("there is no image {id} in the store, which `{name}` is locked to");
    let note = "it was made on the machine that wrote the lock file, and no registry is known to have it";
    let help = format!(
        "take it there with `rbuild save -o ARCHIVE {name}`, and load it here with `rbuild load -i ARCHIVE`"
    );
    let notes = vec![message.clone(), note.to_owned()];
    ImageError { cause: ImageErrorCause::NotFound, message, notes, help: Some(help) }
}

fn pull_error(reference: &Reference, error: &PullError) -> ImageError {
    let mut notes = vec![format!(
        "no image of that name is in the store; tried to pull it from {}",
        reference.registry()
    )];
    notes.push(error.to_string());
    notes.extend(causes(error));
    let cause = if error.is_not_found() { ImageErrorCause::NotFound } else { ImageErrorCause::Registry };
    let message = format!("there is no image `{}`", reference.familiar());
    let help = error.request().and_then(way_to_trust).unwrap_or_else(|| way_out(reference));
    ImageError { cause, message, notes, help: Some(help) }
}

fn other_platform(
    reference: &Reference,
    here: &LocalImage,
    wanted: &Platform,
    error: &PullError,
) -> ImageError {
    let own = here.config.platform();
    let mut notes = vec![format!("the image of that name in the store is for {own}; tried to pull another")];
    notes.push(error.to_string());
    notes.extend(causes(error));
    ImageError {
        cause: ImageErrorCause::NoSuchPlatform,
        message: format!("there is no image `{}` for {wanted}", reference.familiar()),
        notes,
        help: Some(format!(
            "to build on the one that is here, write `FROM --platform={own} {}`",
            reference.familiar()
        )),
    }
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
