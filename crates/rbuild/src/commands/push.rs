//! Images into registries.

pub(crate) mod ahead;

use std::sync::Arc;

use image::export::{Annotation, Encoding, Format};
use image::push::{self, Progress, PushFailure, PushOptions, Pushed};
use image::{Layers, LocalImage};
use oci::{Platform, Reference};
use registry::{Delivery, Failure as RegistryFailure, RedirectError};

use crate::build::request::platform;
use crate::cli::{Global, PushArgs};
use crate::commands::push::ahead::Ahead;
use crate::commands::registry::{ClientError, Mover, Shown, TRANSFERS, View, Way, way_to_trust};
use crate::commands::{failures, names, transfer};
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::listing::write_line;
use crate::session::{Session, unless_cancelled};

/// How an image is sent to a registry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Push {
    /// How layers of our own making are compressed for it.
    pub(crate) encoding: Encoding,
    /// Whether it gets no name there but its digest.
    pub(crate) by_digest: bool,
    /// Whether it is called NAME@DIGEST here, too.
    pub(crate) names_digest: bool,
}

impl From<Encoding> for Push {
    fn from(encoding: Encoding) -> Self {
        Self { encoding, by_digest: false, names_digest: false }
    }
}

/// Why an image could not be pushed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    /// There is no client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The image or the registry.
    #[error(transparent)]
    Push(#[from] push::PushError),
    /// It is there, and cannot be named here.
    #[error(transparent)]
    Name(#[from] image::Error),
}

impl PushError {
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::Client(error) => error.into_failure(),
            Self::Name(error) => failures::of_image(&error),
            Self::Push(push::PushError { failure: PushFailure::Export(error), .. }) => {
                failures::of_export(&error)
            }
            Self::Push(error) => {
                let exit = match &error.failure {
                    PushFailure::Registry(failure) if matches!(**failure, registry::PushError::Source(_)) => {
                        Exit::Machine
                    }
                    _ => Exit::Network,
                };
                let mut diagnostic = Diagnostic::from_error("push", &error);
                diagnostic.help = way_out(&error);
                Failure::new(exit, diagnostic)
            }
        }
    }
}

fn way_out(error: &push::PushError) -> Option<String> {
    let PushFailure::Registry(failure) = &error.failure else { return None };
    let registry::PushError::Request(request) = &**failure else { return None };
    let (registry, repository) = (error.reference.registry(), error.reference.repository());
    match &*request.failure {
        RegistryFailure::Denied { .. } | RegistryFailure::Token(_) | RegistryFailure::Credentials(_) => {
            Some(format!("log in with `rbuild login {registry}`, as somebody who may push"))
        }
        RegistryFailure::NotFound { .. } => Some(format!(
            "at some registries a repository must be made before anything is pushed: make `{repository}`"
        )),
        RegistryFailure::Status { status: 413, .. } => Some(format!(
            "`{}`, or a proxy before it, takes no body as large as a layer: its limit is to be raised",
            request.host
        )),
        RegistryFailure::Redirect(RedirectError::Unprotected(_)) => Some(format!(
            "a proxy before `{registry}` has to tell it that it is reached by https (X-Forwarded-Proto)"
        )),
        _ => way_to_trust(request),
    }
}

impl Mover<'_> {
    /// Pushes an image, or an index of several, of which layers may have gone ahead.
    pub(crate) fn push(
        &self,
        images: Vec<LocalImage>,
        reference: &Reference,
        push: Push,
        annotations: &[Annotation],
        ahead: Option<&Ahead<'_>>,
    ) -> Result<Pushed, PushError> {
        let (client, _hook) = self.connection.client()?;
        let shown = Arc::new(self.view.begin(Way::Push, reference));
        let sent = ahead.map(|ahead| ahead.finish(&shown)).unwrap_or_default();
        let progress = |progress| show(&shown, &progress);
        let options = PushOptions {
            encoding: push.encoding,
            annotations,
            by_digest: push.by_digest,
            transfers: TRANSFERS,
            sent: &sent,
            progress: &progress,
        };
        let ids: Vec<_> = images.iter().map(|image| image.id.clone()).collect();
        let pushed = image::push(self.layers, client, images, reference, options);
        shown.end(pushed.as_ref().ok().map(|pushed| &pushed.digest));
        let pushed = pushed?;
        if push.names_digest {
            image::name(self.layers, &ids, &[reference.at_digest(pushed.digest.clone())])?;
        }
        Ok(pushed)
    }
}

