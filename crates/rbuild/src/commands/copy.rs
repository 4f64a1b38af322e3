//! `rbuild copy`: images from one registry to another.

use std::sync::Arc;

use image::copy::{self, CopyError, CopyOptions, Progress};
use oci::Platform;

use crate::build::request::platform;
use crate::cli::CopyArgs;
use crate::commands::registry::{ClientError, Connection, Shown, TRANSFERS, View, Way};
use crate::commands::{names, push};
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::listing::write_line;
use crate::session::unless_cancelled;
use crate::signals;

/// `rbuild copy`.
pub(crate) fn copy(args: &CopyArgs, environment: &Environment) -> Result<(), Failure> {
    let (from, to) = (names::name(&args.source)?, names::new_name(&args.destination)?);
    let platform = args.platform.as_deref().map(platform).transpose()?;
    let cancel = Arc::default();
    signals::cancel_on_interrupt(&cancel)?;
    let connection = Connection::new(&cancel, environment, &args.registry);
    let (client, _hook) = connection.client().map_err(ClientError::into_failure)?;
    let shown = view(args.quiet, environment).begin(Way::Copy, &to);
    let progress = |progress| tell(&shown, progress);
    let options = CopyOptions { with_referrers: args.referrers, ..options(platform.as_ref(), &progress) };
    let copied = copy::copy(client, &from, &to, options);
    shown.end(copied.as_ref().ok().map(|copied| &copied.digest));
    let copied = copied.map_err(|error| unless_cancelled(&cancel, of_copy(&error)))?;
    write_line(to.at_digest(copied.digest).familiar())
}

pub(crate) fn view(is_quiet: bool, environment: &Environment) -> View {
    if is_quiet { View::Quiet } else { View::of(environment) }
}

pub(crate) fn options<'o>(
    platform: Option<&'o Platform>,
    progress: &'o (dyn Fn(Progress) + Sync),
) -> CopyOptions<'o> {
    CopyOptions { platform, with_referrers: false, transfers: TRANSFERS, progress }
}

pub(crate) fn tell(shown: &Shown, progress: Progress) {
    match progress {
        Progress::Found { blobs } => shown.counted(blobs),
        Progress::Began { blob, bytes } => shown.began(&blob, bytes),
        Progress::Moved { blob, bytes } => shown.has_moved(&blob, bytes),
        Progress::Ended { blob, delivery } => shown.ended(&blob, push::how(delivery)),
    }
}

pub(crate) fn of_copy(error: &CopyError) -> Failure {
    Failure::new(Exit::Network, Diagnostic::from_error("copy", error))
}
