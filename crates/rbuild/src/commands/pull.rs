//! Images from registries: the client with everything that it is told of this machine and its user.

mod client;
mod progress;

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;

use image::Layers;
use image::pull::{PullFailure, PullOptions, Pulled};
use oci::{Platform, PlatformError, Reference};
use registry::{Client, CredentialsError, Login, ManifestError, ResolveError};
use solver::Cancel;
use web::RootsError;

use crate::cli::{Global, PullArgs};
use crate::commands::failures;
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::session::Session;

pub(crate) use progress::View;

/// How many layers come at once: more than one, since a single connection seldom fills the line; few, since registries count requests.
const TRANSFERS: usize = 4;

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    /// A file with credentials is there and cannot be used.
    #[error("cannot use the credentials in `{}`", path.display())]
    Credentials {
        path: PathBuf,
        #[source]
        source: CredentialsError,
    },
    /// A file with credentials is there and cannot be read.
    #[error("cannot read the credentials in `{}`", path.display())]
    CredentialsFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The certificates of this machine.
    #[error("no connection to registries can be made")]
    Roots(#[from] RootsError),
    /// The registry, or what it gave.
    #[error(transparent)]
    Pull(#[from] image::pull::PullError),
}

impl PullError {
    /// Whether the registry says that there is no such image. To those it does not know, a registry may say instead that they may not see it.
    pub(crate) fn is_not_found(&self) -> bool {
        let Self::Pull(image::pull::PullError { failure: PullFailure::Resolve(error), .. }) = self else {
            return false;
        };
        let ResolveError::Manifest(ManifestError::Request(error)) = &**error else { return false };
        match &*error.failure {
            registry::Failure::NotFound { .. } => true,
            registry::Failure::Denied { login, .. } => *login == Login::Anonymous,
            _ => false,
        }
    }

    /// For a command that is about nothing but this image.
    pub(crate) fn into_failure(self) -> Failure {
        let diagnostic = Diagnostic::from_error("pull", &self);
        match &self {
            Self::Pull(image::pull::PullError { failure: PullFailure::Image(error), .. }) => {
                failures::of_image(error)
            }
            Self::Pull(_) => Failure::new(Exit::Network, diagnostic),
            Self::Roots(_) => Failure::new(Exit::Machine, diagnostic),
            Self::Credentials { .. } | Self::CredentialsFile { .. } => Failure::new(
                Exit::Usage,
                diagnostic.help("log in again with `docker login` or `podman login`"),
            ),
        }
    }
}

/// Pulls images for one command.
pub(crate) struct Puller<'p> {
    layers: &'p Layers<'p>,
    cancel: &'p Cancel,
    environment: &'p Environment,
    view: View,
    /// Made when the first image is asked for: most commands need none.
    client: OnceCell<Client>,
}

impl<'p> Puller<'p> {
    pub(crate) fn new(
        layers: &'p Layers<'p>,
        cancel: &'p Arc<Cancel>,
        environment: &'p Environment,
        view: View,
    ) -> Self {
        Self { layers, cancel, environment, view, client: OnceCell::new() }
    }

    /// Pulls one image into the store and names it.
    pub(crate) fn pull(&self, reference: &Reference, platform: &Platform) -> Result<Pulled, PullError> {
        let client = self.client()?;
        let _hook = self.cancel.hook({
            let client = client.clone();
            move || client.cancel()
        });
        let shown = self.view.begin(reference);
        let options =
            PullOptions { platform, transfers: TRANSFERS, progress: &|progress| shown.show(&progress) };
        let pulled = image::pull(self.layers, client, reference, options);
        shown.end(pulled.as_ref().ok());
        Ok(pulled?)
    }

    fn client(&self) -> Result<&Client, PullError> {
        match self.client.get() {
            Some(client) => Ok(client),
            None => {
                let client = client::connect(self.environment)?;
                Ok(self.client.get_or_init(|| client))
            }
        }
    }
}

/// `rbuild pull`.
pub(crate) fn pull(args: &PullArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let usage =
        |title: String, help: &str| Failure::new(Exit::Usage, Diagnostic::error("usage", title).help(help));
    let reference = Reference::parse(&args.reference).map_err(|error| {
        usage(
            format!("`{}` is no image name: {error}", args.reference),
            "a name looks like `alpine` or `alpine:3.20`",
        )
    })?;
    let platform = match &args.platform {
        None => Platform::host(),
        Some(text) => text.parse().map_err(|error: PlatformError| {
            usage(error.to_string(), "write it as OS/ARCH, such as `linux/arm64`")
        })?,
    };
    let session = Session::open(global)?;
    let cancelled = session.cancelled();
    let layers = Layers::new(&session.lease, &cancelled);
    let puller = Puller::new(&layers, &session.cancel, environment, View::of(environment));
    let pulled = puller.pull(&reference, &platform);
    let pulled = pulled.map_err(|error| match session.cancel.is_cancelled() {
        true => Failure::cancelled(),
        false => error.into_failure(),
    })?;
    println!("{}", pulled.image.id);
    session.close()
}
