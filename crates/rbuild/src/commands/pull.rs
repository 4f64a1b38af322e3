//! Images from registries: the client with everything that it is told of this machine and its user.

use image::Layers;
use image::pull::{Progress, PullFailure, PullOptions, Pulled};
use oci::{Platform, Reference};
use registry::{Login, ManifestError, RequestError, ResolveError, TagsError};

use crate::build::request::platform;
use crate::cli::{Global, PullArgs, PullPolicy};
use crate::commands::registry::{ClientError, Mover, TRANSFERS, View, Way, way_to_trust};
use crate::commands::{failures, names};
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::listing::write_line;
use crate::session::{Session, unless_cancelled};

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    /// There is no client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The registry does not say which tags there are.
    #[error("cannot list the tags of `{}`", reference.familiar_repository())]
    Tags {
        reference: Box<Reference>,
        #[source]
        source: Box<TagsError>,
    },
    /// The registry, or what it gave.
    #[error(transparent)]
    Pull(#[from] image::pull::PullError),
}

impl PullError {
    /// Whether the registry says that there is no such image. To those it does not know, a registry may say instead that they may not see it.
    pub(crate) fn is_not_found(&self) -> bool {
        let Self::Pull(_) = self else { return false };
        self.request().is_some_and(|error| match &*error.failure {
            registry::Failure::NotFound { .. } => true,
            registry::Failure::Denied { login, .. } => *login == Login::Anonymous,
            _ => false,
        })
    }

    /// The request that failed, if it was the one for the manifest or for the tags.
    pub(crate) fn request(&self) -> Option<&RequestError> {
        match self {
            Self::Pull(image::pull::PullError { failure: PullFailure::Resolve(error), .. }) => match &**error
            {
                ResolveError::Manifest(ManifestError::Request(error)) => Some(error),
                _ => None,
            },
            Self::Tags { source, .. } => match &**source {
                TagsError::Request(error) => Some(error),
                _ => None,
            },
            Self::Pull(_) | Self::Client(_) => None,
        }
    }

    /// For a command that is about nothing but this image.
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::Client(error) => error.into_failure(),
            Self::Pull(image::pull::PullError { failure: PullFailure::Image(error), .. }) => {
                failures::of_image(&error)
            }
            Self::Pull(_) | Self::Tags { .. } => {
                let mut diagnostic = Diagnostic::from_error("pull", &self);
                diagnostic.help = self.request().and_then(way_to_trust);
                Failure::new(Exit::Network, diagnostic)
            }
        }
    }
}

/// When a registry is asked: with `--offline` never, which somebody who insists on asking cannot mean.
pub(crate) fn policy(pull: PullPolicy, is_offline: bool) -> Result<PullPolicy, Failure> {
    match pull {
        PullPolicy::Always | PullPolicy::Newer if is_offline => {
            let title = "`--pull` asks a registry, and `--offline` lets nobody do that";
            let diagnostic = Diagnostic::error("usage", title).help("leave out one of the two");
            Err(Failure::new(Exit::Usage, diagnostic))
        }
        PullPolicy::Missing if is_offline => Ok(PullPolicy::Never),
        pull => Ok(pull),
    }
}

impl Mover<'_> {
    /// All that there are of a repository.
    pub(crate) fn tags(&self, reference: &Reference) -> Result<Vec<Reference>, PullError> {
        let (client, _hook) = self.connection.client()?;
        client.tags(reference).map_err(|source| PullError::Tags {
            reference: Box::new(reference.clone()),
            source: Box::new(source),
        })
    }

    /// Pulls one image into the store and names it.
    pub(crate) fn pull(&self, reference: &Reference, platform: &Platform) -> Result<Pulled, PullError> {
        let (client, _hook) = self.connection.client()?;
        let shown = self.view.begin(Way::Pull, reference);
        let progress = |progress| match progress {
            Progress::Found { layers, .. } => shown.counted(layers),
            Progress::Began { layer, bytes } => shown.began(&layer, bytes),
            Progress::Received { layer, bytes } => shown.moved(&layer, bytes),
            Progress::Ended { layer } => shown.ended(&layer, None),
        };
        let options = PullOptions { platform, transfers: TRANSFERS, progress: &progress };
        let pulled = image::pull(self.layers, client, reference, options);
        shown.end(pulled.as_ref().ok().map(|pulled| &pulled.digest));
        Ok(pulled?)
    }
}

/// `rbuild pull`.
pub(crate) fn pull(args: &PullArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let reference = names::name(&args.reference)?;
    let platform = match &args.platform {
        None => Platform::host(),
        Some(text) => platform(text)?,
    };
    if args.all_tags {
        names::check_without_tag(&args.reference)?;
    }
    let session = Session::open(global)?;
    let cancelled = session.cancelled();
    let layers = Layers::new(&session.lease, &cancelled);
    let view = if args.quiet { View::Quiet } else { View::of(environment) };
    let mover = Mover::new(&layers, &session.cancel, environment, &args.registry, view);
    let failed = |error: PullError| unless_cancelled(&session.cancel, error.into_failure());
    let references = if args.all_tags { mover.tags(&reference).map_err(failed)? } else { vec![reference] };
    for reference in references {
        let pulled = mover.pull(&reference, &platform).map_err(failed)?;
        write_line(&pulled.image.id)?;
    }
    session.close()
}