fn show(shown: &Shown, progress: &Progress) {
    match progress {
        Progress::Began { layer, bytes } => shown.began(layer, *bytes),
        Progress::Sent { layer, bytes } => shown.has_moved(layer, *bytes),
        Progress::Ended { layer, delivery } => shown.ended(layer, how(*delivery)),
    }
}

/// How a blob came to be there, if that is something to tell.
pub(crate) fn how(delivery: Delivery) -> Option<&'static str> {
    match delivery {
        Delivery::Existed => Some("is there already"),
        Delivery::Mounted => Some("is taken over from another repository"),
        Delivery::Sent => None,
    }
}

/// `rbuild push`.
pub(crate) fn push(args: &PushArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let name = names::new_name(&args.reference)?;
    let platform = args.platform.as_deref().map(platform).transpose()?;
    let session = Session::open(global)?;
    let cancelled = session.cancelled();
    let layers = Layers::new(&session.lease, &cancelled);
    let view = if args.quiet { View::Quiet } else { View::of(environment) };
    let mover = Mover::new(&layers, &session.cancel, environment, &args.registry, view);
    for reference in references(args, &name, &layers)? {
        let images = images(&layers, &reference, platform.as_ref())?;
        let encoding = Encoding {
            is_forced: args.force_compression,
            ..transfer::compression(args.compression, Format::Oci).into()
        };
        let pushed = mover.push(images, &reference, encoding.into(), &[], None);
        let pushed = pushed.map_err(|error| unless_cancelled(&session.cancel, error.into_failure()))?;
        write_line(reference.at_digest(pushed.digest).familiar())?;
    }
    session.close()
}

/// The name, or all of its repository.
fn references(args: &PushArgs, name: &Reference, layers: &Layers<'_>) -> Result<Vec<Reference>, Failure> {
    if !args.all_tags {
        return Ok(vec![name.clone()]);
    }
    names::check_without_tag(&args.reference)?;
    let tags = layers.lease().store().tags().map_err(|error| crate::session::store_failure(&error))?;
    let of_repository = |other: &Reference| {
        other.registry() == name.registry()
            && other.repository() == name.repository()
            && other.digest().is_none()
    };
    let found: Vec<_> = tags.into_iter().map(|tag| tag.reference).filter(of_repository).collect();
    if found.is_empty() {
        let title = format!("no image of the repository `{}` is in the store", name.familiar_repository());
        let diagnostic = Diagnostic::error("no-image", title);
        return Err(Failure::new(Exit::Usage, diagnostic.help("`rbuild images` lists those that are here")));
    }
    Ok(found)
}

/// What a name means: all platforms, or the one asked for.
fn images(
    layers: &Layers<'_>,
    reference: &Reference,
    platform: Option<&Platform>,
) -> Result<Vec<LocalImage>, Failure> {
    let found = image::find_all(layers, &reference.familiar()).map_err(|error| failures::of_find(&error))?;
    let Some(platform) = platform else { return Ok(found) };
    let have: Vec<String> = found.iter().map(|image| image.config.platform().to_string()).collect();
    let fitting = found.into_iter().filter_map(|image| Some((image.config.platform().fit(platform)?, image)));
    match fitting.min_by_key(|(fit, _)| *fit) {
        Some((_, image)) => Ok(vec![image]),
        None => {
            let title = format!("`{}` is not here for {platform}", reference.familiar());
            let help = format!("it is here for {}", have.join(", "));
            Err(Failure::new(Exit::Usage, Diagnostic::error("no-platform", title).help(help)))
        }
    }
}
