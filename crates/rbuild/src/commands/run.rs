//! `rbuild run`: one process from an image, in the foreground, with nothing left of it afterwards.
//!
//! What the process writes goes to a directory in this process' own area of the store, which goes away with it. Its output comes through
//! pipes or a terminal of its own and never to our own descriptors: through those it could reach files that it was not given.

pub(crate) mod request;
pub(crate) mod streams;
mod surroundings;

use image::{Disposable, FindError, Layers, LocalImage, RootfsError};
use oci::{Platform, Reference};
use sandbox::{Durability, SandboxError, Sandboxes, Spec, Upper};
use suggest::nearest;

use crate::build::errors::{EMULATOR_HELP, foreign, is_foreign};
use crate::build::request::platform;
use crate::cli::PullPolicy;
use crate::cli::option_names;
use crate::cli::{Global, RunArgs};
use crate::commands::failures;
use crate::commands::pull;
use crate::commands::registry::{Mover, View};
pub(crate) use crate::commands::run::request::Input;
use crate::commands::run::request::Request;
use crate::commands::run::surroundings::Surroundings;
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::listing::tell;
use crate::session::{Session, store_failure};
use crate::signals::Relay;

/// Runs a process and gives its exit code.
pub(crate) fn run(args: &RunArgs, global: &Global, environment: &Environment) -> Result<u8, Failure> {
    run_to_end(args, global, environment).map_err(told_apart)
}

/// A failure of ours as the caller can tell it from those of the process.
pub(crate) fn told_apart(failure: Failure) -> Failure {
    match failure.exit {
        Exit::Cancelled | Exit::NotRunnable | Exit::NotFound => failure,
        // All other codes could be the process' own.
        _ => Failure { exit: Exit::RunFailed, ..failure },
    }
}

fn run_to_end(args: &RunArgs, global: &Global, environment: &Environment) -> Result<u8, Failure> {
    check_image(args.image())?;
    let request = Request::read(args, environment)?;
    let (session, relay) = Session::open_with_relay(global)?;
    let cancelled = session.cancelled();
    let layers = Layers::new(&session.lease, &cancelled);
    let mover = Mover::new(&layers, &session.cancel, environment, &args.registry, View::of(environment));
    // Getting ready for any process takes as long as getting ready for this one, so both happen at once.
    let (sandboxes, spec) = std::thread::scope(|scope| {
        let sandboxes = scope.spawn(|| super::sandbox::open(&session, request.cgroup_parent.clone()));
        let spec = find_or_pull(&layers, args, &mover)
            .and_then(|image| Ok((spec(&request, &image, &layers)?, image.config.platform())))
            .and_then(|found| request.make_volumes().map(|()| found));
        (sandboxes.join(), spec)
    });
    let (spec, platform) =
        spec.map_err(|failure| if cancelled() { Failure::cancelled() } else { failure })?;
    let sandboxes = sandboxes
        .map_err(|panic| std::panic::resume_unwind(panic))
        .and_then(|opened| opened.map_err(|error| of_sandbox(&error, &Platform::host())))?;
    tracing::debug!("ready to start the process");
    let process = Start { sandboxes: &sandboxes, spec: &spec, platform: &platform, input: request.input };
    let code = process.follow(&relay)?;
    // Nothing may be mounted from the store's area when it is removed.
    sandboxes.settle();
    drop(sandboxes);
    session.close()?;
    Ok(code)
}

/// What stands before the image and is no option of ours looks like the image.
fn check_image(image: &str) -> Result<(), Failure> {
    if !image.starts_with('-') {
        return Ok(());
    }
    let written = image.split_once('=').map_or(image, |(name, _)| name);
    let names = option_names("run");
    let help = match nearest(written, names.iter().map(String::as_str)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "`rbuild run --help` lists the options".to_owned(),
    };
    let title = format!("`{written}` is no option of `rbuild run`");
    Err(Failure::usage(title, help))
}

