//! Options of builders before: what they ask for is so anyway, or it is refused.

use crate::cli::LegacyArgs;
use crate::failure::Failure;

/// Refuses what asks for something that is not so.
pub(super) fn check(args: &LegacyArgs) -> Result<(), Failure> {
    if args.rm == Some(false) {
        return Err(refused(
            "`--rm=false` asks for containers of steps to stay, and steps have none",
            "`rbuild shell STAGE@STEP` opens a shell before or after any step of a build",
        ));
    }
    match args.isolation.as_deref() {
        None | Some("" | "default") => Ok(()),
        Some(other) => Err(refused(
            &format!("`--isolation {other}` is for Windows"),
            "leave it out: each step has namespaces of its own",
        )),
    }
}

/// What asks for something that has nothing to do here.
pub(super) fn notes(args: &LegacyArgs) -> Vec<&'static str> {
    let notes = [
        (args.force_rm == Some(true), "`--force-rm` has nothing to do: nothing is left of a step that fails"),
        (args.compress == Some(true), "`--compress` has nothing to do: the context is not sent anywhere"),
        (
            args.disable_content_trust == Some(false),
            "`--disable-content-trust=false` has nothing to do: signatures of that kind are not looked at",
        ),
    ];
    notes.into_iter().filter(|(is_given, _)| *is_given).map(|(_, note)| note).collect()
}

fn refused(title: &str, help: &str) -> Failure {
    Failure::usage(title, help)
}