/// The image that is here, else the registry's. One for another platform than was asked for is as good as none.
fn find_or_pull(layers: &Layers<'_>, args: &RunArgs, mover: &Mover<'_>) -> Result<LocalImage, Failure> {
    let name = args.image();
    let asked = args.platform.as_deref().map(platform).transpose()?;
    let wanted = asked.clone().unwrap_or_else(Platform::host);
    let pull = pull::policy(args.pull, args.offline)?;
    let always = matches!(pull, PullPolicy::Always | PullPolicy::Newer);
    let fits =
        |image: &LocalImage| asked.as_ref().is_none_or(|asked| image.config.platform().fit(asked).is_some());
    let of_platform_or_warned = |image| if asked.is_some() { image } else { warned_of_platform(image) };
    let mut here = None;
    let error = match image::find_for(layers, name, &wanted) {
        Ok(image) if fits(&image) && !always => return Ok(of_platform_or_warned(image)),
        Ok(image) if fits(&image) => {
            here = Some(image);
            FindError::NotFound { name: name.to_owned(), similar: None }
        }
        Ok(_) => FindError::NotFound { name: name.to_owned(), similar: None },
        Err(error) => error,
    };
    let similar = match &error {
        FindError::NotFound { similar, .. } => similar.clone(),
        _ => return Err(failures::of_find(&error)),
    };
    // What is only an id cannot be asked for anywhere.
    let reference = match (Reference::parse(name), here) {
        (Ok(reference), found) if pull != PullPolicy::Never => {
            here = found;
            reference
        }
        (_, Some(here)) => return Ok(of_platform_or_warned(here)),
        (_, None) => return Err(failures::of_find(&error)),
    };
    let pulled = match (mover.pull(&reference, &wanted), here) {
        // One that only exists here cannot be pulled.
        (Err(error), Some(here)) if error.is_not_found() || pull == PullPolicy::Newer => {
            tracing::warn!(%error, "the image in the store is used");
            return Ok(of_platform_or_warned(here));
        }
        (pulled, _) => pulled,
    };
    let pulled = pulled.map_err(|error| {
        let mut failure = error.into_failure();
        for diagnostic in &mut failure.diagnostics {
            diagnostic.notes.push(format!(
                "no image of that name {}is in the store{}",
                of_platform(asked.as_ref()),
                did_you_mean(similar.as_deref())
            ));
            diagnostic
                .help
                .get_or_insert_with(|| "bring it in with `rbuild load` or `rbuild import`".to_owned());
        }
        failure
    })?;
    Ok(of_platform_or_warned(pulled.image))
}

fn of_platform(asked: Option<&Platform>) -> String {
    asked.map_or_else(String::new, |platform| format!("for {platform} "))
}

fn did_you_mean(similar: Option<&str>) -> String {
    similar.map_or_else(String::new, |similar| format!("; did you mean `{similar}`?"))
}

fn warned_of_platform(image: LocalImage) -> LocalImage {
    let (own, host) = (image.config.platform(), Platform::host());
    if own.fit(&host).is_none() {
        tell(format_args!("warning: the image is for {own}, and this machine is {host}"));
    }
    image
}

/// Everything that the sandbox has to know.
fn spec(request: &Request, image: &LocalImage, layers: &Layers<'_>) -> Result<Spec, Failure> {
    let of_rootfs = |error: RootfsError| match &error {
        RootfsError::Image(error) => failures::of_image(error),
        _ => Failure::new(Exit::RunFailed, Diagnostic::from_error("rootfs", &error)),
    };
    let rootfs = Disposable::new(layers, &image.layers).map_err(of_rootfs)?;
    let scratch = || layers.lease().scratch_dir().map_err(|error| store_failure(&error));
    let (directory, work) = (scratch()?, scratch()?);
    rootfs.prepare_top(&directory).map_err(of_rootfs)?;
    let upper = Upper { directory, work, durability: Durability::Discarded };
    let root = sandbox::Layers { lower: rootfs.lower, upper: Some(upper) };
    request.spec(&image.config.execution, root, Surroundings::of(request)?)
}

/// A process to be started.
pub(crate) struct Start<'s> {
    pub(crate) sandboxes: &'s Sandboxes,
    pub(crate) spec: &'s Spec,
    /// What its programs are made for.
    pub(crate) platform: &'s Platform,
    pub(crate) input: Input,
}

impl Start<'_> {
    /// Starts it and stays until it ends; gives its code.
    pub(crate) fn follow(&self, relay: &Relay) -> Result<u8, Failure> {
        let (process, output) =
            self.sandboxes.start(self.spec).map_err(|error| of_sandbox(&error, self.platform))?;
        relay.pass_on_to(process.signaller(), streams::terminal_size);
        tracing::debug!("the process runs");
        let exit = streams::carry(process, output, self.input)?;
        tracing::debug!(?exit, "the process has ended");
        Ok(exit.code())
    }
}

/// Why the process of an image for `platform` does not start.
fn of_sandbox(error: &SandboxError, platform: &Platform) -> Failure {
    let exit = match error.exit_code() {
        127 => Exit::NotFound,
        126 => Exit::NotRunnable,
        _ => Exit::RunFailed,
    };
    let mut diagnostic = Diagnostic::from_error("sandbox", error);
    diagnostic.help = match error {
        SandboxError::NotRunnable { .. } | SandboxError::MissingInterpreter { .. }
            if is_foreign(platform) =>
        {
            diagnostic.notes.push(foreign(platform));
            Some(EMULATOR_HELP.to_owned())
        }
        SandboxError::NeedsRoot => Some("run rbuild as root".to_owned()),
        SandboxError::MissingInterpreter { .. } => {
            Some("the image lacks the shell or C library that the program was made for".to_owned())
        }
        _ => None,
    };
    Failure::new(exit, diagnostic)
}
